//! The head's board, `state/scheduler`: where cards lie, and how they get there.
//!
//! A card is published once, then stamped (one append) and moved (one rename), both under the
//! board's lock. Which column it belongs in follows from its lines alone; one that a crash left
//! elsewhere is moved when it is next touched. A client's request id is a second name of the card's
//! inode in `requests/`, so that the same request can be found, and finished, by whoever repeats it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::batch_files;
use super::card_feed::Held;
use super::files;
use super::numbers;
use super::root::Root;
use super::story::Story;
use super::sync_set::SyncSet;
use crate::error::{At, Error, Kind, Result};
use crate::model::card::{Card, Column};
use crate::model::ids;

/// Cards in one directory of `done/`.
pub const DONE_SHARD: u64 = 1000;

/// Most cards that are changed under one hold of the lock.
pub const CARDS_PER_LOCK: usize = 100;

pub(super) const COLUMNS: [Column; 3] = [Column::Queue, Column::Running, Column::Done];

/// The cards of a root.
#[derive(Debug, Clone, Copy)]
pub struct Cards<'r> {
    root: &'r Root,
}

impl<'r> Cards<'r> {
    /// The cards of this root.
    pub fn new(root: &'r Root) -> Cards<'r> {
        Cards { root }
    }

    /// The root.
    pub fn root(&self) -> &'r Root {
        self.root
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.state("scheduler").join(name)
    }

    /// Where a card lies if it lies in this column.
    pub fn card_path(&self, column: Column, job: u64) -> PathBuf {
        self.path(&match column {
            Column::Queue => format!("queue/{job}.job"),
            Column::Running => format!("running/{job}.job"),
            Column::Done => format!("done/{}/{job}.job", job / DONE_SHARD),
        })
    }

    /// The directory of a column; `done/` has one level more.
    pub fn column_path(&self, column: Column) -> PathBuf {
        self.path(match column {
            Column::Queue => "queue",
            Column::Running => "running",
            Column::Done => "done",
        })
    }

    /// The directory of the nodes' records.
    pub fn nodes_path(&self) -> PathBuf {
        self.path("nodes")
    }

    /// When a card last came to `queue/` or `running/`, or left it.
    pub fn changed_at(&self, column: Column) -> Result<SystemTime> {
        let path = self.column_path(column);
        fs::metadata(&path).and_then(|meta| meta.modified()).at(&path)
    }

    /// When a waiting card was last changed where it lies, which its directory does not show: the
    /// time of the board's lock. A card of that change has its line once the lock was taken.
    pub fn waiting_changed_at(&self) -> Result<SystemTime> {
        let path = self.lock_path();
        let meta = files::gone_is_fine(fs::metadata(&path)).at(&path)?;
        meta.map_or(Ok(SystemTime::UNIX_EPOCH), |meta| meta.modified().at(&path))
    }

    pub(super) fn lock_path(&self) -> PathBuf {
        self.path("lock")
    }

    pub(super) fn prepared(&self, job: u64) -> PathBuf {
        self.path(&format!("tmp/{job}.job"))
    }

