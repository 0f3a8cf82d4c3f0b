//! What the head's board keeps, and for how long. Cards leave their columns only here; what is
//! still waiting, running, or needed to restore a batch is never touched, and numbers are not
//! given out again, since `seq` does not go back.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use crate::board::attic;
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
    let mut kept = 0;
    for shard in cards.done_shards()? {
        let mut jobs = cards.done_in(shard)?;
        jobs.sort_unstable_by(|a, b| b.cmp(a));
        for job in jobs {
            kept += 1;
            if attic::done_is_older(root, job, settings.keep_done, now)?
                || kept > settings.keep_done_count
            {
                cleaned.cards += usize::from(attic::remove_done(root, job)?);
            }
        }
        attic::remove_empty_shard(root, shard)?;
    }
    let gone = |job: u64| match cards.find(job) {
        Ok(card) => card.state == State::Stopped,
        Err(_) => true,
    };
    cleaned.others += attic::remove_claims(root, settings.keep_done, now)?;
    cleaned.others += attic::remove_old_bad(root, settings.keep_bad, now)?;
    cleaned.others += attic::remove_litter(root, now)?;
    let alive: HashSet<u64> = cards.newest(usize::MAX)?.into_iter().collect();
    cleaned.others += attic::remove_children(root, &alive)?;
    for job in uploads::jobs(root)? {
        if gone(job) && attic::uploads_are_old(root, job, now)? {
            uploads::remove(root, job)?;
            cleaned.others += 1;
        }
    }
    Ok(cleaned)
}
