//! The jobs of each partition, and those of none: what their rules let be placed, and whose is next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::candidates::Turn;
use super::gates::{Caps, InUse};
use crate::model::partition::Partition;
use crate::model::resources::Resources;
use crate::model::selector::Selector;

/// The order of accounts: by priority, by what their user has had, by number.
pub(super) type Bound = (std::cmp::Reverse<i64>, u64, u64);

/// What placement goes by of a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Which nodes are in it, where not all are.
    pub selector: Option<Arc<Selector>>,
    /// Added to the priority of its jobs.
    pub priority: i64,
    /// Its own, and each user's in it.
    pub caps: Caps,
}

impl Rules {
    /// Those of a partition.
    pub fn of(partition: &Partition) -> Rules {
        let caps = Caps::of(super::Cap::default(), Some(partition));
        Rules { selector: partition.selector.clone(), priority: partition.priority, caps }
    }

    /// What jobs are sorted by that go by these.
    pub(super) fn sorted(&self) -> Sorted {
        Sorted { selector: self.selector.clone(), priority: self.priority }
    }
}

/// By what the jobs of a partition are sorted: to which nodes they may go, and what is added to their priority.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sorted {
    pub selector: Option<Arc<Selector>>,
    pub priority: i64,
}

impl Sorted {
    /// Which nodes a job of it may go to that says this.
    pub fn selector(&self, own: Option<&Arc<Selector>>) -> Option<Arc<Selector>> {
        match (&self.selector, own) {
            (within, None) => within.clone(),
            (None, Some(own)) => Some(own.clone()),
            (Some(within), Some(own)) => {
                let mut both = (**within).clone();
                both.and(own);
                Some(both.into())
            }
        }
    }
}

/// The jobs of one partition, or of none.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// None while nobody can go by them.
    pub rules: Option<Rules>,
    /// What its jobs are sorted by: the last rules that one could go by. Without any they are in no account.
    pub sorted: Option<Sorted>,
    pub used: InUse,
    /// Its accounts with jobs that may be placed, as far as is known, and as if it had no cap of its own.
    pub order: BTreeSet<(Bound, usize)>,
    /// Those of which something was looked for that is no more than is left to it, and what was in use then: they may
    /// have had more.
    pub limited: BTreeMap<usize, InUse>,
    /// Its jobs for which something is kept, by priority; each leaves what is kept for those before it.
    pub kept: Vec<(Turn, Resources)>,
    /// Its accounts with jobs that wait for what is left to it, or for room, by the first of these.
    pub waiting: BTreeSet<(Bound, usize)>,
    /// Its first account, as it is among those of all groups.
    pub leads: Option<(Bound, usize)>,
}

impl Group {
    /// The most cores that one more job of it may have.
    pub fn left(&self) -> u64 {
        self.rules.as_ref().map_or(0, |rules| rules.caps.partition.left(self.used))
    }

    /// The most cores that any job of it may ever have.
    pub fn most(&self) -> u64 {
        self.rules.as_ref().map_or(0, |rules| rules.caps.partition.left(InUse::default()))
    }

    /// Takes out the accounts that may have more than when they were last looked at.
    pub fn take_freed(&mut self) -> Vec<usize> {
        let used = self.used;
        let less = |then: &InUse| used.jobs < then.jobs || used.cores < then.cores;
        let freed: Vec<usize> =
            self.limited.iter().filter(|(_, then)| less(then)).map(|(own, _)| *own).collect();
        freed.iter().for_each(|own| _ = self.limited.remove(own));
        freed
    }

    /// Its first account.
    pub fn first(&self) -> Option<(Bound, usize)> {
        if self.order.is_empty() || self.left() == 0 { None } else { self.order.first().copied() }
    }

    /// The one behind that.
    pub fn second(&self) -> Option<(Bound, usize)> {
        self.order.iter().nth(1).copied()
    }
}

/// Moves an account to where this bound is.
pub(super) fn move_in(
    order: &mut BTreeSet<(Bound, usize)>,
    index: usize,
    from: Option<Bound>,
    to: Option<Bound>,
) {
    if from == to {
        return;
    }
    if let Some(from) = from {
        order.remove(&(from, index));
    }
    order.extend(to.map(|to| (to, index)));
}
