//! What random histories of arrays are made of, the same each time.
#![allow(dead_code, missing_docs, clippy::unwrap_used)]

use std::time::{Duration, SystemTime};

use corkboard::clock;
use corkboard::model::card::{Card, Event};
use corkboard::model::outcome::Outcome;
use corkboard::model::report::Ended;
use corkboard::model::tasks::TaskSet;
use serde_json::json;

/// Indices of the tasks in play: some of them belong to no array.
pub const INDICES: u64 = 14;

pub const USERS: [&str; 3] = ["ada", "bob", "eve"];

pub const NODES: [&str; 2] = ["one", "two"];

/// Numbers that look random and are the same each time.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % limit
    }

    pub fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    pub fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }

    pub fn some(&mut self, tasks: &TaskSet) -> TaskSet {
        let often = 1 + self.below(3);
        tasks.iter().filter(|_| self.below(3) < often).collect()
    }

    pub fn tasks(&mut self) -> TaskSet {
        (0..INDICES as u32).filter(|_| self.one_in(3)).collect()
    }

    pub fn outcome(&mut self) -> Outcome {
        match self.below(4) {
            0 => Outcome::lost("gone"),
            1 => Outcome::killed(self.of(&USERS)),
            code => Outcome::exit(code as i32),
        }
    }

    pub fn failures(&mut self) -> Vec<Ended> {
        (0..self.below(3)).map(|_| Ended { tasks: self.tasks(), outcome: self.outcome() }).collect()
    }

    pub fn time(&mut self) -> String {
        let hours = Duration::from_secs(3600 * self.below(3));
        clock::rfc3339(SystemTime::now() - Duration::from_secs(1800) + hours)
    }
}

pub fn first_line(dice: &mut Dice) -> (Card, Vec<u8>) {
    let tasks = match dice.tasks() {
        tasks if tasks.is_empty() => TaskSet::one(3),
        tasks => tasks,
    };
    let at_once = if dice.one_in(3) { "%1" } else { "" };
    let mut request = json!({"command": ["true"], "array": format!("{tasks}{at_once}")});
    request["max_retry_count"] = dice.below(3).into();
    request["retry_lost"] = dice.one_in(2).into();
    if dice.one_in(3) {
        request["state"] = "held".into();
    }
    let line =
        json!({"job": 7, "request_id": "r", "at": clock::now(), "by": "ada", "request": request});
    let bytes = format!("{line}\n").into_bytes();
    (Card::parse(&bytes).unwrap(), bytes)
}

pub fn append(bytes: &mut Vec<u8>, event: &Event) {
    bytes.extend_from_slice(format!("\n{}\n", serde_json::to_string(event).unwrap()).as_bytes());
}
