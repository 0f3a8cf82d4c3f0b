//! Jobs of mixed needs, and the nodes that they are for: what each asks for, where it may go, and how it ends.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use corkboard::model::resources::Resources;
use serde_json::{Value, json};

use crate::common::wait_for;
use crate::net::Random;

/// Jobs that are submitted in one request.
const AT_ONCE: usize = 20;

pub const USERS: [&str; 3] = ["ada", "ben", "cid"];

/// A node as its settings make it.
pub struct Kind {
    pub name: &'static str,
    pub conf: &'static str,
    pub total: Resources,
    pub labels: &'static [(&'static str, &'static str)],
}

/// The four nodes. What the machine has not is shared, the rest is each job's own.
pub fn kinds() -> [Kind; 4] {
    let gib = 1 << 30;
    [
        Kind {
            name: "one",
            conf: "cores = 4\nmemory = 4 GiB\ngpus = 2\ncountables = licenses=2\nlabels = disk=ssd, zone=a\n",
            total: Resources::of(4, 4 * gib).and("gpus", 2).and("licenses", 2),
            labels: &[("disk", "ssd"), ("zone", "a")],
        },
        Kind {
            name: "two",
            conf: "cores = 4\nmemory = 2 GiB\ncountables = licenses=1\nlabels = disk=hdd, zone=a\n",
            total: Resources::of(4, 2 * gib).and("licenses", 1),
            labels: &[("disk", "hdd"), ("zone", "a")],
        },
        Kind {
            name: "three",
            conf: "cores = 2\nmemory = 1 GiB\ngpus = 1\nlabels = disk=ssd, zone=b\n",
            total: Resources::of(2, gib).and("gpus", 1),
            labels: &[("disk", "ssd"), ("zone", "b")],
        },
        Kind {
            name: "four",
            conf: "cores = 6\nmemory = 4 GiB\ngpus = 3\ncountables = licenses=3\nlabels = disk=nvme, zone=b\n",
            total: Resources::of(6, 4 * gib).and("gpus", 3).and("licenses", 3),
            labels: &[("disk", "nvme"), ("zone", "b")],
        },
    ]
}

impl Kind {
    fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(label, _)| *label == name).map_or("", |(_, value)| value)
    }
}

/// How a job ends that nothing happens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Good,
    Fails,
    TimesOut,
}

/// A job as its user wants it.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub request: Value,
    pub resources: Resources,
    /// The nodes that may have it.
    pub nodes: Vec<&'static str>,
    pub end: End,
    /// How many tasks, if it is an array.
    pub tasks: Option<u32>,
}

/// What a job asks of nodes beside amounts.
type Ask = (Value, fn(&Kind) -> bool);

fn ask(random: &mut Random) -> Ask {
    match random.below(16) {
        0 | 1 => (json!({"constraints": {"disk": "ssd"}}), |kind| kind.label("disk") == "ssd"),
        2 => (json!({"constraints": {"disk": {"in": ["ssd", "nvme"]}}}), |kind| {
            ["ssd", "nvme"].contains(&kind.label("disk"))
        }),
        3 => (json!({"constraints": {"zone": {"not": "b"}}}), |kind| kind.label("zone") != "b"),
        4 => (json!({"node": ["two", "four"]}), |kind| ["two", "four"].contains(&kind.name)),
        5 => (json!({"exclude": "one"}), |kind| kind.name != "one"),
        6 => (json!({"constraints": {"zone": "b"}, "exclude": ["four"]}), |kind| {
            kind.label("zone") == "b" && kind.name != "four"
        }),
        _ => (json!({}), |_| true),
    }
}

fn amounts(random: &mut Random) -> Resources {
    let of = |random: &mut Random, all: &[u64]| *random.pick(all).unwrap();
    let mib = of(random, &[0, 0, 0, 128, 256, 512]);
    let cores = of(random, &[1, 1, 1, 1, 2, 2, 3, 4]);
    let gpus = of(random, &[0, 0, 0, 0, 0, 1, 1, 2]);
    let licenses = of(random, &[0, 0, 0, 0, 0, 0, 1, 2]);
    Resources::of(cores, mib << 20).and("gpus", gpus).and("licenses", licenses)
}

/// A job that some of these nodes could have, and that notes each start in the witness.
pub fn wanted(random: &mut Random, number: usize, witness: &Path, kinds: &[Kind]) -> Wanted {
    let (resources, more, nodes) = loop {
        let (resources, (more, takes)) = (amounts(random), ask(random));
        let fits = |kind: &&Kind| resources.fits(&kind.total) && takes(kind);
        let nodes: Vec<&str> = kinds.iter().filter(fits).map(|kind| kind.name).collect();
        if !nodes.is_empty() {
            break (resources, more, nodes);
        }
    };
    let note = "echo $CORKBOARD_NODEJOB${CORKBOARD_TASK:+/$CORKBOARD_TASK}";
    let note = format!("{note} >> {}; sleep 0.{:03}", witness.display(), 20 + random.below(100));
    let (command, end) = match random.below(20) {
        0 => (format!("{note}; exit 3"), End::Fails),
        1 => (format!("{note}; sleep 30"), End::TimesOut),
        _ => (note, End::Good),
    };
    let array = end == End::Good && number.is_multiple_of(25);
    let mut request = json!({
        "command": command, "dir": "/", "request_id": format!("r{number}"),
        "requested_resources": resources, "priority": random.below(5) as i64 - 2,
        "retry_lost": true, "retry_delay": 0, "max_retry_count": 20,
    });
    let fields = request.as_object_mut().unwrap();
    match end {
        End::Good => {}
        End::Fails => drop(fields.insert("max_retry_count".into(), 1.into())),
        End::TimesOut => {
            fields.insert("max_retry_count".into(), 0.into());
            fields.insert("timeout".into(), json!("0.3s"));
        }
    }
    if array {
        fields
            .insert("array".into(), json!(if number.is_multiple_of(50) { "0-7%3" } else { "0-7" }));
    }
    fields.extend(more.as_object().unwrap().clone());
    Wanted { request, resources, nodes, end, tasks: array.then_some(8) }
}

/// All of a user's, by their request ids.
pub fn all(
    random: &mut Random,
    count: usize,
    witness: &Path,
    kinds: &[Kind],
) -> BTreeMap<&'static str, Vec<Wanted>> {
    let mut all: BTreeMap<&str, Vec<Wanted>> = BTreeMap::new();
    for number in 0..count {
        // One has far more of them than the others.
        let user = USERS[(random.below(6) as usize).saturating_sub(3)];
        all.entry(user).or_default().push(wanted(random, number, witness, kinds));
    }
    all
}

/// Submits a user's jobs, some in each request, until all are acknowledged; their numbers. `post` sends a request's text,
/// and returns what was answered, or why nothing was.
pub fn submit(
    jobs: &[Wanted],
    patience: Duration,
    post: impl Fn(&str) -> Result<String, String>,
) -> Vec<(u64, Wanted)> {
    let mut known = Vec::new();
    for some in jobs.chunks(AT_ONCE) {
        let body: Value = some.iter().map(|one| one.request.clone()).collect();
        let numbers: Vec<u64> = wait_for(patience, || {
            let text = post(&body.to_string())?;
            let all: Vec<Value> = serde_json::from_str(&text).map_err(|_| text.clone())?;
            all.iter().map(|one| one["job"].as_u64()).collect::<Option<_>>().ok_or(text)
        });
        assert_eq!(numbers.len(), some.len());
        known.extend(numbers.into_iter().zip(some.iter().cloned()));
    }
    known
}
