//! What looking at the board may spare, and what it may not: what is known of its directories by their
//! times, and when all is looked at.

use std::time::{Duration, SystemTime};

use super::index::Moment;

/// A directory's time is trusted to tell changes apart once it is so old.
const GRAIN: Duration = Duration::from_secs(2);

/// Every so many looks, nodes are asked about every job that they have.
const PER_RESYNC: u32 = 6;

/// A clock that is off by more than this from one look to the next was set.
const CLOCK_SET: Duration = Duration::from_secs(30);

/// Directories that have been looked through, by the times at which they last changed. Of one that was
/// young then nothing is known: a change within the clock's grain could hide behind an equal time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unchanged<T>(Option<T>);

/// Times of directories.
pub trait Times: PartialEq + Copy {
    /// The youngest of them.
    fn latest(&self) -> SystemTime;
}

impl Times for SystemTime {
    fn latest(&self) -> SystemTime {
        *self
    }
}

impl Times for (SystemTime, SystemTime) {
    fn latest(&self) -> SystemTime {
        self.0.max(self.1)
    }
}

impl<T: Times> Unchanged<T> {
    /// Nothing is known.
    pub const UNKNOWN: Unchanged<T> = Unchanged(None);

    /// Directories that changed at these times, and are looked through after `now`.
    pub fn since(times: T, now: SystemTime) -> Unchanged<T> {
        let is_old = now.checked_sub(GRAIN).is_some_and(|grain| times.latest() < grain);
        Unchanged(is_old.then_some(times))
    }

    /// Whether they are as they were, if these are their times now.
    pub fn is_so(&self, times: T) -> bool {
        self.0 == Some(times)
    }
}

/// See the module. While all is to be looked at, nothing counts as known.
#[derive(Debug)]
pub struct Looks {
    /// How many there were since all was to be looked at.
    count: u32,
    /// When the last one was, by the clock and by what goes on steadily.
    last: Moment,
    /// Queue and running cards.
    columns: Unchanged<(SystemTime, SystemTime)>,
    /// The queue, where no batch was in it.
    no_batches: Unchanged<SystemTime>,
    /// Waiting cards, as they are changed where they lie.
    waiting: Unchanged<SystemTime>,
}

impl Looks {
    /// Nothing was looked at.
    pub fn new(now: Moment) -> Looks {
        Looks {
            count: 0,
            last: now,
            columns: Unchanged::UNKNOWN,
            no_batches: Unchanged::UNKNOWN,
            waiting: Unchanged::UNKNOWN,
        }
    }

    /// All is to be looked at the next time, whatever is known.
    pub fn begin_anew(&mut self) {
        self.count = 0;
    }

    /// Whether all is looked at.
    pub fn is_full(&self) -> bool {
        self.count == 0
    }

    /// Another look begins. All is looked at if the clock was set since the last one: a time that was an
    /// hour ahead may be a year ahead now.
    pub fn begin(&mut self, now: Moment) {
        let last = std::mem::replace(&mut self.last, now);
        let expected = last.time + now.steady.saturating_duration_since(last.steady);
        let off = now.time.duration_since(expected).unwrap_or_else(|behind| behind.duration());
        if off > CLOCK_SET {
            self.begin_anew();
        }
    }

    /// It is over; whether nodes are to be asked now about all that they have.
    pub fn end(&mut self) -> bool {
        self.count = self.count.wrapping_add(1);
        self.count.is_multiple_of(PER_RESYNC)
    }

    /// Whether no job came to these columns or left them, by their times.
    pub fn are_columns_known(&self, times: (SystemTime, SystemTime)) -> bool {
        !self.is_full() && self.columns.is_so(times)
    }

    /// The columns have been looked through.
    pub fn know_columns(&mut self, columns: Unchanged<(SystemTime, SystemTime)>) {
        self.columns = columns;
    }

    /// Whether the queue, by its time, holds no batch.
    pub fn is_without_batches(&self, queue: SystemTime) -> bool {
        !self.is_full() && self.no_batches.is_so(queue)
    }

    /// Batches have been looked for: the queue, if there was none.
    pub fn know_batches(&mut self, none: Unchanged<SystemTime>) {
        self.no_batches = none;
    }

    /// Whether no waiting card was changed where it lies, by the time that tells of it.
    pub fn are_waiting_known(&self, changed: SystemTime) -> bool {
        self.waiting.is_so(changed)
    }

    /// Waiting cards have been looked at.
    pub fn know_waiting(&mut self, waiting: Unchanged<SystemTime>) {
        self.waiting = waiting;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn moment() -> Moment {
        Moment { time: SystemTime::UNIX_EPOCH + SECOND * 1_000_000, steady: Instant::now() }
    }

    #[test]
    fn a_directory_that_has_just_changed_may_change_again_unseen() {
        let now = moment().time;
        for (age, is_known) in [(0, false), (1, false), (2, false), (3, true)] {
            let time = now - SECOND * age;
            let unchanged = Unchanged::since(time, now);
            assert_eq!(unchanged.is_so(time), is_known, "{age}");
            assert!(!unchanged.is_so(time + SECOND));
            let old = now - SECOND * 100;
            for pair in [(time, old), (old, time)] {
                assert_eq!(Unchanged::since(pair, now).is_so(pair), is_known, "{age}");
            }
        }
    }

    #[test]
    fn nothing_counts_as_known_while_all_is_to_be_looked_at() {
        let now = moment();
        let old = now.time - SECOND * 100;
        let mut looks = Looks::new(now);
        looks.know_columns(Unchanged::since((old, old), now.time));
        looks.know_batches(Unchanged::since(old, now.time));
        assert!(!looks.are_columns_known((old, old)) && !looks.is_without_batches(old));
        looks.end();
        assert!(looks.are_columns_known((old, old)) && looks.is_without_batches(old));
        looks.begin_anew();
        assert!(!looks.are_columns_known((old, old)) && !looks.is_without_batches(old));
    }

    #[test]
    fn a_clock_that_was_set_has_all_looked_at() {
        for (set, is_full) in [(0, false), (20, false), (40, true), (-20, false), (-40, true)] {
            let begin = moment();
            let mut looks = Looks::new(begin);
            looks.end();
            let steady = begin.steady + SECOND * 60;
            let by = SECOND * i32::unsigned_abs(set);
            let time = begin.time + SECOND * 60;
            let time = if set < 0 { time - by } else { time + by };
            looks.begin(Moment { time, steady });
            assert_eq!(looks.is_full(), is_full, "{set}");
        }
    }

    #[test]
    fn nodes_are_asked_about_everything_now_and_then() {
        let mut looks = Looks::new(moment());
        let asked = (1..=12).filter(|_| looks.end()).count();
        assert_eq!(asked, 2);
    }
}
