//! Telling what became of jobs: made durable first, then said in the feed.
//!
//! One sync serves the results of several jobs, and the next claim; see `claim`. What cannot be said now is
//! said later, and the slot goes on naming it.

use std::time::Instant;

use super::pace::{AGAIN, SHARE_SYNC};
use super::supervisor::Supervisor;
use crate::board::feed;
use crate::error::Result;
use crate::model::run_status::{RunState, RunStatus};

impl Supervisor<'_> {
    /// Makes what ended durable, then says so in the feed, with one more line if given.
    pub(super) fn report(&mut self, line: Option<RunStatus>) -> Result<()> {
        let tasks = self.sync()?;
        self.tell(line, tasks)
    }

    /// [`report`](Self::report) for whoever needs only that the claim, or that of tasks, is durable:
    /// what cannot be told is told later.
    pub(super) fn make_durable(&mut self) -> Result<()> {
        let tasks = self.sync()?;
        if let Err(error) = self.tell(None, tasks) {
            eprintln!("processor: {}", error.message);
        }
        Ok(())
    }

    /// Makes durable what has ended and what was claimed; returns what is to be told of a range. After
    /// an error this process must record no more.
    fn sync(&mut self) -> Result<Option<RunStatus>> {
        let mut sync = std::mem::take(&mut self.ended_sync);
        let tasks = self.range.as_mut().map_or(Ok(None), |range| range.tell(&mut sync));
        let synced = tasks.and_then(|tasks| sync.commit().map(|()| tasks));
        self.failed |= synced.is_err();
        self.claim_is_durable |= synced.is_ok();
        synced
    }

    /// Says in the feed what is durable. What could not be said is said the next time.
    fn tell(&mut self, line: Option<RunStatus>, tasks: Option<RunStatus>) -> Result<()> {
        self.ended_since = None;
        if self.ended.is_empty() && line.is_none() && tasks.is_none() {
            return Ok(());
        }
        let (ended, of_range) = (self.ended.len(), tasks.clone());
        let mut lines: Vec<RunStatus> = self.ended.drain(..).chain(line).chain(tasks).collect();
        for line in &mut lines {
            let Some(id) = &line.id else { continue };
            line.proof = match line.state {
                RunState::Stopped => self.proofs.remove(id.as_str()).or(line.proof.take()),
                _ => self.proofs.get(id.as_str()).cloned(),
            };
        }
        let told = self.runs.lock();
        let told = told.and_then(|held| feed::append(self.runs.root(), &held, &lines));
        if told.is_err() {
            lines.truncate(ended);
            self.ended = lines; // the slot goes on naming them
            self.ended_since = (ended > 0).then(|| Instant::now() + AGAIN);
            if let (Some(range), Some(line)) = (&mut self.range, of_range) {
                range.tell_again(line);
            }
        }
        told
    }

    /// Tells what has ended. Where that cannot be said now, this process stays until it can: its slot
    /// names them.
    pub(super) fn tell_all(&mut self) -> Result<()> {
        self.make_durable()?;
        if !self.ended.is_empty() {
            std::thread::sleep(AGAIN);
            self.heed_signals_between()?;
        }
        Ok(())
    }

    /// Whether the results that wait have waited long enough.
    pub(super) fn report_due(&self) -> Option<Instant> {
        let ended = self.ended_since.map(|since| since + SHARE_SYNC);
        let tasks = self.range.as_ref().and_then(|range| range.due());
        ended.into_iter().chain(tasks).min()
    }
}
