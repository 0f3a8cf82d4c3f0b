//! Somebody's wish that a job, or tasks of a range, end.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ids::RunId;
use super::outcome::Outcome;
use super::tasks::TaskSet;
use crate::clock;

/// What a node is asked to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// The job's id on the node.
    pub id: RunId,
    /// What a run under that id has to show (see [`super::proof`]): any other is left alone.
    /// `None`: whosever it is.
    pub proof: Option<String>,
    /// Between SIGTERM and SIGKILL, where the killer says.
    pub grace: Option<Duration>,
    /// Who asks.
    pub by: String,
    /// Of a range: only these tasks.
    pub tasks: Option<TaskSet>,
}

/// The content of `job/ID/kill`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Killed {
    /// When.
    pub at: String,
    /// Who asked.
    pub by: String,
    /// Seconds between SIGTERM and SIGKILL, where the killer said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grace: Option<f64>,
}

/// A line of `job/ID/kill-tasks`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KilledTasks {
    /// Which.
    pub tasks: TaskSet,
    /// By whom.
    #[serde(flatten)]
    pub killed: Killed,
}

impl Killed {
    /// Somebody asks now.
    pub fn now(by: &str, grace: Option<Duration>) -> Killed {
        let grace = grace.map(|grace| grace.as_secs_f64());
        Killed { at: clock::now(), by: by.to_string(), grace }
    }

    /// Somebody asks once more: the first who asked is named, the last says how patient to be.
    #[must_use]
    pub fn again(self, first: Option<Killed>) -> Killed {
        let Some(Killed { at, by, .. }) = first else { return self };
        Killed { at, by, grace: self.grace }
    }

    /// What the job ends as.
    pub fn outcome(&self) -> Outcome {
        Outcome::killed(&self.by)
    }

    /// Between SIGTERM and SIGKILL, where the killer said.
    pub fn grace(&self) -> Option<Duration> {
        self.grace.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    }
}

/// All that is wanted of a job, in the order in which it was asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Kills {
    /// The end of all of it.
    pub whole: Option<Killed>,
    /// The end of some tasks.
    pub tasks: Vec<KilledTasks>,
}

impl Kills {
    /// Who wants this task to end, the first of them first.
    fn of_task(&self, task: u32) -> impl Iterator<Item = &Killed> {
        let of_tasks = self.tasks.iter().filter(move |kill| kill.tasks.contains(task));
        of_tasks.map(|kill| &kill.killed).chain(&self.whole)
    }

    /// Who was the first to want the end of a task, or of a job without tasks.
    fn first(&self, task: Option<u32>) -> Option<&Killed> {
        match task {
            Some(task) => self.of_task(task).min_by(|a, b| a.at.cmp(&b.at)),
            None => self.whole.as_ref(),
        }
    }

    /// What a task, or a job without tasks, ends as; `None` if nobody wants its end.
    pub fn outcome(&self, task: Option<u32>) -> Option<Outcome> {
        self.first(task).map(Killed::outcome)
    }

    /// What it ends as if nobody saw its end, which is lost otherwise: its killer is named with the
    /// reason of the loss.
    pub fn unseen(&self, task: Option<u32>, lost: &Outcome) -> Outcome {
        let Some(killed) = self.first(task) else { return lost.clone() };
        let why = lost.reason.as_deref().unwrap_or("nobody saw its end");
        Outcome { unproven: lost.unproven, ..Outcome::killed_unseen(&killed.by, why) }
    }

    /// The shortest time that anyone gives it between SIGTERM and SIGKILL; `usual` is that of those
    /// who did not say.
    pub fn grace(&self, task: Option<u32>, usual: Duration) -> Duration {
        let grace = |killed: &Killed| killed.grace().unwrap_or(usual);
        let shortest = match task {
            Some(task) => self.of_task(task).map(grace).min(),
            None => self.whole.as_ref().map(grace),
        };
        shortest.unwrap_or(usual)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn killed(at: &str, by: &str, grace: Option<f64>) -> Killed {
        Killed { at: at.into(), by: by.into(), grace }
    }

    #[test]
    fn the_first_killer_is_named_and_the_least_patient_obeyed() {
        let tasks = |text: &str, killed| KilledTasks { tasks: text.parse().unwrap(), killed };
        let kills = Kills {
            whole: Some(killed("3", "cy", None)),
            tasks: vec![
                tasks("1-2", killed("1", "ada", Some(60.0))),
                tasks("2-3", killed("2", "bo", Some(0.5))),
                tasks("4", killed("4", "di", Some(90.0))),
            ],
        };
        let usual = Duration::from_secs(10);
        let of = |task| {
            let reason = kills.outcome(Some(task)).unwrap().reason.unwrap();
            (reason.replace("killed by ", ""), kills.grace(Some(task), usual).as_secs_f64())
        };
        assert_eq!(of(1), ("ada".into(), 10.0));
        assert_eq!(of(2), ("ada".into(), 0.5));
        assert_eq!(of(3), ("bo".into(), 0.5));
        assert_eq!(of(4), ("cy".into(), 10.0));
        let only = Kills { whole: None, ..kills };
        assert_eq!((only.outcome(Some(5)), only.outcome(None)), (None, None));
        let again = killed("2", "bo", Some(0.5)).again(Some(killed("1", "ada", None)));
        assert_eq!(again, killed("1", "ada", Some(0.5)));
    }
}
