//! kill -9 at every system call that has an effect, while arrays are placed, run, recorded and
//! killed: no task is lost without a word, and none is started twice.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;
mod faults;

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use common::{TestRoot, until};
use faults::{Act, Counts, Journal, Ran};
use serde_json::{Value, json};

const CONF: &str = "cores = 2\nmemory = 4 GiB\nlinger = 0\n";

/// How often each task was started, by what it wrote itself: `ID.TASK`.
fn starts(journal: &Journal) -> BTreeMap<String, u32> {
    let mut starts = BTreeMap::new();
    let text = fs::read_to_string(&journal.witness).unwrap_or_default();
    text.lines().for_each(|line| *starts.entry(line.to_string()).or_default() += 1);
    starts
}

/// The indices that a set names.
fn tasks(set: &Value) -> Vec<u32> {
    let text = set.as_str().unwrap_or_default();
    let parts = text.split(',').filter(|part| !part.is_empty());
    let number = |text: &str| text.parse::<u32>().unwrap();
    parts
        .flat_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            number(first)..=number(last)
        })
        .collect()
}

fn failed(report: &Value) -> Vec<(u32, String)> {
    let groups = report["failed"].as_array().cloned().unwrap_or_default();
    let group = |group: &Value| {
        let cause = group["cause"].as_str().unwrap().to_string();
        tasks(&group["tasks"])
            .into_iter()
            .map(move |task| (task, cause.clone()))
            .collect::<Vec<_>>()
    };
    groups.iter().flat_map(group).collect()
}

/// Has the node accept a range.
fn range(root: &TestRoot, id: &str, mut request: Value) -> String {
    request["request_id"] = json!(id);
    Journal::new(root).accept(request)
}

/// The supervisor of a range: what it told has ended has, what it started and did not end is lost,
/// what it did not start is given back or run by another.
#[test]
fn supervising_a_range() {
    let begun = Instant::now();
    let root = TestRoot::new("cores = 1\nmemory = 4 GiB\nlinger = 0\n");
    root.starts_no_supervisor();
    let mut journal = Journal::new(&root);
    journal.allowed = &["lost"];
    let mut round = 0;
    let mut accept = |journal: &mut Journal| {
        round += 1;
        journal.accept(json!({"request_id": format!("r{round}"), "tasks": "0-6"}))
    };
    let supervise =
        |journal: &Journal| Act::cmd(journal.root, "processor", &["supervise", "--stay"], "");
    accept(&mut journal);
    let (ran, points) = supervise(&journal).trace();
    assert!(ran.acknowledged(), "{ran:?}");
    let sweep = Act::cmd(&root, "processor", &["sweep"], "");
    let (mut lost, mut given_back) = (0, 0);
    for point in &points {
        let id = accept(&mut journal);
        let ran = supervise(&journal).kill_at(point);
        journal.counts.faults += usize::from(ran.killed);
        until("it has ended", || {
            assert!(sweep.run().acknowledged());
            root.node_status(&id)["state"] == "stopped"
        });
        let end = root.node_status(&id);
        let starts = starts(&journal);
        let ran = |task: u32| starts.get(&format!("{id}.{task}")).copied().unwrap_or(0);
        let (good, failed) = (tasks(&end["tasks"]["good"]), failed(&end["tasks"]));
        for task in 0..7 {
            let ended = failed.iter().find(|(other, _)| *other == task);
            match (good.contains(&task), ended) {
                (true, None) => assert_eq!(ran(task), 1, "{point:?} task {task}: {end}"),
                (false, Some((_, cause))) => {
                    assert_eq!(cause, "lost", "{point:?}: {end}");
                    assert!(ran(task) <= 1, "{point:?}: {end}");
                    lost += 1;
                }
                (false, None) => {
                    assert_eq!(ran(task), 0, "{point:?}: task {task} was given back: {end}");
                    given_back += 1;
                }
                (true, Some(_)) => panic!("{point:?}: task {task} ended twice: {end}"),
            }
        }
        assert!(failed.len() <= 1, "one task runs at a time: {end}");
    }
    journal.verify();
    println!("supervising a range: {lost} tasks were lost, {given_back} given back");
    assert!(journal.counts.faults > 30 && given_back > 30, "{:?}", journal.counts);
    journal.counts.report("supervising a range", begun);
}

