//! What is decided about the ranges of an array, whatever nodes and users do, and in which order.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "common/dice.rs"]
mod dice;

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use corkboard::attempts::{Said, decide, ranges};
use corkboard::model::card::{Attempt, Card, Event, State, What};
use corkboard::model::draft;
use corkboard::model::ids::NodejobId;
use corkboard::model::node::DriverKind;
use corkboard::model::outcome::{Cause, Outcome, Status};
use corkboard::model::report::Report;
use corkboard::model::run_status::RunStatus;
use dice::{Dice, NODES, USERS, append, first_line};

/// A head that decides, and nodes that say anything at any time.
struct World {
    dice: Dice,
    card: Card,
    bytes: Vec<u8>,
    /// What a node said of a task, where that reached the head in time.
    told: BTreeMap<u32, Outcome>,
    /// Tasks whose kill was acknowledged before they had ended.
    killed: BTreeSet<u32>,
}

impl World {
    fn new(seed: u64) -> World {
        let mut dice = Dice(seed);
        let (card, bytes) = first_line(&mut dice);
        World { dice, card, bytes, told: BTreeMap::new(), killed: BTreeSet::new() }
    }

    fn stamp(&mut self, whats: Vec<What>) -> usize {
        let count = whats.len();
        for event in whats.into_iter().map(Event::now) {
            append(&mut self.bytes, &event);
            self.card.apply(event);
        }
        count
    }

    fn place(&mut self) {
        let tasks = ranges::next(&self.card, 2, &SystemTime::now().into());
        if tasks.is_empty() {
            return;
        }
        let attempt = self.card.attempts.last().map_or(1, |last| last.attempt + 1);
        let node = self.dice.of(&NODES).to_string();
        let nodejob = NodejobId::new("c", 7, attempt).unwrap();
        let driver = DriverKind::Local;
        self.stamp(vec![What::Placed {
            attempt,
            node,
            nodejob,
            driver,
            uri: None,
            tasks: Some(tasks),
        }]);
    }

    /// A report on some attempt, past ones too, of the node that has it or of another.
    fn report(&mut self) {
        let Some(attempt) = self.any_attempt() else { return };
        let mut report = Report { good: self.dice.tasks(), failed: self.dice.failures() };
        let ended = self.dice.one_in(3);
        if ended && self.dice.one_in(2) {
            report.good.add(&attempt.left); // ran through
        }
        let status = match ended {
            true => RunStatus::stopped(&self.dice.outcome()),
            false => RunStatus::running(1, 1, "boot"),
        };
        let status = RunStatus { tasks: Some(report.clone()), ..status };
        let foreign = self.dice.one_in(6);
        let node = match foreign {
            true => "three".to_string(),
            false => attempt.node.clone(),
        };
        let id = attempt.nodejob.clone();
        let status = Box::new(status.of(&attempt.nodejob));
        let said = Said { node, id, proven: true, status };
        let lines = self.card.events.len();
        let left = attempt.left.clone();
        let before = self.ended();
        let whats = decide(&self.card, std::slice::from_ref(&said));
        self.stamp(whats);
        if foreign {
            assert_eq!(self.card.events.len(), lines, "a foreign report changes nothing");
        }
        for task in left.iter().filter(|_| !foreign) {
            if report.good.contains(task) {
                self.told.insert(task, Outcome::exit(0));
            }
        }
        let gone: BTreeSet<u32> = self.ended().difference(&before).copied().collect();
        let told = |task: &u32| left.contains(*task) || self.card.state == State::Stopped;
        assert!(gone.iter().all(told), "a report ends the tasks of its own range alone");
        // Said again, it is no news.
        let lines = self.card.events.len();
        let whats = decide(&self.card, &[said]);
        let late = whats.iter().all(|what| matches!(what, What::Late { .. }));
        assert!(late, "{whats:?}");
        self.stamp(whats);
        assert!(self.card.events.len() <= lines + 1);
    }

    fn any_attempt(&mut self) -> Option<Attempt> {
        let count = self.card.attempts.len() as u64;
        let newest = |dice: &mut Dice| count - 1 - dice.below(count.min(3));
        (count > 0).then(|| self.card.attempts[newest(&mut self.dice) as usize].clone())
    }

    fn current(&mut self) -> Option<NodejobId> {
        let attempt = self.any_attempt()?;
        let id = attempt.nodejob;
        self.card.is_current(&id).then_some(id)
    }

    fn ended(&self) -> BTreeSet<u32> {
        self.card.tasks.ended.tasks().iter().collect()
    }

    fn kill(&mut self) {
        let by = self.dice.of(&USERS);
        let tasks = (!self.dice.one_in(4)).then(|| self.dice.tasks());
        let all = self.card.tasks.spec.tasks.clone();
        let named: BTreeSet<u32> = tasks.as_ref().unwrap_or(&all).within(&all).iter().collect();
        if self.card.state != State::Stopped {
            self.killed.extend(named.difference(&self.ended()));
            self.stamp(draft::kill(&self.card, tasks.as_ref(), by));
        }
    }

    fn step(&mut self) {
        let by = self.dice.of(&USERS).to_string();
        match self.dice.below(16) {
            0 => self.kill(),
            1 if self.card.state != State::Stopped => _ = self.stamp(vec![What::Held { by }]),
            2 | 3 if self.card.state != State::Stopped => {
                _ = self.stamp(vec![What::Released { by }])
            }
            4 => {
                if let Some(id) = self.current() {
                    let time = self.dice.time();
                    let attempt = self.card.current(&id).unwrap();
                    let refused = draft::refuse(&self.card, attempt, "full", time);
                    self.stamp(refused);
                }
            }
            5 => {
                if let Some(id) = self.current() {
                    self.stamp(draft::give_up(&self.card, &id, "silent"));
                }
            }
            6 if self.dice.one_in(20) => _ = self.stamp(draft::expire(&self.card)),
            7..=10 => self.report(),
            _ => self.place(),
        }
        self.holds();
    }

