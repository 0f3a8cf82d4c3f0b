//! Whose jobs there are: what each user and each partition has, and how much more they may have.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::account::Account;
use super::candidates::Turn;
use super::gates::{Cap, Caps, InUse, Uses, within_u64};
use super::groups::{Bound, Group, Rules, Sorted, move_in};
use super::limits::Limits;
use crate::model::resources::Resources;

/// A core that a user has now counts as if they had had it for so long already, in seconds: of two who have had
/// as much the next job is whose jobs have fewer cores, and one who has had more catches others up by and by.
const ADVANCE: u64 = 10;

/// Whose a job is, and for which partition.
type Key = (Option<Arc<str>>, Option<Arc<str>>);

/// The jobs of one user for one partition, or for none.
#[derive(Debug, Default)]
pub(super) struct Own {
    /// Those that may be placed.
    pub account: Account,
    /// How many wait, those included of a partition by whose rules nobody can go.
    pub jobs: usize,
    user: usize,
    pub group: usize,
    used: InUse,
    /// Where it is in [`Group::order`].
    bound: Option<Bound>,
    /// Where it is among those with jobs that fit nowhere now.
    pub passed: Option<Bound>,
    /// Where it is in [`Group::waiting`].
    waiting: Option<Bound>,
}

/// A user.
#[derive(Debug, Default)]
struct User {
    /// Core seconds that they have had.
    had: u64,
    used: InUse,
    /// Their accounts.
    own: Vec<usize>,
}

