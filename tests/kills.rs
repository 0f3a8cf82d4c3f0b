//! Kills on a node: of jobs and of tasks, once more, of what has not started, and of what nobody looks
//! after.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;
mod faults;

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use common::array::{root_with, tasks_reach};
use common::kills::{give_range, kill, reason};
use common::node::{assert_clean, claims, submit};
use common::{TestRoot, signal, until};
use faults::Act;
use fs2::FileExt;
use serde_json::{Value, json};

#[test]
fn a_second_kill_may_be_less_patient() {
    let root = root_with(2);
    let command = "trap '' TERM; touch $UP; while :; do sleep 0.05; done";
    let stubborn = |id: &str, more: Value| {
        let mut request = json!({"command": command, "request_id": id,
            "environment": {"UP": root.path(id)}});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        submit(&root, request);
        until("it runs", || root.exists(id));
    };
    stubborn("j", json!({}));
    kill(&root, "j", &["by=ada", "grace=1000"]);
    kill(&root, "j", &["by=bo", "grace=0.1"]);
    assert_eq!(root.ended("j")["reason"], "killed by ada");
    stubborn("r", json!({"tasks": "0-1"}));
    kill(&root, "r", &["by=ada", "grace=1000", "task=0"]);
    kill(&root, "r", &["by=bo", "grace=0.1", "task=0-1"]);
    assert_eq!(reason(&root, "r", 0), "killed by ada");
    assert_eq!(reason(&root, "r", 1), "killed by bo");
    root.ended("r");
    assert_clean(&root);
}

/// A program that ends by somebody's SIGTERM may be the first sign of a shutdown, for which its
/// supervisor waits a little. What it leaves behind can be killed meanwhile.
#[test]
fn a_kill_is_heeded_while_a_shutdown_may_be_coming() {
    let root = root_with(1);
    let script = "(trap '' TERM; touch $UP; while :; do sleep 0.05; done) & \
                  until [ -e $UP ]; do sleep 0.01; done; touch $UP.go; while :; do sleep 0.05; done";
    submit(
        &root,
        json!({"command": script, "request_id": "j", "max_termination_time": 1000,
            "environment": {"UP": root.path("up")}}),
    );
    until("it runs", || root.exists("up.go"));
    let program = root.node_status("j")["pid"].as_i64().unwrap() as i32;
    signal(program, "TERM");
    until("its end is seen", || !Path::new(&format!("/proc/{program}")).exists());
    kill(&root, "j", &["by=ada", "grace=0"]);
    assert_eq!(root.ended("j")["cause"], "signal");
    assert_clean(&root);
}

#[test]
fn killed_tasks_that_were_not_started_end_at_once() {
    let root = root_with(1);
    give_range(&root, "r", "0-9", "sleep 1000");
    until("it runs", || root.node_status("r")["state"] == "running");
    kill(&root, "r", &["by=ada", "task=3-5"]);
    kill(&root, "r", &["by=bo", "task=5-7"]);
    assert_eq!(reason(&root, "r", 3), "killed by ada");
    assert_eq!(reason(&root, "r", 5), "killed by ada");
    assert_eq!(reason(&root, "r", 7), "killed by bo");
    until("the feed says so", || {
        let feed = root.read("state/processor/events");
        feed.contains("killed by ada") && feed.contains("killed by bo")
    });
    assert_clean(&root);
    kill(&root, "r", &["by=cy", "grace=0.1"]);
    let end = root.ended("r");
    let failed = &end["tasks"]["failed"];
    let of = |tasks: &str| failed.as_array().unwrap().iter().find(|e| e["tasks"] == tasks).cloned();
    assert_eq!(of("3-5").unwrap()["reason"], "killed by ada", "{end}");
    assert_eq!(of("6-7").unwrap()["reason"], "killed by bo", "{end}");
    assert_eq!(of("0-2,8-9").unwrap()["reason"], "killed by cy", "{end}");
    assert_clean(&root);
}

