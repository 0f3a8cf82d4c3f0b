//! The jobs of one account that may be placed, and which of them is next.
//!
//! Jobs that ask for the same are of a kind, and only the first of each kind is looked at. A kind
//! that no room takes is blocked: it lies among others by what it asks for, until a room has
//! grown. Such a room looks for the first of the blocked kinds that it takes, and may wait with that as
//! its hope while other rooms' turns come before: hopes are never too late, for a kind that becomes
//! blocked fits no room at that time, and one whose first job comes earlier than before is not
//! blocked any more. Whatever else changes is found when a hope's turn comes.
//!
//! An account may be at its cap, and then only kinds that need no more cores than are left to it are
//! looked at. Those that need more are *gated* until more is left; rooms that grew meanwhile, and might have
//! taken such a one, were *missed*, and are looked at again then.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::Candidate;
use super::ask::{Ask, Basic};
use super::kdtree::{ALL_MARKS, Marked, Tree, Window, mark_of};
use super::rooms::{PlaceId, Rooms};
use super::sites::SiteId;
use crate::model::resources::Others;

/// The order in which the jobs of an account are placed: higher priority, then lower number.
pub(super) type Turn = (Reverse<i64>, u64);

/// Before every other.
const AT_ONCE: Turn = (Reverse(i64::MAX), 0);

/// Where the first of a kind lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lies {
    /// Some node may have room for it.
    Head,
    /// It needs more cores than were left to the account.
    Gated,
    /// No room takes it, but for those that have grown since and are in [`Account::hopes`].
    Blocked,
}

/// Jobs that ask for the same.
#[derive(Debug)]
struct Kind {
    first: Turn,
    others: BTreeSet<Turn>,
    lies: Lies,
}

/// A job that may be placed.
#[derive(Debug)]
pub(super) struct Held {
    pub candidate: Candidate,
    pub site: SiteId,
}

/// All of them, by number.
pub(super) type Candidates = HashMap<u64, Held>;

impl Held {
    pub fn ask(&self) -> Ask {
        let Candidate { resources, strategy, .. } = &self.candidate;
        Ask {
            basic: Basic::of(resources),
            others: resources.others.clone(),
            site: self.site,
            strategy: *strategy,
        }
    }

    pub fn turn(&self) -> Turn {
        (Reverse(self.candidate.priority), self.candidate.job)
    }
}

/// The first of a kind, and where it may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct First {
    turn: Turn,
    site: SiteId,
}

impl Marked for First {
    fn mark(&self) -> u64 {
        mark_of(self.site.place())
    }
}

/// Names of what is counted, in order.
type Names = Arc<[Arc<str>]>;

/// The first of each blocked kind, by cores and memory.
#[derive(Debug, Default)]
struct Blocked {
    plain: Tree<2, First>,
    /// Those that ask for more than that, by the names of what they ask for, and by how much of the first.
    others: Vec<(Names, Tree<3, First>)>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Account {
    kinds: HashMap<Ask, Kind>,
    heads: BTreeSet<(Turn, Ask)>,
    /// By cores.
    gated: BTreeMap<u64, BTreeSet<(Turn, Ask)>>,
    blocked: Blocked,
    /// Those of narrow sites.
    narrow: HashMap<SiteId, Blocked>,
    /// How many kinds are blocked.
    blocked_kinds: usize,
    /// Rooms that may take a blocked kind. None of those that fit comes before this turn.
    hopes: BTreeSet<(Turn, PlaceId)>,
    missed: HashSet<PlaceId>,
}

impl Account {
    /// Adds a job.
    pub fn add(&mut self, ask: &Ask, turn: Turn) {
        match self.kinds.get_mut(ask) {
            None => {
                let kind = Kind { first: turn, others: BTreeSet::new(), lies: Lies::Head };
                self.kinds.insert(ask.clone(), kind);
            }
            Some(kind) if kind.first < turn => {
                kind.others.insert(turn);
                return;
            }
            Some(kind) => {
                // The hopes do not know how early this one is: it is looked at by itself.
                let lies = std::mem::replace(&mut kind.lies, Lies::Head);
                let second = std::mem::replace(&mut kind.first, turn);
                kind.others.insert(second);
                self.unlist(ask, second, lies);
            }
        }
        self.list(ask, turn, Lies::Head);
    }

