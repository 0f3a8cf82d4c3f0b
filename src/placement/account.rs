//! The jobs of one account that may be placed, and which of them is next.
//!
//! Jobs that ask for the same are of a kind, and only the first of each kind is looked at. A kind
//! that no room takes is blocked: it lies among others by what it asks for, until a room has
//! grown. Such a room looks for the first of the blocked kinds that it takes, and may wait with that as
//! its hope while other rooms' turns come before: hopes are never too late, for a kind that becomes
//! blocked fits no room at that time, and one whose first job comes earlier than before is not
//! blocked any more. Whatever else changes is found when a hope's turn comes.
//!
//! What is kept for a job of an account ([`super::keeping`]) is asked for with each room that has grown; such a job
//! is of no kind.
//!
//! An account may be at its cap, and then only kinds that need no more cores than are left to it are
//! looked at. Those that need more are *gated* until more is left; rooms that grew meanwhile, and might have
//! taken such a one, were *missed*, and are looked at again then.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::ask::Ask;
use super::blocked::{Blocked, First};
use super::candidates::{Candidates, Turn};
use super::kdtree::ALL_MARKS;
use super::limits::Limits;
use super::offers::{Offer, offers};
use super::rooms::Rooms;
use super::sites::SiteId;
use super::spots::PlaceId;

