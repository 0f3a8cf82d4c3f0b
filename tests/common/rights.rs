//! Holders of tokens, and what they ask.

use serde_json::{Value, json};

use super::{Answer, SOON, TestRoot, wait_for};

/// A new token: `words` say its role and more.
pub fn token(root: &TestRoot, words: &[&str]) -> String {
    let words = [&["tokens", "new", "-q"], words].concat();
    root.cmd("scheduler", &words).expect(0).body.trim().to_string()
}

/// What this holder is answered.
pub fn ask(root: &TestRoot, token: &str, method: &str, path: &str, body: &Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let bearer = format!("Bearer {token}");
    root.cgi(method, path, &[("Authorization", &bearer)], body.as_bytes())
}

/// Submits a job; its number.
pub fn submit(root: &TestRoot, token: &str, request: &Value) -> u64 {
    let answer = ask(root, token, "POST", "/scheduler/jobs/new", request);
    answer.expect(201).json()["job"].as_u64().unwrap()
}

/// A job that runs until `go` is there, and the key of its attempt.
pub fn running(root: &TestRoot, token: &str, name: &str) -> (u64, String) {
    let file = root.path(name);
    let script = format!(
        "echo $CORKBOARD_TOKEN > {0}.new; mv {0}.new {0}; until [ -e {1} ]; do sleep 0.02; done",
        file.display(),
        root.path("go").display()
    );
    let job = submit(root, token, &json!({"command": script}));
    let key = wait_for(SOON, || {
        let key = root.read(name);
        if key.is_empty() { Err(root.tree()) } else { Ok(key.trim().to_string()) }
    });
    (job, key)
}
