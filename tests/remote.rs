//! The same words, asked of a root by HTTP: what is printed, and the exit code, are those of a command on
//! the root's own machine. Of submissions: `remote_submissions`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "common/answering.rs"]
mod answering;
mod common;
#[path = "common/remote.rs"]
mod remote;

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use answering::stand_in_for;
use common::{SOON, wait_for};
use remote::{Told, asking, elsewhere, root, told};

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
fn who_is_not_let_in_or_finds_nobody_is_told_what_to_do() {
    let (_root, httpd, token) = root();
    let refused = elsewhere(&httpd.url(), "wrong", &["jobs"], "");
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("CORKBOARD_TOKEN is what is presented"), "{}", refused.err);
    assert!(!refused.err.contains("wrong"), "{}", refused.err);
    let nobody = elsewhere("http://127.0.0.1:1", &token, &["jobs"], "");
    assert_eq!(nobody.code, Some(75), "{}", nobody.err);
    assert!(nobody.err.contains("http://127.0.0.1:1 does not answer"), "{}", nobody.err);
    assert!(nobody.err.contains("CORKBOARD_URL is set: unset it"), "{}", nobody.err);
    let shell = elsewhere(&httpd.url(), &token, &["tokens"], "");
    assert!(shell.err.contains("CORKBOARD_URL is set: unset it"), "{}", shell.err);
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
            // Cut off as if that were all, also when it was to be the last.
            let body = ["one\n", "two\n", "th", "ree\n", ""][logs.min(4)];
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
        of("status"),
        of("log?follow=1&offset=20&attempt=4"),
        of("status"),
        of("log?follow=1&offset=24&attempt=4"),
    ];
    assert_eq!(*seen, expected);
}

#[test]
fn a_full_disk_is_told_of_and_a_reader_that_left_is_not() {
    let (root, httpd, token) = root();
    let _poller = root.poller();
    let words = ["jobs", "new", "-q", "--", "sh", "-c", "yes | head -c 1000000"];
    elsewhere(&httpd.url(), &token, &words, "");
    assert_eq!(
        elsewhere(&httpd.url(), &token, &["jobs", "1", "status", "wait=60"], "").code,
        Some(0)
    );
    for words in [
        &["jobs", "1", "log", "follow=1"] as &[&str],
        &["jobs", "1", "log"],
        &["jobs", "1"],
        &["events", "format=event-stream", "wait=1"],
        &["jobs", "new", "--wait", "--", "sh", "-c", "yes | head -c 1000000"],
    ] {
        let mut here = root.base("scheduler");
        here.args(words);
        let mut on_node = root.base("processor");
        on_node.args(words);
        let is_wait = words.contains(&"--wait");
        let remote = asking("scheduler", &httpd.url(), &token, words);
        for mut command in [here, remote].into_iter().chain(is_wait.then_some(on_node)) {
            let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
            let run = command.stdout(full).output().unwrap();
            let said = String::from_utf8_lossy(&run.stderr);
            assert_eq!(run.status.code(), Some(1), "{command:?}: {said}");
            assert!(said.contains("no space left"), "{command:?}: {said}");
            let (reader, writer) = io::pipe().unwrap();
            drop(reader);
            let run = command.stdout(writer).output().unwrap();
            let said = String::from_utf8_lossy(&run.stderr);
            assert_eq!((run.status.code(), &*said), (Some(0), ""), "{command:?}");
        }
    }
    root.check();
}

