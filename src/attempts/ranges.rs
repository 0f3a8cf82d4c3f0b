//! Ranges: the attempts of an array. Of which tasks the next one is, and when one will have ended. A plain
//! job's has its one task. Pure; what becomes of them is [`crate::model::draft`]'s.

use std::time::{Duration, SystemTime};

use crate::clock::{self, Present};
use crate::model::card::{Attempt, Card};
use crate::model::job_tasks::pace;
use crate::model::tasks::TaskSet;
use crate::model::waits::Waits;
use crate::placement::ranges;

/// To the node of a range that will have ended within this time the next one is sent, so that it is
/// there in time.
const SENT_AHEAD: Duration = Duration::from_millis(250);

/// The tasks of the next attempt; `slots` is how many the nodes can run at a time. Empty if there is
/// none to be placed.
pub fn next(card: &Card, slots: u64, now: &Present) -> TaskSet {
    let Waits::ForNode(_) = card.waits(now) else { return TaskSet::default() };
    let ready = card.tasks.ready(now.time());
    let slots = card.tasks.spec.at_once.map_or(slots, |most| most.min(slots));
    ready.lowest(ranges::size(ready.len(), slots, pace(&card.attempts)))
}

/// For how long yet a range is taken to have ended before another could be there: until it should
/// have, going by its last report and by how long tasks took so far. What goes on after that is
/// longer than the others were, and nobody knows by how much.
pub fn nearly_done_for(card: &Card, attempt: &Attempt, now: SystemTime) -> Option<Duration> {
    let reported = attempt.reported_at.as_deref().filter(|_| attempt.tasks.is_some())?;
    let left = u32::try_from(attempt.left.len()).unwrap_or(u32::MAX);
    let needs = pace(&card.attempts)?.saturating_mul(left);
    let since = now.duration_since(clock::parse_rfc3339(reported)?).unwrap_or_default();
    let rest = needs.checked_sub(since).filter(|rest| !rest.is_zero())?;
    (needs <= SENT_AHEAD).then_some(rest)
}
