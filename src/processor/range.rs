//! Running a range: some tasks of an array, one after the other, by one supervisor.
//!
//! A range is a job of its node: accepted, claimed, locked, reported and lost like any other. Its
//! tasks have no files of their own. Their starts and ends are lines of one story, `tasks`, which
//! has a single writer, and their output is one file, of which each task's lines name its part. A
//! story of thousands of tasks is synced a few times in a second: each sync makes the ends of the
//! tasks before it durable, which are then told, and claims those that may be started next.

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::capture::Capture;
use super::kill;
use super::supervise::{Claimed, Supervisor};
use crate::board::files;
use crate::board::root::boot_id;
use crate::board::runs::Runs;
use crate::board::story::Story;
use crate::board::sync_set::SyncSet;
use crate::error::{At, Error, Kind, Result};
use crate::model::kill::Kills;
use crate::model::outcome::{Cause, Outcome};
use crate::model::range::{self, Line, Step};
use crate::model::report::{Ended, Report};
use crate::model::run_status::RunStatus;
use crate::model::tasks::TaskSet;

/// The end of a task is told within this time, or when the next ones are claimed.
const TELL_WITHIN: Duration = Duration::from_millis(250);

/// Tasks are claimed for about so long.
const CLAIM_FOR: Duration = Duration::from_millis(200);

/// One part in so many of a range is run, however long that takes, before the rest is given back:
/// each range is two lines on the card, so long tasks must not have one each.
const TURN: u64 = 8;

/// Most tasks that are claimed at a time.
const MOST_CLAIMED: u64 = 1024;

/// A range that runs.
#[derive(Debug)]
pub(super) struct RunningRange {
    id: String,
    /// When it began.
    pub at: Instant,
    story: Story,
    /// Whether that there is a story is durable, or will be with its first sync.
    is_listed: bool,
    /// The line about its start, once there is one.
    pub begun: Option<RunStatus>,
    /// Ends that were not told yet.
    fresh: Report,
    /// Whether the story has lines that are not synced.
    dirty: bool,
    /// Since when something is to be told.
    since: Option<Instant>,
    /// The output files, and how long they are.
    logs: Vec<(PathBuf, Option<File>, u64)>,
    /// Claimed and not started.
    claimed: TaskSet,
    /// All that ended.
    all: Report,
    /// Not started and not ended.
    left: TaskSet,
    /// What somebody wants to end.
    kills: Kills,
}

/// How many times `max_log` is kept of the output of all tasks of a range.
const MOST_LOGS: u64 = 16;

/// How much is kept of the output of a range, if so much is of a task's.
pub(super) fn most_log(of_a_task: u64) -> u64 {
    of_a_task.saturating_mul(MOST_LOGS)
}

impl RunningRange {
    fn append(&mut self, step: Step) -> Result<()> {
        self.dirty = true;
        self.story.append(&[Line::now(step)])
    }

    /// Notes that a program of a task is about to be started. The range's own line comes first: if
    /// that is missing, so is every start.
    pub fn stamp(&mut self, task: u32, line: &RunStatus, status: &mut Story) -> Result<()> {
        if self.begun.is_none() {
            let line = RunStatus { tasks: Some(Report::default()), ..line.clone() };
            status.append(std::slice::from_ref(&line))?;
            self.begun = Some(line);
            self.since.get_or_insert_with(Instant::now);
        }
        let log = self.logs.iter().map(|(_, _, length)| *length).collect();
        let (pid, ticks) = (line.pid.unwrap_or(0), line.ticks.unwrap_or(0));
        self.append(Step::Started { task, pid, ticks, log })
    }

    /// Takes over the output files of a task that has ended.
    fn take_logs(&mut self, captures: Vec<Capture>) {
        for (capture, log) in captures.into_iter().zip(&mut self.logs) {
            if let Some((file, length)) = capture.into_file() {
                (log.1, log.2) = (Some(file), length);
            }
        }
    }

    /// How much of a stream of the next task is kept, if `most` of one task's is.
    pub fn log_left(&self, stream: usize, most: u64) -> u64 {
        let length = self.logs.get(stream).map_or(0, |(_, _, length)| *length);
        most_log(most).saturating_sub(length).min(most)
    }

