//! kill -9 at every system call that has an effect, one after another: what was acknowledged is
//! there, nothing runs twice, and sweeps put the rest right without a person.
//!
//! The calls come from a traced run of the same program; calls that change nothing outside of the
//! process are left out, since dying before one leaves what dying before the next other one does.
//! Each name is tried once more beyond its last call, where the program has to survive. strace
//! counts calls for each thread by itself, so of two threads of the poller that make the same call
//! the one that is first is hit; what the other one does is hit through `processor` alone.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;
mod faults;

use std::time::Instant;

use common::head::{drain_localhost, register};
use common::{TestRoot, until};
use faults::changes::multipart;
use faults::{Act, Counts, Journal, Point, at_every_point, names};
use serde_json::{Value, json};

const CONF: &str = "cores = 2\nmemory = 4 GiB\n";

/// The first program of a root makes its tree, its numbers, its name and its secret. Every point
/// has a root of its own.
#[test]
fn the_first_job_of_a_root() {
    let begun = Instant::now();
    let mut counts = Counts::default();
    let fresh = || {
        let root = TestRoot::new(CONF);
        root.open();
        root
    };
    let act = |journal: &Journal, round: bool| {
        let id = json!({"request_id": "first", "name": "first"});
        let submit = Act::submit(journal.root, &journal.request(id));
        if round {
            assert!(submit.run().acknowledged());
            return Act::cmd(journal.root, "poller", &["--once", "-q"], "");
        }
        submit
    };
    for round in [false, true] {
        let points = act(&Journal::new(&fresh()), round).trace().1;
        for point in points.iter().step_by(if round { 2 } else { 1 }) {
            let root = fresh();
            let mut journal = Journal::new(&root);
            let ran = act(&journal, round).kill_at(point);
            journal.counts.faults += usize::from(ran.killed);
            let again = act(&journal, false).run();
            assert_eq!(journal.answered(&again).len(), 1, "{point:?} {again:?}");
            assert_eq!(journal.named("first").len(), 1);
            journal.settle();
            journal.verify();
            counts.add(&journal.counts);
        }
    }
    counts.report("the first job of a root", begun);
}

#[test]
fn submitting_one_job() {
    let begun = Instant::now();
    let root = TestRoot::new(CONF);
    let mut journal = Journal::new(&root);
    at_every_point(
        &mut journal,
        |journal, _| {
            let line = journal.line();
            Act::cmd(journal.root, "scheduler", &["jobs", "new", "--", "sh", "-c", &line], "")
        },
        |journal, _, ran| drop(journal.answered(ran)),
    );
    // With a request id: whoever repeats the request gets the one job.
    at_every_point(
        &mut journal,
        |journal, index| {
            let id = format!("one-{index}");
            Act::submit(journal.root, &journal.request(json!({"request_id": id, "name": id})))
        },
        |journal, index, ran| {
            let first = journal.answered(ran);
            let id = format!("one-{index}");
            if index % 3 == 0 {
                // Somebody else's work comes between: the poller's.
                journal.root.cmd("poller", &["--once", "-q"]).expect(0);
            }
            let act =
                Act::submit(journal.root, &journal.request(json!({"request_id": id, "name": id})));
            let again = journal.answered(&act.run());
            assert_eq!(again.len(), 1);
            assert!(first.is_empty() || first == again, "{first:?} {again:?}");
            assert_eq!(journal.named(&id), again);
        },
    );
    journal.settle();
    journal.verify();
    journal.counts.report("submitting one job", begun);
}

