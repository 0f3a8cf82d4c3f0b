//! What a node makes of what crashes, damage and time have left on it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;
mod faults;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use common::node::{assert_clean, claims, root, root_of_nobody, run, submit, two_orphans};
use common::{TestRoot, lives, pid_in, signal, until};
use faults::Act;
use serde_json::json;

#[test]
fn a_supervisor_that_is_killed_loses_its_job_once() {
    let root = root();
    let pid = root.path("pid");
    let script =
        format!("setsid sh -c 'echo $$ > {}; exec sleep 1000' & sleep 1000", pid.display());
    let id = submit(&root, json!({"command": script}));
    let left = pid_in(&pid);
    let program = root.node_status(&id)["pid"].as_i64().unwrap() as i32;
    let supervisor = root.supervisors()[0];
    signal(supervisor, "KILL");
    until("it is dead", || !lives(supervisor));
    until("its program dies with it", || !lives(program));
    assert!(lives(left));
    let swept = root.cmd("processor", &["sweep"]).expect(0).json();
    assert_eq!(swept["lost"], 1);
    let end = root.ended(&id);
    assert_eq!((&end["cause"], &end["reason"]), (&json!("lost"), &json!("its supervisor died")));
    assert!(!lives(left));
    assert_eq!(root.cmd("processor", &["sweep"]).expect(0).json()["lost"], 0);
    assert!(root.read("state/processor/events").contains("\"lost\""));
    assert_clean(&root);
}

/// A program that has become another user's survives its supervisor, and a sweep by its former user
/// may not signal it: its job ends all the same, and its room is free.
#[test]
fn one_that_cannot_be_killed_keeps_no_other_waiting() {
    let root = root_of_nobody();
    let become_root = root.install("become", Path::new("/usr/bin/setpriv"), "4755");
    let words = [become_root.to_str().unwrap(), "--reuid=0", "sleep", "1000"];
    let give = |id: &str, command: &[&str]| {
        let both = json!({"cores": 2});
        let request =
            json!({"command": command, "dir": "/", "request_id": id, "requested_resources": both});
        submit(&root, request);
    };
    give("stays", &words);
    until("it is root's", || {
        let pid = root.node_status("stays")["pid"].as_i64().unwrap_or(0);
        fs::metadata(format!("/proc/{pid}")).is_ok_and(|meta| meta.uid() == 0)
    });
    let pid = root.node_status("stays")["pid"].as_i64().unwrap() as i32;
    for supervisor in root.supervisors() {
        signal(supervisor, "KILL");
        until("it is dead", || !lives(supervisor));
    }
    give("next", &["true"]);
    let end = root.ended("stays");
    let why = format!("its supervisor died; process {pid} could not be killed");
    assert_eq!((&end["cause"], &end["reason"]), (&json!("lost"), &json!(why)));
    assert_eq!(root.ended("next")["status"], "good");
    assert!(lives(pid));
    assert_clean(&root);
}

/// What a supervisor leaves that dies between its claim and the first line of the job.
#[test]
fn one_that_cannot_be_recovered_keeps_no_other_from_it() {
    let root = root();
    let obstacle = two_orphans(&root);
    submit(&root, json!({"command": ["true"], "request_id": "c"}));
    assert_eq!(root.ended("c")["status"], "good");
    assert_eq!(root.node_status("b")["cause"], "lost");
    let listed = root.cmd("processor", &["jobs", "format=json"]).expect(0).json();
    assert_eq!((&listed[0]["id"], &listed[1]["id"]), (&json!("c"), &json!("b")));
    assert_eq!((&listed[2]["id"], &listed[2]["state"]), (&json!("a"), &json!("running")));
    assert_eq!(root.cmd("processor", &["jobs", "state=running"]).expect(0).body, "a\n");
    obstacle.take_away();
    root.cmd("processor", &["sweep"]).expect(0);
    assert_eq!(root.ended("a")["cause"], "lost");
    assert_clean(&root);
}

