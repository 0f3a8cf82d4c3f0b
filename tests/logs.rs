//! Logs: asked for in pieces, and followed; whoever is cut off goes on.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::io::{self, Write};
use std::time::{Duration, Instant};

use common::head::{drain_localhost, host, open_root, register};
use common::node::{root, submit};
use common::{SOON, until};
use corkboard::board::root::Root;
use corkboard::model::ids::RunId;
use corkboard::model::log::LogQuery;
use corkboard::{processor, scheduler};
use serde_json::json;

#[test]
fn an_offset_may_be_any_number() {
    let root = root();
    submit(&root, json!({"command": ["echo", "out"], "tasks": "0-1", "request_id": "r"}));
    root.ended("r");
    for offset in [4, u64::MAX >> 1, u64::MAX - 3, u64::MAX] {
        let path = format!("/processor/jobs/r/log?task=1&offset={offset}");
        let piece = root.cgi("GET", &path, &[], b"").expect(200);
        assert_eq!((piece.body.as_str(), piece.header("X-Corkboard-Offset")), ("", Some("4")));
    }
}

/// A reader for whom there is always more, by the time that it has taken something.
struct Slow;

impl Write for Slow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        std::thread::sleep(Duration::from_millis(100)); // so slow it is
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Otherwise the server ends the program somewhere.
#[test]
fn following_ends_in_time_however_much_comes() {
    let root = open_root("");
    let _poller = root.poller();
    let job = root.submit(&json!({"command": "while echo x; do sleep 0.01; done", "dir": "/"}));
    root.reaches(job, "running");
    let id = RunId::parse(root.card(job)[1]["nodejob"].as_str().unwrap()).unwrap();
    until("it writes", || !root.read(&format!("state/processor/job/{id}/log")).is_empty());
    let opened = Root::open(&root.dir).unwrap();
    let (begun, wait) = (Instant::now(), Duration::from_millis(300));
    let query = LogQuery::default();
    let followed = processor::log::follow(&opened, &id, query.clone(), wait, &mut Slow).unwrap();
    assert!(!followed.over && followed.next > 0, "{followed:?}");
    let end = Some(Instant::now() + wait);
    let over = scheduler::outputs::follow(&opened, job, 0, query, end, None, &mut Slow).unwrap();
    assert!(!over && begun.elapsed() < SOON);
    root.update(job, "kill=1").expect(0);
    root.reaches(job, "stopped");
    root.check();
}

/// Bytes count on over the attempts.
#[test]
fn whoever_is_cut_off_goes_on_with_what_is_missing() {
    let root = open_root("");
    let _poller = root.poller();
    let job = root.submit(&json!({"command": "echo $CORKBOARD_NODEJOB; exit 1", "dir": "/",
        "max_retry_count": 2}));
    root.reaches(job, "stopped");
    let log = |query: &str| {
        let path = format!("/scheduler/jobs/{job}/log?{query}");
        let answer = root.cgi("GET", &path, &[], b"").expect(200);
        let place = ["X-Corkboard-Attempt", "X-Corkboard-Offset"];
        let place = place.map(|name| answer.header(name).unwrap().parse::<usize>().unwrap());
        (answer.body, place[0], place[1])
    };
    let cluster = root.read("state/scheduler/cluster");
    let of = |attempt: u32| format!("{}-{job}.{attempt}\n", cluster.trim());
    let whole: String = (1..=3).map(of).collect();
    for from in 0..=whole.len() {
        let told = log(&format!("follow=1&attempt=1&offset={from}"));
        assert_eq!(told, (whole[from..].to_string(), 1, from));
    }
    let length = of(1).len();
    assert_eq!(log("attempt=2"), (of(2), 2, length));
    assert_eq!(log("attempt=2&offset=2"), (of(2)[2..].to_string(), 2, length));
    assert_eq!(log("follow=1&attempt=2"), ([of(2), of(3)].concat(), 2, 0));
    assert_eq!(log("follow=1"), (of(3), 3, 0));
    assert_eq!(log(""), (of(3), 3, length));
    assert_eq!(log("follow=1&tail=1&attempt=1"), (whole, 1, 0));
    let absent = format!("/scheduler/jobs/{job}/log?attempt=4");
    root.cgi("GET", &absent, &[], b"").expect(404);
    root.check();
}

/// Once an answer has begun it can only end, and would be an empty log.
#[test]
fn a_log_that_cannot_be_fetched_is_no_empty_one_where_it_is_followed() {
    let (there, httpd, token) = host("");
    let root = open_root("connect_timeout = 1\nrequest_timeout = 2\n");
    let server = root.httpd();
    let uri = httpd.url().replace("/cgi-bin", "");
    register(&root, &json!({"name": "other", "uri": uri, "token": token}));
    drain_localhost(&root);
    let _poller = root.poller();
    let [silent, forgotten] =
        [0, 1].map(|_| root.submit(&json!({"command": "echo out", "dir": "/"})));
    let follow = |job: u64, more: &str| {
        server.curl(&[], &format!("/scheduler/jobs/{job}/log?follow=1{more}"))
    };
    for job in [silent, forgotten] {
        root.reaches(job, "stopped");
        assert_eq!(follow(job, "").expect(200).body, "out\n");
    }
    let split = follow(silent, "&stream=stderr").expect(400);
    assert!(split.body.contains("this job has one stream"), "{}", split.body);
    let id = root.card(forgotten)[1]["nodejob"].as_str().unwrap().to_string();
    std::fs::remove_dir_all(there.path(&format!("state/processor/job/{id}"))).unwrap();
    let gone = follow(forgotten, "");
    assert!(matches!(gone.code, 404 | 410), "{gone:?}");
    httpd.cut();
    let unheard = follow(silent, "");
    assert!(matches!(unheard.code, 502..=504), "{unheard:?}");
    root.check();
}
