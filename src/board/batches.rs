//! Many cards in one commit: all of them are accepted, or none.
//!
//! The synced file `queue/FIRST-LAST.batch` is the commit. It holds the first lines of all cards;
//! the submitter, holding its flock, expands it into cards before it answers, without a sync for
//! each. If the submitter dies, the lock is free and [`recover`] finishes; after a later sync of
//! the cards the file is removed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;

use super::batch_files;
use super::card_feed::{Held, Submission};
use super::cards::{CARDS_PER_LOCK, Cards};
use super::claims;
use super::files;
use super::lock;
use super::sync_set::SyncSet;
use crate::error::{At, Error, Kind, Result};
use crate::model::card::{Accepted, Card, Column};

/// Publishes cards with rising numbers in a row, all or none. Request ids that clients chose are
/// claimed first (`who`); if one is in use, nothing is published and its card is returned.
pub fn submit(cards: &Cards, all: &[Accepted], who: Option<&str>) -> Result<Option<Card>> {
    let (Some(first), Some(last)) = (all.first(), all.last()) else { return Ok(None) };
    let range = (first.job, last.job);
    let mut sync = SyncSet::new();
    let mut bytes = Vec::with_capacity(all.len() * 256);
    for accepted in all {
        bytes.extend(files::json_line(accepted)?);
    }
    let prepared = cards.path("tmp").join(batch_files::name(range));
    let file = files::create(&prepared, &bytes)?;
    // Locked before the first claim: a claim whose batch is not locked is an abandoned one.
    if !lock::try_lock(&file).at(&prepared)? {
        return Err(Error::new(Kind::Internal, format!("{} is locked", prepared.display())));
    }
    let claims = who.map_or(Ok(Claims::All(Vec::new())), |who| claim_all(cards, all, who));
    if claims.is_err() {
        files::remove(&prepared)?;
    }
    let claims = claims?;
    let claims = match claims {
        Claims::All(claims) => claims,
        Claims::Taken(card) => {
            files::remove(&prepared)?;
            return Ok(Some(*card));
        }
    };
    let mut children: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for accepted in all {
        if let Some(parent) = accepted.parent {
            children.entry(parent).or_default().push(accepted.job);
        }
    }
    let commit = || -> Result<()> {
        for (parent, jobs) in &children {
            cards.add_child(*parent, jobs, &mut sync)?;
        }
        files::sync(&file, &prepared)?;
        if !claims.is_empty() {
            sync.dir(&cards.path("requests"));
        }
        sync.commit()?;
        let path = batch_files::path(&cards.column_path(Column::Queue), range);
        match files::rename_new(&prepared, &path)? {
            true => Ok(()),
            false => Err(Error::new(
                Kind::Internal,
                format!("{} exists already: its numbers were used twice", path.display()),
            )),
        }
    };
    if let Err(error) = commit() {
        for claim in &claims {
            files::remove(claim)?;
        }
        for accepted in all.iter().filter(|_| !claims.is_empty()) {
            files::remove(&cards.prepared(accepted.job))?;
        }
        files::remove(&prepared)?;
        return Err(error);
    }
    files::sync_dir(&cards.path("queue")).map_err(files::unknown)?;
    if let Err(error) = expand(cards, all, claims.is_empty()) {
        // They are accepted: the poller makes the cards from the batch when there is room again.
        eprintln!("scheduler: {}", error.message);
    }
    Ok(None)
}

/// Makes the cards of a committed batch. One that cannot be made keeps no other from it; the error
/// comes after them.
fn expand(cards: &Cards, all: &[Accepted], prepare: bool) -> Result<()> {
    let make = |accepted: &Accepted| -> Result<()> {
        let from = cards.prepared(accepted.job);
        if prepare {
            files::create(&from, &files::json_line(accepted)?)?;
        }
        files::rename_new(&from, &cards.card_path(Column::Queue, accepted.job)).map(|_| ())
    };
    let mut all_made = Ok(());
    for some in all.chunks(CARDS_PER_LOCK) {
        let submission = Submission::begin(cards.root(), some);
        for accepted in some {
            all_made = all_made.and(make(accepted));
        }
        submission.end(true); // accepted they are, all of them
    }
    all_made
}

enum Claims {
    All(Vec<PathBuf>),
    Taken(Box<Card>),
}

/// Prepares every card and links it under its request id; undoes all if one is taken.
fn claim_all(cards: &Cards, all: &[Accepted], who: &str) -> Result<Claims> {
    let mut claims: Vec<PathBuf> = Vec::new();
    let undo = |claims: &[PathBuf], all: &[Accepted]| -> Result<()> {
        for claim in claims {
            files::remove(claim)?;
        }
        for accepted in all {
            files::remove(&cards.prepared(accepted.job))?;
        }
        Ok(())
    };
    for (index, accepted) in all.iter().enumerate() {
        let prepared = cards.prepared(accepted.job);
        let claim = cards.claim_path(who, &accepted.request_id);
        let claimed = files::create(&prepared, &files::json_line(accepted)?)
            .and_then(|_| claims::claim_one(cards, &prepared, &claim));
        match claimed {
            Ok(None) => claims.push(claim),
            Ok(Some(card)) => {
                undo(&claims, &all[..=index])?;
                return Ok(Claims::Taken(card));
            }
            Err(error) => {
                undo(&claims, &all[..=index])?;
                return Err(error);
            }
        }
    }
    Ok(Claims::All(claims))
}

