//! The jobs that may be placed, and which of them is next: higher priority first, then whose user has had
//! least, then the lower number.
//!
//! Each user's jobs for one partition, or for none, are an `Account`, which knows its own next job. Which account
//! comes first changes with whatever is placed and ends, so no order of all jobs is kept. Of each account a bound is
//! known that none of its jobs comes before, and the one with the first bound is asked, until what it has is before
//! the bounds of all others. Accounts are kept by partition (`groups`): one that is at its cap is passed over with
//! all that are in it.
//!
//! Where a job is to be placed past others that come before it and have to wait, something is kept for the first of
//! these (`keeping`), and it is looked again who is next.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::Candidate;
use super::account::Account;
use super::candidates::{Candidates, Held};
use super::ends::Millis;
use super::gates::{Cap, InUse};
use super::groups::Rules;
use super::kept::Keeping;
use super::ledger::Ledger;
use super::rooms::Rooms;
use super::sites::SiteId;
use super::spots::PlaceId;
use crate::model::resources::Resources;
use crate::model::selector::Selector;
use crate::strategy::Strategy;

/// So many sites that nobody's jobs have any more are kept.
const MOST_IDLE_SITES: usize = 64;

/// See the module.
#[derive(Debug)]
pub struct Ready {
    pub(super) candidates: Candidates,
    pub(super) ledger: Ledger,
    pub(super) keeping: Keeping,
    /// Jobs that were taken out since this was last looked at, and the groups that they were in.
    gone: BTreeMap<u64, usize>,
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
            keeping: Keeping::new(most_reserved),
            ledger: Ledger::new(cap),
            candidates: HashMap::new(),
            gone: BTreeMap::new(),
            opened: 0,
            shape: 0,
            in_use: HashMap::new(),
            epoch: 0,
        }
    }

    /// By which rules jobs of this partition are placed; `None`: none is placed.
    pub fn set_partition(&mut self, rooms: &mut Rooms, name: &Arc<str>, rules: Option<Rules>) {
        let (group, sort_anew) = self.ledger.set_rules(name, rules);
        self.release_kept(group);
        if !sort_anew {
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
        let sorted = self.ledger.sorted(candidate.partition.as_ref());
        let own = candidate.selector.as_ref();
        sorted.map_or_else(|| own.cloned(), |sorted| sorted.selector(own))
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
        let more = self.ledger.sorted(partition.as_ref()).map(|sorted| sorted.priority);
        let site = rooms.site(self.selector(&candidate).as_ref(), owner.as_ref());
        if *strategy != Strategy::Spread {
            rooms.use_strategy(*strategy);
        }
        let priority = candidate.priority.saturating_add(more.unwrap_or(0));
        let held = Held { candidate, site, priority, account };
        let (ask, turn) = (held.ask(), held.turn());
        self.candidates.insert(turn.1, held);
        *self.in_use.entry(site).or_insert(0) += 1;
        let before = self.gone.remove(&turn.1);
        let group = self.ledger.accounts[account].group;
        let is_kept = self.keeping.has(group, account, turn, &ask.resources);
        let own = &mut self.ledger.accounts[account];
        own.jobs += 1;
        if more.is_some() && (is_kept || rooms.is_reserved(turn, &ask.resources)) {
            own.account.reserve(&ask, turn);
        } else {
            rooms.cancel(turn.1);
            before.into_iter().for_each(|group| self.keeping.forget(group, turn.1));
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
        if self.keeping.most > 0 {
            self.gone.insert(job, own.group);
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
            let limits = self.ledger.limits(index);
            let next = self.ledger.accounts[index].account.next(&limits, rooms, &self.candidates);
            self.note_passed(index);
            if self.settle_kept(rooms, index) {
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
            if self.reserve_before(rooms, Some(exact)) || self.keep_before(rooms, index, exact) {
                self.catch_up(rooms);
                continue;
            }
            let candidate = self.remove(turn.1)?;
            self.gone.remove(&turn.1);
            self.keeping.forget(self.ledger.accounts[index].group, turn.1);
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
        for (job, group) in std::mem::take(&mut self.gone) {
            rooms.cancel(job);
            self.keeping.forget(group, job);
        }
        rooms.look_at_changed();
        for job in rooms.take_lost() {
            if let Some(held) = self.candidates.get(&job) {
                self.ledger.accounts[held.account].account.cancel(&held.ask(), held.turn());
                self.ledger.stale.insert(held.account);
            }
        }
        self.cancel_capped(rooms);
        self.release_vain(rooms, self.shape != rooms.shape);
        self.note_kept(rooms);
        self.ledger.look_at_freed();
        let grown: Vec<PlaceId> = rooms.take_grown().collect();
        for place in grown {
            for (index, own) in self.ledger.accounts.iter_mut().enumerate() {
                if own.account.hope(place, rooms, &self.candidates) {
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
