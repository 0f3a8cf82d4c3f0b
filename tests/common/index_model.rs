//! What a poller should know of a board, found out the slow and obvious way: by reading all cards and nodes
//! anew, and sorting.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::SystemTime;

use corkboard::attempts::ranges;
use corkboard::model::card::{Card, Column};
use corkboard::model::draft;
use corkboard::model::partition::Partition;

use super::World;

/// A room as the model counts it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Room {
    pub(super) open: bool,
    pub(super) total: u64,
    pub(super) used: u64,
    pub(super) leaving: u64,
    pub(super) ahead: u64,
}

impl Room {
    pub(super) fn takes(&self, cores: u64, free: bool) -> bool {
        let (leaving, ahead) = if free { (0, 0) } else { (self.leaving, self.ahead) };
        let stays = self.used.saturating_sub(leaving);
        self.open && cores <= self.total && stays + cores <= self.total + ahead * cores
    }

    pub(super) fn load(&self) -> u64 {
        self.used * 1000 / self.total.max(1)
    }
}

impl World {
    /// When a job that waits is to be ended or settled.
    pub(super) fn over_at(&self, card: &Card) -> Option<SystemTime> {
        if card.newer.is_some() || !has_waiting(card) {
            return None;
        }
        match draft::is_unsettled(card) {
            true => Some(SystemTime::UNIX_EPOCH),
            false => card.expires_at(&self.now.into()),
        }
    }

    /// How many attempts of a job may be placed now; or else from when on some may.
    pub(super) fn due(&self, card: &Card) -> (u64, Option<SystemTime>) {
        let is_over = self.over_at(card).is_some_and(|time| time <= self.now);
        if card.newer.is_some() || !has_waiting(card) || is_over {
            return (0, None);
        }
        let array = &card.tasks;
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

    pub(super) fn rooms(&self) -> BTreeMap<String, Room> {
        let mut rooms: BTreeMap<String, Room> = BTreeMap::new();
        for (name, node) in &self.nodes {
            let total = node.resources.as_ref().map_or(0, |total| total.cores);
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

    /// The node for a job, if one has room.
    fn choose(&self, rooms: &BTreeMap<String, Room>, card: &Card) -> Option<String> {
        let cores = card.spec.resources.cores;
        let owner = |name: &String| self.nodes.get(name).and_then(|node| node.owner.as_ref());
        let avoid = card.nodes_to_avoid();
        let turns = [(false, true), (false, false), (true, true), (true, false)];
        turns.into_iter().find_map(|(avoided, free)| {
            let fit = rooms.iter().filter(|(name, room)| {
                avoid.contains(&name.as_str()) == avoided
                    && room.takes(cores, free)
                    && owner(name).is_none_or(|owner| *owner == card.accepted.by)
            });
            let within = self.partition(card);
            let fit = fit.filter(|(name, _)| {
                let node = self.nodes.get(*name);
                within.is_none_or(|within| node.is_some_and(|node| within.has(node)))
            });
            fit.map(|(name, room)| (room.load(), name)).min().map(|(_, name)| name.clone())
        })
    }

    fn partition(&self, card: &Card) -> Option<&Partition> {
        self.partitions.get(card.spec.partition.as_ref()?)
    }

    /// Whether the rules of its partition let a job be placed beside these placements.
    pub(super) fn is_let(&self, card: &Card, plan: &[(u64, String)]) -> bool {
        if card.spec.partition.is_none() {
            return true;
        }
        let Some(rules) = self.partition(card) else { return false };
        let all = self.cards.values().filter(|other| other.newer.is_none());
        let all = all.flat_map(|other| other.with_nodes().map(move |_| other));
        let all: Vec<&Card> = all.chain(plan.iter().map(|(job, _)| &self.cards[job])).collect();
        let count = |of_user: bool| {
            let mut used = (1, card.spec.resources.cores);
            for other in &all {
                let same_user = other.accepted.user() == card.accepted.user();
                if other.spec.partition == card.spec.partition && (same_user || !of_user) {
                    used = (used.0 + 1, used.1 + other.spec.resources.cores);
                }
            }
            used
        };
        let within = |used: (u64, u64), jobs: Option<u64>, cores: Option<u64>| {
            jobs.is_none_or(|most| used.0 <= most) && cores.is_none_or(|most| used.1 <= most)
        };
        within(count(false), rules.max_jobs, rules.max_cores)
            && within(count(true), rules.max_jobs_per_user, rules.max_cores_per_user)
    }

    /// The next placements, and the jobs that only nodes could have that would not have them.
    pub(super) fn plan(&mut self, at_once: u64) -> (Vec<(u64, String)>, BTreeMap<u64, SystemTime>) {
        let mut left: BTreeMap<u64, u64> = BTreeMap::new();
        left.extend(self.cards.iter().map(|(job, card)| (*job, self.due(card).0)));
        let (mut rooms, mut aside, mut barred) = (self.rooms(), BTreeMap::new(), 0);
        let mut plan: Vec<(u64, String)> = Vec::new();
        while (plan.len() as u64) < at_once {
            let mut turns: Vec<&Card> = self.cards.values().collect();
            turns.retain(|card| left[&card.job()] > 0);
            let user = |card: &Card| card.accepted.user();
            let cores = |card: &Card| -> u64 {
                // Those of a newer program's cards are nobody's.
                let own = self.cards.values().filter(|other| user(other) == user(card));
                let known = own.clone().filter(|other| other.newer.is_none());
                let placed = plan.iter().filter(|(job, _)| user(&self.cards[job]) == user(card));
                known
                    .map(|card| card.with_nodes().count() as u64 * card.spec.resources.cores)
                    .sum::<u64>()
                    + placed.map(|(job, _)| self.cards[job].spec.resources.cores).sum::<u64>()
            };
            let before = turns.len();
            turns.retain(|card| self.is_let(card, &plan));
            barred += (before - turns.len()) as u64;
            let priority = |card: &Card| {
                card.priority + self.partition(card).map_or(0, |partition| partition.priority)
            };
            turns.sort_by_cached_key(|card| (Reverse(priority(card)), cores(card), card.job()));
            let fits = |card: &&Card| Some((card.job(), self.choose(&rooms, card)?));
            let Some((job, node)) = turns.iter().find_map(fits) else { break };
            if let Some(until) = self.cards[&job].tasks.refused_until(&node, self.now) {
                left.insert(job, 0);
                aside.insert(job, until);
                continue;
            }
            *left.get_mut(&job).unwrap() -= 1;
            rooms.get_mut(&node).unwrap().used += self.cards[&job].spec.resources.cores;
            plan.push((job, node));
        }
        self.barred += barred;
        (plan, aside)
    }
}

/// Whether any of a job waits.
pub(super) fn has_waiting(card: &Card) -> bool {
    match card.column() {
        Column::Queue => true,
        Column::Running => !card.tasks.waiting.is_empty(),
        Column::Done => false,
    }
}
