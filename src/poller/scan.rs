//! Looking at the board: what wake-ups may have missed.

use super::engine::Engine;
use super::index::Moment;
use super::looks::Unchanged;
use std::collections::BTreeSet;
use std::time::SystemTime;

use crate::board::root::booted_at;
use crate::board::{batches, owners, poller_lock, steps};
use crate::error::{Kind, Result};
use crate::model::card::{Card, Column, State};
use crate::model::ids::NodejobId;

impl Engine<'_> {
    /// Looks at everything that wake-ups may have missed.
    pub(super) fn scan(&mut self) {
        self.looks.begin(Moment::now());
        if self.looks.is_full() {
            self.look_at_clock();
        }
        self.start_beside();
        let restored = self.recover();
        if restored > 0 {
            self.say(&format!("recovered {restored} submitted jobs"));
        }
        let loaded = self.load_partitions();
        self.told(loaded);
        let loaded = self.load_nodes();
        self.told(loaded);
        let looked = self.look_at_all();
        self.told(looked);
        self.sweep();
        if self.looks.end() {
            let index = &self.index;
            let is_there =
                |id: &str| NodejobId::parse(id).is_some_and(|id| index.on_node(&id).is_some());
            self.paces.retain(is_there);
            self.resync_all();
        }
        self.ask_unsure();
        self.give_up_nowhere();
        self.take_back_unfetched();
        self.lines.tend();
    }

    /// Sees whether the clock was set. Where that cannot be noted, clean-up tells it.
    pub(super) fn look_at_clock(&mut self) {
        let seen = steps::present(self.root).map(|(present, _)| present);
        if let Some(present) = self.told(seen) {
            self.index.set_clock(present);
        }
    }

    /// Finishes what submitters that died left; how many cards it made. Batches are looked for only
    /// where the queue has changed since none was there: with many cards, reading it is all that an
    /// idle poller does.
    fn recover(&mut self) -> usize {
        let queue = self.cards.changed_at(Column::Queue);
        let queue = self.told(queue);
        // Now, before they are looked for.
        let unchanged = queue.map(|queue| Unchanged::since(queue, SystemTime::now()));
        let mut restored = 0;
        if !queue.is_some_and(|queue| self.looks.is_without_batches(queue)) {
            let (batches, done) = batches::recover(&self.cards);
            let is_done = self.told(done).is_some() && batches.pending == 0;
            self.looks.know_batches(unchanged.filter(|_| is_done).unwrap_or(Unchanged::UNKNOWN));
            restored = batches.written;
        }
        let prepared = self.cards.recover_prepared();
        restored + self.told(prepared).unwrap_or(0)
    }

    /// Once in every boot: a card that was stamped and moved to `done/` just before a power loss may
    /// have lost the line and kept the place. It is with its node, which is asked.
    fn recover_done(&mut self) -> Result<()> {
        if !poller_lock::is_first_of_boot(self.root)? {
            return Ok(());
        }
        let (jobs, failed) = self.cards.done_before_boot(booted_at()?)?;
        let mut all_looked_at = failed.is_empty();
        for error in failed {
            self.told::<()>(Err(error));
        }
        for job in jobs {
            let looked = self.move_out_of_done(job);
            all_looked_at &= self.told(looked) == Some(true);
        }
        if all_looked_at { poller_lock::note_boot(self.root) } else { Ok(()) }
    }

    /// Moves a card of `done/` that does not belong there; `false` if it is still there.
    fn move_out_of_done(&mut self, job: u64) -> Result<bool> {
        let belongs_elsewhere = |card: Card| card.column() != Column::Done && card.newer.is_none();
        if !self.cards.read_in(Column::Done, job)?.is_some_and(belongs_elsewhere) {
            return Ok(true);
        }
        self.stamp(vec![(job, Box::new(|_, _| Ok(Vec::new())))])?;
        Ok(self.cards.length_in(Column::Done, job)?.is_none())
    }

    fn look_at_all(&mut self) -> Result<()> {
        let full = self.looks.is_full();
        if full && !self.cards.numbers(Column::Running)?.is_empty() {
            // What a poller that died has stamped may not be durable; nodes are told of it now.
            self.cards.sync_all()?;
        }
        if full {
            let recovered = self.recover_done();
            self.told(recovered);
        }
        for job in self.changed_jobs(full)? {
            let looked = match full {
                true => self.look_anew(job),
                false => self.look(job),
            };
            self.told(looked);
        }
        if full {
            self.resync_all(); // after trouble: what nodes said may not have been recorded
        }
        Ok(())
    }

    /// Jobs whose cards came, went or grew without our knowing; with `full` all that are there. It
    /// needs no wake-up to have told. What waits costs two stats where nothing changed, and what is
    /// with nodes one for each job.
    pub(super) fn changed_jobs(&mut self, full: bool) -> Result<BTreeSet<u64>> {
        let mut jobs = self.moved_jobs(full)?;
        let with_nodes = self
            .index
            .on_nodes()
            .filter(|(job, known)| self.has_grown(Column::Running, *job, known.length));
        jobs.extend(with_nodes.map(|(job, _)| job));
        let looked = self.waiting_may_have_grown();
        if self.told(looked) != Some(false) {
            let waiting = self.index.waiting().filter(|(job, length)| {
                let waits = self.index.any_on_node(*job).is_none();
                waits && self.has_grown(Column::Queue, *job, *length)
            });
            jobs.extend(waiting.map(|(job, _)| job));
        }
        Ok(jobs)
    }

    /// Whether a card is not as long as it was known to be. One whose length cannot be had counts as
    /// such: looking at it tells what is wrong.
    fn has_grown(&self, column: Column, job: u64, length: u64) -> bool {
        self.cards.length_in(column, job).map_or(true, |now| now != Some(length))
    }

    /// Whether a waiting card may have been changed where it lies since they were looked at.
    fn waiting_may_have_grown(&mut self) -> Result<bool> {
        if self.looks.are_waiting_known(self.cards.waiting_changed_at()?) {
            return Ok(false);
        }
        let changed = {
            let _lock = self.cards.lock()?; // whoever gave it this time has written the line by now
            self.cards.waiting_changed_at()?
        };
        self.looks.know_waiting(Unchanged::since(changed, SystemTime::now()));
        Ok(true)
    }

    /// Jobs that came to the queue or to the running cards, or left them, without our knowing;
    /// with `full` all of them. A column whose directory did not change costs one stat.
    fn moved_jobs(&mut self, full: bool) -> Result<BTreeSet<u64>> {
        let seen = [Column::Queue, Column::Running].map(|c| self.cards.changed_at(c));
        let [queue, running] = seen;
        let times = (queue?, running?);
        if !full && self.looks.are_columns_known(times) {
            return Ok(BTreeSet::new());
        }
        let unchanged = Unchanged::since(times, SystemTime::now());
        let mut jobs: BTreeSet<u64> = self.index.waiting().map(|(job, _)| job).collect();
        jobs.extend(self.index.on_nodes().map(|(job, _)| job));
        jobs.extend(self.index.untouchable());
        for column in [Column::Queue, Column::Running] {
            for job in self.cards.numbers(column)? {
                if full || self.index.is_untouchable(job) || !jobs.remove(&job) {
                    jobs.insert(job);
                }
            }
        }
        self.looks.know_columns(unchanged);
        Ok(jobs)
    }

    /// Reads a card again, and acts on what it says. Most wake-ups are echoes of what this poller
    /// did itself: a card that is as long as it left it is not read.
    pub(super) fn look(&mut self, job: u64) -> Result<()> {
        if self.is_as_known(job)? { Ok(()) } else { self.look_at(job) }
    }

    /// The same after something went wrong, or the clock was set: what waits of a card is worked out
    /// again, though it says what it said. Of an array some may wait while nodes have the rest.
    fn look_anew(&mut self, job: u64) -> Result<()> {
        if self.index.waits(job) { self.look_at(job) } else { self.look(job) }
    }

    fn is_as_known(&self, job: u64) -> Result<bool> {
        let with_node = self.index.any_on_node(job);
        let Some(known) = with_node.filter(|known| known.state != State::Stopping) else {
            return Ok(false);
        };
        Ok(self.cards.length_in(Column::Running, job)? == Some(known.length))
    }

    fn look_at(&mut self, job: u64) -> Result<()> {
        for column in [Column::Queue, Column::Running] {
            if let Some(card) = self.cards.read_in(column, job)? {
                if card.column() == column || card.newer.is_some() {
                    self.take_in(&card);
                } else {
                    self.stamp(vec![(job, Box::new(|_, _| Ok(Vec::new())))])?;
                }
                return Ok(());
            }
        }
        let mut lies = false;
        for column in [Column::Queue, Column::Running] {
            lies = lies || self.cards.length_in(column, job)?.is_some();
        }
        if !self.index.knows(job) && !lies {
            self.index.remove(job); // an untouchable one has left these columns
            return Ok(());
        }
        // In no column that concerns us, on the move, or unreadable: now for certain.
        let lock = self.cards.lock()?;
        match self.cards.change(&lock, job, |_| Ok(Vec::new())) {
            Ok(changed) => self.take_in(&changed.card),
            Err(e) if matches!(e.kind, Kind::NotFound | Kind::Gone) => {
                drop(lock);
                self.disown(job)?;
            }
            Err(e) => return Err(e),
        }
        Ok(())
    }

    pub(super) fn take_in(&mut self, card: &Card) {
        if !self.index.is_untouchable(card.job())
            && let Err(error) = card.for_change()
        {
            eprintln!("poller: {}; left alone", error.message);
        }
        // For some that 0.1 accepted a parent's card is read.
        let counts = card.is_waiting() || card.with_nodes().next().is_some();
        let owner = if counts { owners::of(&self.cards, card) } else { Ok(None) };
        let owner = self.told(owner).flatten();
        self.index.put(card, owner.as_deref(), Moment::now());
        self.order_kills(card.job());
    }
}