#[test]
fn killed_tasks_of_a_range_that_waits_end_at_once() {
    let root = root_with(1);
    submit(&root, json!({"command": "sleep 1000", "request_id": "hold"}));
    until("it runs", || root.node_status("hold")["state"] == "running");
    give_range(&root, "r", "0-4", "true");
    give_range(&root, "s", "0-1", "true");
    let said = kill(&root, "r", &["by=ada", "task=1,3"]);
    assert_eq!(
        (&said["state"], &said["tasks"]["failed"][0]["tasks"]),
        (&json!("queued"), &json!("1,3"))
    );
    assert_eq!(reason(&root, "r", 3), "killed by ada");
    kill(&root, "s", &["by=ada", "task=0"]);
    let said = kill(&root, "s", &["by=bo", "task=0-1"]);
    assert_eq!(said["state"], "stopped");
    assert_eq!(reason(&root, "s", 0), "killed by ada");
    assert_eq!(reason(&root, "s", 1), "killed by bo");
    assert!(!root.exists("state/processor/queue/s"));
    let feed = root.read("state/processor/events");
    assert!(feed.matches("killed by").count() >= 3, "{feed}");
    assert_clean(&root);
    kill(&root, "hold", &["grace=0.1"]);
    let end = root.ended("r");
    assert_eq!(
        (&end["tasks"]["good"], &end["tasks"]["failed"][0]["reason"]),
        (&json!("0,2,4"), &json!("killed by ada")),
        "{end}"
    );
    until("it is reported", || root.supervisors().is_empty());
    assert_clean(&root);
}

/// At the head a killed task that has not started is over within the usual time.
#[test]
fn the_head_hears_of_killed_tasks_that_wait_behind_a_long_one() {
    let root = root_with(1);
    let _poller = root.poller();
    let job = root.submit(&json!({"command": "sleep 1000", "array": "0-3"}));
    tasks_reach(&root, job, |tasks| tasks["running"].as_u64() > Some(0));
    until("it runs", || root.status(job)["state"] == "running");
    root.cmd("scheduler", &["jobs", &job.to_string(), "update", "kill=1", "task=2-3"]).expect(0);
    tasks_reach(&root, job, |tasks| tasks["failed"] == 2);
    root.update(job, "kill=1");
    root.reaches(job, "stopped");
    root.check();
}

#[test]
fn a_range_keeps_so_much_output_and_no_more() {
    let root = TestRoot::new("cores = 1\nmemory = 4 GiB\nmax_log = 4 KiB\n");
    give_range(&root, "r", "0-29", "head -c 4000 /dev/zero | tr '\\0' x; echo; exit 0");
    root.ended("r");
    let size = fs::metadata(root.path("state/processor/job/r/log")).unwrap().len();
    assert!((65536..70000).contains(&size), "{size}");
    let log = |task: u32| {
        let words = ["jobs".into(), "r".into(), "log".into(), format!("task={task}")];
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        root.cmd("processor", &words).expect(0).body
    };
    assert_eq!(log(0).len(), 4001);
    assert_eq!(log(29), "\n[corkboard: output over 64 KiB of its range dropped]\n");
    assert_clean(&root);
}

/// Nobody else would tell the node of this root.
#[test]
fn a_kill_acts_at_once_where_no_poller_is_at_work() {
    let root = root_with(1);
    let running = root.submit(&json!({"command": "sleep 1000"}));
    let range = root.submit(&json!({"command": "sleep 1000", "array": "0-1"}));
    root.cmd("poller", &["--once", "-q"]).expect(0);
    let id = |job: u64| format!("{}-{job}.1", root.read("state/scheduler/cluster").trim());
    until("it runs", || root.node_status(&id(running))["state"] == "running");
    root.update(running, "kill=1").expect(0);
    assert_eq!(root.ended(&id(running))["reason"], "killed by root");
    until("the range is placed", || {
        root.cmd("poller", &["--once", "-q"]).expect(0);
        root.node_status(&id(range))["state"] == "running"
    });
    assert_eq!(root.status(running)["cause"], "killed");
    root.cmd("scheduler", &["jobs", &range.to_string(), "update", "kill=1", "task=0"]).expect(0);
    assert_eq!(reason(&root, &id(range), 0), "killed by root");
    root.update(range, "kill=1").expect(0);
    root.ended(&id(range));
    root.cmd("poller", &["--once", "-q"]).expect(0);
    assert_eq!(root.status(range)["cause"], "killed");
    root.check();
}

