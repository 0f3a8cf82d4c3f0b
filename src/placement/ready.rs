//! The jobs that may be placed, and which of them is next.
//!
//! Jobs that ask for the same are of a kind, and only the first of each kind is looked at. A kind
//! that no room takes is blocked: it lies in the plane of cores and memory until a room has grown.
//! Such a room looks for the first of the blocked kinds that it takes, and may wait with that as
//! its hope while other rooms' turns come before: hopes are never too late, for a kind that becomes
//! blocked fits no room at that time, and one whose first job comes earlier than before is not
//! blocked any more. Whatever else changes is found when a hope's turn comes.
//!
//! Where users have nodes of their own, jobs of theirs are of other kinds than those of everybody
//! else, for which these nodes have no room. A blocked kind of such a user's is found by a grown room
//! of theirs, too. As long as nobody has any there is one kind for each need.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::Candidate;
use super::kdtree::{Point, Tree};
use super::rooms::{Provider, Providers, Room, Rooms};
use super::basic::Basic;

/// The order in which jobs are placed: higher priority, then lower number.
type Turn = (Reverse<i64>, u64);

/// Before every other.
const AT_ONCE: Turn = (Reverse(i64::MAX), 0);

/// What jobs of a kind ask for, and whose they are where that makes a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Ask {
    resources: Basic,
    user: Option<Provider>,
}

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
    kinds: HashMap<Ask, Kind>,
    /// The first of each kind that some node may have room for.
    heads: BTreeSet<(Turn, Ask)>,
    /// The first of each blocked kind, by what it asks for.
    blocked: Tree<2, Turn>,
    /// The same of those of one user's alone, who has nodes.
    blocked_of: HashMap<Provider, Tree<2, Turn>>,
    /// Users of whom it is known that they have nodes.
    providers: Providers,
    /// Rooms that may take a blocked kind. None of those that fit comes before this turn.
    hopes: BTreeSet<(Turn, Arc<str>)>,
}

impl Ready {
    /// Adds a job, or replaces what is known of it.
    pub fn insert(&mut self, candidate: Candidate) {
        self.remove(candidate.job);
        let ask = self.ask(&candidate);
        let turn = (Reverse(candidate.priority), candidate.job);
        self.candidates.insert(candidate.job, candidate);
        match self.kinds.get_mut(&ask) {
            None => {
                let kind = Kind { first: turn, others: BTreeSet::new(), blocked: false };
                self.kinds.insert(ask, kind);
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
                self.unlist(&ask, second, blocked);
            }
        }
        self.list(&ask, turn, false);
    }

    /// Of which kind a job is.
    fn ask(&self, candidate: &Candidate) -> Ask {
        let user = candidate.owner.as_ref().and_then(|owner| self.providers.get(owner));
        Ask { resources: (&candidate.resources).into(), user: user.copied() }
    }

    /// Sorts all anew: others have nodes of their own by now, and their jobs are of kinds of their own.
    fn regroup(&mut self, providers: &Providers) {
        let candidates = std::mem::take(&mut self.candidates);
        *self = Ready { providers: providers.clone(), ..Ready::default() };
        candidates.into_values().for_each(|candidate| self.insert(candidate));
    }

    /// Takes a job out; `None` if it was not there.
    pub fn remove(&mut self, job: u64) -> Option<Candidate> {
        let candidate = self.candidates.remove(&job)?;
        let turn = (Reverse(candidate.priority), job);
        let ask = self.ask(&candidate);
        let kind = self.kinds.get_mut(&ask)?;
        if kind.first != turn {
            kind.others.remove(&turn);
            return Some(candidate);
        }
        let blocked = kind.blocked;
        match kind.others.pop_first() {
            Some(second) => {
                kind.first = second;
                self.list(&ask, second, blocked);
            }
            None => {
                self.kinds.remove(&ask);
            }
        }
        self.unlist(&ask, turn, blocked);
        Some(candidate)
    }

    /// Puts the first of a kind where it belongs.
    fn list(&mut self, ask: &Ask, first: Turn, blocked: bool) {
        if !blocked {
            self.heads.insert((first, *ask));
            return;
        }
        self.blocked.insert(point(&ask.resources), first);
        if let Some(user) = ask.user {
            self.blocked_of.entry(user).or_default().insert(point(&ask.resources), first);
        }
    }

    /// Undoes [`Ready::list`].
    fn unlist(&mut self, ask: &Ask, first: Turn, blocked: bool) {
        if !blocked {
            self.heads.remove(&(first, *ask));
            return;
        }
        self.blocked.remove(point(&ask.resources), first);
        if let Some(blocked) = ask.user.and_then(|user| self.blocked_of.get_mut(&user)) {
            blocked.remove(point(&ask.resources), first);
        }
    }

    /// No room takes this kind.
    fn block(&mut self, ask: &Ask) {
        let Some(kind) = self.kinds.get_mut(ask) else { return };
        let first = kind.first;
        let blocked = std::mem::replace(&mut kind.blocked, true);
        self.unlist(ask, first, blocked);
        self.list(ask, first, true);
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
        if self.providers.len() != rooms.providers().len() {
            self.regroup(rooms.providers());
        }
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
            let ask = self.ask(candidate);
            if let Some(node) = rooms.choose(&ask.resources, ask.user, &candidate.avoid) {
                self.hopes.extend(hope); // its room may do for another one
                rooms.take(&node, &candidate.resources.clone());
                return Some((self.remove(job)?, node));
            }
            if hope.is_none() {
                self.block(&ask);
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
                let ask = self.ask(candidate);
                candidate.priority == turn.0.0
                    && room.takes(&ask.resources)
                    && room.admits(ask.user)
            });
            let search = || self.blocked_for(room)?.first(&room.window()?);
            let Some(first) = still.then_some(turn).or_else(search) else { continue };
            let others = self.hopes.first().map(|(turn, _)| *turn);
            if [head, others].into_iter().flatten().all(|other| first <= other) {
                return Some((first, name));
            }
            self.hopes.insert((first, name));
        }
    }

    /// Blocked kinds of those whose jobs a room takes.
    fn blocked_for(&self, room: &Room) -> Option<&Tree<2, Turn>> {
        match room.owner {
            None => Some(&self.blocked),
            Some(owner) => self.blocked_of.get(&owner),
        }
    }
}

fn point(resources: &Basic) -> Point<2> {
    [resources.cores, resources.memory]
}
