//! Jobs that a node has accepted and, with other settings now, can never run.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;
mod faults;

use std::fs;

use common::node::root;
use common::{TestRoot, until};
use faults::Act;
use serde_json::{Value, json};

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
        assert!(Act::accept(&root, &request).acknowledged());
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

/// Who sends it again, since the answer did not arrive, is not told that it was refused: it is there, and may run.
#[test]
fn one_that_is_there_is_not_refused_when_it_is_sent_again() {
    let root = root();
    root.starts_no_supervisor();
    let needs = json!({"cores": 2});
    let request =
        json!({"command": ["true"], "request_id": "head-1.1", "requested_resources": needs});
    assert!(Act::accept(&root, &request).acknowledged());
    root.write("corkboard.conf", "cores = 1\nmemory = 4 GiB\n");
    let again = Act::cmd(&root, "processor", &["jobs", "new"], &request.to_string()).run();
    assert!(again.stderr.contains("it may have been recorded"), "{again:?}");
    root.write("corkboard.conf", common::node::CONF);
    assert!(Act::accept(&root, &request).acknowledged());
    assert!(Act::cmd(&root, "processor", &["supervise", "--stay"], "").run().acknowledged());
    assert_eq!(root.ended("head-1.1")["status"], "good");
}

/// The head hears that, says why, and sends it elsewhere or once more; one that scans seldom hears of it
/// at once, by the feed.
#[test]
fn the_head_takes_back_what_no_longer_fits() {
    for scan_every in ["100ms", "1h"] {
        let conf =
            |cores: u32| format!("cores = {cores}\nmemory = 4 GiB\nscan_every = {scan_every}\n");
        let root = TestRoot::new(&conf(2));
        root.open();
        root.starts_no_supervisor();
        let _poller = root.poller();
        let job = root.submit(&json!({"command": ["true"], "requested_resources": {"cores": 2}}));
        root.reaches(job, "placed");
        let queue = root.path("state/processor/queue");
        until("the node has it", || fs::read_dir(&queue).is_ok_and(|mut dir| dir.next().is_some()));
        root.write("corkboard.conf", &conf(1));
        let supervise = Act::cmd(&root, "processor", &["supervise", "--stay"], "").run();
        assert!(supervise.acknowledged(), "{supervise:?}");
        until("it is taken back", || root.story(job).contains(&"refused".to_string()));
        let refused = root.card(job).into_iter().find(|line| line["event"] == "refused").unwrap();
        let reason = refused["reason"].as_str().unwrap();
        assert!(reason.contains("this node has 1 core"), "{reason}");
        assert_eq!(Act::cmd(&root, "processor", &["check"], "").run().code, 0);
    }
}

/// Somebody killed it after it was claimed.
#[test]
fn one_that_was_killed_is_not_given_back() {
    let root = root();
    root.starts_no_supervisor();
    let request = json!({"command": ["true"], "request_id": "head-1.1",
        "requested_resources": {"cores": 2}});
    assert!(Act::accept(&root, &request).acknowledged());
    root.write("corkboard.conf", "cores = 1\nmemory = 4 GiB\n");
    let killed = json!({"at": "2026-01-01T00:00:00.000Z", "by": "ada"});
    root.write("state/processor/job/head-1.1/kill", &format!("{killed}\n"));
    assert!(Act::cmd(&root, "processor", &["supervise", "--stay"], "").run().acknowledged());
    assert_eq!(root.ended("head-1.1")["reason"], "killed by ada");
    assert_eq!(Act::cmd(&root, "processor", &["check"], "").run().code, 0);
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
        assert!(Act::accept(&root, &request).acknowledged());
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
