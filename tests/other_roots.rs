//! A job may start jobs in another root, by command: they are that root's, and do not end with it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs;
use std::path::Path;

use common::node::{assert_clean, submit};
use common::ways::{Way, every_way, kill_supervisor, notes};
use common::{TestRoot, program, until};
use serde_json::json;

/// Another root of the same kind, with program files of its own.
fn other(way: Way) -> TestRoot {
    let root = way.root();
    if way != Way::Scan {
        fs::remove_file(root.path("cgi-bin/processor")).unwrap();
        root.install("cgi-bin/processor", &program("processor"), "755");
    }
    root
}

/// What a job does to start one of this id there, which ends well once there is this file.
fn starts(root: &TestRoot, id: &str, go: &Path) -> String {
    format!(
        "CORKBOARD_ROOT={root} {root}/cgi-bin/processor jobs new -q -r {id} -- \
         sh -c 'until [ -e {go} ]; do sleep 0.01; done'",
        root = root.dir.display(),
        go = go.display()
    )
}

/// Gives a job to the first root that starts one in the other, and has the first one ended.
fn survives(end: impl Fn(&TestRoot, &str), then: &str) {
    every_way(|way, first| {
        let second = other(way);
        let go = notes(&second).join("go");
        let script = format!("cd /; {}; {then}", starts(&second, "same", &go));
        submit(first, json!({"command": script, "dir": "/", "request_id": "same"}));
        until("it runs there", || second.node_status("same")["state"] == "running");
        end(first, "same");
        first.ended("same");
        assert_eq!(second.supervisors().len(), 1);
        assert_eq!(second.node_status("same")["state"], "running");
        fs::write(&go, "").unwrap();
        assert_eq!(second.ended("same")["status"], "good");
        until("all supervisors know", || second.supervisors().is_empty());
        assert_clean(&second);
    });
}

#[test]
fn a_job_in_another_root_outlives_the_one_that_started_it() {
    survives(|_, _| {}, "true");
}

#[test]
fn a_job_in_another_root_is_not_killed_with_the_one_that_started_it() {
    survives(
        |first, id| {
            first.cmd("processor", &["jobs", id, "kill", "grace=0.1"]).expect(0);
        },
        "sleep 1000",
    );
}

/// Its processes are known by the group, or by an environment and a session: those of a job of the
/// same id elsewhere are not among them.
#[test]
fn a_job_in_another_root_is_not_lost_with_the_one_that_started_it() {
    survives(
        |first, _| {
            kill_supervisor(first);
            first.cmd("processor", &["sweep"]).expect(0);
        },
        "sleep 1000",
    );
}

/// The supervisor has left by the time that its starter hears of the job.
#[test]
fn a_job_that_is_started_elsewhere_at_the_last_moment_runs() {
    every_way(|way, first| {
        let second = other(way);
        let go = notes(&second).join("go");
        fs::write(&go, "").unwrap();
        for round in 0..10 {
            let id = format!("j{round}");
            let script =
                format!("cd /; exec {}", starts(&second, &id, &go).replace("CORK", "env CORK"));
            submit(first, json!({"command": script, "dir": "/", "request_id": id}));
            assert_eq!(first.ended(&id)["status"], "good");
            assert_eq!(second.ended(&id)["status"], "good");
        }
        until("all supervisors know", || second.supervisors().is_empty());
        assert_clean(&second);
    });
}

/// What is started by a job and is no supervisor is a process of the job.
#[test]
fn a_program_that_only_looks_like_a_supervisor_ends_with_the_job() {
    every_way(|_, root| {
        let dir = notes(root);
        let pid = dir.join("pid");
        let script = format!("echo $$ > {}; while :; do sleep 0.01; done", pid.display());
        fs::write(dir.join("processor"), format!("#!/bin/sh\n{script}\n")).unwrap();
        let all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(dir.join("processor"), all).unwrap();
        let script = format!(
            "setsid {0}/processor supervise & until [ -s {0}/pid ]; do sleep 0.01; done",
            dir.display()
        );
        let request = json!({"command": script, "dir": "/", "max_termination_time": 0.1});
        let id = submit(root, request);
        let left = common::pid_in(&pid);
        assert_eq!(root.ended(&id)["status"], "good");
        assert!(!common::lives(left));
    });
}
