//! Silence is repeated failure while awake: one that failed to answer once has not been silent for
//! as long as this process, or its machine, was stopped afterwards. Rounds from cron, none of which is
//! long enough, add their failures to what those before them have recorded.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

use crate::board::root::boot_id;
use crate::board::unheard::Unheard;
use crate::error::{At, Result};
use crate::model::node::RecordedSilence;

/// Between two looks no more than this counts as time that was lived through: whoever was stopped
/// meanwhile has not listened. The engine looks more often than that while a node is silent.
const LONGEST_STEP: Duration = Duration::from_secs(2);

/// So many failures, spread over the time after which jobs are given up, make a silence.
const FAILURES: u32 = 3;

/// Failures count that are this part of that time apart.
const APART: u32 = 8;

/// Of the time between two rounds from cron so much of that time counts, and no more: nobody has
/// listened in between, and there may have been no rounds for a while.
const LONGEST_PAUSE: u32 = 3;

/// Who does not answer, or of whom nobody gives word, as this process has seen it.
#[derive(Debug)]
pub struct Silences {
    nodes: BTreeMap<String, Silence>,
    /// Since when it is said that nobody knows of one: a word, and no part of a silence before or after it.
    unknown: BTreeMap<String, Duration>,
    awake: Duration,
    looked: Instant,
    /// In a round from cron: what is noted in place of that.
    recorded: Option<Recorded>,
}

/// What rounds from cron have found.
#[derive(Debug)]
struct Recorded {
    unheard: Unheard,
    changed: bool,
    boot: String,
    /// What this boot's clock said at that instant.
    clock: (Duration, Instant),
}

impl Silences {
    /// Nobody is silent.
    pub fn new(now: Instant) -> Silences {
        Silences {
            nodes: BTreeMap::new(),
            unknown: BTreeMap::new(),
            awake: Duration::ZERO,
            looked: now,
            recorded: None,
        }
    }

    /// Those that rounds before this one have recorded.
    pub fn recorded(unheard: Unheard) -> Result<Silences> {
        let now = Instant::now();
        let clock = (clock()?, now);
        let recorded = Recorded { unheard, changed: false, boot: boot_id()?, clock };
        Ok(Silences { recorded: Some(recorded), ..Silences::new(now) })
    }

    /// What is to be recorded for the next round, if it is not what was.
    pub fn to_record(&self) -> Option<&Unheard> {
        let recorded = self.recorded.as_ref()?;
        recorded.changed.then_some(&recorded.unheard)
    }

    /// To be called often: the time since the last call was lived through.
    pub fn pass(&mut self, now: Instant) {
        self.awake += now.saturating_duration_since(self.looked).min(LONGEST_STEP);
        self.looked = now;
    }

    /// How long there may be between two calls of [`Silences::pass`] without losing time; none if
    /// nobody is silent.
    pub fn patience(&self) -> Option<Duration> {
        let is_any = !self.nodes.is_empty() || !self.unknown.is_empty();
        is_any.then_some(LONGEST_STEP / 2)
    }

    /// The node answered.
    pub fn end(&mut self, node: &str) {
        self.nodes.remove(node);
        self.unknown.remove(node);
        if let Some(recorded) = &mut self.recorded {
            recorded.changed |= recorded.unheard.remove(node).is_some();
        }
    }

    /// The node failed to answer; whether it has been silent for `lost_after`.
    pub fn note(&mut self, node: &str, lost_after: Duration) -> bool {
        if let Some(recorded) = &mut self.recorded {
            return recorded.note(node, lost_after);
        }
        let now = self.awake;
        let silence = self.nodes.entry(node.to_string()).or_insert_with(|| Silence::new(now));
        silence.goes_on(now, lost_after)
    }

    /// It was said again that nobody knows of this one; whether that has been so for this time. Each time it
    /// is a word and no silence, of which two are enough; in rounds from cron it counts as a failure does.
    pub fn lasts(&mut self, id: &str, patience: Duration) -> bool {
        if let Some(recorded) = &mut self.recorded {
            return recorded.note(id, patience);
        }
        let now = self.awake;
        let since = self.unknown.entry(id.to_string()).or_insert(now);
        now.saturating_sub(*since) >= patience
    }

    /// Forgets nodes that are not there any more.
    pub fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.nodes.retain(|node, _| is_there(node));
        self.unknown.retain(|id, _| is_there(id));
        if let Some(recorded) = &mut self.recorded {
            let before = recorded.unheard.len();
            recorded.unheard.retain(|node, _| is_there(node));
            recorded.changed |= recorded.unheard.len() < before;
        }
    }
}

impl Recorded {
    fn note(&mut self, id: &str, lost_after: Duration) -> bool {
        let (then, at) = self.clock;
        let before = self.unheard.remove(id);
        let (record, is_long) = added(before, then + at.elapsed(), self.boot.clone(), lost_after);
        self.unheard.insert(id.to_string(), record);
        self.changed = true;
        is_long
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
            self.failures = self.failures.saturating_add(1);
            self.latest = now;
        }
        self.failures >= FAILURES && self.latest.saturating_sub(self.since) >= lost_after
    }
}

