//! A supervisor that has nothing to do stays for the next job, and is never in the way of one.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use common::{TestRoot, lives, signal, until};
use serde_json::{Value, json};

fn root(linger: &str) -> TestRoot {
    let root = TestRoot::new(&format!("cores = 2\nmemory = 4 GiB\nlinger = {linger}\n"));
    root.open();
    root
}

fn submit(root: &TestRoot, request: Value) -> String {
    let answer = root.cmd_in("processor", &["jobs", "new", "-q"], &request.to_string()).expect(0);
    answer.body.trim().to_string()
}

/// Runs a job that ends well, and returns who then lingers: the one slot that names nothing.
fn run(root: &TestRoot) -> i32 {
    let id = submit(root, json!({"command": ["true"]}));
    assert_eq!(root.ended(&id)["status"], "good");
    let slot = || serde_json::from_str::<Value>(&root.read("state/processor/slot/1")).unwrap();
    until("it lingers", || slot()["jobs"] == json!([]));
    slot()["pid"].as_i64().unwrap() as i32
}

fn end(root: &TestRoot) {
    for pid in root.processes() {
        signal(pid, "TERM");
    }
    until("none is left", || root.processes().is_empty());
    root.cmd("processor", &["check"]).expect(0);
}

#[test]
fn jobs_that_follow_each_other_have_one_supervisor() {
    let root = root("1h");
    let first = run(&root);
    assert_eq!((run(&root), run(&root)), (first, first));
    assert_eq!(root.processes(), [first]);
    // What was set meanwhile holds for its next job.
    root.write("corkboard.conf", "cores = 2\nmemory = 4 GiB\nlinger = 0\nmax_log = 3\n");
    let id = submit(&root, json!({"command": "echo abcdef"}));
    root.ended(&id);
    let log = root.read(&format!("state/processor/job/{id}/log"));
    assert!(log.starts_with("abc\n[corkboard: output over"), "{log}");
    until("it ends, as is set now", || root.processes().is_empty());
    end(&root);
}

#[test]
fn it_ends_by_itself_or_does_not_linger_at_all() {
    for linger in ["100ms", "0"] {
        let root = root(linger);
        let id = submit(&root, json!({"command": ["true"]}));
        root.ended(&id);
        until("it has ended", || root.processes().is_empty());
        root.cmd("processor", &["check"]).expect(0);
    }
}

/// Nobody sweeps here: each job is started by its acceptance, or by who lingers. Two jobs at a time,
/// of which each waits for the other.
#[test]
fn no_job_waits_for_one_that_has_another() {
    let root = root("1ms");
    for round in 0..40 {
        let linger = ["1h", "1ms", "5ms"][round % 3];
        root.write("corkboard.conf", &format!("cores = 2\nmemory = 4 GiB\nlinger = {linger}\n"));
        let (a, b) = (root.path(&format!("a{round}")), root.path(&format!("b{round}")));
        let meet = |own: &std::path::Path, other: &std::path::Path| {
            let (own, other) = (own.display(), other.display());
            submit(
                &root,
                json!({"command": format!("touch {own}; until [ -e {other} ]; do sleep 0.01; done")}),
            )
        };
        std::thread::scope(|scope| {
            let first = scope.spawn(|| meet(&a, &b));
            let second = meet(&b, &a);
            root.ended(&first.join().unwrap());
            root.ended(&second);
        });
    }
    end(&root);
}

#[test]
fn one_that_was_killed_or_stopped_keeps_no_job_waiting() {
    let root = root("1h");
    let killed = run(&root);
    signal(killed, "KILL");
    until("it is dead", || !lives(killed));
    let stopped = run(&root);
    assert_ne!(killed, stopped);
    signal(stopped, "STOP");
    let id = submit(&root, json!({"command": ["true"]}));
    // A poller sweeps every few seconds.
    until("a sweep starts another", || {
        root.cmd("processor", &["sweep"]).expect(0);
        root.node_status(&id)["status"] == "good"
    });
    signal(stopped, "CONT");
    assert_eq!(run(&root), stopped);
    end(&root);
}
