//! What the engine knows of the board without looking: the waiting jobs that may be placed, and
//! those that a node has. A copy, made from the cards and thrown away with the process.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::on_node::OnNode;
use crate::attempts::{lasting, ranges};
use crate::clock::{Present, Wait};
use crate::model::card::{Attempt, Card, State};
use crate::model::ids::NodejobId;
use crate::model::partition::Partition;
use crate::model::resources::Resources;
use crate::model::waits::Waits;
use crate::placement::ends::{Millis, NEVER};
use crate::placement::{Candidate, Cap, Placed, Ready, Rooms, Rules};
use crate::settings::Settings;
use crate::strategy::Strategy;

/// The present, by the clock and by what goes on steadily.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// What the clock says.
    pub time: SystemTime,
    /// What nobody sets.
    pub steady: Instant,
}

impl Moment {
    /// This one.
    pub fn now() -> Moment {
        Moment { time: SystemTime::now(), steady: Instant::now() }
    }
}

/// A node, or a part of it, that is kept for a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reserved {
    /// The job.
    pub job: u64,
    /// The node.
    pub node: String,
    /// When there will be room for it, if all that is there lasts as long as it may; where that is known.
    pub until: Option<SystemTime>,
}

/// A time from which others are counted.
#[derive(Debug)]
struct Origin(Instant);

impl Default for Origin {
    fn default() -> Origin {
        Origin(Instant::now())
    }
}

fn whole_millis(duration: Duration) -> Millis {
    u64::try_from(duration.as_millis()).unwrap_or(NEVER)
}

/// A job that waits, all of it or some of its tasks.
#[derive(Debug)]
struct Waiting {
    not_before: Option<SystemTime>,
    /// See [`Card::over_at`].
    over_at: Option<SystemTime>,
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
    over: BTreeSet<(SystemTime, u64)>,
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
    /// Where a job does not say which of the nodes that have room it is to be given.
    strategy: Strategy,
    /// Where a job does not say what it gets between SIGTERM and SIGKILL.
    grace: Duration,
    /// From when the time of placement is counted.
    origin: Origin,
    /// Whose jobs waited, and for which partitions.
    names: HashSet<Arc<str>>,
    /// What was done to the clock, as was last looked.
    clock: Option<Present>,
}

impl Index {
    /// An empty one.
    pub fn with(settings: &Settings) -> Index {
        Index {
            strategy: settings.placement,
            grace: settings.default_grace,
            ready: Ready::with(Cap::of(settings), settings.reservations),
            ..Index::default()
        }
    }

    /// Takes in a card as it is now, with the user whose job it is.
    pub fn put(&mut self, card: &Card, owner: Option<&str>, now: Moment) {
        let before: Vec<OnNode> =
            self.attempts_mut(card.job()).map(|known| known.clone()).collect();
        self.remove(card.job());
        if card.newer.is_some() {
            let rooms = card.with_nodes().map(|a| (a.node.clone(), card.spec.resources.clone()));
            let rooms: Vec<(String, Resources)> = rooms.collect();
            rooms.iter().for_each(|(node, resources)| self.rooms.take(node, resources, NEVER));
            self.untouchable.insert(card.job(), rooms);
            return;
        }
        let owner = owner.map(|owner| self.text(owner));
        if card.is_waiting() {
            self.put_waiting(card, owner.as_ref(), now.time);
        }
        for attempt in card.with_nodes() {
            let before = before.iter().find(|known| known.id == attempt.nodejob);
            self.put_on_node(card, attempt, (before, owner.clone()), now);
        }
    }

    fn put_waiting(&mut self, card: &Card, owner: Option<&Arc<str>>, now: SystemTime) {
        let (job, now) = (card.job(), &self.present(now));
        let over_at = card.over_at(now);
        self.over.extend(over_at.map(|time| (time, job)));
        let (may_be_placed, not_before, more) = match card.waits(now) {
            Waits::ForNode(attempts) => (true, None, attempts.saturating_sub(1)),
            Waits::Until(time) => (true, Some(time), 0),
            // Each of these ends with a line on the card, with which it is taken in again; or at `over_at`.
            Waits::Held | Waits::Crowded(_) | Waits::Over | Waits::Not | Waits::Untouchable => {
                (false, None, 0)
            }
        };
        if may_be_placed {
            let candidate = Candidate {
                job,
                priority: card.priority,
                owner: owner.cloned(),
                partition: card.spec.partition.as_deref().map(|name| self.text(name)),
                resources: card.spec.resources.clone(),
                lasts: lasting::next(card, self.grace).map_or(NEVER, whole_millis),
                selector: card.spec.selector.clone(),
                strategy: card.spec.strategy.unwrap_or(self.strategy),
                avoid: card.nodes_to_avoid().into_iter().map(str::to_string).collect(),
                more,
            };
            match not_before {
                Some(time) => _ = self.later.insert((time, job), candidate),
                None => self.ready.insert(&mut self.rooms, candidate),
            }
        }
        self.waiting.insert(job, Waiting { not_before, over_at, length: card.length });
        if !card.tasks.refused.is_empty() {
            self.refused.insert(job, card.tasks.refused.clone());
        }
    }