/// Two users want the end of tasks of one range, and the first of their wishes fails.
#[test]
fn a_kill_that_fails_keeps_no_other_from_being_told() {
    let root = root_with(1);
    let poller = root.poller();
    let job = root.submit(&json!({"command": "sleep 1000", "array": "0-9"}));
    tasks_reach(&root, job, |tasks| tasks["running"] == 1);
    root.reaches(job, "running");
    drop(poller);
    let fails = "flock:error=EIO:when=3"; // the board's, that of pollers, the node's
    let by_open = format!("/jobs/{job}/update?kill=1&task=1");
    let ran = Act::post(&root, "scheduler", &by_open, "text/plain", b"").inject(fails);
    assert!(ran.acknowledged() && ran.stderr.contains("is not killed"), "{ran:?}");
    let words = ["jobs", &job.to_string(), "update", "kill=1", "task=2"];
    let ran = Act::cmd(&root, "scheduler", &words, "").inject(fails);
    assert!(ran.acknowledged() && ran.stderr.contains("is not killed"), "{ran:?}");
    // Its supervisor ends it in its time.
    let id = format!("{}-{job}.1", root.read("state/scheduler/cluster").trim());
    assert_eq!(reason(&root, &id, 2), "killed by root");
    let _poller = root.poller();
    tasks_reach(&root, job, |tasks| tasks["failed_tasks"] == "1-2");
    root.update(job, "kill=1").expect(0);
    root.reaches(job, "stopped");
    root.check();
}

/// A job whose supervisor was killed, and which has left a process behind that nobody has ended: that.
fn abandoned(root: &TestRoot, request: Value) -> (String, i32) {
    let pid = root.path("pid");
    let script =
        format!("setsid sh -c 'echo $$ > {}; exec sleep 1000' & sleep 1000", pid.display());
    let mut request = request;
    request["command"] = json!(script);
    let id = submit(root, request);
    let left = common::pid_in(&pid);
    for supervisor in root.supervisors() {
        common::signal(supervisor, "KILL");
        until("it is dead", || !common::lives(supervisor));
    }
    (id, left)
}

#[test]
fn a_kill_ends_what_a_dead_supervisor_left_behind() {
    let root = root_with(2);
    let (id, left) = abandoned(&root, json!({}));
    assert!(common::lives(left));
    let said = kill(&root, &id, &["by=ada"]);
    assert!(!common::lives(left), "{said}");
    assert_eq!((&said["state"], &said["cause"]), (&json!("stopped"), &json!("killed")), "{said}");
    let why = said["reason"].as_str().unwrap();
    assert!(why.starts_with("killed by ada; its supervisor died"), "{said}");
    assert_eq!(kill(&root, &id, &["by=eve"])["reason"], said["reason"]);
    assert_clean(&root);
}

#[test]
fn a_kill_of_tasks_ends_what_a_dead_supervisor_left_behind() {
    for query in [&["by=ada", "task=0"][..], &["by=ada"]] {
        let root = root_with(2);
        let (id, left) = abandoned(&root, json!({"tasks": "0-2"}));
        let said = kill(&root, &id, query);
        assert!(!common::lives(left), "{said}");
        assert_eq!(said["state"], "stopped", "{said}");
        let whole = if query.len() == 1 { "killed" } else { "lost" };
        assert_eq!(said["cause"], whole, "{said}");
        let why = reason(&root, &id, 0);
        assert!(why.starts_with("killed by ada; its supervisor died"), "{why}");
        assert_clean(&root);
    }
}

/// One that no slot names: nobody would ever look after it.
#[test]
fn a_kill_ends_what_nobody_is_responsible_for() {
    let root = root_with(2);
    let (id, left) = abandoned(&root, json!({}));
    for slot in fs::read_dir(root.path("state/processor/slot")).unwrap() {
        fs::write(slot.unwrap().path(), "").unwrap();
    }
    let said = kill(&root, &id, &["by=ada"]);
    assert!(!common::lives(left), "{said}");
    assert_eq!(said["cause"], "killed", "{said}");
    assert_clean(&root);
}

/// Whoever recovers a slot holds it while it still names the supervisor that died, whose pid may be
/// anybody's by then.
#[test]
fn a_kill_signals_nobody_but_a_supervisor() {
    let root = root_with(1);
    submit(&root, json!({"command": "sleep 1000", "request_id": "j"}));
    until("it runs", || root.node_status("j")["state"] == "running");
    let mut stranger = Command::new("sleep").arg("1000").spawn().unwrap();
    let supervisor = root.supervisors()[0];
    let program = root.node_status("j")["pid"].as_i64().unwrap() as i32;
    signal(supervisor, "KILL");
    until("both are dead", || ![supervisor, program].into_iter().any(common::lives));
    root.write("state/processor/slot/1", &claims(stranger.id() as i32, &["j"]));
    let slot = File::options().write(true).open(root.path("state/processor/slot/1")).unwrap();
    FileExt::lock_exclusive(&slot).unwrap();
    let said = kill(&root, "j", &["by=ada"]);
    assert_eq!(said["state"], "running", "{said}");
    drop(slot);
    root.cmd("processor", &["sweep"]).expect(0);
    let reason = root.ended("j")["reason"].to_string();
    assert!(reason.contains("killed by ada"), "{reason}");
    let lives = stranger.try_wait().unwrap().is_none();
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    assert!(lives, "it was signalled");
    assert_clean(&root);
}

