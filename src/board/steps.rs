//! `state/scheduler/clock`: by how much this machine's clock was put forward, or set back, as the poller
//! has seen it. What was written before seems to be so much older than it is, or yet to come.

use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::files;
use super::root::{Root, boot_id};
use crate::clock::{Present, SetBack, Step, millis};
use crate::error::{At, Result};

const FILE: &str = "scheduler/clock";

/// A clock that is off by no more than this from what goes on steadily was not set.
const SET: i64 = 30_000;

/// Most steps that are remembered, the last ones.
const MOST: usize = 16;

/// What is noted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// In which boot it was last looked.
    boot: String,
    /// When that one began, by the clock as it was then: milliseconds since 1970.
    began: i64,
    /// How the clock was put forward.
    steps: Vec<Step>,
    /// How it was set back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    set_back: Vec<SetBack>,
}

/// The latest time that has a form, and the longest that a clock can be put forward.
const LAST: i64 = 253_402_300_799_999;

impl Record {
    /// Whether a clean-up can have noted this: whatever else lies there was not.
    fn is_possible(&self) -> bool {
        let time = -LAST..=LAST; // a clock may stand before 1970 for a while
        let put = |step: &Step| time.contains(&step.before) && (1..=LAST).contains(&step.by);
        let back = |step: &SetBack| time.contains(&step.until) && (1..=LAST).contains(&step.by);
        time.contains(&self.began) && self.steps.iter().all(put) && self.set_back.iter().all(back)
    }

    fn present(self, now: SystemTime) -> Present {
        Present::of(now, self.steps).and_set_back(self.set_back)
    }
}

/// The present, for whoever removes what is old, or ends what has waited for long. Notes what has become of the clock since the last
/// time; a crash leaves the old note or the new one, and so does a full disk, which is told besides:
/// the next time comes to the same. What happens to the clock while the machine is off, nobody can
/// tell from time that has passed.
pub fn present(root: &Root) -> Result<(Present, Result<()>)> {
    root.for_change()?;
    let (known, record, now) = looked(root)?;
    let mut kept = Ok(());
    if record != known {
        let path = root.state(FILE);
        kept = files::replace(&root.state("scheduler/tmp"), &path, &files::json_line(&record)?);
    }
    Ok((record.present(now), kept))
}

/// The same for whoever only looks: nothing is noted.
pub fn seen(root: &Root) -> Result<Present> {
    looked(root).map(|(_, record, now)| record.present(now))
}

/// What was noted, what there is to note now, and what the clock says.
fn looked(root: &Root) -> Result<(Record, Record, SystemTime)> {
    let bytes = files::read(&root.state(FILE))?.unwrap_or_default();
    let known: Option<Record> = serde_json::from_slice(&bytes).ok().filter(Record::is_possible);
    let known = known.unwrap_or_default(); // damaged: begins anew
    let now = SystemTime::now();
    let steady = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).at("clock")?);
    let record = noted(known.clone(), &boot_id()?, millis(now), steady.as_millis() as i64);
    Ok((known, record, now))
}

