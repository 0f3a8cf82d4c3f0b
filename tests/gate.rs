//! The gate at which a child waits until its claim is durable and its line is stamped: nothing that
//! becomes of one child opens it for the next.
//!
//! The supervisor is traced, and what it waits for takes long: strace is needed.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::node::assert_clean;
use common::processes::Process;
use common::{TestRoot, program, signal, until, wait_for};
use serde_json::{Value, json};

/// A node with one supervisor, in which this injection of strace is at work.
struct Traced {
    root: TestRoot,
    strace: Child,
}

impl Traced {
    /// Runs these jobs, one after the other.
    fn run(inject: &str, jobs: &[Value]) -> Traced {
        let root = TestRoot::new("cores = 1\nmemory = 4 GiB\nlinger = 0\n");
        root.open();
        root.starts_no_supervisor();
        for request in jobs {
            give(&root, request);
        }
        let mut command = Command::new("strace");
        command.args(["-f", "-b", "execve", "-qq", "-o", "/dev/null"]);
        command.args(["-e", &format!("trace={}", inject.split(':').next().unwrap())]);
        command.args(["-e", &format!("inject={inject}")]);
        command.arg(program("processor")).args(["supervise", "--stay"]);
        command.env_clear().env("CORKBOARD_ROOT", &root.dir).stdin(Stdio::null());
        let strace = command.spawn().unwrap();
        Traced { root, strace }
    }

    /// The child that is no program yet.
    fn child(&self) -> Process {
        let is_supervisor =
            |process: &&Process| process.words().get(1).is_some_and(|w| w == "supervise");
        wait_for(common::SOON, || {
            let all = self.root.processes().into_iter().filter_map(Process::look);
            let all: Vec<Process> = all.filter(|process| is_supervisor(&process)).collect();
            let child = all.iter().find(|child| all.iter().any(|p| p.pid == child.parent));
            child.cloned().ok_or_else(|| format!("{all:?}"))
        })
    }

    fn end(mut self) {
        wait_for(common::SOON, || match self.strace.try_wait().unwrap() {
            Some(_) => Ok(()),
            None => Err("the supervisor still runs".into()),
        });
        assert_clean(&self.root);
    }
}

/// Through the head's program, which finds none that starts a supervisor.
fn give(root: &TestRoot, request: &Value) {
    root.cmd_in("nodemgr", &["localhost", "jobs", "new"], &request.to_string()).expect(0);
}

/// A job that keeps what its story says when it starts.
fn looks_at_its_story(root: &Path, id: &str) -> Value {
    let command = format!(
        "cat {root}/state/processor/job/{id}/status > {root}/seen.{id}",
        root = root.display()
    );
    json!({"command": command, "request_id": id, "dir": "/"})
}

/// What a sync takes: long enough for a child to pass a gate that was left open.
const SLOW_SYNC: &str = "fsync,fdatasync,syncfs:delay_enter=200000";

fn next_one_waits(kill: impl Fn(&Traced, &Process)) {
    let traced = Traced::run(SLOW_SYNC, &[json!({"command": "sleep 1000", "request_id": "a"})]);
    for id in ["b", "c"] {
        give(&traced.root, &looks_at_its_story(&traced.root.dir, id));
    }
    let child = traced.child();
    kill(&traced, &child);
    let end = traced.root.ended("a");
    assert_eq!(end["reason"], "signal SIGKILL");
    for id in ["b", "c"] {
        assert_eq!(traced.root.ended(id)["status"], "good");
        let seen = traced.root.read(&format!("seen.{id}"));
        assert!(seen.contains("running"), "{id} was started before its line was stamped");
    }
    traced.end();
}

#[test]
fn a_child_killed_before_its_gate_opens_opens_it_for_no_other() {
    next_one_waits(|_, child| signal(child.pid, "KILL"));
}

#[test]
fn a_child_killed_at_its_open_gate_leaves_it_open_for_no_other() {
    next_one_waits(|traced, child| {
        signal(child.pid, "STOP");
        until("its line is there", || traced.root.node_status("a")["state"] == "running");
        signal(child.pid, "KILL");
    });
}

/// Two jobs, the first of which is killed after it has said why it could not start its program.
#[test]
fn what_a_killed_child_has_said_is_not_taken_for_the_words_of_the_next() {
    let jobs = [
        json!({"command": ["/no/such/program"], "request_id": "a"}),
        json!({"command": "exit 127", "request_id": "b"}),
    ];
    let traced = Traced::run("exit_group:delay_enter=2000000", &jobs);
    until("it was let go", || traced.root.node_status("a")["state"] == "running");
    let child = traced.child();
    // It is about to exit once it waits in that call, and for nothing else.
    let syscall = || fs::read_to_string(format!("/proc/{}/syscall", child.pid)).unwrap_or_default();
    let exit_group = nix::libc::SYS_exit_group.to_string();
    until("it has complained", || syscall().split(' ').next() == Some(&exit_group));
    signal(child.pid, "KILL");
    assert_eq!(traced.root.ended("a")["reason"], "signal SIGKILL");
    assert_eq!(traced.root.ended("b")["reason"], "exit 127");
    traced.end();
}
