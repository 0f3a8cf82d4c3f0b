//! Kills, and claims, that come in the middle of something: what was seen a moment ago is so no more.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;
mod faults;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use common::array::root_with;
use common::kills::kill;
use common::node::{assert_clean, claims, submit};
use common::{TestRoot, signal, until};
use corkboard::board::lock::is_locked;
use faults::Act;
use serde_json::{Value, json};

/// A job of two programs, of which the first ends once a file is there.
fn of_two(root: &TestRoot, id: &str, more: Value) -> PathBuf {
    let go = root.path(&format!("{id}.go"));
    let first = format!("until [ -e {} ]; do sleep 0.02; done", go.display());
    let second = root.path(&format!("{id}.second"));
    let commands = json!([{"exec": ["sh", "-c", first]},
        {"exec": ["sh", "-c", format!("touch {}; exec sleep 1000", second.display())]}]);
    let mut request = json!({"commands": commands, "request_id": id});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    submit(root, request);
    until("it runs", || root.node_status(id)["state"] == "running");
    go
}

/// Its supervisor hears of both at once: it used to look for the kill when no program ran, and no more
/// for a minute.
#[test]
fn a_kill_that_comes_as_a_program_ends_is_heeded_before_the_next_one() {
    let root = root_with(1);
    for (id, more) in [("j", json!({})), ("r", json!({"tasks": "0-1"}))] {
        let go = of_two(&root, id, more);
        let supervisor = root.supervisors()[0];
        signal(supervisor, "STOP");
        fs::write(&go, "").unwrap();
        let is_over = || {
            let children = format!("/proc/{supervisor}/task/{supervisor}/children");
            let children = fs::read_to_string(children).unwrap();
            children.split_whitespace().all(|pid| !common::lives(pid.parse().unwrap()))
        };
        until("its first program has ended", is_over);
        let said = kill(&root, id, &["by=ada", "grace=0.1"]);
        assert_eq!(said["state"], "running", "{said}");
        signal(supervisor, "CONT");
        assert_eq!(root.ended(id)["reason"], "killed by ada");
        assert!(!root.exists(&format!("{id}.second")), "its second program was started");
    }
    until("it is reported", || root.supervisors().is_empty());
    assert_clean(&root);
}

/// Whoever killed it has told its supervisor, which died before it came to it.
#[test]
fn a_job_that_was_killed_does_not_wait_again() {
    let root = root_with(1);
    submit(&root, json!({"command": "sleep 1000", "request_id": "hold"}));
    until("it runs", || root.node_status("hold")["state"] == "running");
    for id in ["b", "c"] {
        submit(&root, json!({"command": "true", "request_id": id}));
        fs::remove_file(root.path(&format!("state/processor/queue/{id}"))).unwrap();
    }
    root.write("state/processor/slot/7", &claims(1, &["b", "c"]));
    let killed = json!({"at": "2026-01-01T00:00:00.000Z", "by": "ada"});
    root.write("state/processor/job/b/kill", &format!("{killed}\n"));
    root.cmd("processor", &["sweep"]).expect(0);
    let b = root.node_status("b");
    assert_eq!(b["reason"], "killed by ada", "{b}");
    assert!(root.exists("state/processor/queue/c") && !root.exists("state/processor/queue/b"));
    assert!(root.read("state/processor/events").contains("killed by ada"));
    kill(&root, "hold", &["grace=0.1"]);
    assert_eq!(root.ended("c")["status"], "good");
    until("it is reported", || root.supervisors().is_empty());
    assert_clean(&root);
}

