//! Whoever comes first and has to wait is not put off by those that are placed past it.
//!
//! Where it waits for room, a node is reserved for it ([`super::reservations`]). Where it waits for what its partition
//! has left, that is kept for it: to those of its partition that do not come before it by priority the cap is so much
//! less, until it is placed or gone, or its own user, or the rules, keep it back. What is reserved counts the same.
//! In each partition something is kept so for one job at most. Once there is enough for it, it runs, or has a node
//! reserved.

use std::collections::BTreeSet;

use super::candidates::Turn;
use super::groups::{Bound, move_in};
use super::kept::{Keeping, Kept};
use super::ready::Ready;
use super::reservations::Reserved;
use super::rooms::Rooms;
use crate::model::resources::Resources;

/// So many jobs for which nothing can be reserved are passed over at a time.
const LOOKED_AT: usize = 256;

/// So many users are looked at for a job for which what their partition has left can be kept.
const USERS_LOOKED_AT: usize = 16;

impl Ready {
    /// Jobs for which what their partitions have left is kept.
    #[cfg(test)]
    pub(super) fn kept(&self) -> impl Iterator<Item = u64> {
        self.keeping.kept.values().map(|kept| kept.turn.1)
    }

    /// Reserves something for the first job that fits nowhere and comes before this, if for fewer than may be
    /// something is reserved, or for one of lower priority. Whether it did.
    pub(super) fn reserve_before(&mut self, rooms: &mut Rooms, exact: Option<Bound>) -> bool {
        let comes_before = |bound: Bound| exact.is_none_or(|exact| bound < exact);
        if !self.keeping.passed.first().is_some_and(|(bound, _)| comes_before(*bound)) {
            return false;
        }
        // Together they must not be more than may be had.
        let reserved = self.reserved(rooms);
        for _ in 0..LOOKED_AT {
            let Some((bound, index)) = self.keeping.passed.first().copied() else { return false };
            if !comes_before(bound) || self.is_full(rooms, bound.0) {
                return false;
            }
            let kept = self.keeping.kept.get(&self.ledger.accounts[index].group);
            let kept = kept.filter(|kept| kept.turn.0 <= bound.0).cloned();
            let kept = kept.map(|kept| (kept.account, kept.needs));
            let others = reserved.iter().map(|(_, account, job)| (*account, job.clone()));
            let others: Vec<(usize, Resources)> = others.chain(kept).collect();
            let limit = self.ledger.limit_beside(index, &others);
            let turn = self.ledger.accounts[index].account.passed(limit, &self.candidates);
            let passed = turn.map(|turn| self.ledger.at(index, turn));
            let Some(turn) = turn.filter(|_| passed == Some(bound)) else {
                self.set_passed(index, passed); // by what is left to its partition, too
                continue;
            };
            match self.reserve_node(rooms, index, turn) {
                Reserved::Made => return true,
                Reserved::Taken => self.ledger.accounts[index].account.stand_back(turn),
                Reserved::Never => self.ledger.accounts[index].account.give_up(turn),
            }
            self.note_passed(index);
        }
        false
    }

    /// Whether for as many as may be nodes are reserved, and for none of lower priority than this.
    fn is_full(&self, rooms: &Rooms, priority: std::cmp::Reverse<i64>) -> bool {
        let last = rooms.last_reserved();
        let is_full = rooms.reserved_places().count() >= self.keeping.most;
        is_full && last.is_none_or(|(_, turn)| turn.0 <= priority)
    }

    fn reserve_node(&mut self, rooms: &mut Rooms, index: usize, turn: Turn) -> Reserved {
        let Some(held) = self.candidates.get(&turn.1) else { return Reserved::Never };
        let ask = held.ask();
        let made = rooms.reserve(&ask, turn, &held.candidate.avoid);
        if made == Reserved::Made {
            let too_many = rooms.reserved_places().count() > self.keeping.most;
            if let Some((place, _)) = rooms.last_reserved().filter(|_| too_many) {
                rooms.cancel_on(place);
            }
            self.ledger.accounts[index].account.reserve(&ask, turn);
            self.ledger.stale.insert(index);
        }
        made
    }

