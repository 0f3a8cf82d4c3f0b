//! Removing what the head's board need not keep any more. Policy is the caller's; what may never
//! be removed is decided here. Absence has to be proven: what could not be looked at is kept.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use super::batch_files;
use super::card_feed::Held;
use super::cards::{CARDS_PER_LOCK, Cards, DONE_SHARD};
use super::claims::{self, Released};
use super::files;
use super::incoming;
use super::listing;
use super::lock;
use super::progress;
use super::root::Root;
use crate::clock::Present;
use crate::error::{At, Error, Kind, Result};
use crate::model::card::{Card, Column, State};

/// Age at which files in `tmp/` are litter: their writers ended long ago.
const LITTER: Duration = Duration::from_secs(24 * 3600);

// A CGI request ends within the hour at the latest; a batch of the largest size takes seconds.
const _: () = assert!(LITTER.as_secs() > 60 * 60);

/// Most errors of one clean-up that are kept, to be told.
const MOST_TROUBLE: usize = 10;

const COLUMNS: [Column; 3] = [Column::Queue, Column::Running, Column::Done];

/// What a clean-up has done. What cannot be removed, or looked at, stays and is told; it keeps
/// nothing else from being removed.
#[derive(Debug, Default)]
pub struct Tally {
    /// How many were removed.
    pub removed: usize,
    /// What went wrong, the first few.
    pub trouble: Vec<Error>,
}

impl Tally {
    /// Counts what was removed (`true`), or keeps what went wrong.
    pub fn note(&mut self, removed: Result<bool>) {
        match removed {
            Ok(removed) => self.removed += usize::from(removed),
            Err(error) if self.trouble.len() < MOST_TROUBLE => self.trouble.push(error),
            Err(_) => {}
        }
    }

    /// The value, or `None` for an error, which is kept.
    pub fn told<T>(&mut self, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.note(Err(error));
                None
            }
        }
    }

    /// The names in a directory; none where it cannot be read.
    pub fn names(&mut self, dir: &Path) -> Vec<String> {
        self.told(files::names(dir)).unwrap_or_default()
    }
}

/// Whether no card has come to a directory of `done/`, or left it, for so long.
pub fn shard_is_older(root: &Root, shard: u64, than: Duration, now: &Present) -> Result<bool> {
    files::is_older(&Cards::new(root).path(&format!("done/{shard}")), than, now)
}

/// Whether a finished card was last written longer ago than that.
pub fn done_is_older(root: &Root, job: u64, than: Duration, now: &Present) -> Result<bool> {
    files::is_older(&Cards::new(root).card_path(Column::Done, job), than, now)
}

/// What the feed calls the removal of a card.
const REMOVED: &str = "removed";

/// Removes finished cards, their lists of children, and what they have said of their progress, and tells
/// of it; not one that is for a newer program to remove. Not for cards that a committed batch would
/// restore. One that has not stopped, or cannot be read, is nobody's to remove: it is moved to where its
/// lines say, or put aside, as by whoever changes it.
///
/// Their claims then say that the jobs are finished, in a copy of the board whose hard links were
/// copied as files of their own, too: else a repeat of the request would know only the state of
/// the day of the copy.
pub fn remove_done(root: &Root, jobs: &[u64], tally: &mut Tally) {
    let cards = Cards::new(root);
    for jobs in jobs.chunks(CARDS_PER_LOCK) {
        let is_to_go = |job: &u64| tally.told(is_removable(&cards, *job)) == Some(true);
        let jobs: Vec<u64> = jobs.iter().copied().filter(is_to_go).collect();
        if jobs.is_empty() {
            continue;
        }
        let Some(lock) = tally.told(cards.lock()) else { return };
        for job in jobs {
            tally.note(remove_one(&cards, &lock, job));
        }
    }
}

fn remove_one(cards: &Cards, lock: &Held, job: u64) -> Result<bool> {
    // Before the card: what is left without one is a stray.
    files::remove(&cards.path(&format!("{}/{job}", progress::DIR)))?;
    lock.begin();
    let path = cards.card_path(Column::Done, job);
    let removed = files::gone_is_fine(fs::remove_file(&path)).at(&path)?.is_some();
    if removed {
        lock.done(job, State::Stopped, REMOVED);
    }
    files::remove(&cards.path(&format!("children/{job}")))?;
    Ok(removed)
}

