//! Claims of request ids: a second name of a card's inode, in `requests/`.
//!
//! Whoever makes that name first has the id; whoever comes later finds the card under it, and
//! finishes what the first one left undone.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::batch_files::{self, Range};
use super::card_feed::Submission;
use super::cards::Cards;
use super::files;
use super::listing::card_numbers;
use super::lock;
use super::sync_set::SyncSet;
use crate::error::{At, Error, Kind, Result};
use crate::model::card::{Accepted, Card, Column};

impl Cards<'_> {
    pub(super) fn claim_path(&self, who: &str, request_id: &str) -> PathBuf {
        let digest = Sha256::digest(format!("{who}\0{request_id}").as_bytes());
        self.path("requests").join(base16ct::lower::encode_string(&digest[..16]))
    }

    /// The card that has claimed this request id, if one has.
    pub fn claimed(&self, who: &str, request_id: &str) -> Result<Option<Card>> {
        let claim = self.claim_path(who, request_id);
        match files::read(&claim)? {
            Some(_) => self.finish_claim(&claim).map(Some),
            None => Ok(None),
        }
    }

    /// The card that claimed a request id, brought to its column by whoever comes first.
    pub(super) fn finish_claim(&self, claim: &Path) -> Result<Card> {
        let gone = || {
            Error::new(
                Kind::Unavailable,
                "the same request is being submitted by another process; try again",
            )
        };
        let read = |path: &std::path::Path| -> Result<Card> {
            let bytes = files::read(path)?.ok_or_else(gone)?;
            Card::parse(&bytes)
                .map_err(|e| Error::new(Kind::Internal, format!("{}: {e}", path.display())))
        };
        let bytes = files::read(claim)?.ok_or_else(gone)?;
        let Ok(card) = Card::parse(&bytes) else {
            release(self, claim)?;
            return Err(gone());
        };
        let job = card.job();
        if card.newer.is_some() {
            // It is there, or the newer program that prepared it finishes it.
            return if self.look(job)?.is_some() { Ok(card) } else { Err(gone()) };
        }
        if card.accepted.batch.is_some() {
            return match release(self, claim)? {
                Released::Committed(card) => Ok(*card),
                Released::Pending | Released::Gone => Err(gone()),
            };
        }
        if self.prepared(job).try_exists().at(claim)? {
            self.publish_prepared(&card.accepted)?;
        }
        let mut found = self.look(job)?;
        if found.is_none() {
            let _lock = self.lock()?;
            found = self.look(job)?;
            // The prepared name is gone and only holders of the lock move cards, so one that is in
            // no column now was finished and cleaned up, or taken away by hand. A claim that knows
            // nothing of that is a copy of the card as it once was: publishing it would run the
            // job again.
            if found.is_none() && read(claim)?.column() != Column::Done {
                return Err(Error::new(
                    Kind::Gone,
                    format!(
                        "job {job}, which this request made, is not on the board any more; to run it once more give another request_id"
                    ),
                ));
            }
        }
        let mut sync = SyncSet::new();
        sync.dir(&self.path("requests"));
        sync.dir(&self.path("queue"));
        sync.commit()?;
        match found {
            Some((column, bytes)) => Card::parse(&bytes).map_err(|e| {
                let path = self.card_path(column, job);
                Error::new(Kind::Internal, format!("{}: {e}", path.display()))
            }),
            None => read(claim),
        }
    }

    /// Undoes a submission that could not be published: what is refused must never run. Under the
    /// lock, so that nobody finishes it meanwhile; `false` if somebody has.
    pub(super) fn take_back(&self, accepted: &Accepted, who: Option<&str>) -> Result<bool> {
        let _lock = self.lock()?;
        let prepared = self.prepared(accepted.job);
        let claim = who.map(|who| self.claim_path(who, &accepted.request_id));
        let was_there = files::gone_is_fine(fs::remove_file(&prepared)).at(&prepared)?.is_some();
        if !was_there && self.was_finished(accepted.job, claim.as_deref())? {
            return Ok(false);
        }
        claim.map_or(Ok(()), |claim| files::remove(&claim))?;
        Ok(true)
    }

    /// Whether a card that is prepared no more was published: it is on the board, or its claim tells
    /// that it has been, and stopped. Under the lock.
    fn was_finished(&self, job: u64, claim: Option<&Path>) -> Result<bool> {
        if self.look(job)?.is_some() {
            return Ok(true);
        }
        let claimed = claim.map_or(Ok(None), files::read)?;
        let card = claimed.and_then(|bytes| Card::parse(&bytes).ok());
        Ok(card.is_some_and(|card| card.job() == job && card.column() == Column::Done))
    }

    /// Moves a prepared card into the queue, and tells of it. `false` if it is not there (any more):
    /// somebody else has moved it, or removed it.
    pub(super) fn publish_prepared(&self, accepted: &Accepted) -> Result<bool> {
        let submission = Submission::begin(self.root(), std::slice::from_ref(accepted));
        let published = self.name_prepared(accepted.job);
        submission.end(matches!(published, Ok(true)));
        published
    }

    fn name_prepared(&self, job: u64) -> Result<bool> {
        let (from, to) = (self.prepared(job), self.card_path(Column::Queue, job));
        let renamed = files::rename_new(&from, &to);
        if !matches!(renamed, Ok(true)) && !from.try_exists().at(&from)? {
            return Ok(false);
        }
        if renamed? {
            return Ok(true);
        }
        let why = format!("{} exists already: its number was used twice", to.display());
        Err(Error::new(Kind::Internal, why))
    }

    /// Publishes cards that a submitter prepared and claimed a request id for, and then died.
    /// Returns how many.
    /// One that cannot be published keeps no other from it; the error comes after them.
    pub fn recover_prepared(&self) -> Result<usize> {
        let mut recovered = 0;
        let mut failed = Ok(());
        let mut claims = Claims::default();
        for job in card_numbers(&self.path("tmp"))? {
            match self.recover_one(job, &mut claims) {
                Ok(published) => recovered += usize::from(published),
                Err(error) => failed = failed.and(Err(error)),
            }
        }
        if recovered > 0 {
            files::sync_dir(&self.path("queue"))?;
        }
        failed.map(|()| recovered)
    }

    fn recover_one(&self, job: u64, claims: &mut Claims) -> Result<bool> {
        let path = self.prepared(job);
        let Some(meta) = files::gone_is_fine(fs::metadata(&path)).at(&path)? else {
            return Ok(false);
        };
        if meta.nlink() < 2 {
            return Ok(false); // not claimed: nobody was told of it, nobody can ask for it
        }
        let bytes = files::read(&path)?.unwrap_or_default();
        let Ok(card) = Card::parse(&bytes) else {
            abandon_unreadable(self, job, claims)?;
            return Ok(false);
        };
        let single = card.accepted.batch.is_none() && card.newer.is_none();
        if single { self.publish_prepared(&card.accepted) } else { Ok(false) }
    }
}

