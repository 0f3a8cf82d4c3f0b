//! Partitions, made and changed by command and by hand, and what is told of their jobs.

use std::fs;

use serde_json::{Value, json};

use super::head::Door;
use super::{Answer, TestRoot};

/// Makes a partition, by command.
pub fn make(root: &TestRoot, partition: &Value) {
    root.cmd_in("scheduler", &["partitions", "new"], &partition.to_string()).expect(0);
}

/// Changes one, by command.
pub fn change(root: &TestRoot, name: &str, fields: &Value) {
    let words = ["partitions", name, "update", "-d", &fields.to_string()];
    root.cmd("scheduler", &words).expect(0);
}

pub fn remove(root: &TestRoot, name: &str) {
    root.cmd("scheduler", &["partitions", name, "remove"]).expect(0);
}

pub fn path(name: &str) -> String {
    format!("state/scheduler/partitions/{name}.json")
}

/// Writes a record as many an editor does: beside it, then in its place.
pub fn write_over(root: &TestRoot, name: &str, text: &str) {
    root.write(&format!("{}~", path(name)), text);
    fs::rename(root.path(&format!("{}~", path(name))), root.path(&path(name))).unwrap();
}

/// A job for this partition that runs until this file is there.
pub fn until_file(root: &TestRoot, partition: &str, file: &str, more: Value) -> Value {
    let script = format!("until [ -e {} ]; do sleep 0.02; done", root.path(file).display());
    let mut request = json!({"command": script, "partition": partition});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

pub fn error(answer: Answer) -> String {
    answer.json()["error"].as_str().unwrap_or_default().to_string()
}

/// What is told of each node of a job that waits.
pub fn objections(door: &Door, job: u64) -> Vec<String> {
    let all = door.get(&format!("/scheduler/jobs/{job}/explain")).expect(200).json();
    let nodes = all["nodes"].as_array().unwrap().iter();
    nodes.map(|node| node["objection"].as_str().unwrap_or_default().to_string()).collect()
}
