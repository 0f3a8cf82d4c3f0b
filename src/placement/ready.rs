//! The jobs that may be placed, and which of them is next: higher priority first, then whose user has had
//! least, then the lower number.
//!
//! Each user's jobs for one partition, or for none, are an `Account`, which knows its own next job. Which account
//! comes first changes with whatever is placed and ends, so no order of all jobs is kept. Of each account a bound is
//! known that none of its jobs comes before, and the one with the first bound is asked, until what it has is before
//! the bounds of all others. Accounts are kept by partition (`groups`): one that is at its cap is passed over with
//! all that are in it.
//!
//! Where a job is to be placed past others that come before it and fit nowhere, something is reserved for the
//! first of these, and it is looked again who is next.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::Candidate;
use super::account::Account;
use super::candidates::{Candidates, Held, Turn};
use super::ends::Millis;
use super::gates::{Cap, InUse};
use super::groups::{Bound, Rules, move_in};
use super::ledger::Ledger;
use super::reservations::Reserved;
use super::rooms::Rooms;
use super::sites::SiteId;
use crate::model::resources::Resources;
use crate::model::selector::Selector;
use crate::strategy::Strategy;

/// So many sites that nobody's jobs have any more are kept.
const MOST_IDLE_SITES: usize = 64;

/// So many jobs for which nothing can be reserved are passed over at a time.
const LOOKED_AT: usize = 256;

/// See the module.
#[derive(Debug)]
pub struct Ready {
    candidates: Candidates,
    ledger: Ledger,
    /// Accounts with jobs that fit nowhere now, by the first of these, as if no partition had a cap of its own.
    passed: BTreeSet<(Bound, usize)>,
    /// For so many jobs at most something is reserved.
    most_reserved: usize,
    /// Those of them that were taken out since this was last looked at.
    gone: BTreeSet<u64>,
    /// How often something had been reserved no more when it was last found that all nodes that could have a job
    /// are reserved for others.
    opened: u64,
    /// What nodes had in all, and were like, when it was last found that none could have a job.
    shape: u64,
    /// How many jobs each site has.
    in_use: HashMap<SiteId, usize>,
    /// See [`Rooms::epoch`].
    epoch: u64,
}

impl Default for Ready {
    fn default() -> Ready {
        Ready::with(Cap::default(), 0)
    }
}

impl Ready {
    /// Without jobs; each user may have so much at a time, and for so many jobs at most something is reserved.
    pub fn with(cap: Cap, most_reserved: usize) -> Ready {
        Ready {
            most_reserved,
            ledger: Ledger::new(cap),
            candidates: HashMap::new(),
            passed: BTreeSet::new(),
            gone: BTreeSet::new(),
            opened: 0,
            shape: 0,
            in_use: HashMap::new(),
            epoch: 0,
        }
    }

    /// By which rules jobs of this partition are placed; `None`: none is placed.
    pub fn set_partition(&mut self, rooms: &mut Rooms, name: &Arc<str>, rules: Option<Rules>) {
        if !self.ledger.set_rules(name, rules) {
            return;
        }
        let its = self.candidates.values().map(|held| &held.candidate);
        let its = its.filter(|candidate| candidate.partition.as_ref() == Some(name));
        let its: Vec<Candidate> = its.cloned().collect();
        for candidate in its {
            self.remove(candidate.job);
            rooms.cancel(candidate.job); // its node may not be in it any more
            self.insert(rooms, candidate);
        }
    }

    /// Which nodes may have a job, by what it asks for and by its partition's rules.
    pub fn selector(&self, candidate: &Candidate) -> Option<Arc<Selector>> {
        let rules = self.ledger.rules(candidate.partition.as_ref());
        let own = candidate.selector.as_ref();
        rules.map_or_else(|| own.cloned(), |rules| rules.selector(own))
    }

    /// Adds a job, or replaces what is known of it.
    pub fn insert(&mut self, rooms: &mut Rooms, candidate: Candidate) {
        self.remove(candidate.job);
        self.follow(rooms);
        let most = 2 * self.in_use.len() + MOST_IDLE_SITES + self.candidates.len() / 100;
        if rooms.sites().len() > most || rooms.sorts() > most + 2 * rooms.len() {
            rooms.forget_sites();
            self.follow(rooms);
        }
        self.add(rooms, candidate);
    }

