//! Clocks that are set: by a year, forward and back, while jobs wait, run and have ended. No job is
//! lost, forgotten or run twice for it, and nothing is removed as old that has just come.
#![cfg(target_arch = "x86_64")]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "common/clock.rs"]
mod clock;
mod common;

use std::fs;
use std::process::Stdio;
use std::time::Instant;

use clock::{Clock, Traced, YEAR};
use common::head::open_root;
use common::rights::{submit, token};
use common::{TestRoot, until};
use serde_json::{Value, json};

/// A poller that goes by this clock.
fn poller(clock: &Clock, root: &TestRoot, args: &[&str]) -> Traced {
    let path = root.path("poller.log");
    let log = fs::File::options().create(true).append(true).open(path).unwrap();
    let mut command = root.base("poller");
    command.args(args).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    clock.start(command)
}

/// A clean-up by the clock as it is now; another poller is at work after it.
fn clean_up(clock: &Clock, root: &TestRoot, at_work: Traced) -> Traced {
    assert_eq!(at_work.end("TERM"), 0, "{}", root.read("poller.log"));
    assert_eq!(poller(clock, root, &["--once", "-q"]).ended(), 0, "{}", root.read("poller.log"));
    poller(clock, root, &["-q"])
}

/// A job that notes each of its starts.
fn noting(root: &TestRoot, id: &str, then: &str) -> Value {
    let witness = root.path("witness");
    let command = format!("echo {id}$CORKBOARD_TASK >> {}; {then}", witness.display());
    json!({"command": command, "request_id": id})
}

fn starts(root: &TestRoot, id: &str) -> usize {
    root.read("witness").lines().filter(|line| *line == id).count()
}

/// Waits for a file of the root.
fn for_file(root: &TestRoot, name: &str) -> String {
    format!("until [ -e {} ]; do sleep 0.05; done", root.path(name).display())
}

#[test]
fn the_clock_of_a_program_is_set() {
    let root = open_root("");
    let clock = Clock::default();
    root.write("before", "");
    clock.set(YEAR);
    let script = "touch after; date +%s > says; stat -c %Y before after > files";
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script]).current_dir(&root.dir);
    assert_eq!(clock.start(command).ended(), 0);
    let now = fs::metadata(root.path("files")).unwrap().modified().unwrap();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    let is_near = |text: &str, time: i64| (text.parse::<i64>().unwrap() - time).abs() < 10;
    assert!(is_near(root.read("says").trim(), now + YEAR), "{}", root.read("says"));
    let files = root.read("files");
    let files: Vec<&str> = files.lines().collect();
    assert!(is_near(files[0], now) && is_near(files[1], now + YEAR), "{files:?} {now}");
}

#[test]
fn a_clock_that_is_set_makes_nothing_old_and_loses_nothing() {
    let root = open_root("");
    let clock = Clock::default();
    let mut at_work = poller(&clock, &root, &["-q"]);
    until("the clock is noted", || root.exists("state/scheduler/clock"));
    let request = noting(&root, "first", "true");
    let first = root.submit(&request);
    root.reaches(first, "stopped");
    let nodejob = root.card(first)[1]["nodejob"].as_str().unwrap().to_string();
    let long = root.submit(&noting(&root, "long", &for_file(&root, "go")));
    root.reaches(long, "running");
    for (count, offset) in (1..).zip([YEAR, 0, -YEAR, 0]) {
        clock.set(offset);
        let id = format!("after{count}");
        let after = root.submit(&noting(&root, &id, "true"));
        assert_eq!(root.reaches(after, "stopped")["status"], "good");
        at_work = clean_up(&clock, &root, at_work);
        let card = format!("state/scheduler/done/0/{first}.job");
        assert!(root.exists(&card), "{offset}: {}", root.tree());
        assert!(root.exists(&format!("state/processor/job/{nodejob}")), "{offset}");
        assert_eq!(root.submit(&request), first, "{offset}: it is the same request");
        assert_eq!(starts(&root, &id), 1);
    }
    assert_eq!(root.status(long)["state"], "running");
    root.write("go", "");
    let ended = root.reaches(long, "stopped");
    assert_eq!(ended["status"], "good", "{ended}");
    assert_eq!((starts(&root, "first"), starts(&root, "long")), (1, 1));
    assert_eq!(at_work.end("TERM"), 0);
    root.check();
}