    /// What was done to the clock: jobs are taken in by that from now on.
    pub fn set_clock(&mut self, present: Present) {
        self.clock = Some(present);
    }

    /// The present, if the clock says this.
    pub fn present(&self, now: SystemTime) -> Present {
        self.clock.as_ref().map_or_else(|| now.into(), |known| known.at(now))
    }

    /// One text for each user and partition, however many jobs wait.
    fn text(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return known.clone();
        }
        if self.names.len() >= 64 && self.names.len().is_power_of_two() {
            self.names.retain(|name| Arc::strong_count(name) > 1); // the others have nothing here
        }
        let new: Arc<str> = name.into();
        self.names.insert(new.clone());
        new
    }

    /// By whose rules jobs of this partition are placed; `None`: none is.
    pub fn set_partition(&mut self, name: &str, partition: Option<&Partition>) {
        let name = self.text(name);
        self.ready.set_partition(&mut self.rooms, &name, partition.map(Rules::of));
    }

    /// The next placement, if there is one: the job is taken out, unless more of it may be placed, and
    /// the room is used up until [`Rooms::give_back`] is called. An array for which only nodes have room
    /// that would not have it is set aside.
    pub fn place_next(&mut self, now: Moment) -> Option<Placed> {
        self.rooms.set_now(self.millis(now.steady));
        loop {
            let placed = self.ready.place_next(&mut self.rooms)?;
            let candidate = &placed.candidate;
            if let Some(until) = self.refused_until(candidate.job, &placed.node, now.time) {
                self.release(&placed);
                self.set_aside(placed.candidate, until);
                continue;
            }
            if candidate.more > 0 {
                let rest = Candidate { more: candidate.more - 1, ..candidate.clone() };
                self.ready.insert(&mut self.rooms, rest);
            }
            return Some(placed);
        }
    }

    /// What is reserved for the first jobs that fit nowhere now: the job, the node, and when there will be room,
    /// where that is known.
    pub fn reserve_first(&mut self, now: Moment) -> Vec<Reserved> {
        let from = self.millis(now.steady);
        self.rooms.set_now(from);
        self.ready.reserve_first(&mut self.rooms);
        let until =
            |until: Millis| now.time.checked_add(Duration::from_millis(until.saturating_sub(from)));
        let reserved = self.rooms.reserved().map(|(job, node, at)| Reserved {
            job,
            node: node.to_string(),
            until: at.and_then(until),
        });
        reserved.collect()
    }

    /// Whether some node may have room of which nobody has been told yet.
    pub fn has_grown(&self) -> bool {
        self.rooms.has_grown()
    }

    fn millis(&self, steady: Instant) -> Millis {
        whole_millis(steady.saturating_duration_since(self.origin.0))
    }

    /// What [`Index::place_next`] has taken up for a job is free again: the job is not placed, or its card says by
    /// now that it is.
    pub fn release(&mut self, Placed { candidate, node, until }: &Placed) {
        self.rooms.give_back(node, &candidate.resources, *until);
        let (owner, partition) = (candidate.owner.as_ref(), candidate.partition.as_ref());
        self.ready.discharge(owner, partition, &candidate.resources);
    }

    /// Until when nothing of this job is placed on this node, which would not have it.
    fn refused_until(&self, job: u64, node: &str, now: SystemTime) -> Option<SystemTime> {
        self.refused.get(&job)?.get(node)?.goes_on(now)
    }

    /// Puts an array back that was taken out to be placed, since only a node has room that would
    /// not have it until then. Others may have room before: see [`Index::take_up`].
    fn set_aside(&mut self, candidate: Candidate, until: SystemTime) {
        if self.waiting.contains_key(&candidate.job) {
            self.aside.insert(candidate.job, (until, candidate));
        }
    }

    /// Makes arrays ready again that were set aside: it may be another node now that has room.
    pub fn take_up(&mut self) {
        for (_, candidate) in std::mem::take(&mut self.aside).into_values() {
            self.ready.insert(&mut self.rooms, candidate);
        }
    }

    /// Puts a job back that was taken out to be placed and was not, unless it has gone.
    pub fn put_back(&mut self, candidate: Candidate) {
        let waits = self.waiting.get(&candidate.job).is_some_and(|w| w.not_before.is_none());
        if waits && !self.ready.has(candidate.job) {
            self.ready.insert(&mut self.rooms, candidate);
        }
    }

    fn put_on_node(
        &mut self,
        card: &Card,
        attempt: &Attempt,
        (before, owner): (Option<&OnNode>, Option<Arc<str>>),
        now: Moment,
    ) {
        let resources = card.spec.resources.clone();
        let rest = lasting::rest(card, attempt, &self.present(now.time), self.grace);
        let until = rest.map_or(NEVER, |rest| self.millis(now.steady + rest));
        self.rooms.take(&attempt.node, &resources, until);
        let partition = card.spec.partition.as_deref().map(|name| self.text(name));
        self.ready.charge(owner.as_ref(), partition.as_ref(), &resources);
        let nearly_done = ranges::nearly_done_for(card, attempt, now.time);
        let leaving = nearly_done.map(|rest| now.steady + rest);
        if let Some(until) = leaving {
            self.rooms.leave(&attempt.node, &resources);
            self.leaving.insert((until, card.job(), attempt.attempt));
        }
        let known = OnNode::of(card, attempt, before, leaving);
        let known = OnNode { owner, partition, until, ..known };
        if known.state != State::Placed {
            self.ready.note_running(known.owner.as_ref(), &resources, true);
        }
        self.on_node.insert((card.job(), attempt.attempt), known);
    }

    /// Forgets a job.
    pub fn remove(&mut self, job: u64) {
        for (node, resources) in self.untouchable.remove(&job).into_iter().flatten() {
            self.rooms.give_back(&node, &resources, NEVER);
        }
        if let Some(Waiting { not_before, over_at, .. }) = self.waiting.remove(&job) {
            self.refused.remove(&job);
            self.aside.remove(&job);
            self.ready.remove(job);
            if let Some(time) = not_before {
                self.later.remove(&(time, job));
            }
            if let Some(time) = over_at {
                self.over.remove(&(time, job));
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
                self.rooms.give_back(&known.node, &known.resources, known.until);
                let (owner, partition) = (known.owner.as_ref(), known.partition.as_ref());
                self.ready.discharge(owner, partition, &known.resources);
                if known.state != State::Placed {
                    self.ready.note_running(known.owner.as_ref(), &known.resources, false);
                }
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
    /// by now, and names jobs that are to be ended or settled: see [`Card::over_at`].
    pub fn pass_time(&mut self, now: Moment) -> Vec<u64> {
        let Moment { time: now, steady } = now;
        while self.leaving.first().is_some_and(|(until, ..)| *until <= steady) {
            let Some((_, job, attempt)) = self.leaving.pop_first() else { break };
            self.count_again(job, attempt);
        }
        while let Some(entry) = self.later.first_entry().filter(|entry| entry.key().0 <= now) {
            let candidate = entry.remove();
            if let Some(waiting) = self.waiting.get_mut(&candidate.job) {
                waiting.not_before = None;
            }
            self.ready.insert(&mut self.rooms, candidate);
        }
        self.over.iter().take_while(|(time, _)| *time <= now).map(|(_, job)| *job).collect()
    }

    /// When [`Index::pass_time`] next has something to do.
    pub fn next_time(&self) -> Option<SystemTime> {
        let later = self.later.first_key_value().map(|((time, _), _)| *time);
        let over = self.over.first().map(|(time, _)| *time);
        let aside = self.aside.values().map(|(time, _)| *time).min();
        [later, over, aside].into_iter().flatten().min()
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
        (known.id == *id).then_some(known)
    }

    /// The same, to note something.
    pub fn on_node_mut(&mut self, id: &NodejobId) -> Option<&mut OnNode> {
        let known = self.on_node.get_mut(&(id.job, id.attempt))?;
        (known.id == *id).then_some(known)
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