    fn add(&mut self, rooms: &mut Rooms, candidate: Candidate) {
        let Candidate { owner, partition, strategy, .. } = &candidate;
        let account = self.ledger.account(owner.as_ref(), partition.as_ref());
        let more = self.ledger.rules(partition.as_ref()).map(|rules| rules.priority);
        let site = rooms.site(self.selector(&candidate).as_ref(), owner.as_ref());
        if *strategy != Strategy::Spread {
            rooms.use_strategy(*strategy);
        }
        let priority = candidate.priority.saturating_add(more.unwrap_or(0));
        let held = Held { candidate, site, priority, account };
        let (ask, turn) = (held.ask(), held.turn());
        self.candidates.insert(turn.1, held);
        *self.in_use.entry(site).or_insert(0) += 1;
        self.gone.remove(&turn.1);
        let own = &mut self.ledger.accounts[account];
        own.jobs += 1;
        if more.is_some() && rooms.is_reserved(turn, &ask.resources) {
            own.account.reserve(&ask, turn);
        } else {
            rooms.cancel(turn.1);
            if more.is_some() {
                own.account.add(&ask, turn);
            }
        }
        self.ledger.stale.insert(account);
    }

    /// Sorts all anew if sites have other numbers than before.
    fn follow(&mut self, rooms: &mut Rooms) {
        if self.epoch == rooms.epoch() {
            return;
        }
        self.epoch = rooms.epoch();
        self.in_use.clear();
        for own in &mut self.ledger.accounts {
            (own.account, own.jobs) = (Account::default(), 0);
        }
        let candidates = std::mem::take(&mut self.candidates);
        candidates.into_values().for_each(|held| self.add(rooms, held.candidate));
    }