    /// Those for which nodes are reserved, in their order: whose they are, and what they ask for.
    fn reserved(&self, rooms: &Rooms) -> Vec<(Turn, usize, Resources)> {
        let known = |job: u64| {
            let held = self.candidates.get(&job)?;
            Some((held.turn(), held.account, held.candidate.resources.clone()))
        };
        let mut all: Vec<_> = rooms.reserved().filter_map(|(job, ..)| known(job)).collect();
        all.sort();
        all
    }

    /// Keeps what is left to a partition for its first job that asks for more and comes before this one of an account
    /// of it. Whether it did, and has not before.
    pub(super) fn keep_before(&mut self, rooms: &Rooms, index: usize, exact: Bound) -> bool {
        let group = self.ledger.accounts[index].group;
        if self.keeping.most == 0 {
            return false;
        }
        for _ in 0..USERS_LOOKED_AT {
            let Some((index, turn)) = self.first_put_off(group, exact) else { return false };
            let known = self.keeping.kept.get(&group);
            if known.is_some_and(|known| known.turn.0 <= turn.0) {
                return false;
            }
            let Some(held) = self.candidates.get(&turn.1) else { return false };
            let ask = held.ask();
            if !rooms.is_possible(&ask) {
                self.ledger.accounts[index].account.lay_hopeless(&ask, turn);
                self.note_passed(index);
                continue;
            }
            self.release_kept(group);
            self.ledger.accounts[index].account.reserve(&ask, turn);
            self.ledger.stale.insert(index);
            let kept = Kept { turn, account: index, needs: ask.resources };
            self.keeping.kept.insert(group, kept);
            return true;
        }
        false
    }

    /// The first job of a group that only its partition keeps back, of those that come before this.
    fn first_put_off(&mut self, group: usize, exact: Bound) -> Option<(usize, Turn)> {
        let waiting = self.ledger.groups[group].waiting.iter();
        let before = waiting.take_while(|(bound, _)| *bound < exact).take(USERS_LOOKED_AT);
        let before: Vec<(Bound, usize)> = before.copied().collect();
        let mut best: Option<(Bound, usize, Turn)> = None;
        for (bound, index) in before {
            if best.is_some_and(|(best, ..)| best < bound) {
                break;
            }
            let (limits, most) = (self.ledger.limits(index), self.ledger.most(index));
            let account = &self.ledger.accounts[index].account;
            let Some(turn) = account.first_put_off(&limits, most, &self.candidates) else {
                continue;
            };
            let found = (self.ledger.at(index, turn), index, turn);
            if found.0 < exact && best.is_none_or(|best| found < best) {
                best = Some(found);
            }
        }
        best.map(|(_, index, turn)| (index, turn))
    }

    /// Nothing is kept any more of what a partition has left.
    pub(super) fn release_kept(&mut self, group: usize) {
        self.keeping.changed.insert(group);
        let Some(kept) = self.keeping.kept.remove(&group) else { return };
        let held = self.candidates.get(&kept.turn.1);
        if let Some(held) = held.filter(|held| held.account == kept.account) {
            self.ledger.accounts[kept.account].account.cancel(&held.ask(), kept.turn);
            self.ledger.stale.insert(kept.account);
        }
    }

    /// The same where its own user has too little left for it by now, or, after nodes changed, none could have it.
    pub(super) fn release_vain(&mut self, rooms: &Rooms, have_changed: bool) {
        let Keeping { kept, .. } = &self.keeping;
        if kept.is_empty() {
            return;
        }
        let own = |index: &usize| {
            let group = self.ledger.accounts[*index].group;
            let kept = kept.get(&group).filter(|kept| kept.account == *index)?;
            (self.ledger.most(*index) < kept.needs.cores).then_some(group)
        };
        let mut vain: Vec<usize> = self.ledger.stale.iter().filter_map(own).collect();
        if have_changed {
            let asks = |kept: &Kept| Some(self.candidates.get(&kept.turn.1)?.ask());
            let never = kept
                .iter()
                .filter(|(_, kept)| asks(kept).is_none_or(|ask| !rooms.is_possible(&ask)));
            vain.extend(never.map(|(group, _)| *group));
        }
        vain.into_iter().for_each(|group| self.release_kept(group));
    }

