//! Claiming jobs: the supervisor's part of the protocol, with `tell`, which says what became of them.
//!
//! A claim is made under the board's lock: the slot's record names the jobs, then their links
//! leave the queue. A crash between the two leaves jobs that are named and still wait, which
//! recovery passes over. Then one sync makes the claim durable, together with the results of the
//! jobs before; only then is a program started, and only then do those results enter the feed. While
//! the disk is at it, the first program's process is made: it waits at its gate.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::supervisor::{Claimed, Supervisor};
use super::units::Given;
use super::{end_waiting, start, sweep, wishes};
use crate::board::feed;
use crate::board::files;
use crate::board::lock::Lock;
use crate::board::slots::{self, Record, Slot};
use crate::board::sync_set::SyncSet;
use crate::clock;
use crate::error::Result;
use crate::model::ids::RunId;
use crate::model::proof::{self, KEY_VARIABLE};
use crate::model::resources::Resources;
use crate::model::run_status::RunStatus;

/// How long a slot is waited for that a dead supervisor left and others look at.
const UNTIL_TAKEN: Duration = Duration::from_secs(1);

/// What there is for a job.
enum Room {
    /// Not enough.
    None,
    /// That which the slot's last job had.
    Had,
    /// Enough; what is left beside it, and which cores and GPUs it would have.
    Free { left: Resources, given: Given },
    /// It is not known yet: a supervisor has died, and what it left may use what it had.
    OfTheDead,
}

