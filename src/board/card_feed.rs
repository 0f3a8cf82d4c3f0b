//! The head's change feed, `state/scheduler/events`: a line for whatever is done to a card, written by
//! the board itself. [`super::card_news`] reads it.
//!
//! Whoever changes something first appends a *mark* that he is at it, and another when he has told: what
//! a process that dies in between has done may be told nowhere, and the mark shows that. Readers wait for
//! the second mark, for some seconds at most; then they are to look at the board anew (410).
//!
//! - Under the board's lock: the opening mark; the changes; all their lines, and the closing mark, by one
//!   write, before the lock is let go.
//! - A submission, which holds no lock: the opening mark with its lines by one write; the card gets its
//!   name; the closing mark. So no other change of the card is told before.
//!
//! Nothing is synced: a power loss begins a new epoch. A feed that cannot be written, as on a full disk,
//! is removed: readers are told so (410), and no change waits for it.

use std::cell::RefCell;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Deref;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Once;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::card_marks::{self, Mark};
use super::feed_file::{FeedFile, unsteady};
use super::files;
use super::lock::Lock;
use super::root::Root;
use crate::clock;
use crate::error::{At, Error, Result};
use crate::model::event::Accepted;
use crate::model::state::State;

/// A line with more bytes tells less of what happened: the card has it all.
const LONGEST_LINE: usize = 4 << 10;

/// So long is the board's lock waited for by whoever needs it for the feed alone: those who have it let it go
/// within milliseconds, unless they are stopped, and no submission waits for the feed.
const PATIENCE: Duration = Duration::from_secs(1);

/// So often it is tried to write to a feed that others begin anew meanwhile.
const TRIES: usize = 3;

pub(super) fn feed(root: &Root) -> FeedFile<'_> {
    FeedFile::of(root, "scheduler")
}

/// The board's lock, while it is held. What is done to cards under it is told when it is let go.
#[derive(Debug)]
pub struct Held<'r> {
    // Dropped, and so told, before the lock is let go.
    telling: RefCell<Telling<'r>>,
    lock: Lock,
}

impl<'r> Held<'r> {
    /// Takes the board's lock at this path.
    pub(super) fn take(root: &'r Root, path: &Path) -> Result<Held<'r>> {
        let lock = Lock::take(path)?;
        Ok(Held { telling: RefCell::new(Telling { root, open: None, lines: Vec::new() }), lock })
    }

    /// A card is about to be changed or moved.
    pub(super) fn begin(&self) {
        self.telling.borrow_mut().begin();
    }

    /// What was appended to a card, as it stands there, with the states that followed from each line.
    pub(super) fn stamped(&self, job: u64, states: &[State], story: &[u8]) {
        let mut telling = self.telling.borrow_mut();
        let lines = story.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        for (state, line) in states.iter().zip(lines) {
            let whole = line.len() <= LONGEST_LINE;
            let cut = if whole { None } else { shortened(line) };
            telling.add(job, *state, cut.as_deref().unwrap_or(line));
        }
    }

    /// Something was done with a card that it does not say itself.
    pub(super) fn done(&self, job: u64, state: State, what: &str) {
        let line = json!({"at": clock::now(), "event": what}).to_string();
        self.telling.borrow_mut().add(job, state, line.as_bytes());
    }

    /// A card was published under this lock.
    pub(super) fn published(&self, accepted: &Accepted) {
        self.telling.borrow_mut().lines.extend(submitted(accepted));
    }
}

impl Deref for Held<'_> {
    type Target = Lock;

    fn deref(&self) -> &Lock {
        &self.lock
    }
}

/// What is to be told of what happens under one hold of the lock.
#[derive(Debug)]
struct Telling<'r> {
    root: &'r Root,
    /// The feed and the opening mark in it, once something has begun. No feed where it cannot be written.
    open: Option<(Option<File>, String)>,
    lines: Vec<u8>,
}