/// The poller, at each of its calls, with arrays to be placed and to be recorded.
#[test]
fn placing_and_recording_ranges() {
    let begun = Instant::now();
    let root = TestRoot::new(CONF);
    let mut journal = Journal::new(&root);
    let mut counts = Counts::default();
    let submit = |journal: &mut Journal| {
        let request = journal.request(json!({"array": "0-5"}));
        let act = Act::submit(journal.root, &request);
        journal.answered(&act.run())[0]
    };
    let once = Act::cmd(&root, "poller", &["--once", "-q"], "");
    submit(&mut journal);
    journal.settle();
    submit(&mut journal);
    let (ran, placing) = once.trace();
    assert!(ran.acknowledged(), "{ran:?}");
    let (ran, recording) = once.trace();
    assert!(ran.acknowledged(), "{ran:?}");
    let points: Vec<_> = placing.into_iter().chain(recording).collect();
    for (index, point) in points.iter().enumerate() {
        submit(&mut journal);
        for _ in 0..index % 3 {
            once.run();
        }
        let ran: Ran = once.kill_at(point);
        assert!(ran.killed || ran.acknowledged(), "{point:?}: {ran:?}");
        counts.faults += usize::from(ran.killed);
    }
    assert!(counts.faults > 30, "{counts:?}");
    journal.settle();
    for job in journal.acked.keys() {
        let status = root.cmd("scheduler", &["jobs", &job.to_string(), "status"]).expect(0).json();
        assert_eq!(status["tasks"]["good"], 6, "{status}");
    }
    let mut of_jobs: BTreeMap<String, u32> = BTreeMap::new();
    for line in starts(&journal).keys() {
        let job = line.rsplit_once('-').unwrap().1.split('.').next().unwrap();
        let task = line.rsplit_once('.').unwrap().1;
        *of_jobs.entry(format!("{job} {task}")).or_default() += 1;
    }
    assert_eq!(of_jobs.len(), journal.acked.len() * 6);
    assert!(of_jobs.values().all(|count| *count == 1), "no task is in two ranges: {of_jobs:?}");
    journal.verify();
    counts.add(&journal.counts);
    counts.report("placing and recording ranges", begun);
}

/// Killing tasks, at the head and on the node: made or not, and if it was acknowledged it was made.
#[test]
fn killing_tasks() {
    let begun = Instant::now();
    let root = TestRoot::new(CONF);
    let mut journal = Journal::new(&root);
    journal.allowed = &["killed"];
    let held = |journal: &mut Journal| {
        let request = journal.request(json!({"array": "0-3", "state": "held"}));
        let act = Act::submit(journal.root, &request);
        journal.answered(&act.run())[0].to_string()
    };
    let kill = |journal: &Journal, job: &str| {
        Act::cmd(journal.root, "scheduler", &["jobs", job, "update", "kill=1", "task=1-2"], "")
    };
    let job = held(&mut journal);
    let (ran, points) = kill(&journal, &job).trace();
    assert!(ran.acknowledged(), "{ran:?}");
    let mut jobs = vec![job];
    for point in &points {
        let job = held(&mut journal);
        let ran = kill(&journal, &job).kill_at(point);
        journal.counts.faults += usize::from(ran.killed);
        let card = || root.cmd("scheduler", &["jobs", &job, "status"]).expect(0).json();
        let seen = card()["tasks"]["failed"].clone();
        assert!(seen == 2 || seen == 0 && !ran.acknowledged(), "{point:?}: {seen}");
        assert!(kill(&journal, &job).run().acknowledged());
        assert_eq!(card()["tasks"]["failed_tasks"], "1-2");
        jobs.push(job);
    }
    for job in &jobs {
        root.cmd("scheduler", &["jobs", job, "update", "release=1"]).expect(0);
    }
    journal.settle();
    for job in &jobs {
        let status = root.cmd("scheduler", &["jobs", job, "status"]).expect(0).json();
        assert_eq!(status["tasks"]["good"], 2, "{status}");
    }
    assert!(starts(&journal).keys().all(|line| !line.ends_with(".1.1") && !line.ends_with(".2")));
    journal.verify();
    journal.counts.report("killing tasks", begun);

    // On the node, while the range waits.
    root.starts_no_supervisor();
    let kill = |id: &str| Act::cmd(&root, "processor", &["jobs", id, "kill", "task=1-2"], "");
    let mut accept = |id: &str| journal.accept(json!({"request_id": id, "tasks": "0-3"}));
    let (ran, points) = kill(&accept("k")).trace();
    assert!(ran.acknowledged(), "{ran:?}");
    for (index, point) in points.iter().enumerate() {
        let id = accept(&format!("k{index}"));
        let ran = kill(&id).kill_at(point);
        let kills = root.read(&format!("state/processor/job/{id}/tasks"));
        assert!(kills.contains("\"1-2\"") || !ran.acknowledged(), "{point:?} {kills:?} {ran:?}");
        assert!(kill(&id).run().acknowledged());
    }
    let supervise = Act::cmd(&root, "processor", &["supervise", "--stay"], "").run();
    assert!(supervise.acknowledged(), "{supervise:?}");
    for index in 0..points.len() {
        let id = format!("k{index}");
        until("it has ended", || root.node_status(&id)["state"] == "stopped");
        let end = root.node_status(&id);
        assert_eq!(
            (&end["tasks"]["good"], &end["tasks"]["failed"][0]["tasks"]),
            (&json!("0,3"), &json!("1-2"))
        );
    }
    let check = Act::cmd(&root, "processor", &["check"], "").run();
    assert_eq!((check.code, check.body.as_str()), (0, ""));
}

