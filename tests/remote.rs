//! The same words, asked of a root by HTTP: what is printed, and the exit code, are those of a command on
//! the root's own machine.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "common/answering.rs"]
mod answering;
mod common;

use std::env;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use answering::stand_in_for;
use common::head::CONF;
use common::{Httpd, TestRoot, program};

/// What a command printed and said, and its exit code.
#[derive(Debug, PartialEq)]
struct Told {
    code: Option<i32>,
    out: String,
    err: String,
}

/// A command that stands in no root.
fn elsewhere(url: &str, token: &str, args: &[&str], input: &str) -> Told {
    let mut command = Command::new(program("scheduler"));
    command.env_clear().env("PATH", "/usr/bin:/bin").current_dir(env::temp_dir()).args(args);
    command.env("CORKBOARD_URL", url).env("CORKBOARD_TOKEN", token);
    told(command, input)
}

fn told(mut command: Command, input: &str) -> Told {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes()); // it may not read it
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Told { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// A closed root with a server, and an admin's token.
fn root() -> (TestRoot, Httpd, String) {
    let root = TestRoot::new(CONF);
    let token = root.cmd("scheduler", &["tokens", "new", "role=admin", "-q"]).expect(0).body;
    let httpd = root.httpd();
    (root, httpd, token.trim().to_string())
}

#[test]
fn what_is_printed_and_the_exit_code_are_those_of_a_command_there() {
    let (root, httpd, token) = root();
    let _poller = root.poller();
    let there = |args: &[&str]| elsewhere(&httpd.url(), &token, args, "");
    let failing = ["jobs", "new", "-q", "--", "sh", "-c", "echo out; echo x > made; exit 41"];
    assert_eq!(there(&failing), Told { code: Some(0), out: "1\n".into(), err: String::new() });
    let held = ["jobs", "new", "--held", "-q", "--cores", "64", "--", "true"];
    let warned = there(&held);
    assert_eq!((warned.code, warned.out.as_str()), (Some(0), "2\n"), "{}", warned.err);
    assert!(warned.err.contains("job 2: no node has"), "{}", warned.err);
    // Now that nothing changes any more:
    assert_eq!(there(&["jobs", "1", "status", "wait=60"]).code, Some(41));
    for words in [
        &["jobs"] as &[&str],
        &["jobs", "format=json"],
        &["jobs", "format=table"],
        &["jobs", "1"],
        &["jobs", "1", "status"],
        &["jobs", "1", "status", "wait=5"],
        &["jobs", "2", "status", "wait=0"],
        &["jobs", "status", "ids=1,2,77"],
        &["jobs", "1", "log"],
        &["jobs", "1", "log", "follow=1"],
        &["jobs", "1", "files"],
        &["jobs", "1", "files", "made"],
        &["queue"],
        &["queue", "2"],
        &["nodes", "localhost", "-X", "GET"],
        &["jobs", "77"],
        &["jobs", "77", "status", "wait=1"],
        &["jobs", "1", "log", "task=3"],
        &["jobs", "new", "-d", "{\"command\": []}"],
        &["jobs", "2", "update", "priority=high"],
        &["nodes", "no such one", "remove"],
        &["events", "since=x"],
        &["jobs", "2", "update", "kill=1"],
        &["queue", "2", "-X", "DELETE"],
    ] {
        let mut here = root.base("scheduler");
        here.args(words);
        let here = told(here, "");
        assert_eq!(there(words), here, "{words:?}");
    }
    // What needs a shell of that machine is refused there, and what works on its files here.
    let refused = there(&["tokens"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("shell"), "{}", refused.err);
    let repair = there(&["--url", &httpd.url(), "check", "--repair"]);
    assert_eq!(repair.code, Some(1));
    assert!(repair.err.contains("run it on the machine of http://"), "{}", repair.err);
    root.check();
}

#[test]
fn a_command_is_submitted_with_its_files_and_waited_for() {
    let (root, httpd, token) = root();
    let _poller = root.poller();
    root.write("data file", "of this machine\n");
    let file = root.path("data file");
    let file = file.to_str().unwrap();
    let url = httpd.url();
    let script = "cat 'data file' -; pwd; exit 7";
    let words = ["--url", &url, "jobs", "new", "--wait", "--stdin", "--file", file, "--"];
    let words = [&words[..], &["sh", "-c", script]].concat();
    let run = elsewhere("http://127.0.0.1:9", &token, &words, "what comes in\n");
    assert_eq!(run.code, Some(7), "{run:?}");
    let (text, dir) = run.out.split_at("of this machine\nwhat comes in\n".len());
    assert_eq!(text, "of this machine\nwhat comes in\n");
    assert!(dir.contains("/state/processor/"), "{dir}: it starts in a directory of its own");
    assert_eq!(run.err, "scheduler: job 1: exit 7\n");
    // A range, of which each task is told.
    let words =
        ["jobs", "new", "--wait", "--array", "0-2", "--", "sh", "-c", "echo $CORKBOARD_TASK"];
    let run = elsewhere(&url, &token, &words, "");
    assert_eq!((run.code, run.out.as_str()), (Some(0), "0\n1\n2\n"), "{run:?}");
    root.check();
}

#[test]
fn who_is_not_let_in_or_finds_nobody_is_told_what_to_do() {
    let (_root, httpd, token) = root();
    let refused = elsewhere(&httpd.url(), "wrong", &["jobs"], "");
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("CORKBOARD_TOKEN is what is presented"), "{}", refused.err);
    assert!(!refused.err.contains("wrong"), "{}", refused.err);
    let nobody = elsewhere("http://127.0.0.1:1", &token, &["jobs"], "");
    assert_eq!(nobody.code, Some(75), "{}", nobody.err);
    assert!(nobody.err.contains("http://127.0.0.1:1 does not answer"), "{}", nobody.err);
    let wrong = elsewhere("head:8080", &token, &["jobs"], "");
    assert_eq!(wrong.code, Some(1));
    assert!(wrong.err.contains("it is like http://head:8080"), "{}", wrong.err);
    let none = elsewhere(&format!("{}/elsewhere", httpd.url()), &token, &["jobs"], "");
    assert_eq!(none.code, Some(1));
    assert!(none.err.contains("says 404"), "{}", none.err);
}

#[test]
fn a_root_that_is_named_here_counts_more_than_an_address() {
    let (root, httpd, token) = root();
    let _ = &httpd;
    let mut here = root.base("scheduler");
    here.args(["jobs"]).env("CORKBOARD_URL", "http://127.0.0.1:1").env("CORKBOARD_TOKEN", token);
    assert_eq!(told(here, ""), Told { code: Some(0), out: String::new(), err: String::new() });
}

#[test]
fn a_log_that_is_cut_off_is_gone_on_with_where_it_ended() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told_of = seen.clone();
    let port = stand_in_for(move |line, mut stream| {
        let mut seen = told_of.lock().unwrap();
        let logs = seen.iter().filter(|line: &&String| line.contains("/log?")).count();
        seen.push(line.to_string());
        let (head, body) = if line.contains("/status") {
            let state = if logs < 2 { "running" } else { "stopped" };
            let body = format!("{{\"state\":\"{state}\"}}\n");
            (format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()), body)
        } else {
            let body = ["one\n", "two\n", "three\n"][logs.min(2)];
            ("X-Corkboard-Attempt: 4\r\nX-Corkboard-Offset: 10\r\n".into(), body.into())
        };
        let _ = write!(stream, "HTTP/1.0 200 OK\r\nConnection: close\r\n{head}\r\n{body}");
    });
    let url = format!("http://127.0.0.1:{port}");
    let run = elsewhere(&url, "t", &["jobs", "7", "log", "follow=1", "tail=5"], "");
    assert_eq!(run, Told { code: Some(0), out: "one\ntwo\nthree\n".into(), err: String::new() });
    let seen = seen.lock().unwrap();
    let of = |query: &str| format!("GET /cgi-bin/scheduler/jobs/7/{query} HTTP/1.1");
    let expected = [
        of("log?follow=1&tail=5"),
        of("status"),
        of("log?follow=1&offset=14&attempt=4"),
        of("status"),
        of("log?follow=1&offset=18&attempt=4"),
    ];
    assert_eq!(*seen, expected);
}
