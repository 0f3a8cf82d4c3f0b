//! Every way to change something, and what a refusal may leave.

use serde_json::{Value, json};

use super::{Act, Journal, Ran, listing};
use crate::common::TestRoot;

/// Says "try again later", and nothing else.
pub fn refused(ran: &Ran) -> bool {
    matches!(ran.code, 75 | 503)
}

/// Says that the outcome is not known, and what to do.
pub fn unknown(ran: &Ran) -> bool {
    let said = format!("{}{}", ran.body, ran.stderr);
    matches!(ran.code, 1 | 500) && said.contains("repeat with the same id")
}

/// What a refused change must leave alone; the audit tells of it. Supervisors of earlier jobs may be at
/// work meanwhile.
pub fn seen(root: &TestRoot) -> Vec<String> {
    let of_others = [
        "/audit/",
        "/events ",
        "/slot/",
        "/pid/",
        "/status ",
        "/log ",
        "/processor/queue/",
        "/filler/",
    ];
    let mut all = listing(&root.path("state"));
    all.retain(|line| !of_others.iter().any(|part| line.contains(part)));
    all.iter_mut().for_each(|line| {
        // The queue has a second name for it; and numbers that nobody got go unused.
        if line.contains("/processor/job/") || line.contains("/scheduler/seq ") {
            *line = line.split(' ').next().unwrap().to_string();
        }
    });
    all
}

pub fn assert_same(before: &[String], after: &[String], said: &str) {
    let gone: Vec<_> = before.iter().filter(|line| !after.contains(line)).collect();
    let new: Vec<_> = after.iter().filter(|line| !before.contains(line)).collect();
    assert!(gone.is_empty() && new.is_empty(), "{said}\ngone: {gone:#?}\nnew: {new:#?}");
}

/// A form with a job and its file `input.dat`; its boundary is `b`.
pub fn multipart(job: &Value, content: &str) -> String {
    format!(
        "--b\r\nContent-Disposition: form-data; name=\"job\"\r\n\r\n{job}\r\n--b\r\n\
         Content-Disposition: form-data; name=\"file\"; filename=\"input.dat\"\r\n\r\n{content}\r\n\
         --b--\r\n"
    )
}

/// Every way to change something, each with a name that is new.
pub fn changes(journal: &Journal, mark: &str, held: u64) -> Vec<(String, Act)> {
    let root = journal.root;
    let named = |what: &str, more: Value| -> Value {
        let mut request = journal.request(more);
        request["name"] = json!(format!("{mark}-{what}"));
        request
    };
    let with_id = |what: &str| named(what, json!({"request_id": format!("{mark}-{what}")}));
    let array = |what: &str, ids: bool| {
        let job = |k: i32| {
            let id = json!({"request_id": format!("{mark}-{what}-{k}")});
            named(what, if ids { id } else { json!({}) })
        };
        json!([job(1), job(2), job(3)])
    };
    let json_type = "application/json";
    let post = |program: &str, path: &str, body: &str| {
        Act::post(root, program, path, json_type, body.as_bytes())
    };
    let update =
        |what: &str| Act::cmd(root, "scheduler", &["jobs", &held.to_string(), "update", what], "");
    let node = |what: &str| {
        let mut request = with_id(what);
        request.as_object_mut().unwrap().remove("name");
        request.to_string()
    };
    let mut upload = with_id("upload");
    upload["command"] = json!(format!("[ \"$(cat input.dat)\" = hello ] && {}", journal.line()));
    upload.as_object_mut().unwrap().remove("dir");
    let upload = multipart(&upload, "hello");
    let file = "multipart/form-data; boundary=b";
    vec![
        ("plain".into(), Act::submit(root, &named("plain", json!({})))),
        ("id".into(), Act::submit(root, &with_id("id"))),
        ("cgi".into(), post("scheduler", "/jobs/new", &with_id("cgi").to_string())),
        ("array".into(), Act::submit(root, &array("array", false))),
        ("array-ids".into(), Act::submit(root, &array("array-ids", true))),
        ("upload".into(), Act::post(root, "scheduler", "/jobs/new", file, upload.as_bytes())),
        ("node".into(), Act::cmd(root, "processor", &["jobs", "new"], &node("node"))),
        ("node-cgi".into(), post("processor", "/jobs/new", &node("node-cgi"))),
        ("priority".into(), update("priority=7")),
        ("release".into(), update("release=1")),
        ("hold".into(), update("hold=1")),
        ("kill".into(), update("kill=1")),
        ("token".into(), Act::cmd(root, "scheduler", &["tokens", "new", "role=user"], "")),
        ("place".into(), Act::cmd(root, "poller", &["--once", "-q"], "")),
    ]
}

/// Notes what was promised by an answer, by the name of the change.
pub fn note(journal: &mut Journal, what: &str, ran: &Ran, nodejobs: &mut Vec<String>, id: &str) {
    match what {
        "plain" | "id" | "cgi" | "array" | "array-ids" | "upload" => {
            journal.answered(ran);
        }
        "node" | "node-cgi" => {
            journal.counts.submitted += 1;
            if ran.acknowledged() {
                nodejobs.push(id.to_string());
            }
        }
        _ => {}
    }
}

pub fn held(journal: &mut Journal) -> u64 {
    let ran = Act::submit(journal.root, &journal.request(json!({"state": "held"}))).run();
    journal.answered(&ran)[0]
}

pub fn assert_nodejobs(journal: &mut Journal, ids: &[String]) {
    for id in ids {
        if journal.root.node_status(id)["status"] != "good" {
            println!("{id} on the node: {}", journal.root.node_status(id));
            journal.counts.lost += 1;
        }
    }
}
