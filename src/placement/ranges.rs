//! How many tasks of an array a node is given at a time. Pure policy.
//!
//! A slot is given its share of half of what waits, so that shares grow smaller towards the end
//! and all slots end at nearly the same time (guided self-scheduling: Polychronopoulos and Kuck,
//! IEEE Transactions on Computers C-36(12), 1987), but, where tasks are known to be short, no less
//! than keeps a slot busy for a while: each range costs its node as much as a job. A node gives
//! back what it did not start in time, so tasks that take longer than others thought do no harm.

use std::time::Duration;

/// A range of short tasks keeps its slot busy for so long at least.
const WORTH_SENDING: Duration = Duration::from_millis(250);

/// Most tasks of one range: what a node says of them fits into one line of its feed.
const MOST: u64 = 10_000;

/// The number of tasks of the next range: of `waiting` tasks, for nodes that run `slots` of them
/// at a time, where a task has taken `pace` so far.
pub fn size(waiting: u64, slots: u64, pace: Option<Duration>) -> u64 {
    let share = waiting.div_ceil(slots.max(1).saturating_mul(2));
    let worth = pace.map_or(1, |pace| WORTH_SENDING.as_nanos() / pace.as_nanos().max(1));
    share.max(u64::try_from(worth).unwrap_or(MOST)).min(MOST).min(waiting)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(mut waiting: u64, slots: u64, pace: Option<Duration>) -> Vec<u64> {
        let mut sizes = Vec::new();
        while waiting > 0 {
            let size = size(waiting, slots, pace);
            assert!(size > 0);
            sizes.push(size);
            waiting -= size;
        }
        sizes
    }

    #[test]
    fn shares_shrink_and_short_tasks_travel_together() {
        assert_eq!(sizes(10, 2, None), [3, 2, 2, 1, 1, 1]);
        assert_eq!(sizes(10, 100, None), [1; 10]);
        let long = Some(Duration::from_secs(60));
        assert_eq!(sizes(8, 1, long), [4, 2, 1, 1]);
        let short = Some(Duration::from_millis(1));
        assert_eq!(sizes(1000, 2, short), [250, 250, 250, 250]);
        assert!(sizes(10_000, 2, short).len() < 16);
        assert!(sizes(1_000_000, 2, short).iter().all(|size| *size <= MOST));
        assert_eq!(sizes(5, 0, Some(Duration::ZERO)), [5]);
    }
}
