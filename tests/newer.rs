//! What a newer program wrote and this one does not know is no damage: it is left alone, and said.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::time::Duration;

use common::head::open_root;
use common::{TestRoot, let_pass, until};
use serde_json::{Value, json};

fn append(root: &TestRoot, name: &str, line: &Value) {
    let mut file = File::options().append(true).open(root.path(name)).unwrap();
    file.write_all(format!("\n{line}\n").as_bytes()).unwrap();
}

/// A card as a newer program would have published it.
fn publish(root: &TestRoot, change: impl FnOnce(&mut Value)) -> u64 {
    let job = root.submit(&json!({"command": "true", "state": "held"}));
    let path = root.path(&format!("state/scheduler/queue/{job}.job"));
    let mut first: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    first["request"].as_object_mut().unwrap().remove("state");
    change(&mut first);
    fs::write(&path, format!("{first}\n")).unwrap();
    job
}

/// Everything is refused, and nothing changes.
fn assert_untouchable(root: &TestRoot, job: u64, column: &str, what: &str) {
    let name = format!("state/scheduler/{column}/{job}.job");
    let before = root.read(&name);
    let why = format!("written by a newer version of corkboard ({what})");
    for request in ["kill=1", "hold=1", "release=1", "priority=3"] {
        let answer = root.cgi("POST", &format!("/scheduler/jobs/{job}/update?{request}"), &[], b"");
        let error = answer.expect(409).json()["error"].as_str().unwrap().to_string();
        assert_eq!(error, format!("job {job}: its card was {why}"), "{request}");
    }
    root.cgi("DELETE", &format!("/scheduler/queue/{job}"), &[], b"").expect(409);
    for path in ["", "/status"] {
        let answer = root.cgi("GET", &format!("/scheduler/jobs/{job}{path}"), &[], b"").expect(200);
        assert_eq!(answer.json()["reason"], why, "{path}");
    }
    let listed = root.cmd("scheduler", &["jobs"]).expect(0).body;
    assert!(listed.lines().any(|line| line == job.to_string()), "{listed}");
    for repair in [&["check"][..], &["check", "--repair"]] {
        let check = root.cmd("scheduler", repair).expect(0);
        let path = root.path(&name);
        assert!(check.body.contains(&format!("note: {}: {why}\n", path.display())), "{check:?}");
    }
    assert_eq!(root.read(&name), before, "{}", root.tree());
}