impl User {
    /// What they have had and have, in core seconds.
    fn standing(&self) -> u64 {
        let ahead = within_u64(self.used.cores * u128::from(ADVANCE));
        self.had.saturating_add(ahead)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Ledger {
    pub accounts: Vec<Own>,
    by_key: HashMap<Key, usize>,
    users: Vec<User>,
    by_name: HashMap<Option<Arc<str>>, usize>,
    /// Places in `accounts`, in `users`, and in `groups`, that are nobody's.
    vacant: (Vec<usize>, Vec<usize>, Vec<usize>),
    /// The first is for the jobs of no partition.
    pub groups: Vec<Group>,
    by_partition: HashMap<Arc<str>, usize>,
    /// Groups with jobs that may be placed, by their first accounts.
    leading: BTreeSet<((Bound, usize), usize)>,
    /// How often a limit was asked for.
    #[cfg(test)]
    pub asked: usize,
    /// Groups of which less may be in use than before.
    freed: BTreeSet<usize>,
    /// Accounts that are to be sorted in anew.
    pub stale: BTreeSet<usize>,
    /// What each user may have at a time.
    cap: Cap,
}

impl Ledger {
    /// Nobody has anything.
    pub fn new(cap: Cap) -> Ledger {
        Ledger {
            cap,
            groups: vec![Group {
                rules: Some(Rules::default()),
                sorted: Some(Sorted::default()),
                ..Group::default()
            }],
            accounts: Vec::new(),
            by_key: HashMap::new(),
            users: Vec::new(),
            by_name: HashMap::new(),
            vacant: (Vec::new(), Vec::new(), Vec::new()),
            leading: BTreeSet::new(),
            by_partition: HashMap::new(),
            #[cfg(test)]
            asked: 0,
            freed: BTreeSet::new(),
            stale: BTreeSet::new(),
        }
    }

    /// The place of an account; a new one where there is none.
    pub fn account(&mut self, user: Option<&Arc<str>>, partition: Option<&Arc<str>>) -> usize {
        let key = (user.cloned(), partition.cloned());
        if let Some(known) = self.by_key.get(&key) {
            return *known;
        }
        let (user, group) = (self.user(user), self.group(partition));
        let index = self.vacant.0.pop().unwrap_or_else(|| {
            self.accounts.push(Own::default());
            self.accounts.len() - 1
        });
        self.accounts[index] = Own { user, group, ..Own::default() };
        self.users[user].own.push(index);
        self.by_key.insert(key, index);
        index
    }

    fn user(&mut self, name: Option<&Arc<str>>) -> usize {
        let name = name.cloned();
        if let Some(known) = self.by_name.get(&name) {
            return *known;
        }
        let index = self.vacant.1.pop().unwrap_or_else(|| {
            self.users.push(User::default());
            self.users.len() - 1
        });
        self.by_name.insert(name, index);
        index
    }

    fn group(&mut self, partition: Option<&Arc<str>>) -> usize {
        let Some(name) = partition else { return 0 };
        if let Some(known) = self.by_partition.get(name) {
            return *known;
        }
        let index = self.vacant.2.pop().unwrap_or_else(|| {
            self.groups.push(Group::default());
            self.groups.len() - 1
        });
        self.by_partition.insert(name.clone(), index);
        index
    }

    /// What the jobs of a partition, or of none, are sorted by.
    pub fn sorted(&self, partition: Option<&Arc<str>>) -> Option<&Sorted> {
        let group = partition.map_or(Some(&0), |name| self.by_partition.get(name));
        self.groups[*group?].sorted.as_ref()
    }

    /// Takes over rules: of which group, and whether its jobs go to other nodes, or come in another order, than before.
    pub fn set_rules(&mut self, partition: &Arc<str>, rules: Option<Rules>) -> (usize, bool) {
        let group = self.group(Some(partition));
        let known = &mut self.groups[group];
        // While nobody can go by them its jobs stay where they are: most often the same come again.
        let sorted = rules.as_ref().map(Rules::sorted).or_else(|| known.sorted.clone());
        let sort_anew = known.sorted != sorted;
        (known.rules, known.sorted) = (rules, sorted);
        known.limited.clear();
        for (index, own) in self.accounts.iter_mut().enumerate() {
            if own.group == group {
                own.account.revive();
                self.stale.insert(index);
            }
        }
        self.note_first(group);
        (group, sort_anew)
    }

    /// A node has a job of this account's.
    pub fn charge(&mut self, index: usize, job: &Resources) {
        let own = &mut self.accounts[index];
        own.used.add(job);
        self.users[own.user].used.add(job);
        let group = own.group;
        self.groups[group].used.add(job);
        self.stale.extend(&self.users[own.user].own);
        self.note_first(group);
    }

    /// It has it no more.
    pub fn discharge(&mut self, index: usize, job: &Resources) {
        let own = &mut self.accounts[index];
        own.used.sub(job);
        let (user, group) = (&mut self.users[own.user], &mut self.groups[own.group]);
        user.used.sub(job);
        group.used.sub(job);
        let (index, freed) = (own.group, user.own.clone());
        self.freed.insert(index);
        self.revive(freed);
        self.note_first(index);
    }

    /// Looks again for what may be had by now of partitions that have more left. What was taken out to be taken in anew
    /// is there again.
    pub fn look_at_freed(&mut self) {
        for group in std::mem::take(&mut self.freed) {
            let freed = self.groups[group].take_freed();
            self.revive(freed);
        }
    }

    fn revive(&mut self, all: Vec<usize>) {
        for index in all {
            self.accounts[index].account.revive();
            self.stale.insert(index);
        }
    }

    /// For which jobs of a group something is kept from now on.
    pub fn set_kept(&mut self, group: usize, mut kept: Vec<(Turn, Resources)>) {
        let known = &mut self.groups[group];
        if known.rules.as_ref().is_none_or(|rules| rules.caps.partition == Cap::default()) {
            kept.clear();
        }
        if known.kept != kept {
            known.kept = kept;
            let limited = std::mem::take(&mut known.limited).into_keys().collect();
            self.revive(limited);
        }
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
            let user = &mut self.users[*user];
            if user.had != new {
                user.had = new;
                self.stale.extend(&user.own);
            }
        }
        self.forget();
    }

    /// Of what nothing is known is nobody's any more.
    fn forget(&mut self) {
        let (accounts, stale) = (&self.accounts, &self.stale);
        let idle = |index: usize| {
            let own = &accounts[index];
            let sorted = [own.bound, own.passed, own.waiting];
            let nowhere = sorted.iter().all(Option::is_none) && !stale.contains(&index);
            nowhere && own.used == InUse::default() && own.jobs == 0
        };
        let gone = self.by_key.iter().filter(|(_, index)| idle(**index));
        let gone: Vec<(Key, usize)> = gone.map(|(key, index)| (key.clone(), *index)).collect();
        for (key, index) in gone {
            let own = std::mem::take(&mut self.accounts[index]);
            self.users[own.user].own.retain(|other| *other != index);
            self.groups[own.group].limited.remove(&index);
            self.by_key.remove(&key);
            self.vacant.0.push(index);
        }
        self.forget_groups();
        let users = &self.users;
        let nobody =
            |user: &User| user.own.is_empty() && user.had == 0 && user.used == InUse::default();
        let gone = self.by_name.iter().filter(|(_, index)| nobody(&users[**index]));
        let gone: Vec<(Option<Arc<str>>, usize)> =
            gone.map(|(name, index)| (name.clone(), *index)).collect();
        for (name, index) in gone {
            self.by_name.remove(&name);
            self.users[index] = User::default();
            self.vacant.1.push(index);
        }
    }

    /// Partitions that are not there, and of whose jobs nothing is known, are no more than a name.
    fn forget_groups(&mut self) {
        let gone = |group: usize| {
            let known = &self.groups[group];
            known.rules.is_none() && known.used == InUse::default()
        };
        let mut gone: HashMap<usize, Arc<str>> = self
            .by_partition
            .iter()
            .filter(|(_, group)| gone(**group))
            .map(|(name, group)| (*group, name.clone()))
            .collect();
        if gone.is_empty() {
            return;
        }
        self.by_key.values().for_each(|index| _ = gone.remove(&self.accounts[*index].group));
        for (group, name) in gone {
            self.by_partition.remove(&name);
            self.groups[group] = Group::default();
            self.vacant.2.push(group);
        }
    }

    /// Where a job of this turn comes among those of all accounts.
    pub fn at(&self, index: usize, (Reverse(priority), number): Turn) -> Bound {
        (Reverse(priority), self.users[self.accounts[index].user].standing(), number)
    }

    /// What the next job of an account may have. What is looked for by that has to be looked for again once more is
    /// left to its partition.
    pub fn limits(&mut self, index: usize) -> Limits {
        #[cfg(test)]
        {
            self.asked += 1;
        }
        let (group, own) = (self.accounts[index].group, self.own_limit(index));
        let known = &mut self.groups[group];
        let cap = known.rules.as_ref().map_or(Cap::NOTHING, |rules| rules.caps.partition);
        let limits = Limits::new(own, &cap, known.used, &known.kept);
        if limits.least() < own {
            known.limited.insert(index, known.used);
        }
        limits
    }

    /// The most that a job of an account may have that waits for what its partition has left alone.
    pub fn most(&self, index: usize) -> u64 {
        self.own_limit(index).min(self.groups[self.accounts[index].group].most())
    }

    /// The most cores that the next job of an account may have if these jobs of these accounts were placed before.
    pub fn limit_beside(&mut self, index: usize, reserved: &[(usize, Resources)]) -> u64 {
        let own = &self.accounts[index];
        let mut uses = Uses {
            user: self.users[own.user].used,
            partition: self.groups[own.group].used,
            user_in: own.used,
        };
        for (account, job) in reserved {
            let other = &self.accounts[*account];
            let same = [
                (&mut uses.user, other.user == own.user),
                (&mut uses.partition, other.group == own.group),
                (&mut uses.user_in, *account == index),
            ];
            same.into_iter().filter(|(_, same)| *same).for_each(|(used, _)| used.add(job));
        }
        let group = own.group;
        let rules = self.groups[group].rules.as_ref();
        let caps = rules.map(|rules| Caps { user: self.cap, ..rules.caps });
        if rules.is_some_and(|rules| rules.caps.partition != Cap::default()) {
            let known = &mut self.groups[group];
            known.limited.insert(index, known.used);
        }
        caps.map_or(0, |caps| caps.left(uses))
    }

    /// The same as [`Ledger::limits`], but for what is left to its partition.
    pub fn own_limit(&self, index: usize) -> u64 {
        let own = &self.accounts[index];
        let rules = self.groups[own.group].rules.as_ref();
        let left = rules.map_or(0, |rules| rules.caps.user_in.left(own.used));
        left.min(self.cap.left(self.users[own.user].used))
    }

    /// The account whose jobs come first, as far as is known, with its bound, and the bound of the next.
    pub fn first(&self) -> Option<((Bound, usize), Option<Bound>)> {
        let mut leading = self.leading.iter();
        let (first, group) = *leading.next()?;
        let other = leading.next().map(|(first, _)| *first);
        let seconds = [self.groups[group].second(), other].into_iter().flatten();
        Some((first, seconds.min().map(|(bound, _)| bound)))
    }

    /// Puts a group where it belongs by its first account.
    fn note_first(&mut self, group: usize) {
        let known = &mut self.groups[group];
        let first = known.first();
        let before = std::mem::replace(&mut known.leads, first);
        if before != first {
            before.into_iter().for_each(|before| _ = self.leading.remove(&(before, group)));
            self.leading.extend(first.map(|first| (first, group)));
        }
    }

    /// Puts an account where it belongs by this bound.
    pub fn sort_in(&mut self, index: usize, bound: Option<Bound>) {
        let own = &mut self.accounts[index];
        let (before, group) = (std::mem::replace(&mut own.bound, bound), own.group);
        move_in(&mut self.groups[group].order, index, before, bound);
        self.note_first(group);
    }

    /// Puts an account where it belongs by its first job that waits for what is left, or for room.
    pub fn note_waiting(&mut self, index: usize) {
        let group = self.accounts[index].group;
        let rules = self.groups[group].rules.as_ref();
        let is_capped = rules.is_some_and(|rules| rules.caps.partition.cores.is_some());
        let first = is_capped.then(|| self.accounts[index].account.first_waiting(self.most(index)));
        let bound = first.flatten().map(|turn| self.at(index, turn));
        let before = std::mem::replace(&mut self.accounts[index].waiting, bound);
        move_in(&mut self.groups[group].waiting, index, before, bound);
    }

    /// Puts an account where it belongs by its next job, as if its partition had no cap of its own.
    pub fn sort_anew(&mut self, index: usize) {
        let turn = self.accounts[index].account.bound(self.own_limit(index));
        let bound = turn.map(|turn| self.at(index, turn));
        self.sort_in(index, bound);
    }
}
