//! What a node knows of its GPUs, and when: found out once in each boot by whoever needs to know.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs;

use common::head::open_root;
use common::node::{log, submit};
use common::ways::kill_supervisor;
use common::{Answer, TestRoot, until};
use serde_json::{Value, json};

/// Says which GPUs it may use.
const TELL: &str = "echo gpus=${CUDA_VISIBLE_DEVICES-unset}";

const TWO: &str = "echo '0, NVIDIA A100, 40960, 8.0'; echo '1, NVIDIA H100, 81920, 9.0'";

/// A root of a machine whose `nvidia-smi` does this.
fn root_with(script: &str) -> TestRoot {
    let mut root = open_root("");
    let dir = root.path("stand-ins");
    fs::create_dir_all(&dir).unwrap();
    root.env.push(("PATH".into(), format!("{}:/usr/bin:/bin", dir.display())));
    now_does(&root, script);
    root
}

fn now_does(root: &TestRoot, script: &str) {
    let text = format!("#!/bin/sh\necho asked >> {}\n{script}\n", root.path("asked").display());
    root.write("stand-ins/new", &text);
    root.install("stand-ins/nvidia-smi", &root.path("stand-ins/new"), "755");
}

/// From now on the machine is in another boot.
fn reboot(root: &mut TestRoot) {
    root.env.push(("CORKBOARD_BOOT_ID".into(), "another".into()));
}

fn asked(root: &TestRoot) -> usize {
    root.read("asked").lines().count()
}

fn info(root: &TestRoot) -> Value {
    root.cmd("processor", &["info"]).expect(0).json()
}

fn noted(root: &TestRoot) -> Value {
    serde_json::from_str(&root.read("state/processor/gpus")).unwrap_or_default()
}

/// For how long it is not asked again.
fn put_off(root: &TestRoot) -> u64 {
    let noted = noted(root);
    noted["again"].as_u64().unwrap() - noted["seconds"].as_u64().unwrap()
}

/// Lets the time come at which it is asked again.
fn time_comes(root: &TestRoot) {
    let (mut noted, time) = (noted(root), put_off(root));
    for name in ["seconds", "again"] {
        noted[name] = json!(noted[name].as_u64().unwrap() - time);
    }
    root.write("state/processor/gpus", &noted.to_string());
}

fn give(root: &TestRoot, gpus: u64) -> Answer {
    let request = json!({"command": TELL, "dir": "/", "requested_resources": {"gpus": gpus}});
    root.cmd_in("processor", &["jobs", "new", "-q"], &request.to_string())
}

fn says(root: &TestRoot, id: &str) -> String {
    assert_eq!(root.ended(id)["status"], "good");
    log(root, id).trim().to_string()
}

/// A root with two, on which a job for one of them waits until another job ends, which is the first.
fn with_one_that_waits() -> (TestRoot, String, String) {
    let root = root_with(TWO);
    let all = json!({"command": "sleep 1000", "dir": "/", "requested_resources": {"cores": 2}});
    let before = submit(&root, all);
    until("it runs", || root.node_status(&before)["state"] == "running");
    let waits = give(&root, 1).expect(0).body.trim().to_string();
    (root, before, waits)
}

#[test]
fn they_are_found_out_once_in_a_boot() {
    let mut root = root_with(TWO);
    for _ in 0..2 {
        let found = info(&root);
        assert_eq!(found["resources"]["gpus"], 2, "{found}");
        let first = json!({"index": 0, "name": "NVIDIA A100", "memory": 40u64 << 30, "compute_capability": "8.0"});
        assert_eq!(found["gpus"][0], first);
        assert_eq!(found["labels"]["gpu_memory"], (40u64 << 30).to_string());
        assert_eq!(found["labels"]["gpu_compute_capability"], "8.0");
        assert_eq!(asked(&root), 1);
    }
    now_does(&root, "exit 9");
    assert_eq!(info(&root)["resources"]["gpus"], 2, "what was known in this boot stays so");
    now_does(&root, TWO);
    reboot(&mut root);
    assert_eq!(info(&root)["resources"]["gpus"], 2);
    assert_eq!(asked(&root), 2);
    root.check();
}

#[test]
fn a_job_that_asks_for_them_has_them_found_out() {
    let root = root_with(TWO);
    let id = give(&root, 1).expect(0).body.trim().to_string();
    assert_eq!(says(&root, &id), "gpus=0");
    let refused = give(&root, 3).expect(1);
    assert!(refused.stderr.contains("the job needs 1 core, 3 gpus"), "{refused:?}");
    assert_eq!(asked(&root), 1);
    root.check();
}

