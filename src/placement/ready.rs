//! The jobs that may be placed, and which of them is next: higher priority first, then whose user has had
//! least, then the lower number.
//!
//! Each user's jobs are an `Account`, which knows its own next job. Which account comes first changes with
//! whatever is placed and ends, so no order of all jobs is kept. Of each account a bound is known that none of its
//! jobs comes before, and the one with the first bound is asked, until what it has is before the bounds of all
//! others.
//!
//! Where a job is to be placed past others that come before it and fit nowhere, something is reserved for the
//! first of these, and it is looked again who is next.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::Candidate;
use super::account::Account;
use super::candidates::{Candidates, Held, Turn};
use super::ends::Millis;
use super::gates::{Cap, InUse, within_u64};
use super::reservations::Reserved;
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
    /// Where they are in [`Ready::passed`].
    passed: Option<Bound>,
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
    /// Places in `users` that are nobody's.
    vacant: Vec<usize>,
    /// Users with jobs that may be placed, as far as is known.
    order: BTreeSet<(Bound, usize)>,
    /// Users with jobs that fit nowhere now, by the first of these.
    passed: BTreeSet<(Bound, usize)>,
    /// For so many jobs at most something is reserved.
    most_reserved: usize,
    /// Those of them that were taken out since this was last looked at.
    gone: BTreeSet<u64>,
    /// What nodes had in all, and were like, when it was last found that none could have a job.
    shape: u64,
    /// Those who are to be sorted in anew.
    stale: BTreeSet<usize>,
    /// How many jobs each site has.
    in_use: HashMap<SiteId, usize>,
    cap: Cap,
    /// See [`Rooms::epoch`].
    epoch: u64,
}

impl Ready {
    /// Without jobs; each user may have so much at a time, and for so many jobs at most something is reserved.
    pub fn with(cap: Cap, most_reserved: usize) -> Ready {
        Ready { cap, most_reserved, ..Ready::default() }
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
        let site = rooms.site(candidate.selector.as_ref(), candidate.owner.as_ref());
        if candidate.strategy != Strategy::Spread {
            rooms.use_strategy(candidate.strategy);
        }
        let user = self.user(candidate.owner.as_ref());
        let held = Held { candidate, site };
        let (ask, turn) = (held.ask(), held.turn());
        self.candidates.insert(turn.1, held);
        *self.in_use.entry(site).or_insert(0) += 1;
        let account = &mut self.users[user].account;
        self.gone.remove(&turn.1);
        match rooms.is_reserved(turn, &ask.resources) {
            true => account.reserve(&ask, turn),
            false => {
                rooms.cancel(turn.1);
                account.add(&ask, turn);
            }
        }
        self.stale.insert(user);
    }

