//! Runs of a head that this root, as its worker, has not heard of for too long: what was not started never is, and
//! what runs ends, before the head counts it as lost. Supervisors see to that; the worker may be dead.

use std::time::Duration;

use crate::board::head_contact::{self, Left};
use crate::board::root::Root;
use crate::clock;
use crate::error::Result;
use crate::model::ids::RunId;
use crate::model::outcome::Outcome;

/// One part in so many of that time is the longest grace of what ends so.
const GRACE: u32 = 8;

/// How long this run may go on yet without a word of its head; `None`: for ever.
pub(super) fn left(root: &Root, id: &RunId) -> Result<Option<Left>> {
    id.nodejob().map_or(Ok(None), |id| head_contact::left(root, id.cluster()))
}

/// Why this run, of a head that was heard of without a break `since` then, is not to be started, or is to end, if so;
/// and the longest grace. What was asleep in the break does so though the head is heard of again.
pub(super) fn overdue(
    root: &Root,
    id: &RunId,
    since: Option<u64>,
) -> Result<Option<(String, Duration)>> {
    let Some(now) = left(root, id)? else { return Ok(None) };
    let was_broken = since.zip(now.since).is_some_and(|(before, now)| before != now);
    if !was_broken && !now.left.is_zero() {
        return Ok(None);
    }
    let why = format!("its head was not heard of for {}", clock::human(now.in_all));
    Ok(Some((why, now.in_all / GRACE)))
}

/// The end of what ran.
pub(super) fn outcome(why: &str) -> Outcome {
    Outcome::lost(&format!("given up: {why}"))
}
