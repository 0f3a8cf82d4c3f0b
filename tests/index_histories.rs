//! What the poller knows of the board without looking, against a slow and obvious model: after each step
//! of a random history the model reads all cards and nodes anew, and sorts.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "common/dice.rs"]
mod dice;
#[path = "common/index_model.rs"]
mod model;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use corkboard::attempts::{self, Said, decide, ranges};
use corkboard::clock;
use corkboard::model::card::{Card, Column, Event, What};
use corkboard::model::change::Change;
use corkboard::model::ids::NodejobId;
use corkboard::model::node::{DriverKind, Node, NodeState};
use corkboard::model::partition::Partition;
use corkboard::model::report::Report;
use corkboard::model::resources::Resources;
use corkboard::model::run_status::RunStatus;
use corkboard::poller::index::{Index, Moment};
use corkboard::settings::Settings;
use dice::{Dice, USERS};
use model::has_waiting;
use serde_json::json;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

const PARTITIONS: [&str; 3] = ["p", "q", "r"];

/// A board, nodes, and what the poller knows of them.
struct World {
    dice: Dice,
    begun: Moment,
    now: SystemTime,
    cards: BTreeMap<u64, Card>,
    /// Cards as they were: a power loss, or a hand, may put them back.
    past: Vec<Card>,
    nodes: BTreeMap<String, Node>,
    partitions: BTreeMap<String, Partition>,
    ahead: BTreeMap<String, u64>,
    index: Index,
    reservations: usize,
    reserved: u64,
    jobs: u64,
    why: String,
    placed: u64,
    aside: u64,
    barred: u64,
}

impl World {
    fn new(seed: u64, reservations: usize) -> World {
        let settings = Settings { reservations, ..Settings::default() };
        let begun = Moment { time: SystemTime::now(), steady: Instant::now() };
        let mut world = World {
            dice: Dice(seed),
            begun,
            now: begun.time,
            cards: BTreeMap::new(),
            past: Vec::new(),
            nodes: BTreeMap::new(),
            partitions: BTreeMap::new(),
            ahead: BTreeMap::new(),
            index: Index::with(&settings),
            reservations,
            reserved: 0,
            jobs: 0,
            why: String::new(),
            placed: 0,
            aside: 0,
            barred: 0,
        };
        (0..3).for_each(|_| world.change_node());
        (0..3).for_each(|_| world.change_partition());
        world
    }

    fn moment(&self) -> Moment {
        let passed = self.now.duration_since(self.begun.time).unwrap();
        Moment { time: self.now, steady: self.begun.steady + passed }
    }

    fn put(&mut self, job: u64) {
        let now = self.moment();
        match self.cards.get(&job) {
            Some(card) if card.column() != Column::Done => {
                self.index.put(card, card.accepted.user().as_deref(), now);
            }
            _ => self.index.remove(job),
        }
    }

    fn stamp(&mut self, job: u64, lines: Vec<What>) {
        let at = clock::rfc3339(self.now);
        let card = self.cards.get_mut(&job).unwrap();
        if self.dice.one_in(8) {
            self.past.push(card.clone());
        }
        for what in lines {
            card.length += 1;
            card.apply(Event { at: at.clone(), what });
        }
    }

    fn some_job(&mut self) -> Option<u64> {
        let jobs: Vec<u64> = self.cards.keys().copied().collect();
        (!jobs.is_empty()).then(|| self.dice.of(&jobs))
    }

    fn submit(&mut self) {
        self.jobs += 1;
        let mut request = json!({"command": ["true"], "max_retry_count": self.dice.below(3)});
        request["requested_resources"] = json!({"cores": 1 + self.dice.below(4)});
        request["priority"] = (self.dice.below(3) as i64 - 1).into();
        if self.dice.one_in(2) {
            let tasks = self.dice.below(6);
            let at_once = ["", "%1", "%2"][self.dice.below(3) as usize];
            request["array"] = format!("0-{tasks}{at_once}").into();
        }
        if self.dice.one_in(3) {
            request["partition"] = self.dice.of(&PARTITIONS).into();
        }
        if self.dice.one_in(4) {
            request["expires"] = self.dice.of(&["5s", "10m", "3h"]).into();
        }
        if self.dice.one_in(3) {
            request["retry_delay"] = self.dice.of(&["2s", "1h"]).into();
        }
        if self.dice.one_in(5) {
            request["state"] = "held".into();
        }
        let line = json!({"job": self.jobs, "request_id": "r", "at": clock::rfc3339(self.now), "by": self.dice.of(&USERS), "request": request});
        let card = Card::parse(format!("{line}\n").as_bytes()).unwrap();
        self.cards.insert(self.jobs, card);
        self.put(self.jobs);
    }