impl Telling<'_> {
    fn begin(&mut self) {
        if self.open.is_some() {
            return;
        }
        let feed = feed(self.root);
        let id = card_marks::new_id();
        let opened = open_current(&feed).and_then(|file| {
            append(&file, &feed, &Mark::opening(&id).group(&[]))?;
            Ok(file)
        });
        let file = opened.map_err(|error| lost(&feed, &error)).ok();
        self.open = Some((file, id));
    }

    fn add(&mut self, job: u64, state: State, line: &[u8]) {
        let state = state.word();
        let _ = write!(self.lines, "{{\"job\":{job},\"state\":\"{state}\","); // a Vec takes everything
        self.lines.extend_from_slice(line.get(1..).unwrap_or_default());
        self.lines.push(b'\n');
    }
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        let Some((Some(file), id)) = self.open.take() else { return };
        let feed = feed(self.root);
        let mut group = std::mem::take(&mut self.lines);
        group.insert(0, b'\n');
        group.extend(Mark::closing(&id).line());
        if let Err(error) = append(&file, &feed, &group) {
            lost(&feed, &error);
        }
    }
}

/// What of a long line is told.
fn shortened(line: &[u8]) -> Option<Vec<u8>> {
    #[derive(Serialize, Deserialize)]
    struct Short {
        at: String,
        event: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        attempt: Option<u32>,
        /// The card says more.
        #[serde(default)]
        cut: bool,
    }
    let short: Short = serde_json::from_slice(line).ok()?;
    serde_json::to_vec(&Short { cut: true, ..short }).ok()
}

/// The line that tells of a new card.
fn submitted(accepted: &Accepted) -> Vec<u8> {
    let held = accepted.request.get("state").and_then(|state| state.as_str()) == Some("held");
    let state = if held { State::Held } else { State::Queued };
    let mut line = json!({
        "job": accepted.job, "state": state, "at": accepted.at, "event": SUBMITTED, "by": accepted.by,
    });
    if let (Some(parent), Some(line)) = (accepted.parent, line.as_object_mut()) {
        line.insert("parent".into(), parent.into());
    }
    let mut line = line.to_string().into_bytes();
    line.push(b'\n');
    line
}

/// What every line that tells of a change has.
#[derive(Deserialize)]
pub(super) struct Line {
    pub job: u64,
    pub event: String,
}

/// What a line about a new card calls it.
pub(super) const SUBMITTED: &str = "submitted";

/// New cards that are being published by whoever holds no lock.
pub(super) struct Submission<'r> {
    root: &'r Root,
    file: Option<File>,
    id: String,
    first: u64,
    last: u64,
}

