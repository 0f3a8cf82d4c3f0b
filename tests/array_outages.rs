//! Arrays on several nodes, and what becomes of them when supervisors, machines and nodes fail.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs;

use common::array::{noted, ranges, runs, tasks, tasks_reach};
use common::head::{drain_localhost, host, node_reaches, open_root, register};
use common::{SOON, TestRoot, signal, wait_for};
use serde_json::{Value, json};

#[test]
fn supervisors_die() {
    let root = open_root("");
    let _poller = root.poller();
    let script = format!(
        "[ $CORKBOARD_TASK != 3 ] || until [ -e {}/go ]; do sleep 0.02; done",
        root.path("").display()
    );
    let job = root.submit(&json!({"command": noted(&root, "ran", &script), "array": "0-19"}));
    tasks_reach(&root, job, |_| runs(&root, "ran").contains_key(&3));
    let story = wait_for(SOON, || {
        let range = ranges(&root).into_iter().find(|id| {
            root.read(&format!("state/processor/job/{id}/request.json")).contains("\"0-4\"")
        });
        range.ok_or("no range has task 3".to_string())
    });
    let supervisor = wait_for(SOON, || {
        let slots = fs::read_dir(root.path("state/processor/slot")).unwrap();
        let records = slots.map(|slot| fs::read_to_string(slot.unwrap().path()).unwrap());
        let record = records.into_iter().find(|record| record.contains(&format!("\"{story}\"")));
        let record: Value = serde_json::from_str(&record.ok_or("no slot names it")?).unwrap();
        record["pid"].as_i64().ok_or("no pid".to_string())
    });
    signal(supervisor as i32, "KILL");
    let end = root.reaches(job, "stopped");
    assert_eq!((&tasks(&end)["failed_tasks"], &tasks(&end)["good"]), (&json!("3"), &json!(19)));
    let three = root.cmd("scheduler", &["jobs", &job.to_string(), "status", "task=3"]).expect(0);
    assert_eq!(three.json()["cause"], "lost");
    assert!(runs(&root, "ran").values().all(|count| *count == 1), "{:?}", runs(&root, "ran"));
    root.check();
}

#[test]
fn the_machine_is_restarted() {
    let mut root = open_root("");
    let poller = root.poller();
    let until = format!("until [ -e {}/go ]; do sleep 0.02; done", root.path("").display());
    let command = noted(&root, "ran", &until);
    let job = root.submit(&json!({"command": command, "array": "0-9", "max_retry_count": 1}));
    tasks_reach(&root, job, |tasks| tasks["running"] == 2);
    let before = runs(&root, "ran");
    poller.end("KILL");
    for pid in root.processes() {
        signal(pid, "KILL");
    }
    root.write("go", "");
    root.env.push(("CORKBOARD_BOOT_ID".into(), "another-boot".into()));
    let _poller = root.poller();
    let end = root.reaches(job, "stopped");
    assert_eq!(
        tasks(&end)["good"],
        10,
        "what was never started goes on, what was is retried: {end}"
    );
    let lost: u32 = before.len() as u32;
    let total: u32 = runs(&root, "ran").into_values().sum();
    assert_eq!(total, 10 + lost);
    root.check();
}

#[test]
fn several_nodes_share_one_array() {
    let root = open_root("");
    let (one, httpd_one, token_one) = host("");
    let (two, httpd_two, token_two) = host("");
    register(&root, &json!({"name": "one", "uri": httpd_one.url(), "token": token_one}));
    register(&root, &json!({"name": "two", "uri": httpd_two.url(), "token": token_two}));
    let _poller = root.poller();
    wait_for(SOON, || {
        let nodes = root.cmd("scheduler", &["nodes", "list"]).expect(0).body;
        if nodes.matches("\"connected\"").count() >= 3 { Ok(()) } else { Err(nodes) }
    });
    let command = noted(&root, "ran", "sleep 0.02");
    let job = root.submit(&json!({"command": command, "array": "0-199"}));
    let end = root.reaches(job, "stopped");
    assert_eq!((&tasks(&end)["good"], &end["node"]), (&json!(200), &Value::Null), "{end}");
    assert!(runs(&root, "ran").values().all(|count| *count == 1));
    for node in [&root, &one, &two] {
        assert!(!ranges(node).is_empty());
        node.cmd("processor", &["check"]).expect(0);
    }
    let id = root.card(job);
    let placed = id.iter().find(|line| line["node"] == "two").expect("two has a range");
    let first = placed["tasks"].as_str().unwrap().split(['-', ',']).next().unwrap().to_string();
    let words = ["jobs", &job.to_string(), "log", &format!("task={first}")].map(String::from);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    root.cmd("scheduler", &words).expect(0);
    root.check();
}

