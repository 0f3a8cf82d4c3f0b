//! What the head's board keeps, and for how long. Cards leave their columns only here; what is
//! still waiting, running, or needed to restore a batch is never touched, and numbers are not
//! given out again, since `seq` does not go back.

use std::time::{Duration, SystemTime};

use crate::board::attic;
use crate::board::batches;
use crate::board::cards::Cards;
use crate::board::root::Root;
use crate::board::uploads;
use crate::error::Result;
use crate::model::card::State;

/// How often the poller cleans up.
pub const EVERY: Duration = Duration::from_secs(600);

/// What a clean-up removed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Cleaned {
    /// Finished cards.
    pub cards: usize,
    /// Everything else: claims, lists of children, uploads, unreadable cards, litter.
    pub others: usize,
}

/// Cleans up the head's board by the settings' ages and counts.
pub fn clean(root: &Root, now: SystemTime) -> Result<Cleaned> {
    let settings = &root.settings;
    let cards = Cards::new(root);
    let mut cleaned = Cleaned::default();
    let committed = batches::committed(&cards)?;
    let restorable =
        |job: u64| committed.iter().any(|(first, last)| (*first..=*last).contains(&job));
    let mut shards = Vec::new();
    let mut total = 0;
    for shard in cards.done_shards()? {
        let mut jobs = cards.done_in(shard)?;
        jobs.sort_unstable();
        total += jobs.len();
        shards.push((shard, jobs));
    }
    // From the oldest on, up to the first thousand of which all are to be kept.
    let mut surplus = total.saturating_sub(settings.keep_done_count);
    for (shard, jobs) in shards.into_iter().rev() {
        let mut kept_all = true;
        for job in jobs.iter().copied().filter(|job| !restorable(*job)) {
            if surplus > 0 || attic::done_is_older(root, job, settings.keep_done, now)? {
                cleaned.cards += usize::from(attic::remove_done(root, job)?);
                surplus = surplus.saturating_sub(1);
                kept_all = false;
            }
        }
        attic::remove_empty_shard(root, shard)?;
        if kept_all && !jobs.is_empty() {
            break;
        }
    }
    let gone = |job: u64| match cards.find(job) {
        Ok(card) => card.state == State::Stopped,
        Err(_) => true,
    };
    cleaned.others += attic::remove_claims(root, settings.keep_done, now)?;
    cleaned.others += attic::remove_old_bad(root, settings.keep_bad, now)?;
    cleaned.others += attic::remove_litter(root, now)?;
    cleaned.others += attic::remove_children(root, |job| cards.find(job).is_ok())?;
    for job in uploads::jobs(root)? {
        if gone(job) && attic::uploads_are_old(root, job, now)? {
            uploads::remove(root, job)?;
            cleaned.others += 1;
        }
    }
    Ok(cleaned)
}