    /// Takes the board's lock: needed to change a card. Held briefly, and never while talking to
    /// another machine. What is changed under it is told in the feed when it is let go.
    pub fn lock(&self) -> Result<Held<'r>> {
        self.root.for_change()?;
        Held::take(self.root, &self.lock_path())
    }

    /// Records children of a job. Before their cards are published: a number without a card is
    /// harmless, a card that its parent does not know would not be found.
    pub(super) fn add_child(&self, parent: u64, jobs: &[u64], sync: &mut SyncSet) -> Result<()> {
        let path = self.path(&format!("children/{parent}"));
        let mut story = Story::open_or_create(path)?;
        story.append(jobs)?;
        let (file, path) = story.into_file();
        sync.file(file, path);
        sync.dir(&self.path("children"));
        Ok(())
    }

    /// Numbers of the jobs that a job submitted, in order, each once.
    pub fn children(&self, job: u64) -> Result<Vec<u64>> {
        let bytes = files::read(&self.path(&format!("children/{job}")))?.unwrap_or_default();
        let mut children: Vec<u64> =
            String::from_utf8_lossy(&bytes).lines().filter_map(ids::parse_number).collect();
        children.sort_unstable();
        children.dedup();
        Ok(children)
    }

    /// The column that a card lies in, and its bytes. Without the lock a card on the move can be
    /// missed.
    pub(super) fn look(&self, job: u64) -> Result<Option<(Column, Vec<u8>)>> {
        for column in COLUMNS {
            if let Some(bytes) = files::read(&self.card_path(column, job))? {
                return Ok(Some((column, bytes)));
            }
        }
        Ok(None)
    }

    /// A card, wherever it is. 404 for a number that was never given out, 410 for one whose card
    /// was cleaned up or cannot be read, 503 for one that a batch is going to restore. Moves nothing:
    /// who only looks leaves what is wrong to whoever changes something.
    pub fn find(&self, job: u64) -> Result<Card> {
        self.peek(job)?.ok_or_else(|| self.missing(job))
    }

    /// The same for whoever need not know why there is no card: then `None`.
    pub fn peek(&self, job: u64) -> Result<Option<Card>> {
        let mut found = self.look(job)?;
        if found.is_none() && self.was_used(job)? {
            // A stranger, who may not lock, looks twice: a card moves once in that time, if at all.
            let _lock = self.root.is_own().then(|| self.lock()).transpose()?;
            found = self.look(job)?;
        }
        let Some((column, bytes)) = found else { return Ok(None) };
        match Card::parse(&bytes) {
            Ok(card) => Ok(Some(card)),
            Err(_)
                if batch_files::covers(&self.column_path(Column::Queue), job).unwrap_or(true) =>
            {
                Err(recovered_soon(job))
            }
            Err(why) => Err(Error::new(
                Kind::Gone,
                format!("job {job}: {}", self.unreadable_at(column, job, &why)),
            )),
        }
    }

    fn unreadable_at(&self, column: Column, job: u64, why: &str) -> String {
        format!("its card {} cannot be read: {why}", self.card_path(column, job).display())
    }

    /// Why the card of a job cannot be read, if it is there and cannot: damaged where it lies, or put
    /// aside. `None` for a job that has a card, or none at all.
    pub fn unreadable(&self, job: u64) -> Result<Option<String>> {
        if let Some((column, bytes)) = self.look(job)? {
            let wrong = Card::parse(&bytes).err();
            return Ok(wrong.map(|why| self.unreadable_at(column, job, &why)));
        }
        let aside = self.path(&format!("bad/{job}.job"));
        let lies = files::gone_is_fine(fs::metadata(&aside)).at(&aside)?;
        Ok(lies.map(|_| put_aside(job)))
    }

    /// The error for a job that is in no column.
    pub(super) fn missing(&self, job: u64) -> Error {
        if self.path(&format!("bad/{job}.job")).exists() {
            return Error::new(Kind::Gone, format!("job {job}: {}", put_aside(job)));
        }
        match self.was_used(job) {
            Ok(true)
                if batch_files::covers(&self.column_path(Column::Queue), job).unwrap_or(true) =>
            {
                recovered_soon(job)
            }
            Ok(true) => Error::new(Kind::Gone, format!("job {job} is not on the board any more")),
            Ok(false) => Error::not_found(format!("there is no job {job}")),
            Err(error) => {
                let why = error.message; // so whether it ever was there is not known
                Error::new(Kind::Gone, format!("job {job} is not on the board: {why}"))
            }
        }
    }

    fn was_used(&self, job: u64) -> Result<bool> {
        Ok(numbers::limit(self.root)?.is_some_and(|next| job < next))
    }

    /// A card if it lies in this column and can be read.
    pub fn read_in(&self, column: Column, job: u64) -> Result<Option<Card>> {
        let bytes = files::read(&self.card_path(column, job))?;
        Ok(bytes.and_then(|bytes| Card::parse(&bytes).ok()))
    }

    /// The card that lies in this column; `None` where none does. One that cannot be read is an error.
    pub fn whole_in(&self, column: Column, job: u64) -> Result<Option<Card>> {
        let Some(bytes) = files::read(&self.card_path(column, job))? else { return Ok(None) };
        let wrong = |why: String| Error::new(Kind::Internal, self.unreadable_at(column, job, &why));
        Card::parse(&bytes).map(Some).map_err(wrong)
    }

    /// The length of a card's story if it lies in this column; see [`Card::length`].
    pub fn length_in(&self, column: Column, job: u64) -> Result<Option<u64>> {
        let path = self.card_path(column, job);
        Ok(files::gone_is_fine(fs::metadata(&path)).at(&path)?.map(|meta| meta.len()))
    }

    /// What makes a card durable as it is, for one that a change left alone: whoever made that
    /// change may have died before its sync.
    pub fn sync_of(&self, job: u64) -> Result<SyncSet> {
        let mut sync = SyncSet::new();
        for column in COLUMNS {
            let path = self.card_path(column, job);
            if let Some(file) = files::gone_is_fine(fs::File::open(&path)).at(&path)? {
                sync.dir(files::parent(&path));
                sync.file(file, path);
                break;
            }
        }
        Ok(sync)
    }

    /// Makes everything on the board's file system durable.
    pub fn sync_all(&self) -> Result<()> {
        let path = self.path("queue");
        let dir = fs::File::open(&path).at(&path)?;
        nix::unistd::syncfs(&dir).at(&path)
    }
}

pub(super) fn vanished(prepared: &Path) -> Error {
    let why = "vanished before it was published: somebody has emptied tmp/; submit it again";
    Error::new(Kind::Unavailable, format!("{}: {why}", prepared.display()))
}

pub(super) fn put_aside(job: u64) -> String {
    format!("its card cannot be read and lies in bad/{job}.job")
}

pub(super) fn recovered_soon(job: u64) -> Error {
    Error::new(Kind::Unavailable, format!("job {job} is being recovered"))
}
