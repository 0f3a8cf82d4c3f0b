//! The fold of a plain card against histories of any kind: read again from its bytes, cut at every
//! line, a card says what it said when its lines were applied one by one. And it says what an array of one
//! task says to which the same happens.
#![allow(missing_docs, clippy::unwrap_used)]

use std::time::{Duration, SystemTime};

use corkboard::attempts::{self, Said, decide, ranges};
use corkboard::clock;
use corkboard::model::card::{Attempt, Card, Event, State, What};
use corkboard::model::change::Change;
use corkboard::model::ids::NodejobId;
use corkboard::model::node::{DriverKind, Node};
use corkboard::model::outcome::{Cause, Outcome};
use corkboard::model::report::{Ended, Report};
use corkboard::model::run_status::RunStatus;
use corkboard::model::tasks::{ALONE, TaskSet};
use corkboard::model::waits::Waits;

const FIRST: &str = r#"{"job":2,"request_id":"r","at":"2026-01-01T00:00:00.000Z","by":"ada","request":{"command":["true"],"max_retry_count":2,"retry_delay":"1s"}}"#;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % limit
    }

    fn outcome(&mut self) -> Outcome {
        match self.below(5) {
            0 => Outcome::exit(0),
            1 => Outcome::exit(3),
            2 => Outcome::killed("bob"),
            3 => Outcome::lost("gone"),
            _ => Outcome::error(Cause::Expired, "late".into()),
        }
    }

    /// Anything that a program writes, whether it makes sense now or not.
    fn what(&mut self, card: &Card) -> What {
        let last = card.attempts.last().map_or(0, |last| last.attempt);
        // Mostly about the attempt that is due, now and then about another.
        let attempt = if self.below(4) > 0 { last.max(1) } else { self.below(4) as u32 + 1 };
        let by = "ada".to_string();
        let time = "2026-01-01T00:00:09.000Z".to_string();
        match self.below(10) {
            0 => What::Held { by },
            1 => What::Released { by },
            2 => What::Priority { priority: self.below(9) as i64 - 4, by },
            3 | 4 => What::Placed {
                attempt: last + 1,
                node: format!("n{}", self.below(3)),
                nodejob: NodejobId::new("c", 2, last + 1).unwrap(),
                driver: if self.below(2) == 0 { DriverKind::Local } else { DriverKind::Http },
                uri: (self.below(2) == 0).then(|| "http://n".into()),
                tasks: None,
            },
            5 => What::Running { attempt, pid: Some(7), started: Some(time), enforced: None },
            6 => What::Stopping { by, tasks: None },
            7 if self.below(2) == 0 => What::Ref { attempt, reference: "batch 7".into() },
            7 => What::Refused { attempt, reason: "full".into(), not_before: time },
            8 if self.below(2) == 0 => What::Late { attempt, outcome: self.outcome() },
            8 => What::Retry {
                attempt,
                outcome: self.outcome(),
                not_before: Some(time),
                usage: None,
            },
            _ if self.below(3) > 0 => {
                What::Running { attempt, pid: None, started: None, enforced: None }
            }
            _ => What::Stopped {
                attempt: (self.below(3) > 0).then_some(attempt),
                outcome: self.outcome(),
                usage: None,
            },
        }
    }
}

/// What must hold of every card, whatever was written.
fn holds(card: &Card, before: &Card) {
    let open = card.attempts.iter().filter(|attempt| attempt.ended_at.is_none()).count();
    let with_nodes = card.with_nodes().count();
    assert!(open <= 1 || card.state == State::Stopped, "{card:?}");
    assert_eq!(
        with_nodes > 0,
        matches!(card.state, State::Placed | State::Running | State::Stopping)
    );
    assert_eq!(card.outcome.is_some(), card.state == State::Stopped, "{card:?}");
    assert!(card.tasks.most_retries() >= before.tasks.most_retries());
    assert_eq!(card.newer, None, "{card:?}");
    if before.state == State::Stopped {
        let is_as_before = |card: &Card| {
            (card.outcome.clone(), card.stopped_at.clone(), card.attempts.clone(), card.priority)
        };
        assert_eq!(is_as_before(card), is_as_before(before), "the first end stands");
    }
}