    /// Takes a job out.
    pub fn remove(&mut self, ask: &Ask, turn: Turn) {
        let Some(kind) = self.kinds.get_mut(ask) else { return };
        if kind.first != turn {
            kind.others.remove(&turn);
            return;
        }
        let lies = kind.lies;
        match kind.others.pop_first() {
            Some(second) => {
                kind.first = second;
                self.list(ask, second, lies);
            }
            None => {
                self.kinds.remove(ask);
            }
        }
        self.unlist(ask, turn, lies);
    }

    /// A room may have grown; whether that means something to it.
    pub fn hope(&mut self, place: PlaceId) -> bool {
        self.blocked_kinds > 0 && self.hopes.insert((AT_ONCE, place))
    }

    /// More cores are left to it than before.
    pub fn revive(&mut self) {
        // What they hope for was the first of those that were allowed.
        let hopes = std::mem::take(&mut self.hopes).into_iter().map(|(_, place)| place);
        let all = hopes.chain(std::mem::take(&mut self.missed));
        self.hopes = all.map(|place| (AT_ONCE, place)).collect();
    }

    /// None of its jobs that may be placed comes before this turn; nothing where none may.
    pub fn bound(&self, limit: u64) -> Option<Turn> {
        if limit == 0 {
            return None;
        }
        let heads = self.heads.first().map(|(turn, _)| *turn);
        let hopes = self.hopes.first().map(|(turn, _)| *turn);
        let gated = self.first_gated(limit).map(|(turn, _)| *turn);
        [heads, hopes, gated].into_iter().flatten().min()
    }

    fn first_gated(&self, limit: u64) -> Option<&(Turn, Ask)> {
        self.gated.range(..=limit).filter_map(|(_, kinds)| kinds.first()).min()
    }

    /// The next of its jobs that is to be placed, and where, if there is one that needs no more cores.
    pub fn next(
        &mut self,
        limit: u64,
        rooms: &Rooms,
        candidates: &Candidates,
    ) -> Option<(Turn, PlaceId)> {
        if limit == 0 {
            return None;
        }
        loop {
            if let Some((turn, ask)) = self.first_gated(limit)
                && self.heads.first().is_none_or(|(head, _)| turn < head)
            {
                let ask = ask.clone();
                self.lay(&ask, Lies::Head);
            }
            let hope = self.take_hope(limit, rooms, candidates);
            let head = || self.heads.first().map(|(turn, _)| *turn);
            let turn = hope.map(|(turn, _)| turn).or_else(head)?;
            let held = candidates.get(&turn.1)?;
            let ask = held.ask();
            if ask.basic.cores > limit {
                self.lay(&ask, Lies::Gated);
                continue;
            }
            if let Some(place) = rooms.choose(&ask, turn.1, &held.candidate.avoid) {
                self.hopes.extend(hope); // its room may do for another one
                return Some((turn, place));
            }
            if hope.is_none() {
                self.lay(&ask, Lies::Blocked);
            }
        }
    }

    /// Puts a kind elsewhere.
    fn lay(&mut self, ask: &Ask, lies: Lies) {
        let Some(kind) = self.kinds.get_mut(ask) else { return };
        let first = kind.first;
        let before = std::mem::replace(&mut kind.lies, lies);
        self.unlist(ask, first, before);
        self.list(ask, first, lies);
    }

    /// The first of the blocked jobs that a grown room takes, if it comes before all that are not
    /// blocked, and the room, which is taken out of the hopes. Rooms for which there is no hope are
    /// forgotten.
    fn take_hope(
        &mut self,
        limit: u64,
        rooms: &Rooms,
        candidates: &Candidates,
    ) -> Option<(Turn, PlaceId)> {
        let head = self.heads.first().map(|(turn, _)| *turn);
        loop {
            if self.hopes.first().is_none_or(|(turn, _)| head.is_some_and(|head| head < *turn)) {
                return None;
            }
            let (turn, place) = self.hopes.pop_first()?;
            let still = candidates.get(&turn.1).is_some_and(|held| {
                let Basic { cores, memory } = Basic::of(&held.candidate.resources);
                held.turn() == turn
                    && cores <= limit
                    && rooms.room(place).takes(cores, memory, &held.candidate.resources.others)
                    && rooms.sites().is_taken(held.site, rooms.class(place))
            });
            let first = match still {
                true => Some(turn),
                false => self.first_for(limit, rooms, place, candidates),
            };
            let Some(first) = first else { continue };
            let others = self.hopes.first().map(|(turn, _)| *turn);
            if [head, others].into_iter().flatten().all(|other| first <= other) {
                return Some((first, place));
            }
            self.hopes.insert((first, place));
        }
    }