    /// Takes a job out; `None` if it was not there.
    pub fn remove(&mut self, job: u64) -> Option<Candidate> {
        let held = self.candidates.remove(&job)?;
        if let Some(count) = self.in_use.get_mut(&held.site) {
            *count -= 1;
            if *count == 0 {
                self.in_use.remove(&held.site);
            }
        }
        let own = &mut self.ledger.accounts[held.account];
        own.account.remove(&held.ask(), held.turn());
        own.jobs -= 1;
        if self.most_reserved > 0 {
            self.gone.insert(job);
        }
        self.ledger.stale.insert(held.account);
        Some(held.candidate)
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

    /// A node has a job of this user's, for this partition.
    pub fn charge(
        &mut self,
        owner: Option<&Arc<str>>,
        partition: Option<&Arc<str>>,
        job: &Resources,
    ) {
        let account = self.ledger.account(owner, partition);
        self.ledger.charge(account, job);
    }

    /// It has it no more.
    pub fn discharge(
        &mut self,
        owner: Option<&Arc<str>>,
        partition: Option<&Arc<str>>,
        job: &Resources,
    ) {
        let account = self.ledger.account(owner, partition);
        self.ledger.discharge(account, job);
    }

    /// A job that is there runs, or does not any more.
    pub fn note_running(&mut self, owner: Option<&Arc<str>>, job: &Resources, runs: bool) {
        self.ledger.note_running(owner, job, runs);
    }

    /// The users of whom something is known, and what their jobs have.
    pub fn in_use(&self) -> impl Iterator<Item = (Option<&Arc<str>>, InUse)> {
        self.ledger.in_use()
    }

    /// What each user has had, in core seconds.
    pub fn set_had(&mut self, had: impl Fn(Option<&Arc<str>>) -> u64) {
        self.ledger.set_had(had);
    }

    /// The next placement, if there is one: the job is taken out, the node's room is used up, and its user is charged.
    pub fn place_next(&mut self, rooms: &mut Rooms) -> Option<Placed> {
        self.catch_up(rooms);
        loop {
            let ((bound, index), second) = self.ledger.first()?;
            let limit = self.ledger.limit(index);
            let next = self.ledger.accounts[index].account.next(limit, rooms, &self.candidates);
            self.note_passed(index);
            if self.cancel_beyond(rooms, index) {
                self.catch_up(rooms); // others may have it
                continue;
            }
            let Some((turn, place)) = next else {
                self.ledger.sort_in(index, None);
                continue;
            };
            let exact = self.ledger.at(index, turn);
            if exact > bound && second.is_some_and(|second| second < exact) {
                self.ledger.sort_in(index, Some(exact));
                continue;
            }
            if self.reserve_before(rooms, Some(exact)) {
                self.catch_up(rooms);
                continue;
            }
            let candidate = self.remove(turn.1)?;
            self.gone.remove(&turn.1);
            rooms.cancel(turn.1);
            let until = rooms.now.saturating_add(candidate.lasts);
            rooms.take_at(place, &candidate.resources, until);
            self.ledger.charge(index, &candidate.resources);
            if candidate.strategy == Strategy::RoundRobin {
                rooms.pass_turn(place);
            }
            return Some(Placed { candidate, node: rooms.name(place).to_string(), until });
        }
    }

    /// Reserves something for the first jobs that fit nowhere, though none was placed past them yet: so that
    /// when they begin can be told.
    pub fn reserve_first(&mut self, rooms: &mut Rooms) {
        self.catch_up(rooms);
        while self.reserve_before(rooms, None) {
            self.catch_up(rooms);
        }
        rooms.pass_reserved();
    }

    /// What is different from when this was last looked at.
    fn catch_up(&mut self, rooms: &mut Rooms) {
        self.follow(rooms);
        for job in std::mem::take(&mut self.gone) {
            rooms.cancel(job);
        }
        rooms.look_at_changed();
        for job in rooms.take_lost() {
            if let Some(held) = self.candidates.get(&job) {
                self.ledger.accounts[held.account].account.cancel(&held.ask(), held.turn());
                self.ledger.stale.insert(held.account);
            }
        }
        self.cancel_capped(rooms);
        for place in rooms.take_grown() {
            for (index, own) in self.ledger.accounts.iter_mut().enumerate() {
                if own.account.hope(place) {
                    self.ledger.stale.insert(index);
                }
            }
        }
        if self.shape != rooms.shape {
            self.shape = rooms.shape;
            self.ledger.accounts.iter_mut().for_each(|own| own.account.take_heart());
            self.ledger.stale.extend(0..self.ledger.accounts.len());
        }
        if self.opened != rooms.opened {
            self.opened = rooms.opened;
            for (index, own) in self.ledger.accounts.iter_mut().enumerate() {
                if own.account.come_forward() {
                    self.ledger.stale.insert(index);
                }
            }
        }
        for index in std::mem::take(&mut self.ledger.stale) {
            self.ledger.sort_anew(index);
            self.note_passed(index);
        }
    }

    /// Reserves something for the first job that fits nowhere and comes before this, if for fewer than may be
    /// something is reserved, or for one of lower priority. Whether it did.
    fn reserve_before(&mut self, rooms: &mut Rooms, exact: Option<Bound>) -> bool {
        let comes_before = |bound: Bound| exact.is_none_or(|exact| bound < exact);
        if !self.passed.first().is_some_and(|(bound, _)| comes_before(*bound)) {
            return false;
        }
        // Together they must not be more than may be had.
        let reserved = self.reserved(rooms);
        self.reserve_one(rooms, &reserved, &comes_before)
    }

    /// Those for which something is reserved, in their order: whose they are, and what they ask for.
    fn reserved(&self, rooms: &Rooms) -> Vec<(usize, Resources)> {
        let known = |job: u64| {
            let held = self.candidates.get(&job)?;
            Some((held.turn(), held.account, held.candidate.resources.clone()))
        };
        let mut all: Vec<_> = rooms.reserved().filter_map(|(job, ..)| known(job)).collect();
        all.sort();
        all.into_iter().map(|(_, account, job)| (account, job)).collect()
    }

    fn reserve_one(
        &mut self,
        rooms: &mut Rooms,
        reserved: &[(usize, Resources)],
        comes_before: &dyn Fn(Bound) -> bool,
    ) -> bool {
        for _ in 0..LOOKED_AT {
            let Some((bound, index)) = self.passed.first().copied() else { return false };
            if !comes_before(bound) {
                return false;
            }
            let last = rooms.last_reserved();
            let is_full = rooms.reserved_places().count() >= self.most_reserved;
            if is_full && last.is_none_or(|(_, turn)| turn.0 <= bound.0) {
                return false;
            }
            let limit = self.ledger.limit_beside(index, reserved);
            let turn = self.ledger.accounts[index].account.passed(limit, &self.candidates);
            let passed = turn.map(|turn| self.ledger.at(index, turn));
            let held = turn.and_then(|turn| self.candidates.get(&turn.1));
            let Some(held) = held.filter(|_| passed == Some(bound)) else {
                self.set_passed(index, passed); // by what is left to its partition, too
                continue;
            };
            let (ask, turn) = (held.ask(), held.turn());
            match rooms.reserve(&ask, turn, &held.candidate.avoid) {
                Reserved::Made => {
                    let too_many = rooms.reserved_places().count() > self.most_reserved;
                    if let Some((place, _)) = rooms.last_reserved().filter(|_| too_many) {
                        rooms.cancel_on(place);
                    }
                    self.ledger.accounts[index].account.reserve(&ask, turn);
                    self.ledger.stale.insert(index);
                    return true;
                }
                Reserved::Taken => {
                    self.ledger.accounts[index].account.stand_back(turn);
                    self.note_passed(index);
                }
                Reserved::Never => {
                    self.ledger.accounts[index].account.give_up(turn);
                    self.note_passed(index);
                }
            }
        }
        false
    }

    /// Nothing is reserved any more for jobs that may not be placed now. Whether anything was.
    fn cancel_beyond(&mut self, rooms: &mut Rooms, index: usize) -> bool {
        let beyond = self.ledger.accounts[index].account.take_beyond();
        beyond.iter().for_each(|turn| self.cancel(rooms, turn.1));
        !beyond.is_empty()
    }

    /// The same of those to whose user, or partition, less is left than they ask for.
    fn cancel_capped(&mut self, rooms: &mut Rooms) {
        let mut reserved: Vec<(Turn, u64)> = rooms
            .reserved()
            .filter_map(|(job, ..)| Some((self.candidates.get(&job)?.turn(), job)))
            .collect();
        reserved.sort_unstable();
        let mut counted = Vec::new();
        for (_, job) in reserved {
            let Some(held) = self.candidates.get(&job) else { continue };
            let (account, resources) = (held.account, held.candidate.resources.clone());
            match self.ledger.limit_beside(account, &counted) < resources.cores {
                true => self.cancel(rooms, job),
                false => counted.push((account, resources)),
            }
        }
    }

    fn cancel(&mut self, rooms: &mut Rooms, job: u64) {
        rooms.cancel(job);
        if let Some(held) = self.candidates.get(&job) {
            self.ledger.accounts[held.account].account.cancel(&held.ask(), held.turn());
            self.ledger.stale.insert(held.account);
        }
    }

    /// Puts an account where it belongs by its first job that fits nowhere now.
    fn note_passed(&mut self, index: usize) {
        if self.most_reserved == 0 {
            return;
        }
        let limit = self.ledger.own_limit(index);
        let first = self.ledger.accounts[index].account.passed(limit, &self.candidates);
        let passed = first.map(|turn| self.ledger.at(index, turn));
        self.set_passed(index, passed);
    }

    fn set_passed(&mut self, index: usize, passed: Option<Bound>) {
        let before = std::mem::replace(&mut self.ledger.accounts[index].passed, passed);
        move_in(&mut self.passed, index, before, passed);
    }
}

/// A job that was taken out to be placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The job.
    pub candidate: Candidate,
    /// The node.
    pub node: String,
    /// When it will have ended there, at the latest; [`super::ends::NEVER`] where that is not known.
    pub until: Millis,
}
