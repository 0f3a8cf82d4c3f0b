//! Kills of arrays and of their tasks: who is named, and what the whole ends like.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use common::array::{root_with, tasks, tasks_reach};
use common::head::Door;
use corkboard::attempts::{Said, decide};
use corkboard::model::card::{Card, Event, What};
use corkboard::model::draft;
use corkboard::model::ids::NodejobId;
use corkboard::model::node::DriverKind;
use corkboard::model::outcome::{Cause, Outcome};
use corkboard::model::report::Report;
use corkboard::model::run_status::{RunState, RunStatus};
use serde_json::{Value, json};

/// A card of tasks 0 to 9 of which these ranges are with a node.
fn card(ranges: &[&str]) -> Card {
    let first = r#"{"job":7,"request_id":"r","at":"2026-01-01T00:00:00.000Z","by":"ada","request":{"command":["true"],"array":"0-9"}}"#;
    let mut card = Card::parse(first.as_bytes()).unwrap();
    for (index, range) in ranges.iter().enumerate() {
        let attempt = index as u32 + 1;
        let placed = What::Placed {
            attempt,
            node: "n".into(),
            nodejob: NodejobId::new("c", 7, attempt).unwrap(),
            driver: DriverKind::Local,
            uri: None,
            tasks: Some(range.parse().unwrap()),
        };
        stamp(&mut card, vec![placed]);
    }
    card
}

fn stamp(card: &mut Card, whats: Vec<What>) {
    whats.into_iter().map(Event::now).for_each(|event| card.apply(event));
}

/// The node says that a range has ended: these tasks well, those with exit 3.
fn range_ends(card: &mut Card, attempt: u32, good: &str, failed: &str, outcome: Outcome) {
    let mut report = Report::default();
    for (text, code) in [(good, 0), (failed, 3)] {
        if !text.is_empty() {
            report.add(&text.parse().unwrap(), &Outcome::exit(code));
        }
    }
    let id = NodejobId::parse(&format!("c-7.{attempt}")).unwrap();
    let status = RunStatus { tasks: Some(report), ..RunStatus::stopped(&outcome) };
    let status = Box::new(status.of(&id));
    let said = Said { node: "n".into(), id, proven: true, status };
    let whats = decide(card, &[said]);
    stamp(card, whats);
}

#[test]
fn a_kill_after_the_ends_has_killed_nothing() {
    let mut card = card(&["0-9"]);
    let kill = draft::kill(&card, None, "bob");
    stamp(&mut card, kill);
    range_ends(&mut card, 1, "0-9", "", Outcome::exit(0));
    assert_eq!(card.outcome, Some(Outcome::exit(0)));
}

#[test]
fn a_kill_of_the_whole_does_not_hide_what_failed_before() {
    let end = |failed: &str| {
        let mut card = card(&["0-9"]);
        let kill = draft::kill(&card, None, "bob");
        stamp(&mut card, kill);
        range_ends(&mut card, 1, "1-4", failed, Outcome::killed("bob"));
        card.outcome.unwrap()
    };
    let both = end("0");
    assert_eq!((both.cause, both.code), (Cause::Exit, Some(3)));
    let reason = "6 of 10 tasks failed: 0,5-9 (the first: exit 3); of these 5 killed by bob";
    assert_eq!(both.reason.as_deref(), Some(reason));
    let lower = end("9");
    assert_eq!((lower.cause, lower.code), (Cause::Killed, None));
    let reason = "6 of 10 tasks failed: 0,5-9 (the first: killed by bob); of these 5 killed by bob";
    assert_eq!(lower.reason.as_deref(), Some(reason));
    assert_eq!(end(""), Outcome::killed("bob"));
}

