//! The jobs that may be placed, and which of them is next.
//!
//! Jobs that ask for the same are of a kind, and only the first of each kind is looked at. A kind
//! that no room takes is blocked: it lies in the plane of cores and memory until a room has grown.
//! Such a room looks for the first of the blocked kinds that it takes, and may wait with that as
//! its hope while other rooms' turns come before: hopes are never too late, for a kind that becomes
//! blocked fits no room at that time, and one whose first job comes earlier than before is not
//! blocked any more. Whatever else changes is found when a hope's turn comes.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::Candidate;
use super::kdtree::{Point, Tree};
use super::rooms::Rooms;
use crate::model::resources::Resources;

/// The order in which jobs are placed: higher priority, then lower number.
type Turn = (Reverse<i64>, u64);

/// Before every other.
const AT_ONCE: Turn = (Reverse(i64::MAX), 0);

/// Jobs that ask for the same.
#[derive(Debug)]
struct Kind {
    first: Turn,
    others: BTreeSet<Turn>,
    /// No room takes it, but for those that have grown since and are in [`Ready::hopes`].
    blocked: bool,
}

/// Jobs that may be placed now, by what they ask for.
#[derive(Debug, Default)]
pub struct Ready {
    candidates: HashMap<u64, Candidate>,
    kinds: HashMap<Resources, Kind>,
    /// The first of each kind that some node may have room for.
    heads: BTreeSet<(Turn, Resources)>,
    /// The first of each blocked kind, by what it asks for.
    blocked: Tree<2, Turn>,
    /// Rooms that may take a blocked kind. None of those that fit comes before this turn.
    hopes: BTreeSet<(Turn, Arc<str>)>,
}

impl Ready {
    /// Adds a job, or replaces what is known of it.
    pub fn insert(&mut self, candidate: Candidate) {
        self.remove(candidate.job);
        let resources = candidate.resources;
        let turn = (Reverse(candidate.priority), candidate.job);
        self.candidates.insert(candidate.job, candidate);
        match self.kinds.get_mut(&resources) {
            None => {
                let kind = Kind { first: turn, others: BTreeSet::new(), blocked: false };
                self.kinds.insert(resources, kind);
            }
            Some(kind) if kind.first < turn => {
                kind.others.insert(turn);
                return;
            }
            Some(kind) => {
                // The hopes do not know how early this one is: it is looked at by itself.
                let blocked = std::mem::replace(&mut kind.blocked, false);
                let second = std::mem::replace(&mut kind.first, turn);
                kind.others.insert(second);
                self.unlist(&resources, second, blocked);
            }
        }
        self.list(&resources, turn, false);
    }

    /// Takes a job out; `None` if it was not there.
    pub fn remove(&mut self, job: u64) -> Option<Candidate> {
        let candidate = self.candidates.remove(&job)?;
        let turn = (Reverse(candidate.priority), job);
        let resources = candidate.resources;
        let kind = self.kinds.get_mut(&resources)?;
        if kind.first != turn {
            kind.others.remove(&turn);
            return Some(candidate);
        }
        let blocked = kind.blocked;
        match kind.others.pop_first() {
            Some(second) => {
                kind.first = second;
                self.list(&resources, second, blocked);
            }
            None => {
                self.kinds.remove(&resources);
            }
        }
        self.unlist(&resources, turn, blocked);
        Some(candidate)
    }

    /// Puts the first of a kind where it belongs.
    fn list(&mut self, resources: &Resources, first: Turn, blocked: bool) {
        if blocked {
            self.blocked.insert(point(resources), first);
        } else {
            self.heads.insert((first, *resources));
        }
    }

    /// Undoes [`Ready::list`].
    fn unlist(&mut self, resources: &Resources, first: Turn, blocked: bool) {
        if blocked {
            self.blocked.remove(point(resources), first);
        } else {
            self.heads.remove(&(first, *resources));
        }
    }

    /// No room takes this kind.
    fn block(&mut self, resources: &Resources) {
        let Some(kind) = self.kinds.get_mut(resources) else { return };
        let first = kind.first;
        let blocked = std::mem::replace(&mut kind.blocked, true);
        self.unlist(resources, first, blocked);
        self.list(resources, first, true);
    }

    /// Whether this job may be placed.
    pub fn has(&self, job: u64) -> bool {
        self.candidates.contains_key(&job)
    }

    /// How many jobs may be placed.
    pub fn len(&self) -> usize {
        self.candidates.len()
    }

    /// Whether none may.
    pub fn is_empty(&self) -> bool {
        self.candidates.is_empty()
    }

    /// The next placement, if there is one: the job is taken out, the node's room is used up.
    pub fn place_next(&mut self, rooms: &mut Rooms) -> Option<(Candidate, String)> {
        if self.blocked.is_empty() {
            rooms.forget_grown();
        } else {
            self.hopes.extend(rooms.take_grown().map(|name| (AT_ONCE, name)));
        }
        loop {
            let hope = self.take_hope(rooms);
            let head = || self.heads.first().map(|(turn, _)| *turn);
            let (_, job) = hope.as_ref().map(|(turn, _)| *turn).or_else(head)?;
            let candidate = self.candidates.get(&job)?;
            let resources = candidate.resources;
            if let Some(node) = rooms.choose(&resources, &candidate.avoid) {
                self.hopes.extend(hope); // its room may do for another one
                rooms.take(&node, &resources);
                return Some((self.remove(job)?, node));
            }
            if hope.is_none() {
                self.block(&resources);
            }
        }
    }

    /// The first of the blocked jobs that a grown room takes, if it comes before all that are not
    /// blocked, and the room, which is taken out of the hopes. Rooms for which there is no hope are
    /// forgotten.
    fn take_hope(&mut self, rooms: &Rooms) -> Option<(Turn, Arc<str>)> {
        let head = self.heads.first().map(|(turn, _)| *turn);
        loop {
            if self.hopes.first().is_none_or(|(turn, _)| head.is_some_and(|head| head < *turn)) {
                return None;
            }
            let (turn, name) = self.hopes.pop_first()?;
            let Some(room) = rooms.get(&name) else { continue };
            let still = self.candidates.get(&turn.1).is_some_and(|candidate| {
                candidate.priority == turn.0.0 && room.takes(&candidate.resources)
            });
            let search = || self.blocked.first(&room.window()?);
            let Some(first) = still.then_some(turn).or_else(search) else { continue };
            let others = self.hopes.first().map(|(turn, _)| *turn);
            if [head, others].into_iter().flatten().all(|other| first <= other) {
                return Some((first, name));
            }
            self.hopes.insert((first, name));
        }
    }
}

fn point(resources: &Resources) -> Point<2> {
    [resources.cores, resources.memory]
}
