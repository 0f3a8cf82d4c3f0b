//! Ranges: the attempts of an array. When the next one may be placed, of which tasks, and when one will
//! have ended. Pure; what becomes of them is [`crate::model::array_changes`]'s.

use std::time::{Duration, SystemTime};

use crate::clock;
use crate::model::array::pace;
use crate::model::card::{Attempt, Card, Column};
use crate::model::tasks::TaskSet;
use crate::placement::ranges;

/// To the node of a range that will have ended within this time the next one is sent, so that it is
/// there in time.
const SENT_AHEAD: Duration = Duration::from_millis(250);

/// How many more ranges of a card may be placed now; none for a card that is no array.
pub fn placeable(card: &Card, now: SystemTime) -> u64 {
    let Some(array) = card.array.as_ref().filter(|array| !array.held) else { return 0 };
    if card.stopping_by.is_some() {
        return 0;
    }
    let most = array.spec.at_once.unwrap_or(u64::MAX);
    most.saturating_sub(card.with_nodes().count() as u64).min(array.ready(now).len())
}

/// Whether tasks of this card wait while nodes have others.
pub fn may_continue(card: &Card) -> bool {
    card.column() == Column::Running
        && card.array.as_ref().is_some_and(|array| !array.waiting.is_empty())
}

/// The tasks of the next range; `slots` is how many the nodes can run at a time. Empty if there is
/// none to be placed.
pub fn next(card: &Card, slots: u64, now: SystemTime) -> TaskSet {
    let Some(array) = card.array.as_ref().filter(|_| placeable(card, now) > 0) else {
        return TaskSet::default();
    };
    let ready = array.ready(now);
    let slots = array.spec.at_once.map_or(slots, |most| most.min(slots));
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
