//! A node's record, `state/scheduler/nodes/NAME.json`.

use serde::{Deserialize, Serialize};

use super::resources::Resources;

/// How the head reaches a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DriverKind {
    /// The processor of this very root, by its files; needs no server.
    Local,
    /// The processor of another root (or this one) by HTTP.
    Http,
}

/// Whether a node answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Not asked yet.
    Unknown,
    /// It answered when last asked.
    Connected,
    /// It did not.
    Disconnected,
}

/// A row of failures to answer. Times are seconds of this boot's clock, which nobody sets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedSilence {
    /// The head's boot in which it began.
    pub boot: String,
    /// When the first failure was over.
    pub since: u64,
    /// The last failure that counted.
    pub latest: u64,
    /// How many counted.
    pub failures: u32,
}

/// A node as registered, and what the poller last saw of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its name, an id; also its file's name.
    #[serde(default)]
    pub name: String,
    /// How it is reached.
    #[serde(default = "http")]
    pub driver: DriverKind,
    /// Where its programs are; needed by the `http` driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// For people and for scripts; nothing here depends on it.
    #[serde(default)]
    pub ipv4: Vec<String>,
    /// For people and for scripts; nothing here depends on it.
    #[serde(default)]
    pub hostname: String,
    /// What it gives to jobs in all; what it says of itself where nobody fixed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Whether the resources were fixed when it was registered, and are not asked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fixed: bool,
    /// No new jobs are placed on it; those that it has go on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drain: bool,
    /// Whether it answers; kept by the poller.
    #[serde(default = "unknown")]
    pub state: NodeState,
    /// Since when `state` is so; kept by the poller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Why it is disconnected; kept by the poller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it last answered, to about a minute; kept by the poller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<String>,
    /// That it failed to answer in rounds from cron, one after the other; kept by `poller --once`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silence: Option<RecordedSilence>,
    /// Attempts that the head gave up and that may still run there, or come there late: asked
    /// about, and killed, when it answers again; kept by the poller.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub given_up: Vec<String>,
}

fn http() -> DriverKind {
    DriverKind::Http
}

fn unknown() -> NodeState {
    NodeState::Unknown
}

impl Node {
    /// The node that every root has until something registers that name otherwise.
    pub fn localhost() -> Node {
        Node {
            name: "localhost".into(),
            driver: DriverKind::Local,
            uri: None,
            ipv4: vec!["127.0.0.1".into()],
            hostname: "localhost".into(),
            resources: None,
            fixed: false,
            drain: false,
            state: NodeState::Unknown,
            since: None,
            reason: None,
            last_seen: None,
            silence: None,
            given_up: Vec::new(),
        }
    }

    /// Whether jobs may be placed on it now.
    pub fn takes_jobs(&self) -> bool {
        !self.drain && self.state == NodeState::Connected && self.resources.is_some()
    }

    /// Why the jobs that it has cannot be asked about, for a person; nothing while it answers.
    pub fn trouble(&self) -> Option<String> {
        (self.state == NodeState::Disconnected).then(|| {
            format!(
                "node {} is disconnected since {}: {}",
                self.name,
                self.since.as_deref().unwrap_or("an unknown time"),
                self.reason.as_deref().unwrap_or("it does not answer")
            )
        })
    }
}