/// One whose start fails for a reason of its own, by whoever tries it.
#[test]
fn one_that_cannot_be_started_keeps_no_other_waiting() {
    let root = root();
    let all = json!({"cores": 2});
    submit(
        &root,
        json!({"command": ["sleep", "1000"], "request_id": "hold", "requested_resources": all}),
    );
    until("it runs", || root.node_status("hold")["state"] == "running");
    for id in ["a", "b"] {
        submit(&root, json!({"command": ["true"], "request_id": id, "requested_resources": all}));
    }
    let asked = root.path("state/processor/job/a/kill");
    fs::create_dir(&asked).unwrap();
    root.cmd("processor", &["jobs", "hold", "kill"]).expect(0);
    assert_eq!(root.ended("b")["status"], "good");
    until("all is reported", || root.supervisors().is_empty());
    assert_clean(&root);
    fs::remove_dir(asked).unwrap();
    root.cmd("processor", &["sweep"]).expect(0);
    assert_eq!(root.ended("a")["status"], "good");
    until("all is reported", || root.supervisors().is_empty());
    assert_clean(&root);
}

/// What cannot be said in the feed keeps nothing from running, and is said as soon as it can be.
#[test]
fn what_cannot_be_told_now_is_told_later() {
    let root = root();
    run(&root, json!({"command": ["true"]}));
    until("all is reported", || root.supervisors().is_empty());
    let (events, kept) = (root.path("state/processor/events"), root.path("kept"));
    fs::rename(&events, &kept).unwrap();
    fs::create_dir(&events).unwrap();
    for (id, command) in [("short", "true"), ("long", "sleep 1000")] {
        submit(
            &root,
            json!({"command": command, "request_id": id, "requested_resources": {"cores": 2}}),
        );
    }
    until("the second one runs", || root.node_status("long")["state"] == "running");
    // At once: what is told meanwhile would go with a file that this one replaces.
    corkboard::board::files::exchange(&kept, &events).unwrap();
    let told = |id: &str, state: &str| {
        let line = format!("\"id\":\"{id}\",\"state\":\"{state}\"");
        until("it is told", || root.read("state/processor/events").contains(&line));
    };
    told("long", "running");
    root.cmd("processor", &["sweep"]).expect(0); // its supervisor may have ended
    told("short", "stopped");
    root.cmd("processor", &["jobs", "long", "kill"]).expect(0);
    told("long", "stopped");
    until("all is reported", || root.supervisors().is_empty());
    assert_clean(&root);
}

#[test]
fn claimed_only_waits_again() {
    let root = root();
    let hold = json!({"command": ["sleep", "1000"], "requested_resources": {"cores": 2}, "request_id": "hold"});
    submit(&root, hold);
    until("it runs", || root.node_status("hold")["state"] == "running");
    for id in ["b", "c"] {
        submit(&root, json!({"command": ["true"], "request_id": id}));
        fs::remove_file(root.path(&format!("state/processor/queue/{id}"))).unwrap();
    }
    // Somebody has removed this one by half.
    fs::remove_file(root.path("state/processor/job/b/request.json")).unwrap();
    let boot = root.node_status("hold")["boot"].clone();
    let record =
        json!({"pid": 1, "boot": boot, "resources": {"cores": 1, "memory": 0}, "jobs": ["b", "c"]});
    root.write("state/processor/slot/7", &format!("{record}\n"));
    let found = root.cmd("processor", &["check"]).expect(1).body;
    assert!(found.contains("slot/7: names jobs of a supervisor that died"), "{found}");
    assert_eq!(root.cmd("processor", &["sweep"]).expect(0).json()["requeued"], 1);
    assert!(root.exists("state/processor/queue/c"));
    fs::remove_dir(root.path("state/processor/job/b")).unwrap();
    root.cmd("processor", &["jobs", "hold", "kill"]).expect(0);
    assert_eq!(root.ended("c")["status"], "good");
    assert_clean(&root);
}

