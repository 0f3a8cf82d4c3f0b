//! The jobs that may be placed, whosever they are.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::Candidate;
use super::ask::Ask;
use super::sites::SiteId;

/// The order in which the jobs of an account are placed: higher priority, then lower number.
pub(super) type Turn = (Reverse<i64>, u64);

/// A job that may be placed.
#[derive(Debug)]
pub(super) struct Held {
    pub candidate: Candidate,
    pub site: SiteId,
    /// Its own, and its partition's.
    pub priority: i64,
    /// The place of its account among all.
    pub account: usize,
}

/// All of them, by number.
pub(super) type Candidates = HashMap<u64, Held>;

impl Held {
    pub fn ask(&self) -> Ask {
        let Candidate { resources, strategy, lasts, .. } = &self.candidate;
        Ask { resources: resources.clone(), lasts: *lasts, site: self.site, strategy: *strategy }
    }

    pub fn turn(&self) -> Turn {
        (Reverse(self.priority), self.candidate.job)
    }
}