/// What keeps batches that lie in the queue from being finished: lines that are not those of cards, or
/// that nobody can read them.
pub fn damaged(cards: &Cards) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for range in batch_files::committed(&cards.column_path(Column::Queue))? {
        let path = batch_files::path(&cards.column_path(Column::Queue), range);
        let bytes = match files::read(&path) {
            Ok(bytes) => bytes.unwrap_or_default(), // finished meanwhile
            Err(error) => {
                wrong.push(error.message);
                continue;
            }
        };
        let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        let count = lines.filter(|line| Accepted::read(line).is_err()).count();
        if count > 0 {
            let path = path.display();
            wrong.push(format!("{path}: {count} of its lines are not those of cards; mend them"));
        }
    }
    Ok(wrong)
}

/// What [`recover`] did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// How many cards it had to write.
    pub written: usize,
    /// How many batches their submitters still work at. One that dies changes no directory.
    pub pending: usize,
}

/// Finishes batches whose submitter died, and removes those whose cards are all there and synced.
/// A batch, or a card, that cannot be made keeps no other from it; what was done comes with the first
/// error.
pub fn recover(cards: &Cards) -> (Recovered, Result<()>) {
    let mut recovered = Recovered::default();
    let committed = match batch_files::committed(&cards.column_path(Column::Queue)) {
        Ok(committed) => committed,
        Err(error) => return (recovered, Err(error)),
    };
    let mut done = Ok(());
    for range in committed {
        done = done.and(recover_one(cards, range, &mut recovered));
    }
    (recovered, done)
}

fn recover_one(cards: &Cards, range: (u64, u64), recovered: &mut Recovered) -> Result<()> {
    let path = batch_files::path(&cards.column_path(Column::Queue), range);
    let Some(file) = files::gone_is_fine(File::open(&path)).at(&path)? else { return Ok(()) };
    if !lock::try_lock(&file).at(&path)? {
        recovered.pending += 1;
        return Ok(());
    }
    let bytes = files::read(&path)?.unwrap_or_default();
    let lines: Vec<&[u8]> = bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty()).collect();
    if lines.iter().any(|line| matches!(Accepted::read(line), Ok((_, Some(_))))) {
        return Ok(()); // a newer program made it, which knows how to finish it
    }
    let mut failed = Ok(());
    for lines in lines.chunks(CARDS_PER_LOCK) {
        let lock = cards.lock()?;
        for line in lines {
            let accepted = serde_json::from_slice::<Accepted>(line).map_err(|error| {
                let what = "a line of it is not that of a card; mend it by hand";
                Error::new(Kind::Internal, format!("{}: {what}: {error}", path.display()))
            });
            match accepted.and_then(|accepted| restore(cards, &lock, &accepted, line)) {
                Ok(written) => recovered.written += usize::from(written),
                Err(error) => failed = failed.and(Err(error)),
            }
        }
    }
    failed?; // the batch stays, until all its cards are there
    // syncfs: the cards were written by the submitter, whose files are not open here.
    nix::unistd::syncfs(&file).at(&path)?;
    files::remove(&path)
}

/// Writes a card of a batch if it is in no column, or is there but was lost to a power failure.
fn restore(cards: &Cards, lock: &Held, accepted: &Accepted, line: &[u8]) -> Result<bool> {
    let job = accepted.job;
    for column in [Column::Queue, Column::Running, Column::Done] {
        if let Some(bytes) = files::read(&cards.card_path(column, job))? {
            if column != Column::Queue || Card::parse(&bytes).is_ok() {
                return Ok(false);
            }
            files::remove(&cards.card_path(column, job))?;
        }
    }
    let prepared = cards.prepared(job);
    let readable = files::read(&prepared)?.is_some_and(|bytes| Card::parse(&bytes).is_ok());
    if !readable {
        write_anew(cards, accepted, line)?;
    }
    lock.begin();
    let named = files::rename_new(&prepared, &cards.card_path(Column::Queue, job))?;
    if named {
        lock.published(accepted);
    }
    Ok(named)
}

/// Prepares a card again. Whoever dies meanwhile is followed by one who does all of it: the card has
/// its name last, once its claim is a second name of it.
fn write_anew(cards: &Cards, accepted: &Accepted, line: &[u8]) -> Result<()> {
    let mut line = line.to_vec();
    line.push(b'\n');
    let fresh = cards.path("tmp").join(files::random_name()?);
    files::create(&fresh, &line)?;
    let claim = cards.claim_path(&accepted.by, &accepted.request_id);
    let prepared = cards.prepared(accepted.job);
    let claimed = claim.try_exists().at(&claim).and_then(|is_there| match is_there {
        true => claims::replace(cards, &fresh, &claim),
        false => Ok(()),
    });
    let named = claimed.and_then(|()| fs::rename(&fresh, &prepared).at(&prepared));
    if named.is_err() {
        files::remove(&fresh)?;
    }
    named
}
