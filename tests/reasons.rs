//! Why a job, or a task, waits, and what it says when it has waited for too long.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;
mod faults;

use std::fs::File;
use std::process::{Command, Stdio};

use common::array::{root_with, tasks_reach};
use common::head::{drain_localhost, host, node_reaches, open_root, register};
use common::{TestRoot, until, wait_for};
use faults::Act;
use serde_json::{Value, json};

fn task(root: &TestRoot, job: u64, task: u32) -> Value {
    let words = ["jobs", &job.to_string(), "status", &format!("task={task}")].map(String::from);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    root.cmd("scheduler", &words).expect(0).json()
}

#[test]
fn what_failed_waits_for_its_time_and_says_so() {
    let root = root_with(2);
    let _poller = root.poller();
    let failing = |more: Value| {
        let mut request = json!({"command": ["false"], "max_retry_count": 1, "retry_delay": "1h"});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        root.submit(&request)
    };
    let array = failing(json!({"array": "0-1"}));
    let one = failing(json!({}));
    let status = root.reason(array, "is tried again then");
    let reason = status["reason"].as_str().unwrap();
    assert!(reason.starts_with("waiting until 2") && status["state"] == "queued", "{status}");
    let reason = task(&root, array, 1)["reason"].clone();
    assert!(reason.as_str().unwrap().starts_with("waiting until 2"), "{reason}");
    root.reason(one, "(attempt 1 ended: exit 1)");
    let past =
        [failing(json!({"expires": "2s"})), failing(json!({"expires": "2s", "array": "0-1"}))];
    let ends = past.map(|job| root.reaches(job, "stopped"));
    assert!(ends.iter().all(|end| end["cause"] == "expired"), "{ends:?}");
    let ran = "expired before it could be tried again (attempt 1 ended: exit 1)";
    assert_eq!(ends[0]["reason"], ran);
    let ran = "expired before it could be tried again (its last run failed)";
    assert_eq!(task(&root, past[1], 0)["reason"], ran);
    root.check();
}

#[test]
fn every_task_says_why_it_waits() {
    let root = root_with(2);
    let _poller = root.poller();
    let until = format!("until [ -e {}/go ]; do sleep 0.02; done", root.path("").display());
    let job = root.submit(&json!({"command": until, "array": "0-3%1"}));
    tasks_reach(&root, job, |tasks| tasks["running"] == 1);
    let of = |index| task(&root, job, index)["reason"].clone();
    assert_eq!(of(0), Value::Null);
    assert_eq!(of(1), "waiting for its turn on localhost behind task 0");
    assert_eq!(of(3), "at most 1 of its tasks may run at a time");
    root.update(job, "hold=1").expect(0);
    assert!(of(3).as_str().unwrap().starts_with("held by"));
    root.update(job, "release=1").expect(0);
    let other = root.submit(&json!({"command": until, "array": "0-7"}));
    tasks_reach(&root, other, |tasks| tasks["running"] == 1);
    assert_eq!(task(&root, other, 7)["reason"], "waiting for room on localhost");
    root.write("go", "");
    root.reaches(job, "stopped");
    root.reaches(other, "stopped");
    root.check();
}

#[test]
fn a_node_that_refuses_is_the_reason_where_no_other_takes_jobs() {
    let root = root_with(1);
    let (_there, httpd, token) = host("max_body = 100\n");
    drain_localhost(&root);
    register(&root, &json!({"name": "there", "uri": httpd.url(), "token": token}));
    let _poller = root.poller();
    node_reaches(&root, "there", "connected");
    let job = root.submit(&json!({"command": ["true"], "array": "0-3"}));
    let status = wait_for(common::SOON, || {
        let status = root.status(job);
        let reason = status["reason"].as_str().unwrap_or_default();
        if reason.contains("(node there refused it: ") {
            Ok(status)
        } else {
            Err(status.to_string())
        }
    });
    assert!(status["reason"].as_str().unwrap().starts_with("waiting until 2"), "{status}");
    root.cmd("scheduler", &["nodes", "localhost", "update", "-d", r#"{"drain": false}"#]).expect(0);
    root.reaches(job, "stopped");
    root.check();
}

/// A command that waits for a job says what the job waits for: once, and when that changes.
#[test]
fn a_command_that_waits_says_what_for() {
    let root = root_with(2);
    let _poller = root.poller();
    node_reaches(&root, "localhost", "connected");
    let command = |name: &str, words: &[&str]| {
        Command::new(root.path("cgi-bin/scheduler"))
            .args(words)
            .env("CORKBOARD_ROOT", &root.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(root.path(name)).unwrap())
            .spawn()
            .unwrap()
    };
    let mut submitter = command("new", &["jobs", "new", "--wait", "--cores", "64", "--", "true"]);
    let says = |name: &str, wanted: &[&str]| {
        let wanted: String = wanted.iter().map(|w| format!("scheduler: job 1: {w}\n")).collect();
        wait_for(common::SOON, || {
            let said = root.read(name);
            if said == wanted { Ok(()) } else { Err(said) }
        });
    };
    says("new", &["no node has 64 cores"]);
    let mut follower = command("log", &["jobs", "1", "log", "follow=1"]);
    says("log", &["no node has 64 cores"]);
    let by = root.card(1)[0]["by"].as_str().unwrap().to_string();
    root.update(1, "hold=1").expect(0);
    let held = format!("held by {by} until released");
    says("log", &["no node has 64 cores", &held]);
    says("new", &["no node has 64 cores", &held]);
    root.update(1, "kill=1").expect(0);
    assert!(!submitter.wait().unwrap().success());
    assert!(follower.wait().unwrap().success());
    says("new", &["no node has 64 cores", &held, &format!("killed by {by}")]);
    says("log", &["no node has 64 cores", &held]);
    root.check();
}

/// It makes the rounds itself, so that no poller is running is not why.
#[test]
fn a_command_that_waited_in_vain_says_why_the_job_waits() {
    let root = root_with(2);
    root.submit(&json!({"command": "true", "requested_resources": {"cores": 64}}));
    wait_for(common::SOON, || {
        let status = root.cmd("scheduler", &["jobs", "1", "status", "wait=1"]).expect(75).json();
        let why = status["reason"].as_str().unwrap_or_default();
        if why == "no node has 64 cores" { Ok(()) } else { Err(status.to_string()) }
    });
    root.check();
}

/// There may be as many nodes as jobs, and each would be read for each.
#[test]
fn a_list_of_jobs_that_wait_reads_each_node_once() {
    let root = open_root("");
    root.cmd("scheduler", &["jobs"]).expect(0);
    for number in 0..30 {
        let node = json!({"uri": "http://127.0.0.1:9", "drain": true}).to_string();
        root.write(&format!("state/scheduler/nodes/n{number}.json"), &node);
    }
    let jobs = vec![json!({"command": "true", "requested_resources": {"cores": 50}}); 30];
    root.cmd_in("scheduler", &["jobs", "new"], &json!(jobs).to_string()).expect(0);
    let _poller = root.poller();
    until("it is at work", || root.status(1)["reason"] != "no poller is running");
    let (ran, trace) = Act::cmd(&root, "scheduler", &["jobs", "format=json"], "").watch();
    let listed = ran.json();
    assert_eq!(listed.as_array().unwrap().len(), 30);
    assert!(listed.as_array().unwrap().iter().all(|job| job["reason"] != Value::Null), "{listed}");
    let reads = trace.matches("nodes/n7.json").count();
    assert_eq!(reads, 1, "{trace}");
}
