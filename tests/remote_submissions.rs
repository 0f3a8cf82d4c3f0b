//! Jobs that are submitted to a root by HTTP from elsewhere: their files come along, whoever waits hears the end,
//! and what is broken off can be repeated.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "common/answering.rs"]
mod answering;
mod common;
#[path = "common/remote.rs"]
mod remote;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::process::Stdio;

use answering::stand_in_for;
use common::TestRoot;
use common::head::CONF;
use remote::{Told, asking, elsewhere, root, told};

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
fn files_that_cannot_be_sent_are_told_of_as_such() {
    let root = TestRoot::new(&format!("{CONF}max_upload = 1 MiB\n"));
    let token = root.cmd("scheduler", &["tokens", "new", "role=admin", "-q"]).expect(0).body;
    let httpd = root.httpd();
    let path = root.path("large");
    File::create(&path).unwrap().set_len(200 << 20).unwrap();
    let words = ["jobs", "new", "--file", path.to_str().unwrap(), "--", "true"];
    let large = elsewhere(&httpd.url(), token.trim(), &words, "");
    assert_eq!(large.code, Some(1), "{}", large.err);
    assert!(large.err.contains("max_upload"), "{}", large.err);
    // It is cut while it is on its way.
    let cut = path.clone();
    let port = stand_in_for(move |_, mut stream| {
        OpenOptions::new().write(true).open(&cut).unwrap().set_len(1).unwrap();
        let _ = io::copy(&mut stream, &mut io::sink());
    });
    let shrunk = elsewhere(&format!("http://127.0.0.1:{port}"), "t", &words, "");
    assert_eq!(shrunk.code, Some(1), "{}", shrunk.err);
    assert!(
        shrunk.err.contains("large: ") && shrunk.err.contains("of it are gone"),
        "{}",
        shrunk.err
    );
    let words = ["jobs", "new", "--file", "/proc/version", "--", "true"];
    let without = elsewhere(&httpd.url(), token.trim(), &words, "");
    assert_eq!(without.code, Some(1), "{without:?}");
    assert!(without.err.contains("no file that has a length"), "{}", without.err);
    let odd = elsewhere(&httpd.url(), "a\nb", &["jobs"], "");
    assert_eq!(odd.code, Some(1), "{}", odd.err);
    assert!(odd.err.contains("characters that cannot be sent"), "{}", odd.err);
}

#[test]
fn who_did_not_hear_the_answer_asks_again_and_gets_no_second_job() {
    let (root, httpd, token) = root();
    let words = ["jobs", "new", "--", "true"];
    let port = stand_in_for(|_, stream| drop(stream));
    let lost = elsewhere(&format!("http://127.0.0.1:{port}"), &token, &words, "");
    assert_eq!(lost.code, Some(75), "{}", lost.err);
    let (_, id) = lost.err.split_once("--request-id ").unwrap();
    let id = id.split(' ').next().unwrap();
    let again = ["jobs", "new", "-q", "--request-id", id, "--", "true"];
    for _ in 0..2 {
        let run = elsewhere(&httpd.url(), &token, &again, "");
        assert_eq!(run, Told { code: Some(0), out: "1\n".into(), err: String::new() });
    }
    root.check();
}

/// Whether by then it had all that was sent: a repeat without the id could be a second job.
#[test]
fn a_submission_that_is_broken_off_can_be_repeated_however_it_was() {
    let port = stand_in_for(|line, mut stream| {
        if line.starts_with("GET") {
            let _ = write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n");
        } // the connection of another is reset: not all of its body was read
    });
    let url = format!("http://127.0.0.1:{port}");
    let small = "x".repeat(20_000);
    let script = format!(": {small}");
    let broken = elsewhere(&url, "t", &["jobs", "new", "--", "sh", "-c", &script], "");
    assert_eq!(broken.code, Some(75), "{}", broken.err);
    assert!(broken.err.contains("with --request-id "), "{}", broken.err);
    assert!(!broken.err.contains("max_upload"), "{}", broken.err);
    // So much that it may well have been too much.
    let large =
        elsewhere(&url, "t", &["jobs", "new", "--stdin", "--", "cat"], &"x".repeat(1 << 20));
    assert_eq!(large.code, Some(1), "{}", large.err);
    assert!(large.err.contains("max_upload"), "{}", large.err);
    assert!(large.err.contains("with --request-id "), "{}", large.err);
}

#[test]
fn a_wait_outlasts_a_server_that_is_started_anew() {
    let (root, httpd, token) = root();
    let _poller = root.poller();
    let (url, port, go) = (httpd.url(), httpd.port, root.path("go"));
    let script =
        format!("echo one; until [ -e {} ]; do sleep 0.05; done; echo two; exit 3", go.display());
    let words = ["jobs", "new", "--wait", "--", "sh", "-c", &script];
    let mut command = asking("scheduler", &url, &token, &words);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut first = [0; 4];
    out.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"one\n");
    httpd.cut();
    let _httpd = root.httpd_on(port);
    File::create(&go).unwrap();
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    let run = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert_eq!((run.status.code(), &*rest), (Some(3), "two\n"), "{said}");
    root.check();
}

#[test]
fn in_brief_a_start_elsewhere_is_one_id() {
    let (root, httpd, token) = root();
    let words =
        ["jobs", "new", "wait=20", "-q", "-d", r#"{"command": "true", "request_id": "one"}"#];
    let run = told(asking("processor", &httpd.url(), &token, &words), "");
    assert_eq!(run, Told { code: Some(0), out: "one\n".into(), err: String::new() });
    root.ended("one");
}