/// Its supervisor is known by the lock that it holds.
#[test]
fn a_kill_is_heeded_at_once_where_a_slot_cannot_be_read() {
    let root = root_with(1);
    submit(&root, json!({"command": "sleep 1000", "request_id": "j"}));
    until("it runs", || root.node_status("j")["state"] == "running");
    let (slot, kept) = (root.path("state/processor/slot/1"), root.path("kept"));
    fs::rename(&slot, &kept).unwrap();
    fs::create_dir(&slot).unwrap();
    kill(&root, "j", &["by=ada", "grace=0.1"]);
    assert_eq!(root.ended("j")["reason"], "killed by ada");
    fs::remove_dir(&slot).unwrap();
    fs::rename(&kept, &slot).unwrap();
    until("it is reported", || root.supervisors().is_empty());
    assert_clean(&root);
}

/// Where no poller is at work nobody else would start it.
#[test]
fn a_kill_starts_what_waits_again_since_a_supervisor_died() {
    let root = root_with(2);
    let both = json!({"cores": 2});
    submit(
        &root,
        json!({"command": "sleep 1000", "request_id": "hold", "requested_resources": both}),
    );
    until("it runs", || root.node_status("hold")["state"] == "running");
    for id in ["b", "c"] {
        submit(&root, json!({"command": "true", "request_id": id}));
        fs::remove_file(root.path(&format!("state/processor/queue/{id}"))).unwrap();
    }
    root.write("state/processor/slot/7", &claims(1, &["b", "c"]));
    root.write("corkboard.conf", "cores = 3\nmemory = 4 GiB\n");
    assert_eq!(kill(&root, "b", &["by=ada"])["cause"], "killed");
    assert_eq!(root.ended("c")["status"], "good");
    kill(&root, "hold", &["grace=0.1"]);
    root.ended("hold");
    until("it is reported", || root.supervisors().is_empty());
    assert_clean(&root);
}

/// Each under the name of who killed it first, also where that did not end it.
#[test]
fn tasks_that_were_killed_while_claimed_end_when_the_range_waits_again() {
    let root = root_with(1);
    submit(&root, json!({"command": "sleep 1000", "request_id": "hold"}));
    until("it runs", || root.node_status("hold")["state"] == "running");
    for id in ["r", "all"] {
        submit(&root, json!({"command": "true", "request_id": id, "tasks": "0-3"}));
        fs::remove_file(root.path(&format!("state/processor/queue/{id}"))).unwrap();
    }
    let line = r#"{"tasks":"1","by":"bo","at":"2026-01-01T00:00:00.000Z"}"#;
    root.write("state/processor/job/r/kill-tasks", &format!("{line}\n"));
    root.write("state/processor/slot/7", &claims(1, &["r", "all"]));
    kill(&root, "r", &["by=ada", "task=1-2"]);
    assert!(root.exists("state/processor/queue/r"), "it waits: {}", root.node_status("r"));
    assert_eq!(reason(&root, "r", 2), "killed by ada");
    assert_eq!(reason(&root, "r", 1), "killed by bo");
    // All of its tasks, one by one, is all of it.
    fs::remove_file(root.path("state/processor/queue/all")).unwrap();
    root.write("state/processor/slot/7", &claims(1, &["all"]));
    kill(&root, "all", &["by=ada", "task=0-3"]);
    assert_eq!(root.ended("all")["reason"], "4 of 4 tasks failed");
    assert_eq!(reason(&root, "all", 3), "killed by ada");
    assert!(!root.exists("state/processor/queue/all"));
    kill(&root, "hold", &["grace=0.1"]);
    root.ended("r");
    assert_eq!(reason(&root, "r", 0), "good");
    until("it is reported", || root.supervisors().is_empty());
    assert_clean(&root);
}
