//! What the engine knows of the board without looking: the waiting jobs that may be placed, and
//! those that a node has. A copy, made from the cards and thrown away with the process.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant, SystemTime};

use crate::attempts::kills::{self, KillOrder};
use crate::attempts::ranges;
use crate::clock::Wait;
use crate::model::array_changes;
use crate::model::card::{Attempt, Card, Column, State};
use crate::model::ids::NodejobId;
use crate::model::node::Address;
use crate::model::resources::Resources;
use crate::placement::{Candidate, Ready, Rooms};

impl OnNode {
    /// What its node is to be told to kill and has not been told, as far as this poller knows.
    pub fn to_kill(&self) -> Option<&KillOrder> {
        let told = |kill: &&KillOrder| match (&self.killed, &kill.tasks) {
            (None, _) => false,
            (Some(KillOrder { tasks: None, .. }), _) => true,
            (Some(_), None) => false,
            (Some(KillOrder { tasks: Some(killed), .. }), Some(tasks)) => {
                killed.contains_all(tasks)
            }
        };
        self.kills.iter().find(|kill| !told(kill))
    }

    /// Whether there was but one request to start it, at most: once that is answered, nothing can
    /// arrive any more.
    pub fn was_sent_once(&self) -> bool {
        self.stamped_here && self.sends <= 1
    }

    /// Notes that its node is being told.
    pub fn note_killed(&mut self, kill: &KillOrder) {
        match (&mut self.killed, &kill.tasks) {
            (Some(KillOrder { tasks: Some(killed), .. }), Some(tasks)) => killed.add(tasks),
            _ => self.killed = Some(kill.clone()),
        }
    }
}

/// A placed attempt that its node would not have, or cannot be sent, while an earlier request to
/// start it may still be under way. Nothing but the node's durable word ends it: that it is there,
/// or that it never will be. Asked for that it may refuse or be unable to give it.
#[derive(Debug, Clone)]
pub struct Unsure {
    /// What the node said first, or why it cannot be sent.
    pub why: String,
    /// How often the node was asked for its word.
    pub asked: u32,
    /// It is not asked again before.
    pub ask_at: Instant,
}

/// An attempt that a node has: a job, or a range of an array's tasks.
#[derive(Debug, Clone)]
pub struct OnNode {
    /// The node's name.
    pub node: String,
    /// The attempt's id there.
    pub id: String,
    /// What it is given.
    pub resources: Resources,
    /// Until when it is taken to end so soon that its node may be sent another.
    leaving: Option<Instant>,
    /// Placed, running or stopping.
    pub state: State,
    /// The length of its card.
    pub length: u64,
    /// Between SIGTERM and SIGKILL, where the job says.
    pub grace: Option<Duration>,
    /// What of it is to be killed: all of it, or tasks of a range, for each who asked.
    pub kills: Vec<KillOrder>,
    /// What its node has been told to kill, by whoever asked, as far as this poller knows.
    pub killed: Option<KillOrder>,
    /// Where its node was when it was placed.
    pub address: Address,
    /// How many requests to start it there this process has made...
    pub sends: u32,
    /// ...and whether there can be no others: this process has placed it. See
    /// [`OnNode::was_sent_once`].
    pub stamped_here: bool,
    /// Its node is to say for good that it has not got it.
    pub unsure: Option<Unsure>,
    /// What its card tells about that.
    pub trouble: Option<String>,
    /// How often in a row a kill was not carried out.
    pub failed_kills: u32,
    /// How often in a row nobody knows whether sending it arrived.
    pub failed_sends: u32,
    /// Not to be sent again before.
    pub send_at: Option<Instant>,
    /// It is being sent, with files, and will be told of by then: meanwhile nobody asks whether it is
    /// there, for the answer could be older than what became of that.
    pub sending_until: Option<Instant>,
    /// Since when its node says that it does not know it.
    pub unknown_since: Option<Instant>,
}

