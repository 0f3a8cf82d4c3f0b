//! What the system behind a node calls an attempt: noted on the card by an event of its own, and shown.
//! Nodes of Corkboard's own know an attempt by its id, and have none.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs::{self, File};
use std::io::Write;

use common::TestRoot;
use common::head::open_root;
use corkboard::attempts;
use corkboard::board::cards::Cards;
use corkboard::board::root::Root;
use corkboard::driver::Taken;
use corkboard::model::ids::NodejobId;
use serde_json::{Value, json};

/// A root that has a name and a secret by now.
fn head() -> TestRoot {
    let root = open_root("");
    root.cmd("scheduler", &["jobs", "new", "--wait", "--", "true"]).expect(0);
    root
}

fn id(root: &TestRoot, job: u64) -> String {
    format!("{}-{job}.1", root.read("state/scheduler/cluster").trim())
}

/// A card that its head has placed on a node of another kind, with these lines after that.
fn placed(root: &TestRoot, request: &Value, lines: &[Value]) -> u64 {
    let job = root.submit(request);
    let (queue, running) =
        ["queue", "running"].map(|c| root.path(&format!("state/scheduler/{c}/{job}.job"))).into();
    let mut placed = json!({
        "at": "2026-01-01T00:00:01.000Z", "event": "placed", "attempt": 1, "node": "localhost",
        "nodejob": id(root, job), "driver": "local",
    });
    if let Some(tasks) = request.get("array") {
        placed["tasks"] = tasks.clone();
    }
    let mut card = File::options().append(true).open(&queue).unwrap();
    for line in [&placed].into_iter().chain(lines) {
        write!(card, "\n{line}\n").unwrap();
    }
    fs::rename(queue, running).unwrap();
    job
}

fn called(attempt: u32, name: &str) -> Value {
    json!({"at": "2026-01-01T00:00:02.000Z", "event": "ref", "attempt": attempt, "ref": name})
}

#[test]
fn a_reference_is_read_and_shown() {
    let root = head();
    let plain = json!({"command": "true"});
    let job = placed(&root, &plain, &[called(1, "slurm 4711")]);
    let none = placed(&root, &plain, &[]);
    let other = placed(&root, &plain, &[called(2, "of no attempt")]);
    let array = placed(&root, &json!({"command": "true", "array": "0-3"}), &[called(1, "arn:x")]);
    let status = root.status(job);
    assert_eq!((&status["state"], &status["ref"]), (&json!("placed"), &json!("slurm 4711")));
    for job in [none, other] {
        assert_eq!(root.status(job).get("ref"), None);
    }
    // The ranges of an array may each have one.
    assert_eq!(root.status(array).get("ref"), None);
    let task = root.cmd("scheduler", &["jobs", &array.to_string(), "status", "task=2"]).expect(0);
    assert_eq!(task.json()["ref"], "arn:x");
    for (job, name) in [(job, "slurm 4711"), (array, "arn:x")] {
        let record = root.cmd("scheduler", &["jobs", &job.to_string()]).expect(0).json();
        assert_eq!(record["attempts"][0]["ref"], name, "{record}");
        assert_eq!(record["events"][1]["event"], "ref", "{record}");
    }
    let list = root.cmd("scheduler", &["jobs", "format=json"]).expect(0).json();
    let listed = list.as_array().unwrap().iter().find(|one| one["job"] == job).unwrap();
    assert_eq!(listed["ref"], "slurm 4711");
    root.check();
}

#[test]
fn what_a_driver_is_told_is_noted_once() {
    let root = head();
    let job = placed(&root, &json!({"command": "true"}), &[]);
    let cursor = root.cmd("scheduler", &["events"]).expect(0).json()["cursor"].clone();
    let opened = Root::open(&root.dir).unwrap();
    let cards = Cards::new(&opened);
    let reference = Taken::called("slurm 4711\n").reference.unwrap();
    let id = NodejobId::parse(&id(&root, job)).unwrap();
    for _ in 0..2 {
        let lock = cards.lock().unwrap();
        let named = cards.change(&lock, job, |card| Ok(attempts::name(card, &id, &reference)));
        named.unwrap().sync.commit().unwrap();
    }
    assert_eq!(root.status(job)["ref"], "slurm 4711 ");
    assert_eq!(root.story(job), ["placed", "ref"]);
    let since = format!("since={}", cursor.as_str().unwrap());
    let told = root.cmd("scheduler", &["events", &since]).expect(0).json();
    let told: Vec<&Value> = told["events"].as_array().unwrap().iter().collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((&told[0]["event"], &told[0]["ref"]), (&json!("ref"), &json!("slurm 4711 ")));
    // An attempt that has ended is called nothing any more.
    root.update(job, "kill=1").expect(0);
    let late = NodejobId::new(id.cluster(), id.job, 2).unwrap();
    assert!(attempts::name(&cards.find(job).unwrap(), &late, "x").is_empty());
    root.check();
}

#[test]
fn nodes_of_our_own_have_none() {
    let root = open_root("");
    let _poller = root.poller();
    let job = root.submit(&json!({"command": "true"}));
    root.reaches(job, "stopped");
    assert_eq!(root.card(job).len(), 4, "the request, placed, running, stopped");
    assert_eq!(root.status(job).get("ref"), None);
}
