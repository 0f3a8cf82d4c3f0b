//! What nodes answer over plain HTTP: what leads elsewhere, never ends, ends too soon or is too much, and
//! what a head says of it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "common/answering.rs"]
mod answering;
mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use answering::{WITHOUT_LENGTH, stand_in};
use common::head::{host, open_root, register};
use common::{Answer, SOON, TestRoot, signal, until, wait_for};
use serde_json::json;

/// What a node says of itself, asked once, by this head.
fn ask(root: &TestRoot, node: &str) -> Answer {
    root.cmd("nodemgr", &[node])
}

fn node_at(root: &TestRoot, name: &str, port: u16) {
    register(root, &json!({"name": name, "uri": format!("http://127.0.0.1:{port}")}));
}

#[test]
fn answers_that_lead_elsewhere_never_end_or_end_too_soon() {
    let root = open_root("request_timeout = 3s\n");
    let say = |text: &'static [u8]| {
        move |mut stream: TcpStream| {
            let _ = stream.write_all(text);
            let _ = stream.shutdown(Shutdown::Write);
            let _ = stream.read(&mut [0; 1]);
        }
    };
    let asked = stand_in(say(WITHOUT_LENGTH));
    let elsewhere = move |mut stream: TcpStream| {
        let text = format!(
            "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{asked}/\r\nContent-Length: 0\r\n\r\n"
        );
        let _ = stream.write_all(text.as_bytes());
    };
    let endless = |mut stream: TcpStream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(&[b' '; 64 << 10]).is_ok() {}
    };
    let endless_head = |mut stream: TcpStream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nX-More: ");
        while stream.write_all(&[b'x'; 1024]).is_ok() {}
    };
    let reset = |mut stream: TcpStream| {
        // Whole as JSON; but who knows what would have followed?
        let _ = stream.write_all(WITHOUT_LENGTH);
        socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    };
    let drip = |mut stream: TcpStream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(b" ").is_ok() {
            thread::sleep(std::time::Duration::from_millis(50)); // so slow is this server
        }
    };
    let endless_hints = |mut stream: TcpStream| {
        while stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n").is_ok() {}
    };
    for (name, port, part) in [
        ("hints", stand_in(endless_hints), "timeout"),
        ("elsewhere", stand_in(elsewhere), "says 302: ask http://127.0.0.1:"),
        ("endless", stand_in(endless), "the answer is too large"),
        ("head", stand_in(endless_head), "too large"),
        ("drip", stand_in(drip), "timeout"),
        ("reset", stand_in(reset), "eset by peer"),
        ("short", stand_in(say(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}")), "ended before"),
        (
            "cut",
            stand_in(say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n")),
            "ended before",
        ),
        ("nothing", stand_in(say(b"")), "ended before"),
        ("other", stand_in(say(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")), "does not speak HTTP"),
        (
            "sorry",
            stand_in(say(b"HTTP/1.1 500 Oh\r\nContent-Length: 18\r\n\r\n{\"error\": \"sorry\"}")),
            "says 500: sorry",
        ),
    ] {
        node_at(&root, name, port);
        let answer = ask(&root, name);
        assert!(answer.code != 0 && answer.stderr.contains(part), "{name}: {answer:?}");
    }
    let back = say(b"HTTP/1.1 200 OK\r\nX-Corkboard-Offset: 3\r\nContent-Length: 5\r\n\r\nagain");
    node_at(&root, "back", stand_in(back));
    let answer = root.cmd("nodemgr", &["back", "jobs", "j", "log"]).expect(1);
    assert!(answer.stderr.contains("a log that goes back"), "{answer:?}");
    let hinted = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n{\"resources\":{\"cores\":1,\"memory\":1}}";
    node_at(&root, "hinted", stand_in(say(hinted)));
    ask(&root, "hinted").expect(0);
    node_at(&root, "plain", stand_in(say(WITHOUT_LENGTH)));
    ask(&root, "plain").expect(0);
    let pieces = stand_in(say(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{\"resourc\r\n1b\r\nes\":{\"cores\":1,\"memory\":1}}\r\n0\r\n\r\n",
    ));
    node_at(&root, "pieces", pieces);
    assert_eq!(ask(&root, "pieces").expect(0).json()["resources"]["cores"], 1);
}

#[test]
fn a_question_that_was_stopped_past_its_deadline_takes_in_what_has_come() {
    let root = open_root("request_timeout = 2s\n");
    let gate = root.path("go");
    let waits = gate.clone();
    let port = stand_in(move |mut stream| {
        fs::write(waits.with_extension("asked"), "").unwrap();
        until("the asker is stopped", || waits.exists());
        let body = "{\"resources\":{\"cores\":7,\"memory\":1}}";
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.write_all(body.as_bytes());
        fs::write(waits.with_extension("answered"), "").unwrap();
    });
    node_at(&root, "n", port);
    let mut child = root.start_into("said", "nodemgr", &["n"]);
    let pid = child.id() as i32;
    until("it has asked", || gate.with_extension("asked").exists());
    signal(pid, "STOP");
    fs::write(&gate, "").unwrap();
    until("it is answered", || gate.with_extension("answered").exists());
    common::let_pass(std::time::Duration::from_secs(3)); // longer than `request_timeout`
    signal(pid, "CONT");
    let code = wait_for(SOON, || child.try_wait().unwrap().ok_or_else(|| "runs".to_string()));
    assert!(code.success() && root.read("said").contains("\"cores\":7"), "{}", root.read("said"));
}

#[test]
fn what_a_node_says_in_words_is_made_short_and_plain() {
    let root = open_root("");
    let says = |status: &'static str, body: String| {
        stand_in(move |mut stream| {
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(body.as_bytes());
        })
    };
    let long = "x".repeat(1 << 20);
    let cases = [
        ("refuses", says("500 Oh", json!({"error": format!("a\u{1b}[2Jb{long}")}).to_string())),
        ("quotes", says("200 OK", json!({"resources": long}).to_string())),
    ];
    for (name, port) in cases {
        node_at(&root, name, port);
        let said = ask(&root, name).expect(1).stderr;
        assert!(said.len() < 2000 && said.contains("xxx"), "{name}: {} bytes", said.len());
        assert!(!said.trim_end().contains(char::is_control), "{name}: {:?}", said.get(..100));
    }
    let job = json!({"id": "j", "state": "stopped", "status": "error", "cause": "exit", "code": 1,
        "at": "2026-01-01T00:00:00.000Z", "reason": long});
    let unknown = json!({"id": "j", "error": long, "code": 410});
    for (name, one) in [("ended", job), ("forgot", unknown)] {
        node_at(&root, name, says("200 OK", json!([one]).to_string()));
        let answer = root.cmd("nodemgr", &[name, "jobs", "j", "status"]);
        let said = format!("{}{}", answer.body, answer.stderr);
        assert!(said.len() < 2000 && said.contains("xxx…"), "{name}: {} bytes", said.len());
    }
}

#[test]
fn a_node_with_many_jobs_names_them_all() {
    let root = open_root("");
    let (other, httpd, token) = host("");
    let uri = format!("http://127.0.0.1:{}", httpd.port);
    register(&root, &json!({"name": "far", "uri": uri, "token": token}));
    let jobs: Vec<_> =
        (0..1003).map(|n| json!({"command": ["true"], "request_id": format!("j{n}")})).collect();
    let made = other.cmd_in("processor", &["jobs", "new", "-q"], &json!(jobs).to_string());
    assert_eq!(made.expect(0).body.lines().count(), 1003);
    let named = root.cmd("nodemgr", &["far", "jobs"]).expect(0).body;
    assert_eq!(named.lines().count(), 1003);
    until("all have ended", || other.supervisors().is_empty());
    other.check();
}

#[test]
fn a_job_that_is_repeated_after_its_end_is_that_job() {
    let root = open_root("");
    let (other, httpd, token) = host("");
    let uri = format!("http://127.0.0.1:{}", httpd.port);
    register(&root, &json!({"name": "far", "uri": uri, "token": token}));
    for (id, command) in [("good", "true"), ("bad", "false")] {
        let request = json!({"command": [command], "request_id": id}).to_string();
        let run = || root.cmd("nodemgr", &["far", "jobs", "new", "-q", "-d", &request]).expect(0);
        assert_eq!(run().body.trim(), id);
        other.ended(id);
        assert_eq!(run().body.trim(), id);
    }
    other.check();
}

#[test]
fn a_node_that_refuses_this_roots_token_asks_nobody_for_another() {
    let root = open_root("");
    let (_other, httpd, _) = host("");
    let uri = format!("http://127.0.0.1:{}", httpd.port);
    register(&root, &json!({"name": "far", "uri": uri, "token": "cb_00000000_0"}));
    let answer = root.cgi("GET", "/nodemgr/far", &[], b"").expect(403);
    assert_eq!(answer.header("WWW-Authenticate"), None);
    assert!(answer.body.contains("node far says 401: "), "{answer:?}");
}