#[test]
fn each_task_has_its_own_killer() {
    let mut card = card(&["0-5", "6-9"]);
    for (tasks, by) in [("1-2,7", "bob"), ("2-3", "eve")] {
        let kill = draft::kill(&card, Some(&tasks.parse().unwrap()), by);
        stamp(&mut card, kill);
    }
    let kill = draft::kill(&card, None, "ada");
    stamp(&mut card, kill);
    // Too late for any of them.
    assert_eq!(draft::kill(&card, Some(&"0-9".parse().unwrap()), "dan"), []);
    // Nobody has seen the second range end, and the first one is given back as it was.
    let id = NodejobId::parse("c-7.2").unwrap();
    let lost = draft::give_up(&card, &id, "silent");
    stamp(&mut card, lost);
    let refused =
        draft::refuse(&card, &card.attempts[0], "full", "2026-01-01T00:00:00.000Z".into());
    stamp(&mut card, refused);
    let array = card.tasks;
    let reasons = |task| array.outcome_of(task).unwrap().reason.unwrap();
    let killers = ["ada", "bob", "bob", "eve", "ada", "ada"].map(|by| format!("killed by {by}"));
    assert_eq!((0..6).map(reasons).collect::<Vec<_>>(), killers);
    assert_eq!(reasons(7), "killed by bob; silent");
    assert_eq!(reasons(8), "killed by ada; silent");
    assert_eq!(card.outcome.unwrap().cause, Cause::Killed);
}

/// Both kills came before the node was told: it is told of the whole alone.
#[test]
fn who_kills_the_whole_has_not_killed_what_another_killed_before() {
    let mut card = card(&["0-3"]);
    for (tasks, by) in [(Some("1"), "bob"), (None, "ada")] {
        let tasks = tasks.map(|tasks| tasks.parse().unwrap());
        let kill = draft::kill(&card, tasks.as_ref(), by);
        stamp(&mut card, kill);
    }
    let mut report = Report::default();
    report.add(&"0-2".parse().unwrap(), &Outcome::killed("ada"));
    report.add(&"3".parse().unwrap(), &Outcome::exit(0));
    let status = RunStatus { tasks: Some(report), ..RunStatus::stopped(&Outcome::killed("ada")) };
    let id = NodejobId::parse("c-7.1").unwrap();
    let status = Box::new(status.of(&id));
    let whats = decide(&card, &[Said { node: "n".into(), id, proven: true, status }]);
    stamp(&mut card, whats);
    let outcome = |task| card.tasks.outcome_of(task).unwrap();
    let killed = |by| Outcome::killed(by);
    assert_eq!([0, 1, 2].map(outcome), [killed("ada"), killed("bob"), killed("ada")]);
}

/// What a node says of a range, and not of its tasks, may have been so of each of them.
#[test]
fn a_range_of_which_nothing_is_said_is_not_dealt_out_anew() {
    let report = |outcome: Outcome| {
        let mut card = card(&["0-9"]);
        let id = NodejobId::parse("c-7.1").unwrap();
        let status = RunStatus::stopped(&outcome).of(&id.to_string());
        let whats = decide(
            &card,
            &[Said { node: "n".into(), id, proven: false, status: Box::new(status) }],
        );
        stamp(&mut card, whats);
        card.outcome.unwrap().cause
    };
    assert_eq!(report(Outcome::lost("its request cannot be read")), Cause::Lost);
    assert_eq!(report(Outcome::exit(0)), Cause::Lost);
    assert_eq!(report(Outcome::killed("bob")), Cause::Killed);
}

/// Its tasks have all been told of: that the range has ended, too, is no news of any.
#[test]
fn an_array_that_has_ended_hears_no_more_of_its_ranges() {
    let mut card = card(&["0-9"]);
    let mut report = Report::default();
    report.add(&"0-9".parse().unwrap(), &Outcome::exit(0));
    let running = RunStatus::queued("2026-01-01T00:00:00.000Z".into());
    let running = RunStatus { state: RunState::Running, tasks: Some(report.clone()), ..running };
    let mut said = |status: RunStatus| {
        let id = NodejobId::parse("c-7.1").unwrap();
        let status = Box::new(status.of("c-7.1"));
        let whats = decide(&card, &[Said { node: "n".into(), id, proven: true, status }]);
        stamp(&mut card, whats.clone());
        whats
    };
    assert!(matches!(said(running)[..], [.., What::Stopped { .. }]));
    assert_eq!(
        said(RunStatus { tasks: Some(report), ..RunStatus::stopped(&Outcome::exit(0)) }),
        []
    );
    assert_eq!(said(RunStatus::stopped(&Outcome::lost("its supervisor died"))), []);
}