#[test]
fn what_waits_for_a_time_does_not_wait_for_years_after_the_clock_was_set_back() {
    let root = open_root("");
    let clock = Clock::default();
    let at_work = poller(&clock, &root, &["-q"]);
    let plain = json!({"max_retry_count": 1, "retry_delay": "5s"});
    let with = |mut request: Value, more: &Value| {
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        request
    };
    let fails = format!("[ -e {} ]", root.path("set").display());
    let plain = root.submit(&with(noting(&root, "plain", &fails), &plain));
    until("it waits for its time", || root.story(plain).contains(&"retry".to_string()));
    // One task fails while the other one runs.
    let wait = for_file(&root, "go");
    let task = format!("if [ $CORKBOARD_TASK = 0 ]; then {wait}; else {fails}; fi");
    let more = json!({"array": "0-1", "max_retry_count": 1, "retry_delay": "60s"});
    let array = root.submit(&with(noting(&root, "task", &task), &more));
    let waits = || root.card(array).iter().any(|line| line["not_before"].is_string());
    until("a task waits for its time", waits);
    root.write("set", "");
    clock.set(-YEAR);
    assert_eq!(root.reaches(plain, "stopped")["status"], "good");
    until("the task is tried again", || starts(&root, "task1") == 2);
    root.write("go", "");
    let ended = root.reaches(array, "stopped");
    assert_eq!(ended["status"], "good", "{ended}");
    assert_eq!(starts(&root, "task0"), 1);
    assert_eq!(at_work.end("TERM"), 0);
    root.check();
}

/// How the poller has noted that its clock was set: this is in its note.
fn is_noted(root: &TestRoot, what: &str) {
    until(&format!("{what} is noted"), || root.read("state/scheduler/clock").contains(what));
}

#[test]
fn what_expires_after_a_while_does_so_when_that_has_passed() {
    let root = open_root("");
    let clock = Clock::default();
    let at_work = poller(&clock, &root, &["-q"]);
    until("the clock is noted", || root.exists("state/scheduler/clock"));
    let held = |expires: &str| {
        root.submit(&json!({"command": "true", "state": "held", "expires": expires}))
    };
    let (long, short) = (held("2h"), held("8s"));
    let absolute = held("2100-01-01T00:00:00Z");
    clock.set(YEAR);
    is_noted(&root, r#""before""#);
    // Those that were expired by a look at the clock alone would have been by now.
    assert_eq!(root.reaches(short, "stopped")["cause"], "expired");
    assert_eq!(root.status(long)["state"], "held", "{:?}", root.status(long));
    clock.set(0);
    is_noted(&root, r#""until""#);
    let short = held("8s");
    clock.set(-YEAR);
    is_noted(&root, r#","by":31536"#);
    assert_eq!(root.reaches(short, "stopped")["cause"], "expired");
    assert_eq!(root.status(long)["state"], "held", "{:?}", root.status(long));
    assert_eq!(root.status(absolute)["state"], "held");
    clock.set(0);
    is_noted(&root, r#""before""#);
    clock.set(100 * YEAR);
    assert_eq!(root.reaches(absolute, "stopped")["cause"], "expired", "a time is a time");
    assert_eq!(root.status(long)["state"], "held", "{:?}", root.status(long));
    assert_eq!(at_work.end("TERM"), 0);
    root.check();
}

#[test]
fn what_users_have_had_goes_by_no_clock_that_is_set() {
    let root = open_root("");
    let clock = Clock::default();
    let mut at_work = poller(&clock, &root, &["-q"]);
    let begun = Instant::now();
    let ada = token(&root, &["role=user", "user=ada"]);
    let job = submit(&root, &ada, &json!({"command": for_file(&root, "go"), "dir": "/"}));
    root.reaches(job, "running");
    for offset in [YEAR, 0, -YEAR, 0] {
        clock.set(offset);
        // Also over a time in which no poller counts.
        assert_eq!(at_work.end("TERM"), 0, "{}", root.read("poller.log"));
        at_work = poller(&clock, &root, &["-q"]);
        let others = root.submit(&json!({"command": ["true"]}));
        root.reaches(others, "stopped");
    }
    root.write("go", "");
    root.reaches(job, "stopped");
    assert_eq!(at_work.end("TERM"), 0);
    let most = begun.elapsed().as_secs_f64();
    let shares: Value = serde_json::from_str(&root.read("state/scheduler/shares")).unwrap();
    let had = shares["had"]["ada"].as_f64().unwrap();
    // Four times the clock was set, each at the beginning of a second.
    assert!((2.0..most + 5.0).contains(&had), "{had} of {most}: {shares}");
    root.check();
}
