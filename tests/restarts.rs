//! What a node, and a head, make of a restart of their machine.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;
mod faults;

use std::fs;
use std::time::Instant;

use common::node::{assert_clean, root, submit, two_orphans};
use common::{TestRoot, lives, signal, until};
use faults::{Act, Journal};
use serde_json::json;

#[test]
fn after_a_restart_of_the_machine() {
    let mut root = root();
    let two = json!({"command": ["sleep", "1000"], "requested_resources": {"cores": 2}});
    let ran = submit(&root, two);
    until("it runs", || root.node_status(&ran)["state"] == "running");
    let waits = submit(&root, json!({"command": "echo ran", "requested_resources": {"cores": 2}}));
    let page = root.cmd("processor", &["events"]).expect(0).json();
    let supervisor = root.supervisors()[0];
    signal(supervisor, "KILL");
    until("it is dead", || !lives(supervisor));
    root.env.push(("CORKBOARD_BOOT_ID".into(), "another-boot".into()));
    root.cmd("processor", &["sweep"]).expect(0);
    let end = root.ended(&ran);
    assert_eq!(
        (&end["cause"], &end["reason"]),
        (&json!("lost"), &json!("the machine was restarted"))
    );
    assert_eq!(root.ended(&waits)["status"], "good");
    let since = format!("since={}", page["cursor"].as_str().unwrap());
    let gone = root.cmd("processor", &["events", &since]);
    assert!(gone.code == 1 && gone.stderr.contains("another epoch"), "{gone:?}");
    assert_clean(&root);
}

#[test]
fn another_boot() {
    let begun = Instant::now();
    let mut root = TestRoot::new("cores = 1\nmemory = 4 GiB\n");
    let outside = TestRoot::new("");
    let witness = outside.path("witness");
    let line = format!("echo $CORKBOARD_NODEJOB >> {}", witness.display());
    let new = |root: &TestRoot, command: &str| -> u64 {
        let request = json!({"command": command, "dir": "/"});
        Act::submit(root, &request).run().json()["job"].as_u64().unwrap()
    };
    let runs = new(&root, &format!("{line}; exec sleep 1000"));
    until("it runs", || {
        root.cmd("poller", &["--once", "-q"]).expect(0);
        let status = root.cmd("scheduler", &["jobs", &runs.to_string(), "status"]).expect(0);
        status.json()["state"] == "running"
    });
    let waits_here = new(&root, &line);
    let on_node = json!({"command": line, "dir": "/", "request_id": "waits-there"});
    root.cmd_in("processor", &["jobs", "new"], &on_node.to_string()).expect(0);
    let cursor = root.cmd("processor", &["events"]).expect(0).json()["cursor"].clone();
    for supervisor in root.supervisors() {
        signal(supervisor, "KILL");
        until("it is dead", || !lives(supervisor));
    }
    root.env.push(("CORKBOARD_BOOT_ID".into(), "another".into()));
    let since = format!("since={}", cursor.as_str().unwrap());
    let gone = root.cmd("processor", &["events", &since]);
    assert!(gone.code == 1 && gone.stderr.contains("another epoch"), "{gone:?}");
    let check = root.cmd("scheduler", &["check"]);
    assert_eq!((check.code, check.body.as_str()), (0, ""), "{check:?}");
    let next = new(&root, &line);
    assert!(next > 1000, "numbers go on at the mark: {next}");
    let mut journal = Journal::new(&root);
    journal.witness = witness.clone();
    journal.allowed = &["lost"];
    journal.counts.submitted = 4;
    journal.counts.faults = 1;
    journal.settle();
    let status = |job: u64| root.cmd("scheduler", &["jobs", &job.to_string()]).expect(0).json();
    assert_eq!(status(runs)["cause"], "lost");
    assert_eq!(status(runs)["reason"], "the machine was restarted");
    for job in [waits_here, next] {
        assert_eq!(status(job)["status"], "good");
    }
    assert_eq!(root.node_status("waits-there")["status"], "good");
    journal.verify();
    assert_eq!(fs::read_to_string(&witness).unwrap().lines().count(), 4);
    journal.counts.report("another boot", begun);
}

/// After a restart of the machine one job that cannot be read keeps no other from being recovered, nor
/// from running, and is recovered once it can be.
#[test]
fn one_that_cannot_be_read_after_a_restart_keeps_no_other_from_it() {
    let mut root = root();
    let obstacle = two_orphans(&root);
    root.env.push(("CORKBOARD_BOOT_ID".into(), "another".into()));
    submit(&root, json!({"command": ["true"], "request_id": "c"}));
    assert_eq!(root.ended("c")["status"], "good");
    assert_eq!(root.node_status("b")["reason"], "the machine was restarted");
    let info = root.cmd("processor", &["info"]).expect(0).json();
    assert_eq!(info["queued"], 0, "{info}");
    assert_eq!(root.cmd("processor", &["check"]).code, 1);
    obstacle.take_away();
    root.cmd("processor", &["sweep"]).expect(0);
    assert_eq!(root.ended("a")["cause"], "lost");
    until("all is reported", || root.supervisors().is_empty());
    assert_clean(&root);
}
