//! `state/scheduler/clock`: by how much this machine's clock was put forward, as clean-ups have seen
//! it. What was written before that seems to be so much older than it is.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::files;
use super::root::{Root, boot_id};
use crate::clock::{Present, Step};
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
}

/// The latest time that has a form, and the longest that a clock can be put forward.
const LAST: i64 = 253_402_300_799_999;

impl Record {
    /// Whether a clean-up can have noted this: whatever else lies there was not.
    fn is_possible(&self) -> bool {
        let time = -LAST..=LAST; // a clock may stand before 1970 for a while
        let put = |step: &Step| time.contains(&step.before) && (1..=LAST).contains(&step.by);
        time.contains(&self.began) && self.steps.iter().all(put)
    }
}

/// The present, for whoever removes what is old. Notes what has become of the clock since the last
/// time; a crash leaves the old note or the new one, and so does a full disk, which is told besides:
/// the next time comes to the same. What happens to the clock while the machine is off, nobody can
/// tell from time that has passed.
pub fn present(root: &Root) -> Result<(Present, Result<()>)> {
    root.for_change()?;
    let path = root.state(FILE);
    let bytes = files::read(&path)?.unwrap_or_default();
    let known = serde_json::from_slice(&bytes).ok().filter(Record::is_possible);
    let known = known.unwrap_or_default(); // damaged: begins anew
    let now = SystemTime::now();
    let steady = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).at("clock")?);
    let record = noted(known.clone(), &boot_id()?, millis(now), steady.as_millis() as i64);
    let mut kept = Ok(());
    if record != known {
        kept = files::replace(&root.state("scheduler/tmp"), &path, &files::json_line(&record)?);
    }
    Ok((Present::of(now, record.steps), kept))
}

fn millis(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64
}

/// What there is to note now; `steady` is how long ago this boot began.
fn noted(known: Record, boot: &str, now: i64, steady: i64) -> Record {
    let began = now - steady;
    let ahead = if known.boot == boot { began - known.began } else { 0 };
    if known.boot == boot && ahead.abs() <= SET {
        return known;
    }
    let mut steps = known.steps;
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
    Record { boot: boot.to_string(), began, steps }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn what_no_clock_says_was_not_noted() {
        let at = |began, before, by| {
            let steps = vec![Step { before, by }];
            Record { boot: "a".into(), began, steps }.is_possible()
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