    fn change_node(&mut self) {
        let name = self.dice.of(&NAMES).to_string();
        if self.nodes.contains_key(&name) && self.dice.one_in(4) {
            self.nodes.remove(&name);
            self.index.rooms.retain(|name| self.nodes.contains_key(name));
            self.why = format!("node {name} is removed");
            return;
        }
        let resources = Resources::of(2 + 2 * self.dice.below(3), 0);
        let node = Node {
            name: name.clone(),
            driver: DriverKind::Local,
            resources: (!self.dice.one_in(6)).then_some(resources),
            owner: self.dice.one_in(3).then(|| self.dice.of(&USERS).to_string()),
            drain: self.dice.one_in(5),
            state: if self.dice.one_in(5) { NodeState::Disconnected } else { NodeState::Connected },
            ..Node::localhost()
        };
        self.index.rooms.update(&node);
        self.why = format!("{node:?}");
        self.nodes.insert(name, node);
    }

    fn change_partition(&mut self) {
        let name = self.dice.of(&PARTITIONS).to_string();
        let mut fields = json!({"priority": self.dice.below(3) as i64 - 1});
        for cap in ["max_jobs", "max_cores", "max_jobs_per_user", "max_cores_per_user"] {
            if self.dice.one_in(3) {
                fields[cap] = (1 + self.dice.below(6)).into();
            }
        }
        if self.dice.one_in(2) {
            fields["node"] = json!([self.dice.of(&NAMES), self.dice.of(&NAMES)]);
        }
        self.why = format!("partition {name}: {fields}");
        let partition = Partition::parse(&name, fields.to_string().as_bytes()).unwrap();
        let partition = (!self.dice.one_in(4)).then_some(partition);
        self.index.set_partition(&name, partition.as_ref());
        match partition {
            Some(partition) => _ = self.partitions.insert(name, partition),
            None => _ = self.partitions.remove(&name),
        }
    }

    /// What a node says of an attempt that it has.
    fn report(&mut self, card: &Card) -> Vec<What> {
        let attempts: Vec<_> = card.with_nodes().collect();
        if attempts.is_empty() {
            return Vec::new();
        }
        let attempt = attempts[self.dice.below(attempts.len() as u64) as usize];
        let id = attempt.nodejob.clone();
        let outcome = self.dice.outcome();
        let mut status = match self.dice.below(3) {
            0 => RunStatus::running(1, 1, "b"),
            _ => RunStatus::stopped(&outcome),
        };
        if card.is_array() {
            let mut report = Report::default();
            report.add(&self.dice.some(&attempt.left), &self.dice.outcome());
            status.tasks = Some(report);
        }
        let status = Box::new(status.of(&attempt.nodejob));
        let said = Said { node: attempt.node.clone(), id, proven: true, status };
        decide(card, &[said])
    }

