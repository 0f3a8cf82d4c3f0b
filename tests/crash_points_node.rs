//! kill -9 at every system call that has an effect, one after another, in what a node does: jobs are
//! accepted, run and killed. See `crash_points` for how.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;
mod faults;

use std::time::Instant;

use common::{TestRoot, until};
use faults::{Act, Counts, Journal, at_every_point};
use serde_json::json;

const CONF: &str = "cores = 2\nmemory = 4 GiB\n";

/// Acceptance by words, by JSON and as CGI.
#[test]
fn accepting_on_a_node() {
    let begun = Instant::now();
    let root = TestRoot::new(CONF);
    root.open();
    let mut journal = Journal::new(&root);
    let forms = ["words", "json", "cgi"];
    let mut told = Vec::new();
    for form in forms {
        let act = |journal: &mut Journal, index: usize| -> Act {
            let id = format!("{form}-{index}");
            let line = journal.line();
            let body = journal.request(json!({"request_id": id})).to_string();
            match form {
                "words" => {
                    let words = ["jobs", "new", "-r", &id, "--", "sh", "-c", &line];
                    Act::cmd(journal.root, "processor", &words, "")
                }
                "json" => Act::cmd(journal.root, "processor", &["jobs", "new"], &body),
                _ => {
                    let kind = "application/json";
                    Act::post(journal.root, "processor", "/jobs/new", kind, body.as_bytes())
                }
            }
        };
        at_every_point(&mut journal, act, |journal, index, ran| {
            journal.counts.submitted += 1;
            if ran.acknowledged() {
                told.push(format!("{form}-{index}"));
            } else if index % 2 == 0 {
                let again = act(journal, index).run();
                assert!(again.acknowledged(), "{again:?}");
                told.push(format!("{form}-{index}"));
            }
        });
    }
    journal.settle();
    for id in &told {
        if root.node_status(id)["status"] != "good" {
            println!("{id}: {}", root.node_status(id));
            journal.counts.lost += 1;
        }
    }
    let witness = std::fs::read_to_string(&journal.witness).unwrap();
    assert!(told.iter().all(|id| witness.lines().any(|line| line == id)));
    journal.verify();
    journal.counts.report("accepting on a node", begun);
}

/// Kills the supervisor at `every`th of its calls, with so many jobs waiting for it.
fn supervising(what: &str, jobs: usize, every: usize) -> Counts {
    let begun = Instant::now();
    let root = TestRoot::new("cores = 1\nmemory = 4 GiB\nlinger = 0\n");
    root.starts_no_supervisor();
    let mut journal = Journal::new(&root);
    journal.allowed = &["lost"];
    let mut round = 0;
    let mut accept = |journal: &mut Journal| -> Vec<String> {
        round += 1;
        (0..jobs).map(|k| journal.accept(json!({"request_id": format!("s{round}.{k}")}))).collect()
    };
    let supervise =
        |journal: &Journal| Act::cmd(journal.root, "processor", &["supervise", "--stay"], "");
    accept(&mut journal);
    let (ran, points) = supervise(&journal).trace();
    assert!(ran.acknowledged(), "{ran:?}");
    let mut unproven = 0;
    for point in points.iter().step_by(every) {
        let ids = accept(&mut journal);
        let ran = supervise(&journal).kill_at(point);
        journal.counts.faults += usize::from(ran.killed);
        unproven += journal.end_on_node(&ids, &format!("{point:?}"));
    }
    journal.verify();
    println!("{what}: {unproven} jobs that had started when their supervisor died ended as lost");
    journal.counts.report(what, begun);
    journal.counts
}

#[test]
fn supervising_two_jobs() {
    assert!(supervising("supervising two jobs", 2, 1).faults > 30);
}

/// Enough for claims of several jobs at a time.
#[test]
fn supervising_many_jobs() {
    supervising("supervising twelve jobs", 12, 7);
}

/// It takes a moment to end, so that whoever kills it always goes the same way: it is seen to run.
fn lingers(line: &str) -> String {
    format!("trap 'sleep 0.3' TERM; {line}; sleep 1000 & wait")
}

