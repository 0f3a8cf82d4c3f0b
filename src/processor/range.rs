//! Running a range: some tasks of an array, one after the other, by one supervisor.
//!
//! A range is a job of its node: accepted, claimed, locked, reported and lost like any other. Its
//! tasks have no files of their own. Their starts and ends are lines of one story, `tasks`, which
//! has a single writer, and their output is one file, of which each task's lines name its part. A
//! story of thousands of tasks is synced a few times in a second: each sync makes the ends of the
//! tasks before it durable, which are then told, and claims those that may be started next.

use std::time::{Duration, Instant};

use super::run::{Ran, renew};
use super::running_range::RunningRange;
use super::supervisor::{Claimed, Supervisor};
use super::{contact, wishes};
use crate::board::story::Story;
use crate::error::{Error, Kind, Result};
use crate::model::kill::Kills;
use crate::model::outcome::{Cause, Outcome};
use crate::model::range::{self, Step};
use crate::model::report::Report;
use crate::model::tasks::TaskSet;

/// Tasks are claimed for about so long.
const CLAIM_FOR: Duration = Duration::from_millis(200);

/// One part in so many of a range is run, however long that takes, before the rest is given back:
/// each range is two lines on the card, so long tasks must not have one each.
const TURN: u64 = 8;

/// Most tasks that are claimed at a time.
const MOST_CLAIMED: u64 = 1024;

impl Supervisor<'_> {
    /// Runs a claimed range; returns its end. An error means that nothing was started.
    pub(super) fn run_range(
        &mut self,
        job: &Claimed,
        tasks: &TaskSet,
        status: &mut Story,
    ) -> Result<(Ran, Report)> {
        let id = &job.id;
        let streams = self.streams(&job.spec);
        let logs = streams.iter().map(|stream| self.runs.log_path(id, *stream));
        let mut story = Story::open_or_create(self.runs.tasks_path(id))?;
        // Tasks that were killed may have ended under a supervisor that died before it started one.
        let ended = range::Range::parse(&story.read()?).report;
        let left = tasks.without(&ended.tasks());
        let kills = wishes::all(&self.runs, id, self.slot.as_ref(), true)?;
        self.range = Some(RunningRange::new(id.clone(), story, logs, left, ended, kills));
        let ran = self.run_tasks(job, status);
        let Some(mut range) = self.range.take() else { return Err(gone()) };
        range.tell(&mut self.ended_sync)?; // its last line tells it all
        let outcome = match (&range.kills.whole, ran) {
            (Some(killed), _) => killed.outcome(),
            (None, Ok(())) => range::outcome(tasks, &range.all),
            (None, Err(error)) if range.begun.is_none() && range.all.is_empty() => {
                return Err(error);
            }
            (None, Err(error)) => Outcome::lost(&error.message),
        };
        if matches!(outcome.cause, Cause::Killed) {
            let rest = tasks.without(&range.all.tasks());
            range.all.add(&rest, &outcome);
        }
        Ok((Ran { outcome, begun: range.begun, used: range.used }, range.all))
    }

    /// Runs tasks until there are none, or the time is over in which they may be started, or
    /// somebody ends it. What was not started is given back.
    fn run_tasks(&mut self, job: &Claimed, status: &mut Story) -> Result<()> {
        let mut claimed_at = Instant::now();
        let count = self.range.as_ref().map_or(0, |range| range.left.len());
        loop {
            self.heed_signals_between()?;
            self.end_unwanted()?;
            let Some(range) = &mut self.range else { return Err(gone()) };
            let Some(task) = range.left.first() else { break };
            let started = range.begun.is_some();
            if self.stopping || self.failed || range.kills.whole.is_some() {
                break;
            }
            let late = contact::overdue(self.runs.root(), &job.id, job.heard_since);
            if late.map_or(true, |late| late.is_some()) {
                break; // nothing is started either where that cannot be found out
            }
            let enough = started && count - range.left.len() >= count / TURN;
            if enough && range.at.elapsed() > self.runs.root().settings.range_time {
                break;
            }
            if !range.claimed.contains(task) {
                self.claim_tasks(started.then(|| claimed_at.elapsed()))?;
                claimed_at = Instant::now();
            }
            let this = TaskSet::one(task);
            if let Some(range) = &mut self.range {
                range.left = range.left.without(&this);
            }
            let mut captures = Vec::new();
            let ran = self.run_programs(job, Some(task), status, &mut captures);
            if let Some(range) = &mut self.range {
                range.take_logs(captures);
                range.renew();
                range.claimed = range.claimed.without(&this);
            }
            renew(status);
            let Ran { outcome, used, .. } = ran?;
            if let Some(range) = &mut self.range {
                range.used.add(used);
            }
            // A result must not be lost for want of space: it is tried until there is some.
            loop {
                let Some(range) = &mut self.range else { return Err(gone()) };
                let Err(error) = range.note_end(&this, &outcome, true) else { break };
                eprintln!("processor: {}", error.message);
                self.wait_for_space(&job.id);
            }
        }
        Ok(())
    }

    /// Takes note of what somebody wants to end. Tasks that were not started end at once.
    pub(super) fn take_kills(&mut self, kills: Kills) -> Result<()> {
        let Some(range) = &mut self.range else { return Ok(()) };
        range.kills = kills;
        self.end_unwanted()
    }

    /// Ends the tasks that are not wanted any more and were not started.
    fn end_unwanted(&mut self) -> Result<()> {
        let Some(range) = &mut self.range else { return Err(gone()) };
        for index in 0..range.kills.tasks.len() {
            let kill = &range.kills.tasks[index];
            let tasks = kill.tasks.within(&range.left);
            if !tasks.is_empty() {
                let outcome = kill.killed.outcome();
                range.note_end(&tasks, &outcome, false)?;
                range.left = range.left.without(&tasks);
                range.claimed = range.claimed.without(&tasks);
            }
        }
        Ok(())
    }

    /// Claims the next tasks, as many as will take about [`CLAIM_FOR`], going by how long
    /// the last ones `took`. Durable when this returns, with what ended before.
    fn claim_tasks(&mut self, took: Option<Duration>) -> Result<()> {
        self.claim_size = match took {
            Some(took) if took < CLAIM_FOR / 2 => (self.claim_size * 2).min(MOST_CLAIMED),
            Some(took) if took > CLAIM_FOR * 2 => (self.claim_size / 4).max(1),
            _ => self.claim_size,
        };
        let Some(range) = &mut self.range else { return Err(gone()) };
        let tasks = range.left.lowest(self.claim_size);
        range.append(Step::Claimed { tasks: tasks.clone() })?;
        range.claimed = tasks;
        if !std::mem::replace(&mut range.is_listed, true) {
            self.ended_sync.dir(&self.runs.job_dir(&range.id));
        }
        self.make_durable()
    }
}

fn gone() -> Error {
    Error::new(Kind::Internal, "no range is running")
}
