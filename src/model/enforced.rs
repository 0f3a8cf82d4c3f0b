//! What a run is held to, and by what.

use serde::{Deserialize, Serialize};

use super::tasks::TaskSet;

/// What is not named is not enforced.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Enforced {
    /// The processor cores that are its own.
    #[serde(skip_serializing_if = "TaskSet::is_empty")]
    pub cpus: TaskSet,
    /// The GPUs that are its own.
    #[serde(skip_serializing_if = "TaskSet::is_empty")]
    pub gpus: TaskSet,
    /// What limits its memory.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub memory: String,
    /// What limits the number of its processes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub processes: String,
}