    /// What must hold after every step.
    fn holds(&self) {
        let card = &self.card;
        let array = &card.tasks;
        let mut seen = array.waiting.iter().collect::<Vec<_>>();
        card.attempts.iter().for_each(|attempt| seen.extend(attempt.left.iter()));
        seen.extend(array.ended.good.iter());
        array.ended.failed.iter().for_each(|group| seen.extend(group.tasks.iter()));
        seen.sort_unstable();
        assert_eq!(seen, array.spec.tasks.iter().collect::<Vec<_>>(), "each task is in one place");
        let live = card.attempts.iter().filter(|attempt| attempt.ended_at.is_none()).count() as u64;
        assert!(live <= array.spec.at_once.unwrap_or(u64::MAX));
        assert!(
            self.killed.iter().all(|task| !array.waiting.contains(*task)),
            "killed is not dealt out"
        );
        let ready = array.ready(SystemTime::now());
        assert!(self.killed.iter().all(|task| !ready.contains(*task)));
        for (task, outcome) in &self.told {
            assert_eq!(array.outcome_of(*task).as_ref(), Some(outcome), "a told end stands");
        }
        assert!(!draft::is_unsettled(card), "nothing is left half done: {:?}", card.events);
        assert_eq!(card.outcome.is_some(), array.is_finished());
        if let Some(end) = &card.outcome {
            let first = array.failed().first().and_then(|task| array.outcome_of(task));
            let cause = first.as_ref().map_or(Cause::Exit, |first| first.cause);
            assert_eq!(end.cause, cause, "{end:?}");
            assert_eq!(end.status == Status::Good, first.is_none());
        }
    }

    /// Whatever a power loss left of the card, somebody can go on with it.
    fn cut(&mut self) {
        let ends: Vec<usize> =
            (0..self.bytes.len()).filter(|at| self.bytes[*at] == b'\n').map(|at| at + 1).collect();
        for end in ends {
            let mut card = Card::parse(&self.bytes[..end]).unwrap();
            let settled = draft::settle(&card);
            assert_eq!(draft::is_unsettled(&card), !settled.is_empty(), "{:?}", card.events);
            settled.into_iter().map(Event::now).for_each(|event| card.apply(event));
            assert!(!draft::is_unsettled(&card), "{:?}", card.events);
            let array = &card.tasks;
            assert!(!array.waiting.has_any_of(&array.unwanted));
            assert!(card.stopping_by.is_none() || array.waiting.is_empty());
            assert_eq!(card.outcome.is_some(), array.is_finished());
        }
    }
}

#[test]
fn whatever_nodes_and_users_do_each_task_is_in_one_place() {
    let (mut stopped, mut good) = (0, 0);
    for seed in 0..300 {
        let mut world = World::new(seed);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            (0..60).for_each(|_| world.step());
            world.cut();
        }));
        if let Err(panic) = result {
            eprintln!("seed {seed}: {}", String::from_utf8_lossy(&world.bytes));
            std::panic::resume_unwind(panic);
        }
        stopped += usize::from(world.card.state == State::Stopped);
        good += usize::from(world.card.status() == Status::Good);
    }
    assert!(stopped > 50 && good > 5, "{stopped} stopped, {good} of them good");
}

/// Whoever reads a card reads all of it.
#[test]
fn a_node_that_says_something_else_each_time_makes_no_card_grow_without_end() {
    let ended = r#""attempt":1,"status":"error","cause":"lost","reason":"gone""#;
    let of_array = r#""attempt":1,"failed":[{"tasks":"0-1","status":"error","cause":"lost"}],"ended":{"status":"error","cause":"lost"}"#;
    for (array, placed, event, ended) in
        [("", "", "stopped", ended), (r#","array":"0-1""#, r#","tasks":"0-1""#, "tasks", of_array)]
    {
        let lines = [
            format!(
                r#"{{"job":7,"request_id":"r","at":"t","by":"ada","request":{{"command":["true"]{array}}}}}"#
            ),
            format!(
                r#"{{"at":"t","event":"placed","attempt":1,"node":"n","nodejob":"c-7.1","driver":"http"{placed}}}"#
            ),
            format!(r#"{{"at":"t","event":"{event}",{ended}}}"#),
        ];
        let mut card = Card::parse(lines.join("\n").as_bytes()).unwrap();
        assert!(card.attempts[0].ended_at.is_some(), "{card:?}");
        let before = card.events.len();
        for turn in 0..3 {
            let reports: Vec<Said> = (0..100)
                .map(|index| {
                    let outcome = Outcome::lost(&format!("{turn} {}", index / 2));
                    let status = Box::new(RunStatus::stopped(&outcome).of("c-7.1"));
                    let id = NodejobId::parse("c-7.1").unwrap();
                    Said { node: "n".into(), id, proven: true, status }
                })
                .collect();
            for what in decide(&card, &reports) {
                card.apply(Event::now(what));
            }
        }
        let lates = card.events[before..].iter();
        let lates = lates.filter(|event| matches!(event.what, What::Late { .. })).count();
        assert!((1..=8).contains(&lates), "{lates}: {:?}", card.events);
    }
}