impl Supervisor<'_> {
    /// Claims the next jobs. `false` if there are none for this supervisor: its slot is free then
    /// and everything is reported.
    pub(super) fn claim(&mut self) -> Result<bool> {
        loop {
            if self.stopping {
                return self.leave();
            }
            self.keep_up_with_settings();
            let mut unreadable = Vec::new();
            let picked = self.pick(&mut unreadable)?;
            let held = self.runs.lock()?;
            for id in unreadable {
                if let Err(error) = self.set_aside(&held, &id) {
                    eprintln!("processor: {id} is not put aside: {}", error.message);
                    self.passed_over.push(id);
                }
            }
            if picked.is_empty() {
                // Exact under the lock: what is accepted later finds this slot free.
                self.remember()?;
                if !self.queue.is_empty() {
                    continue;
                }
                if self.ended.is_empty() {
                    return self.end_under(held, self.may_linger);
                }
                drop(held);
                self.tell_all()?; // something may have come meanwhile
                continue;
            }
            let unfit = picked[0].unfit.is_some();
            let resources = if unfit { Resources::NONE } else { picked[0].spec.resources.clone() };
            let found = match self.room(&held, &resources)? {
                Room::Had => None,
                Room::Free { left, given } => Some((left, given)),
                Room::OfTheDead => {
                    self.queue.clear();
                    drop(held);
                    self.recover()?;
                    continue;
                }
                Room::None => {
                    self.queue.clear(); // nobody overtakes the one that has waited longest
                    if self.ended.is_empty() {
                        return self.end_under(held, false);
                    }
                    drop(held);
                    self.tell_all()?;
                    continue;
                }
            };
            let mut jobs = Vec::new();
            for job in picked {
                match self.may_be_claimed(&held, &job) {
                    Ok(true) => jobs.push(job),
                    Ok(false) => {}
                    Err(error) => {
                        eprintln!("processor: {} is not started: {}", job.id, error.message);
                        self.passed_over.push(job.id);
                    }
                }
            }
            if jobs.is_empty() {
                continue;
            }
            // Only now: what was picked may have been somebody else's by then, and what the slot has is of what it
            // ran last.
            self.resources = Some(resources);
            let room_left = found.map(|(left, given)| {
                self.limits.give(given);
                left
            });
            let sync = self.record(&held, &mut jobs)?;
            // Whoever accepted a job before this lock was taken may have counted on this slot.
            let more = room_left.is_some_and(|left| left.cores > 0) && self.others_wait()?;
            drop(held);
            self.proofs.extend(jobs.iter().map(|job| {
                let key = job.spec.environment.get(KEY_VARIABLE);
                (job.id.clone(), proof::of_run(key.map(String::as_str)))
            }));
            self.claimed.extend(jobs);
            if more {
                self.start_another();
            }
            self.ended_sync.merge(sync);
            self.claim_is_durable = false;
            return Ok(true);
        }
    }

    /// Gives a claimed job back to its head: this id will never run here. Where that fails it waits, and
    /// others go on. A line in the feed makes the head ask at once; it says nothing by itself, and a
    /// head that does not know it asks later.
    pub(super) fn give_back(&mut self, job: &Claimed, why: &str) -> Result<()> {
        let held = self.runs.lock()?;
        if let Err(error) = self.runs.refuse_claimed(&held, &job.id, why) {
            eprintln!("processor: {} is not given back: {}", job.id, error.message);
            self.passed_over.push(job.id.clone());
            if self.runs.request(&job.id).is_ok() {
                return self.runs.put_back(&held, &job.id);
            }
        }
        let line = RunStatus {
            reason: Some(format!("given back: {why}")),
            proof: self.proofs.remove(&job.id),
            ..RunStatus::queued(clock::now()).of(&job.id)
        };
        if let Err(error) = feed::append(self.runs.root(), &held, &[line]) {
            eprintln!("processor: {}", error.message);
        }
        Ok(())
    }

    /// The room that there is for a job.
    fn room(&mut self, held: &Lock, needed: &Resources) -> Result<Room> {
        if self.slot.is_some() && self.resources.as_ref() == Some(needed) {
            return Ok(Room::Had);
        }
        if self.slot.is_none() {
            let slot = Slot::take(&self.runs, held)?;
            self.name_group(&slot);
            self.slot = Some(slot);
        }
        let seen = slots::all(&self.runs)?;
        if slots::dead(&seen).any(|slot| !self.unrecovered.contains(&slot)) {
            return Ok(Room::OfTheDead);
        }
        let own = self.slot.as_ref().map(|slot| slot.number);
        let free = self.total.resources.minus(&slots::used(&seen, own));
        if !needed.fits(&free) {
            return Ok(Room::None);
        }
        let given = self.limits.units().choose(needed, &seen, own.unwrap_or(0));
        Ok(Room::Free { left: free.minus(needed), given })
    }

    /// Ends what dead supervisors left: until then it uses what they had, and nobody else may. What cannot be
    /// ended keeps nothing from running.
    fn recover(&mut self) -> Result<()> {
        self.tell_all()?; // it may take a while
        let deadline = Instant::now() + UNTIL_TAKEN;
        loop {
            let recovered = sweep::recover_all(self.runs.root());
            self.unrecovered = slots::dead(&slots::all(&self.runs)?).collect();
            let left = match recovered {
                Ok((_, left)) => left,
                Err(error) => {
                    eprintln!(
                        "processor: what dead supervisors left is not ended: {}",
                        error.message
                    );
                    return Ok(());
                }
            };
            // Whoever looks at a slot keeps others from taking it, for an instant.
            if self.unrecovered.iter().all(|dead| left.contains(dead)) || Instant::now() > deadline
            {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Writes the claim; what it returns makes it durable. What the slot has no room to name is not
    /// claimed.
    fn record(&mut self, _held: &Lock, jobs: &mut Vec<Claimed>) -> Result<SyncSet> {
        let mut sync = SyncSet::new();
        let named = |jobs: &[Claimed]| self.named(jobs.iter().map(|job| job.id.to_string()));
        let mut record = named(jobs);
        let picked = jobs.len();
        while jobs.len() > 1 && !record.fits() {
            jobs.pop();
            record = named(jobs);
        }
        if jobs.len() < picked {
            self.queue.clear(); // they come before those
        }
        if let Some(slot) = &self.slot {
            slot.write(&record)?;
            let (file, path) = slot.file()?;
            sync.file(file, path);
        }
        for job in jobs.iter() {
            files::remove(&self.runs.queue_path(&job.id))?;
        }
        sync.dir(&self.runs.queue_dir());
        Ok(sync)
    }

    /// The slot's record with these jobs beside those that are not reported yet.
    fn named(&self, jobs: impl Iterator<Item = String>) -> Record {
        let ended = self.ended.iter().filter_map(|status| status.id.clone());
        Record {
            pid: std::process::id() as i32,
            boot: self.boot.clone(),
            resources: self.resources.clone().unwrap_or(Resources::NONE),
            jobs: ended.chain(jobs).collect(),
            cgroup: self.group.as_ref().and_then(|group| group.path().to_str().map(String::from)),
            cpus: self.limits.given().cpus.clone(),
            gpus: self.limits.given().gpus.clone(),
            kills: Vec::new(),
            newer: false,
        }
    }

    /// There is nothing to claim, and all is told: lets the slot go, or lingers.
    fn end_under(&mut self, held: Lock, may_linger: bool) -> Result<bool> {
        if let Some(slot) = self.slot.take() {
            slot.write(&self.named(std::iter::empty()))?;
            // One is enough: it starts others.
            if may_linger
                && !slots::all(&self.runs)?.iter().any(|s| s.number != slot.number && s.lingers())
            {
                self.limits.lift();
                self.slot = Some(slot);
                self.lingers = true;
            } else {
                self.limits.remove(self.runs.root().dir(), slot.number);
                self.remove_group();
            }
        }
        drop(held);
        Ok(false)
    }

    /// Told to end: reports what has ended and puts back what was not started.
    fn leave(&mut self) -> Result<bool> {
        self.report(None)?;
        let held = self.runs.lock()?;
        let kept = self.put_back_all(&held);
        if let Some(slot) = self.slot.take() {
            slot.write(&self.named(self.claimed.iter().map(|job| job.id.to_string())))?;
            self.limits.remove(self.runs.root().dir(), slot.number);
            self.remove_group();
        }
        drop(held);
        files::sync_dir(&self.runs.queue_dir())?; // the machine may be going down
        kept.map(|()| false)
    }

    /// Lets all wait again that is claimed and not started. What cannot stays claimed, and keeps no other
    /// from it; why is the error.
    fn put_back_all(&mut self, held: &Lock) -> Result<()> {
        let mut kept = Ok(());
        for job in std::mem::take(&mut self.claimed) {
            match self.let_go(held, &job.id) {
                Ok(()) => {}
                Err(error) => {
                    kept = Err(error);
                    self.claimed.push_back(job);
                }
            }
        }
        kept
    }

    /// Gives a claimed job its place in the queue again, with what is noted of it in the slot: from then
    /// on others may have it.
    fn let_go(&mut self, held: &Lock, id: &RunId) -> Result<()> {
        let noted = self.slot.as_ref().map_or(Ok(Vec::new()), Slot::kills)?;
        wishes::keep_noted(&self.runs, id, &noted)?;
        self.runs.put_back(held, id)?;
        self.proofs.remove(id);
        end_waiting::end_put_back(&self.runs, held, id);
        Ok(())
    }

    /// Lets a claimed job wait again that was not started.
    pub(super) fn let_wait(&mut self, id: &RunId) -> Result<()> {
        let held = self.runs.lock()?;
        self.let_go(&held, id)?;
        let record = self.named(self.claimed.iter().map(|job| job.id.to_string()));
        if let Some(slot) = &self.slot {
            slot.write(&record)?;
        }
        if record.jobs.is_empty() {
            self.resources = None; // its room may be another's by the next claim
        }
        Ok(())
    }

    /// Lets others have what is claimed and not started, because the present job takes long.
    /// Links first: a crash before the record is rewritten leaves jobs that are named and wait.
    pub(super) fn put_back(&mut self, running: &RunId) -> Result<()> {
        let held = self.runs.lock()?;
        let before = self.claimed.len();
        let kept = self.put_back_all(&held);
        if let Some(slot) = &self.slot {
            let claimed = self.claimed.iter().map(|job| job.id.to_string());
            slot.write(&self.named(std::iter::once(running.to_string()).chain(claimed)))?;
        }
        drop(held);
        self.batch = 1;
        let some = self.claimed.len() < before;
        if some && !self.stopping && start::free(self.runs.root())?.cores > 0 {
            self.start_beside();
        }
        kept
    }

    /// The descriptor of `/dev/null`.
    pub(super) fn null(&self) -> std::os::fd::BorrowedFd<'_> {
        self.null.as_fd()
    }
}