    /// Puts the first of a kind where it belongs.
    fn list(&mut self, ask: &Ask, first: Turn, lies: Lies) {
        match lies {
            Lies::Head => _ = self.heads.insert((first, ask.clone())),
            Lies::Gated => {
                let alike = self.gated.entry(ask.basic.cores).or_default();
                alike.insert((first, ask.clone()));
            }
            Lies::Blocked => self.list_blocked(ask, first),
        }
    }

    fn list_blocked(&mut self, ask: &Ask, first: Turn) {
        self.blocked_kinds += 1;
        let own = match ask.site.is_narrow() {
            true => self.narrow.entry(ask.site).or_default(),
            false => &mut self.blocked,
        };
        let first = First { turn: first, site: ask.site };
        let Basic { cores, memory } = ask.basic;
        if ask.others.is_empty() {
            own.plain.insert([cores, memory], first);
            return;
        }
        let names: Names = ask.others.iter().map(|(name, _)| name.clone()).collect();
        let known = own.others.iter().position(|(known, _)| *known == names);
        let index = known.unwrap_or_else(|| {
            own.others.push((names, Tree::default()));
            own.others.len() - 1
        });
        own.others[index].1.insert([cores, memory, first_of(&ask.others)], first);
    }

    /// Undoes [`Account::list`].
    fn unlist(&mut self, ask: &Ask, first: Turn, lies: Lies) {
        match lies {
            Lies::Head => _ = self.heads.remove(&(first, ask.clone())),
            Lies::Gated => {
                if let Some(alike) = self.gated.get_mut(&ask.basic.cores) {
                    alike.remove(&(first, ask.clone()));
                    if alike.is_empty() {
                        self.gated.remove(&ask.basic.cores);
                    }
                }
            }
            Lies::Blocked => self.unlist_blocked(ask, first),
        }
    }

    fn unlist_blocked(&mut self, ask: &Ask, first: Turn) {
        self.blocked_kinds -= 1;
        let own = match ask.site.is_narrow() {
            true => self.narrow.get_mut(&ask.site),
            false => Some(&mut self.blocked),
        };
        let Some(own) = own else { return };
        let first = First { turn: first, site: ask.site };
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

    /// The first of the blocked kinds that a room takes.
    fn first_for(
        &mut self,
        limit: u64,
        rooms: &Rooms,
        place: PlaceId,
        candidates: &Candidates,
    ) -> Option<Turn> {
        let room = rooms.room(place);
        let mut window = room.window()?;
        if limit < window.to[0] {
            window.to[0] = limit;
            self.missed.insert(place);
        }
        let class = rooms.class(place);
        let sites = rooms.sites();
        let narrow = sites.narrow_takers(class).iter();
        let narrow = narrow.filter_map(|site| self.narrow.get(site)).map(|own| (own, ALL_MARKS));
        let mut best: Option<&First> = None;
        for (own, marks) in std::iter::once((&self.blocked, sites.takers(class))).chain(narrow) {
            let taken = |first: &First| sites.is_taken(first.site, class);
            own.plain.search(&window, marks, &taken, &mut best);
            for (names, tree) in &own.others {
                if names.iter().any(|name| room.left(name) == 0) {
                    continue;
                }
                let ([from_c, from_m], [to_c, to_m]) = (window.from, window.to);
                let most = names.first().map_or(0, |name| room.left(name));
                let window = Window { from: [from_c, from_m, 0], to: [to_c, to_m, most] };
                let fits = |first: &First| {
                    taken(first)
                        && candidates.get(&first.turn.1).is_some_and(|held| {
                            let others = &held.candidate.resources.others;
                            others.iter().all(|(name, amount)| amount <= room.left(name))
                        })
                };
                tree.search(&window, marks, &fits, &mut best);
            }
        }
        best.map(|first| first.turn)
    }
}

/// How much is asked for of the first that is named.
fn first_of(others: &Others) -> u64 {
    others.iter().next().map_or(0, |(_, amount)| amount)
}