/// Makes a claim and a card in its column one file again, where a copy of the board has split them;
/// `false` if they are one, or the claim is another job's. A crash leaves the old claim or the new
/// one.
pub(super) fn rejoin(cards: &Cards, claim: &Path, job: u64) -> Result<bool> {
    let _lock = cards.lock()?;
    let Some(claimed) = files::read(claim)?.and_then(|bytes| Card::parse(&bytes).ok()) else {
        return Ok(false);
    };
    let Some((column, bytes)) = cards.look(job)? else { return Ok(false) };
    let Ok(card) = Card::parse(&bytes) else { return Ok(false) };
    let whose = |card: &Card| {
        let accepted = &card.accepted;
        (accepted.job, accepted.by.clone(), accepted.request_id.clone())
    };
    let path = cards.card_path(column, job);
    let inode = |path: &Path| -> Result<(u64, u64)> {
        fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).at(path)
    };
    if whose(&claimed) != whose(&card) || inode(claim)? == inode(&path)? {
        return Ok(false);
    }
    replace(cards, &path, claim).map(|()| true)
}

/// Lets a claim be a second name of this card, in place of what it was: at every time it is the one or
/// the other.
pub(super) fn replace(cards: &Cards, card: &Path, claim: &Path) -> Result<()> {
    let prepared = cards.path("tmp").join(files::random_name()?);
    files::link_new(card, &prepared)?;
    let placed = fs::rename(&prepared, claim).at(claim);
    if placed.is_err() {
        files::remove(&prepared)?;
    }
    placed
}

/// Links a prepared card under its request id. Returns the card that has it already, unless that
/// belongs to a batch whose submitter died before the commit: its claims mean nothing.
pub(super) fn claim_one(cards: &Cards, prepared: &Path, claim: &Path) -> Result<Option<Box<Card>>> {
    for _ in 0..2 {
        if files::link_new(prepared, claim)? {
            return Ok(None);
        }
        let card = files::read(claim)?.and_then(|bytes| Card::parse(&bytes).ok());
        match card {
            Some(card) if card.accepted.batch.is_none() => return Ok(Some(card.into())),
            _ => match release(cards, claim)? {
                Released::Gone => {}
                Released::Pending => break,
                Released::Committed(card) => return Ok(Some(card)),
            },
        }
    }
    Err(Error::new(
        Kind::Unavailable,
        "the same request id is being submitted by another process; try again",
    ))
}

/// What became of a batch that claimed request ids.
enum Fate {
    /// It was accepted.
    Committed,
    /// Its submitter is at work.
    Pending,
    /// Its submitter died before the commit: its claims mean nothing.
    Abandoned,
}

