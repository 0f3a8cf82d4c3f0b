//! How many cores the next job of an account may have: what is left to its user and its partition, and, to those
//! that come behind by priority, what is left beside the jobs for which something is kept.

use std::cmp::Reverse;

use super::candidates::Turn;
use super::gates::{Cap, InUse};
use crate::model::resources::Resources;

/// See the module. The lower the priority, the less.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Limits {
    most: u64,
    /// From which priority on how much is left.
    steps: Vec<(Reverse<i64>, u64)>,
    /// How much is left to each of those for which something is kept, beside those of them that come before.
    kept: Vec<(Turn, u64)>,
}

impl Limits {
    /// Where a user has so much left, and their partition this cap, of which so much is in use, and something is
    /// kept for these of its jobs, by priority.
    pub fn new(user: u64, cap: &Cap, mut used: InUse, all: &[(Turn, Resources)]) -> Limits {
        let left = |used: InUse| user.min(cap.left(used));
        let (most, mut steps, mut kept) = (left(used), Vec::new(), Vec::new());
        for (turn, job) in all {
            kept.push((*turn, left(used)));
            used.add(job);
            match steps.last_mut() {
                Some((priority, least)) if *priority == turn.0 => *least = left(used),
                _ => steps.push((turn.0, left(used))),
            }
        }
        Limits { most, steps, kept }
    }

    /// The most that any may have.
    pub fn most(&self) -> u64 {
        self.most
    }

    /// What the last may have.
    pub fn least(&self) -> u64 {
        self.steps.last().map_or(self.most, |(_, left)| *left)
    }

    /// Whether a job for which nothing is kept may have so much.
    pub fn allow(&self, turn: Turn, cores: u64) -> bool {
        let step = self.steps.iter().rev().find(|(priority, _)| *priority <= turn.0);
        Limits::is_within(step.map_or(self.most, |(_, left)| *left), cores)
    }

    /// Whether one may for which something is.
    pub fn allow_kept(&self, turn: Turn, cores: u64) -> bool {
        let own = self.kept.iter().find(|(other, _)| *other == turn);
        Limits::is_within(own.map_or(self.most, |(_, left)| *left), cores)
    }

    fn is_within(left: u64, cores: u64) -> bool {
        left > 0 && cores <= left
    }

    /// What is left, from the highest priority on: each to all that come before the next.
    pub fn all(&self) -> impl Iterator<Item = u64> {
        std::iter::once(self.most).chain(self.steps.iter().map(|(_, left)| *left))
    }
}
