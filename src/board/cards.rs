//! The head's board, `state/scheduler`: where cards lie, and how they get there.
//!
//! A card is published once, then stamped (one append) and moved (one rename), both under the
//! board's lock. Which column it belongs in follows from its lines alone; one that a crash left
//! elsewhere is moved when it is next touched. A client's request id is a second name of the card's
//! inode in `requests/`, so that the same request can be found, and finished, by whoever repeats it.

use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use super::batches;
use super::claims;
use super::files::{self, Story, SyncSet};
use super::lock::Lock;
use super::numbers;
use super::root::Root;
use crate::error::{At, Error, Kind, Result};
use crate::model::card::{Accepted, Card, Column, Event, What};
use crate::model::ids;

/// Cards in one directory of `done/`.
pub const DONE_SHARD: u64 = 1000;

/// Most cards that are changed under one hold of the lock.
pub const CARDS_PER_LOCK: usize = 100;

const COLUMNS: [Column; 3] = [Column::Queue, Column::Running, Column::Done];

/// What became of a submission.
#[derive(Debug)]
pub enum Submitted {
    /// The card was published.
    New,
    /// The request id is in use: the card that has it. The caller compares the requests.
    Existing(Box<Card>),
}

/// A card after a change, with what has to be synced before anyone is told.
#[derive(Debug)]
pub struct Changed {
    /// As it is now.
    pub card: Card,
    /// Empty if nothing changed.
    pub sync: SyncSet,
}

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

    fn lock_path(&self) -> PathBuf {
        self.path("lock")
    }

    pub(super) fn prepared(&self, job: u64) -> PathBuf {
        self.path(&format!("tmp/{job}.job"))
    }

    /// Takes the board's lock: needed to change a card. Held briefly, and never while talking to
    /// another machine.
    pub fn lock(&self) -> Result<Lock> {
        self.root.for_change()?;
        Lock::take(&self.lock_path())
    }

    /// Publishes a card: afterwards it is in `queue/`, whole and durable. With `who` the request
    /// id is claimed as theirs first; if it is in use, the card that has it is brought to where
    /// the first submitter would have brought it, and returned.
    ///
    /// A crash before the rename leaves `tmp/N.job`. If that has a second name in `requests/`, a
    /// repeat of the request, or the poller, finishes it; else nobody was told and it is litter.
    pub fn submit(&self, accepted: &Accepted, who: Option<&str>) -> Result<Submitted> {
        let job = accepted.job;
        let mut sync = SyncSet::new();
        if let Some(parent) = accepted.parent {
            self.add_child(parent, &[job], &mut sync)?;
        }
        let prepared = self.prepared(job);
        let file = files::create(&prepared, &files::json_line(accepted)?)?;
        if let Err(error) = files::sync(&file, &prepared) {
            files::remove(&prepared)?;
            return Err(error);
        }
        if let Some(who) = who {
            let claim = self.claim_path(who, &accepted.request_id);
            match claims::claim_one(self, &prepared, &claim) {
                Ok(None) => sync.dir(&self.path("requests")),
                taken => {
                    files::remove(&prepared)?;
                    taken?;
                    return self.finish_claim(&claim).map(|card| Submitted::Existing(card.into()));
                }
            }
        }
        // With a claim, somebody who repeated the request may have moved it already.
        if let Err(error) = self.publish_prepared(job)
            && self.take_back(accepted, who).map_err(files::unknown)?
        {
            return Err(error);
        }
        sync.dir(&self.path("queue"));
        sync.commit()?;
        Ok(Submitted::New)
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
        let mut found = self.look(job)?;
        if found.is_none() && self.was_used(job)? {
            // A stranger, who may not lock, looks twice: a card moves once in that time, if at all.
            let _lock = self.root.is_own().then(|| self.lock()).transpose()?;
            found = self.look(job)?;
        }
        let Some((column, bytes)) = found else { return Err(self.missing(job)) };
        match Card::parse(&bytes) {
            Ok(card) => Ok(card),
            Err(_) if batches::covers(self, job).unwrap_or(true) => Err(recovered_soon(job)),
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
    fn missing(&self, job: u64) -> Error {
        if self.path(&format!("bad/{job}.job")).exists() {
            return Error::new(Kind::Gone, format!("job {job}: {}", put_aside(job)));
        }
        match self.was_used(job) {
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

    /// Changes a card under the board's lock: reads it, lets `decide` say what happens (an error
    /// changes nothing), appends that in one write, and moves the card to its column. Nothing is
    /// synced: the caller commits [`Changed::sync`], for a whole round at once, before telling.
    ///
    /// A crash after the append leaves the card in its old column, and so does a disk that has room for
    /// the line and not for the move; it is moved when next touched.
    /// A card whose first line cannot be read goes to `bad/`; one that a newer program wrote is
    /// refused and left where it is.
    pub fn change(
        &self,
        lock: &Lock,
        job: u64,
        decide: impl FnOnce(&Card) -> Result<Vec<What>>,
    ) -> Result<Changed> {
        let mut decide = Some(decide);
        // One copy of what follows, and not one for each caller.
        let mut decide = |card: &Card| decide.take().map_or(Ok(Vec::new()), |decide| decide(card));
        self.change_by(lock, job, &mut decide)
    }

    fn change_by(
        &self,
        lock: &Lock,
        job: u64,
        decide: &mut dyn FnMut(&Card) -> Result<Vec<What>>,
    ) -> Result<Changed> {
        let mut opened = None;
        for column in COLUMNS {
            if let Some(story) = Story::open(self.card_path(column, job))? {
                opened = Some((column, story));
                break;
            }
        }
        let Some((column, mut story)) = opened else { return Err(self.missing(job)) };
        let mut card = match Card::parse(&story.read()?) {
            Ok(card) if card.job() == job => card,
            Ok(other) => {
                let why = format!("it is the card of job {}", other.job());
                return Err(self.quarantine(column, job, &why));
            }
            Err(why) => return Err(self.quarantine(column, job, &why)),
        };
        card.for_change()?;
        let events: Vec<Event> = decide(&card)?.into_iter().map(Event::now).collect();
        let mut sync = SyncSet::new();
        let stamped = !events.is_empty();
        for event in &events {
            card.apply(event.clone());
        }
        let to = card.column();
        let mut moved_to = to;
        if to != column
            && let Err(error) = self.make_room_for(to, job, &mut sync)
        {
            if !stamped || error.kind != Kind::Unavailable {
                return Err(error);
            }
            moved_to = column; // what happened is said all the same
        }
        if stamped {
            if (column, moved_to) == (Column::Queue, Column::Queue) {
                // Before the line: whoever sees the time and takes the lock then sees the line.
                lock.touch(&self.lock_path())?;
            }
            story.append(&events)?;
            let (file, path) = story.into_file();
            card.length = file.metadata().at(&path)?.len();
            sync.file(file, path);
        } else if to != column {
            // Whoever stamped it died before the move, and so before its sync.
            let (file, path) = story.into_file();
            sync.file(file, path);
        }
        match self.move_to(column, moved_to, job, &mut sync) {
            Err(error) if !stamped => return Err(error),
            Err(error) if error.kind != Kind::Unavailable => return Err(files::unknown(error)),
            Ok(()) | Err(_) => {}
        }
        Ok(Changed { card, sync })
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

    /// The directory of a thousand cards is made with the first of them.
    fn make_room_for(&self, column: Column, job: u64, sync: &mut SyncSet) -> Result<()> {
        let path = self.card_path(column, job);
        let dir = files::parent(&path);
        if files::gone_is_fine(fs::metadata(dir)).at(dir)?.is_none() {
            fs::create_dir(dir).at(dir)?;
            sync.dir(files::parent(dir));
        }
        Ok(())
    }

    fn move_to(&self, from: Column, to: Column, job: u64, sync: &mut SyncSet) -> Result<()> {
        if from == to {
            return Ok(());
        }
        let (old, new) = (self.card_path(from, job), self.card_path(to, job));
        if !files::rename_new(&old, &new)? {
            return Err(Error::new(
                Kind::Internal,
                format!("{} exists twice: see `scheduler check`", new.display()),
            ));
        }
        sync.dir(files::parent(&new));
        sync.dir(files::parent(&old));
        Ok(())
    }

    /// Puts a card that cannot be read aside, and says so, unless a batch can still restore it.
    fn quarantine(&self, column: Column, job: u64, why: &str) -> Error {
        let from = self.card_path(column, job);
        let restorable = batches::covers(self, job).unwrap_or(true);
        if restorable {
            return recovered_soon(job);
        }
        let bad = self.path(&format!("bad/{job}.job"));
        let moved = files::rename_new(&from, &bad).and_then(|fresh| {
            if fresh {
                return Ok(bad);
            }
            let other = self.path(&format!("bad/{job}.job.{}", files::random_name()?));
            files::rename_new(&from, &other).map(|_| other)
        });
        match moved {
            Ok(aside) => {
                // From now on it waits for a person, whenever it was written. Best effort.
                let _ = fs::File::open(aside).and_then(|file| file.set_modified(SystemTime::now()));
                eprintln!("job {job}: {}: {why}", put_aside(job));
                self.missing(job)
            }
            Err(error) => {
                let why = error.message; // so whether it ever was there is not known
                Error::new(Kind::Gone, format!("job {job} is not on the board: {why}"))
            }
        }
    }
}

fn put_aside(job: u64) -> String {
    format!("its card cannot be read and lies in bad/{job}.job")
}

fn recovered_soon(job: u64) -> Error {
    Error::new(Kind::Unavailable, format!("job {job} is being recovered"))
}