/// Kill of a running job, through the head and on the node alone.
#[test]
fn killing_a_running_job() {
    let begun = Instant::now();
    let root = TestRoot::new("cores = 500\nmemory = 4 GiB\n");
    let mut journal = Journal::new(&root);
    journal.allowed = &["killed"];
    let current = std::cell::RefCell::new(String::new());
    at_every_point(
        &mut journal,
        |journal, _| {
            let line = lingers(&journal.line());
            let request = json!({"command": line, "dir": "/"});
            let job = journal.answered(&Act::submit(journal.root, &request).run())[0];
            let started = format!("-{job}.1\n");
            until("it runs", || {
                journal.root.cmd("poller", &["--once", "-q"]).expect(0);
                let card = journal.root.cmd("scheduler", &["jobs", &job.to_string()]);
                let witness = std::fs::read_to_string(&journal.witness).unwrap_or_default();
                card.expect(0).json()["state"] == "running" && witness.contains(&started)
            });
            *current.borrow_mut() = job.to_string();
            let words = ["jobs", &job.to_string(), "update", "kill=1"];
            Act::cmd(journal.root, "scheduler", &words, "")
        },
        |journal, _, ran| {
            if ran.killed {
                let job = current.borrow();
                journal.root.cmd("scheduler", &["jobs", &job, "update", "kill=1"]).expect(0);
            }
        },
    );
    let mut count = 0;
    at_every_point(
        &mut journal,
        |journal, _| {
            count += 1;
            let id = format!("k-{count}");
            let line = lingers(&journal.line());
            let request = json!({"command": line, "dir": "/", "request_id": id});
            journal.counts.submitted += 1;
            journal.root.cmd_in("processor", &["jobs", "new"], &request.to_string()).expect(0);
            until("it runs", || {
                let witness = std::fs::read_to_string(&journal.witness).unwrap_or_default();
                witness.lines().any(|line| line == id)
            });
            *current.borrow_mut() = id.clone();
            Act::cmd(journal.root, "processor", &["jobs", &id, "kill"], "")
        },
        |journal, _, ran| {
            let id = current.borrow();
            if ran.killed {
                journal.root.cmd("processor", &["jobs", &id, "kill"]).expect(0);
            }
            assert_eq!(journal.root.ended(&id)["cause"], "killed");
        },
    );
    journal.settle();
    journal.verify();
    let ran = std::fs::read_to_string(&journal.witness).unwrap().lines().count();
    assert_eq!(ran, journal.counts.submitted);
    journal.counts.report("killing a running job", begun);
}

/// Kill on the node of a job that still waits there, and of one that has not come yet.
#[test]
fn killing_before_the_start() {
    let begun = Instant::now();
    let root = TestRoot::new("cores = 1\nmemory = 4 GiB\n");
    root.starts_no_supervisor();
    let mut journal = Journal::new(&root);
    journal.allowed = &["killed"];
    for comes_first in [true, false] {
        let id = |index: usize| format!("{comes_first}-{index}");
        at_every_point(
            &mut journal,
            |journal, index| {
                if comes_first {
                    journal.accept(json!({"request_id": id(index)}));
                }
                let words = ["jobs", &id(index), "kill"];
                Act::cmd(journal.root, "processor", &words, "")
            },
            |journal, index, ran| {
                if ran.killed {
                    // Repeated, it must say so, whatever the first one got done.
                    let words = ["jobs", &id(index), "kill"];
                    let said = Act::cmd(journal.root, "processor", &words, "").run().json();
                    assert_eq!(said["cause"], "killed");
                }
                if !comes_first {
                    let request = journal.request(json!({"request_id": id(index)})).to_string();
                    let late = Act::cmd(journal.root, "processor", &["jobs", "new"], &request);
                    assert!(late.run().stderr.contains("cancelled before it came"));
                }
            },
        );
    }
    assert!(Act::cmd(&root, "processor", &["sweep"], "").run().acknowledged());
    journal.settle();
    journal.verify();
    assert!(!journal.witness.exists(), "a killed job was started");
    journal.counts.report("killing before the start", begun);
}
