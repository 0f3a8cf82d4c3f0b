//! Which Hosts and proxies a root answers to, and that a wait lasts no longer than the right to it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};
use std::slice;
use std::time::{Duration, Instant};

use common::head::{CONF, open_root};
use common::{Httpd, SOON, TestRoot, processes, until, wait_for};
use serde_json::json;

fn token(root: &TestRoot, words: &[&str]) -> String {
    let words = [&["tokens", "new", "-q"], words].concat();
    root.cmd("scheduler", &words).expect(0).body.trim().to_string()
}

#[test]
fn open_mode_answers_to_exact_loopback_hosts_alone() {
    let root = open_root("");
    for (host, code) in [
        ("localhost", 200),
        ("LocalHost:8080", 200),
        ("[::1]", 200),
        ("127.0.0.1:1", 200),
        ("[::1].evil", 421),
        ("[::1]evil.example:80", 421),
        ("localhost.", 421),
        ("127.0.0.1.", 421),
        ("localhost:", 421),
        ("localhost:80x", 421),
        ("user@localhost", 421),
        ("localhost@evil.example", 421),
        ("[::1%lo]", 421),
        ("localhost, evil.example", 421),
        ("evil.example\u{1b}[2J", 421),
    ] {
        let answer = root.cgi("GET", "/scheduler/jobs", &[("Host", host)], b"");
        assert_eq!(answer.code, code, "{host:?}: {answer:?}");
        let log = &answer.stderr;
        assert_eq!(log.contains(&format!("Host {host:?}")), code == 421, "{log:?}");
        assert!(!log.trim_end().contains(char::is_control), "{log:?}");
    }
    // busybox passes on the last of several.
    let httpd = root.httpd();
    let port = httpd.port;
    let twice = format!(
        "GET /cgi-bin/scheduler/jobs HTTP/1.0\r\nHost: localhost:{port}\r\nHost: evil.example\r\n\r\n"
    );
    assert!(httpd.raw(twice.as_bytes()).contains(" 421 "));
}

