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

use std::os::unix::fs::symlink;
use std::time::Instant;

use common::{TestRoot, until};
use faults::{Act, Counts, Journal, Point, Ran, names};
use serde_json::{Value, json};

const CONF: &str = "cores = 2\nmemory = 4 GiB\n";

/// Makes what `act` builds die at each of its calls in turn. `act` is told how many were built
/// before; `after` sees what became of each.
fn at_every_point(
    journal: &mut Journal,
    mut act: impl FnMut(&mut Journal, usize) -> Act,
    mut after: impl FnMut(&mut Journal, usize, &Ran),
) {
    // The first one makes what is made once in a root's life.
    let ran = act(journal, 0).run();
    assert!(ran.acknowledged(), "{ran:?}");
    after(journal, 0, &ran);
    let (ran, points) = act(journal, 1).trace();
    assert!(ran.acknowledged(), "{ran:?}");
    after(journal, 1, &ran);
    let mut survived = 0;
    for (index, point) in points.iter().enumerate() {
        let ran = act(journal, index + 2).kill_at(point);
        journal.counts.faults += usize::from(ran.killed);
        survived += usize::from(!ran.killed);
        assert!(ran.killed || ran.acknowledged(), "{point:?}: {ran:?}");
        after(journal, index + 2, &ran);
    }
    let seen = points.iter().filter(|point| point.seen).count();
    assert!(survived <= points.len() - seen + seen / 4, "few were hit: {survived} {points:?}");
}

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
            let body = format!(
                "--b\r\nContent-Disposition: form-data; name=\"job\"\r\n\r\n{job}\r\n--b\r\n\
                 Content-Disposition: form-data; name=\"file\"; filename=\"input.dat\"\r\n\r\n\
                 content-{index}\r\n--b--\r\n"
            );
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
    let drain = r#"{"drain": true}"#;
    root.cmd("scheduler", &["nodes", "localhost", "update", "-d", drain]).expect(0);
    let far = json!({"name": "far", "uri": httpd.url()}).to_string();
    root.cmd_in("scheduler", &["nodes", "new"], &far).expect(0);
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

/// Accepts jobs on the node without a supervisor being started: the node manager starts what lies
/// in `cgi-bin`, which here does nothing.
fn accept_only(root: &TestRoot, request: &Value) -> String {
    let answer = root.cmd_in("nodemgr", &["localhost", "jobs", "new"], &request.to_string());
    let said = answer.expect(0);
    assert_eq!(said.stderr, "");
    request["request_id"].as_str().unwrap().to_string()
}

/// Kills the supervisor at `every`th of its calls, with so many jobs waiting for it.
fn supervising(what: &str, jobs: usize, every: usize) -> Counts {
    let begun = Instant::now();
    let root = TestRoot::new("cores = 1\nmemory = 4 GiB\nlinger = 0\n");
    std::fs::remove_file(root.path("cgi-bin/processor")).unwrap();
    symlink("/bin/true", root.path("cgi-bin/processor")).unwrap();
    let mut journal = Journal::new(&root);
    journal.allowed = &["lost"];
    let mut round = 0;
    let mut accept = |journal: &mut Journal| -> Vec<String> {
        round += 1;
        (0..jobs)
            .map(|k| {
                journal.counts.submitted += 1;
                let id = format!("s{round}.{k}");
                accept_only(journal.root, &journal.request(json!({"request_id": id})))
            })
            .collect()
    };
    let supervise =
        |journal: &Journal| Act::cmd(journal.root, "processor", &["supervise", "--stay"], "");
    accept(&mut journal);
    let (ran, points) = supervise(&journal).trace();
    assert!(ran.acknowledged(), "{ran:?}");
    let sweep = Act::cmd(&root, "processor", &["sweep"], "");
    let mut unproven = 0;
    for point in points.iter().step_by(every) {
        let ids = accept(&mut journal);
        let ran = supervise(&journal).kill_at(point);
        journal.counts.faults += usize::from(ran.killed);
        until("all have ended", || {
            assert!(sweep.run().acknowledged());
            ids.iter().all(|id| root.node_status(id)["state"] == "stopped")
        });
        for id in ids {
            let end = root.node_status(&id);
            let story = root.read(&format!("state/processor/job/{id}/status"));
            match end["cause"].as_str().unwrap() {
                // Its `running` line was there: it may have started, so it is not started again.
                "lost" => {
                    assert!(story.contains("\"running\""), "{story}");
                    unproven += 1;
                }
                _ => assert_eq!(end["status"], "good", "{point:?} {story}"),
            }
        }
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
            let line = format!("{}; exec sleep 1000", journal.line());
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
            let line = format!("{}; exec sleep 1000", journal.line());
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
    std::fs::remove_file(root.path("cgi-bin/processor")).unwrap();
    symlink("/bin/true", root.path("cgi-bin/processor")).unwrap();
    let mut journal = Journal::new(&root);
    journal.allowed = &["killed"];
    for comes_first in [true, false] {
        let id = |index: usize| format!("{comes_first}-{index}");
        at_every_point(
            &mut journal,
            |journal, index| {
                if comes_first {
                    journal.counts.submitted += 1;
                    let request = journal.request(json!({"request_id": id(index)}));
                    accept_only(journal.root, &request);
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
