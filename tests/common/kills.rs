//! Kills on a node, and what tests of them look at.

use serde_json::{Value, json};

use super::node::submit;
use super::{SOON, TestRoot, wait_for};

/// Kills a job of a node; what is known of it then.
pub fn kill(root: &TestRoot, id: &str, query: &[&str]) -> Value {
    let words = [&["jobs", id, "kill"], query].concat();
    root.cmd("processor", &words).expect(0).json()
}

/// A range of a node without a head.
pub fn give_range(root: &TestRoot, id: &str, tasks: &str, command: &str) {
    submit(root, json!({"command": command, "tasks": tasks, "request_id": id}));
}

/// The story of a range's tasks: how each ended.
pub fn reason(root: &TestRoot, id: &str, task: u32) -> String {
    wait_for(SOON, || {
        let words = ["jobs", id, "status", &format!("task={task}")].map(str::to_string);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let status = root.cmd("processor", &words).expect(0).json();
        match status["state"].as_str() {
            Some("stopped") => Ok(status["reason"].as_str().unwrap_or("good").to_string()),
            _ => Err(status.to_string()),
        }
    })
}
