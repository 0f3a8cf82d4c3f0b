//! Somebody ends a program that makes a change: a web server whose client has left, or Ctrl-C. Then it has
//! made it and told so in the audit, or it has not made it; and what waits ends at once.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use common::head::{CONF, node_reaches, open_root};
use common::{SOON, TestRoot, signal, until, wait_for};

/// Whoever starts the tests may have signals ignored.
const HEEDING: [&str; 2] = ["env", "--default-signal"];

const JOB: &str = r#"{"command": "true", "state": "held"}"#;

/// Cards that there are, and those of which the audit tells.
fn cards_and_lines(root: &TestRoot) -> (usize, usize) {
    let cards = fs::read_dir(root.path("state/scheduler/queue")).map_or(0, Iterator::count);
    let told = root.read("state/audit/users");
    (cards, told.lines().filter(|line| line.contains("jobs/new") && line.contains("201")).count())
}

/// A program, with JOB on its standard input.
fn fed(root: &TestRoot, mut command: Command) -> std::process::ExitStatus {
    let job = fs::File::open(root.path("job")).unwrap();
    command.stdin(job).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap()
}

/// Runs what `command` makes, with this signal at each of its calls in turn that change something.
fn at_each_call(root: &mut TestRoot, by: &str, command: impl Fn(&TestRoot) -> Command) {
    root.write("job", JOB);
    let mut ended = 0;
    for call in ["fsync", "fdatasync", "rename", "renameat2", "link", "linkat", "write", "flock"] {
        for nth in 1..100 {
            root.wrap = HEEDING
                .into_iter()
                .chain(["strace", "-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")])
                .map(String::from)
                .chain(["-e".into(), format!("inject={call}:signal={by}:when={nth}")])
                .collect();
            let done = fed(root, command(root));
            let (cards, lines) = cards_and_lines(root);
            assert_eq!(cards, lines, "{by} at {call} number {nth}, which ended it: {done:?}");
            if done.signal().is_none() {
                break;
            }
            ended += 1;
        }
    }
    root.wrap.clear();
    assert!(ended >= 5, "{ended} were ended");
    root.cmd("scheduler", &["check"]).expect(0);
}

#[test]
fn a_request_whose_client_leaves_has_changed_nothing_or_has_a_line() {
    let mut root = open_root("");
    at_each_call(&mut root, "SIGTERM", |root| {
        let length = ("Content-Length", &*JOB.len().to_string());
        let json = ("Content-Type", "application/json");
        root.cgi_command("POST", "/scheduler/jobs/new", &[json, length])
    });
}

#[test]
fn a_command_that_is_interrupted_has_changed_nothing_or_has_a_line() {
    let mut root = TestRoot::new(CONF);
    at_each_call(&mut root, "SIGINT", |root| {
        let mut command = root.base("scheduler");
        command.args(["jobs", "new", "-d", "@-"]);
        command
    });
    at_each_call(&mut root, "SIGHUP", |root| {
        let mut command = root.base("scheduler");
        command.args(["jobs", "new", "--held", "--", "true"]);
        command
    });
}

/// Signals that a process holds back, as a mask.
fn blocked(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap_or("0");
    u64::from_str_radix(mask.trim(), 16).unwrap()
}

fn holds_back(child: &Child) -> bool {
    blocked(&fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default()) != 0
}

/// It ends by this signal, which it is sent now, within two seconds.
fn ends_soon(mut child: Child, by: &str) {
    let begun = Instant::now();
    signal(child.id() as i32, by);
    let ended = wait_for(SOON, || child.try_wait().unwrap().ok_or("it goes on".to_string()));
    assert!(ended.signal().is_some(), "{ended:?}");
    assert!(begun.elapsed().as_secs() < 2, "after {:?}", begun.elapsed());
}

#[test]
fn what_waits_ends_at_once() {
    let mut root = open_root("");
    root.wrap = HEEDING.map(String::from).to_vec();
    // For a body, of a command and of a request.
    let mut command = root.base("scheduler");
    command.args(["jobs", "new", "-d", "@-"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    let kept = child.stdin.take();
    until("it reads", || is_in(&child, nix::libc::SYS_read));
    ends_soon(child, "INT");
    let length = ("Content-Length", "100");
    let mut command = root.cgi_command("POST", "/scheduler/jobs/new", &[length]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let kept_too = child.stdin.take();
    until("it waits", || is_in(&child, nix::libc::SYS_ppoll));
    ends_soon(child, "TERM");
    drop((kept, kept_too));
    // For a job to be placed, which a poller does that is stopped; this is told.
    let mut poller = root.start("poller", &[]);
    node_reaches(&root, "localhost", "connected");
    let number = root.cmd_in("scheduler", &["jobs", "new", "-q"], JOB).expect(0).body;
    let number = number.trim();
    signal(poller.id() as i32, "STOP");
    root.cmd("scheduler", &["jobs", number, "update", "release=1"]).expect(0);
    let number = format!("job-number={number}");
    let child = root.start("nodemgr", &["jobs", "run", &number]);
    until("it waits", || holds_back(&child));
    ends_soon(child, "INT");
    let told = root.read("state/audit/users");
    assert!(told.lines().last().unwrap().contains("jobs/run"), "{told}");
    poller.kill().unwrap();
    poller.wait().unwrap();
}

/// Whether a process is in this system call.
fn is_in(child: &Child, call: i64) -> bool {
    let said = fs::read_to_string(format!("/proc/{}/syscall", child.id())).unwrap_or_default();
    said.split(' ').next() == Some(&call.to_string())
}

#[test]
fn what_is_started_meanwhile_can_be_ended() {
    let root = open_root("");
    fs::remove_file(root.path("bin/poller")).unwrap();
    root.write("poller", "#!/bin/sh\ncat /proc/self/status > \"$CORKBOARD_ROOT/started\"\n");
    root.install("bin/poller", &root.path("poller"), "755");
    let number = root.cmd_in("scheduler", &["jobs", "new", "-q"], r#"{"command": "true"}"#);
    let number = format!("job-number={}", number.expect(0).body.trim());
    root.cmd("nodemgr", &["jobs", "run", &number]).expect(75);
    let status = root.read("started");
    assert!(status.contains("SigBlk:"), "it was not started");
    assert_eq!(blocked(&status), 0, "{status}");
}
