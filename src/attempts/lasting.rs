//! For how long a job will have what it is given, at most: its time limit, and what comes after it. Pure.

use std::time::Duration;

use crate::clock::{self, Present};
use crate::model::card::{Attempt, Card};

/// Between the last signal to a job whose time is over and the report of its end.
const SLACK: Duration = Duration::from_secs(2);

/// How long one task of it has a core, from its start on; nothing where it has no time limit. `default`: what it
/// gets between SIGTERM and SIGKILL where it does not say.
fn of_task(card: &Card, default: Duration) -> Option<Duration> {
    let grace = card.spec.grace.unwrap_or(default);
    Some(card.spec.timeout?.saturating_add(grace).saturating_add(SLACK))
}

/// How long the next attempt will last. Of an array nobody knows how many tasks that will be.
pub fn next(card: &Card, default: Duration) -> Option<Duration> {
    if card.is_array() { None } else { of_task(card, default) }
}

/// How long an attempt that a node has will go on at most. Before it has begun nobody knows when that will be: it
/// counts as if it began now.
pub fn rest(card: &Card, attempt: &Attempt, now: &Present, default: Duration) -> Option<Duration> {
    let each = of_task(card, default)?;
    let left = u32::try_from(attempt.left.len()).unwrap_or(u32::MAX).max(1);
    let begun = attempt.started_at.as_deref().filter(|_| !card.is_array());
    let since = begun.and_then(clock::parse_rfc3339).map(|begun| now.age(begun));
    Some(each.saturating_mul(left).saturating_sub(since.unwrap_or_default()))
}
