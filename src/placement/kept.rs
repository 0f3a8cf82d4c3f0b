//! For which jobs something is kept: see [`super::keeping`].

use std::collections::{BTreeMap, BTreeSet};

use super::candidates::Turn;
use super::groups::Bound;
use crate::model::resources::Resources;

/// A job for which what its partition has left is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub turn: Turn,
    pub account: usize,
    pub needs: Resources,
}

/// What is kept, and for whom.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    /// For so many jobs at most nodes are reserved; where for none, nothing else is kept either.
    pub most: usize,
    /// Accounts with jobs that fit nowhere now, by the first of these, as if no partition had a cap of its own.
    pub passed: BTreeSet<(Bound, usize)>,
    /// By group.
    pub kept: BTreeMap<usize, Kept>,
    /// Groups in which it is another since this was last looked at.
    pub changed: BTreeSet<usize>,
    /// Those that had nodes reserved when it was, and their groups.
    pub reserved: Vec<(Turn, usize, Resources)>,
}

impl Keeping {
    /// Nothing is kept yet.
    pub fn new(most: usize) -> Keeping {
        Keeping { most, ..Keeping::default() }
    }

    /// Whether something is kept for a job that is, and asks, as it did.
    pub fn has(&self, group: usize, account: usize, turn: Turn, needs: &Resources) -> bool {
        let same =
            |kept: &Kept| kept.turn == turn && kept.account == account && kept.needs == *needs;
        self.kept.get(&group).is_some_and(same)
    }

    /// Nothing is kept any more for a job of a group, if anything was.
    pub fn forget(&mut self, group: usize, job: u64) {
        if self.kept.get(&group).is_some_and(|kept| kept.turn.1 == job) {
            self.kept.remove(&group);
            self.changed.insert(group);
        }
    }
}
