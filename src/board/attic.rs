//! Removing what the head's board need not keep any more. Policy is the caller's; what may never
//! be removed is decided here.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::cards::Cards;
use super::claims::{self, Released};
use super::files;
use super::root::Root;
use crate::error::{At, Result};
use crate::model::card::{Card, Column};
use crate::model::ids;

/// Age at which files in `tmp/` are litter: their writers ended long ago.
const LITTER: Duration = Duration::from_secs(24 * 3600);

// A CGI request is ended by its alarm after 60 s; a batch of the largest size takes seconds.
const _: () = assert!(LITTER.as_secs() > 60 * 60);

/// Age at which uploads whose job has no card are litter.
const ORPHANED: Duration = Duration::from_secs(3600);

fn is_older(path: &Path, than: Duration, now: SystemTime) -> Result<bool> {
    let Some(meta) = files::gone_is_fine(fs::symlink_metadata(path)).at(path)? else {
        return Ok(false);
    };
    let changed = meta.modified().at(path)?;
    Ok(now.duration_since(changed).is_ok_and(|age| age > than))
}

/// Whether a finished card was last written longer ago than that.
pub fn done_is_older(root: &Root, job: u64, than: Duration, now: SystemTime) -> Result<bool> {
    is_older(&Cards::new(root).card_path(Column::Done, job), than, now)
}

/// Removes a finished card and its list of children; `false` if it was gone. Not for cards that
/// a committed batch would restore.
pub fn remove_done(root: &Root, job: u64) -> Result<bool> {
    let cards = Cards::new(root);
    let path = cards.card_path(Column::Done, job);
    let removed = files::gone_is_fine(fs::remove_file(&path)).at(&path)?.is_some();
    files::remove(&cards.path(&format!("children/{job}")))?;
    Ok(removed)
}

/// Removes a directory of `done/` if nothing is in it. Under the lock: a card on its way there has
/// its directory.
pub fn remove_empty_shard(root: &Root, shard: u64) -> Result<()> {
    let cards = Cards::new(root);
    if cards.done_in(shard)?.is_empty() {
        let _lock = cards.lock()?;
        // Not empty any more, or gone: both are fine.
        let _ = fs::remove_dir(cards.path(&format!("done/{shard}")));
    }
    Ok(())
}

/// Removes claims of request ids whose card is finished and gone from `done/`, and old: after
/// that the same request id makes a new job.
pub fn remove_claims(root: &Root, than: Duration, now: SystemTime) -> Result<usize> {
    let cards = Cards::new(root);
    let dir = cards.path("requests");
    let mut removed = 0;
    for name in files::names(&dir)? {
        let path = dir.join(name);
        let Some(meta) = files::gone_is_fine(fs::metadata(&path)).at(&path)? else { continue };
        if meta.nlink() > 1 || !is_older(&path, than, now)? {
            continue;
        }
        let bytes = files::read(&path)?.unwrap_or_default();
        if Card::parse(&bytes).is_ok_and(|card| card.column() != Column::Done) {
            continue; // its card was lost with a power failure; repeating the request restores it
        }
        files::remove(&path)?;
        removed += 1;
    }
    Ok(removed)
}

/// Removes unreadable cards that were put aside long ago.
pub fn remove_old_bad(root: &Root, than: Duration, now: SystemTime) -> Result<usize> {
    let dir = Cards::new(root).path("bad");
    let mut removed = 0;
    for name in files::names(&dir)? {
        let path = dir.join(name);
        if is_older(&path, than, now)? {
            files::remove(&path)?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Removes what writers that died left in `tmp/`. A prepared card with a claim is no litter: the
/// poller publishes it, unless it is of a batch that was abandoned.
pub fn remove_litter(root: &Root, now: SystemTime) -> Result<usize> {
    let cards = Cards::new(root);
    let dir = cards.path("tmp");
    let mut removed = 0;
    for name in files::names(&dir)? {
        let path = dir.join(name);
        let Some(meta) = files::gone_is_fine(fs::symlink_metadata(&path)).at(&path)? else {
            continue;
        };
        if !meta.is_file() || !is_older(&path, LITTER, now)? {
            continue;
        }
        if meta.nlink() == 1 || was_abandoned(&cards, &path)? {
            files::remove(&path)?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Whether this is a prepared card of a batch that was abandoned; then its claim is removed.
fn was_abandoned(cards: &Cards, path: &Path) -> Result<bool> {
    let bytes = files::read(path)?.unwrap_or_default();
    let Some(accepted) = Card::parse(&bytes).ok().map(|card| card.accepted) else {
        return Ok(false);
    };
    if accepted.batch.is_none() {
        return Ok(false);
    }
    let claim = cards.claim_path(&accepted.by, &accepted.request_id);
    Ok(matches!(claims::release(cards, &claim)?, Released::Gone))
}

/// Removes lists of children whose parent is not on the board any more.
pub fn remove_children(root: &Root, is_there: impl Fn(u64) -> bool) -> Result<usize> {
    let dir = Cards::new(root).path("children");
    let mut removed = 0;
    for name in files::names(&dir)? {
        if ids::parse_number(&name).is_some_and(|job| !is_there(job)) {
            files::remove(&dir.join(name))?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Whether a job's uploads are so old that no submission can still be going to use them.
pub fn uploads_are_old(root: &Root, job: u64, now: SystemTime) -> Result<bool> {
    is_older(&root.state("scheduler/files").join(job.to_string()), ORPHANED, now)
}
