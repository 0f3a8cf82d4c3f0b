//! Runs of a head that this root, as its worker, has not heard of for too long: what was not started never is, and
//! what runs ends, before the head counts it as lost. Supervisors see to that; the worker may be dead.

use std::time::Duration;

use crate::board::head_contact::{self, Left};
use crate::board::root::Root;
use crate::clock;
use crate::model::ids::RunId;
use crate::model::outcome::Outcome;

/// One part in so many of that time is the longest grace of what ends so.
const GRACE: u32 = 8;

/// How long this run may go on yet without a word of its head; `None`: for ever.
pub(super) fn left(root: &Root, id: &RunId) -> Option<Duration> {
    of(root, id).map(|contact| contact.left)
}

/// Why this run is not to be started, or is to end, if so; and the longest grace.
pub(super) fn overdue(root: &Root, id: &RunId) -> Option<(String, Duration)> {
    let Left { in_all, .. } = of(root, id).filter(|contact| contact.left.is_zero())?;
    let why = format!("its head was not heard of for {}", clock::human(in_all));
    Some((why, in_all / GRACE))
}

/// The end of what ran.
pub(super) fn outcome(why: &str) -> Outcome {
    Outcome::lost(&format!("given up: {why}"))
}

fn of(root: &Root, id: &RunId) -> Option<Left> {
    head_contact::left(root, id.nodejob()?.cluster())
}