    fn step(&mut self) {
        let Some(job) = self.some_job().filter(|_| !self.dice.one_in(6)) else {
            return self.submit();
        };
        let card = self.cards[&job].clone();
        let by = self.dice.of(&USERS).to_string();
        let attempt = card.with_nodes().last().map(|a| a.nodejob.clone());
        let change = match (self.dice.below(20), attempt) {
            (0, _) => Change::Hold { by },
            (1 | 2, _) => Change::Release { by },
            (3, _) => Change::Priority { priority: self.dice.below(5) as i64 - 2, by },
            (4, _) if self.dice.one_in(2) => Change::Kill { tasks: None, by },
            (5, _) if card.is_array() => Change::Kill { tasks: Some(self.dice.tasks()), by },
            (6 | 7, Some(attempt)) => Change::Refuse { attempt, reason: "full".into() },
            (8, Some(attempt)) => Change::Abandon { attempt, why: "silent".into() },
            (9, _) if self.dice.one_in(3) => {
                self.past.extend(self.cards.remove(&job));
                self.why = format!("job {job} vanishes");
                return self.put(job);
            }
            (10, _) if !self.past.is_empty() => {
                let card = self.past.swap_remove(self.dice.below(self.past.len() as u64) as usize);
                let job = card.job();
                self.why = format!("job {job} is as it was: {card:?}");
                self.cards.insert(job, card);
                return self.put(job);
            }
            (11, _) => {
                let newer = (card.newer.is_none() && self.dice.one_in(2)).then(|| "x".to_string());
                self.why = format!("job {job} is a newer program's: {newer:?}");
                self.cards.get_mut(&job).unwrap().newer = newer;
                return self.put(job);
            }
            (12, _) => return self.change_node(),
            (13, _) if self.dice.one_in(2) => return self.change_node(),
            (13, _) => return self.change_partition(),
            (14..=16, _) => {
                self.now +=
                    Duration::from_millis(self.dice.of(&[7, 7, 40, 150, 1900, 60_000, 1_200_000]));
                self.why = "time passes".into();
                return;
            }
            _ => {
                // Tasks take some time, mostly.
                self.now += Duration::from_millis(self.dice.of(&[0, 5, 30]));
                let lines = if card.newer.is_none() { self.report(&card) } else { Vec::new() };
                self.why = format!("job {job}: {lines:?}");
                self.stamp(job, lines);
                return self.put(job);
            }
        };
        if card.newer.is_some() {
            return;
        }
        self.why = format!("job {job}: {change:?}");
        if let Ok(lines) = change.lines(&card, self.now) {
            self.stamp(job, lines);
            self.put(job);
        }
    }

    /// What the poller knows is what is there.
    fn agree(&mut self) {
        let why = &self.why;
        let mut times = BTreeSet::new();
        for job in 1..=self.jobs {
            let card = self.cards.get(&job).filter(|card| card.column() != Column::Done);
            let Some(card) = card else {
                assert!(!self.index.knows(job) && !self.index.ready.has(job), "{job}: {why}");
                continue;
            };
            let known = card.newer.is_none();
            assert_eq!(self.index.is_untouchable(job), !known, "{job}: {why}");
            assert_eq!(self.index.waits(job), known && has_waiting(card), "{job}: {why}");
            let (ready, later) = self.due(card);
            assert_eq!(self.index.ready.has(job), ready > 0, "{card:?}: {why}");
            times.extend(later.into_iter().chain(self.over_at(card)));
            let attempts: Vec<&NodejobId> = self.index.attempts(job).map(|a| &a.id).collect();
            let on_nodes: Vec<&NodejobId> =
                card.with_nodes().filter(|_| known).map(|a| &a.nodejob).collect();
            assert_eq!(attempts, on_nodes, "{job}: {why}");
        }
        assert_eq!(self.index.next_time(), times.first().copied(), "{why}");
        for (name, room) in self.rooms() {
            let known = self.index.rooms.get(&name);
            let known = known.map(|room| (room.open, room.used.cores, room.leaving.cores));
            let (open, used, leaving) = known.unwrap_or_default();
            assert_eq!(
                (open, used, leaving),
                (room.open, room.used, room.leaving),
                "{name}: {why}"
            );
        }
    }

    /// What is over is ended; what a card says of time is taken in.
    fn pass_time(&mut self) {
        for _ in 0..3 {
            let over = self.index.pass_time(self.moment());
            let is_over = |card: &Card| self.over_at(card).is_some_and(|time| time <= self.now);
            let expected: BTreeSet<u64> =
                self.cards.values().filter(|card| is_over(card)).map(Card::job).collect();
            assert_eq!(over.iter().copied().collect::<BTreeSet<_>>(), expected, "{}", self.why);
            if over.is_empty() {
                return;
            }
            for job in over {
                let lines = Change::Expire { now: self.now.into() }
                    .lines(&self.cards[&job], self.now)
                    .unwrap();
                self.stamp(job, lines);
                self.put(job);
            }
        }
        panic!("what is over is not ended: {}", self.why);
    }