#[test]
fn a_card_read_again_says_what_it_said() {
    let mut random = Random(11);
    let mut ends = 0;
    for _ in 0..100 {
        let mut bytes = format!("{FIRST}\n").into_bytes();
        let mut card = Card::parse(&bytes).unwrap();
        for _ in 0..random.below(24) {
            let before = card.clone();
            let event = Event::now(random.what(&card));
            let line = serde_json::to_string(&event).unwrap();
            // What a crash leaves between lines is passed over.
            let torn = line[..random.below(line.len() as u64) as usize].to_string();
            let damage = match random.below(4) {
                0 => format!("\n{torn}\n"),
                1 => "\n\0\0\0\0\n".to_string(),
                _ => String::new(),
            };
            bytes.extend(format!("{damage}\n{line}\n").as_bytes());
            card.apply(event);
            card.length = bytes.len() as u64;
            let read = Card::parse(&bytes).unwrap();
            assert_eq!(
                format!("{read:?}"),
                format!("{card:?}"),
                "{}",
                String::from_utf8_lossy(&bytes)
            );
            let short = format!("{:?}", read.without_events());
            assert_eq!(short, format!("{:?}", Card { events: Vec::new(), ..read }));
            holds(&card, &before);
        }
        ends += usize::from(card.state == State::Stopped);
        // Cut anywhere within its last line it is what it was before that.
        if card.events.is_empty() {
            continue;
        }
        let last = bytes.iter().rev().skip(1).position(|b| *b == b'\n').unwrap();
        let end = bytes.len() - last - 1;
        let whole = Card::parse(&bytes[..end]).unwrap();
        for cut in end..bytes.len() - 1 {
            let cut = Card::parse(&bytes[..cut]).unwrap();
            assert_eq!((cut.state, cut.events.len()), (whole.state, whole.events.len()));
        }
    }
    assert!(ends > 12, "{ends}");
}

/// What happens to a plain job, as the lines of an array say it of its one task.
fn of_task(what: &What) -> Vec<What> {
    let task = || TaskSet::one(0);
    let tasks = |attempt, report, retry, not_before: &Option<String>, ended| What::Tasks {
        attempt,
        report,
        retry,
        not_before: not_before.clone(),
        ended,
        usage: None,
    };
    match what.clone() {
        What::Placed { attempt, node, nodejob, driver, uri, .. } => {
            let tasks = Some(task());
            vec![What::Placed { attempt, node, nodejob, driver, uri, tasks }]
        }
        What::Retry { attempt, outcome, not_before, usage: _ } => {
            let again = vec![Ended { tasks: task(), outcome: outcome.clone() }];
            vec![tasks(Some(attempt), Report::default(), again, &not_before, Some(outcome))]
        }
        What::Stopped { attempt, outcome, usage: _ } => {
            let report = Report::of(&task(), &outcome);
            let ended = attempt.map(|_| outcome.clone());
            vec![
                tasks(attempt, report, Vec::new(), &None, ended),
                What::Stopped { attempt: None, outcome, usage: None },
            ]
        }
        other => vec![other],
    }
}