/// The fate of the batch to which a card belongs that has claimed a request id. The caller holds
/// the board's lock.
fn fate(cards: &Cards, range: Range, card: &Card) -> Result<Fate> {
    // `tmp/` first: a batch that leaves it between the two looks is found in the queue.
    let prepared = cards.path("tmp").join(batch_files::name(range));
    if let Some(file) = files::gone_is_fine(File::open(&prepared)).at(&prepared)? {
        if !lock::try_lock(&file).at(&prepared)? {
            return Ok(Fate::Pending);
        }
        if files::gone_is_fine(fs::metadata(&prepared)).at(&prepared)?.is_some() {
            return Ok(Fate::Abandoned);
        }
    }
    let path = batch_files::path(&cards.column_path(Column::Queue), range);
    let committed = files::gone_is_fine(fs::metadata(&path)).at(&path)?.is_some()
        || card.column() == Column::Done
        || cards.look(card.job())?.is_some();
    Ok(if committed { Fate::Committed } else { Fate::Abandoned })
}

/// What became of a claim that belongs to a batch.
pub(super) enum Released {
    /// There is no claim (any more): its batch was abandoned.
    Gone,
    /// Its submitter is at work.
    Pending,
    /// Its batch was accepted.
    Committed(Box<Card>),
}

/// Removes the claim of a request id by a batch that was abandoned. Decided under the board's
/// lock: nobody else removes it meanwhile and makes another, and no card is on the move.
pub(super) fn release(cards: &Cards, claim: &Path) -> Result<Released> {
    let _lock = cards.lock()?;
    let Some(bytes) = files::read(claim)? else { return Ok(Released::Gone) };
    let card = match Card::parse(&bytes) {
        Ok(card) => card,
        Err(why) => return free_unreadable(cards, claim, &why).map(|()| Released::Gone),
    };
    card.for_change()?;
    let Some(range) = card.accepted.batch else { return Ok(Released::Committed(card.into())) };
    Ok(match fate(cards, range, &card)? {
        Fate::Committed => Released::Committed(card.into()),
        Fate::Pending => Released::Pending,
        Fate::Abandoned => {
            files::remove(claim)?;
            Released::Gone
        }
    })
}

/// Frees a request id whose claim cannot be read. Only those of a batch are made before their cards
/// are synced, so a power loss came before its commit: nobody was told. Not if the card lies on the
/// board, damaged itself, or may yet be restored. Under the board's lock.
fn free_unreadable(cards: &Cards, claim: &Path, why: &str) -> Result<()> {
    let meta = fs::metadata(claim).at(claim)?;
    let prepared = same_file_in(&cards.path("tmp"), &meta)?;
    if meta.nlink() > 1 && prepared.is_none() {
        return Err(Error::new(
            Kind::Gone,
            format!("the card of the job that this request made cannot be read: {why}"),
        ));
    }
    if !batch_files::committed(&cards.column_path(Column::Queue))?.is_empty() {
        return Err(Error::new(
            Kind::Unavailable,
            "the same request is being recovered; try again",
        ));
    }
    files::remove(claim)?;
    prepared.map_or(Ok(()), |prepared| files::remove(&prepared))
}

/// Another name of a file, in this directory.
fn same_file_in(dir: &Path, meta: &fs::Metadata) -> Result<Option<PathBuf>> {
    for name in files::names(dir)? {
        let path = dir.join(name);
        let other = files::gone_is_fine(fs::symlink_metadata(&path)).at(&path)?;
        if other.is_some_and(|other| (other.dev(), other.ino()) == (meta.dev(), meta.ino())) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Removes what a power loss left of a batch before its commit: a prepared card that cannot be read,
/// and its claim. `false` if a batch may yet restore it.
fn abandon_unreadable(cards: &Cards, job: u64, claims: &mut Claims) -> Result<bool> {
    let _lock = cards.lock()?;
    let path = cards.prepared(job);
    let Some(bytes) = files::read(&path)? else { return Ok(false) };
    if Card::parse(&bytes).is_ok() || batch_files::covers(&cards.column_path(Column::Queue), job)? {
        return Ok(false);
    }
    let meta = fs::metadata(&path).at(&path)?;
    if let Some(claim) = claims.of(cards, &meta)? {
        files::remove(&claim)?;
    }
    files::remove(&path)?;
    Ok(true)
}

/// The claims by the files that they are names of, as they were when the first was asked for: a power
/// loss may have left thousands of cards without content.
#[derive(Default)]
struct Claims {
    by_file: Option<HashMap<(u64, u64), PathBuf>>,
}

impl Claims {
    /// The claim that is a name of this file.
    fn of(&mut self, cards: &Cards, meta: &fs::Metadata) -> Result<Option<PathBuf>> {
        let file = |meta: &fs::Metadata| (meta.dev(), meta.ino());
        let look = |path: &Path| files::gone_is_fine(fs::symlink_metadata(path)).at(path);
        let by_file = match self.by_file.take() {
            Some(by_file) => by_file,
            None => {
                let dir = cards.path("requests");
                let mut by_file = HashMap::new();
                for path in files::names(&dir)?.into_iter().map(|name| dir.join(name)) {
                    by_file.extend(look(&path)?.map(|meta| (file(&meta), path)));
                }
                by_file
            }
        };
        let by_file = self.by_file.insert(by_file);
        let Some(claim) = by_file.get(&file(meta)) else { return Ok(None) };
        let same = look(claim)?.is_some_and(|now| file(&now) == file(meta));
        Ok(same.then(|| claim.clone()))
    }
}