/// A job that waits, all of it or some of its tasks.
#[derive(Debug)]
struct Waiting {
    not_before: Option<SystemTime>,
    expires: Option<SystemTime>,
    /// The length of its card.
    length: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Index {
    /// Jobs that may be placed now.
    pub ready: Ready,
    /// What the nodes have room for.
    pub rooms: Rooms,
    waiting: HashMap<u64, Waiting>,
    later: BTreeMap<(SystemTime, u64), Candidate>,
    expiring: BTreeSet<(SystemTime, u64)>,
    /// Arrays, with the nodes that would not have their ranges.
    refused: HashMap<u64, BTreeMap<String, Wait>>,
    /// Arrays for which only nodes have room that would not have them, and until when.
    aside: BTreeMap<u64, (SystemTime, Candidate)>,
    on_node: BTreeMap<(u64, u32), OnNode>,
    /// Those of them with a time in [`OnNode::leaving`].
    leaving: BTreeSet<(Instant, u64, u32)>,
    /// Jobs whose cards a newer program wrote: nothing is done about them. Their attempts go on,
    /// and take the room that they take.
    untouchable: HashMap<u64, Vec<(String, Resources)>>,
}

impl Index {
    /// Takes in a card as it is now.
    pub fn put(&mut self, card: &Card) {
        let before: Vec<OnNode> =
            self.attempts_mut(card.job()).map(|known| known.clone()).collect();
        self.remove(card.job());
        if card.newer.is_some() {
            let rooms = card.with_nodes().map(|a| (a.node.clone(), card.spec.resources));
            let rooms: Vec<(String, Resources)> = rooms.collect();
            rooms.iter().for_each(|(node, resources)| self.rooms.take(node, resources));
            self.untouchable.insert(card.job(), rooms);
            return;
        }
        let now = SystemTime::now();
        if card.column() == Column::Queue || ranges::may_continue(card) {
            self.put_waiting(card, now);
        }
        for attempt in card.with_nodes() {
            let before = before.iter().find(|known| known.id == attempt.nodejob);
            self.put_on_node(card, attempt, before);
        }
    }

    fn put_waiting(&mut self, card: &Card, now: SystemTime) {
        let job = card.job();
        let expires = match array_changes::is_unsettled(card) {
            true => Some(SystemTime::UNIX_EPOCH),
            false => card.expires_at(),
        };
        if let Some(time) = expires {
            self.expiring.insert((time, job));
        }
        let ranges = ranges::placeable(card, now);
        let next_ranges = card.array.as_ref().and_then(|array| array.next_time(now));
        let mut not_before = card.not_before.and_then(|wait| wait.goes_on(now));
        if ranges == 0 {
            not_before = not_before.max(next_ranges);
        }
        let may_be_placed = match &card.array {
            None => card.state == State::Queued,
            Some(_) => ranges > 0 || not_before.is_some(),
        };
        if may_be_placed {
            let candidate = Candidate {
                job,
                priority: card.priority,
                resources: card.spec.resources,
                avoid: card.nodes_to_avoid().into_iter().map(str::to_string).collect(),
                more: ranges.saturating_sub(1),
            };
            match not_before {
                Some(time) => {
                    self.later.insert((time, job), candidate);
                }
                None => self.ready.insert(candidate),
            }
        } else {
            not_before = None;
        }
        self.waiting.insert(job, Waiting { not_before, expires, length: card.length });
        if let Some(array) = card.array.as_ref().filter(|array| !array.refused.is_empty()) {
            self.refused.insert(job, array.refused.clone());
        }
    }

    /// Until when nothing of this job is placed on this node, which would not have it.
    pub fn refused_until(&self, job: u64, node: &str) -> Option<SystemTime> {
        self.refused.get(&job)?.get(node)?.goes_on(SystemTime::now())
    }

    /// Puts an array back that was taken out to be placed, since only a node has room that would
    /// not have it until then. Others may have room before: see [`Index::take_up`].
    pub fn set_aside(&mut self, candidate: Candidate, until: SystemTime) {
        if self.waiting.contains_key(&candidate.job) {
            self.aside.insert(candidate.job, (until, candidate));
        }
    }