/// By the clock of this boot, which nobody sets and which stands while the machine sleeps.
fn clock() -> Result<Duration> {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).at("clock")
}

/// The same of a node in rounds from cron: a failure is added to what its record says.
pub fn add_to(
    record: Option<RecordedSilence>,
    lost_after: Duration,
) -> Result<(RecordedSilence, bool)> {
    Ok(added(record, clock()?, boot_id()?, lost_after))
}

fn added(
    record: Option<RecordedSilence>,
    now: Duration,
    boot: String,
    lost_after: Duration,
) -> (RecordedSilence, bool) {
    // One that tells of a time to come is no record of this clock.
    let until = now.as_secs() + 1;
    let is_known = |record: &RecordedSilence| {
        record.boot == boot && record.since <= until && record.latest <= until
    };
    let before = record.filter(is_known).map(|record| Silence {
        since: Duration::from_secs(record.since),
        latest: Duration::from_secs(record.latest),
        failures: record.failures,
    });
    let (silence, is_long) = match before {
        Some(mut silence) => {
            let pause = now.saturating_sub(silence.latest);
            silence.since += pause.saturating_sub(lost_after / LONGEST_PAUSE);
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
    fn what_is_not_known_twice_over_a_time_that_was_lived_through_is_not_known_for_so_long() {
        let mut now = Instant::now();
        let mut silences = Silences::new(now);
        assert!(!silences.lasts("n", MINUTE));
        silences.pass(now + 60 * MINUTE); // stopped for an hour
        now += 60 * MINUTE;
        assert!(!silences.lasts("n", MINUTE) && silences.patience().is_some());
        for _ in 0..60 {
            now += Duration::from_secs(1);
            silences.pass(now);
        }
        assert!(silences.lasts("n", MINUTE) && !silences.lasts("other", MINUTE));
        silences.end("n");
        assert!(!silences.lasts("n", MINUTE));
    }

    #[test]
    fn a_silence_and_not_being_known_begin_apart() {
        let mut now = Instant::now();
        let mut silences = Silences::new(now);
        let mut a_minute = |silences: &mut Silences| {
            for _ in 0..60 {
                now += Duration::from_secs(1);
                silences.pass(now);
            }
        };
        assert!(!silences.note("silent", MINUTE) && !silences.lasts("unknown", MINUTE));
        a_minute(&mut silences);
        assert!(!silences.lasts("silent", MINUTE), "one word is none of two");
        (0..FAILURES).for_each(|_| assert!(!silences.note("unknown", MINUTE)));
        a_minute(&mut silences);
        assert!(silences.lasts("silent", MINUTE) && silences.lasts("unknown", MINUTE));
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

    /// A record is a file, and may say anything.
    #[test]
    fn a_record_of_a_time_that_is_none_begins_no_silence() {
        for (since, latest) in [(u64::MAX, 0), (0, u64::MAX), (u64::MAX, u64::MAX)] {
            let record = RecordedSilence { boot: "a".into(), since, latest, failures: 1 };
            let (anew, is_long) = added(Some(record), MINUTE * 10, "a".into(), MINUTE);
            assert!(!is_long && anew.since <= 601 && anew.latest == 600, "{anew:?}");
        }
        let often = RecordedSilence { boot: "a".into(), since: 0, latest: 0, failures: u32::MAX };
        assert_eq!(added(Some(often), MINUTE, "a".into(), MINUTE).0.failures, u32::MAX);
    }

    #[test]
    fn a_time_without_rounds_is_no_silence() {
        let mut record = None;
        let mut long = 0;
        for minute in [0, 1, 120, 121, 122, 123, 124] {
            let (next, is_long) = added(record, MINUTE * (minute + 10), "a".into(), 5 * MINUTE);
            if is_long && long == 0 {
                long = minute;
            }
            record = Some(next);
        }
        // A minute, what counts of the pause, and two minutes and a third.
        assert_eq!(long, 123);
    }

    #[test]
    fn what_is_heard_of_again_is_recorded_no_more() {
        let mut silences = Silences::recorded(Unheard::new()).unwrap_or_else(|e| panic!("{e}"));
        assert!(silences.to_record().is_none());
        for id in ["a", "b"] {
            assert!(!silences.note(id, MINUTE));
        }
        silences.end("a");
        let recorded = silences.to_record().cloned().unwrap_or_default();
        assert_eq!(recorded.keys().collect::<Vec<_>>(), ["b"]);
        let mut next = Silences::recorded(recorded).unwrap_or_else(|e| panic!("{e}"));
        next.retain(|id| id != "b");
        assert_eq!(next.to_record().map(Unheard::len), Some(0));
    }
}
