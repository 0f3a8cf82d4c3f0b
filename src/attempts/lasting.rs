//! For how long a job will have what it is given, at most: its time limit, and what comes after it. Pure.

use std::time::Duration;

use crate::clock::{self, Present};
use crate::model::card::{Attempt, Card};
use crate::model::request::Spec;

/// Between the last signal to a job whose time is over and the report of its end.
const SLACK: Duration = Duration::from_secs(2);

/// How long one task of it has a core, from its start on; nothing where it has no time limit. `default`: what it
/// gets between SIGTERM and SIGKILL where it does not say.
fn of_task(spec: &Spec, default: Duration) -> Option<Duration> {
    let grace = spec.grace.unwrap_or(default);
    Some(spec.timeout?.saturating_add(grace).saturating_add(SLACK))
}

/// How long the next attempt will last. Of an array nobody knows how many tasks that will be.
pub fn next(card: &Card, default: Duration) -> Option<Duration> {
    if card.is_array() { None } else { of_task(&card.spec, default) }
}

/// The same of a job that asks for this, and is not there yet.
pub fn of_new(spec: &Spec, default: Duration) -> Option<Duration> {
    if spec.array.is_some() { None } else { of_task(spec, default) }
}

/// How long an attempt that a node has will go on at most. Before it has begun nobody knows when that will be: it
/// counts as if it began now.
pub fn rest(card: &Card, attempt: &Attempt, now: &Present, default: Duration) -> Option<Duration> {
    let each = of_task(&card.spec, default)?;
    let left = u32::try_from(attempt.left.len()).unwrap_or(u32::MAX).max(1);
    let since = |time: &str| clock::parse_rfc3339(time).map(|time| now.age(time));
    // Its node says when it began, by a clock that may say anything: not before it was given it.
    let begun = attempt.started_at.as_deref().filter(|_| !card.is_array()).and_then(since);
    let since = begun.unwrap_or_default().min(since(&attempt.placed_at).unwrap_or_default());
    Some(each.saturating_mul(left).saturating_sub(since))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::model::card::tests::{FIRST, PLACED, card};

    #[test]
    fn a_node_whose_clock_is_behind_has_not_begun_before_it_was_given_the_job() {
        let limits = r#""timeout":"100s","max_termination_time":"8s","command""#;
        let first = FIRST.replace(r#""command""#, limits);
        for started in ["1970-01-01T00:00:00Z", "2026-01-01T00:00:02Z", "2030-01-01T00:00:00Z"] {
            let ran = format!(
                r#"{{"at":"2026-01-01T00:00:03Z","event":"running","attempt":1,"pid":7,"started":"{started}"}}"#
            );
            let card = card(&[&first, PLACED, &ran]); // placed at 00:00:01
            let now = Present::from(clock::parse_rfc3339("2026-01-01T00:00:31Z").unwrap());
            let attempt = card.with_nodes().next().unwrap();
            let rest = rest(&card, attempt, &now, Duration::ZERO).unwrap().as_secs();
            assert!((80..=110).contains(&rest), "{started}: {rest}");
        }
    }
}
