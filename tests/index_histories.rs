//! What the poller knows of the board without looking, against a slow and obvious model: after each step
//! of a random history the model reads all cards and nodes anew, and sorts.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "common/dice.rs"]
mod dice;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use corkboard::attempts::{self, Said, decide, ranges};
use corkboard::clock;
use corkboard::model::array_changes;
use corkboard::model::card::{Card, Column, Event, State, What};
use corkboard::model::change::Change;
use corkboard::model::ids::NodejobId;
use corkboard::model::node::{DriverKind, Node, NodeState};
use corkboard::model::report::Report;
use corkboard::model::resources::Resources;
use corkboard::model::run_status::RunStatus;
use corkboard::poller::index::{Index, Moment};
use dice::{Dice, USERS};
use serde_json::json;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// A room as the model counts it.
#[derive(Debug, Clone, Copy, Default)]
struct Room {
    open: bool,
    total: u64,
    used: u64,
    leaving: u64,
    ahead: u64,
}

impl Room {
    fn takes(&self, cores: u64, free: bool) -> bool {
        let (leaving, ahead) = if free { (0, 0) } else { (self.leaving, self.ahead) };
        let stays = self.used.saturating_sub(leaving);
        self.open && cores <= self.total && stays + cores <= self.total + ahead * cores
    }

    fn load(&self) -> u64 {
        self.used * 1000 / self.total.max(1)
    }
}

/// A board, nodes, and what the poller knows of them.
struct World {
    dice: Dice,
    begun: Moment,
    now: SystemTime,
    cards: BTreeMap<u64, Card>,
    /// Cards as they were: a power loss, or a hand, may put them back.
    past: Vec<Card>,
    nodes: BTreeMap<String, Node>,
    ahead: BTreeMap<String, u64>,
    index: Index,
    jobs: u64,
    why: String,
    placed: u64,
    aside: u64,
}

impl World {
    fn new(seed: u64) -> World {
        let begun = Moment { time: SystemTime::now(), steady: Instant::now() };
        let mut world = World {
            dice: Dice(seed),
            begun,
            now: begun.time,
            cards: BTreeMap::new(),
            past: Vec::new(),
            nodes: BTreeMap::new(),
            ahead: BTreeMap::new(),
            index: Index::default(),
            jobs: 0,
            why: String::new(),
            placed: 0,
            aside: 0,
        };
        (0..3).for_each(|_| world.change_node());
        world
    }

    fn moment(&self) -> Moment {
        let passed = self.now.duration_since(self.begun.time).unwrap();
        Moment { time: self.now, steady: self.begun.steady + passed }
    }

