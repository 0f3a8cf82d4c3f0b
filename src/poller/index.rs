//! What the engine knows of the board without looking: the waiting jobs that may be placed, and
//! those that a node has. A copy, made from the cards and thrown away with the process.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant, SystemTime};

use crate::model::card::{Card, Column, State};
use crate::model::resources::Resources;
use crate::placement::{Candidate, Ready, Rooms};

/// A job that a node has.
#[derive(Debug, Clone)]
pub struct OnNode {
    /// The node's name.
    pub node: String,
    /// The attempt's id there.
    pub id: String,
    /// What it asks for.
    pub resources: Resources,
    /// Placed, running or stopping.
    pub state: State,
    /// The length of its card.
    pub length: u64,
    /// Between SIGTERM and SIGKILL, where the job says.
    pub grace: Option<Duration>,
    /// Who killed it.
    pub stopping_by: Option<String>,
    /// Whether its node has been told to kill it, as far as this poller knows.
    pub kill_sent: bool,
    /// Why the node would not have it, where it said 410: a kill may have come before it.
    pub disputed: Option<String>,
    /// How often in a row nobody knows whether sending it arrived.
    pub failed_sends: u32,
    /// Not to be sent again before.
    pub send_at: Option<Instant>,
    /// Since when its node says that it does not know it.
    pub unknown_since: Option<SystemTime>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Index {
    /// Jobs that may be placed now.
    pub ready: Ready,
    /// What the nodes have room for.
    pub rooms: Rooms,
    waiting: HashMap<u64, (Option<SystemTime>, Option<SystemTime>)>,
    later: BTreeMap<(SystemTime, u64), Candidate>,
    expiring: BTreeSet<(SystemTime, u64)>,
    on_node: HashMap<u64, OnNode>,
}

impl Index {
    /// Takes in a card as it is now.
    pub fn put(&mut self, card: &Card) {
        let job = card.job();
        let before = self.on_node.get(&job).cloned();
        self.remove(job);
        match card.column() {
            Column::Queue => self.put_waiting(card),
            Column::Running => self.put_on_node(card, before),
            Column::Done => {}
        }
    }

    fn put_waiting(&mut self, card: &Card) {
        let job = card.job();
        let expires = card.expires_at();
        if let Some(time) = expires {
            self.expiring.insert((time, job));
        }
        let mut not_before = None;
        if card.state == State::Queued {
            let candidate = Candidate {
                job,
                priority: card.priority,
                resources: card.spec.resources,
                avoid: card.nodes_to_avoid().into_iter().map(str::to_string).collect(),
            };
            match card.not_before.filter(|time| *time > SystemTime::now()) {
                Some(time) => {
                    not_before = Some(time);
                    self.later.insert((time, job), candidate);
                }
                None => self.ready.insert(candidate),
            }
        }
        self.waiting.insert(job, (not_before, expires));
    }

    fn put_on_node(&mut self, card: &Card, before: Option<OnNode>) {
        let Some(attempt) = card.with_node() else { return };
        let before = before.filter(|known| known.id == attempt.nodejob);
        self.rooms.take(&attempt.node, &card.spec.resources);
        let known = OnNode {
            node: attempt.node.clone(),
            id: attempt.nodejob.clone(),
            resources: card.spec.resources,
            state: card.state,
            length: card.length,
            grace: card.spec.grace,
            stopping_by: card.stopping_by.clone(),
            kill_sent: before.as_ref().is_some_and(|known| known.kill_sent),
            disputed: before.as_ref().and_then(|known| known.disputed.clone()),
            failed_sends: before.as_ref().map_or(0, |known| known.failed_sends),
            send_at: before.as_ref().and_then(|known| known.send_at),
            unknown_since: before.and_then(|known| known.unknown_since),
        };
        self.on_node.insert(card.job(), known);
    }

    /// Forgets a job.
    pub fn remove(&mut self, job: u64) {
        if let Some((not_before, expires)) = self.waiting.remove(&job) {
            self.ready.remove(job);
            if let Some(time) = not_before {
                self.later.remove(&(time, job));
            }
            if let Some(time) = expires {
                self.expiring.remove(&(time, job));
            }
        }
        if let Some(known) = self.on_node.remove(&job) {
            self.rooms.give_back(&known.node, &known.resources);
        }
    }

    /// Makes jobs ready whose time has come, and names those that have expired.
    pub fn pass_time(&mut self, now: SystemTime) -> Vec<u64> {
        while let Some(entry) = self.later.first_entry().filter(|entry| entry.key().0 <= now) {
            let candidate = entry.remove();
            if let Some((not_before, _)) = self.waiting.get_mut(&candidate.job) {
                *not_before = None;
            }
            self.ready.insert(candidate);
        }
        self.expiring.iter().take_while(|(time, _)| *time <= now).map(|(_, job)| *job).collect()
    }

    /// When [`Index::pass_time`] next has something to do.
    pub fn next_time(&self) -> Option<SystemTime> {
        let later = self.later.first_key_value().map(|((time, _), _)| *time);
        let expiring = self.expiring.first().map(|(time, _)| *time);
        [later, expiring].into_iter().flatten().min()
    }

    /// Whether the job is known to wait or to be with a node.
    pub fn knows(&self, job: u64) -> bool {
        self.waiting.contains_key(&job) || self.on_node.contains_key(&job)
    }

    /// Jobs that wait.
    pub fn waiting(&self) -> impl Iterator<Item = u64> {
        self.waiting.keys().copied()
    }

    /// A job that a node has.
    pub fn on_node(&self, job: u64) -> Option<&OnNode> {
        self.on_node.get(&job)
    }

    /// The same, to note something.
    pub fn on_node_mut(&mut self, job: u64) -> Option<&mut OnNode> {
        self.on_node.get_mut(&job)
    }

    /// All jobs that nodes have.
    pub fn on_nodes(&self) -> impl Iterator<Item = (u64, &OnNode)> {
        self.on_node.iter().map(|(job, known)| (*job, known))
    }

    /// The same, to note something.
    pub fn on_nodes_mut(&mut self) -> impl Iterator<Item = (u64, &mut OnNode)> {
        self.on_node.iter_mut().map(|(job, known)| (*job, known))
    }

    /// Jobs that one node has.
    pub fn on<'a>(&'a self, node: &'a str) -> impl Iterator<Item = (u64, &'a OnNode)> {
        self.on_nodes().filter(move |(_, known)| known.node == node)
    }

    /// How many jobs wait, and how many are with nodes.
    pub fn counts(&self) -> (usize, usize) {
        (self.waiting.len(), self.on_node.len())
    }
}
