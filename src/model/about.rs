//! What a node tells of itself beside what it gives to jobs: which programs it has, what it holds jobs to,
//! and how busy its machine is.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Longest text of these that a head keeps.
const LONGEST: usize = 200;

/// Most GPUs that are told of.
const MOST_GPUS: usize = 256;

/// A GPU of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gpu {
    /// Which: as `CUDA_VISIBLE_DEVICES` names it.
    pub index: u32,
    /// Its maker's name for it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its memory in bytes; 0 if that is not known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub memory: u64,
    /// Its compute capability, such as 8.6.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub compute_capability: String,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What holds jobs to what they were given, each in words: by what, or that nothing does and why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Enforcement {
    /// Processor cores.
    pub cores: String,
    /// Memory.
    pub memory: String,
    /// The number of processes.
    pub processes: String,
}

/// What changes seldom.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct About {
    /// The version of its programs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// The boot of its machine.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub boot: String,
    /// What holds the processes of a job together.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub containment: String,
    /// What holds jobs to what they were given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<Enforcement>,
    /// Its GPUs, as far as something tells of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<Gpu>,
}

impl About {
    /// What of it an answer says. What is missing there, or is not as it should be, is not known.
    pub fn read(answer: &Map<String, Value>) -> About {
        let text = |name: &str| {
            let text = answer.get(name).and_then(Value::as_str).unwrap_or_default();
            bounded(text)
        };
        let gpus = read::<Vec<Gpu>>(answer, "gpus").unwrap_or_default();
        let gpus = gpus.into_iter().take(MOST_GPUS).map(|gpu| Gpu {
            name: bounded(&gpu.name),
            compute_capability: bounded(&gpu.compute_capability),
            ..gpu
        });
        let enforcement = read::<Enforcement>(answer, "enforcement").map(|told| Enforcement {
            cores: bounded(&told.cores),
            memory: bounded(&told.memory),
            processes: bounded(&told.processes),
        });
        About {
            version: text("version"),
            boot: text("boot"),
            containment: text("containment"),
            enforcement,
            gpus: gpus.collect(),
        }
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == About::default()
    }
}

/// What changes all the time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Live {
    /// When it was so; known at the head alone, by its clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// Memory that the machine could give to programs now, in bytes.
    pub free_memory: u64,
    /// Free space where the node's state lies, in bytes.
    pub free_disk: u64,
    /// How many processes ran or wanted to, on the average of 1, 5 and 15 minutes.
    pub load: String,
}

impl Live {
    /// What of it an answer says, if it says it as it should.
    pub fn read(answer: &Map<String, Value>) -> Option<Live> {
        let live = read::<Live>(answer, "live")?;
        Some(Live { at: None, load: bounded(&live.load), ..live })
    }
}

fn read<T: serde::de::DeserializeOwned>(answer: &Map<String, Value>, name: &str) -> Option<T> {
    serde_json::from_value(answer.get(name)?.clone()).ok()
}

fn bounded(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn what_a_node_says_is_read_as_far_as_it_is_as_it_should_be() {
        let about = About {
            version: "0.2.0".into(),
            boot: "b".into(),
            containment: "cgroup2".into(),
            enforcement: Some(Enforcement { cores: "affinity".into(), ..Enforcement::default() }),
            gpus: vec![Gpu {
                index: 1,
                name: "x".into(),
                memory: 7,
                compute_capability: "8.6".into(),
            }],
        };
        assert_eq!(About::read(&map(json!(about))), about);
        let live = Live { at: None, free_memory: 1, free_disk: 2, load: "0.1 0.2 0.3".into() };
        assert_eq!(Live::read(&map(json!({"live": live}))), Some(live));
        let odd = map(json!({"version": 7, "enforcement": "all", "gpus": {}, "live": [1],
            "boot": "x".repeat(1000), "containment": "a\nb"}));
        let read = About::read(&odd);
        assert_eq!((read.version.as_str(), read.boot.len()), ("", LONGEST));
        assert_eq!((read.containment.as_str(), &read.enforcement), ("ab", &None));
        assert!(read.gpus.is_empty() && Live::read(&odd).is_none());
        assert!(About::read(&Map::new()).is_empty());
    }
}