/// A node that does not come back: what it had goes elsewhere, where the request allows that,
/// since nobody can prove that it does not run there.
#[test]
fn the_unfinished_range_of_a_lost_node() {
    for retry in [true, false] {
        let conf = "lost_after = 1s\nconnect_timeout = 1s\nrequest_timeout = 2s\n";
        let root = open_root(conf);
        let (there, httpd, token) = host("");
        register(&root, &json!({"name": "there", "uri": httpd.url(), "token": token}));
        drain_localhost(&root);
        let _poller = root.poller();
        let until = format!("until [ -e {}/go ]; do sleep 0.02; done", root.path("").display());
        let script = format!("[ $CORKBOARD_TASK -lt 2 ] || {until}");
        let job = root.submit(&json!({
            "command": noted(&root, "ran", &script), "array": "0-11",
            "max_retry_count": 1, "retry_lost": retry,
        }));
        tasks_reach(&root, job, |tasks| tasks["good"] == 2 && tasks["running"] == 2);
        let before = runs(&root, "ran");
        httpd.cut();
        for pid in there.processes() {
            signal(pid, "KILL");
        }
        root.write("go", "");
        let open = r#"{"drain": false}"#;
        root.cmd("scheduler", &["nodes", "localhost", "update", "-d", open]).expect(0);
        let end = root.reaches(job, "stopped");
        if retry {
            assert_eq!(tasks(&end)["good"], 12, "{end}");
            let twice: Vec<u32> =
                runs(&root, "ran").into_iter().filter(|(_, n)| *n > 1).map(|(t, _)| t).collect();
            assert!(twice.iter().all(|task| before.contains_key(task) && *task > 1), "{twice:?}");
        } else {
            let failures = root.cmd("scheduler", &["jobs", &job.to_string()]).expect(0).json();
            assert_eq!(failures["failures"].as_array().map(Vec::len), Some(1), "{failures}");
            assert_eq!(failures["failures"][0]["reason"], "abandoned (node unreachable)");
            assert!(runs(&root, "ran").values().all(|count| *count == 1));
        }
        root.check();
    }
}

/// A task that somebody killed while its node could not be reached ends as killed, not as lost;
/// what the node says when it is back enters the history.
#[test]
fn killing_a_task_on_a_node_that_is_away() {
    let root = open_root("lost_after = 1s\nconnect_timeout = 1s\nrequest_timeout = 2s\n");
    let (there, httpd, token) = host("");
    register(&root, &json!({"name": "there", "uri": httpd.url(), "token": token}));
    drain_localhost(&root);
    let _poller = root.poller();
    let job = root.submit(&json!({"command": ["sleep", "300"], "array": "0-3"}));
    tasks_reach(&root, job, |tasks| tasks["running"] == 2);
    let port = httpd.port;
    httpd.cut();
    let number = job.to_string();
    root.cmd("scheduler", &["jobs", &number, "update", "kill=1", "task=0"]).expect(0);
    tasks_reach(&root, job, |tasks| tasks["failed"] == 2);
    let of_task = |task: u32| {
        root.cmd("scheduler", &["jobs", &number, "status", &format!("task={task}")])
            .expect(0)
            .json()
    };
    let (killed, lost) = (of_task(0), of_task(1));
    assert_eq!((&killed["cause"], &lost["cause"]), (&json!("killed"), &json!("lost")));
    let reason = killed["reason"].as_str().unwrap();
    assert!(reason.ends_with("; abandoned (node unreachable)"), "{killed}");
    let _httpd = there.httpd_on(port);
    wait_for(SOON, || {
        let late = root.card(job).iter().filter(|line| line["event"] == "late").count();
        if late == 2 { Ok(()) } else { Err(format!("{:?}", root.card(job))) }
    });
    let status = root.status(job);
    assert_eq!(tasks(&status)["failed"], 2, "{status}");
    root.cmd("scheduler", &["jobs", &number, "update", "kill=1"]).expect(0);
    root.reaches(job, "stopped");
    root.check();
}

