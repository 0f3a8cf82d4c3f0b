//! The jobs that may be placed, and which of them is next: higher priority first, then whose user has had
//! least, then the lower number.
//!
//! Each user's jobs are an `Account`, which knows its own next job. Which account comes first changes with
//! whatever is placed and ends, so no order of all jobs is kept. Of each account a bound is known that none of its
//! jobs comes before, and the one with the first bound is asked, until what it has is before the bounds of all
//! others.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::Candidate;
use super::account::{Account, Candidates, Held, Turn};
use super::gates::{Cap, InUse, within_u64};
use super::rooms::Rooms;
use super::sites::SiteId;
use crate::model::resources::Resources;
use crate::strategy::Strategy;

/// So many sites that nobody's jobs have any more are kept.
const MOST_IDLE_SITES: usize = 64;

/// A core that a user has now counts as if they had had it for so long already, in seconds: of two who have had
/// as much the next job is whose jobs have fewer cores, and one who has had more catches others up by and by.
const ADVANCE: u64 = 10;

/// The order of accounts: by priority, by what their user has had, by number.
type Bound = (Reverse<i64>, u64, u64);

/// A user, and the jobs of theirs that wait.
#[derive(Debug, Default)]
struct User {
    account: Account,
    /// Core seconds that they have had.
    had: u64,
    used: InUse,
    /// Where they are in [`Ready::order`].
    bound: Option<Bound>,
}

impl User {
    /// What they have had and have, in core seconds.
    fn standing(&self) -> u64 {
        let ahead = within_u64(self.used.cores * u128::from(ADVANCE));
        self.had.saturating_add(ahead)
    }

    fn at(&self, (Reverse(priority), number): Turn) -> Bound {
        (Reverse(priority), self.standing(), number)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Ready {
    candidates: Candidates,
    users: Vec<User>,
    by_name: HashMap<Option<Arc<str>>, usize>,
    /// Users with jobs that may be placed, as far as is known.
    order: BTreeSet<(Bound, usize)>,
    /// Those who are to be sorted in anew.
    stale: BTreeSet<usize>,
    /// How many jobs each site has.
    in_use: HashMap<SiteId, usize>,
    cap: Cap,
    /// See [`Rooms::epoch`].
    epoch: u64,
}

impl Ready {
    /// Without jobs; each user may have so much at a time.
    pub fn capped(cap: Cap) -> Ready {
        Ready { cap, ..Ready::default() }
    }

    /// Adds a job, or replaces what is known of it.
    pub fn insert(&mut self, rooms: &mut Rooms, candidate: Candidate) {
        self.remove(candidate.job);
        self.follow(rooms);
        let most = 2 * self.in_use.len() + MOST_IDLE_SITES + self.candidates.len() / 100;
        if rooms.sites().len() > most {
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
        let user = self.user(candidate.owner.as_ref());
        let held = Held { candidate, site };
        let (ask, turn) = (held.ask(), held.turn());
        self.candidates.insert(turn.1, held);
        *self.in_use.entry(site).or_insert(0) += 1;
        self.users[user].account.add(&ask, turn);
        self.stale.insert(user);
    }

    fn user(&mut self, name: Option<&Arc<str>>) -> usize {
        let name = name.cloned();
        if let Some(known) = self.by_name.get(&name) {
            return *known;
        }
        self.users.push(User::default());
        self.by_name.insert(name, self.users.len() - 1);
        self.users.len() - 1
    }

    /// Sorts all anew if sites have other numbers than before.
    fn follow(&mut self, rooms: &mut Rooms) {
        if self.epoch == rooms.epoch() {
            return;
        }
        self.epoch = rooms.epoch();
        self.in_use.clear();
        for user in &mut self.users {
            user.account = Account::default();
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
        let user = self.user(held.candidate.owner.as_ref());
        self.users[user].account.remove(&held.ask(), held.turn());
        self.stale.insert(user);
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

    /// A node has a job of this user's.
    pub fn charge(&mut self, owner: Option<&Arc<str>>, job: &Resources) {
        let user = self.user(owner);
        self.users[user].used.add(job);
        self.stale.insert(user);
    }

    /// It has it no more.
    pub fn discharge(&mut self, owner: Option<&Arc<str>>, job: &Resources) {
        let user = self.user(owner);
        self.users[user].used.sub(job);
        if self.cap != Cap::default() {
            self.users[user].account.revive();
        }
        self.stale.insert(user);
    }

    /// A job that is there runs, or does not any more.
    pub fn note_running(&mut self, owner: Option<&Arc<str>>, job: &Resources, runs: bool) {
        let user = self.user(owner);
        let used = &mut self.users[user].used;
        if runs { used.run(job) } else { used.stop(job) }
    }

    /// The users of whom something is known, and what their jobs have.
    pub fn in_use(&self) -> impl Iterator<Item = (Option<&Arc<str>>, InUse)> {
        self.by_name.iter().map(|(name, user)| (name.as_ref(), self.users[*user].used))
    }

    /// What each user has had, in core seconds.
    pub fn set_had(&mut self, had: impl Fn(Option<&Arc<str>>) -> u64) {
        for (name, user) in &self.by_name {
            let new = had(name.as_ref());
            let user_record = &mut self.users[*user];
            if user_record.had != new {
                user_record.had = new;
                self.stale.insert(*user);
            }
        }
    }

    /// The next placement, if there is one: the job is taken out, the node's room is used up, and its user is charged.
    pub fn place_next(&mut self, rooms: &mut Rooms) -> Option<(Candidate, String)> {
        self.follow(rooms);
        for place in rooms.take_grown() {
            for (index, user) in self.users.iter_mut().enumerate() {
                if user.account.hope(place) {
                    self.stale.insert(index);
                }
            }
        }
        for index in std::mem::take(&mut self.stale) {
            self.sort_in(index, None);
        }
        loop {
            let (bound, index) = self.order.first().copied()?;
            let user = &mut self.users[index];
            let limit = self.cap.left(user.used);
            let Some((turn, place)) = user.account.next(limit, rooms, &self.candidates) else {
                self.sort_in(index, None);
                continue;
            };
            let exact = user.at(turn);
            let second = self.order.iter().nth(1).map(|(second, _)| *second);
            if exact > bound && second.is_some_and(|second| second < exact) {
                self.sort_in(index, Some(turn));
                continue;
            }
            let candidate = self.remove(turn.1)?;
            rooms.take_at(place, &candidate.resources);
            self.users[index].used.add(&candidate.resources);
            self.stale.insert(index);
            if candidate.strategy == Strategy::RoundRobin {
                rooms.pass_turn(place);
            }
            return Some((candidate, rooms.name(place).to_string()));
        }
    }

    /// Puts a user where they belong: by their first job that may be placed, where that is known.
    fn sort_in(&mut self, index: usize, first: Option<Turn>) {
        let user = &mut self.users[index];
        let limit = self.cap.left(user.used);
        let bound = first.or_else(|| user.account.bound(limit)).map(|turn| user.at(turn));
        if user.bound == bound {
            return;
        }
        if let Some(before) = std::mem::replace(&mut user.bound, bound) {
            self.order.remove(&(before, index));
        }
        self.order.extend(bound.map(|bound| (bound, index)));
    }
}
