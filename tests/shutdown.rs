//! An orderly end of supervisors: the machine is shut down, or its services are stopped.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs;

use common::array::{noted, root_with, runs};
use common::node::{assert_clean, root, submit};
use common::{SOON, TestRoot, signal, until, wait_for};
use serde_json::{Value, json};

const WHY: &str = "the supervisor was told to end (machine shutdown?)";

/// The supervisor, once it has this job's program running.
fn runs_under(root: &TestRoot, id: &str) -> i32 {
    until("it runs", || root.node_status(id)["state"] == "running");
    root.supervisors()[0]
}

fn assert_lost(end: &Value) {
    assert_eq!((&end["cause"], &end["reason"]), (&json!("lost"), &json!(WHY)));
}

#[test]
fn what_runs_is_lost_and_was_asked_to_end() {
    let root = root();
    let (up, told) = (root.path("up"), root.path("told"));
    let script = format!(
        "trap 'echo told > {}; exit 0' TERM; touch {}; while :; do sleep 0.01; done",
        told.display(),
        up.display()
    );
    let id = submit(&root, json!({"command": script}));
    until("its trap is set", || root.exists("up"));
    signal(root.supervisors()[0], "TERM");
    assert_lost(&root.ended(&id));
    assert!(root.exists("told"));
    until("the supervisor has left", || root.supervisors().is_empty());
    assert_clean(&root);
}

#[test]
fn programs_that_were_to_follow_are_not_started() {
    let root = root();
    let script = format!(
        "trap 'exit 0' TERM; touch {}; while :; do sleep 0.01; done",
        root.path("up").display()
    );
    let second = json!({"exec": ["touch", root.path("second")]});
    let id = submit(&root, json!({"commands": [{"exec": script}, second]}));
    until("its trap is set", || root.exists("up"));
    signal(root.supervisors()[0], "TERM");
    assert_lost(&root.ended(&id));
    assert!(!root.exists("second"));
    assert_clean(&root);
}

/// A shutdown tells all processes, in no order.
#[test]
fn a_job_that_is_told_before_its_supervisor_is_lost_as_well() {
    let root = root();
    for (id, first) in [("j", true), ("k", false)] {
        submit(&root, json!({"command": ["sleep", "1000"], "request_id": id}));
        let supervisor = runs_under(&root, id);
        let program = root.node_status(id)["pid"].as_i64().unwrap() as i32;
        let both = if first { [program, supervisor] } else { [supervisor, program] };
        both.iter().for_each(|pid| signal(*pid, "TERM"));
        assert_lost(&root.ended(id));
        until("the supervisor has left", || root.supervisors().is_empty());
    }
    submit(&root, json!({"command": ["sleep", "1000"], "request_id": "alone"}));
    runs_under(&root, "alone");
    signal(root.node_status("alone")["pid"].as_i64().unwrap() as i32, "TERM");
    let end = root.ended("alone");
    assert_eq!((&end["cause"], &end["reason"]), (&json!("signal"), &json!("signal SIGTERM")));
    assert_clean(&root);
}

#[test]
fn what_was_not_started_waits_again() {
    let root = TestRoot::new("cores = 1\nmemory = 4 GiB\n");
    let script = format!("echo $CORKBOARD_NODEJOB >> {}; sleep 0.005", root.path("ran").display());
    let jobs: Vec<Value> =
        (0..100).map(|n| json!({"command": script, "request_id": format!("j{n}")})).collect();
    root.cmd_in("processor", &["jobs", "new"], &json!(jobs).to_string()).expect(0);
    let ended = || root.cmd("processor", &["jobs", "state=stopped"]).expect(0).body.lines().count();
    let mut told = 0;
    for _ in 0..8 {
        let before = ended();
        until("some have ended", || ended() >= 100.min(before + 5));
        for pid in root.supervisors() {
            signal(pid, "TERM");
            told += 1;
            until("it has left", || !common::lives(pid));
        }
        assert_clean(&root);
        root.cmd("processor", &["sweep"]).expect(0);
    }
    wait_for(SOON, || if ended() == 100 { Ok(()) } else { Err(ended().to_string()) });
    let ran = root.read("ran");
    let mut once: Vec<&str> = ran.lines().collect();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), ran.lines().count(), "none is started twice");
    let ends: Vec<Value> = (0..100).map(|n| root.node_status(&format!("j{n}"))).collect();
    let lost = ends.iter().filter(|end| end["cause"] == "lost").count();
    let good = ends.iter().filter(|end| end["status"] == "good").count();
    assert!(lost <= told && lost + good == 100, "{lost} of {told} lost, {good} good");
    assert_clean(&root);
}

#[test]
fn the_head_tries_again_what_was_lost() {
    let root = root_with(1);
    let _poller = root.poller();
    let script = format!("mkdir {} || exit 0; sleep 1000", root.path("first").display());
    let job = root.submit(&json!({"command": script, "max_retry_count": 1}));
    until("it runs", || root.exists("first"));
    until("a supervisor has it", || !root.supervisors().is_empty());
    root.supervisors().iter().for_each(|pid| signal(*pid, "TERM"));
    let end = root.reaches(job, "stopped");
    assert_eq!((&end["status"], &end["attempt"]), (&json!("good"), &json!(2)), "{end}");
    let retry = root.card(job).into_iter().find(|line| line["event"] == "retry").unwrap();
    assert_lost(&retry);
    root.check();
}

#[test]
fn of_a_range_the_task_that_runs_is_lost_and_the_rest_goes_back() {
    let root = root_with(1);
    let _poller = root.poller();
    let hangs = root.path("hangs");
    let more = format!(
        "[ $CORKBOARD_TASK != 3 ] || {{ mkdir {} && sleep 1000; exit 0; }}",
        hangs.display()
    );
    let command = noted(&root, "ran", &more);
    let job = root.submit(&json!({"command": command, "array": "0-9", "max_retry_count": 1}));
    until("one hangs", || fs::metadata(&hangs).is_ok());
    until("a supervisor has it", || !root.supervisors().is_empty());
    root.supervisors().iter().for_each(|pid| signal(*pid, "TERM"));
    let end = root.reaches(job, "stopped");
    assert_eq!((&end["status"], &end["tasks"]["good"]), (&json!("good"), &json!(10)), "{end}");
    for (task, count) in runs(&root, "ran") {
        assert_eq!(count, if task == 3 { 2 } else { 1 }, "task {task}");
    }
    let stories: String = common::array::ranges(&root)
        .iter()
        .map(|id| root.read(&format!("state/processor/job/{id}/tasks")))
        .collect();
    assert!(stories.contains(WHY) && !stories.contains("killed"), "{stories}");
    root.check();
}