/// A node that would not have a range does not hold up those that run them.
#[test]
fn a_node_that_refuses_holds_up_no_other() {
    let root = open_root("");
    let (there, httpd, token) = host("max_body = 200\n");
    register(&root, &json!({"name": "there", "uri": httpd.url(), "token": token}));
    let _poller = root.poller();
    wait_for(SOON, || {
        let nodes = root.cmd("scheduler", &["nodes", "list"]).expect(0).body;
        if nodes.matches("\"connected\"").count() == 2 { Ok(()) } else { Err(nodes) }
    });
    let job = root.submit(&json!({"command": ["sleep", "0.05"], "array": "0-39"}));
    let end = root.reaches(job, "stopped");
    assert_eq!(tasks(&end)["good"], 40, "{end}");
    let card = root.card(job);
    let text = |line: &Value, field: &str| line[field].as_str().unwrap_or_default().to_string();
    let refused = card.iter().position(|line| line["event"] == "refused").expect("it refuses");
    let until = text(&card[refused], "not_before");
    let mut later = card[refused..].iter().filter(|line| line["event"] == "placed");
    let early: Vec<_> = later.clone().filter(|line| text(line, "at") < until).collect();
    assert!(early.iter().any(|line| line["node"] == "localhost"), "{card:?}");
    assert!(early.iter().all(|line| line["node"] != "there"), "{card:?}");
    assert!(later.all(|line| line["node"] != "there" || text(line, "at") >= until));
    assert!(ranges(&there).is_empty());
    root.check();
}

/// The last task of a range goes on far longer than the others: its core is not free, however short
/// they were, and what comes next goes to the node that is idle.
#[test]
fn a_straggler_keeps_its_core() {
    let root = TestRoot::new("cores = 1\nmemory = 4 GiB\n");
    root.open();
    let _poller = root.poller();
    let until = format!("until [ -e {}/go ]; do sleep 0.02; done", root.path("").display());
    let script = format!("[ $CORKBOARD_TASK != 49 ] || {until}");
    let array = root.submit(&json!({"command": script, "array": "0-49"}));
    tasks_reach(&root, array, |tasks| tasks["good"] == 49 && tasks["running"] == 1);
    let (_there, httpd, token) = host("");
    register(&root, &json!({"name": "there", "uri": httpd.url(), "token": token}));
    node_reaches(&root, "there", "connected");
    for _ in 0..2 {
        let job = root.submit(&json!({"command": ["true"]}));
        let end = root.reaches(job, "stopped");
        assert_eq!(end["node"], "there", "{end}");
    }
    root.write("go", "");
    assert_eq!(tasks(&root.reaches(array, "stopped"))["good"], 50);
    root.check();
}

/// A node that would not have a range, and alone has room, holds the array up only until another
/// one has room.
#[test]
fn only_the_node_that_refuses_is_waited_for() {
    let root = TestRoot::new("cores = 1\nmemory = 4 GiB\n");
    root.open();
    let (_there, httpd, token) = host("max_body = 200\n");
    register(&root, &json!({"name": "there", "uri": httpd.url(), "token": token}));
    let _poller = root.poller();
    for node in ["localhost", "there"] {
        node_reaches(&root, node, "connected");
    }
    let until = format!("until [ -e {}/go ]; do sleep 0.02; done", root.path("").display());
    let other = root.submit(&json!({"command": until}));
    root.reaches(other, "running");
    let job = root.submit(&json!({"command": ["true"], "array": "0-3"}));
    // Each time it waits twice as long before it asks again.
    let refused = wait_for(SOON, || {
        let card = root.card(job);
        let mut refused = card.into_iter().filter(|line| line["event"] == "refused");
        refused.nth(3).ok_or("not refused four times".to_string())
    });
    root.write("go", "");
    assert_eq!(tasks(&root.reaches(job, "stopped"))["good"], 4);
    let card = root.card(job);
    let last = card.iter().rfind(|line| line["event"] == "refused").unwrap();
    let placed = card.iter().find(|line| line["event"] == "placed" && line["node"] == "localhost");
    assert_eq!(last, &refused, "{card:?}");
    let time = |line: &Value, field: &str| line[field].as_str().unwrap().to_string();
    assert!(time(placed.unwrap(), "at") < time(last, "not_before"), "{card:?}");
    root.check();
}
