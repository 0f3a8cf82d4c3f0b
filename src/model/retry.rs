//! What follows from how attempts ended: another one or the end of the job, when, and where rather not.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::attempt::Attempt;
use super::card::Card;
use super::event::What;
use super::ids::NodejobId;
use super::outcome::{Cause, Outcome};
use super::state::State;
use crate::clock;

/// So many different late reports of an attempt are kept: a node that says something else each time
/// makes no card grow without end.
const MOST_LATE: usize = 8;

impl Card {
    /// Nodes on which an attempt failed or was refused: another one is preferred.
    pub fn nodes_to_avoid(&self) -> Vec<&str> {
        let attempts = self.attempts.iter();
        let failed = attempts.filter(|a| a.outcome.is_some() || a.refused.is_some());
        if self.array.is_none() {
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
        let of_node = |a: &&Attempt| self.array.is_none() || a.node == current.node;
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

    /// What follows from the end of the current attempt: another attempt where the request
    /// allows one, else the end of the job. `unproven` is a loss that only silence speaks for:
    /// the program may still run, so such a loss is retried only with `retry_lost`.
    pub fn after_attempt(&self, attempt: u32, outcome: Outcome, unproven: bool) -> What {
        let may_repeat = outcome.may_repeat(self.spec.retry_lost, unproven);
        let stopping = self.state == State::Stopping;
        if may_repeat && !stopping && self.retries < self.spec.max_retry_count {
            return What::Retry { attempt, outcome, not_before: self.retry_at() };
        }
        What::Stopped { attempt: Some(attempt), outcome }
    }

    /// Whether a late report says what neither the card nor `added`, which it is about to be given, says yet.
    /// Nodes repeat themselves.
    pub fn has_not_heard(&self, added: &[What], id: &NodejobId, outcome: &Outcome) -> bool {
        let known = self.attempts.iter().find(|a| a.attempt == id.attempt);
        let all = self.events.iter().map(|event| &event.what).chain(added);
        let mut lates = 0;
        for what in all {
            match what {
                What::Late { attempt, outcome: told } if *attempt == id.attempt => {
                    if told == outcome {
                        return false;
                    }
                    lates += 1;
                }
                _ => {}
            }
        }
        known.is_some_and(|a| a.outcome.as_ref() != Some(outcome)) && lates < MOST_LATE
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::model::card::tests::{FIRST, PLACED, card};
    use crate::model::event::Event;

    #[test]
    fn retries_are_counted() {
        let placed = card(&[FIRST, PLACED]);
        let again = placed.after_attempt(1, Outcome::exit(3), false);
        assert!(matches!(again, What::Retry { attempt: 1, .. }));
        let mut next = placed.clone();
        next.apply(Event::now(again));
        assert_eq!((next.state, next.retries), (State::Queued, 1));
        next.apply(serde_json::from_str(&PLACED.replace(":1,", ":2,")).unwrap());
        let end = next.after_attempt(2, Outcome::exit(3), false);
        assert!(matches!(end, What::Stopped { attempt: Some(2), .. }));
        let lost = placed.after_attempt(1, Outcome::lost("gone"), true);
        assert!(matches!(lost, What::Stopped { .. }), "unproven loss is not retried");
        let lost = placed.after_attempt(1, Outcome::lost_unproven("gone"), false);
        assert!(matches!(lost, What::Stopped { .. }), "nor is one that a node cannot prove");
        let lost = placed.after_attempt(1, Outcome::lost("gone"), false);
        assert!(matches!(lost, What::Retry { .. }), "one that it can is");
    }
}
