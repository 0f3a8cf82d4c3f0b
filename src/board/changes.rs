//! How a card is changed: stamped, and moved to where its lines say, or put aside if nobody can read
//! it. All of it under the board's lock.

use std::fs;
use std::time::SystemTime;

use super::batch_files;
use super::card_feed::Held;
use super::cards::{COLUMNS, Cards, put_aside, recovered_soon};
use super::files;
use super::story::Story;
use super::sync_set::SyncSet;
use crate::error::{At, Error, Kind, Result};
use crate::model::card::{Card, Column, Event, State, What};

/// A card after a change, with what has to be synced before anyone is told.
#[derive(Debug)]
pub struct Changed {
    /// As it is now.
    pub card: Card,
    /// Empty if nothing changed.
    pub sync: SyncSet,
}

impl Cards<'_> {
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
        lock: &Held,
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
        lock: &Held,
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
                return Err(self.quarantine(lock, column, job, &why));
            }
            Err(why) => return Err(self.quarantine(lock, column, job, &why)),
        };
        card.for_change()?;
        let events: Vec<Event> = decide(&card)?.into_iter().map(Event::now).collect();
        let mut sync = SyncSet::new();
        let stamped = !events.is_empty();
        let mut states = Vec::with_capacity(events.len());
        for event in &events {
            card.apply(event.clone());
            states.push(card.state);
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
        if stamped || to != column {
            lock.begin();
        }
        if stamped {
            if (column, moved_to) == (Column::Queue, Column::Queue) {
                // Before the line: whoever sees the time and takes the lock then sees the line.
                lock.touch(&self.lock_path())?;
            }
            let lines = files::json_lines(&events)?;
            story.append_lines(&lines)?;
            lock.stamped(job, &states, &lines);
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
            Ok(()) if !stamped && to != column => lock.done(job, card.state, "moved"),
            Ok(()) | Err(_) => {}
        }
        Ok(Changed { card, sync })
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
    fn quarantine(&self, lock: &Held, column: Column, job: u64, why: &str) -> Error {
        let from = self.card_path(column, job);
        let restorable = batch_files::covers(&self.column_path(Column::Queue), job).unwrap_or(true);
        if restorable {
            return recovered_soon(job);
        }
        let bad = self.path(&format!("bad/{job}.job"));
        lock.begin();
        let moved = files::rename_new(&from, &bad).and_then(|fresh| {
            if fresh {
                return Ok(bad);
            }
            let other = self.path(&format!("bad/{job}.job.{}", files::random_name()?));
            files::rename_new(&from, &other).map(|_| other)
        });
        match moved {
            Ok(aside) => {
                lock.done(job, State::Stopped, "unreadable");
                // From now on it waits for a person, whenever it was written. Best effort.
                let _ = fs::File::open(aside).and_then(|file| file.set_modified(SystemTime::now()));
                eprintln!("job {job}: {}: {why}", put_aside(job));
                self.missing(job)
            }
            Err(error) => {
                // It lies there still: nobody may take it for gone.
                let what = "its card cannot be read, and cannot be put aside";
                Error::new(error.kind, format!("job {job}: {what}: {}", error.message))
            }
        }
    }
}
