//! A range that runs, as its story tells it: the starts and ends of its tasks, and what of them is still
//! to be told.

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::capture::Capture;
use super::pace::AGAIN;
use crate::board::story::Story;
use crate::board::sync_set::SyncSet;
use crate::error::{At, Result};
use crate::model::ids::RunId;
use crate::model::kill::Kills;
use crate::model::outcome::Outcome;
use crate::model::range::{Line, Step};
use crate::model::report::Report;
use crate::model::run_status::RunStatus;
use crate::model::tasks::TaskSet;
use crate::model::usage::Usage;

/// The end of a task is told within this time, or when the next ones are claimed.
const TELL_WITHIN: Duration = Duration::from_millis(250);

/// How many times `max_log` is kept of the output of all tasks of a range.
const MOST_LOGS: u64 = 16;

/// How much is kept of the output of a range, if so much is of a task's.
pub(super) fn most_log(of_a_task: u64) -> u64 {
    of_a_task.saturating_mul(MOST_LOGS)
}

/// A range that runs.
#[derive(Debug)]
pub(super) struct RunningRange {
    pub id: RunId,
    /// When it began.
    pub at: Instant,
    story: Story,
    /// Whether that there is a story is durable, or will be with its first sync.
    pub is_listed: bool,
    /// The line about its start, once there is one.
    pub begun: Option<RunStatus>,
    /// What tasks have used that have ended.
    pub used: Usage,
    /// Ends that were not told yet.
    fresh: Report,
    /// Whether the story has lines that are not synced.
    dirty: bool,
    /// Since when something is to be told.
    since: Option<Instant>,
    /// The output files, and how long they are.
    logs: Vec<(PathBuf, Option<File>, u64)>,
    /// Claimed and not started.
    pub claimed: TaskSet,
    /// All that ended.
    pub all: Report,
    /// Not started and not ended.
    pub left: TaskSet,
    /// What somebody wants to end.
    pub kills: Kills,
}

impl RunningRange {
    /// A range that begins now: `left` are its tasks that have not ended, `all` how the others have, and
    /// `logs` where its output goes.
    pub fn new(
        id: RunId,
        story: Story,
        logs: impl Iterator<Item = PathBuf>,
        left: TaskSet,
        all: Report,
        kills: Kills,
    ) -> RunningRange {
        RunningRange {
            id,
            at: Instant::now(),
            story,
            is_listed: false,
            begun: None,
            used: Usage::default(),
            fresh: Report::default(),
            dirty: false,
            since: None,
            logs: logs.map(|path| (path, None, 0)).collect(),
            claimed: TaskSet::default(),
            all,
            left,
            kills,
        }
    }

    pub fn append(&mut self, step: Step) -> Result<()> {
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

    /// Makes its story what others find again, whatever a task that has ended has made of it.
    pub fn renew(&mut self) {
        match self.story.renew() {
            Ok(is_another) => self.is_listed &= !is_another,
            Err(error) => eprintln!("processor: {}", error.message),
        }
    }

    /// Takes over the output files of a task that has ended.
    pub fn take_logs(&mut self, captures: Vec<Capture>) {
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
    pub fn note_end(&mut self, tasks: &TaskSet, outcome: &Outcome, started: bool) -> Result<()> {
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
        self.since = Some(Instant::now() + AGAIN);
    }
}