/// A dead supervisor may have named what another one claimed after it, whose slot cannot be read now.
#[test]
fn what_runs_is_not_ended_for_a_slot_that_cannot_be_read() {
    let root = root();
    submit(&root, json!({"command": ["sleep", "1000"], "request_id": "j"}));
    until("it runs", || root.node_status("j")["state"] == "running");
    let (slot, kept) = (root.path("state/processor/slot/1"), root.path("kept"));
    fs::rename(&slot, &kept).unwrap();
    fs::create_dir(&slot).unwrap();
    root.write("state/processor/slot/7", &claims(1, &["j"]));
    assert_eq!(root.cmd("processor", &["sweep"]).expect(0).json()["lost"], 0);
    assert_eq!(root.node_status("j")["state"], "running");
    fs::remove_dir(&slot).unwrap();
    fs::rename(&kept, &slot).unwrap();
    root.cmd("processor", &["sweep"]).expect(0);
    root.cmd("processor", &["jobs", "j", "kill", "grace=0.1"]).expect(0);
    assert_eq!(root.ended("j")["cause"], "killed");
    until("nobody has it", || root.supervisors().is_empty());
    assert_clean(&root);
}

/// A repeated request whose process dies at any point must not make a job that runs wait again.
#[test]
fn a_repeat_that_dies_does_not_start_a_job_again() {
    let root = root();
    let (go, witness) = (root.path("go"), root.path("witness"));
    let script = format!(
        "echo x >> {}; until [ -e {} ]; do sleep 0.01; done",
        witness.display(),
        go.display()
    );
    let request = json!({"command": script, "request_id": "r"});
    submit(&root, request.clone());
    until("it runs", || root.node_status("r")["state"] == "running");
    // What such a repeat left before it looked first: the link, of an inode of its own.
    root.write("state/processor/queue/r", &request.to_string());
    let found = root.cmd("processor", &["check"]).expect(1).body;
    assert!(found.contains("queue/r: is not the request"), "{found}");
    root.cmd("processor", &["check", "--repair"]);
    assert!(!root.exists("state/processor/queue/r"));
    // And with the right inode: whoever claims it waits for its supervisor, and finds an end.
    fs::hard_link(
        root.path("state/processor/job/r/request.json"),
        root.path("state/processor/queue/r"),
    )
    .unwrap();
    assert!(root.cmd("processor", &["check"]).expect(1).body.contains("waits, but was started"));
    root.cmd("processor", &["sweep"]).expect(0);
    until("it is claimed", || !root.exists("state/processor/queue/r"));
    fs::write(&go, "").unwrap();
    assert_eq!(root.ended("r")["status"], "good");
    until("nobody has it", || root.supervisors().is_empty());
    assert_eq!(root.read("witness"), "x\n");
    assert_clean(&root);
}

#[test]
fn check_finds_planted_damage() {
    let root = root();
    run(&root, json!({"command": ["true"], "request_id": "a"}));
    until("its supervisor has ended", || root.processes().is_empty());
    let job = |name: &str| root.path(&format!("state/processor/job/{name}"));
    fs::write(root.path("state/processor/queue/orphan"), "{}").unwrap();
    fs::hard_link(job("a/request.json"), root.path("state/processor/queue/a")).unwrap();
    fs::create_dir(job("limbo")).unwrap();
    fs::write(job("limbo/request.json"), "{\"command\":[\"true\"]}").unwrap();
    symlink("../job/none", root.path("state/processor/pid/1_2_3")).unwrap();
    let found = root.cmd("processor", &["check"]).expect(1).body;
    for text in [
        "queue/orphan: waits, but has no job",
        "queue/a: waits, but has ended",
        "job/limbo/request.json: is open to others",
        "job/limbo: neither waits nor runs nor has ended",
        "pid/1_2_3: links to a job that is gone",
    ] {
        assert!(found.contains(text), "{text} in {found}");
    }
    assert_eq!(found.lines().count(), 5, "{found}");
    assert_eq!(root.cmd("processor", &["check", "--repair"]).expect(1).body.lines().count(), 5);
    assert_clean(&root);
    assert_eq!(root.node_status("limbo")["cause"], "lost");
    assert_eq!(root.node_status("a")["status"], "good");
}