#[test]
fn submitting_an_array() {
    let begun = Instant::now();
    let root = TestRoot::new(CONF);
    let mut journal = Journal::new(&root);
    let three = |journal: &Journal, group: &str, ids: bool| -> Act {
        let jobs: Vec<Value> = (1..=3)
            .map(|k| {
                let mut request = journal.request(json!({"name": group}));
                if ids {
                    request["request_id"] = json!(format!("{group}-{k}"));
                }
                request
            })
            .collect();
        Act::submit(journal.root, &json!(jobs))
    };
    at_every_point(
        &mut journal,
        |journal, index| three(journal, &format!("plain-{index}"), false),
        |journal, index, ran| {
            let told = journal.answered(ran);
            if index % 8 == 0 || !told.is_empty() {
                journal.root.cmd("poller", &["--once", "-q"]).expect(0);
                let there = journal.named(&format!("plain-{index}"));
                assert!([0, 3].contains(&there.len()), "{there:?}: neither all nor none");
            }
        },
    );
    at_every_point(
        &mut journal,
        |journal, index| three(journal, &format!("ids-{index}"), true),
        |journal, index, ran| {
            let first = journal.answered(ran);
            if index % 3 == 0 {
                journal.root.cmd("poller", &["--once", "-q"]).expect(0);
            }
            let group = format!("ids-{index}");
            let ran = three(journal, &group, true).run();
            assert!(ran.acknowledged(), "{ran:?}");
            let again = journal.answered(&ran);
            assert!(first.is_empty() || first == again, "{first:?} {again:?}");
            journal.root.cmd("poller", &["--once", "-q"]).expect(0);
            assert_eq!(journal.named(&group), again);
        },
    );
    journal.settle();
    journal.verify();
    for index in 0.. {
        let there = journal.named(&format!("plain-{index}"));
        if there.is_empty() && index > 100 {
            break;
        }
        assert!([0, 3].contains(&there.len()), "{there:?}: neither all nor none");
    }
    journal.counts.report("submitting an array", begun);
}

#[test]
fn submitting_with_a_file() {
    let begun = Instant::now();
    let root = TestRoot::new(CONF);
    root.open();
    let mut journal = Journal::new(&root);
    at_every_point(
        &mut journal,
        |journal, index| {
            let line = format!("[ \"$(cat input.dat)\" = content-{index} ] && {}", journal.line());
            let id = format!("file-{index}");
            let job = json!({"command": line, "request_id": id, "name": id});
            let body = multipart(&job, &format!("content-{index}"));
            let kind = "multipart/form-data; boundary=b";
            Act::post(journal.root, "scheduler", "/jobs/new", kind, body.as_bytes())
        },
        |journal, _, ran| drop(journal.answered(ran)),
    );
    journal.settle();
    journal.verify();
    journal.counts.report("submitting with a file", begun);
}

/// The poller dies in the round that places a job, and in the one that records its end.
#[test]
fn placing_and_recording() {
    let begun = Instant::now();
    let root = TestRoot::new(CONF);
    let mut journal = Journal::new(&root);
    let once = |journal: &Journal| Act::cmd(journal.root, "poller", &["--once", "-q"], "");
    let submit = |journal: &mut Journal| -> u64 {
        let act = Act::submit(journal.root, &journal.request(json!({})));
        journal.answered(&act.run())[0]
    };
    let ended_on_node = |journal: &Journal, job: u64| {
        let root = journal.root;
        until("the job has ended on its node", || {
            let cluster = root.read("state/scheduler/cluster");
            let id = format!("{}-{job}.1", cluster.trim());
            root.node_status(&id)["state"] == "stopped"
        });
    };
    submit(&mut journal);
    journal.settle();
    let job = submit(&mut journal);
    let (ran, placing) = once(&journal).trace();
    assert!(ran.acknowledged(), "{ran:?}");
    ended_on_node(&journal, job);
    let (ran, recording) = once(&journal).trace();
    assert!(ran.acknowledged(), "{ran:?}");
    let hurt = |journal: &mut Journal, points: &mut std::slice::Iter<Point>| {
        let Some(point) = points.next() else { return false };
        let ran = once(journal).kill_at(point);
        assert!(ran.killed || ran.acknowledged(), "{point:?}: {ran:?}");
        journal.counts.faults += usize::from(ran.killed);
        true
    };
    let (mut placing, mut recording) = (placing.iter(), recording.iter());
    loop {
        let job = submit(&mut journal);
        let more = hurt(&mut journal, &mut placing);
        root.cmd("poller", &["--once", "-q"]).expect(0);
        ended_on_node(&journal, job);
        if !(hurt(&mut journal, &mut recording) || more) {
            break;
        }
    }
    assert!(journal.counts.faults > 30, "{:?}", journal.counts);
    journal.settle();
    journal.verify();
    journal.counts.report("placing and recording", begun);
}