/// It has removed them itself, or somebody has, and it runs: it used to be called killed at once.
#[test]
fn a_job_is_killed_whose_files_are_gone() {
    let root = root_with(2);
    for id in ["request", "all"] {
        submit(&root, json!({"command": "sleep 1000", "request_id": id}));
        until("it runs", || root.node_status(id)["state"] == "running");
    }
    let pid = |id: &str| root.node_status(id)["pid"].as_i64().unwrap() as i32;
    let (one, other) = (pid("request"), pid("all"));
    fs::remove_file(root.path("state/processor/job/request/request.json")).unwrap();
    fs::remove_dir_all(root.path("state/processor/job/all")).unwrap();
    assert_eq!(kill(&root, "request", &["by=ada", "grace=0.1"])["state"], "running");
    until("it is dead", || !common::lives(one));
    until("so it is said", || root.node_status("request")["reason"] == "killed by ada");
    let said = root.cmd("processor", &["jobs", "all", "kill", "by=ada", "grace=0.1"]);
    assert!(said.code != 0 && said.stderr.contains("no job all here"), "{said:?}");
    until("it is dead", || !common::lives(other));
    until("it is reported", || root.supervisors().is_empty());
    assert_eq!(root.read("state/processor/events").matches("killed by ada").count(), 2);
}

/// Nobody can claim it, and nobody else made it: supervisors used to look at it for ever, the board's
/// lock in hand.
#[test]
fn a_link_that_leads_nowhere_keeps_no_supervisor() {
    let root = root_with(1);
    submit(&root, json!({"command": "true", "request_id": "a"}));
    root.ended("a");
    symlink("/nonexistent", root.path("state/processor/queue/zz")).unwrap();
    submit(&root, json!({"command": "true", "request_id": "b"}));
    root.ended("b");
    until("they have left", || root.processes().is_empty());
    root.cmd("processor", &["check", "--repair"]).expect(1);
    assert_clean(&root);
}

/// What is read is what a crash left of an acceptance that nobody was told of; before it is claimed,
/// another request has come under its id.
#[test]
fn what_is_claimed_is_what_was_accepted() {
    let root = TestRoot::new("cores = 1\nmemory = 4 GiB\nlinger = 0\n");
    root.starts_no_supervisor();
    // Not by `processor`, which starts supervisors itself.
    let accept = |command: &str| {
        let request = json!({"command": command, "request_id": "x"}).to_string();
        root.cmd_in("nodemgr", &["localhost", "jobs", "new"], &request).expect(0);
    };
    accept("echo old");
    fs::remove_dir_all(root.path("state/processor/job/x")).unwrap();
    let supervise = Act::cmd(&root, "processor", &["supervise", "--stay"], "");
    std::thread::scope(|scope| {
        // The second lock is that of the claim.
        let slow = || supervise.inject("flock:delay_enter=3000000:when=2");
        let supervisor = scope.spawn(slow);
        let has_read = |pid: i32| {
            let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            open.filter_map(|fd| fs::read_link(fd.path()).ok())
                .any(|path| path.ends_with("queue/x"))
        };
        until("it has read it", || root.processes().into_iter().any(has_read));
        accept("echo new");
        assert!(supervisor.join().unwrap().acknowledged());
    });
    assert_eq!(root.read("state/processor/job/x/log"), "new\n");
    let check = Act::cmd(&root, "processor", &["check"], "").run();
    assert!(check.acknowledged() && check.body.is_empty(), "{check:?}");
}

/// A node has a hundred thousand jobs: whoever waits for the lock meanwhile is not to wait for all.
#[test]
fn a_check_lets_others_come_between() {
    let root = root_with(1);
    submit(&root, json!({"command": "true", "request_id": "a"}));
    root.ended("a");
    let jobs = root.path("state/processor/job");
    for number in 0..250 {
        let job = jobs.join(format!("n{number}"));
        fs::create_dir(&job).unwrap();
        for name in ["request.json", "status"] {
            fs::copy(jobs.join("a").join(name), job.join(name)).unwrap();
        }
    }
    until("it has left", || root.processes().is_empty());
    let check = Act::cmd(&root, "processor", &["check"], "");
    std::thread::scope(|scope| {
        let checker = scope.spawn(|| check.inject("lseek,statx,newfstatat:delay_enter=1000"));
        let lock = root.path("state/processor/lock");
        until("it looks", || is_locked(&lock).unwrap());
        submit(&root, json!({"command": "true", "request_id": "b"}));
        assert!(!checker.is_finished(), "it was waited for");
        assert_eq!(root.ended("b")["status"], "good");
        let ran = checker.join().unwrap();
        assert!(ran.acknowledged() && ran.body.is_empty(), "{ran:?}");
    });
}
