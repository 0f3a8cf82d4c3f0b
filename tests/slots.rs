//! A slot that cannot be read: nothing is known of it, and nobody is kept from anything by it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use common::node::{CONF, assert_clean, root, submit};
use common::users::plain_root;
use common::{TestRoot, until};
use serde_json::json;

fn slot(root: &TestRoot, number: u64) -> std::path::PathBuf {
    root.path(&format!("state/processor/slot/{number}"))
}

#[test]
fn it_keeps_nothing_from_running_and_the_check_goes_on_after_it() {
    let root = root();
    root.cmd("processor", &["info"]).expect(0); // makes the tree
    fs::create_dir(slot(&root, 1)).unwrap(); // cannot be read, whoever looks
    let both = json!({"cores": 2});
    let id = submit(&root, json!({"command": "sleep 1000", "requested_resources": both}));
    until("it runs", || root.node_status(&id)["state"] == "running");
    let waits = submit(&root, json!({"command": "true"}));
    let info = root.cmd("processor", &["info"]).expect(0).json();
    assert_eq!((&info["running"], &info["free"]["cores"]), (&json!(1), &json!(0)), "{info}");
    let listed = root.cmd("processor", &["jobs", "state=running"]).expect(0).body;
    assert!(listed.contains(&id), "{listed}");
    root.write("state/processor/queue/not an id", "");
    fs::create_dir(root.path("state/processor/queue/unreadable")).unwrap();
    root.write("state/processor/pid/7_7", "");
    fs::remove_file(root.path("state/processor/pid/7_7")).unwrap();
    std::os::unix::fs::symlink("../job/gone", root.path("state/processor/pid/7_7")).unwrap();
    let found = root.cmd("processor", &["check"]).expect(1).body;
    for part in ["slot/1: is a directory: passed over", "queue/not an id", "pid/7_7: links to"] {
        assert!(found.contains(part), "{part}: {found}");
    }
    let swept = root.cmd("processor", &["sweep"]).expect(0);
    assert!(swept.stderr.contains("slot/1: is a directory"), "{swept:?}");
    root.cmd("processor", &["jobs", &id, "kill", "grace=0.2"]).expect(0);
    root.ended(&id);
    root.ended(&waits);
    fs::remove_dir(slot(&root, 1)).unwrap();
    fs::remove_file(root.path("state/processor/queue/not an id")).unwrap();
    fs::remove_dir(root.path("state/processor/queue/unreadable")).unwrap();
    fs::remove_file(root.path("state/processor/pid/7_7")).unwrap();
    until("it is reported", || root.supervisors().is_empty());
    assert_clean(&root);
}

/// Whose jobs it names is not known: none is taken for forgotten.
#[test]
fn what_it_names_is_not_ended() {
    let root = plain_root(CONF);
    let mode = |number, mode| {
        fs::set_permissions(slot(&root, number), fs::Permissions::from_mode(mode)).unwrap();
    };
    let id = submit(&root, json!({"command": "sleep 1000", "dir": "/"}));
    until("it runs", || root.node_status(&id)["state"] == "running");
    mode(1, 0);
    let next = submit(&root, json!({"command": "true", "dir": "/"}));
    assert_eq!(root.ended(&next)["status"], "good");
    for words in [&["check"][..], &["check", "--repair"], &["check"]] {
        let found = root.cmd("processor", words).expect(1).body;
        assert!(found.contains("slot/1: permission denied: passed over"), "{found}");
        assert!(
            found.contains(&format!("{id}: whether a supervisor has it is not known")),
            "{found}"
        );
    }
    assert_eq!(root.node_status(&id)["state"], "running");
    mode(1, 0o640);
    root.cmd("processor", &["jobs", &id, "kill", "grace=0.2"]).expect(0);
    assert_eq!(root.ended(&id)["cause"], "killed");
    until("it is reported", || root.supervisors().is_empty());
    assert_clean(&root);
}

/// After a restart of the machine what had been started is lost for certain, whatever a slot says.
#[test]
fn after_a_restart_what_had_started_is_lost() {
    let mut root = plain_root(CONF);
    let id = submit(&root, json!({"command": "sleep 1000", "dir": "/"}));
    until("it runs", || root.node_status(&id)["state"] == "running");
    for supervisor in root.supervisors() {
        common::signal(supervisor, "KILL");
    }
    until("it is dead", || root.supervisors().is_empty());
    let path = slot(&root, 1);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o0)).unwrap();
    root.env.push(("CORKBOARD_BOOT_ID".into(), "another".into()));
    root.cmd("processor", &["sweep"]).expect(0);
    assert_eq!(root.ended(&id)["cause"], "lost");
    let next = submit(&root, json!({"command": "true", "dir": "/"}));
    assert_eq!(root.ended(&next)["status"], "good");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    root.cmd("processor", &["sweep"]).expect(0);
    until("it is reported", || root.supervisors().is_empty());
    assert_clean(&root);
}