impl<'r> Submission<'r> {
    /// Cards with numbers in a row are about to get their names.
    pub fn begin(root: &'r Root, all: &[Accepted]) -> Submission<'r> {
        let lines: Vec<u8> = all.iter().flat_map(submitted).collect();
        let (first, last) = (all.first().map_or(0, |a| a.job), all.last().map_or(0, |a| a.job));
        let id = card_marks::new_id();
        let feed = feed(root);
        let opened = announce(&feed, &Mark::opening(&id).group(&lines));
        let file = opened.map_err(|error| lost(&feed, &error)).ok();
        Submission { root, file, id, first, last }
    }

    /// All of them have got their names, or none has by this process.
    pub fn end(self, published: bool) {
        let Some(file) = &self.file else { return };
        let feed = feed(self.root);
        let mark = match published {
            true => Mark::closing(&self.id).of(self.first, self.last),
            false => Mark::closing(&self.id).void(),
        };
        let told = append(file, &feed, &mark.group(&[])).and_then(|()| {
            if published && card_marks::is_stale(&self.id) {
                // Readers may have gone on behind its lines, which came before the cards. Those are not told
                // once more: what has been done to the cards since is told already.
                return files::remove(feed.path());
            }
            let meta = file.metadata().at(feed.path())?;
            if meta.nlink() > 0 {
                if feed.is_large(meta.size()) {
                    let _ = renew(&feed); // all is told; who comes next does it
                }
                return Ok(());
            }
            // Begun anew meanwhile: readers of the new one are told there, if they know what was begun.
            let Some(file) = open(&feed)? else { return Ok(()) };
            let carried = card_marks::unclosed(&file, &feed)?;
            match carried.iter().any(|open| open.id == self.id) {
                true => append(&file, &feed, &mark.group(&[])),
                false if published => files::remove(feed.path()),
                false => Ok(()),
            }
        });
        if let Err(error) = told {
            lost(&feed, &error);
        }
    }
}

/// Appends what is about to be done to the feed that readers have, beginning one where there is none.
fn announce(feed: &FeedFile, group: &[u8]) -> Result<File> {
    for _ in 0..TRIES {
        let Some(file) = open(feed)? else {
            renew(feed)?;
            continue;
        };
        append(&file, feed, group)?;
        if file.metadata().at(feed.path())?.nlink() > 0 {
            return Ok(file);
        }
    }
    Err(unsteady())
}

fn open(feed: &FeedFile) -> Result<Option<File>> {
    let opened = OpenOptions::new().read(true).append(true).open(feed.path());
    match files::gone_is_fine(opened).at(feed.path()) {
        Err(_) if !feed.may_be_one() => Ok(None),
        opened => opened,
    }
}

/// The feed to append to, under the board's lock: begun anew where one is due.
fn open_current(feed: &FeedFile) -> Result<File> {
    let before = open(feed)?;
    if let Some(file) = before {
        match feed.current(&file) {
            Ok(Some(_)) => return Ok(file),
            Ok(None) => begin(feed, Some(&file))?,
            Err(error) if feed.may_be_one() => return Err(error),
            Err(_) => begin(feed, None)?, // a pipe, perhaps
        }
    } else {
        begin(feed, None)?;
    }
    open(feed)?.ok_or_else(unsteady)
}

/// Begins a new epoch. Under the board's lock. What those have written who are at it still is carried over,
/// so that it stands before all that is told of their cards from now on.
fn begin(feed: &FeedFile, before: Option<&File>) -> Result<()> {
    let opened = feed.open()?;
    feed.begin(opened.map(|opened| opened.header.epoch))?;
    // Looked for once nobody begins in the old one any more.
    let Some(before) = before else { return Ok(()) };
    let open = card_marks::unclosed(before, feed)?;
    if open.is_empty() {
        return Ok(());
    }
    let groups: Vec<u8> = open.into_iter().flat_map(|open| open.group).collect();
    match self::open(feed)? {
        Some(file) => append(&file, feed, &groups),
        None => Ok(()),
    }
}

/// Begins a new epoch where one is due, for whoever does not hold the board's lock.
pub(super) fn renew(feed: &FeedFile) -> Result<()> {
    let _held = Lock::take_within(&files::parent(feed.path()).join("lock"), PATIENCE)?;
    open_current(feed).map(|_| ())
}

/// One write. A part that could be written is an error: the line is torn.
fn append(file: &File, feed: &FeedFile, group: &[u8]) -> Result<()> {
    let error = loop {
        match (&*file).write(group) {
            Ok(written) if written == group.len() => return Ok(()),
            Ok(_) => break io::Error::from(nix::Error::ENOSPC),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break error,
        }
    };
    Err(Error::io(feed.path(), &error))
}

/// The feed cannot be written: without it readers learn that they have to look for themselves. Said once
/// by each process, since nobody fails for it.
fn lost(feed: &FeedFile, error: &Error) {
    static SAID: Once = Once::new();
    let _ = fs::remove_file(feed.path()); // it may be gone; where it cannot be, readers look now and then
    SAID.call_once(|| eprintln!("corkboard: changes are not told: {}", error.message));
}
