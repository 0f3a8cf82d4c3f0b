//! What tests of arrays look at.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use super::{SOON, TestRoot, wait_for};

/// Runs of each task, by the lines that tasks write there.
pub fn runs(root: &TestRoot, file: &str) -> BTreeMap<u32, u32> {
    let mut runs = BTreeMap::new();
    let text = fs::read_to_string(root.path(file)).unwrap_or_default();
    text.lines().for_each(|line| *runs.entry(line.parse().unwrap()).or_default() += 1);
    runs
}

/// A command that writes its task to a file, then does `more`.
pub fn noted(root: &TestRoot, file: &str, more: &str) -> Value {
    json!(format!("echo $CORKBOARD_TASK >> {}; {more}", root.path(file).display()))
}

/// An open root.
pub fn root_with(cores: u32) -> TestRoot {
    let root = TestRoot::new(&format!("cores = {cores}\nmemory = 4 GiB\n"));
    root.open();
    root
}

/// What a status says of tasks.
pub fn tasks(status: &Value) -> &Value {
    &status["tasks"]
}

/// Waits until the tasks of a job are as wanted.
pub fn tasks_reach(root: &TestRoot, job: u64, wanted: impl Fn(&Value) -> bool) -> Value {
    wait_for(SOON, || {
        let status = root.status(job);
        if wanted(tasks(&status)) { Ok(status) } else { Err(status.to_string()) }
    })
}

/// Ids of the ranges that a node has had.
pub fn ranges(root: &TestRoot) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root.path("state/processor/job")).unwrap() {
        names.push(entry.unwrap().file_name().into_string().unwrap());
    }
    names.sort();
    names
}