    /// Stamps the end of tasks; `started`: of one that has run.
    fn note_end(&mut self, tasks: &TaskSet, outcome: &Outcome, started: bool) -> Result<()> {
        let logs = self.logs.iter().filter(|_| started);
        let log = logs.map(|(_, _, length)| *length).collect();
        self.append(Step::Stopped { tasks: tasks.clone(), outcome: outcome.clone(), log })?;
        self.fresh.add(tasks, outcome);
        self.all.add(tasks, outcome);
        self.since.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// When something is to be told.
    pub fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + TELL_WITHIN)
    }

    /// What is to be told: the line for the feed, once `sync` is durable.
    pub fn tell(&mut self, sync: &mut SyncSet) -> Result<Option<RunStatus>> {
        if self.dirty {
            let path = self.story.path();
            sync.file(self.story.file().try_clone().at(path)?, path.to_path_buf());
            self.dirty = false;
        }
        for (path, file, _) in &mut self.logs {
            if let Some(file) = file.take() {
                sync.file(file, path.clone());
            }
        }
        let (Some(_), Some(begun)) = (self.since.take(), &self.begun) else { return Ok(None) };
        let report = std::mem::take(&mut self.fresh);
        let line = RunStatus { tasks: Some(report), ..begun.clone() };
        Ok(Some(line.begun(Some(begun)).of(&self.id)))
    }

    /// This line could not be told.
    pub fn tell_again(&mut self, line: RunStatus) {
        self.fresh = line.tasks.unwrap_or_default();
        self.since = Some(Instant::now() + super::ending::AGAIN);
    }
}

impl Supervisor<'_> {
    /// Runs a claimed range; returns its end. An error means that nothing was started.
    pub(super) fn run_range(
        &mut self,
        job: &Claimed,
        tasks: &TaskSet,
        status: &mut Story,
    ) -> Result<(Outcome, Report, Option<RunStatus>)> {
        let id = &job.id;
        let streams = self.streams(&job.spec);
        let logs = streams.iter().map(|stream| (self.runs.log_path(id, *stream), None, 0));
        let mut story = Story::open_or_create(self.runs.tasks_path(id))?;
        // Tasks that were killed may have ended under a supervisor that died before it started one.
        let ended = range::Range::parse(&story.read()?).report;
        self.range = Some(RunningRange {
            id: id.clone(),
            at: Instant::now(),
            story,
            is_listed: false,
            begun: None,
            fresh: Report::default(),
            dirty: false,
            since: None,
            logs: logs.collect(),
            claimed: TaskSet::default(),
            left: tasks.without(&ended.tasks()),
            all: ended,
            kills: kill::all_asked(&self.runs, id, self.slot.as_ref(), true)?,
        });
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
        Ok((outcome, range.all, range.begun))
    }

    /// Runs tasks until there are none, or the time is over in which they may be started, or
    /// somebody ends it. What was not started is given back.
    fn run_tasks(&mut self, job: &Claimed, status: &mut Story) -> Result<()> {
        let mut claimed_at = Instant::now();
        let count = self.range.as_ref().map_or(0, |range| range.left.len());
        loop {
            self.heed_signals_between(&job.id)?;
            self.end_unwanted()?;
            let Some(range) = &mut self.range else { return Err(gone()) };
            let Some(task) = range.left.first() else { break };
            let started = range.begun.is_some();
            if self.stopping || self.failed || range.kills.whole.is_some() {
                break;
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
                range.claimed = range.claimed.without(&this);
            }
            let (outcome, _) = ran?;
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

/// The task of a range that was started and has not ended, by what was stamped at its start.
pub(super) fn started(runs: &Runs, id: &str) -> Result<Option<(i32, u64)>> {
    Ok(runs.range(id)?.started.map(|at| (at.pid, at.ticks)))
}

/// Ends a range whose supervisor is dead, `lost` and why: nobody can know what became of the task that
/// ran, the rest was never started. What somebody had killed ends as that. Returns the end of the
/// range. Nothing is synced.
pub(super) fn end_abandoned(
    runs: &Runs,
    id: &str,
    status: Option<&RunStatus>,
    lost: &Outcome,
    kills: &Kills,
) -> Result<RunStatus> {
    let mut story = Story::open_or_create(runs.tasks_path(id))?;
    let found = range::Range::parse(&story.read()?);
    let boot = boot_id()?;
    let rebooted = status.and_then(|line| line.boot.as_deref()) != Some(&*boot);
    let mut fresh = Report::default();
    for task in found.lost(rebooted).iter() {
        fresh.add(&TaskSet::one(task), &kills.unseen(Some(task), lost));
    }
    let mut report = found.report;
    for Ended { tasks, outcome } in fresh.failed {
        report.add(&tasks, &outcome);
        story.append(&[Line::now(Step::Stopped { tasks, outcome, log: Vec::new() })])?;
    }
    let end = RunStatus::stopped(&kills.unseen(None, lost));
    Ok(RunStatus { tasks: Some(report), ..end }.begun(status))
}

/// What makes the story of a range durable.
pub(super) fn sync_of(runs: &Runs, id: &str, sync: &mut SyncSet) -> Result<()> {
    let path = runs.tasks_path(id);
    if let Some(file) = files::open_own(&path)? {
        sync.file(file, path);
    }
    Ok(())
}
