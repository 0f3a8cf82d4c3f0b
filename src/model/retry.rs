//! What how attempts ended means for the next one: when it is made, and where rather not.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::attempt::Attempt;
use super::card::Card;
use super::outcome::Cause;
use crate::clock;

impl Card {
    /// Nodes on which an attempt failed or was refused: another one is preferred.
    pub fn nodes_to_avoid(&self) -> Vec<&str> {
        let attempts = self.attempts.iter();
        let failed = attempts.filter(|a| a.outcome.is_some() || a.refused.is_some());
        if !self.is_array() {
            return failed.map(|a| a.node.as_str()).collect();
        }
        // Most of an array's ranges end, and well: what counts is a node's last word.
        let mut last: BTreeMap<&str, bool> = BTreeMap::new();
        for attempt in failed {
            let lost = attempt.outcome.as_ref().is_some_and(|o| o.cause == Cause::Lost);
            last.insert(&attempt.node, lost || attempt.refused.is_some());
        }
        last.into_iter().filter(|(_, avoid)| *avoid).map(|(node, _)| node).collect()
    }

    /// How often in a row nodes refused it before this attempt; of an array, this node. Ranges that
    /// were placed together are refused together: that counts once.
    pub fn refusals_in_a_row(&self, current: &Attempt) -> u32 {
        let of_node = |a: &&Attempt| !self.is_array() || a.node == current.node;
        let ended = self.attempts.iter().rev().filter(of_node).filter(|a| a.ended_at.is_some());
        let mut placed_at = &current.placed_at;
        let mut count = 0;
        for attempt in ended.take_while(|a| a.refused.is_some()) {
            if attempt.ended_at.as_ref().is_some_and(|ended| ended < placed_at) {
                count += 1;
                placed_at = &attempt.placed_at;
            }
        }
        count
    }

    /// When what fails now may be tried again, if not at once.
    pub fn retry_at(&self) -> Option<String> {
        let delay = self.spec.retry_delay;
        (!delay.is_zero()).then(|| clock::rfc3339(later(SystemTime::now(), delay)))
    }
}

fn later(time: SystemTime, by: Duration) -> SystemTime {
    time.checked_add(by).unwrap_or(time)
}
