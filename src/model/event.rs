//! The lines of a card: the request as accepted, and what can happen to a job after that.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::node::DriverKind;
use super::outcome::Outcome;
use super::tasks::{Ended, Report, TaskSet};
use crate::clock;

/// The first line of a card: the request as accepted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Accepted {
    /// The job's number.
    pub job: u64,
    /// The client's name for the request, or one made for it.
    pub request_id: String,
    /// When.
    pub at: String,
    /// Who asked.
    pub by: String,
    /// The job that it belongs to: the one whose key was presented, or the one named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<u64>,
    /// First and last number of the request, where one request made several jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<(u64, u64)>,
    /// The request, without `request_id`.
    pub request: Map<String, Value>,
}

/// Something that happened to a job, with its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When it was written.
    pub at: String,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

impl Event {
    /// Something that happens now.
    pub fn now(what: What) -> Event {
        Event { at: clock::now(), what }
    }
}

/// What can happen to a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum What {
    /// It shall wait until it is released.
    Held {
        /// Who asked.
        by: String,
    },
    /// It may be placed again.
    Released {
        /// Who asked.
        by: String,
    },
    /// Its priority was changed.
    Priority {
        /// The new priority.
        priority: i64,
        /// Who asked.
        by: String,
    },
    /// A node was chosen. On disk before the node hears of it.
    Placed {
        /// Which attempt, from 1.
        attempt: u32,
        /// The node's name.
        node: String,
        /// The attempt's id on the node.
        nodejob: String,
        /// How the node was reached then.
        driver: DriverKind,
        /// Where the node was then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uri: Option<String>,
        /// Of an array: which tasks.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tasks: Option<TaskSet>,
    },
    /// The node says that it runs.
    Running {
        /// Which attempt.
        attempt: u32,
        /// Process id on the node.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pid: Option<i32>,
        /// When it started, by the node's clock.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        started: Option<String>,
    },
    /// Somebody killed it; its node is being told.
    Stopping {
        /// Who asked.
        by: String,
        /// Of an array: only these tasks, which a node has.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tasks: Option<TaskSet>,
    },
    /// The node would not have it. Nothing ran; this does not count as a retry.
    Refused {
        /// Which attempt.
        attempt: u32,
        /// What the node said.
        reason: String,
        /// Not placed again before.
        not_before: String,
    },
    /// The attempt ended, and another will be made.
    Retry {
        /// The attempt that ended.
        attempt: u32,
        /// How it ended.
        #[serde(flatten)]
        outcome: Outcome,
        /// Not placed again before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        not_before: Option<String>,
    },
    /// Of an array: tasks ended.
    Tasks {
        /// The attempt whose tasks they were; absent for tasks that waited.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attempt: Option<u32>,
        /// Those that ended for good.
        #[serde(flatten)]
        report: Report,
        /// Those that failed and wait again.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        retry: Vec<Ended>,
        /// Those are not placed again before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        not_before: Option<String>,
        /// How the attempt itself ended, if it did: the rest of its tasks waits again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ended: Option<Outcome>,
    },
    /// A report that changes nothing, kept because it was made.
    Late {
        /// The attempt it was about.
        attempt: u32,
        /// What was reported.
        #[serde(flatten)]
        outcome: Outcome,
    },
    /// The end. The first one stands.
    Stopped {
        /// The last attempt; absent where it never was placed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attempt: Option<u32>,
        /// How it ended.
        #[serde(flatten)]
        outcome: Outcome,
    },
}
