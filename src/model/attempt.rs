//! An attempt of a job, as its card tells it.

use serde::Serialize;

use super::enforced::Enforced;
use super::ids::NodejobId;
use super::node::{Address, DriverKind};
use super::outcome::Outcome;
use super::tasks::TaskSet;
use super::usage::Usage;

/// One attempt, as far as it is known. Of an array: one range of its tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attempt {
    /// From 1.
    pub attempt: u32,
    /// Where.
    pub node: String,
    /// Its id there.
    pub nodejob: NodejobId,
    /// How that node was reached.
    pub driver: DriverKind,
    /// Where that node was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// When it was placed.
    pub placed_at: String,
    /// When its node says that it started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// Process id on the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// What the system behind its node calls it.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// When its end was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// How it ended, where it did.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// What it is held to there, as its node says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enforced: Option<Enforced>,
    /// What it has used, as its node counted it.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// What the node said, where it would not have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Why nobody can tell whether its node has it, or end it there, as last written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Of an array: the tasks that the node was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<TaskSet>,
    /// Those of which no end is known, while the node has them: of a plain job the one that it is.
    #[serde(skip_serializing_if = "TaskSet::is_unwritten")]
    pub left: TaskSet,
    /// Those with which it ended: its node did not start them, and they wait again.
    #[serde(skip)]
    pub returned: TaskSet,
    /// When ends of tasks were last recorded.
    #[serde(skip)]
    pub reported_at: Option<String>,
}

/// Why a job that was placed waits. Whether there is room is the node's to know: what it has is claimed
/// there one after the other.
pub fn not_started(node: &str) -> String {
    format!("placed on {node}, which has not started it yet")
}

impl Attempt {
    /// Where its node was when it was placed there.
    pub fn address(&self) -> Address {
        Address { driver: self.driver, uri: self.uri.clone() }
    }
}
