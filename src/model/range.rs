//! A range on its node: some tasks of an array, run one after the other, and the story of their
//! starts and ends (`job/ID/tasks`).

use serde::{Deserialize, Serialize};

use super::outcome::Outcome;
use super::report::Report;
use super::tasks::TaskSet;
use crate::clock;

/// A line of the story.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When it was written.
    pub at: String,
    /// What happened.
    #[serde(flatten)]
    pub what: Step,
}

/// What can happen to tasks of a range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Step {
    /// They may be started. Durable before the first of them is: after a power loss nobody can
    /// tell which of them were.
    Claimed {
        /// Which.
        tasks: TaskSet,
    },
    /// A program of a task is started. Written before it is.
    Started {
        /// Which.
        task: u32,
        /// The program's process id.
        pid: i32,
        /// When that process started, in clock ticks after boot.
        ticks: u64,
        /// How long each output file was then: the task's output begins there.
        log: Vec<u64>,
    },
    /// Tasks ended.
    Stopped {
        /// Which.
        tasks: TaskSet,
        /// How.
        #[serde(flatten)]
        outcome: Outcome,
        /// How long each output file was then; none for tasks that were not started.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        log: Vec<u64>,
    },
}

impl Line {
    /// Something that happens now.
    pub fn now(what: Step) -> Line {
        Line { at: clock::now(), what }
    }
}

/// A task that was started and has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// Which.
    pub task: u32,
    /// Its program.
    pub pid: i32,
    /// See [`Step::Started`].
    pub ticks: u64,
    /// When.
    pub at: String,
}

/// What a story says.
#[derive(Debug, Clone, Default)]
pub struct Range {
    /// The tasks that may have been started.
    pub claimed: TaskSet,
    /// The one that was and has no end.
    pub started: Option<Started>,
    /// How the others ended.
    pub report: Report,
    /// All of those.
    ended: TaskSet,
    /// What must not be.
    pub wrong: Vec<String>,
}

impl Range {
    /// Reads a story. Empty and damaged lines are passed over.
    pub fn parse(bytes: &[u8]) -> Range {
        let mut range = Range::default();
        lines(bytes).for_each(|line| range.apply(line));
        range
    }

    fn apply(&mut self, line: Line) {
        match line.what {
            Step::Claimed { tasks } => self.claimed.add(&tasks),
            Step::Started { task, pid, ticks, .. } => {
                if !self.claimed.contains(task) {
                    self.wrong.push(format!("task {task} was started and had not been claimed"));
                }
                if self.ended.contains(task)
                    || self.started.as_ref().is_some_and(|other| other.task != task)
                {
                    self.wrong.push(format!("task {task} was started out of turn"));
                }
                self.started = Some(Started { task, pid, ticks, at: line.at });
            }
            Step::Stopped { tasks, outcome, .. } => {
                let mut fresh = tasks.clone();
                if self.ended.has_any_of(&tasks) {
                    self.wrong.push(format!("tasks {tasks}: ended twice"));
                    fresh = tasks.without(&self.ended);
                }
                self.ended.add(&fresh);
                self.report.add(&fresh, &outcome);
                self.started.take_if(|started| tasks.contains(started.task));
            }
        }
    }

    /// Tasks of which nobody knows what became, when the supervisor has died: the one that was
    /// started; after a restart of the machine (`rebooted`), all that were claimed.
    pub fn lost(&self, rebooted: bool) -> TaskSet {
        let mut lost: TaskSet = self.started.iter().map(|started| started.task).collect();
        if rebooted {
            lost.add(&self.claimed.without(&self.ended));
        }
        lost
    }
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = Line> {
    let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    lines.filter_map(|line| serde_json::from_slice(line).ok())
}

/// What a story says of one task: the line about its start and that about its end, as far as they
/// are there.
pub fn of_task(bytes: &[u8], wanted: u32) -> (Option<Line>, Option<Line>) {
    let (mut start, mut end) = (None, None);
    for line in lines(bytes) {
        match &line.what {
            Step::Started { task, .. } if *task == wanted && start.is_none() => start = Some(line),
            Step::Stopped { tasks, .. } if tasks.contains(wanted) && end.is_none() => {
                end = Some(line);
            }
            _ => {}
        }
    }
    (start, end)
}

/// The end of a range that was run through: good if all its ended tasks were.
pub fn outcome(tasks: &TaskSet, report: &Report) -> Outcome {
    let failed: u64 = report.failed.iter().map(|group| group.tasks.len()).sum();
    if failed == 0 {
        return Outcome::exit(0);
    }
    Outcome::not_started(1, format!("{failed} of {} tasks failed", tasks.len()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn story(steps: &[Step]) -> Vec<u8> {
        let line = |step: &Step| serde_json::to_vec(&Line::now(step.clone())).unwrap();
        steps.iter().map(line).collect::<Vec<_>>().join(&b'\n')
    }

    #[test]
    fn what_became_of_tasks() {
        let tasks = |text: &str| text.parse::<TaskSet>().unwrap();
        let started = |task| Step::Started { task, pid: 7, ticks: 1, log: vec![0] };
        let stopped = |text: &str, code| Step::Stopped {
            tasks: tasks(text),
            outcome: Outcome::exit(code),
            log: vec![4],
        };
        let claimed = Step::Claimed { tasks: tasks("0-3") };
        let bytes = story(&[claimed.clone(), started(0), stopped("0", 0), started(1)]);
        let range = Range::parse(&bytes);
        assert!(range.wrong.is_empty(), "{:?}", range.wrong);
        assert_eq!(range.report.good, tasks("0"));
        assert_eq!((range.lost(false), range.lost(true)), (tasks("1"), tasks("1-3")));
        let (start, end) = of_task(&bytes, 0);
        assert!(start.is_some() && end.is_some());
        assert_eq!(of_task(&bytes, 2), (None, None));
        let bytes = story(&[started(0), claimed, stopped("0", 0), stopped("0", 1), started(0)]);
        assert_eq!(Range::parse(&bytes).wrong.len(), 3);
    }
}
