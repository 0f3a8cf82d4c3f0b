//! What the head's board keeps, and for how long. Cards leave their columns only here; what is
//! still waiting, running, or needed to restore a batch is never touched, and numbers are not
//! given out again, since `seq` does not go back.

use std::time::{Duration, SystemTime};

use crate::board::attic::{self, Board, SHARD, Tally};
use crate::board::batches;
use crate::board::boxes;
use crate::board::cards::Cards;
use crate::board::leftovers;
use crate::board::root::Root;
use crate::clock::Present;
use crate::error::{Error, Result};

/// How often the poller cleans up.
pub const EVERY: Duration = Duration::from_secs(600);

/// Directories of `done/` that each clean-up looks through wherever the old cards seem to end.
/// Cards do not finish in the order of their numbers.
const LOOKED_THROUGH: usize = 10;

/// What a clean-up removed.
#[derive(Debug, Default)]
pub struct Cleaned {
    /// Finished cards.
    pub cards: usize,
    /// Everything else: claims, lists of children, uploads, unreadable cards, litter.
    pub others: usize,
    /// What could not be removed, or looked at; it stays, and the rest went on.
    pub trouble: Vec<Error>,
}

/// Cleans up the head's board by the settings' ages and counts; no clock that was set makes anything
/// old. What submitters that died left is
/// finished first: a job that will yet have its card keeps its uploads.
pub fn clean(root: &Root, now: &Present) -> Cleaned {
    let settings = &root.settings;
    let cards = Cards::new(root);
    let mut others = Tally::default();
    let _ = others.told(batches::recover(&cards).1);
    let _ = others.told(cards.recover_prepared());
    let mut done = Tally::default();
    if let Some(board) = others.told(Board::new(root)) {
        let cleaned = clean_done(root, &board, now, &mut done);
        let _ = done.told(cleaned);
        attic::remove_claims(&board, settings.keep_done, now, &mut others);
        leftovers::remove_of_gone(&board, &mut others);
        leftovers::remove_uploads(&board, now, &mut others);
    }
    attic::remove_old_bad(root, settings.keep_bad, now, &mut others);
    attic::remove_litter(root, now, &mut others);
    boxes::remove_litter(root, now, &mut others);
    let mut trouble = done.trouble;
    trouble.append(&mut others.trouble);
    Cleaned { cards: done.removed, others: others.removed, trouble }
}

/// Removes finished cards. All are looked at where they are more than are to be kept, where no card
/// has come for so long that all are old, and from the oldest number on up to the first directory
/// of which all are to be kept; of the others, in turn, a few directories each time. So with a
/// million cards it costs a look at each directory and at some thousands of cards.
fn clean_done(root: &Root, board: &Board, now: &Present, tally: &mut Tally) -> Result<()> {
    let cards = Cards::new(root);
    let shards = cards.done_shards()?;
    let mut room = root.settings.keep_done_count;
    let crowded = shards.len().saturating_mul(SHARD) > room;
    let mut surplus = vec![0; shards.len()];
    for (surplus, shard) in surplus.iter_mut().zip(&shards).filter(|_| crowded) {
        let count = tally.told(cards.done_in(*shard)).map_or(0, |jobs| jobs.len());
        *surplus = count.saturating_sub(room);
        room -= count.min(room);
    }
    let turn = Turn::of(shards.len(), now.time());
    let mut all_old_so_far = true;
    for (index, (shard, mut surplus)) in shards.into_iter().zip(surplus).rev().enumerate() {
        let quiet = tally.told(attic::shard_is_older(root, shard, root.settings.keep_done, now));
        let wanted = surplus > 0 || all_old_so_far || quiet == Some(true) || turn.has(index);
        let Some(mut jobs) = wanted.then(|| tally.told(cards.done_in(shard))).flatten() else {
            continue;
        };
        jobs.sort_unstable();
        let before = tally.removed;
        let mut old_ones = Vec::new();
        for job in jobs.iter().copied().filter(|job| !board.is_restorable(*job)) {
            let old = surplus > 0
                || tally.told(attic::done_is_older(root, job, root.settings.keep_done, now))
                    == Some(true);
            if old {
                surplus = surplus.saturating_sub(1);
                old_ones.push(job);
            }
        }
        attic::remove_done(root, &old_ones, tally);
        let _ = tally.told(attic::remove_empty_shard(root, shard));
        all_old_so_far &= jobs.is_empty() || tally.removed > before;
    }
    Ok(())
}

/// Whose turn it is to be looked through, by the clock, so that a round of cron has its turns, too.
struct Turn {
    first: usize,
    of: usize,
}

impl Turn {
    fn of(shards: usize, now: SystemTime) -> Turn {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let rounds = (since.as_secs() / EVERY.as_secs()) as usize;
        Turn { first: rounds.wrapping_mul(LOOKED_THROUGH) % shards.max(1), of: shards }
    }

    fn has(&self, index: usize) -> bool {
        (index + self.of - self.first) % self.of < LOOKED_THROUGH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_directory_has_its_turn() {
        for shards in [1, 7, 10, 11, 95, 1000] {
            let mut seen = vec![0; shards];
            let begin = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000);
            for round in 0..shards.div_ceil(LOOKED_THROUGH) as u32 + 1 {
                let turn = Turn::of(shards, begin + EVERY * round);
                let looked = (0..shards).filter(|index| turn.has(*index)).collect::<Vec<_>>();
                assert_eq!(looked.len(), shards.min(LOOKED_THROUGH));
                looked.into_iter().for_each(|index| seen[index] += 1);
            }
            assert!(seen.iter().all(|times| *times > 0), "{shards}: {seen:?}");
        }
    }
}