#[test]
fn an_end_of_a_log_that_always_breaks_off_is_not_asked_for_for_ever() {
    let port = stand_in_for(|line, mut stream| {
        let (of_type, length, body) = match line.contains("/status") {
            true => ("application/json", 19, "{\"state\":\"stopped\"}"),
            false => ("text/plain", 100, ""),
        };
        let _ = write!(
            stream,
            "HTTP/1.0 200 OK\r\nConnection: close\r\nContent-Type: {of_type}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
    });
    let url = format!("http://127.0.0.1:{port}");
    let run = elsewhere(&url, "t", &["jobs", "7", "log", "follow=1"], "");
    assert_eq!(run.code, Some(75), "{}", run.err);
    assert!(run.err.contains("broke off") && run.err.contains("offset=0"), "{}", run.err);
}

/// The server ends each request for a stream after a while, or is cut off in the middle.
#[test]
fn a_stream_lasts_as_long_as_was_asked_for() {
    let port = stand_in_for(|line, mut stream| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nretry: 500\n\n";
        let after = |id: u32| {
            line.contains(&format!("since=a.{id}&")) || line.contains(&format!("since=a.{id} "))
        };
        let body = match (0..4).find(|id| after(*id)) {
            None => ":\nid: a.0\n\n".to_string(),
            Some(0) => "id: a.1\ndata: {\"n\":1}\n\nid: a.2\nda".to_string(),
            Some(1) => "id: a.2\ndata: {\"n\":2}\n\n".to_string(),
            Some(_) => ":\nid: a.2\n\n".to_string(),
        };
        let _ = stream.write_all(format!("{head}{body}").as_bytes());
    });
    let url = format!("http://127.0.0.1:{port}");
    let begun = Instant::now();
    let told = elsewhere(&url, "x", &["events", "format=event-stream", "wait=3"], "");
    assert_eq!(told.code, Some(0), "{}", told.err);
    let lines: Vec<&str> = told.out.lines().filter(|line| line.starts_with("da")).collect();
    assert_eq!(lines, [r#"data: {"n":1}"#, r#"data: {"n":2}"#], "{}", told.out);
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn answers_that_make_no_sense_are_no_good_ends() {
    let port = stand_in_for(|line, mut stream| {
        let (more, body) = match line.split(' ').nth(1).unwrap_or_default() {
            "/cgi-bin/scheduler/jobs/new" => ("", r#"{"job":7}"#),
            path if path.contains("/jobs/7/log") => ("", ""),
            path if path.contains("/jobs/7/status") => {
                ("", r#"{"state":"stuck","error":"no\u001bcard"}"#)
            }
            path if path.contains("/jobs/8/") => {
                ("X-Corkboard-Exit-Code: 256\r\n", r#"{"state":"stopped"}"#)
            }
            _ => ("Content-Length: 100\r\n", "short"),
        };
        let of_type = if body.starts_with('{') { "application/json" } else { "text/plain" };
        let head = format!(
            "HTTP/1.0 200 OK\r\nConnection: close\r\nContent-Type: {of_type}\r\n{more}\r\n"
        );
        let _ = write!(stream, "{head}{body}");
    });
    let url = format!("http://127.0.0.1:{port}");
    // A wait for a card that cannot be read.
    let run = elsewhere(&url, "t", &["jobs", "new", "--wait", "--", "true"], "");
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.err.contains("job 7: no card"), "{}", run.err);
    // A code that no process can end with.
    assert_eq!(elsewhere(&url, "t", &["jobs", "8", "status", "wait=1"], "").code, Some(1));
    let short = elsewhere(&url, "t", &["jobs", "9", "log"], "");
    assert_eq!((short.code, short.out.as_str()), (Some(75), "short"), "{}", short.err);
    assert!(short.err.contains(&url), "{}", short.err);
    // A value without a length is one all the same.
    let table = elsewhere(&url, "t", &["jobs", "8", "status", "format=table"], "");
    assert_eq!(table.out, "state  stopped\n");
}

#[test]
fn what_is_not_meant_is_not_read_and_text_is_sent_as_it_is() {
    let (root, httpd, token) = root();
    let _poller = root.poller();
    let mut command =
        asking("scheduler", &httpd.url(), &token, &["nodes", "localhost", "update", "drain=1"]);
    // Standard input stays open.
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let held = child.stdin.take();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    drop(held);
    let words = ["nodes", "localhost", "update", "drain=0"];
    assert_eq!(elsewhere(&httpd.url(), &token, &words, "not meant").code, Some(0));
    // A word on progress.
    root.cmd(
        "processor",
        &["jobs", "new", "-d", r#"{"command": "sleep 60", "request_id": "one"}"#],
    )
    .expect(0);
    let processor = |args: &[&str]| told(asking("processor", &httpd.url(), &token, args), "");
    wait_for(SOON, || {
        let status = root.cmd("processor", &["jobs", "one", "status"]).expect(0).json();
        if status["state"] == "running" { Ok(()) } else { Err(status.to_string()) }
    });
    let said = processor(&["jobs", "one", "status", "-d", "50 %"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(processor(&["jobs", "one", "status"]).out.contains("50 %"));
    // Some servers would make another path of it.
    let odd = elsewhere(&httpd.url(), &token, &["jobs", "1", "files", ".."], "");
    assert_eq!(odd.code, Some(1));
    assert!(odd.err.contains("no name that can be asked for"), "{}", odd.err);
    // Who waits is told what nobody has.
    let words = ["jobs", "new", "--wait", "--cores", "64", "--expires", "1s", "--", "true"];
    let waits = elsewhere(&httpd.url(), &token, &words, "");
    assert!(waits.err.contains("no node has"), "{}", waits.err);
    processor(&["jobs", "one", "kill", "grace=0"]);
    root.ended("one");
}