    fn put(&mut self, job: u64) {
        let now = self.moment();
        match self.cards.get(&job) {
            Some(card) if card.column() != Column::Done => self.index.put(card, now),
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
        if self.dice.one_in(4) {
            request["expires"] = self.dice.of(&["5s", "10m", "3h"]).into();
        }
        if self.dice.one_in(3) {
            request["retry_delay"] = self.dice.of(&["2s", "1h"]).into();
        }
        if self.dice.one_in(5) {
            request["state"] = "held".into();
        }
        let line = json!({"job": self.jobs, "request_id": "r", "at": clock::rfc3339(self.now), "by": "ada", "request": request});
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
        let resources = Resources { cores: 2 + 2 * self.dice.below(3), memory: 0 };
        let node = Node {
            name: name.clone(),
            driver: DriverKind::Local,
            resources: (!self.dice.one_in(6)).then_some(resources),
            drain: self.dice.one_in(5),
            state: if self.dice.one_in(5) { NodeState::Disconnected } else { NodeState::Connected },
            ..Node::localhost()
        };
        self.index.rooms.update(&node);
        self.why = format!("{node:?}");
        self.nodes.insert(name, node);
    }

    /// What a node says of an attempt that it has.
    fn report(&mut self, card: &Card) -> Vec<What> {
        let attempts: Vec<_> = card.with_nodes().collect();
        if attempts.is_empty() {
            return Vec::new();
        }
        let attempt = attempts[self.dice.below(attempts.len() as u64) as usize];
        let id = NodejobId::parse(&attempt.nodejob).unwrap();
        let outcome = self.dice.outcome();
        let mut status = match self.dice.below(3) {
            0 => RunStatus::running(1, 1, "b"),
            _ => RunStatus::stopped(&outcome),
        };
        if card.array.is_some() {
            let mut report = Report::default();
            report.add(&self.dice.some(&attempt.left), &self.dice.outcome());
            status.tasks = Some(report);
        }
        let status = Box::new(status.of(&attempt.nodejob));
        let said = Said { node: attempt.node.clone(), proven: true, status };
        decide(card, &[(id, said)])
    }

    fn step(&mut self) {
        let Some(job) = self.some_job().filter(|_| !self.dice.one_in(6)) else {
            return self.submit();
        };
        let card = self.cards[&job].clone();
        let by = self.dice.of(&USERS).to_string();
        let attempt = card.with_nodes().last().and_then(|a| NodejobId::parse(&a.nodejob));
        let change = match (self.dice.below(20), attempt) {
            (0, _) => Change::Hold { by },
            (1 | 2, _) => Change::Release { by },
            (3, _) => Change::Priority { priority: self.dice.below(5) as i64 - 2, by },
            (4, _) if self.dice.one_in(2) => Change::Kill { tasks: None, by },
            (5, _) if card.array.is_some() => Change::Kill { tasks: Some(self.dice.tasks()), by },
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
            (12 | 13, _) => return self.change_node(),
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

    /// When a job that waits is to be ended or settled.
    fn over_at(&self, card: &Card) -> Option<SystemTime> {
        if card.newer.is_some() || !has_waiting(card) {
            return None;
        }
        match array_changes::is_unsettled(card) {
            true => Some(SystemTime::UNIX_EPOCH),
            false => card.expires_at(),
        }
    }

    /// How many attempts of a job may be placed now; or else from when on some may.
    fn due(&self, card: &Card) -> (u64, Option<SystemTime>) {
        let is_over = self.over_at(card).is_some_and(|time| time <= self.now);
        if card.newer.is_some() || !has_waiting(card) || is_over {
            return (0, None);
        }
        let Some(array) = &card.array else {
            let until = card.not_before.and_then(|wait| wait.goes_on(self.now));
            return match card.state {
                State::Queued => (u64::from(until.is_none()), until),
                _ => (0, None),
            };
        };
        let out = card.with_nodes().count() as u64;
        let left = array.spec.at_once.map_or(u64::MAX, |most| most.saturating_sub(out));
        if array.held || left == 0 {
            return (0, None);
        }
        match array.ready(self.now).len() {
            0 => (0, array.next_time(self.now)),
            ready => (left.min(ready), None),
        }
    }

    fn rooms(&self) -> BTreeMap<String, Room> {
        let mut rooms: BTreeMap<String, Room> = BTreeMap::new();
        for (name, node) in &self.nodes {
            let total = node.resources.map_or(0, |total| total.cores);
            let ahead = self.ahead.get(name).copied().unwrap_or(0);
            let room = Room { open: node.takes_jobs(), total, ahead, ..Room::default() };
            rooms.insert(name.clone(), room);
        }
        for card in self.cards.values() {
            let cores = card.spec.resources.cores;
            for attempt in card.with_nodes() {
                let room = rooms.entry(attempt.node.clone()).or_default();
                room.used += cores;
                let is_leaving = ranges::nearly_done_for(card, attempt, self.now).is_some();
                room.leaving += if is_leaving && card.newer.is_none() { cores } else { 0 };
            }
        }
        rooms
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
            let attempts: Vec<&String> = self.index.attempts(job).map(|a| &a.id).collect();
            let on_nodes: Vec<&String> =
                card.with_nodes().filter(|_| known).map(|a| &a.nodejob).collect();
            assert_eq!(attempts, on_nodes, "{job}: {why}");
        }
        assert_eq!(self.index.next_time(), times.first().copied(), "{why}");
        for (name, room) in self.rooms() {
            let known = self.index.rooms.get(&name).copied();
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
                let lines = Change::Expire.lines(&self.cards[&job], self.now).unwrap();
                self.stamp(job, lines);
                self.put(job);
            }
        }
        panic!("what is over is not ended: {}", self.why);
    }

    /// The node for a job, if one has room.
    fn choose(rooms: &BTreeMap<String, Room>, card: &Card) -> Option<String> {
        let cores = card.spec.resources.cores;
        let avoid = card.nodes_to_avoid();
        let turns = [(false, true), (false, false), (true, true), (true, false)];
        turns.into_iter().find_map(|(avoided, free)| {
            let fit = rooms.iter().filter(|(name, room)| {
                avoid.contains(&name.as_str()) == avoided && room.takes(cores, free)
            });
            fit.map(|(name, room)| (room.load(), name)).min().map(|(_, name)| name.clone())
        })
    }

    /// The next placements, and the jobs that only nodes could have that would not have them.
    fn plan(&self, at_once: u64) -> (Vec<(u64, String)>, BTreeMap<u64, SystemTime>) {
        let mut left: BTreeMap<u64, u64> = BTreeMap::new();
        left.extend(self.cards.iter().map(|(job, card)| (*job, self.due(card).0)));
        let (mut rooms, mut plan, mut aside) = (self.rooms(), Vec::new(), BTreeMap::new());
        while (plan.len() as u64) < at_once {
            let mut turns: Vec<&Card> = self.cards.values().collect();
            turns.retain(|card| left[&card.job()] > 0);
            turns.sort_by_key(|card| (Reverse(card.priority), card.job()));
            let fits = |card: &&Card| Some((card.job(), World::choose(&rooms, card)?));
            let Some((job, node)) = turns.iter().find_map(fits) else { break };
            let array = self.cards[&job].array.as_ref();
            if let Some(until) = array.and_then(|array| array.refused_until(&node, self.now)) {
                left.insert(job, 0);
                aside.insert(job, until);
                continue;
            }
            *left.get_mut(&job).unwrap() -= 1;
            rooms.get_mut(&node).unwrap().used += self.cards[&job].spec.resources.cores;
            plan.push((job, node));
        }
        (plan, aside)
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
        let mut chosen = Vec::new();
        while (chosen.len() as u64) < at_once {
            let Some((candidate, node)) = self.index.place_next(self.now) else { break };
            chosen.push((candidate.job, node));
        }
        assert_eq!(chosen, plan, "{}", self.why);
        self.placed += chosen.len() as u64;
        self.aside += aside.len() as u64;
        let open = self.nodes.values().filter(|node| node.takes_jobs());
        let total: u64 = open.filter_map(|node| node.resources).map(|total| total.cores).sum();
        for (job, node) in &chosen {
            let card = &self.cards[job];
            let tasks = card.array.as_ref().map(|_| ranges::next(card, total, self.now));
            if tasks.as_ref().is_none_or(|tasks| !tasks.is_empty()) {
                let line = attempts::place("c", card, &self.nodes[node], tasks);
                self.stamp(*job, vec![line]);
            }
        }
        for (job, node) in &chosen {
            self.index.rooms.give_back(node, &self.cards[job].spec.resources);
        }
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

/// Whether any of a job waits.
fn has_waiting(card: &Card) -> bool {
    match card.column() {
        Column::Queue => true,
        Column::Running => card.array.as_ref().is_some_and(|array| !array.waiting.is_empty()),
        Column::Done => false,
    }
}

#[test]
fn what_is_known_without_looking_is_what_is_there() {
    let (mut placed, mut aside, mut leaving) = (0, 0, 0);
    for seed in 0..150 {
        let mut world = World::new(seed);
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
    }
    let counted =
        format!("{placed} placed, {aside} set aside, {leaving} with room about to be free");
    assert!(placed > 1500 && aside > 200 && leaving > 10, "{counted}");
}