/// What a poller stamped that died before its sync may be gone after a power loss: its successor
/// makes it durable before it tells the node.
#[test]
fn the_poller_dies_before_its_sync() {
    let (root, node) = (TestRoot::new(CONF), TestRoot::new(CONF));
    node.open();
    let httpd = node.httpd();
    drain_localhost(&root);
    register(&root, &json!({"name": "far", "uri": httpd.url()}));
    let once = Act::cmd(&root, "poller", &["--once", "-q"], "");
    assert!(once.run().acknowledged());
    let job = root.submit(&json!({"command": ["true"]}));
    let mut syncs = 1..20;
    let last = syncs.find(|nth| {
        let ran = once.inject(&format!("fsync,syncfs:signal=KILL:when={nth}"));
        assert!(ran.killed, "it never placed the job: {ran:?}");
        root.exists(&format!("state/scheduler/running/{job}.job"))
    });
    assert_eq!(root.story(job), ["placed"], "killed at sync {last:?}");
    assert!(names(&node.path("state/processor/job")).is_empty(), "the node was told");
    let (ran, trace) = once.watch();
    assert!(ran.acknowledged(), "{ran:?}");
    let first = |is_it: &dyn Fn(&str) -> bool| trace.lines().position(is_it);
    let told = first(&|line| line.contains("POST /cgi-bin/processor/jobs/new"));
    let synced = first(&|line| line.contains("syncfs") && line.ends_with(" = 0"));
    assert!(told.is_some() && synced.is_some() && synced < told, "{synced:?} {told:?}\n{trace}");
    until("it has ended well", || {
        assert!(once.run().acknowledged());
        root.status(job)["status"] == "good"
    });
    root.check();
}

/// Hold, release, priority and kill of a job that waits: each is made or not, and if it was
/// acknowledged it was made.
#[test]
fn changing_a_waiting_job() {
    let begun = Instant::now();
    let root = TestRoot::new(CONF);
    let mut journal = Journal::new(&root);
    journal.allowed = &["killed"];
    let changes: [(&str, &str, &str); 4] = [
        ("release=1", "held", "queued"),
        ("hold=1", "queued", "held"),
        ("priority=5", "held", "held"),
        ("kill=1", "held", "stopped"),
    ];
    for (change, before, after) in changes {
        let current = std::cell::Cell::new(0);
        at_every_point(
            &mut journal,
            |journal, _| {
                let request = journal.request(json!({"state": before}));
                let job = journal.answered(&Act::submit(journal.root, &request).run())[0];
                current.set(job);
                let words = ["jobs", &job.to_string(), "update", change];
                Act::cmd(journal.root, "scheduler", &words, "")
            },
            |journal, _, ran| {
                let job = current.get().to_string();
                let card = || journal.root.cmd("scheduler", &["jobs", &job]).expect(0).json();
                let made = |card: &Value| {
                    if change == "priority=5" {
                        card["priority"] == 5
                    } else {
                        card["state"] == after
                    }
                };
                let seen = card();
                assert!(made(&seen) || seen["state"] == before && !ran.acknowledged(), "{seen}");
                // The same once more, by one that lives.
                journal.root.cmd("scheduler", &["jobs", &job, "update", change]).expect(0);
                assert!(made(&card()));
                let events = card()["events"].as_array().unwrap().len();
                assert_eq!(events, 1, "made once: {}", card());
                if after != "stopped" {
                    journal.root.cmd("scheduler", &["jobs", &job, "update", "kill=1"]).expect(0);
                }
            },
        );
    }
    journal.settle();
    journal.verify();
    assert!(!journal.witness.exists(), "a killed job was started");
    journal.counts.report("changing a waiting job", begun);
}