/// Whether this finished card may go; its claim is prepared for that.
fn is_removable(cards: &Cards, job: u64) -> Result<bool> {
    let path = cards.card_path(Column::Done, job);
    let Some(bytes) = files::read(&path)? else { return Ok(false) };
    let card = match Card::parse(&bytes) {
        Ok(card) if card.newer.is_some() => return Ok(false),
        Ok(card) if card.job() == job && card.state == State::Stopped => card,
        Ok(_) | Err(_) => return put_right(cards, job).map(|()| false),
    };
    if let Some(meta) = files::gone_is_fine(fs::metadata(&path)).at(&path)?
        && meta.nlink() == 1
    {
        let claim = cards.claim_path(&card.accepted.by, &card.accepted.request_id);
        if claim.try_exists().at(&claim)? {
            claims::rejoin(cards, &claim, job)?;
        }
    }
    Ok(true)
}

/// Moves a card to the column in which it belongs, or puts it aside, which is said where it is done.
fn put_right(cards: &Cards, job: u64) -> Result<()> {
    let lock = cards.lock()?;
    match cards.change(&lock, job, |_| Ok(Vec::new())) {
        Ok(changed) => changed.sync.commit(),
        Err(error) if error.kind == Kind::Gone => Ok(()),
        Err(error) => Err(error),
    }
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

/// Most cards that a directory of `done/` holds.
pub const SHARD: usize = DONE_SHARD as usize;

/// The board, to be asked which jobs are gone from it.
#[derive(Debug)]
pub struct Board<'r> {
    pub(super) cards: Cards<'r>,
    /// The batches that can restore cards. Those that come later are of jobs that are not old.
    committed: Vec<(u64, u64)>,
}

