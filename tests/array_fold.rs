//! The fold of an array's card against a slow and obvious model: random lines, sensible or not, read
//! again after each, torn and whole.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "common/dice.rs"]
mod dice;

use std::collections::BTreeMap;
use std::time::SystemTime;

use corkboard::clock;
use corkboard::model::card::{Card, Event, State, What};
use corkboard::model::ids::NodejobId;
use corkboard::model::node::DriverKind;
use corkboard::model::outcome::Outcome;
use corkboard::model::report::{Ended, Report};
use corkboard::model::tasks::TaskSet;
use dice::{Dice, NODES, USERS, append, first_line};

#[derive(Debug, Clone, PartialEq)]
enum Task {
    Waits { not_before: Option<SystemTime> },
    Out { at: usize },
    Ended(Outcome),
}

#[derive(Debug)]
struct Range {
    number: u32,
    live: bool,
    started: bool,
}

/// An array as one would write it down: one entry a task.
#[derive(Debug, Default)]
struct Model {
    tasks: BTreeMap<u32, Task>,
    tries: BTreeMap<u32, u32>,
    killers: BTreeMap<u32, String>,
    ranges: Vec<Range>,
    held: bool,
    killed_by: Option<String>,
    end: Option<Outcome>,
}

impl Model {
    fn of(card: &Card) -> Model {
        let array = &card.tasks;
        let waits = |task| (task, Task::Waits { not_before: None });
        Model {
            tasks: array.spec.tasks.iter().map(waits).collect(),
            held: card.spec.held,
            ..Model::default()
        }
    }

    fn live(&self, number: u32) -> Option<usize> {
        self.ranges.iter().rposition(|range| range.live && range.number == number)
    }

    fn end_those(&mut self, report: &Report, place: impl Fn(&Task) -> bool) {
        let good = Ended { tasks: report.good.clone(), outcome: Outcome::exit(0) };
        for Ended { tasks, outcome } in std::iter::once(&good).chain(&report.failed) {
            for task in tasks.iter() {
                if let Some(known) = self.tasks.get_mut(&task).filter(|known| place(known)) {
                    *known = Task::Ended(outcome.clone());
                }
            }
        }
    }

    fn close(&mut self, at: usize) {
        self.ranges[at].live = false;
        for task in self.tasks.values_mut().filter(|task| **task == Task::Out { at }) {
            *task = Task::Waits { not_before: None };
        }
    }

    fn apply(&mut self, what: &What) {
        if self.end.is_some() {
            return;
        }
        match what {
            What::Held { .. } => self.held = true,
            What::Released { .. } => {
                self.held = false;
                let tasks = self.tasks.values_mut();
                for task in tasks.filter(|task| matches!(task, Task::Waits { .. })) {
                    *task = Task::Waits { not_before: None };
                }
            }
            What::Placed { attempt, tasks: Some(tasks), .. } => {
                let waits = |task| matches!(self.tasks.get(&task), Some(Task::Waits { .. }));
                if self.killed_by.is_some() || tasks.is_empty() || !tasks.iter().all(waits) {
                    return;
                }
                let at = self.ranges.len();
                self.ranges.push(Range { number: *attempt, live: true, started: false });
                tasks.iter().for_each(|task| _ = self.tasks.insert(task, Task::Out { at }));
            }
            What::Running { attempt, .. } => {
                if let Some(at) = self.live(*attempt) {
                    self.ranges[at].started = true;
                }
            }
            What::Stopping { by, tasks: Some(tasks) } if self.killed_by.is_none() => {
                for task in tasks.iter() {
                    if matches!(self.tasks.get(&task), Some(Task::Out { .. })) {
                        self.killers.entry(task).or_insert_with(|| by.clone());
                    }
                }
            }
            What::Stopping { tasks: Some(_), .. } => {}
            What::Stopping { by, tasks: None } => {
                self.killed_by.get_or_insert_with(|| by.clone());
            }
            What::Refused { attempt, .. } => {
                if let Some(at) = self.live(*attempt) {
                    self.close(at);
                }
            }
            What::Tasks { attempt: None, report, .. } => {
                self.end_those(report, |task| matches!(task, Task::Waits { .. }));
            }
            What::Tasks { attempt: Some(number), report, retry, not_before, ended, usage: _ } => {
                let Some(at) = self.live(*number) else { return };
                self.end_those(report, |task| *task == Task::Out { at });
                let not_before = not_before.as_deref().and_then(clock::parse_rfc3339);
                for task in retry.iter().flat_map(|group| group.tasks.iter().collect::<Vec<_>>()) {
                    if self.tasks.get(&task) == Some(&Task::Out { at }) {
                        self.tasks.insert(task, Task::Waits { not_before });
                        *self.tries.entry(task).or_default() += 1;
                    }
                }
                if ended.is_some() {
                    self.close(at);
                }
            }
            What::Stopped { outcome, .. } => self.end = Some(outcome.clone()),
            _ => {}
        }
    }