#[test]
fn open_mode_admits_nobody_through_a_proxy() {
    let root = open_root("");
    let httpd = root.httpd();
    let headers = [
        "Forwarded: for=127.0.0.1",
        "X-Forwarded-For: 127.0.0.1",
        "X-Forwarded-Host: localhost",
        "X-Forwarded-Proto: https",
        "X-Forwarded: 1",
        "Via: 1.1 proxy",
        "X-Real-IP: 127.0.0.1",
        "X-Client-IP;",
        "CF-Connecting-IP: 127.0.0.1",
    ];
    for header in headers {
        let refused = httpd.curl(&["-H", header], "/scheduler/jobs").expect(403);
        assert!(refused.body.contains("through a proxy"), "{refused:?}");
        httpd.curl(&["-H", header, "-d", r#"{"command":"x"}"#], "/scheduler/jobs/new").expect(403);
    }
    // A token says who asks, whoever stands between.
    let bearer = format!("Authorization: Bearer {}", token(&root, &["role=user"]));
    for header in headers {
        httpd.curl(&["-H", header, "-H", &bearer], "/scheduler/jobs").expect(200);
    }
    assert_eq!(root.tree(), "");
    root.check();
}

#[test]
fn allowed_hosts_with_and_without_a_port() {
    let root = TestRoot::new(&format!(
        "{CONF}allowed_hosts = Head.example, other.example:8443\nadvertise = http://10.1.2.3:8080/cgi-bin\n"
    ));
    let bearer = format!("Bearer {}", token(&root, &["role=user"]));
    for (host, code) in [
        ("head.example", 200),
        ("HEAD.EXAMPLE:8080", 200),
        ("other.example:8443", 200),
        // This machine, and its own address, under which its own head asks it.
        ("localhost:8080", 200),
        ("127.0.0.1", 200),
        ("10.1.2.3:8080", 200),
        ("10.1.2.3:8081", 421),
        ("other.example", 421),
        ("other.example:80", 421),
        ("head.example.", 421),
        ("evil.example", 421),
        ("head.example@evil.example", 421),
        ("", 421),
    ] {
        let headers = [("Host", host), ("Authorization", &bearer as &str)];
        let answer = root.cgi("GET", "/scheduler/jobs", &headers, b"");
        assert_eq!(answer.code, code, "{host:?}: {answer:?}");
        assert_eq!(answer.stderr.contains(&format!("Host {host:?}")), code == 421, "{answer:?}");
    }
    // The address that `up` has written.
    let root = TestRoot::new(&format!("{CONF}allowed_hosts = head.example\n"));
    fs::create_dir_all(root.path("run")).unwrap();
    root.write("run/url", "http://10.1.2.3:8080/cgi-bin\n");
    let bearer = format!("Bearer {}", token(&root, &["role=user"]));
    let headers = [("Host", "10.1.2.3:8080"), ("Authorization", &bearer as &str)];
    root.cgi("GET", "/scheduler/jobs", &headers, b"").expect(200);
    root.check();
}

/// Waits of every kind, all of 50 seconds.
fn waits(job: u64, id: &str) -> Vec<String> {
    vec![
        format!("/scheduler/jobs/{job}/status?wait=50"),
        format!("/scheduler/jobs/{job}/log?follow=1"),
        format!("/processor/jobs/{id}/status?wait=50"),
        format!("/processor/jobs/{id}/log?follow=1"),
        "/processor/events?wait=50&since=".into(),
    ]
}

/// How many requests are answered at this time that wait.
fn waiting(root: &TestRoot) -> usize {
    let all = processes::of_roots(slice::from_ref(&root.dir)).into_iter();
    let waits = |variable: &str| {
        let query = variable.strip_prefix("QUERY_STRING=");
        query.is_some_and(|query| query.starts_with("wait=") || query.starts_with("follow="))
    };
    all.filter(|process| process.variables(waits)).count()
}

/// Begins waits, takes the right to them away, and sees that they end long before their time.
fn end_by(root: &TestRoot, httpd: &Httpd, header: &str, take_away: impl FnOnce()) {
    // Their own at the head, and at the node: others' logs are none of theirs.
    let request = json!({"command": "echo begun; sleep 600"}).to_string();
    let post = |path: &str| httpd.curl(&["-H", header, "-d", &request], path).expect(201).json();
    let told = |since: &str| {
        let path = format!("/processor/events{since}");
        httpd.curl(&["-H", header], &path).expect(200).json()
    };
    let before = format!("?since={}", told("")["cursor"].as_str().unwrap());
    let job = post("/scheduler/jobs/new")["job"].as_u64().unwrap();
    let id = post("/processor/jobs/new")["request_id"].as_str().unwrap().to_string();
    root.reaches(job, "running");
    // From then on nothing is told that a wait for events would end with.
    let cursor = wait_for(SOON, || {
        let feed = told(&before);
        let run = feed["events"].as_array().unwrap().iter().filter(|e| e["state"] == "running");
        if run.count() == 2 { Ok(feed["cursor"].clone()) } else { Err(feed.to_string()) }
    });
    let cursor = cursor.as_str().unwrap();
    let begun = Instant::now();
    let children: Vec<_> = waits(job, &id)
        .into_iter()
        .map(|mut path| {
            if path.ends_with("since=") {
                path += cursor;
            }
            let url = format!("{}{path}", httpd.url());
            let child = Command::new("curl")
                .args(["-s", "--max-time", "70", "-w", "\n%{http_code}", "-H", header, &url])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            (path, child)
        })
        .collect();
    wait_for(SOON, || match waiting(root) {
        all if all == children.len() => Ok(()),
        some => Err(format!("{some} of {} wait: {:?}", children.len(), root.processes())),
    });
    take_away();
    for (path, child) in children {
        let said = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let is_stream = path.contains("follow");
        let code = said.rsplit('\n').next().unwrap();
        assert!(code == "401" || code == "403" || is_stream && code == "200", "{path}: {said}");
        assert!(begun.elapsed() < Duration::from_secs(40), "{path}");
    }
    root.update(job, "kill=1").expect(0);
    root.reaches(job, "stopped");
    root.cmd("processor", &["jobs", &id, "kill"]).expect(0);
    root.ended(&id);
}

#[test]
fn a_wait_ends_with_the_right_to_it() {
    let root = TestRoot::new(&format!("{CONF}default_grace = 1s\n"));
    let _poller = root.poller();
    let keep = token(&root, &["role=admin"]);
    let httpd = root.httpd();
    let revoked = token(&root, &["role=user"]);
    end_by(&root, &httpd, &format!("Authorization: Bearer {revoked}"), || {
        let id = format!("id={}", revoked.split('_').nth(1).unwrap());
        root.cmd("scheduler", &["tokens", "rm", &id]).expect(0);
    });
    let brief = token(&root, &["role=user", "expires=10s"]);
    end_by(&root, &httpd, &format!("Authorization: Bearer {brief}"), || {});
    root.open();
    end_by(&root, &httpd, "X-Nothing: 1", || fs::remove_file(root.path("state/open")).unwrap());
    // Those who may go on do.
    let job = root.submit(&json!({"command": "sleep 3; echo done"}));
    let bearer = format!("Authorization: Bearer {keep}");
    let path = format!("/scheduler/jobs/{job}/log?follow=1");
    assert_eq!(httpd.curl(&["-H", &bearer], &path).expect(200).body, "done\n");
    until("all has ended", || root.supervisors().is_empty());
    root.check();
}

#[test]
fn what_cannot_be_looked_at_is_not_taken_for_absent() {
    let root = open_root("");
    let get = |headers: &[(&str, &str)]| root.cgi("GET", "/scheduler/jobs", headers, b"");
    get(&[]).expect(200);
    // A key that somebody made up makes nothing.
    let key = "Bearer cbkey_lab-7f3k-2.1_00";
    get(&[("Authorization", key)]).expect(401);
    assert!(!root.exists("state/scheduler/cluster") && !root.exists("state/secrets/attempts"));
    // Headers that are not text.
    for variable in ["HTTP_AUTHORIZATION", "HTTP_ORIGIN", "HTTP_SEC_FETCH_SITE", "HTTP_HOST"] {
        let mut command = Command::new(root.path("cgi-bin/scheduler"));
        command.env_clear().env("CORKBOARD_ROOT", &root.dir).env("GATEWAY_INTERFACE", "CGI/1.1");
        command.env("REQUEST_METHOD", "GET").env("PATH_INFO", "/jobs");
        command.env("REMOTE_ADDR", "127.0.0.1").env("HTTP_HOST", "localhost");
        command.env(variable, OsStr::from_bytes(b"\xff"));
        let said = String::from_utf8_lossy(&command.output().unwrap().stdout).into_owned();
        assert!(said.starts_with("Status: 4"), "{variable}: {said}");
    }
    // A token whose record is damaged, and a mark of open mode that leads nowhere.
    let damaged = token(&root, &["role=user"]);
    let id = damaged.split('_').nth(1).unwrap();
    root.write(&format!("state/tokens/{id}"), "{");
    let said = get(&[("Authorization", &format!("Bearer {damaged}"))]).expect(500);
    assert!(!said.body.contains("state/tokens"), "{said:?}");
    let listed = root.cmd("scheduler", &["tokens", "ls"]).expect(0).json();
    assert_eq!(listed["tokens"][0]["id"], json!(id));
    assert!(listed["tokens"][0]["error"].as_str().unwrap().contains("not a token's record"));
    root.cmd("scheduler", &["tokens", "rm", &format!("id={id}")]).expect(0);
    fs::remove_file(root.path("state/open")).unwrap();
    std::os::unix::fs::symlink("open", root.path("state/open")).unwrap();
    get(&[]).expect(500);
    fs::remove_file(root.path("state/open")).unwrap();
    root.check();
}
