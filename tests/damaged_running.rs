//! Cards that are damaged while their jobs run: what becomes of what runs, and of where it may run.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use common::head::open_root;
use common::{TestRoot, until};
use serde_json::json;

/// As large a file as a disk can make of nothing.
#[test]
fn a_card_that_no_memory_can_hold_ends_no_program() {
    let root = open_root("");
    let poller = root.poller();
    let go = root.path("go").display().to_string();
    let job = root.submit(&json!({"command": format!("until [ -e {go} ]; do sleep 0.05; done")}));
    root.reaches(job, "running");
    let path = root.path(&format!("state/scheduler/running/{job}.job"));
    let card = File::options().write(true).open(&path).unwrap();
    let length = card.metadata().unwrap().len();
    card.set_len(8 << 40).unwrap();
    root.write("go", "");
    until("its node tells of its end", || {
        root.read("state/processor/events").contains(r#""state":"stopped""#)
    });
    let other = root.submit(&json!({"command": "true"}));
    root.reaches(other, "stopped");
    until("it is said", || root.read("poller.log").contains(&format!("running/{job}.job: ")));
    let killed = root.update(job, "kill=1");
    assert!(killed.code == 75 && killed.stderr.contains(".job: "), "{killed:?}");
    card.set_len(length).unwrap();
    root.reaches(job, "stopped");
    drop(poller);
    root.check();
}

/// A job that runs until it is ended, whose card is then damaged; its number and its attempt.
fn damaged_while_it_runs(root: &TestRoot) -> (u64, String) {
    let job = root.submit(&json!({"command": ["sleep", "600"]}));
    root.reaches(job, "running");
    let id = root.card(job)[1]["nodejob"].as_str().unwrap().to_string();
    damage(root, job);
    (job, id)
}

fn damage(root: &TestRoot, job: u64) {
    let path = root.path(&format!("state/scheduler/running/{job}.job"));
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(&[0; 40], 0).unwrap();
}

/// What `check` finds: the card that was put aside, and nothing else.
fn only_put_aside(root: &TestRoot, job: u64) {
    let found = root.cmd("scheduler", &["check"]).expect(1).body;
    let path = root.path(&format!("state/scheduler/bad/{job}.job"));
    assert!(found.starts_with(&format!("{}: a card that", path.display())), "{found}");
    assert_eq!(found.lines().count(), 1, "{found}");
    assert_eq!(root.cmd("processor", &["check"]).expect(0).body, "");
}

#[test]
fn a_running_card_that_is_damaged_is_said_and_what_runs_is_killed() {
    let root = open_root("");
    let poller = root.poller();
    let (job, id) = damaged_while_it_runs(&root);
    // A card that changed in place is looked at by somebody: here by who wants to change it.
    root.update(job, "kill=1").expect(1);
    assert_eq!(root.ended(&id)["cause"], "killed");
    let aside = format!("its card cannot be read and lies in bad/{job}.job");
    assert_eq!(root.status(job)["reason"], aside.as_str());
    only_put_aside(&root, job);
    // While no poller is at work, and one that has it from nobody but the node.
    let next = root.submit(&json!({"command": ["sleep", "600"]}));
    root.reaches(next, "running");
    let id = root.card(next)[1]["nodejob"].as_str().unwrap().to_string();
    drop(poller);
    damage(&root, next);
    fs::remove_file(root.path(&format!("state/scheduler/bad/{job}.job"))).unwrap();
    let _poller = root.poller();
    assert_eq!(root.ended(&id)["cause"], "killed");
    let log = root.read("poller.log");
    let aside =
        format!("job {next}: its card cannot be read and lies in bad/{next}.job: its first");
    assert_eq!(log.matches(&aside).count(), 1, "{log}");
    only_put_aside(&root, next);
    let after = root.submit(&json!({"command": ["true"]}));
    root.reaches(after, "stopped");
    let listed = root.cmd("scheduler", &["jobs"]).expect(0).body;
    assert!(listed.lines().any(|line| line == next.to_string()), "{listed}");
}

/// An id says nothing of whose run it is.
#[test]
fn a_strangers_run_under_the_id_of_a_damaged_card_is_left_alone() {
    let root = open_root("");
    let poller = root.poller();
    let (job, id) = damaged_while_it_runs(&root);
    let strangers = format!("{}2", id.strip_suffix('1').unwrap());
    root.cmd("processor", &["jobs", "new", "-r", &strangers, "--", "sleep", "600"]).expect(0);
    until("it runs", || root.node_status(&strangers)["state"] == "running");
    root.update(job, "kill=1").expect(1);
    assert_eq!(root.ended(&id)["cause"], "killed");
    // A poller that has both from nobody but the node.
    let (_, id) = damaged_while_it_runs(&root);
    drop(poller);
    let _poller = root.poller();
    assert_eq!(root.ended(&id)["cause"], "killed");
    let after = root.submit(&json!({"command": ["true"]}));
    root.reaches(after, "stopped"); // whatever was to be done before is done
    let said = format!("its report of {strangers} does not count");
    until("it is told", || root.read("poller.log").contains(&said));
    assert_eq!(root.node_status(&strangers)["state"], "running");
    root.cmd("processor", &["jobs", &strangers, "kill"]).expect(0);
    root.ended(&strangers);
}

#[test]
fn what_runs_of_a_damaged_card_goes_on_if_it_shall_and_is_named() {
    let root = open_root("kill_unreadable = false\n");
    let _poller = root.poller();
    let (job, id) = damaged_while_it_runs(&root);
    root.update(job, "kill=1").expect(1);
    let after = root.submit(&json!({"command": ["true"]}));
    root.reaches(after, "stopped");
    assert_eq!(root.node_status(&id)["state"], "running");
    let found = root.cmd("scheduler", &["check"]).expect(1).body;
    assert!(
        found.contains(&format!("{id} has not ended on this machine, and job {job}")),
        "{found}"
    );
    root.cmd("processor", &["jobs", &id, "kill"]).expect(0);
    root.ended(&id);
    only_put_aside(&root, job);
}

#[test]
fn a_node_is_not_removed_while_nobody_can_tell_what_it_has() {
    let root = open_root("");
    let node = json!({"name": "far", "uri": "http://127.0.0.1:9"}).to_string();
    root.cmd_in("scheduler", &["nodes", "new"], &node).expect(0);
    let held = root.submit(&json!({"command": ["true"], "state": "held"}));
    let card = format!("state/scheduler/running/{held}.job");
    let queued = root.path(&format!("state/scheduler/queue/{held}.job"));
    let whole = fs::read_to_string(&queued).unwrap();
    fs::remove_file(&queued).unwrap();
    let placed = json!({"at": "2026-01-01T00:00:00.000Z", "event": "placed", "attempt": 1,
        "node": "localhost", "nodejob": format!("c-{held}.1"), "driver": "local"});
    let newer = json!({"at": "2026-01-01T00:00:00.000Z", "event": "migrated", "to": "far"});
    for (text, why) in [
        (whole[whole.len() / 2..].to_string(), "cannot be read"),
        (format!("{whole}\n{placed}\n\n{newer}\n"), "written by a newer version"),
    ] {
        root.write(&card, &text);
        for (path, body) in [("remove", ""), ("update", "{\"uri\": \"http://127.0.0.1:10\"}")] {
            let path = format!("/scheduler/nodes/far/{path}");
            let refused = root.cgi("POST", &path, &[], body.as_bytes()).expect(409);
            assert!(refused.body.contains(&format!("may have job {held}")), "{refused:?}");
            assert!(refused.body.contains(why), "{refused:?}");
        }
    }
    // One that is elsewhere for certain hinders nothing.
    root.write(&card, &format!("{whole}\n{placed}\n"));
    root.cgi("POST", "/scheduler/nodes/far/remove", &[], b"").expect(200);
}