/// Of those that are beyond what is left to an account so many are looked at for the first that is not.
const LOOKED_AT: usize = 64;

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
    /// The first of each blocked kind, for which something may be reserved...
    passed: BTreeSet<Turn>,
    /// ...and of those that no open node could ever have.
    hopeless: BTreeSet<Turn>,
    /// ...and of those whose nodes are all reserved for others.
    outdone: BTreeSet<Turn>,
    /// Jobs for which something is kept, and whether rooms have grown since they were looked at.
    reserved: BTreeMap<Turn, bool>,
    /// Those of them that need more than was left to the account.
    beyond: Vec<Turn>,
    /// Those that may be placed, and for which there is no room.
    stuck: Vec<Turn>,
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
        if self.reserved.remove(&turn).is_some() {
            return;
        }
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

    /// A room may have grown; whether that means something to it. Jobs for which something is kept are few, and asked
    /// at once.
    pub fn hope(&mut self, place: PlaceId, rooms: &Rooms, candidates: &Candidates) -> bool {
        let mut is_kept_for = false;
        for (turn, grown) in self.reserved.iter_mut().filter(|(_, grown)| !**grown) {
            let held = candidates.get(&turn.1);
            *grown = held.is_some_and(|held| rooms.might_take(place, &held.ask(), *turn));
            is_kept_for |= *grown;
        }
        let sets = [&self.passed, &self.hopeless, &self.outdone];
        let waits = sets.iter().any(|blocked| !blocked.is_empty());
        (waits && self.hopes.insert((AT_ONCE, place))) || is_kept_for
    }

    /// Something is kept for a job, which is there already if it is not new.
    pub fn reserve(&mut self, ask: &Ask, turn: Turn) {
        self.remove(ask, turn);
        self.reserved.insert(turn, true);
    }

    /// Nothing is any more.
    pub fn cancel(&mut self, ask: &Ask, turn: Turn) {
        if self.reserved.remove(&turn).is_some() {
            self.add(ask, turn);
        }
    }

    /// The first of the jobs that fit nowhere now, for which nothing is reserved, and which need no more cores.
    pub fn passed(&self, limit: u64, candidates: &Candidates) -> Option<Turn> {
        if limit == 0 {
            return None;
        }
        let cores =
            |turn: &&Turn| candidates.get(&turn.1).map(|held| held.candidate.resources.cores);
        self.passed
            .iter()
            .take(LOOKED_AT)
            .find(|turn| cores(turn).is_some_and(|c| c <= limit))
            .copied()
    }

    /// Jobs for which something is kept: those that may not have it, and those for which there is no room.
    pub fn take_stuck(&mut self) -> (Vec<Turn>, Vec<Turn>) {
        (std::mem::take(&mut self.beyond), std::mem::take(&mut self.stuck))
    }

    /// The first of those that nothing is kept for, and that need more cores than is left, but no more than these.
    pub fn first_put_off(
        &self,
        limits: &Limits,
        most: u64,
        candidates: &Candidates,
    ) -> Option<Turn> {
        if most == 0 {
            return None;
        }
        let is_beyond = |turn: &Turn| {
            let cores = candidates.get(&turn.1).map(|held| held.candidate.resources.cores);
            cores.is_some_and(|cores| cores <= most && !limits.allow(*turn, cores))
        };
        let gated = self.gated.range(..=most).filter_map(|(_, kinds)| kinds.first());
        let gated = gated.map(|(turn, _)| *turn).filter(is_beyond).min();
        let blocked = self.passed.iter().take(LOOKED_AT).copied().find(is_beyond);
        [gated, blocked].into_iter().flatten().min()
    }

    /// None of those that are put off or fit nowhere, and need no more cores than these, comes before this turn.
    pub fn first_waiting(&self, most: u64) -> Option<Turn> {
        if most == 0 {
            return None;
        }
        let gated = self.gated.range(..=most).filter_map(|(_, kinds)| kinds.first());
        let gated = gated.map(|(turn, _)| *turn).min();
        [gated, self.passed.first().copied()].into_iter().flatten().min()
    }

    /// No open node could ever have this one, which is put off.
    pub fn lay_hopeless(&mut self, ask: &Ask, turn: Turn) {
        if self.kinds.get(ask).is_some_and(|kind| kind.first == turn) {
            self.lay(ask, Lies::Blocked);
            self.give_up(turn);
        }
    }

    /// No open node could ever have it.
    pub fn give_up(&mut self, turn: Turn) {
        if self.passed.remove(&turn) {
            self.hopeless.insert(turn);
        }
    }

    /// There may be one now.
    pub fn take_heart(&mut self) {
        self.passed.append(&mut self.hopeless);
    }

    /// All nodes that could have it are reserved for others.
    pub fn stand_back(&mut self, turn: Turn) {
        if self.passed.remove(&turn) {
            self.outdone.insert(turn);
        }
    }

    /// One of them may not be any more. Whether that means something to it.
    pub fn come_forward(&mut self) -> bool {
        let any = !self.outdone.is_empty() || !self.reserved.is_empty();
        self.passed.append(&mut self.outdone);
        self.reserved.values_mut().for_each(|grown| *grown = true);
        any
    }

    /// More cores are left to it than before.
    pub fn revive(&mut self) {
        // What they hoped for was the first of those that were allowed.
        let missed = std::mem::take(&mut self.missed);
        self.hopes.extend(missed.into_iter().map(|place| (AT_ONCE, place)));
        self.reserved.values_mut().for_each(|grown| *grown = true);
    }

    /// None of its jobs that may be placed comes before this turn; nothing where none may.
    pub fn bound(&self, limit: u64) -> Option<Turn> {
        if limit == 0 {
            return None;
        }
        let heads = self.heads.first().map(|(turn, _)| *turn);
        let hopes = self.hopes.first().map(|(turn, _)| *turn);
        let gated = self.gated.range(..=limit).filter_map(|(_, kinds)| kinds.first());
        let gated = gated.map(|(turn, _)| *turn).min();
        [heads, hopes, gated, self.first_reserved()].into_iter().flatten().min()
    }

    fn first_reserved(&self) -> Option<Turn> {
        self.reserved.iter().find(|(_, grown)| **grown).map(|(turn, _)| *turn)
    }

    /// Of those that need as much the first may have the most.
    fn first_gated(&self, limits: &Limits) -> Option<&(Turn, Ask)> {
        let alike = self.gated.range(..=limits.most());
        let firsts = alike.filter_map(|(cores, kinds)| Some((*cores, kinds.first()?)));
        let allowed = firsts.filter(|(cores, (turn, _))| limits.allow(*turn, *cores));
        allowed.map(|(_, first)| first).min()
    }

    /// The next of its jobs that is to be placed, and where, if there is one that needs no more cores.
    pub fn next(
        &mut self,
        limits: &Limits,
        rooms: &Rooms,
        candidates: &Candidates,
    ) -> Option<(Turn, PlaceId)> {
        if limits.most() == 0 {
            return None;
        }
        loop {
            if let Some((turn, ask)) = self.first_gated(limits)
                && self.heads.first().is_none_or(|(head, _)| turn < head)
            {
                let ask = ask.clone();
                self.lay(&ask, Lies::Head);
            }
            let hope = self.take_hope(limits, rooms, candidates);
            let head = || self.heads.first().map(|(turn, _)| *turn);
            let turn = hope.map(|(turn, _)| turn).or_else(head);
            let reserved = self.first_reserved();
            if let Some(first) = reserved.filter(|first| turn.is_none_or(|turn| *first < turn)) {
                self.hopes.extend(hope);
                self.reserved.insert(first, false);
                let held = candidates.get(&first.1)?;
                let ask = held.ask();
                if !limits.allow_kept(first, ask.resources.cores) {
                    self.beyond.push(first);
                } else if let Some(place) = rooms.choose(&ask, first, &held.candidate.avoid) {
                    self.reserved.insert(first, true); // until it is taken out
                    return Some((first, place));
                } else {
                    self.stuck.push(first);
                }
                continue;
            }
            let turn = turn?;
            let held = candidates.get(&turn.1)?;
            let ask = held.ask();
            if !limits.allow(turn, ask.resources.cores) {
                self.lay(&ask, Lies::Gated);
                continue;
            }
            if let Some(place) = rooms.choose(&ask, turn, &held.candidate.avoid) {
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
        limits: &Limits,
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
                let ask = held.ask();
                held.turn() == turn
                    && limits.allow(turn, ask.resources.cores)
                    && rooms.might_take(place, &ask, turn)
            });
            let first = match still {
                true => Some(turn),
                false => self.first_for(limits, rooms, place, candidates),
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
                let alike = self.gated.entry(ask.resources.cores).or_default();
                alike.insert((first, ask.clone()));
            }
            Lies::Blocked => self.list_blocked(ask, first),
        }
    }

    fn list_blocked(&mut self, ask: &Ask, first: Turn) {
        self.passed.insert(first);
        let own = match ask.site.is_narrow() {
            true => self.narrow.entry(ask.site).or_default(),
            false => &mut self.blocked,
        };
        own.insert(ask, first);
    }

    /// Undoes [`Account::list`].
    fn unlist(&mut self, ask: &Ask, first: Turn, lies: Lies) {
        match lies {
            Lies::Head => _ = self.heads.remove(&(first, ask.clone())),
            Lies::Gated => {
                if let Some(alike) = self.gated.get_mut(&ask.resources.cores) {
                    alike.remove(&(first, ask.clone()));
                    if alike.is_empty() {
                        self.gated.remove(&ask.resources.cores);
                    }
                }
            }
            Lies::Blocked => self.unlist_blocked(ask, first),
        }
    }

    fn unlist_blocked(&mut self, ask: &Ask, first: Turn) {
        for blocked in [&mut self.passed, &mut self.hopeless, &mut self.outdone] {
            blocked.remove(&first);
        }
        if !ask.site.is_narrow() {
            return self.blocked.remove(ask, first);
        }
        let Some(own) = self.narrow.get_mut(&ask.site) else { return };
        own.remove(ask, first);
        if own.is_empty() {
            self.narrow.remove(&ask.site);
        }
    }

    /// The first of the blocked kinds that a room takes.
    fn first_for(
        &mut self,
        limits: &Limits,
        rooms: &Rooms,
        place: PlaceId,
        candidates: &Candidates,
    ) -> Option<Turn> {
        let mut best = None;
        let cores =
            |turn: &Turn| candidates.get(&turn.1).map(|held| held.candidate.resources.cores);
        for mut offer in offers(rooms, place) {
            if limits.least() < offer.window.to[0] {
                self.missed.insert(place);
            }
            let mut found = None;
            for left in limits.all().take_while(|left| *left > 0) {
                offer.window.to[0] = offer.window.to[0].min(left);
                found = self.first_of(&offer, rooms, place, candidates);
                if found.is_none_or(|turn| cores(&turn).is_some_and(|c| limits.allow(turn, c))) {
                    break;
                }
                found = None; // it comes behind those for which something is kept, who leave it less
            }
            best = [best, found.filter(|turn| offer.is_for(*turn))].into_iter().flatten().min();
        }
        best
    }

    fn first_of(
        &self,
        offer: &Offer,
        rooms: &Rooms,
        place: PlaceId,
        candidates: &Candidates,
    ) -> Option<Turn> {
        let class = rooms.class(place);
        let sites = rooms.sites();
        let narrow = sites.narrow_takers(class).iter();
        let narrow = narrow.filter_map(|site| self.narrow.get(site)).map(|own| (own, ALL_MARKS));
        let mut best = None;
        for (own, marks) in std::iter::once((&self.blocked, sites.takers(class))).chain(narrow) {
            let taken = |first: &First| sites.is_taken(first.site, class);
            own.search(offer, marks, &taken, candidates, &mut best);
        }
        best.map(|first: &First| first.turn)
    }
}
