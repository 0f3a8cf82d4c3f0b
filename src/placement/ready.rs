//! The jobs that may be placed, and which of them is next.
//!
//! Jobs that ask for the same are of a kind, and only the first of each kind is looked at. A kind
//! that no room takes is blocked: it lies among those of its site, by what it asks for, until a room has
//! grown. Such a room looks for the first of the blocked kinds that it takes, and may wait with that as
//! its hope while other rooms' turns come before: hopes are never too late, for a kind that becomes
//! blocked fits no room at that time, and one whose first job comes earlier than before is not
//! blocked any more. Whatever else changes is found when a hope's turn comes.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::Candidate;
use super::ask::{Ask, Basic};
use super::kdtree::{Tree, Window};
use super::rooms::{PlaceId, Rooms};
use super::sites::SiteId;
use crate::model::resources::Others;
use crate::strategy::Strategy;

/// The order in which jobs are placed: higher priority, then lower number.
type Turn = (Reverse<i64>, u64);

/// Before every other.
const AT_ONCE: Turn = (Reverse(i64::MAX), 0);

/// So many sites that nobody's jobs have any more are kept.
const MOST_IDLE_SITES: usize = 64;

/// Jobs that ask for the same.
#[derive(Debug)]
struct Kind {
    first: Turn,
    others: BTreeSet<Turn>,
    /// No room takes it, but for those that have grown since and are in [`Ready::hopes`].
    blocked: bool,
}

#[derive(Debug)]
struct Held {
    candidate: Candidate,
    site: SiteId,
}

impl Held {
    fn ask(&self) -> Ask {
        let Candidate { resources, strategy, .. } = &self.candidate;
        Ask {
            basic: Basic::of(resources),
            others: resources.others.clone(),
            site: self.site,
            strategy: *strategy,
        }
    }

    fn turn(&self) -> Turn {
        (Reverse(self.candidate.priority), self.candidate.job)
    }
}

/// The first of each blocked kind of a site, by cores and memory.
#[derive(Debug, Default)]
struct Blocked {
    plain: Tree<2, Turn>,
    /// Those that ask for more than that, by the names of what they ask for, and by how much of the first.
    others: Vec<(Arc<[Arc<str>]>, Tree<3, Turn>)>,
}

/// Jobs that may be placed now, by what they ask for.
#[derive(Debug, Default)]
pub struct Ready {
    candidates: HashMap<u64, Held>,
    kinds: HashMap<Ask, Kind>,
    /// How many kinds each site has.
    in_use: HashMap<SiteId, usize>,
    /// The first of each kind that some node may have room for.
    heads: BTreeSet<(Turn, Ask)>,
    /// By site.
    blocked: Vec<Blocked>,
    /// How many kinds are blocked.
    blocked_kinds: usize,
    /// See [`Rooms::epoch`].
    epoch: u64,
    /// Rooms that may take a blocked kind. None of those that fit comes before this turn.
    hopes: BTreeSet<(Turn, PlaceId)>,
}

impl Ready {
    /// Adds a job, or replaces what is known of it.
    pub fn insert(&mut self, rooms: &mut Rooms, candidate: Candidate) {
        self.remove(candidate.job);
        self.follow(rooms);
        if rooms.sites().len()
            > 2 * self.in_use.len() + MOST_IDLE_SITES + self.candidates.len() / 100
        {
            rooms.forget_sites();
            self.follow(rooms);
        }
        self.add(rooms, candidate);
    }

