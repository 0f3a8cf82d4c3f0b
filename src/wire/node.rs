//! What a node says of itself.

use serde::{Deserialize, Serialize};

use crate::model::resources::Resources;
use crate::model::selector::Labels;

/// Where it is asked.
pub const INFO: &str = "info";

/// The answer, as a node gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// What is given to jobs in all.
    pub resources: Resources,
    /// What no running job has.
    pub free: Resources,
    /// Jobs that run or were claimed to run next.
    pub running: usize,
    /// Jobs that wait for room.
    pub queued: usize,
    /// What it is like, such as `arch`.
    #[serde(default)]
    pub labels: Labels,
    /// What holds the processes of a job together: [`SCAN`] alone cannot prove that none is left
    /// when a supervisor dies.
    #[serde(default = "scan")]
    pub containment: String,
}

/// Nothing does: they are looked for in `/proc`.
pub const SCAN: &str = "scan";

fn scan() -> String {
    SCAN.to_string()
}

/// As much of it as a head needs, and reads: all else may be absent, or say anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// What it gives to jobs in all.
    pub resources: Resources,
    /// What it is like.
    #[serde(default)]
    pub labels: Labels,
}

impl Info {
    /// Reads it.
    ///
    /// Errors: it does not say that.
    pub fn read(body: &[u8]) -> serde_json::Result<Info> {
        serde_json::from_slice(body)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_read_as_it_was_written() {
        for (cores, memory) in [(0, 0), (8, 1 << 30), (u64::MAX, u64::MAX)] {
            let resources = Resources::of(cores, memory).and("gpus", 2);
            let labels = Labels::from([("arch".to_string(), "x86_64".to_string())]);
            let node = Node {
                resources: resources.clone(),
                free: Resources::of(1, 2),
                labels: labels.clone(),
                running: 3,
                queued: 4,
                containment: "cgroup v2".into(),
            };
            let body = serde_json::to_vec(&node).unwrap();
            assert_eq!(serde_json::from_slice::<Node>(&body).unwrap(), node);
            assert_eq!(Info::read(&body).unwrap(), Info { resources, labels });
        }
        let newer = br#"{"resources":{"cores":2,"memory":1},"free":"plenty","load":7}"#;
        assert_eq!(Info::read(newer).unwrap().resources, Resources::of(2, 1));
        assert!(Info::read(b"{}").is_err());
    }
}