#[test]
fn old_jobs_are_removed_and_others_kept() {
    let root = TestRoot::new("cores = 2\nkeep_jobs = 2h\nkeep_unacknowledged = 2h\n");
    for id in ["old", "young", "lab-7f3k-2.1"] {
        submit(&root, json!({"command": ["true"], "request_id": id}));
        root.ended(id);
    }
    let day = std::time::Duration::from_secs(86_400);
    let hour = std::time::Duration::from_secs(3600);
    let set_age = |id: &str, age| {
        let story = fs::File::options()
            .append(true)
            .open(root.path(&format!("state/processor/job/{id}/status")));
        story.unwrap().set_modified(std::time::SystemTime::now() - age).unwrap();
    };
    set_age("old", day);
    set_age("young", hour);
    set_age("lab-7f3k-2.1", hour);
    let opened = corkboard::board::root::Root::open(&root.dir).unwrap();
    let tally = corkboard::processor::cleanup::clean(&opened, &std::time::SystemTime::now().into());
    assert_eq!((tally.removed, tally.trouble.len()), (1, 0), "{tally:?}");
    assert!(!root.exists("state/processor/job/old"));
    assert!(
        root.exists("state/processor/job/young") && root.exists("state/processor/job/lab-7f3k-2.1")
    );
    assert_eq!(fs::read_dir(root.path("state/processor/pid")).unwrap().count(), 2);
    assert_clean(&root);
}

/// A power loss can leave a request empty that nobody was told of; it ends as lost, and stays.
#[test]
fn the_check_is_content_with_an_empty_request_that_ended_as_lost() {
    let root = root();
    run(&root, json!({"command": ["true"], "request_id": "other"}));
    let boot = root.node_status("other");
    assert_eq!(boot["status"], "good");
    let dir = root.path("state/processor/job/empty");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("request.json"), "").unwrap();
    fs::set_permissions(
        dir.join("request.json"),
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    let found = root.cmd("processor", &["check"]).expect(1).body;
    assert!(found.contains("neither waits nor runs"), "{found}");
    root.cmd("processor", &["check", "--repair"]).expect(1);
    assert_eq!(root.ended("empty")["cause"], "lost");
    assert_clean(&root);
    root.cmd("processor", &["jobs", "empty", "status"]).expect(0);
    assert_eq!(root.cmd("processor", &["jobs", "empty", "kill"]).expect(0).json()["cause"], "lost");
}

/// Whoever reads an end before its supervisor has synced it makes the sync.
#[test]
fn an_end_is_durable_before_it_is_told() {
    let root = root();
    run(&root, json!({"command": ["true"], "request_id": "j"}));
    submit(&root, json!({"command": "exit 3", "tasks": "0-1", "request_id": "r"}));
    root.ended("r");
    let told = |words: &[&str]| {
        let (ran, calls) = Act::cmd(&root, "processor", words, "").calls(&["fsync", "syncfs"]);
        assert!(ran.acknowledged(), "{words:?} {ran:?}");
        !calls.is_empty()
    };
    assert!(told(&["jobs", "j", "status"]) && told(&["jobs", "j", "kill"]));
    assert!(told(&["jobs", "status", "ids=j,r"]) && told(&["jobs", "format=json"]));
    assert!(told(&["jobs", "r", "status", "task=0"]));
    let ack = json!({"nodejobs": ["j", "r"]}).to_string();
    root.cmd_in("processor", &["jobs", "ack"], &ack).expect(0);
    // A head has it: that it may tell has been made durable long ago.
    assert!(!told(&["jobs", "j", "status"]) && !told(&["jobs", "status", "ids=j,r"]));
}