    fn add(&mut self, rooms: &mut Rooms, candidate: Candidate) {
        let site = rooms.site(candidate.selector.as_ref(), candidate.owner.as_ref());
        if candidate.strategy != Strategy::Spread {
            rooms.use_strategy(candidate.strategy);
        }
        let held = Held { candidate, site };
        let (ask, turn) = (held.ask(), held.turn());
        self.candidates.insert(turn.1, held);
        match self.kinds.get_mut(&ask) {
            None => {
                *self.in_use.entry(site).or_insert(0) += 1;
                let kind = Kind { first: turn, others: BTreeSet::new(), blocked: false };
                self.kinds.insert(ask.clone(), kind);
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

    /// Sorts all anew if sites have other numbers than before.
    fn follow(&mut self, rooms: &mut Rooms) {
        if self.epoch == rooms.epoch() {
            return;
        }
        let candidates = std::mem::take(&mut self.candidates);
        *self = Ready { epoch: rooms.epoch(), ..Ready::default() };
        candidates.into_values().for_each(|held| self.add(rooms, held.candidate));
    }

    /// Takes a job out; `None` if it was not there.
    pub fn remove(&mut self, job: u64) -> Option<Candidate> {
        let held = self.candidates.remove(&job)?;
        let (ask, turn) = (held.ask(), held.turn());
        let kind = self.kinds.get_mut(&ask)?;
        if kind.first != turn {
            kind.others.remove(&turn);
            return Some(held.candidate);
        }
        let blocked = kind.blocked;
        match kind.others.pop_first() {
            Some(second) => {
                kind.first = second;
                self.list(&ask, second, blocked);
            }
            None => {
                self.kinds.remove(&ask);
                if let Some(count) = self.in_use.get_mut(&ask.site) {
                    *count -= 1;
                    if *count == 0 {
                        self.in_use.remove(&ask.site);
                    }
                }
            }
        }
        self.unlist(&ask, turn, blocked);
        Some(held.candidate)
    }

    /// Puts the first of a kind where it belongs.
    fn list(&mut self, ask: &Ask, first: Turn, blocked: bool) {
        if !blocked {
            self.heads.insert((first, ask.clone()));
            return;
        }
        self.blocked_kinds += 1;
        if self.blocked.len() <= ask.site.place() {
            self.blocked.resize_with(ask.site.place() + 1, Blocked::default);
        }
        let own = &mut self.blocked[ask.site.place()];
        let Basic { cores, memory } = ask.basic;
        if ask.others.is_empty() {
            own.plain.insert([cores, memory], first);
            return;
        }
        let names: Arc<[Arc<str>]> = ask.others.iter().map(|(name, _)| name.clone()).collect();
        let known = own.others.iter().position(|(known, _)| *known == names);
        let index = known.unwrap_or_else(|| {
            own.others.push((names, Tree::default()));
            own.others.len() - 1
        });
        own.others[index].1.insert([cores, memory, first_of(&ask.others)], first);
    }

    /// Undoes [`Ready::list`].
    fn unlist(&mut self, ask: &Ask, first: Turn, blocked: bool) {
        if !blocked {
            self.heads.remove(&(first, ask.clone()));
            return;
        }
        self.blocked_kinds -= 1;
        let Some(own) = self.blocked.get_mut(ask.site.place()) else { return };
        let Basic { cores, memory } = ask.basic;
        if ask.others.is_empty() {
            own.plain.remove([cores, memory], first);
            return;
        }
        let same = |names: &[Arc<str>]| names.iter().eq(ask.others.iter().map(|(name, _)| name));
        if let Some((_, tree)) = own.others.iter_mut().find(|(names, _)| same(names)) {
            tree.remove([cores, memory, first_of(&ask.others)], first);
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
        self.follow(rooms);
        if self.blocked_kinds == 0 {
            rooms.forget_grown();
        } else {
            self.hopes.extend(rooms.take_grown().map(|place| (AT_ONCE, place)));
        }
        loop {
            let hope = self.take_hope(rooms);
            let head = || self.heads.first().map(|(turn, _)| *turn);
            let (_, job) = hope.as_ref().map(|(turn, _)| *turn).or_else(head)?;
            let held = self.candidates.get(&job)?;
            let ask = held.ask();
            if let Some(place) = rooms.choose(&ask, job, &held.candidate.avoid) {
                self.hopes.extend(hope); // its room may do for another one
                let candidate = self.remove(job)?;
                rooms.take_at(place, &candidate.resources);
                if ask.strategy == Strategy::RoundRobin {
                    rooms.pass_turn(place);
                }
                return Some((candidate, rooms.name(place).to_string()));
            }
            if hope.is_none() {
                self.block(&ask);
            }
        }
    }

    /// The first of the blocked jobs that a grown room takes, if it comes before all that are not
    /// blocked, and the room, which is taken out of the hopes. Rooms for which there is no hope are
    /// forgotten.
    fn take_hope(&mut self, rooms: &Rooms) -> Option<(Turn, PlaceId)> {
        let head = self.heads.first().map(|(turn, _)| *turn);
        loop {
            if self.hopes.first().is_none_or(|(turn, _)| head.is_some_and(|head| head < *turn)) {
                return None;
            }
            let (turn, place) = self.hopes.pop_first()?;
            let still = self.candidates.get(&turn.1).is_some_and(|held| {
                let Basic { cores, memory } = Basic::of(&held.candidate.resources);
                held.turn() == turn
                    && rooms.room(place).takes(cores, memory, &held.candidate.resources.others)
                    && rooms.sites().is_taken(held.site, rooms.class(place))
            });
            let first = if still { Some(turn) } else { self.first_for(rooms, place) };
            let Some(first) = first else { continue };
            let others = self.hopes.first().map(|(turn, _)| *turn);
            if [head, others].into_iter().flatten().all(|other| first <= other) {
                return Some((first, place));
            }
            self.hopes.insert((first, place));
        }
    }

    /// The first of the blocked kinds that a room takes.
    fn first_for(&self, rooms: &Rooms, place: PlaceId) -> Option<Turn> {
        let room = rooms.room(place);
        let window = room.window()?;
        let class = rooms.class(place);
        let taken = self.blocked.iter().zip(rooms.sites().taken_by(class));
        let mut best: Option<&Turn> = None;
        for (own, _) in taken.filter(|(_, taken)| **taken) {
            own.plain.search(&window, &|_| true, &mut best);
            for (names, tree) in &own.others {
                if names.iter().any(|name| room.left(name) == 0) {
                    continue;
                }
                let ([from_c, from_m], [to_c, to_m]) = (window.from, window.to);
                let most = names.first().map_or(0, |name| room.left(name));
                let window = Window { from: [from_c, from_m, 0], to: [to_c, to_m, most] };
                let fits = |turn: &Turn| {
                    let held = self.candidates.get(&turn.1);
                    held.is_some_and(|held| {
                        let others = &held.candidate.resources.others;
                        others.iter().all(|(name, amount)| amount <= room.left(name))
                    })
                };
                tree.search(&window, &fits, &mut best);
            }
        }
        best.copied()
    }
}

/// How much is asked for of the first that is named.
fn first_of(others: &Others) -> u64 {
    others.iter().next().map_or(0, |(_, amount)| amount)
}
