//! Silence is repeated failure while awake: one that failed to answer once has not been silent for
//! as long as this process, or its machine, was stopped afterwards.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

use crate::board::root::boot_id;
use crate::error::{At, Result};
use crate::model::node::RecordedSilence;

/// Between two looks no more than this counts as time that was lived through: whoever was stopped
/// meanwhile has not listened. The engine looks more often than that while a node is silent.
const LONGEST_STEP: Duration = Duration::from_secs(2);

/// So many failures, spread over the time after which jobs are given up, make a silence.
const FAILURES: u32 = 3;

/// Failures count that are this part of that time apart.
const APART: u32 = 8;

/// The nodes that do not answer, as this process has seen it.
#[derive(Debug)]
pub struct Silences {
    nodes: BTreeMap<String, Silence>,
    awake: Duration,
    looked: Instant,
}

impl Silences {
    /// Nobody is silent.
    pub fn new(now: Instant) -> Silences {
        Silences { nodes: BTreeMap::new(), awake: Duration::ZERO, looked: now }
    }

    /// To be called often: the time since the last call was lived through.
    pub fn pass(&mut self, now: Instant) {
        self.awake += now.saturating_duration_since(self.looked).min(LONGEST_STEP);
        self.looked = now;
    }

    /// How long there may be between two calls of [`Silences::pass`] without losing time; none if
    /// nobody is silent.
    pub fn patience(&self) -> Option<Duration> {
        (!self.nodes.is_empty()).then_some(LONGEST_STEP / 2)
    }

    /// The node answered.
    pub fn end(&mut self, node: &str) {
        self.nodes.remove(node);
    }

    /// The node failed to answer; whether it has been silent for `lost_after`.
    pub fn note(&mut self, node: &str, lost_after: Duration) -> bool {
        let now = self.awake;
        let silence = self.nodes.entry(node.to_string()).or_insert_with(|| Silence::new(now));
        silence.goes_on(now, lost_after)
    }

    /// Forgets nodes that are not there any more.
    pub fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.nodes.retain(|node, _| is_there(node));
    }
}

/// A row of failures to answer, by a clock that only goes while somebody listens.
#[derive(Debug, Clone, Copy)]
struct Silence {
    since: Duration,
    latest: Duration,
    failures: u32,
}

impl Silence {
    fn new(now: Duration) -> Silence {
        Silence { since: now, latest: now, failures: 1 }
    }

    /// Takes in another failure; whether it has lasted for `lost_after` by now.
    fn goes_on(&mut self, now: Duration, lost_after: Duration) -> bool {
        if now.saturating_sub(self.latest) >= lost_after / APART {
            self.failures += 1;
            self.latest = now;
        }
        self.failures >= FAILURES && self.latest.saturating_sub(self.since) >= lost_after
    }
}

/// The same for rounds from cron, none of which is long enough: a failure is added to what earlier
/// ones have recorded. By the clock of this boot, which nobody sets and which stands while the
/// machine sleeps.
pub fn add_to(
    record: Option<RecordedSilence>,
    lost_after: Duration,
) -> Result<(RecordedSilence, bool)> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).at("clock")?;
    let (now, boot) = (Duration::from(now), boot_id()?);
    Ok(added(record, now, boot, lost_after))
}

fn added(
    record: Option<RecordedSilence>,
    now: Duration,
    boot: String,
    lost_after: Duration,
) -> (RecordedSilence, bool) {
    let before = record.filter(|record| record.boot == boot).map(|record| Silence {
        since: Duration::from_secs(record.since),
        latest: Duration::from_secs(record.latest),
        failures: record.failures,
    });
    let (silence, is_long) = match before {
        Some(mut silence) => {
            let is_long = silence.goes_on(now, lost_after);
            (silence, is_long)
        }
        // Never before it began.
        None => (Silence { since: now + Duration::from_secs(1), ..Silence::new(now) }, false),
    };
    let (since, latest) = (silence.since.as_secs(), silence.latest.as_secs());
    (RecordedSilence { boot, since, latest, failures: silence.failures }, is_long)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn who_was_stopped_has_not_heard_a_silence() {
        let begin = Instant::now();
        let mut silences = Silences::new(begin);
        assert!(!silences.note("n", MINUTE));
        silences.pass(begin + 60 * MINUTE); // stopped for an hour
        assert!(!silences.note("n", MINUTE));
        assert!(!silences.note("n", MINUTE));
        silences.pass(begin + 120 * MINUTE);
        assert!(!silences.note("n", MINUTE));
        silences.end("n");
        assert!(silences.patience().is_none());
    }

    #[test]
    fn failures_over_the_whole_time_are_a_silence() {
        let mut now = Instant::now();
        let mut silences = Silences::new(now);
        let mut awake = Duration::ZERO;
        while !silences.note("n", MINUTE) {
            now += Duration::from_secs(1);
            awake += Duration::from_secs(1);
            silences.pass(now);
            assert!(awake < 2 * MINUTE);
        }
        assert!(awake >= MINUTE, "{awake:?}");
        // One failure long ago and one now say nothing of the time between them.
        assert!(!silences.note("other", MINUTE));
        for _ in 0..90 {
            now += Duration::from_secs(1);
            silences.pass(now);
        }
        assert!(!silences.note("other", MINUTE));
    }

    #[test]
    fn rounds_from_cron_add_up_within_a_boot() {
        let at = |record, minutes: u32, boot: &str| {
            added(record, MINUTE * minutes, boot.into(), 5 * MINUTE)
        };
        let mut record = None;
        for minute in 10..15 {
            let (next, is_long) = at(record, minute, "a");
            assert!(!is_long, "{next:?}");
            record = Some(next);
        }
        assert!(!at(record.clone(), 100, "b").1, "another boot begins anew");
        let (after, _) = at(record, 15, "a");
        assert!(at(Some(after), 16, "a").1);
    }
}
