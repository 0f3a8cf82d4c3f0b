//! What a node says of itself.

use serde::{Deserialize, Serialize, de::Error as _};
use serde_json::{Map, Value};

use crate::model::about::{About, Live};
use crate::model::resources::Resources;
use crate::model::selector::{Labels, MOST_LABELS, check_label, check_value};

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
    pub labels: Labels,
    /// How busy its machine is.
    pub live: Live,
    /// Its programs, its machine, and what they hold jobs to; of its `containment` [`SCAN`] alone cannot
    /// prove that no process is left when a supervisor dies.
    #[serde(flatten)]
    pub about: About,
}

/// Nothing holds the processes of a job together: they are looked for in `/proc`.
pub const SCAN: &str = "scan";

/// As much of it as a head reads. It needs the resources; all else may be absent, or say anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Info {
    /// What it gives to jobs in all.
    pub resources: Resources,
    /// What it is like.
    pub labels: Labels,
    /// What else it tells of itself; nothing, of one of an older version.
    #[serde(flatten)]
    pub about: About,
    /// How busy its machine is, if it says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live: Option<Live>,
}

impl Info {
    /// Reads it.
    ///
    /// Errors: it does not say what it gives to jobs.
    pub fn read(body: &[u8]) -> serde_json::Result<Info> {
        let answer: Map<String, Value> = serde_json::from_slice(body)?;
        let missing = || serde_json::Error::custom("missing field `resources`");
        let resources = answer.get("resources").ok_or_else(missing)?;
        Ok(Info {
            resources: serde_json::from_value(resources.clone())?,
            labels: labels(&answer),
            about: About::read(&answer),
            live: Live::read(&answer),
        })
    }
}

/// Those of its labels that are some.
fn labels(answer: &Map<String, Value>) -> Labels {
    let given = answer.get("labels").and_then(Value::as_object).into_iter().flatten();
    let texts = given.filter_map(|(label, value)| Some((label, value.as_str()?)));
    let fit = texts.filter(|(label, value)| {
        check_label(label).and_then(|()| check_value(label, value)).is_ok()
    });
    fit.take(MOST_LABELS).map(|(label, value)| (label.clone(), value.to_string())).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_node_is_read_as_it_was_written() {
        for (cores, memory) in [(0, 0), (8, 1 << 30), (u64::MAX, u64::MAX)] {
            let resources = Resources::of(cores, memory).and("gpus", 2);
            let labels = Labels::from([("arch".to_string(), "x86_64".to_string())]);
            let about = About { containment: "cgroup v2".into(), ..About::default() };
            let live = Live { free_memory: 1, ..Live::default() };
            let node = Node {
                resources: resources.clone(),
                free: Resources::of(1, 2),
                labels: labels.clone(),
                running: 3,
                queued: 4,
                live: live.clone(),
                about: about.clone(),
            };
            let body = serde_json::to_vec(&node).unwrap();
            let info = Info { resources, labels, about, live: Some(live) };
            assert_eq!(Info::read(&body).unwrap(), info);
        }
        let newer = br#"{"resources":{"cores":2,"memory":1},"free":"plenty","load":7,"labels":[]}"#;
        let read = Info::read(newer).unwrap();
        assert_eq!(read.resources, Resources::of(2, 1));
        assert!(read.labels.is_empty() && read.about.is_empty() && read.live.is_none());
        assert!(Info::read(b"{}").is_err());
    }

    #[test]
    fn what_is_no_label_is_passed_over() {
        let odd = json!({"resources": {}, "labels": {"arch": "x", "a b": "y", "n": 7, "c": "z\n"}});
        let read = Info::read(odd.to_string().as_bytes()).unwrap();
        assert_eq!(read.labels, Labels::from([("arch".to_string(), "x".to_string())]));
        let many: Map<String, Value> = (0..100).map(|n| (format!("l{n}"), json!("x"))).collect();
        let many = json!({"resources": {}, "labels": many});
        let read = Info::read(many.to_string().as_bytes()).unwrap();
        assert_eq!(read.labels.len(), MOST_LABELS);
    }
}