    /// Makes arrays ready again that were set aside: it may be another node now that has room.
    pub fn take_up(&mut self) {
        for (_, candidate) in std::mem::take(&mut self.aside).into_values() {
            self.ready.insert(candidate);
        }
    }

    /// Puts a job back that was taken out to be placed and was not, unless it has gone.
    pub fn put_back(&mut self, candidate: Candidate) {
        let waits = self.waiting.get(&candidate.job).is_some_and(|w| w.not_before.is_none());
        if waits && !self.ready.has(candidate.job) {
            self.ready.insert(candidate);
        }
    }

    fn put_on_node(&mut self, card: &Card, attempt: &Attempt, before: Option<&OnNode>) {
        let resources = card.spec.resources;
        self.rooms.take(&attempt.node, &resources);
        let nearly_done = ranges::nearly_done_for(card, attempt, SystemTime::now());
        let leaving = nearly_done.map(|rest| Instant::now() + rest);
        if let Some(until) = leaving {
            self.rooms.leave(&attempt.node, &resources);
            self.leaving.insert((until, card.job(), attempt.attempt));
        }
        let state = match card.state {
            State::Running if attempt.started_at.is_none() => State::Placed,
            state => state,
        };
        let known = OnNode {
            node: attempt.node.clone(),
            id: attempt.nodejob.clone(),
            resources,
            leaving,
            state,
            length: card.length,
            grace: card.spec.grace,
            kills: kills::wanted(card, attempt),
            killed: before.and_then(|known| known.killed.clone()),
            address: attempt.address(),
            sends: before.map_or(0, |known| known.sends),
            stamped_here: before.is_some_and(|known| known.stamped_here),
            unsure: before.filter(|_| state != State::Running).and_then(|b| b.unsure.clone()),
            failed_kills: before.map_or(0, |known| known.failed_kills),
            trouble: attempt.trouble.clone(),
            failed_sends: before.map_or(0, |known| known.failed_sends),
            send_at: before.and_then(|known| known.send_at),
            sending_until: before.and_then(|known| known.sending_until),
            unknown_since: before.and_then(|known| known.unknown_since),
        };
        self.on_node.insert((card.job(), attempt.attempt), known);
    }

    /// Forgets a job.
    pub fn remove(&mut self, job: u64) {
        for (node, resources) in self.untouchable.remove(&job).into_iter().flatten() {
            self.rooms.give_back(&node, &resources);
        }
        if let Some(Waiting { not_before, expires, .. }) = self.waiting.remove(&job) {
            self.refused.remove(&job);
            self.aside.remove(&job);
            self.ready.remove(job);
            if let Some(time) = not_before {
                self.later.remove(&(time, job));
            }
            if let Some(time) = expires {
                self.expiring.remove(&(time, job));
            }
        }
        let attempts: Vec<u32> = self
            .on_node
            .range((job, 0)..=(job, u32::MAX))
            .map(|((_, attempt), _)| *attempt)
            .collect();
        for attempt in attempts {
            self.count_again(job, attempt);
            if let Some(known) = self.on_node.remove(&(job, attempt)) {
                self.rooms.give_back(&known.node, &known.resources);
            }
        }
    }

    /// An attempt was thought to leave its room soon: that is over.
    fn count_again(&mut self, job: u64, attempt: u32) {
        let Some(known) = self.on_node.get_mut(&(job, attempt)) else { return };
        if let Some(until) = known.leaving.take() {
            self.rooms.stay(&known.node, &known.resources);
            self.leaving.remove(&(until, job, attempt));
        }
    }

