//! How tasks of an array ended.

use serde::{Deserialize, Serialize};

use super::outcome::{Cause, Outcome, Status};
use super::tasks::TaskSet;

/// Tasks that ended alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "FlatEnded")]
pub struct Ended {
    /// Which.
    pub tasks: TaskSet,
    /// How.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// The same as it is read: a flattened field would be kept as it comes and read after that.
#[derive(Deserialize)]
struct FlatEnded {
    tasks: TaskSet,
    status: Status,
    cause: Cause,
    code: Option<i32>,
    reason: Option<String>,
    by: Option<String>,
    #[serde(default)]
    unproven: bool,
}

impl From<FlatEnded> for Ended {
    fn from(flat: FlatEnded) -> Ended {
        let FlatEnded { tasks, status, cause, code, reason, by, unproven } = flat;
        Ended { tasks, outcome: Outcome { status, cause, code, reason, by, unproven } }
    }
}

/// How tasks ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Those that exited with 0.
    #[serde(default, skip_serializing_if = "TaskSet::is_empty")]
    pub good: TaskSet,
    /// All others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<Ended>,
}

impl Report {
    /// That these tasks ended so.
    pub fn of(tasks: &TaskSet, outcome: &Outcome) -> Report {
        let mut report = Report::default();
        report.add(tasks, outcome);
        report
    }

    /// Notes how tasks ended.
    pub fn add(&mut self, tasks: &TaskSet, outcome: &Outcome) {
        if tasks.is_empty() {
            return;
        }
        if outcome.status == Status::Good {
            self.good.add(tasks);
            return;
        }
        add_ended(&mut self.failed, tasks, outcome);
    }

    /// All that it is about.
    pub fn tasks(&self) -> TaskSet {
        let failed = self.failed.iter().map(|ended| &ended.tasks);
        TaskSet::union(failed.chain([&self.good]))
    }

    /// What it says of these tasks: of each the first that it says.
    #[must_use]
    pub fn within(&self, tasks: &TaskSet) -> Report {
        let mut found = Report { good: self.good.within(tasks), failed: Vec::new() };
        let mut rest = tasks.without(&found.good);
        for group in &self.failed {
            let theirs = group.tasks.within(&rest);
            rest = rest.without(&theirs);
            found.add(&theirs, &group.outcome);
        }
        found
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.good.is_empty() && self.failed.is_empty()
    }
}

/// Adds tasks to the group of those that ended alike.
pub fn add_ended(groups: &mut Vec<Ended>, tasks: &TaskSet, outcome: &Outcome) {
    match groups.iter_mut().find(|group| group.outcome == *outcome) {
        Some(group) => group.tasks.add(tasks),
        None => groups.push(Ended { tasks: tasks.clone(), outcome: outcome.clone() }),
    }
}
