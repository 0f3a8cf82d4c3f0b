//! Jobs that a node has accepted and, with other settings now, can never run.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;
mod faults;

use std::fs;
use std::process::Command;

use common::node::root;
use common::{TestRoot, feed, program, until};
use faults::Act;
use serde_json::{Value, json};

/// Accepts a job, and starts nobody: by a program of another name, which starts the root's own.
fn accept(root: &TestRoot, request: &Value) {
    let path = root.path("accept");
    if !root.exists("accept") {
        // Not copied here: what some thread's child still has open for writing cannot be started.
        let mut install = Command::new("install");
        let done = install.args(["-m", "755"]).arg(program("processor")).arg(&path).status();
        assert!(done.unwrap().success());
    }
    let mut command = Command::new(path);
    command.args(["jobs", "new", "-q"]).env("CORKBOARD_ROOT", &root.dir);
    let output = feed(&mut command, request.to_string().as_bytes());
    assert!(output.status.success(), "{output:?}");
}

/// A node whose settings have become smaller: what can never run there goes back to the head that has
/// sent it, what no head has sent waits and says why, and the others run.
#[test]
fn one_that_no_longer_fits_keeps_no_other_waiting() {
    let root = root();
    root.starts_no_supervisor();
    let give = |id: &str, cores: u32| {
        let needs = json!({"cores": cores});
        let witness = format!("echo {id} >> {}", root.path("ran").display());
        let request = json!({"command": witness, "request_id": id, "requested_resources": needs});
        accept(&root, &request);
    };
    give("own", 2);
    give("head-1.1", 2);
    give("small", 1);
    give("head-2.1", 1);
    root.write("corkboard.conf", "cores = 1\nmemory = 4 GiB\n");
    let processor = |words: &[&str]| Act::cmd(&root, "processor", words, "").run();
    for _ in 0..2 {
        assert!(processor(&["supervise", "--stay"]).acknowledged());
    }
    assert_eq!(root.ended("small")["status"], "good");
    assert_eq!(root.ended("head-2.1")["status"], "good");
    let back = processor(&["jobs", "head-1.1", "status"]);
    let needs = "the job needs 2 cores, this node has 1 core, 4 GiB memory in all";
    assert!(back.stderr.contains(&format!("was given back: {needs}")), "{back:?}");
    let waits: Value = serde_json::from_str(&processor(&["jobs", "own", "status"]).body).unwrap();
    assert_eq!((&waits["state"], &waits["reason"]), (&json!("queued"), &json!(needs)));
    let check = processor(&["check"]);
    assert_eq!((check.code, check.body.as_str()), (0, ""));
    // Sent once more, it is refused for ever.
    root.write("corkboard.conf", common::node::CONF);
    let request = json!({"command": ["true"], "request_id": "head-1.1"}).to_string();
    assert_ne!(Act::cmd(&root, "processor", &["jobs", "new"], &request).run().code, 0);
    assert!(processor(&["supervise", "--stay"]).acknowledged());
    assert_eq!(root.ended("own")["status"], "good");
    let mut ran: Vec<String> = root.read("ran").lines().map(String::from).collect();
    ran.sort_unstable();
    assert_eq!(ran, ["head-2.1", "own", "small"]);
    let check = processor(&["check"]);
    assert_eq!((check.code, check.body.as_str()), (0, ""));
}

/// The head hears that, says why, and sends it elsewhere or once more.
#[test]
fn the_head_takes_back_what_no_longer_fits() {
    let root = TestRoot::new("cores = 2\nmemory = 4 GiB\nscan_every = 100ms\n");
    root.open();
    root.starts_no_supervisor();
    let _poller = root.poller();
    let job = root.submit(&json!({"command": ["true"], "requested_resources": {"cores": 2}}));
    root.reaches(job, "placed");
    until("the node has it", || {
        fs::read_dir(root.path("state/processor/queue")).is_ok_and(|mut dir| dir.next().is_some())
    });
    root.write("corkboard.conf", "cores = 1\nmemory = 4 GiB\nscan_every = 100ms\n");
    let supervise = Act::cmd(&root, "processor", &["supervise", "--stay"], "").run();
    assert!(supervise.acknowledged(), "{supervise:?}");
    until("it is taken back", || root.story(job).contains(&"refused".to_string()));
    let refused = root.card(job).into_iter().find(|line| line["event"] == "refused").unwrap();
    let reason = refused["reason"].as_str().unwrap();
    assert!(reason.contains("this node has 1 core"), "{reason}");
    assert_eq!(Act::cmd(&root, "processor", &["check"], "").run().code, 0);
}

/// A head that scans seldom hears of it at once, by the feed.
#[test]
fn what_is_given_back_is_heard_of_at_once() {
    let root = TestRoot::new("cores = 2\nmemory = 4 GiB\nscan_every = 1h\n");
    root.open();
    root.starts_no_supervisor();
    let _poller = root.poller();
    let job = root.submit(&json!({"command": ["true"], "requested_resources": {"cores": 2}}));
    root.reaches(job, "placed");
    until("the node has it", || {
        fs::read_dir(root.path("state/processor/queue")).is_ok_and(|mut dir| dir.next().is_some())
    });
    root.write("corkboard.conf", "cores = 1\nmemory = 4 GiB\nscan_every = 1h\n");
    let supervise = Act::cmd(&root, "processor", &["supervise", "--stay"], "").run();
    assert!(supervise.acknowledged(), "{supervise:?}");
    until("it is taken back", || root.story(job).contains(&"refused".to_string()));
}

/// What a supervisor leaves that dies while it gives a job back.
#[test]
fn giving_back_stands_a_crash_at_any_point() {
    let root = root();
    root.starts_no_supervisor();
    let act = |words: &[&str]| Act::cmd(&root, "processor", words, "");
    let give = |id: &str| {
        root.write("corkboard.conf", common::node::CONF);
        let witness = format!("echo {id} >> {}", root.path("ran").display());
        let request = json!({"command": witness, "request_id": id,
            "requested_resources": {"cores": 2}});
        accept(&root, &request);
        root.write("corkboard.conf", "cores = 1\nmemory = 4 GiB\n");
    };
    give("head-0.1");
    let supervise = act(&["supervise", "--stay"]);
    let (_, points) = supervise.trace();
    for (index, point) in points.iter().enumerate() {
        let id = format!("head-{}.1", index + 1);
        give(&id);
        supervise.kill_at(point);
        assert!(act(&["supervise", "--stay"]).run().acknowledged());
        let status = act(&["jobs", &id, "status"]).run();
        assert!(status.stderr.contains("was given back"), "{point:?} {status:?}");
        let check = act(&["check"]).run();
        assert_eq!((check.code, check.body.as_str()), (0, ""), "{point:?}");
    }
    assert!(points.len() > 5 && !root.exists("ran"));
}
