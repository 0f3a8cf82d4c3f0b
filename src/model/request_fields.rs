//! The fields of a job's request, as JSON has them: their names, and the form of their values. What they mean:
//! [`super::request`].

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Map, Value};

use super::access::Share;
use super::requested::Requested;
use crate::clock;
use crate::strategy::Strategy;

/// Fields of a request to a node.
pub const NODE_FIELDS: &[&str] = &[
    "action",
    "command",
    "commands",
    "dir",
    "environment",
    "max_termination_time",
    "name",
    "output",
    "request_id",
    "requested_resources",
    "stdin",
    "timeout",
];

/// The field of a request to a node that makes it a range of tasks: it runs once for each.
pub const RANGE_FIELD: &str = "tasks";

/// The field of an accepted run that says whose it is: a user's, who asked the node itself. Nobody sends
/// it.
pub const BY_FIELD: &str = "by";

/// Fields that a request to the head has beside [`NODE_FIELDS`].
pub const HEAD_FIELDS: &[&str] = &[
    "array",
    "constraints",
    "exclude",
    "expires",
    "max_retry_count",
    "node",
    "parent",
    "partition",
    "placement",
    "priority",
    "retry_delay",
    "retry_lost",
    "share",
    "state",
    "strict",
];

/// Whether standard output and error go to one log or two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Output {
    /// One file, `log`.
    #[default]
    Combined,
    /// Two files, `stdout` and `stderr`.
    Split,
}

/// A program and its arguments, or a line for the shell.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(super) enum Command {
    Argv(Vec<String>),
    Shell(String),
}

impl Command {
    /// What is run.
    pub fn argv(self) -> Vec<String> {
        match self {
            Command::Argv(argv) => argv,
            Command::Shell(line) => vec!["sh".into(), "-c".into(), line],
        }
    }
}

/// One of several commands.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Exec {
    pub exec: Command,
}

/// In which state a job begins.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum FirstState {
    Held,
    Queued,
}

/// The fields as JSON has them; their names have been checked before.
#[derive(Deserialize)]
pub(super) struct Raw {
    pub action: Option<String>,
    pub command: Option<Command>,
    pub commands: Option<Vec<Exec>>,
    pub name: Option<String>,
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    pub dir: Option<String>,
    pub stdin: Option<String>,
    pub request_id: Option<String>,
    #[serde(default)]
    pub requested_resources: Requested,
    pub constraints: Option<Map<String, Value>>,
    pub node: Option<Value>,
    pub exclude: Option<Value>,
    pub placement: Option<Strategy>,
    #[serde(default)]
    pub priority: i64,
    #[serde(default, deserialize_with = "duration")]
    pub timeout: Option<Duration>,
    #[serde(default, deserialize_with = "duration")]
    pub max_termination_time: Option<Duration>,
    #[serde(default)]
    pub max_retry_count: u32,
    #[serde(default)]
    pub retry_lost: bool,
    #[serde(default, deserialize_with = "duration")]
    pub retry_delay: Option<Duration>,
    pub expires: Option<Value>,
    pub parent: Option<u64>,
    pub partition: Option<String>,
    pub state: Option<FirstState>,
    #[serde(default)]
    pub output: Output,
    pub array: Option<String>,
    pub tasks: Option<String>,
    pub share: Option<Share>,
    #[serde(default)]
    pub strict: bool,
}

/// Seconds, or a text such as "30s"; null is as if absent.
fn duration<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Option<Duration>, D::Error> {
    let value = Value::deserialize(from)?;
    let text = match &value {
        Value::Null => return Ok(None),
        Value::Number(seconds) => seconds.to_string(),
        Value::String(text) => text.clone(),
        _ => String::new(),
    };
    clock::parse_duration(&text).map(Some).ok_or_else(|| {
        de::Error::custom(format!(
            "{value} is not a duration: give seconds, or \"30s\", \"5m\", \"2h\""
        ))
    })
}
