//! A job that needs much is not starved: a node is kept for it, and others run past it only where they end before.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use common::head::{both_ways, open_root};
use common::{SOON, TestRoot, until, wait_for};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

/// A job of so many cores that goes on until this file is there.
fn until_there(root: &TestRoot, file: &str, cores: u64) -> Value {
    let script = format!("until [ -e {} ]; do sleep 0.02; done", root.path(file).display());
    json!({"command": script, "requested_resources": {"cores": cores}})
}

fn with(mut request: Value, field: &str, value: &str) -> Value {
    request[field] = json!(value);
    request
}

fn reserved(root: &TestRoot) -> Vec<Value> {
    let text = std::fs::read_to_string(root.path("state/scheduler/reservations"));
    text.unwrap_or_default().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn others_run_past_a_wide_job_only_where_they_end_before_it() {
    both_ways("linger = 0\n", |root, door| {
        let poller = root.poller();
        let first = door.submit(&until_there(root, "first", 1));
        let long = with(until_there(root, "long", 1), "timeout", "10m");
        let long = door.submit(&long);
        root.reaches(first, "running");
        root.reaches(long, "running");
        let wide = door.submit(&until_there(root, "wide", 2));
        let small = door.submit(&until_there(root, "small", 1));
        root.write("first", "");
        root.reaches(first, "stopped");
        // One core is free, and is kept.
        let about = wait_for(SOON, || {
            let status = root.status(wide);
            status["expected_start"].as_str().map(str::to_string).ok_or_else(|| status.to_string())
        });
        let about = humantime::parse_rfc3339_weak(&about).unwrap();
        let left = about.duration_since(SystemTime::now()).unwrap();
        let minutes = Duration::from_secs(60);
        assert!(left > minutes * 9 && left < minutes * 11, "{left:?}");
        let kept = reserved(root);
        assert_eq!(
            (kept.len(), &kept[0]["job"], &kept[0]["node"]),
            (1, &json!(wide), &json!("localhost"))
        );
        let explained = door.get(&format!("/scheduler/jobs/{small}/explain")).expect(200).json();
        let why = explained["nodes"][0]["objection"].as_str().unwrap().to_string();
        assert!(why.starts_with(&format!("reserved for job {wide} until about 20")), "{why}");
        assert_eq!(explained["nodes"][0]["now"], false);
        let explained = door.get(&format!("/scheduler/jobs/{wide}/explain")).expect(200).json();
        assert_eq!(explained["nodes"][0]["objection"], "short of 1 core");
        assert_eq!(root.status(small)["state"], "queued");
        // Before one is submitted it can be asked whether it would have to mind that.
        for (more, now) in [
            (json!({}), false),
            (json!({"timeout": "5s"}), true),
            (json!({"timeout": "5s", "array": "0-1"}), false),
            (json!({"priority": 1}), true),
        ] {
            let mut request = more;
            request["command"] = json!(["true"]);
            let list = door.post("/scheduler/nodes/list", &request).expect(200).json();
            assert_eq!(list["nodes"][0]["now"], now, "{request}: {list}");
        }
        // One that will have ended before then runs past both.
        let short = door.submit(&json!({"command": ["true"], "timeout": "5s"}));
        assert_eq!(root.reaches(short, "stopped")["status"], "good");
        assert_eq!(root.status(small)["state"], "queued");
        assert_eq!(root.status(wide)["state"], "queued");
        // What is kept is kept by the next poller, too.
        assert!(poller.end("TERM").success());
        assert!(root.status(wide).get("expected_start").is_none(), "there is no poller");
        let _poller = root.poller();
        let short = door.submit(&json!({"command": ["true"], "timeout": "5s"}));
        assert_eq!(root.reaches(short, "stopped")["status"], "good");
        assert_eq!(root.status(small)["state"], "queued");
        root.write("long", "");
        root.reaches(wide, "running");
        assert_ne!(root.status(small)["state"], "running"); // it may have been sent ahead
        root.write("wide", "");
        root.reaches(small, "running");
        root.write("small", "");
        root.reaches(small, "stopped");
        until("nothing is kept any more", || reserved(root).is_empty());
        root.check();
    });
}

#[test]
fn nothing_is_kept_where_the_settings_say_so() {
    let root = open_root("reservations = 0\nlinger = 0\n");
    let _poller = root.poller();
    let submit = |request: &Value| {
        let told = root.cmd_in("scheduler", &["jobs", "new", "-q"], &request.to_string());
        told.expect(0).body.trim().parse::<u64>().unwrap()
    };
    let long = submit(&until_there(&root, "long", 1));
    root.reaches(long, "running");
    let wide = submit(&until_there(&root, "wide", 2));
    let small = submit(&json!({"command": ["true"]}));
    assert_eq!(root.reaches(small, "stopped")["status"], "good");
    assert_eq!(root.status(wide)["state"], "queued");
    assert!(reserved(&root).is_empty());
    root.write("long", "");
    root.reaches(wide, "running");
    root.write("wide", "");
    root.reaches(wide, "stopped");
    root.check();
}

#[test]
fn a_node_that_takes_no_jobs_any_more_is_kept_for_nobody() {
    both_ways("linger = 0\n", |root, door| {
        let _poller = root.poller();
        let long = door.submit(&until_there(root, "long", 1));
        root.reaches(long, "running");
        let wide = door.submit(&until_there(root, "wide", 2));
        let small = door.submit(&until_there(root, "small", 1));
        until("it is kept", || reserved(root).len() == 1);
        let update = "/scheduler/nodes/localhost/update";
        door.post(&format!("{update}?drain=1"), &Value::Null).expect(200);
        until("it is not kept any more", || reserved(root).is_empty());
        door.post(&format!("{update}?drain=0"), &Value::Null).expect(200);
        until("it is kept again", || reserved(root).len() == 1);
        // Whoever goes takes that along.
        door.post(&format!("/scheduler/jobs/{wide}/update?kill=1"), &Value::Null).expect(200);
        root.reaches(small, "running");
        for file in ["long", "small"] {
            root.write(file, "");
        }
        root.reaches(small, "stopped");
        root.reaches(long, "stopped");
        root.check();
    });
}
