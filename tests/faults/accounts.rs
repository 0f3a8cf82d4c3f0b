//! What was in use at a time, added up from stories: never more than there is, and nothing twice.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::SystemTime;

use corkboard::board::root::Root;
use corkboard::board::runs::Runs;
use corkboard::board::slots;
use corkboard::clock;
use corkboard::model::resources::Resources;
use corkboard::model::tasks::TaskSet;
use serde_json::Value;

use crate::common::TestRoot;

/// Something that was in use for a while.
#[derive(Debug, Clone)]
pub struct Use {
    pub what: String,
    pub from: SystemTime,
    pub until: SystemTime,
    pub resources: Resources,
    pub cpus: TaskSet,
    pub gpus: TaskSet,
}

pub fn time(text: &Value) -> SystemTime {
    clock::parse_rfc3339(text.as_str().unwrap_or_default()).unwrap_or_else(|| panic!("{text}"))
}

fn set(value: &Value) -> TaskSet {
    value.as_str().map_or(TaskSet::default(), |text| text.parse().unwrap())
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// What a node's runs had of it, by their own stories. One whose supervisor was killed has it until what is left of
/// it has been ended, and it is told as lost.
pub fn of_node(node: &TestRoot) -> Vec<Use> {
    let mut uses = Vec::new();
    for entry in fs::read_dir(node.path("state/processor/job")).unwrap() {
        let id = entry.unwrap().file_name().into_string().unwrap();
        let request: Value =
            serde_json::from_str(&node.read(&format!("state/processor/job/{id}/request.json")))
                .unwrap();
        let story = lines(&node.read(&format!("state/processor/job/{id}/status")));
        let Some(first) = story.iter().find(|line| line["state"] == "running") else { continue };
        let last = story.last().unwrap();
        assert_eq!(last["state"], "stopped", "{id} has no end: {story:?}");
        let (from, until) = (time(&first["at"]), time(&last["at"]));
        let asked = request["requested_resources"].clone();
        let resources: Resources = serde_json::from_value(asked).unwrap();
        let (cpus, gpus) = (set(&first["enforced"]["cpus"]), set(&first["enforced"]["gpus"]));
        assert_eq!(gpus.len(), resources.others.get("gpus"), "{id}: {first}");
        uses.push(Use { what: id, from, until, resources, cpus, gpus });
    }
    uses
}

/// At no time more was in use than so much, and none of what is given alone by two. Returns the most at a time.
pub fn assert_within(uses: &[Use], total: &Resources) -> Resources {
    // At one time what ends comes before what begins.
    let mut moments: Vec<(SystemTime, bool, usize)> = Vec::new();
    for (at, one) in uses.iter().enumerate() {
        if one.from < one.until {
            moments.extend([(one.from, true, at), (one.until, false, at)]);
        }
    }
    moments.sort_unstable();
    let (mut most, mut now) = (Resources::NONE, BTreeSet::new());
    for (time, begins, at) in moments {
        if !begins {
            now.remove(&at);
            continue;
        }
        let others = now.iter().map(|other: &usize| &uses[*other]);
        let one = &uses[at];
        for other in others.clone() {
            for (own, theirs) in [(&one.cpus, &other.cpus), (&one.gpus, &other.gpus)] {
                let both = own.iter().filter(|unit| theirs.contains(*unit)).count();
                assert_eq!(both, 0, "{one:?} and {other:?} have the same");
            }
        }
        let used = others.fold(one.resources.clone(), |sum, other| sum.plus(&other.resources));
        let all: Vec<&str> =
            now.iter().map(|other| &*uses[*other].what).chain([&*one.what]).collect();
        let time = clock::rfc3339(time);
        assert!(used.fits(total), "{} of {} at {time}: {all:?}", used.human(), total.human());
        most = larger(&most, &used);
        now.insert(at);
    }
    most
}

fn larger(one: &Resources, other: &Resources) -> Resources {
    let all = Resources::of(one.cores.max(other.cores), one.memory.max(other.memory));
    let names = one.others.iter().chain(other.others.iter());
    names.fold(all, |all, (name, _)| {
        let most = one.others.get(name).max(other.others.get(name));
        all.and(name, most)
    })
}

/// The same of what a node's slots name right now, those of dead supervisors, too: no slot is given anything while
/// its board is locked.
pub fn assert_slots_within(dir: &Path, total: &Resources, name: &str) -> u64 {
    let root = Root::open(dir).unwrap();
    let runs = Runs::new(&root);
    let held = runs.lock().unwrap();
    let seen = slots::all(&runs).unwrap();
    drop(held);
    let records = || {
        let named = seen.iter().filter(|slot| !slot.jobs().is_empty());
        named.filter_map(|slot| slot.record.as_ref())
    };
    let used = records().fold(Resources::NONE, |sum, record| sum.plus(&record.resources));
    assert!(used.fits(total), "{name}: {} of {}: {seen:?}", used.human(), total.human());
    let (mut cpus, mut gpus) = (TaskSet::default(), TaskSet::default());
    for record in records() {
        assert_eq!(record.gpus.len(), record.resources.others.get("gpus"), "{record:?}");
        for (all, own) in [(&mut cpus, &record.cpus), (&mut gpus, &record.gpus)] {
            assert!(own.iter().all(|unit| !all.contains(unit)), "{seen:?}");
            all.add(own);
        }
    }
    used.cores
}