/// A kill that comes when a task's process is made and has not become its program yet: it is
/// ended at once, not when the grace is over.
#[test]
fn killing_before_the_program_is_executed() {
    let root = TestRoot::new(CONF);
    root.starts_no_supervisor();
    let request = json!({"command": ["sleep", "300"], "tasks": "0-3", "max_termination_time": 300});
    let id = range(&root, "slow", request);
    let supervise = Act::cmd(&root, "processor", &["supervise", "--stay"], "");
    std::thread::scope(|scope| {
        let slowly = scope.spawn(|| supervise.inject("chdir:delay_enter=2000000"));
        let story = || root.read(&format!("state/processor/job/{id}/tasks"));
        until("it has started", || story().contains("\"started\""));
        assert!(Act::cmd(&root, "processor", &["jobs", &id, "kill"], "").run().acknowledged());
        let killed = Instant::now();
        let ended = || root.node_status(&id)["state"] == "stopped";
        while !ended() && killed.elapsed() < common::SOON {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let ran = ended();
        if !ran {
            // Let it end by itself.
            let again = ["jobs", &id, "kill", "grace=0"];
            assert!(Act::cmd(&root, "processor", &again, "").run().acknowledged());
        }
        slowly.join().unwrap();
        assert!(ran, "its program was not told to end");
    });
    assert_eq!(root.node_status(&id)["cause"], "killed");
}

/// The supervisor of a range of which tasks were killed before it began: whoever takes the range
/// over does not end them once more.
#[test]
fn supervising_a_range_with_killed_tasks() {
    let begun = Instant::now();
    let root = TestRoot::new("cores = 1\nmemory = 4 GiB\nlinger = 0\n");
    root.starts_no_supervisor();
    let mut counts = Counts::default();
    let supervise = Act::cmd(&root, "processor", &["supervise", "--stay"], "");
    let sweep = Act::cmd(&root, "processor", &["sweep"], "");
    let accept = |id: &str| {
        // A sweep may have started one; it shall not have the range before the kill.
        until("no supervisor is left", || root.processes().is_empty());
        let id = range(&root, id, json!({"command": ["true"], "tasks": "0-4"}));
        let kill = Act::cmd(&root, "processor", &["jobs", &id, "kill", "task=0-1"], "");
        assert!(kill.run().acknowledged());
        id
    };
    accept("first");
    let (ran, points) = supervise.trace();
    assert!(ran.acknowledged(), "{ran:?}");
    for (index, point) in points.iter().enumerate() {
        let id = accept(&format!("r{index}"));
        counts.faults += usize::from(supervise.kill_at(point).killed);
        until("it has ended", || {
            assert!(sweep.run().acknowledged());
            let ended = root.node_status(&id)["state"] == "stopped";
            ended || supervise.run().acknowledged() && root.node_status(&id)["state"] == "stopped"
        });
        let end = root.node_status(&id);
        let killed: Vec<u32> = failed(&end["tasks"])
            .into_iter()
            .filter(|(_, cause)| cause == "killed")
            .map(|(task, _)| task)
            .collect();
        assert!(killed == [0, 1], "{point:?}: {end}");
    }
    let check = Act::cmd(&root, "processor", &["check"], "").run();
    assert_eq!((check.code, check.body.as_str()), (0, ""));
    assert!(counts.faults > 30, "{counts:?}");
    counts.report("supervising a range with killed tasks", begun);
}
