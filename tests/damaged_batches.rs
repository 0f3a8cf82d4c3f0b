//! Requests for many jobs of which a power loss, damage or something in the way has taken a part.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs::{self, File};

use common::head::open_root;
use common::{SOON, TestRoot, until, wait_for};
use serde_json::{Value, json};

/// A request for jobs with these request ids; what a power loss before its commit leaves: the names are on
/// the disk, and neither the cards' content nor the batch. The request.
fn cut_off(root: &TestRoot, request_ids: &[&str]) -> String {
    let jobs: Vec<Value> = request_ids
        .iter()
        .map(|request_id| json!({"command": ["true"], "request_id": request_id}))
        .collect();
    let body = json!(jobs).to_string();
    root.cgi("POST", "/scheduler/jobs/new", &[], body.as_bytes()).expect(201);
    let file = |name: &str| root.path(&format!("state/scheduler/{name}"));
    fs::remove_file(file(&format!("queue/1-{}.batch", jobs.len()))).unwrap();
    for job in 1..=jobs.len() {
        File::create(file(&format!("queue/{job}.job"))).unwrap().set_len(0).unwrap();
        fs::rename(file(&format!("queue/{job}.job")), file(&format!("tmp/{job}.job"))).unwrap();
    }
    body
}

#[test]
fn request_ids_of_a_batch_that_a_power_loss_cut_off_are_free() {
    let root = open_root("");
    let body = cut_off(&root, &["a", "b"]);
    fs::remove_file(root.path("state/scheduler/tmp/2.job")).unwrap();
    let again = root.cgi("POST", "/scheduler/jobs/new", &[], body.as_bytes()).expect(201).json();
    assert_eq!((&again[0]["job"], &again[1]["job"]), (&json!(3), &json!(4)));
    let _poller = root.poller();
    for job in 3..=4 {
        root.reaches(job, "stopped");
    }
    root.check();
}

#[test]
fn what_a_power_loss_left_of_a_batch_is_removed() {
    let root = open_root("");
    cut_off(&root, &["a"]);
    root.cmd("poller", &["--once"]).expect(0);
    assert_eq!(root.tree(), "nodes/localhost.json\n");
    root.check();
}

/// Jobs of one request, of which one cannot be made: where its card is prepared lies a directory.
fn in_the_way(root: &TestRoot, job: u64) -> std::path::PathBuf {
    let path = root.path(&format!("state/scheduler/tmp/{job}.job"));
    fs::create_dir_all(&path).unwrap();
    path
}

#[test]
fn a_card_of_a_batch_that_cannot_be_made_keeps_no_other_from_it() {
    let root = open_root("");
    let three = br#"[{"command": ["true"]}, {"command": ["true"]}, {"command": ["true"]}]"#;
    let queue = |job: u64| root.path(&format!("state/scheduler/queue/{job}.job"));
    root.cmd("scheduler", &["jobs"]).expect(0); // makes the tree
    let second = in_the_way(&root, 2);
    root.cgi("POST", "/scheduler/jobs/new", &[], three).expect(201);
    assert!(queue(1).exists() && queue(3).exists(), "{}", root.tree());
    // It was accepted, and is not gone.
    let second_of = |path: &str| root.cgi("GET", &format!("/scheduler/jobs/2{path}"), &[], b"");
    for path in ["", "/status", "/status?wait=0.1", "/log"] {
        assert!(second_of(path).expect(503).body.contains("job 2 is being recovered"));
    }
    // As if the submitter had died before it made any.
    root.cgi("POST", "/scheduler/jobs/new", &[], three).expect(201);
    root.cgi("POST", "/scheduler/jobs/new", &[], three).expect(201);
    (4..=9).for_each(|job| fs::remove_file(queue(job)).unwrap());
    let fifth = in_the_way(&root, 5);
    let _poller = root.poller();
    for job in [1, 3, 4, 6, 7, 8, 9] {
        root.reaches(job, "stopped");
    }
    for (job, path) in [(2, second), (5, fifth)] {
        assert!(root.read("poller.log").contains(&format!("tmp/{job}.job")));
        root.cmd("scheduler", &["jobs", &job.to_string(), "status"]);
        fs::remove_dir(path).unwrap();
        wait_for(SOON, || {
            let status = root.cmd("scheduler", &["jobs", &job.to_string(), "status"]);
            if status.body.contains("\"good\"") { Ok(()) } else { Err(format!("{status:?}")) }
        });
    }
    until("no batch is left", || !root.tree().contains(".batch"));
    root.check();
}

#[test]
fn a_batch_with_a_damaged_line_is_kept_and_named() {
    let root = open_root("");
    let two = br#"[{"command": ["true"]}, {"command": ["true"]}]"#;
    root.cgi("POST", "/scheduler/jobs/new", &[], two).expect(201);
    let file = |name: &str| format!("state/scheduler/queue/{name}");
    for job in 1..=2 {
        fs::remove_file(root.path(&file(&format!("{job}.job")))).unwrap();
    }
    let whole = root.read(&file("1-2.batch"));
    root.write(&file("1-2.batch"), &whole.replacen("{\"job\":1", "\0\0\0\0\0\0\0\0", 1));
    let _poller = root.poller();
    until("it is made", || root.cmd("scheduler", &["jobs", "2", "status"]).code == 0);
    root.reaches(2, "stopped");
    wait_for(SOON, || {
        let log = root.read("poller.log");
        let said = log.contains("1-2.batch: a line of it is not that of a card");
        if said { Ok(()) } else { Err(log) }
    });
    assert!(root.exists(&file("1-2.batch")));
    root.write(&file("x.batch"), "stray");
    let found = root.cmd("scheduler", &["check"]).expect(1).body;
    for part in ["1-2.batch: 1 of its lines are not those of cards", "x.batch: not a card"] {
        assert!(found.contains(part), "{found}");
    }
    fs::remove_file(root.path(&file("x.batch"))).unwrap();
    root.write(&file("1-2.batch"), &whole);
    until("it is made", || root.cmd("scheduler", &["jobs", "1", "status"]).code == 0);
    root.reaches(1, "stopped");
    until("no batch is left", || !root.tree().contains(".batch"));
    root.check();
}