    /// Makes jobs ready whose time has come, takes back the room of attempts that should have ended
    /// by now, and names jobs that have expired.
    pub fn pass_time(&mut self, now: SystemTime) -> Vec<u64> {
        while self.leaving.first().is_some_and(|(until, ..)| *until <= Instant::now()) {
            let Some((_, job, attempt)) = self.leaving.pop_first() else { break };
            self.count_again(job, attempt);
        }
        while let Some(entry) = self.later.first_entry().filter(|entry| entry.key().0 <= now) {
            let candidate = entry.remove();
            if let Some(waiting) = self.waiting.get_mut(&candidate.job) {
                waiting.not_before = None;
            }
            self.ready.insert(candidate);
        }
        self.expiring.iter().take_while(|(time, _)| *time <= now).map(|(_, job)| *job).collect()
    }

    /// When [`Index::pass_time`] next has something to do.
    pub fn next_time(&self) -> Option<SystemTime> {
        let later = self.later.first_key_value().map(|((time, _), _)| *time);
        let expiring = self.expiring.first().map(|(time, _)| *time);
        let aside = self.aside.values().map(|(time, _)| *time).min();
        [later, expiring, aside].into_iter().flatten().min()
    }

    /// Whether the job is known to wait or to be with a node.
    pub fn knows(&self, job: u64) -> bool {
        self.waiting.contains_key(&job) || self.any_on_node(job).is_some()
    }

    /// Whether the job, or some of its tasks, is known to wait.
    pub fn waits(&self, job: u64) -> bool {
        self.waiting.contains_key(&job)
    }

    /// Whether a newer program wrote this job's card.
    pub fn is_untouchable(&self, job: u64) -> bool {
        self.untouchable.contains_key(&job)
    }

    /// Jobs whose cards a newer program wrote.
    pub fn untouchable(&self) -> impl Iterator<Item = u64> {
        self.untouchable.keys().copied()
    }

    /// Jobs that wait, each with the length that its card had.
    pub fn waiting(&self) -> impl Iterator<Item = (u64, u64)> {
        self.waiting.iter().map(|(job, waiting)| (*job, waiting.length))
    }

    /// An attempt that a node has.
    pub fn on_node(&self, id: &NodejobId) -> Option<&OnNode> {
        let known = self.on_node.get(&(id.job, id.attempt))?;
        (known.id == id.to_string()).then_some(known)
    }

    /// The same, to note something.
    pub fn on_node_mut(&mut self, id: &NodejobId) -> Option<&mut OnNode> {
        let known = self.on_node.get_mut(&(id.job, id.attempt))?;
        (known.id == id.to_string()).then_some(known)
    }

    /// An attempt of this job that a node has, if there is one.
    pub fn any_on_node(&self, job: u64) -> Option<&OnNode> {
        self.on_node.range((job, 0)..=(job, u32::MAX)).next().map(|(_, known)| known)
    }

    /// All attempts of this job that nodes have.
    pub fn attempts(&self, job: u64) -> impl Iterator<Item = &OnNode> {
        self.on_node.range((job, 0)..=(job, u32::MAX)).map(|(_, known)| known)
    }

    /// The same, to note something.
    pub fn attempts_mut(&mut self, job: u64) -> impl Iterator<Item = &mut OnNode> {
        self.on_node.range_mut((job, 0)..=(job, u32::MAX)).map(|(_, known)| known)
    }

    /// All attempts that nodes have, with their jobs.
    pub fn on_nodes(&self) -> impl Iterator<Item = (u64, &OnNode)> {
        self.on_node.iter().map(|((job, _), known)| (*job, known))
    }

    /// The same, to note something.
    pub fn on_nodes_mut(&mut self) -> impl Iterator<Item = (u64, &mut OnNode)> {
        self.on_node.iter_mut().map(|((job, _), known)| (*job, known))
    }

    /// Attempts that one node has.
    pub fn on<'a>(&'a self, node: &'a str) -> impl Iterator<Item = (u64, &'a OnNode)> {
        self.on_nodes().filter(move |(_, known)| known.node == node)
    }

    /// How many jobs wait, and how many are with nodes.
    pub fn counts(&self) -> (usize, usize) {
        (self.waiting.len(), self.on_node.len())
    }
}