/// What there is to note now; `steady` is how long ago this boot began.
fn noted(known: Record, boot: &str, now: i64, steady: i64) -> Record {
    let began = now - steady;
    let ahead = if known.boot == boot { began - known.began } else { 0 };
    if known.boot == boot && ahead.abs() <= SET {
        return known;
    }
    let (mut steps, mut set_back) = (known.steps, known.set_back);
    if ahead < 0 {
        set_back.push(SetBack { until: now - ahead, by: -ahead });
        set_back.drain(..set_back.len().saturating_sub(MOST));
    }
    if ahead > 0 {
        // What it would say now.
        steps.push(Step { before: now - ahead, by: ahead });
        steps.drain(..steps.len().saturating_sub(MOST));
    }
    let mut back = -ahead;
    while let Some(last) = steps.last_mut().filter(|_| back > 0) {
        let undone = last.by.min(back);
        (last.by, back) = (last.by - undone, back - undone);
        steps.pop_if(|last| last.by == 0);
    }
    Record { boot: boot.to_string(), began, steps, set_back }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    const DAY: i64 = 86_400_000;

    const YEAR: i64 = 365 * DAY;

    fn after(record: &Record, boot: &str, now: i64, steady: i64) -> Record {
        noted(record.clone(), boot, now, steady)
    }

    fn age(record: &Record, now: i64, time: i64) -> i64 {
        let at = |millis: i64| UNIX_EPOCH + Duration::from_millis(millis as u64);
        Present::of(at(now), record.steps.clone()).age(at(time)).as_millis() as i64
    }

    #[test]
    fn a_clock_that_is_put_forward_makes_nothing_old() {
        let (begin, written) = (50 * YEAR, 50 * YEAR - DAY);
        let first = after(&Record::default(), "a", begin, 1000);
        assert!(first.steps.is_empty());
        assert_eq!(after(&first, "a", begin + DAY + 5000, DAY + 1000), first, "put right");
        let forward = after(&first, "a", begin + DAY + YEAR, DAY + 1000);
        let now = begin + 2 * DAY + YEAR;
        assert_eq!(age(&forward, now, written), 3 * DAY);
        assert_eq!(age(&forward, now, begin + DAY + YEAR - 5), DAY + 5, "written after that");
        let again = after(&forward, "a", now + YEAR, 2 * DAY + 1000);
        assert_eq!(age(&again, now + YEAR, written), 3 * DAY);
        assert_eq!(age(&again, now + YEAR, now - 5), 5);
        assert_eq!(after(&again, "b", now + YEAR, 1000).steps, again.steps);
    }

    #[test]
    fn there_and_back_is_nothing() {
        let (begin, written) = (50 * YEAR, 50 * YEAR - 40 * DAY);
        let first = after(&Record::default(), "a", begin, 0);
        let forward = after(&first, "a", begin + YEAR, 0);
        let back = after(&forward, "a", begin, 0);
        assert_eq!(age(&back, begin, written), 40 * DAY);
        let back = after(&first, "a", begin - YEAR, 0);
        let forward = after(&back, "a", begin, 0);
        assert_eq!(age(&forward, begin, written), 40 * DAY);
        assert_eq!(age(&forward, begin, begin - YEAR - 5), 5, "written in between");
    }

    #[test]
    fn so_much_time_has_passed_whatever_was_done_to_the_clock() {
        let at = |millis: i64| UNIX_EPOCH + Duration::from_millis(millis as u64);
        // Whether two days have passed since then.
        let passed = |record: &Record, now: i64, time: i64| {
            let present = record.clone().present(at(now));
            let two_days = Duration::from_millis(2 * DAY as u64);
            present.passed_since(at(time), two_days).is_some_and(|over| over <= at(now))
        };
        let begin = 50 * YEAR;
        let first = after(&Record::default(), "a", begin, 0);
        assert!(!passed(&first, begin + DAY, begin) && passed(&first, begin + 2 * DAY, begin));
        for set in [YEAR, -YEAR] {
            let now = begin + DAY + set;
            let record = after(&first, "a", now, DAY);
            assert!(!passed(&record, now, begin), "{set}: it was a day");
            assert!(!passed(&record, now + DAY / 2, begin), "{set}");
            assert!(passed(&record, now + DAY, begin), "{set}");
            assert!(!passed(&record, now + DAY, now), "{set}: written after that");
            let again = after(&record, "a", begin + 2 * DAY, 2 * DAY);
            assert!(passed(&again, begin + 2 * DAY, begin), "{set}, and right again");
            let in_between = now + DAY / 2;
            assert!(!passed(&again, begin + 2 * DAY, in_between), "{set}");
        }
        let twice = after(&first, "a", begin - YEAR, 0);
        let twice = after(&twice, "a", begin - 2 * YEAR, 0);
        assert!(!passed(&twice, begin - 2 * YEAR + DAY, begin));
        assert!(passed(&twice, begin - 2 * YEAR + 2 * DAY, begin));
    }

    #[test]
    fn what_no_clock_says_was_not_noted() {
        let at = |began, before, by| {
            let steps = vec![Step { before, by }];
            Record { boot: "a".into(), began, steps, ..Record::default() }.is_possible()
        };
        assert!(at(50 * YEAR, 50 * YEAR, 1) && at(-YEAR, -YEAR, YEAR));
        assert!(!at(i64::MIN, 0, 1) && !at(0, i64::MAX, 1));
        assert!(!at(0, 0, i64::MAX) && !at(0, 0, 0) && !at(0, 0, -1));
    }

    #[test]
    fn few_are_remembered() {
        let mut record = Record::default();
        for step in 0..100 {
            record = after(&record, "a", step * YEAR, 0);
        }
        assert_eq!(record.steps.len(), MOST);
    }
}