    fn user(&mut self, name: Option<&Arc<str>>) -> usize {
        let name = name.cloned();
        if let Some(known) = self.by_name.get(&name) {
            return *known;
        }
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.users.push(User::default());
            self.users.len() - 1
        });
        self.by_name.insert(name, index);
        index
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
        if self.most_reserved > 0 {
            self.gone.insert(job);
        }
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
        self.users[user].account.revive();
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
        self.forget_users();
    }

    /// Of whom nothing is known is nobody any more.
    fn forget_users(&mut self) {
        let (users, stale) = (&self.users, &self.stale);
        let idle = |index: usize| {
            let user = &users[index];
            let nowhere = user.bound.is_none() && user.passed.is_none() && !stale.contains(&index);
            nowhere && user.had == 0 && user.used == InUse::default() && user.account.is_empty()
        };
        let gone = self.by_name.iter().filter(|(_, index)| idle(**index));
        let gone: Vec<(Option<Arc<str>>, usize)> =
            gone.map(|(name, index)| (name.clone(), *index)).collect();
        for (name, index) in gone {
            self.by_name.remove(&name);
            self.users[index] = User::default();
            self.vacant.push(index);
        }
    }

    /// The next placement, if there is one: the job is taken out, the node's room is used up, and its user is charged.
    pub fn place_next(&mut self, rooms: &mut Rooms) -> Option<Placed> {
        self.catch_up(rooms);
        loop {
            let (bound, index) = self.order.first().copied()?;
            let user = &mut self.users[index];
            let limit = self.cap.left(user.used);
            let next = user.account.next(limit, rooms, &self.candidates);
            self.note_passed(index);
            if self.cancel_beyond(rooms, index) {
                self.catch_up(rooms); // others may have it
                continue;
            }
            let Some((turn, place)) = next else {
                self.sort_in(index, None);
                continue;
            };
            let exact = self.users[index].at(turn);
            let second = self.order.iter().nth(1).map(|(second, _)| *second);
            if exact > bound && second.is_some_and(|second| second < exact) {
                self.sort_in(index, Some(turn));
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
            self.users[index].used.add(&candidate.resources);
            self.stale.insert(index);
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
        for job in rooms.take_lost() {
            if let Some(held) = self.candidates.get(&job) {
                let user = self.by_name.get(&held.candidate.owner).copied();
                if let Some(user) = user {
                    self.users[user].account.cancel(&held.ask(), held.turn());
                    self.stale.insert(user);
                }
            }
        }
        for place in rooms.take_grown() {
            for (index, user) in self.users.iter_mut().enumerate() {
                if user.account.hope(place) {
                    self.stale.insert(index);
                }
            }
        }
        if self.shape != rooms.shape {
            self.shape = rooms.shape;
            self.users.iter_mut().for_each(|user| user.account.take_heart());
            self.stale.extend(0..self.users.len());
        }
        for index in std::mem::take(&mut self.stale) {
            self.sort_in(index, None);
            self.note_passed(index);
        }
    }

    /// Reserves something for the first job that fits nowhere and comes before this, if for fewer than may be
    /// something is reserved, or for one of lower priority. Whether it did.
    fn reserve_before(&mut self, rooms: &mut Rooms, exact: Option<Bound>) -> bool {
        while let Some((bound, index)) = self.passed.first().copied() {
            if exact.is_some_and(|exact| exact <= bound) || self.most_reserved == 0 {
                return false;
            }
            let last = rooms.last_reserved();
            let is_full = rooms.reserved_places().count() >= self.most_reserved;
            if is_full && last.is_none_or(|(_, turn)| turn.0 <= bound.0) {
                return false;
            }
            let user = &self.users[index];
            let turn = user.account.passed(self.cap.left(user.used), &self.candidates);
            let held = turn.and_then(|turn| self.candidates.get(&turn.1));
            let Some(held) = held else {
                self.note_passed(index); // it is what it was noted by that is wrong
                return false;
            };
            let (ask, turn) = (held.ask(), held.turn());
            match rooms.reserve(&ask, turn, &held.candidate.avoid) {
                Reserved::Made => {
                    let too_many = rooms.reserved_places().count() > self.most_reserved;
                    if let Some((place, _)) = rooms.last_reserved().filter(|_| too_many) {
                        rooms.cancel_on(place);
                    }
                    self.users[index].account.reserve(&ask, turn);
                    self.stale.insert(index);
                    return true;
                }
                Reserved::Taken => return false,
                Reserved::Never => {
                    self.users[index].account.give_up(turn);
                    self.note_passed(index);
                }
            }
        }
        false
    }

    /// Nothing is reserved any more for jobs that their user may not have now. Whether anything was.
    fn cancel_beyond(&mut self, rooms: &mut Rooms, index: usize) -> bool {
        let beyond = self.users[index].account.take_beyond();
        for turn in &beyond {
            rooms.cancel(turn.1);
            if let Some(held) = self.candidates.get(&turn.1) {
                self.users[index].account.cancel(&held.ask(), *turn);
            }
        }
        let any = !beyond.is_empty();
        if any {
            self.stale.insert(index);
        }
        any
    }

    /// Puts a user where they belong: by their first job that may be placed, where that is known.
    fn sort_in(&mut self, index: usize, first: Option<Turn>) {
        let user = &mut self.users[index];
        let limit = self.cap.left(user.used);
        let bound = first.or_else(|| user.account.bound(limit)).map(|turn| user.at(turn));
        let before = std::mem::replace(&mut user.bound, bound);
        move_in(&mut self.order, index, before, bound);
    }

    /// The same by their first job that fits nowhere now.
    fn note_passed(&mut self, index: usize) {
        if self.most_reserved == 0 {
            return;
        }
        let user = &mut self.users[index];
        let first = user.account.passed(self.cap.left(user.used), &self.candidates);
        let passed = first.map(|turn| user.at(turn));
        let before = std::mem::replace(&mut user.passed, passed);
        move_in(&mut self.passed, index, before, passed);
    }
}

fn move_in(
    order: &mut BTreeSet<(Bound, usize)>,
    index: usize,
    from: Option<Bound>,
    to: Option<Bound>,
) {
    if from != to {
        if let Some(from) = from {
            order.remove(&(from, index));
        }
        order.extend(to.map(|to| (to, index)));
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
