//! Placement that is paused as a whole, and nodes that are: nothing new starts, and whoever waits is told why.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use common::head::both_ways;
use common::let_pass;
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

#[test]
fn nothing_is_placed_until_it_is_resumed() {
    both_ways("", |root, door| {
        let _poller = root.poller();
        let script = format!("until [ -e {} ]; do sleep 0.02; done", root.path("go").display());
        let running = door.submit(&json!({"command": script}));
        root.reaches(running, "running");
        let paused =
            door.post("/scheduler/pause?reason=new%20disk", &Value::Null).expect(200).json();
        assert_eq!(paused["paused"]["reason"], "new disk");
        assert!(root.path("state/scheduler/paused").exists());
        let job = door.submit(&json!({"command": ["true"]}));
        let by = paused["paused"]["by"].as_str().unwrap();
        let why = format!("placement is paused by {by}: new disk (scheduler resume)");
        assert_eq!(root.reason(job, "paused")["reason"], why);
        let explained = door.get(&format!("/scheduler/jobs/{job}/explain")).expect(200).json();
        assert_eq!(explained["nodes"][0]["objection"], why);
        // What runs goes on, and what it leaves goes to nobody.
        root.write("go", "");
        assert_eq!(root.reaches(running, "stopped")["status"], "good");
        let_pass(Duration::from_millis(300)); // a poller would have placed it by now
        assert_eq!(root.status(job)["state"], "queued");
        root.check();
        door.post("/scheduler/resume", &Value::Null).expect(200);
        assert_eq!(root.reaches(job, "stopped")["status"], "good");
        door.post("/scheduler/resume", &Value::Null).expect(200);

        // A file that somebody made by hand does as well, and so does its end.
        root.write("state/scheduler/paused", "");
        let job = door.submit(&json!({"command": ["true"]}));
        assert_eq!(root.reason(job, "paused")["reason"], "placement is paused (scheduler resume)");
        fs::remove_file(root.path("state/scheduler/paused")).unwrap();
        assert_eq!(root.reaches(job, "stopped")["status"], "good");
        door.post("/scheduler/pause?reason=", &Value::Null).expect(400);
        door.post(&format!("/scheduler/pause?reason={}", "x".repeat(201)), &Value::Null)
            .expect(400);
        root.check();
    });
}

#[test]
fn a_poller_that_starts_while_it_is_paused_places_nothing() {
    both_ways("", |root, door| {
        root.cmd("scheduler", &["pause"]).expect(0);
        let job = door.submit(&json!({"command": ["true"]}));
        root.cmd("poller", &["--once"]).expect(0);
        assert_eq!(root.status(job)["state"], "queued");
        root.cmd("scheduler", &["resume"]).expect(0);
        root.cmd("poller", &["--once"]).expect(0);
        let _poller = root.poller();
        assert_eq!(root.reaches(job, "stopped")["status"], "good");
        root.check();
    });
}

#[test]
fn a_paused_node_says_why() {
    both_ways("", |root, door| {
        let _poller = root.poller();
        let update = "/scheduler/nodes/localhost/update";
        let node =
            door.post(&format!("{update}?pause=new%20disk"), &Value::Null).expect(200).json();
        assert_eq!(node["pause"], "new disk");
        let shown = door.get("/scheduler/nodes/localhost").expect(200).json();
        assert_eq!(shown["duty"], "paused: new disk");
        let job = door.submit(&json!({"command": ["true"]}));
        root.reason(job, "take no new jobs (paused: new disk): localhost");
        door.post(update, &json!({"pause": ""})).expect(400);
        door.post(update, &json!({"drain": true, "pause": null})).expect(200);
        assert_eq!(door.get("/scheduler/nodes/localhost").expect(200).json()["duty"], "drained");
        door.post(&format!("{update}?drain=0"), &Value::Null).expect(200);
        assert_eq!(root.reaches(job, "stopped")["status"], "good");
        assert_eq!(door.get("/scheduler/nodes/localhost").expect(200).json()["duty"], "open");
        root.check();
    });
}