/// A node that has no room for a moment is not punished for each range that it was sent.
#[test]
fn ranges_refused_together_count_once() {
    let first = r#"{"job":7,"request_id":"r","at":"2026-01-01T00:00:00.000Z","by":"ada","request":{"command":["true"],"array":"0-9"}}"#;
    let mut text = first.to_string();
    let mut line = |second: u32, event: &str, attempt: u32, more: &str| {
        text.push_str(&format!(
            "\n{{\"at\":\"2026-01-01T00:00:{second:02}.000Z\",\"event\":\"{event}\",\"attempt\":{attempt},{more}}}\n"
        ));
        Card::parse(text.as_bytes()).unwrap()
    };
    let place = |attempt: u32| {
        format!(r#""node":"n","nodejob":"c-7.{attempt}","driver":"local","tasks":"{attempt}""#)
    };
    let refuse = r#""reason":"full","not_before":"2026-01-01T00:00:00.000Z""#;
    let mut counts = Vec::new();
    for round in 0..3 {
        let (now, attempts) = (10 * round, [2 * round + 1, 2 * round + 2]);
        attempts.iter().for_each(|attempt| _ = line(now, "placed", *attempt, &place(*attempt)));
        for attempt in attempts {
            let card = line(now + 1, "running", 0, "\"pid\":1");
            let current = card.attempts.iter().find(|a| a.attempt == attempt).unwrap();
            counts.push(card.refusals_in_a_row(current));
            line(now + 1, "refused", attempt, refuse);
        }
    }
    assert_eq!(counts, [0, 0, 1, 1, 2, 2]);
}

/// The lines of one change are written together; a power loss can take the last of them.
#[test]
fn what_a_power_loss_left_half_done_is_done() {
    let mut card = card(&["0-9"]);
    let kill = draft::kill(&card, Some(&"4".parse().unwrap()), "bob");
    stamp(&mut card, kill);
    let refused =
        draft::refuse(&card, &card.attempts[0], "full", "2026-01-01T00:00:00.000Z".into());
    assert_eq!(refused.len(), 2);
    stamp(&mut card, refused[..1].to_vec());
    assert!(draft::is_unsettled(&card));
    assert_eq!(draft::settle(&card), refused[1..]);
}

/// The node is told who killed which of a range's tasks.
#[test]
fn two_users_kill_tasks_of_one_range() {
    let root = root_with(1);
    let _poller = root.poller();
    let until = format!("until [ -e {}/go ]; do sleep 0.02; done", root.path("").display());
    let job = root.submit(&json!({"command": until, "array": "0-9"}));
    tasks_reach(&root, job, |tasks| tasks["running"] == 1);
    let by = root.card(job)[0]["by"].as_str().unwrap().to_string();
    assert!(
        root.card(job)[1]["tasks"].as_str().unwrap().starts_with("0-4"),
        "both are in one range"
    );
    root.update(job, "hold=1").expect(0);
    let path = format!("/scheduler/jobs/{job}/update?kill=1&task=1");
    Door::Bare(&root).post(&path, &Value::Null).expect(202);
    root.cmd("scheduler", &["jobs", &job.to_string(), "update", "kill=1", "task=1-2"]).expect(0);
    // They have not begun, and end at once; task 0 goes on.
    tasks_reach(&root, job, |tasks| tasks["failed"] == 2);
    root.write("go", "");
    let reason = |task: u32| {
        let words = ["jobs", &job.to_string(), "status", &format!("task={task}")].map(String::from);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        root.cmd("scheduler", &words).expect(0).json()["reason"].clone()
    };
    assert_eq!((reason(1), reason(2)), (json!("killed by open"), json!(format!("killed by {by}"))));
    root.update(job, "release=1").expect(0);
    assert_eq!(tasks(&root.reaches(job, "stopped"))["good"], 8);
    root.check();
}

/// The lines of the first of these were cut off; the poller goes on with it.
#[test]
fn the_poller_does_what_was_left_half_done() {
    let root = root_with(1);
    let job = root.submit(&json!({"command": ["true"], "array": "0-3", "state": "held"}));
    root.update(job, "kill=1").expect(0);
    let done = root.path(&format!("state/scheduler/done/0/{job}.job"));
    let text = std::fs::read_to_string(&done).unwrap();
    let cut = text.rfind(r#"{"at""#).unwrap();
    assert!(text[cut..].contains(r#""event":"stopped""#), "{text}");
    std::fs::write(root.path(&format!("state/scheduler/queue/{job}.job")), &text[..cut]).unwrap();
    std::fs::remove_file(done).unwrap();
    let _poller = root.poller();
    let end = root.reaches(job, "stopped");
    assert_eq!((&end["cause"], &tasks(&end)["failed"]), (&json!("killed"), &json!(4)));
    root.check();
}