impl<'r> Board<'r> {
    /// An error where it cannot be known which batches there are.
    pub fn new(root: &'r Root) -> Result<Board<'r>> {
        let cards = Cards::new(root);
        Ok(Board { cards, committed: batch_files::committed(&cards.column_path(Column::Queue))? })
    }

    /// Whether a batch can restore this job's card.
    pub fn is_restorable(&self, job: u64) -> bool {
        self.committed.iter().any(|(first, last)| (*first..=*last).contains(&job))
    }

    /// Whether a job is proven to be off the board: its card in no column, neither prepared, nor put
    /// aside where it can be mended, nor to be restored by a batch. What cannot be looked at is an
    /// error, and no absence.
    pub(super) fn is_gone(&self, job: u64) -> Result<bool> {
        if self.is_restorable(job) || self.lies_somewhere(job)? {
            return Ok(false);
        }
        let lock = self.cards.lock()?; // it may just have been on the move
        self.is_gone_now(&lock, job)
    }

    fn is_gone_now(&self, _lock: &Held, job: u64) -> Result<bool> {
        Ok(!self.lies_somewhere(job)? && !self.lies_aside(job)?)
    }

    fn lies_somewhere(&self, job: u64) -> Result<bool> {
        let places = COLUMNS.map(|column| self.cards.card_path(column, job));
        for path in [self.cards.prepared(job)].into_iter().chain(places) {
            if path.try_exists().at(&path)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn lies_aside(&self, job: u64) -> Result<bool> {
        let name = format!("{job}.job");
        let is_its = |other: &String| {
            other.strip_prefix(&name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        Ok(files::names(&self.cards.path("bad"))?.iter().any(is_its))
    }
}

/// Removes claims of request ids whose card is gone from the board, and that are old: after that
/// the same request id makes a new job.
pub fn remove_claims(board: &Board, than: Duration, now: &Present, tally: &mut Tally) {
    let dir = board.cards.path("requests");
    for name in tally.names(&dir) {
        let path = dir.join(name);
        tally.note(remove_claim(board, &path, than, now));
    }
}

fn remove_claim(board: &Board, path: &Path, than: Duration, now: &Present) -> Result<bool> {
    let Some(meta) = files::gone_is_fine(fs::metadata(path)).at(path)? else { return Ok(false) };
    if meta.nlink() > 1 || !files::is_older(path, than, now)? {
        return Ok(false);
    }
    let Some(bytes) = files::read(path)? else { return Ok(false) };
    let card = Card::parse(&bytes).ok();
    if let Some(card) = &card
        && (card.newer.is_some() || board.is_restorable(card.job()))
    {
        return Ok(false);
    }
    // Nobody takes another request for this one while the lock is held: see `claims::release`.
    let lock = board.cards.lock()?;
    let Some(now) = files::gone_is_fine(fs::metadata(path)).at(path)? else { return Ok(false) };
    let file = |meta: &fs::Metadata| (meta.dev(), meta.ino());
    if file(&now) != file(&meta) || now.nlink() > 1 {
        return Ok(false); // it is another by now
    }
    if let Some(card) = card
        && !board.is_gone_now(&lock, card.job())?
    {
        return Ok(false); // of a copied board: the card is a file of its own
    }
    files::remove(path)?;
    Ok(true)
}

/// Removes unreadable cards that were put aside long ago, and tells of it.
pub fn remove_old_bad(root: &Root, than: Duration, now: &Present, tally: &mut Tally) {
    let cards = Cards::new(root);
    let dir = cards.path("bad");
    for name in tally.names(&dir) {
        let path = dir.join(&name);
        tally.note(match files::is_older(&path, than, now) {
            Ok(true) => match listing::card_number(&name) {
                Some(job) => remove_bad(&cards, job, &path),
                None => files::remove(&path).map(|()| true),
            },
            other => other,
        });
    }
}

fn remove_bad(cards: &Cards, job: u64, path: &Path) -> Result<bool> {
    let lock = cards.lock()?;
    lock.begin();
    let removed = files::gone_is_fine(fs::remove_file(path)).at(path)?.is_some();
    if removed {
        lock.done(job, State::Stopped, REMOVED);
    }
    Ok(removed)
}

/// Removes what writers that died left in `tmp/`: files that were arriving as soon as nobody holds
/// them, the rest when it is old. A prepared card with a claim is no litter: the poller publishes it,
/// unless it is of a batch that was abandoned.
pub fn remove_litter(root: &Root, now: &Present, tally: &mut Tally) {
    let cards = Cards::new(root);
    let dir = cards.path("tmp");
    for name in tally.names(&dir) {
        let path = dir.join(name);
        tally.note(match incoming::is_one(&path) {
            true => remove_if_abandoned(&path, now),
            false => remove_if_litter(&cards, &path, now),
        });
    }
}

/// Removes where files arrived, if nobody writes there any more.
fn remove_if_abandoned(path: &Path, now: &Present) -> Result<bool> {
    let abandoned = incoming::is_abandoned(path, now)?;
    if abandoned {
        files::remove_tree(path)?;
    }
    Ok(abandoned)
}

fn remove_if_litter(cards: &Cards, path: &Path, now: &Present) -> Result<bool> {
    let Some(meta) = files::gone_is_fine(fs::symlink_metadata(path)).at(path)? else {
        return Ok(false);
    };
    if !meta.is_file() || !files::is_older(path, LITTER, now)? {
        return Ok(false);
    }
    // Any other name there is in the middle of being linked, a day ago.
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if batch_files::is_name(name) && lock::is_locked(path)? {
        return Ok(false); // its submitter is at work: it is the clock that made a day of a moment
    }
    let is_card = listing::card_number(name).is_some();
    let litter = !is_card || meta.nlink() == 1 || was_abandoned(cards, path)?;
    if litter {
        files::remove(path)?;
    }
    Ok(litter)
}

/// Whether this is a prepared card of a batch that was abandoned; then its claim is removed.
fn was_abandoned(cards: &Cards, path: &Path) -> Result<bool> {
    let bytes = files::read(path)?.unwrap_or_default();
    let known = Card::parse(&bytes).ok().filter(|card| card.newer.is_none());
    let Some(accepted) = known.map(|card| card.accepted) else { return Ok(false) };
    if accepted.batch.is_none() {
        return Ok(false);
    }
    let claim = cards.claim_path(&accepted.by, &accepted.request_id);
    Ok(matches!(claims::release(cards, &claim)?, Released::Gone))
}