/// A plain job, and an array of one task.
fn both(first: &str) -> (Card, Card) {
    let array = first.replace(r#""command""#, r#""array":"0","command""#);
    (Card::parse(first.as_bytes()).unwrap(), Card::parse(array.as_bytes()).unwrap())
}

/// What an array of one task waits for, were it a plain job: one that a node has refused waits as a whole.
fn waits_of(array: &Card, now: SystemTime) -> Waits {
    let last = array.attempts.last().filter(|last| last.refused.is_some());
    let until = last.and_then(|last| array.tasks.refused_until(&last.node, now));
    match (array.waits(&now.into()), until) {
        (Waits::ForNode(1), Some(until)) => Waits::Until(until),
        (waits, _) => waits,
    }
}

#[test]
fn lines_of_a_plain_job_are_those_of_an_array_of_one_task() {
    let mut random = Random(5);
    let begun = clock::parse_rfc3339("2026-01-01T00:00:00.000Z").unwrap();
    let (mut ends, mut until) = (0, 0);
    for _ in 0..400 {
        let (mut plain, mut array) = both(FIRST);
        for step in 0..random.below(24) {
            let what = random.what(&plain);
            let now = begun + Duration::from_secs(step);
            let at = clock::rfc3339(now);
            for what in of_task(&what) {
                array.apply(Event { at: at.clone(), what });
            }
            plain.apply(Event { at, what });
            let why = format!("{plain:?}\n{array:?}");
            let whole = |card: &Card| {
                let end = (card.outcome.clone(), card.stopped_at.clone());
                (card.state, end, card.priority, card.stopping_by.clone())
            };
            assert_eq!(whole(&plain), whole(&array), "{why}");
            let ended = plain.outcome.is_some();
            let left = |tasks: &TaskSet| (!ended).then(|| tasks.len());
            let bare = |attempt: &Attempt| {
                let tasks = (left(&attempt.left), left(&attempt.returned));
                let none = TaskSet::default;
                let given = Attempt { tasks: None, left: none(), ..attempt.clone() };
                (tasks, Attempt { returned: none(), reported_at: None, ..given })
            };
            let attempts = |card: &Card| card.attempts.iter().map(bare).collect::<Vec<_>>();
            assert_eq!(attempts(&plain), attempts(&array), "{why}");
            assert_eq!(plain.tasks.retries_of(ALONE), array.tasks.retries_of(0), "{why}");
            assert_eq!(plain.is_waiting(), array.is_waiting(), "{why}");
            // Nobody ends the whole of an array without its tasks.
            let halves = array.tasks.is_finished() && array.outcome.is_none();
            assert!(
                !halves && (ended || plain.over_at(&now.into()) == array.over_at(&now.into())),
                "{why}"
            );
            for seconds in [0, 3, 20] {
                let now = now + Duration::from_secs(seconds);
                assert_eq!(plain.waits(&now.into()), waits_of(&array, now), "{why}");
                until += usize::from(matches!(plain.waits(&now.into()), Waits::Until(_)));
            }
        }
        ends += usize::from(plain.state == State::Stopped);
    }
    assert!(ends > 50 && until > 50, "{ends} ended, {until} waits for a time");
}

/// A plain job and an array of one task to which the same is done.
struct Pair {
    random: Random,
    plain: Card,
    array: Card,
}

impl Pair {
    fn stamp(&mut self, plain: Vec<What>, array: Vec<What>) {
        plain.into_iter().for_each(|what| self.plain.apply(Event::now(what)));
        array.into_iter().for_each(|what| self.array.apply(Event::now(what)));
    }

    fn place(&mut self, now: SystemTime) {
        let tasks = ranges::next(&self.plain, 2, &now.into());
        let node = Node { name: format!("n{}", self.random.below(3)), ..Node::localhost() };
        if tasks.is_empty() || self.array.tasks.refused_until(&node.name, now).is_some() {
            return; // who refuses it is to be left alone for a while
        }
        let of_array = ranges::next(&self.array, 2, &now.into());
        assert_eq!((tasks.len(), of_array.len()), (1, 1));
        let plain = attempts::place("c", &self.plain, &node, tasks);
        let array = attempts::place("c", &self.array, &node, of_array);
        assert_eq!(of_task(&plain), std::slice::from_ref(&array));
        self.stamp(vec![plain], vec![array]);
    }

    /// What its node says of an attempt, past ones too.
    fn report(&mut self, attempt: &Attempt) {
        let outcome = self.random.outcome();
        let status = match self.random.below(3) {
            0 => RunStatus::running(1, 1, "b"),
            _ => RunStatus::stopped(&outcome),
        };
        let tasks = status.outcome().map(|outcome| Report::of(&TaskSet::one(0), &outcome));
        let id = NodejobId::parse(&attempt.nodejob.to_string()).unwrap();
        let said = |status: RunStatus| {
            let status = Box::new(status.of(&id.to_string()));
            [Said { id: id.clone(), node: attempt.node.clone(), proven: true, status }]
        };
        let plain = decide(&self.plain, &said(status.clone()));
        let array = decide(&self.array, &said(RunStatus { tasks, ..status }));
        self.stamp(plain, array);
    }

    fn step(&mut self, now: SystemTime) {
        let by = ["ada", "bob"][self.random.below(2) as usize].to_string();
        let last = self.plain.attempts.last().cloned();
        let id = last.as_ref().and_then(|last| NodejobId::parse(&last.nodejob.to_string()));
        let change = match (self.random.below(16), id) {
            (0, _) => Change::Hold { by },
            (1 | 2, _) => Change::Release { by },
            (3, _) if self.random.below(3) == 0 => Change::Kill { tasks: None, by },
            (4, _) => Change::Priority { priority: self.random.below(4) as i64, by },
            (5, Some(attempt)) => Change::Refuse { attempt, reason: "full".into() },
            (6, Some(attempt)) => Change::Abandon { attempt, why: "silent".into() },
            (7, _) => Change::Expire { now: now.into() },
            (8..=11, Some(_)) => return self.report(&last.unwrap()),
            _ => return self.place(now),
        };
        match (change.lines(&self.plain, now), change.lines(&self.array, now)) {
            (Ok(plain), Ok(array)) => self.stamp(plain, array),
            (plain, array) => {
                // What of an array comes to wait again can be held while a node has the rest.
                let hold = matches!(change, Change::Hold { .. } | Change::Release { .. });
                let more = hold && plain.is_err() && self.plain.with_nodes().next().is_some();
                assert!(
                    more || (plain.is_err() && array.is_err()),
                    "{change:?}: {plain:?} {array:?}"
                );
            }
        }
    }

    fn agree(&self, now: SystemTime) {
        let why = format!("{:?}\n{:?}", self.plain, self.array);
        let killed = self.plain.stopping_by.is_some();
        let whole = |card: &Card| {
            let end = card.outcome.as_ref().map(|end| (end.status, end.cause, end.code));
            (card.state, end, card.priority, card.stopping_by.clone())
        };
        assert_eq!(whole(&self.plain), whole(&self.array), "{why}");
        assert_eq!(self.plain.tasks.retries_of(ALONE), self.array.tasks.retries_of(0), "{why}");
        assert_eq!(self.plain.tasks.is_finished(), self.plain.outcome.is_some(), "{why}");
        // A plain job that was killed says no more of its attempt than that.
        let bare = |a: &Attempt| {
            let end = a.outcome.clone().filter(|_| !killed);
            let began = a.started_at.is_some() && !killed;
            let refused = a.refused.clone().filter(|_| !killed);
            (a.attempt, a.node.clone(), began, a.ended_at.is_some(), end, refused)
        };
        let attempts = |card: &Card| card.attempts.iter().map(bare).collect::<Vec<_>>();
        assert_eq!(attempts(&self.plain), attempts(&self.array), "{why}");
        let (plain, array) = (self.plain.waits(&now.into()), waits_of(&self.array, now));
        let kind = |waits: &Waits| std::mem::discriminant(waits);
        assert_eq!(kind(&plain), kind(&array), "{why}"); // each has its own time
        let lates = |card: &Card| {
            let lates = card.events.iter().map(|event| event.what.clone());
            lates.filter(|what| matches!(what, What::Late { .. })).collect::<Vec<_>>()
        };
        if !killed {
            assert_eq!(lates(&self.plain), lates(&self.array), "{why}");
        }
    }
}

#[test]
fn what_follows_for_a_plain_job_follows_for_an_array_of_one_task() {
    let (mut ends, mut retries, mut refused) = (0, 0, 0);
    for seed in 0..400 {
        let first = FIRST.replace(r#","retry_delay":"1s""#, "");
        let (plain, array) = both(&first);
        let mut pair = Pair { random: Random(seed), plain, array };
        let mut now = SystemTime::now();
        for _ in 0..30 {
            pair.step(now);
            pair.agree(now);
            // Until those that would not have it may be asked again.
            now += Duration::from_secs(pair.random.below(3) * 30);
        }
        ends += usize::from(pair.plain.state == State::Stopped);
        retries += pair.plain.tasks.retries_of(ALONE);
        refused += pair.plain.attempts.iter().filter(|a| a.refused.is_some()).count();
    }
    let counted = format!("{ends} ended, {retries} retries, {refused} refused");
    assert!(ends > 100 && retries > 50 && refused > 50, "{counted}");
}
