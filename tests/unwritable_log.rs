//! Programs whose log cannot be written, since it is on a disk that is full, or longer than a limit: they
//! go on with what they are at.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs::File;
use std::process::{Child, Stdio};

use common::node::{root, submit};
use common::{TestRoot, until};
use serde_json::json;

/// Every write to it fails as on a full disk.
fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

/// A poller that says what it does there; ended when dropped.
struct Poller(Child);

impl Poller {
    fn start(root: &TestRoot, log: &dyn Fn() -> Stdio) -> Poller {
        let mut command = root.base("poller");
        Poller(command.stdin(Stdio::null()).stdout(log()).stderr(log()).spawn().unwrap())
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_poller_goes_on() {
    let root = root();
    let mut poller = Poller::start(&root, &|| full().into());
    for _ in 0..3 {
        let job = root.submit(&json!({"command": "true", "dir": "/"}));
        assert_eq!(root.reaches(job, "stopped")["status"], "good");
    }
    assert!(poller.0.try_wait().unwrap().is_none());
}

/// Its feed grows beyond the limit, and is told of by what cannot be written there.
#[test]
fn a_poller_outlasts_a_limit_on_files() {
    let mut root = root();
    root.wrap = ["prlimit", "--fsize=6000:6000"].map(String::from).to_vec();
    let mut poller = Poller::start(&root, &Stdio::null);
    root.wrap.clear();
    for _ in 0..20 {
        let job = root.submit(&json!({"command": "true", "dir": "/"}));
        assert_eq!(root.reaches(job, "stopped")["status"], "good");
    }
    assert!(poller.0.try_wait().unwrap().is_none());
    root.wrap = ["prlimit", "--fsize=10:10"].map(String::from).to_vec();
    for (program, words) in [("scheduler", ["jobs", "new"]), ("processor", ["jobs", "new"])] {
        let refused = root.cmd_in(program, &words, "{\"command\": \"true\"}").expect(75);
        assert!(refused.stderr.contains("file too large"), "{refused:?}");
    }
}

/// It has something to say in the server's log, and an answer.
#[test]
fn a_request_is_answered() {
    let root = root();
    let path = "/processor/jobs/new";
    let mut command = root.cgi_command("POST", path, &[("Host", "evil.example")]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(full());
    let answer = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert!(answer.starts_with("Status: 421 "), "{answer}");
    // What cannot be told in the feed is said there, too: the kill is done all the same.
    submit(&root, json!({"command": "sleep 1000", "request_id": "r", "dir": "/"}));
    until("it runs", || root.node_status("r")["state"] == "running");
    let all = json!({"cores": 2});
    submit(&root, json!({"command": "true", "request_id": "w", "requested_resources": all}));
    std::fs::remove_file(root.path("state/processor/events")).unwrap();
    std::fs::create_dir(root.path("state/processor/events")).unwrap();
    let mut command = root.cgi_command("POST", "/processor/jobs/w/kill", &[]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(full());
    let answer = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert!(answer.starts_with("Status: 200 "), "{answer}");
    std::fs::remove_dir(root.path("state/processor/events")).unwrap();
    root.cmd("processor", &["jobs", "r", "kill", "grace=0.1"]).expect(0);
    root.ended("r");
}