    fn state(&self) -> State {
        let mut live = self.ranges.iter().filter(|range| range.live).peekable();
        match (live.peek().is_some(), &self.killed_by) {
            _ if self.end.is_some() => State::Stopped,
            (true, Some(_)) => State::Stopping,
            (true, None) if live.any(|range| range.started) => State::Running,
            (true, None) => State::Placed,
            (false, _) if self.held => State::Held,
            (false, _) => State::Queued,
        }
    }

    fn set(&self, is_so: impl Fn(&Task) -> bool) -> TaskSet {
        self.tasks.iter().filter(|(_, task)| is_so(task)).map(|(index, _)| *index).collect()
    }

    /// The card says the same.
    fn agree(&self, card: &Card, why: &str) {
        let array = &card.tasks;
        let now = SystemTime::now();
        assert_eq!(card.state, self.state(), "{why}");
        assert_eq!(array.waiting, self.set(|t| matches!(t, Task::Waits { .. })), "waits: {why}");
        let due = |task: &Task| matches!(task, Task::Waits { not_before } if not_before.is_none_or(|time| time <= now));
        assert_eq!(array.ready(now), self.set(due), "ready: {why}");
        assert_eq!(card.attempts.len(), self.ranges.len(), "{why}");
        for (at, attempt) in card.attempts.iter().enumerate() {
            assert_eq!(attempt.left, self.set(|task| *task == Task::Out { at }), "left: {why}");
            assert_eq!(attempt.ended_at.is_none(), self.ranges[at].live, "{why}");
        }
        for (index, task) in &self.tasks {
            let outcome = match task {
                Task::Ended(outcome) => Some(outcome.clone()),
                _ => None,
            };
            assert_eq!(array.outcome_of(*index), outcome, "task {index}: {why}");
            assert_eq!(array.retries_of(*index), self.tries.get(index).copied().unwrap_or(0));
            let killer = array.killers.iter().find(|(_, tasks)| tasks.contains(*index));
            assert_eq!(killer.map(|(by, _)| by), self.killers.get(index), "task {index}: {why}");
        }
        let finished = self.tasks.values().all(|task| matches!(task, Task::Ended(_)));
        assert_eq!(array.is_finished(), finished, "{why}");
        let ended = array.ended.good.len() + array.failed().len();
        assert_eq!(ended, self.set(|task| matches!(task, Task::Ended(_))).len(), "{why}");
    }
}

/// Any line, whether it makes sense or not.
fn any_line(dice: &mut Dice, card: &Card) -> What {
    let array = &card.tasks;
    let by = dice.of(&USERS).to_string();
    let attempt = 1 + dice.below(card.attempts.len() as u64 + 1) as u32;
    let good = |dice: &mut Dice| Report { good: dice.tasks(), failed: dice.failures() };
    match dice.below(12) {
        0 => What::Held { by },
        1 => What::Released { by },
        2 => What::Running { attempt, pid: Some(1), started: None, enforced: None },
        3 => What::Stopping { by, tasks: Some(dice.tasks()) },
        4 if dice.one_in(4) => What::Stopping { by, tasks: None },
        5 => What::Refused { attempt, reason: "full".into(), not_before: dice.time() },
        6 => What::Tasks {
            attempt: None,
            report: good(dice),
            retry: Vec::new(),
            not_before: None,
            ended: None,
            usage: None,
        },
        7 | 8 => What::Tasks {
            attempt: Some(attempt),
            report: good(dice),
            retry: dice.failures(),
            not_before: dice.one_in(2).then(|| dice.time()),
            ended: dice.one_in(3).then(|| dice.outcome()),
            usage: None,
        },
        9 if dice.one_in(6) => {
            What::Stopped { attempt: None, outcome: dice.outcome(), usage: None }
        }
        _ => {
            let tasks = if dice.one_in(4) { dice.tasks() } else { dice.some(&array.waiting) };
            let node = dice.of(&NODES).to_string();
            let driver = DriverKind::Local;
            What::Placed {
                attempt,
                node,
                nodejob: NodejobId::new("c", 7, attempt).unwrap(),
                driver,
                uri: None,
                tasks: Some(tasks),
            }
        }
    }
}

#[test]
fn the_fold_is_what_the_lines_say() {
    for seed in 0..200 {
        let mut dice = Dice(seed);
        let (mut card, mut bytes) = first_line(&mut dice);
        let mut model = Model::of(&card);
        for step in 0..40 {
            let event = Event::now(any_line(&mut dice, &card));
            let before = bytes.len();
            append(&mut bytes, &event);
            // Torn anywhere in this line, the card says what it said before.
            let torn = before + dice.below((bytes.len() - before - 2) as u64) as usize;
            model.agree(&Card::parse(&bytes[..torn]).unwrap(), "torn");
            card.apply(event.clone());
            model.apply(&event.what);
            let why = format!("seed {seed}, step {step}: {event:?}");
            model.agree(&card, &why);
            model.agree(&Card::parse(&bytes).unwrap(), &why);
        }
    }
}