#[test]
fn a_job_that_waits_over_a_boot_has_them_found_out() {
    let (mut root, before, waits) = with_one_that_waits();
    // A head would give a job of its own to another node, if this one gave it back.
    let heads = json!({"command": TELL, "dir": "/", "request_id": "c-1.1",
        "requested_resources": {"gpus": 2}, "environment": {"CORKBOARD_TOKEN": "x"}});
    root.cmd_in("processor", &["jobs", "new"], &heads.to_string()).expect(0);
    kill_supervisor(&root);
    reboot(&mut root);
    root.cmd("processor", &["sweep"]).expect(0);
    assert_eq!(root.ended(&before)["cause"], "lost");
    assert_eq!(says(&root, &waits), "gpus=0");
    assert_eq!(says(&root, "c-1.1"), "gpus=0,1");
    assert_eq!(asked(&root), 2);
    until("all are told", || root.supervisors().is_empty());
    root.check();
}

#[test]
fn what_cannot_be_found_out_is_not_known() {
    for script in
        ["echo nonsense", "exit 9", "echo broken; exit 255", "echo '0, x, 1, 8.0'; exec sleep 1000"]
    {
        let root = root_with(script);
        let found = info(&root);
        assert_eq!((&found["resources"]["gpus"], &found["gpus"]), (&Value::Null, &Value::Null));
        let answer = give(&root, 1).expect(75);
        let why = "which GPUs this node has is not known yet: ";
        assert!(
            answer.stderr.contains(why) && answer.stderr.contains("/nvidia-smi: "),
            "{answer:?}"
        );
        assert_eq!(
            (asked(&root), put_off(&root)),
            (1, 5),
            "it is not asked over and over: {script}"
        );
        if script.ends_with("1000") {
            continue;
        }
        time_comes(&root);
        give(&root, 1).expect(75);
        assert_eq!((asked(&root), put_off(&root)), (2, 10), "{script}");
        now_does(&root, TWO);
        give(&root, 1).expect(75);
        time_comes(&root);
        let id = give(&root, 1).expect(0).body.trim().to_string();
        assert_eq!(says(&root, &id), "gpus=0");
        assert_eq!((asked(&root), &noted(&root)["again"]), (3, &Value::Null), "{script}");
        root.check();
    }
}

#[test]
fn a_job_that_waits_until_they_are_known_keeps_no_other_waiting() {
    let (mut root, _, waits) = with_one_that_waits();
    kill_supervisor(&root);
    now_does(&root, "exit 9");
    reboot(&mut root);
    root.cmd("processor", &["sweep"]).expect(0);
    until("it was looked", || noted(&root)["error"].is_string());
    let plain = submit(&root, json!({"command": TELL, "dir": "/"}));
    assert_eq!(says(&root, &plain), "gpus=", "it has none, however many there are");
    let status = root.cmd("processor", &["jobs", &waits, "status"]).expect(0).json();
    assert_eq!(status["state"], "queued");
    assert!(status["reason"].as_str().unwrap().starts_with("which GPUs this node has"), "{status}");
    now_does(&root, TWO);
    time_comes(&root);
    root.cmd("processor", &["sweep"]).expect(0);
    assert_eq!(says(&root, &waits), "gpus=0");
    until("all are told", || root.supervisors().is_empty());
    root.check();
}

#[test]
fn a_job_that_asks_for_none_sees_none_where_there_may_be_some() {
    for (conf, script, seen) in [
        ("", Some(TWO), "gpus="),
        ("", Some("exec sleep 1000"), "gpus="),
        ("", Some("echo No devices were found; exit 6"), "gpus="),
        ("gpus = 0\n", None, "gpus="),
        ("gpus = 2\n", None, "gpus="),
        ("", None, "gpus=7"),
    ] {
        let root = match script {
            Some(script) => root_with(script),
            None => open_root(conf),
        };
        let environment = json!({"CUDA_VISIBLE_DEVICES": "7"});
        let id = submit(&root, json!({"command": TELL, "dir": "/", "environment": environment}));
        assert_eq!(says(&root, &id), seen, "{conf:?} {script:?}");
        assert_eq!(asked(&root), 0, "nobody waits for that");
        root.check();
    }
}

#[test]
fn a_machine_that_says_it_has_none_has_none() {
    let root = root_with("echo 'No devices were found'; exit 6");
    assert_eq!(info(&root)["resources"]["gpus"], Value::Null);
    let refused = give(&root, 1).expect(1);
    assert!(refused.stderr.contains("the job needs 1 core, 1 gpu"), "{refused:?}");
    assert_eq!((asked(&root), &noted(&root)["error"]), (1, &Value::Null));
    root.check();
}