    fn place(&mut self) {
        let ahead = if self.dice.one_in(3) { self.dice.below(4) } else { 0 };
        if let Some((name, _)) = self.nodes.iter().find(|_| self.dice.one_in(3)) {
            self.ahead.insert(name.clone(), ahead);
        }
        self.ahead.retain(|name, _| self.nodes.contains_key(name));
        self.ahead.iter().for_each(|(name, ahead)| self.index.rooms.set_ahead(name, *ahead));
        let at_once = self.dice.of(&[1, 3, 100]);
        let (plan, mut aside) = self.plan(at_once);
        let (mut chosen, mut taken) = (Vec::new(), Vec::new());
        while (chosen.len() as u64) < at_once {
            let Some(placed) = self.index.place_next(self.moment()) else { break };
            chosen.push((placed.candidate.job, placed.node.clone()));
            taken.push(placed);
        }
        if self.reservations == 0 {
            assert_eq!(chosen, plan, "{}", self.why);
        } else {
            // Others may be next where something is kept; none of them beyond a cap, or on a node that is not there.
            for (index, (job, node)) in chosen.iter().enumerate() {
                assert!(self.is_let(&self.cards[job], &chosen[..index]), "{job}: {}", self.why);
                assert!(self.nodes[node].takes_jobs(), "{job} on {node}: {}", self.why);
            }
            assert!(!chosen.is_empty() || plan.is_empty() || self.reserved > 0, "{}", self.why);
            aside.clear();
            let kept = self.index.reserve_first(self.moment());
            assert!(kept.len() <= self.reservations, "{kept:?}: {}", self.why);
            for one in &kept {
                assert!(self.index.ready.has(one.job), "{one:?}: {}", self.why);
                assert!(self.nodes[&one.node].takes_jobs(), "{one:?}: {}", self.why);
            }
            self.reserved += kept.len() as u64;
        }
        self.placed += chosen.len() as u64;
        self.aside += aside.len() as u64;
        let open = self.nodes.values().filter(|node| node.takes_jobs());
        let total: u64 =
            open.filter_map(|node| node.resources.as_ref()).map(|total| total.cores).sum();
        for (job, node) in &chosen {
            let card = &self.cards[job];
            let tasks = ranges::next(card, total, &self.now.into());
            if !tasks.is_empty() {
                let line = attempts::place("c", card, &self.nodes[node], tasks);
                self.stamp(*job, vec![line]);
            }
        }
        taken.iter().for_each(|placed| self.index.release(placed));
        for (job, _) in &chosen {
            self.put(*job);
            aside.remove(job);
        }
        let woken = self.index.next_time();
        for (job, until) in aside {
            assert!(woken.is_some_and(|time| time <= until), "{job} is forgotten: {}", self.why);
        }
    }
}

#[test]
fn what_is_known_without_looking_is_what_is_there() {
    histories(0);
}

#[test]
fn so_it_is_where_something_is_kept_for_others() {
    histories(4);
}

fn histories(reservations: usize) {
    let (mut placed, mut aside, mut leaving, mut barred, mut reserved) = (0, 0, 0, 0, 0);
    for seed in 0..200 {
        let mut world = World::new(seed, reservations);
        for step in 0..80 {
            world.step();
            world.why = format!("seed {seed}, step {step}: {}", world.why);
            world.pass_time();
            world.index.take_up();
            world.agree();
            world.place();
            leaving += usize::from(world.rooms().values().any(|room| room.leaving > 0));
            world.pass_time();
            world.index.take_up();
            world.agree();
        }
        placed += world.placed;
        aside += world.aside;
        barred += world.barred;
        reserved += world.reserved;
    }
    let counted = format!(
        "{placed} placed, {aside} set aside, {barred} times one was barred by its partition, {leaving} with room about to be free, {reserved} times one was kept"
    );
    assert!(placed > 1500 && leaving > 10 && barred > 1500, "{counted}");
    assert!(if reservations == 0 { aside > 200 } else { reserved > 500 }, "{counted}");
}
