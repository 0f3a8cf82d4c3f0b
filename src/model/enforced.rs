//! What a run is held to, and by what.

use serde::{Deserialize, Serialize};

use super::tasks::TaskSet;

/// Longest that a head keeps of each.
const LONGEST: usize = 200;

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

impl Enforced {
    /// Whether it is no longer than one may be, and plain. A node may say what it likes.
    pub fn is_fit(&self) -> bool {
        let texts = [self.cpus.to_string(), self.gpus.to_string()];
        let mut texts = texts.iter().chain([&self.memory, &self.processes]);
        texts.all(|text| text.len() <= LONGEST && !text.chars().any(char::is_control))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_a_head_keeps_is_short_and_plain() {
        let cpus: TaskSet = "0-3".parse().unwrap();
        let fit = Enforced { cpus, memory: "cgroup2".into(), ..Enforced::default() };
        assert!(fit.is_fit());
        assert_eq!(serde_json::to_string(&fit).unwrap(), r#"{"cpus":"0-3","memory":"cgroup2"}"#);
        assert!(!Enforced { memory: "x".repeat(LONGEST + 1), ..fit.clone() }.is_fit());
        assert!(!Enforced { processes: "a\n".into(), ..fit.clone() }.is_fit());
        let many: Vec<String> = (0..200).map(|n| (2 * n).to_string()).collect();
        assert!(!Enforced { gpus: many.join(",").parse().unwrap(), ..fit }.is_fit());
    }
}
