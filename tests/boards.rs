//! Trees that the programs of a released layout wrote: every later version reads, continues and
//! checks them. They lie in `tests/boards`, with what those programs said of them.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::net::TcpListener;

use common::boards::{answers, restore};
use common::{TestRoot, until};
use serde_json::{Value, json};

/// What the trees were made with.
const CONF: &str = "memory = 4 GiB\nscan_every = 0.5\nconnect_timeout = 1\nrequest_timeout = 5\nunknown_after = 1\nlost_after = 1h\n";

const LAYOUT: &str = "0.1";

/// The machine that they were made on is not this one.
const BOOT: &str = "another-boot";

fn root(tree: &str, cores: u32) -> TestRoot {
    let mut root = TestRoot::new(&format!("cores = {cores}\n{CONF}"));
    root.env.push(("CORKBOARD_BOOT_ID".into(), BOOT.into()));
    restore(LAYOUT, tree, &root, None);
    root
}

fn number(answers: &Value, name: &str) -> u64 {
    answers["names"][name].as_u64().unwrap_or_else(|| panic!("{name}"))
}

/// Whether all that was said is still said. More may be said by now, and why a job waits may be
/// said in other words; since when it waits on its node is the time of a file, here of its copy.
fn says(now: &Value, then: &Value, path: &str) {
    match then {
        Value::Object(fields) => {
            let waits = fields.get("state").is_some_and(|state| state != "stopped");
            for (name, value) in fields {
                if !waits || !["reason", "at"].contains(&name.as_str()) {
                    says(&now[name], value, &format!("{path}.{name}"));
                }
            }
        }
        Value::Array(items) => {
            assert_eq!(now.as_array().map(Vec::len), Some(items.len()), "{path}: {now}");
            for (index, item) in items.iter().enumerate() {
                says(&now[index], item, &format!("{path}[{index}]"));
            }
        }
        _ => assert_eq!(now, then, "{path}"),
    }
}

#[test]
fn every_card_is_read_as_the_programs_read_it_that_wrote_it() {
    let (root, answers) = (root("head", 4), answers(LAYOUT));
    let bad = number(&answers, "bad");
    for (job, then) in answers["jobs"].as_object().unwrap() {
        if *job == bad.to_string() {
            // It said so by an error then.
            let why = format!("its card cannot be read and lies in bad/{bad}.job");
            assert_eq!(root.status(bad)["reason"], why.as_str());
            continue;
        }
        let record = root.cmd("scheduler", &["jobs", job]);
        if then.get("error").is_some() {
            // Of a batch that is going to restore it: gone, they said then.
            let restored = (number(&answers, "first")..number(&answers, "prepared"))
                .contains(&job.parse().unwrap());
            record.expect(if restored { 75 } else { 1 });
            continue;
        }
        says(&record.expect(0).json(), &then["record"], job);
        let status = root.cmd("scheduler", &["jobs", job, "status"]).expect(0);
        says(&status.json(), &then["status"], job);
    }
    let listed = root.cmd("scheduler", &["jobs"]).expect(0).body;
    let listed: Vec<u64> = listed.lines().map(|line| line.parse().unwrap()).collect();
    let listed: Vec<u64> = listed.into_iter().filter(|job| *job != bad).collect();
    assert_eq!(json!(listed), answers["order"]);
    let nodes = root.cmd("scheduler", &["nodes", "list"]).expect(0).json();
    says(&nodes["nodes"], &answers["nodes"], "nodes");
    std::fs::remove_file(root.path("state/open")).unwrap();
    let token = format!("Bearer {}", answers["token"].as_str().unwrap());
    root.cgi("GET", "/scheduler/jobs", &[("Authorization", &token)], b"").expect(200);
    root.cgi("GET", "/scheduler/jobs", &[("Authorization", "Bearer cb_1_x")], b"").expect(401);
}

#[test]
fn every_run_of_a_node_is_read_as_the_programs_read_it_that_wrote_it() {
    let (root, answers) = (root("far", 8), answers(LAYOUT));
    for (id, then) in answers["runs"].as_object().unwrap() {
        let status = root.cmd("processor", &["jobs", id, "status"]);
        match then.get("error") {
            Some(_) => drop(status.expect(1)),
            None => says(&status.expect(0).json(), then, id),
        }
    }
}

#[test]
fn the_boards_are_continued_and_then_in_order() {
    let answers = answers(LAYOUT);
    let far = root("far", 8);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let httpd = far.try_httpd(port, &[("CORKBOARD_BOOT_ID", BOOT)]).unwrap();
    let mut head = TestRoot::new(&format!("cores = 4\n{CONF}"));
    head.env.push(("CORKBOARD_BOOT_ID".into(), BOOT.into()));
    restore(LAYOUT, "head", &head, Some(httpd.port));
    let job = |name: &str| number(&answers, name);
    let _pollers = (far.poller(), head.poller());
    for name in ["held", "refused", "waiting_array"] {
        head.update(job(name), "release=1").expect(0);
    }
    // What a restart of the machine cut off is lost, and tried again where that was asked for.
    let runs = head.reaches(job("runs"), "stopped");
    assert_eq!((&runs["cause"], &runs["attempt"]), (&json!("lost"), &json!(1)), "{runs}");
    for name in ["again", "far_runs"] {
        let again = head.reaches(job(name), "stopped");
        assert_eq!((&again["code"], &again["attempt"]), (&json!(0), &json!(2)), "{again}");
    }
    let stopping = head.reaches(job("stopping"), "stopped");
    assert_eq!(stopping["cause"], "killed", "{stopping}");
    let batch = job("first");
    let mut good = vec![batch, batch + 1, batch + 2];
    let names = ["partly", "refused", "placed", "queued", "held", "claimed", "waiting_array"];
    good.extend(names.iter().chain(&["uploads", "prepared"]).map(|name| job(name)));
    for job in good {
        let status = head.reaches(job, "stopped");
        assert_eq!(status["code"], 0, "{job}: {status}");
    }
    assert_eq!(head.log(job("uploads")), "from a file\n");
    let tasks = head.status(job("partly"))["tasks"].clone();
    assert_eq!(tasks["good"], 6, "{tasks}");
    for id in ["waits", "waits-too"] {
        assert_eq!(far.ended(id)["code"], 0, "{id}");
    }
    // A repeated request is the job that it was, a new one gets a number of its own.
    let again = json!({"command": "echo asked", "request_id": "once-1",
        "environment": {"COLOUR": "blue"}, "stdin": "in"});
    let answer = head.cgi("POST", "/scheduler/jobs/new", &[], again.to_string().as_bytes());
    assert_eq!(answer.expect(200).json()["job"], job("asked"));
    let new = head.submit(&json!({"command": "true"}));
    assert!(new > job("bad"), "{new}");
    head.reaches(new, "stopped");
    // The results that were kept for the head are safe now.
    until("all batches are done with", || !head.tree().contains(".batch"));
    // The bad card is what it was, and named; nothing else is wrong.
    let bad = head.path(&format!("state/scheduler/bad/{}.job", job("bad")));
    let found = head.cmd("scheduler", &["check"]).expect(1).body;
    assert!(found.starts_with(&format!("{}: ", bad.display())), "{found}");
    assert_eq!(found.lines().count(), 1, "{found}");
    std::fs::remove_file(bad).unwrap();
    head.check();
    far.check();
}