    /// What is kept counts from now on, where it is another than before.
    pub(super) fn note_kept(&mut self, rooms: &Rooms) {
        let reserved = self.reserved(rooms).into_iter();
        let reserved: Vec<(Turn, usize, Resources)> = reserved
            .map(|(turn, account, job)| (turn, self.ledger.accounts[account].group, job))
            .collect();
        let mut changed = std::mem::take(&mut self.keeping.changed);
        if reserved != self.keeping.reserved {
            let before = std::mem::replace(&mut self.keeping.reserved, reserved);
            changed.extend(before.iter().chain(&self.keeping.reserved).map(|(_, group, _)| *group));
        }
        for group in changed {
            let reserved = self.keeping.reserved.iter().filter(|(_, own, _)| *own == group);
            let reserved = reserved.map(|(turn, _, job)| (*turn, job.clone()));
            let kept = self.keeping.kept.get(&group).map(|kept| (kept.turn, kept.needs.clone()));
            let mut all: Vec<(Turn, Resources)> = reserved.chain(kept).collect();
            all.sort_by_key(|(turn, _)| turn.0); // of one priority those with nodes come first
            self.ledger.set_kept(group, all);
        }
    }

    /// Nothing is reserved any more for jobs of an account that may not be placed now; for one for which there is enough
    /// left by now, but no room, a node is. Whether anything is different.
    pub(super) fn settle_kept(&mut self, rooms: &mut Rooms, index: usize) -> bool {
        let (beyond, stuck) = self.ledger.accounts[index].account.take_stuck();
        let group = self.ledger.accounts[index].group;
        let kept = self.keeping.kept.get(&group).map(|kept| kept.turn);
        let mut any = false;
        for turn in beyond.into_iter().filter(|turn| kept != Some(*turn)) {
            self.cancel(rooms, turn.1);
            any = true;
        }
        if let Some(turn) = kept.filter(|turn| stuck.contains(turn) && !self.is_full(rooms, turn.0))
        {
            match self.reserve_node(rooms, index, turn) {
                Reserved::Made => self.keeping.forget(group, turn.1),
                Reserved::Taken | Reserved::Never => self.release_kept(group),
            }
            any = true;
        }
        any
    }

    /// Nothing is reserved any more for jobs to whose user, or partition, less is left than they ask for, beside those
    /// that come before.
    pub(super) fn cancel_capped(&mut self, rooms: &mut Rooms) {
        let reserved = self.reserved(rooms).into_iter();
        let mut all: Vec<(Turn, usize, Resources, bool)> =
            reserved.map(|(turn, account, job)| (turn, account, job, true)).collect();
        let groups: BTreeSet<usize> =
            all.iter().map(|(_, account, ..)| self.ledger.accounts[*account].group).collect();
        let kept = groups.iter().filter_map(|group| self.keeping.kept.get(group));
        all.extend(kept.map(|kept| (kept.turn, kept.account, kept.needs.clone(), false)));
        all.sort_by_key(|(turn, ..)| turn.0); // as in `note_kept`
        let mut counted = Vec::new();
        for (turn, account, job, is_reserved) in all {
            let limit = self.ledger.limit_beside(account, &counted);
            if is_reserved && (limit == 0 || limit < job.cores) {
                self.cancel(rooms, turn.1);
            } else {
                counted.push((account, job));
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

    /// Puts an account where it belongs by its first jobs that have to wait.
    pub(super) fn note_passed(&mut self, index: usize) {
        if self.keeping.most == 0 {
            return;
        }
        let limit = self.ledger.own_limit(index);
        let first = self.ledger.accounts[index].account.passed(limit, &self.candidates);
        let passed = first.map(|turn| self.ledger.at(index, turn));
        self.set_passed(index, passed);
        self.ledger.note_waiting(index);
    }

    fn set_passed(&mut self, index: usize, passed: Option<Bound>) {
        let before = std::mem::replace(&mut self.ledger.accounts[index].passed, passed);
        move_in(&mut self.keeping.passed, index, before, passed);
    }
}