#[test]
fn a_waiting_card_of_a_newer_program_is_neither_placed_nor_put_aside() {
    let root = open_root("");
    let field = publish(&root, |card| card["queue"] = "fast".into());
    let request = publish(&root, |card| card["request"]["after"] = json!([1]));
    let resource = publish(&root, |card| {
        card["request"]["requested_resources"] = json!({"cores": 1, "gpus": {"kind": "large"}});
    });
    let instead = publish(&root, |card| {
        card["request"] = json!({"pipeline": [["true"]]});
    });
    let value = publish(&root, |card| card["by"] = json!({"user": "ada"}));
    let event = publish(&root, |_| {});
    let name = format!("state/scheduler/queue/{event}.job");
    append(&root, &name, &json!({"at": "t", "event": "deferred", "by": "ada"}));
    let part = publish(&root, |_| {});
    let name = format!("state/scheduler/queue/{part}.job");
    append(&root, &name, &json!({"at": "t", "event": "held", "by": "ada", "tasks": "1"}));
    let poller = root.poller();
    let known = root.submit(&json!({"command": "true"}));
    root.reaches(known, "stopped");
    let is = |job, what| assert_untouchable(&root, job, "queue", what);
    is(field, r#"field "queue" in line 1"#);
    is(value, r#"value of "by" in line 1"#);
    is(request, r#"field "after" of the request in line 1"#);
    is(instead, r#"field "pipeline" of the request in line 1"#);
    is(event, r#"event "deferred" in line 3"#);
    is(part, r#"other fields of event "held" in line 3"#);
    let reason = root.status(resource)["reason"].as_str().unwrap().to_string();
    assert!(reason.contains("gpus"), "{reason}");
    let after = root.submit(&json!({"command": "true"}));
    root.reaches(after, "stopped");
    assert!(!root.tree().contains("bad/"), "{}", root.tree());
    let said = root.read("poller.log").matches(&format!("job {event}:")).count();
    assert_eq!(said, 1, "{}", root.read("poller.log"));
    // A damaged line is passed over as ever.
    drop(poller);
    let torn = publish(&root, |_| {});
    let path = root.path(&format!("state/scheduler/queue/{torn}.job"));
    File::options().append(true).open(path).unwrap().write_all(b"\n{\"at\":\"t\",\"ev").unwrap();
    let _poller = root.poller();
    root.reaches(torn, "stopped");
}

#[test]
fn a_running_card_of_a_newer_program_keeps_its_attempt_and_its_result() {
    let root = open_root("lost_after = 1s\nunknown_after = 1s\n");
    let poller = root.poller();
    let go = root.path("go").display().to_string();
    let job = root.submit(&json!({"command": format!("until [ -e {go} ]; do sleep 0.05; done")}));
    root.reaches(job, "running");
    let name = format!("state/scheduler/running/{job}.job");
    let card = root.read(&name);
    append(&root, &name, &json!({"at": "t", "event": "suspended", "by": "ada"}));
    let is = || assert_untouchable(&root, job, "running", r#"event "suspended" in line 7"#);
    is();
    root.write("go", "");
    let id = card.split("\"nodejob\":\"").nth(1).unwrap().split('"').next().unwrap().to_string();
    root.ended(&id);
    let other = root.submit(&json!({"command": "true"}));
    root.reaches(other, "stopped");
    // A poller that begins anew asks about all that it knows.
    drop(poller);
    let poller = root.poller();
    let other = root.submit(&json!({"command": "true"}));
    root.reaches(other, "stopped");
    is();
    // The newer program finds the result where it was.
    drop(poller);
    let file = File::options().write(true).open(root.path(&name)).unwrap();
    file.set_len(card.len() as u64).unwrap();
    let _poller = root.poller();
    assert_eq!(root.reaches(job, "stopped")["code"], 0);
    root.check();
}

/// Of what a newer program does to a card nobody tells this one.
#[test]
fn what_a_newer_program_has_ended_takes_no_room() {
    let root = open_root("");
    let _poller = root.poller();
    let go = root.path("go").display().to_string();
    let all = json!({"cores": 2});
    let job = root.submit(
        &json!({"command": format!("until [ -e {go} ]; do sleep 0.05; done"), "requested_resources": all}),
    );
    root.reaches(job, "running");
    let name = format!("state/scheduler/running/{job}.job");
    append(&root, &name, &json!({"at": "t", "event": "suspended", "by": "ada"}));
    until("it is left alone", || root.read("poller.log").contains("left alone"));
    let next = root.submit(&json!({"command": "true", "requested_resources": all}));
    root.reason(next, "waiting for room on localhost");
    let_pass(Duration::from_secs(1)); // it is no short job, after which another is sent ahead
    root.write("go", "");
    until("it has ended", || root.supervisors().is_empty());
    fs::create_dir_all(root.path("state/scheduler/done/0")).unwrap();
    fs::rename(root.path(&name), root.path(&format!("state/scheduler/done/0/{job}.job"))).unwrap();
    root.reaches(next, "stopped");
}

#[test]
fn a_node_whose_record_a_newer_program_wrote_is_left_alone_and_listed() {
    let root = open_root("");
    let dir = root.path("state/scheduler/nodes");
    fs::create_dir_all(&dir).unwrap();
    let records = [
        json!({"name": "farm", "driver": "batch", "uri": "http://127.0.0.1:9",
            "resources": {"cores": 64, "memory": 0}, "state": "connected"}),
        json!({"name": "gpu", "driver": "http", "uri": "http://127.0.0.1:9", "accelerators": 4,
            "resources": {"cores": 64, "memory": 0}, "state": "connected"}),
    ];
    for record in &records {
        let name = record["name"].as_str().unwrap();
        fs::write(dir.join(format!("{name}.json")), record.to_string()).unwrap();
    }
    let _poller = root.poller();
    let job = root.submit(&json!({"command": "true", "requested_resources": {"cores": 3}}));
    let small = root.submit(&json!({"command": "true"}));
    root.reaches(small, "stopped");
    assert_eq!(root.status(job)["state"], "queued");
    for record in &records {
        let name = record["name"].as_str().unwrap();
        let shown = root.cmd("scheduler", &["nodes", name]).expect(0).json();
        assert_eq!(shown["driver"], record["driver"]);
        let reason = shown["reason"].as_str().unwrap().to_string();
        assert!(reason.starts_with("written by a newer version of corkboard ("), "{reason}");
        let list = root.cmd("scheduler", &["nodes", "list"]).expect(0).body;
        assert!(list.contains(&format!("\"{name}\"")), "{list}");
        for change in [&["update", "-d", r#"{"drain":true}"#][..], &["remove", "-X", "POST"]] {
            let answer = root.cmd("scheduler", &[&["nodes", name], change].concat()).expect(1);
            assert!(answer.stderr.contains("newer version of corkboard"), "{answer:?}");
        }
        let text = fs::read_to_string(dir.join(format!("{name}.json"))).unwrap();
        assert_eq!(text, record.to_string());
        let check = root.cmd("scheduler", &["check"]).expect(0);
        assert!(check.body.contains(&format!("note: node {name}: ")), "{check:?}");
    }
}

#[test]
fn a_tree_of_a_later_layout_is_read_and_not_changed() {
    let root = open_root("");
    let poller = root.poller();
    let job = root.submit(&json!({"command": "echo done"}));
    root.reaches(job, "stopped");
    assert_eq!(root.read("state/version"), "layout 1\n");
    drop(poller);
    root.write("state/version", "layout 2\n");
    assert_eq!(root.status(job)["state"], "stopped");
    assert_eq!(root.log(job), "done\n");
    let refused = |code: i32, stderr: &str| {
        assert!(stderr.contains("a newer version of corkboard keeps this tree"), "{stderr}");
        assert_eq!(code, 75);
    };
    for (program, words) in [
        ("scheduler", &["jobs", "new", "--", "true"][..]),
        ("scheduler", &["tokens", "new", "role=user"]),
        ("scheduler", &["check", "--repair"]),
        ("processor", &["sweep"]),
        ("poller", &["--once"]),
        ("poller", &[]),
    ] {
        let answer = root.cmd(program, words);
        refused(answer.code, &answer.stderr);
    }
    let body = br#"{"command": "true"}"#;
    root.cgi("POST", "/scheduler/jobs/new", &[], body).expect(503);
    root.cgi("POST", "/processor/jobs/new", &[], body).expect(503);
    // That of 0.1 says nothing.
    fs::remove_file(root.path("state/version")).unwrap();
    let _poller = root.poller();
    let job = root.submit(&json!({"command": "true"}));
    root.reaches(job, "stopped");
    assert!(!root.exists("state/version"));
}

/// A node's job of a newer program: refused to be changed, shown with the reason, noted by the check.
fn assert_untouchable_run(root: &TestRoot, id: &str, state: &str, what: &str) {
    let why = format!("written by a newer version of corkboard ({what})");
    let status = root.cmd("processor", &["jobs", id, "status"]).expect(0).json();
    assert_eq!((&status["state"], &status["reason"]), (&json!(state), &json!(why)), "{status}");
    let kill = root.cgi("POST", &format!("/processor/jobs/{id}/kill"), &[], b"").expect(409);
    assert_eq!(kill.json()["error"], format!("{id} was {why}"));
    for repair in [&["check"][..], &["check", "--repair"]] {
        let check = root.cmd("processor", repair).expect(0);
        let dir = root.path(&format!("state/processor/job/{id}"));
        assert!(check.body.contains(&format!("note: {}: {why}\n", dir.display())), "{check:?}");
    }
}

fn submit(root: &TestRoot, id: &str, request: Value) {
    let mut request = request;
    request["request_id"] = id.into();
    root.cmd_in("processor", &["jobs", "new", "-q"], &request.to_string()).expect(0);
}

#[test]
fn a_waiting_run_of_a_newer_program_waits_and_others_pass_it() {
    let root = open_root("");
    let all = json!({"cores": 2});
    submit(&root, "first", json!({"command": ["sleep", "600"], "requested_resources": all}));
    until("it runs", || root.node_status("first")["state"] == "running");
    submit(&root, "newer", json!({"command": ["true"], "requested_resources": all}));
    let path = root.path("state/processor/job/newer/request.json");
    let mut request: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    request["sandbox"] = "strict".into();
    fs::write(&path, request.to_string()).unwrap();
    submit(&root, "after", json!({"command": ["true"]}));
    root.cmd("processor", &["jobs", "first", "kill"]).expect(0);
    assert_eq!(root.ended("after")["code"], 0);
    let what = r#"field "sandbox" of the request"#;
    assert_untouchable_run(&root, "newer", "queued", what);
    submit(&root, "last", json!({"command": ["true"]}));
    assert_eq!(root.ended("last")["code"], 0);
    root.cmd("processor", &["sweep"]).expect(0);
    assert_untouchable_run(&root, "newer", "queued", what);
    assert!(root.exists("state/processor/queue/newer"));
    // The newer program takes the field back.
    request.as_object_mut().unwrap().remove("sandbox");
    fs::write(&path, request.to_string()).unwrap();
    root.cmd("processor", &["sweep"]).expect(0);
    assert_eq!(root.ended("newer")["code"], 0);
    root.check();
}

#[test]
fn a_run_whose_story_a_newer_program_wrote_is_not_taken_for_lost() {
    let mut root = open_root("");
    submit(&root, "job", json!({"command": ["sleep", "600"]}));
    until("it runs", || root.node_status("job")["state"] == "running");
    let line = json!({"state": "frozen", "status": "unknown", "at": "2026-01-01T00:00:00.000Z"});
    append(&root, "state/processor/job/job/status", &line);
    let story = root.read("state/processor/job/job/status");
    let what = r#"unknown variant "frozen" in line 4 of its status"#;
    assert_untouchable_run(&root, "job", "running", what);
    let supervisors = root.supervisors();
    assert_eq!(supervisors.len(), 1);
    common::signal(supervisors[0], "KILL");
    until("it has ended", || root.supervisors().is_empty());
    root.cmd("processor", &["sweep"]).expect(0);
    root.env.push(("CORKBOARD_BOOT_ID".into(), "the-next".into()));
    root.cmd("processor", &["sweep"]).expect(0);
    assert_eq!(root.read("state/processor/job/job/status"), story);
}

#[test]
fn a_slot_that_a_newer_program_wrote_is_left_to_it() {
    let root = open_root("");
    submit(&root, "one", json!({"command": ["true"]}));
    root.ended("one");
    until("its supervisor lingers no more", || root.processes().is_empty());
    let record = json!({"pid": 1, "boot": "b", "resources": {"cores": 1}, "jobs": ["x"],
        "accelerators": [0]});
    let slot = "state/processor/slot/1";
    root.write(slot, &format!("{record}\n"));
    submit(&root, "two", json!({"command": ["true"]}));
    root.ended("two");
    root.cmd("processor", &["sweep"]).expect(0);
    assert_eq!(root.read(slot), format!("{record}\n"));
    let check = root.cmd("processor", &["check"]).expect(0).body;
    assert!(check.starts_with("note: ") && check.contains("slot/1: written by a newer"), "{check}");
}
