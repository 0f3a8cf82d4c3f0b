//! Submissions between two of their system calls: what vanishes from `tmp/` meanwhile, a clean-up whose
//! clock is a day ahead, and recovery that is killed itself.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;
mod faults;

use std::fs::{self, File};
use std::thread;
use std::time::{Duration, SystemTime};

use common::TestRoot;
use common::head::open_root;
use common::{until, wait_for};
use faults::{Act, Ran, names};
use serde_json::{Value, json};

/// Between the last look at what was prepared and its move into the queue.
const SLOWLY: &str = "renameat2:delay_enter=2000000";

fn in_dir(root: &TestRoot, dir: &str, ending: &str) -> Vec<String> {
    let names = names(&root.path(&format!("state/scheduler/{dir}")));
    names.into_iter().filter(|name| name.ends_with(ending)).collect()
}

/// Submits this, and does that while it is about to be published. `claims` is how many request ids it
/// has claimed by then.
fn meanwhile(root: &TestRoot, request: &Value, claims: usize, act: impl FnOnce(&str)) -> Ran {
    let submit = Act::submit(root, request);
    thread::scope(|scope| {
        let slowly = scope.spawn(|| submit.inject(SLOWLY));
        let ending = if request.is_array() { ".batch" } else { ".job" };
        let prepared = wait_for(common::SOON, || {
            let claimed = in_dir(root, "requests", "").len();
            let found = in_dir(root, "tmp", ending);
            let is_ready = claimed == claims && found.len() == 1;
            if is_ready {
                Ok(found[0].clone())
            } else {
                Err(format!("{found:?}, {claimed} claims"))
            }
        });
        act(&prepared);
        slowly.join().unwrap()
    })
}

#[test]
fn a_card_that_vanishes_before_it_is_published_is_no_job() {
    let root = open_root("");
    root.cmd("scheduler", &["jobs"]).expect(0); // makes the tree
    for (request, claims) in [
        (json!({"command": "true", "state": "held"}), 0),
        (json!({"command": "true", "state": "held", "request_id": "mine"}), 1),
    ] {
        let ran = meanwhile(&root, &request, claims, |prepared| {
            fs::remove_file(root.path("state/scheduler/tmp").join(prepared)).unwrap();
        });
        assert_eq!(ran.code, 75, "{ran:?}");
        assert!(ran.stderr.contains("vanished before it was published"), "{ran:?}");
        assert_eq!(root.cmd("scheduler", &["jobs"]).expect(0).body, "");
        assert_eq!(in_dir(&root, "requests", "").len(), 0);
        let again = root.cmd_in("scheduler", &["jobs", "new", "-q"], &request.to_string());
        let job: u64 = again.expect(0).body.trim().parse().unwrap();
        root.cmd("scheduler", &["queue", &job.to_string(), "-X", "DELETE"]).expect(0);
        for claim in in_dir(&root, "requests", "") {
            fs::remove_file(root.path("state/scheduler/requests").join(claim)).unwrap();
        }
        fs::remove_file(root.path(&format!("state/scheduler/done/0/{job}.job"))).unwrap();
    }
    root.check();
}

/// Somebody repeats the request, and publishes what the first one has prepared.
#[test]
fn a_card_that_another_has_published_meanwhile_is_the_job() {
    let root = open_root("");
    root.cmd("scheduler", &["jobs"]).expect(0);
    let request = json!({"command": "true", "state": "held", "request_id": "mine"});
    let ran = meanwhile(&root, &request, 1, |_| {
        let again = root.cmd_in("scheduler", &["jobs", "new", "-q"], &request.to_string());
        assert_eq!(again.expect(0).body, "1\n");
    });
    assert!(ran.acknowledged(), "{ran:?}");
    assert_eq!(ran.json()["job"], 1);
    assert_eq!(root.cmd("scheduler", &["jobs"]).expect(0).body, "1\n");
    root.check();
}

/// What is being prepared seems to be old to a clean-up whose clock has jumped.
#[test]
fn a_batch_that_is_being_submitted_is_no_litter() {
    let root = open_root("");
    root.cmd("poller", &["--once", "-q"]).expect(0);
    let held = |id: &str| json!({"command": "true", "state": "held", "request_id": id});
    let request = json!([held("a"), held("b")]);
    let ran = meanwhile(&root, &request, 2, |prepared| {
        let file = File::open(root.path("state/scheduler/tmp").join(prepared)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(2 * 86_400)).unwrap();
        root.cmd("poller", &["--once", "-q"]).expect(0);
    });
    assert!(ran.acknowledged(), "{ran:?}");
    assert_eq!(root.cmd("scheduler", &["jobs"]).expect(0).body.lines().count(), 2);
    root.cmd("poller", &["--once", "-q"]).expect(0);
    root.check();
}

/// A batch was committed, and a power loss took the cards: whoever restores them may be killed
/// anywhere, and the request is still the same jobs.
#[test]
fn a_recovery_that_is_killed_keeps_the_request_ids() {
    let held = |id: &str| json!({"command": "true", "state": "held", "request_id": id});
    let request = json!([held("a"), held("b")]);
    let broken = || {
        let root = open_root("");
        root.cmd("poller", &["--once", "-q"]).expect(0);
        assert!(Act::submit(&root, &request).run().acknowledged());
        let file = |name: String| root.path("state/scheduler").join(name);
        for job in 1..=2 {
            let (queue, tmp) = (file(format!("queue/{job}.job")), file(format!("tmp/{job}.job")));
            File::options().write(true).open(&queue).unwrap().set_len(0).unwrap();
            fs::rename(queue, tmp).unwrap();
        }
        root
    };
    let round = |root: &TestRoot| Act::cmd(root, "poller", &["--once", "-q"], "");
    let names = ["link", "linkat", "rename", "renameat2", "unlink", "unlinkat"];
    let points = round(&broken()).calls(&names).1;
    assert!(points.len() > 6, "{points:?}");
    for point in points {
        let root = broken();
        round(&root).kill_at(&point);
        root.cmd("poller", &["--once", "-q"]).expect(0);
        let again = Act::submit(&root, &request).run();
        assert!(again.acknowledged(), "{point:?}: {again:?}");
        let jobs: Vec<Value> = again.json().as_array().unwrap().clone();
        let jobs: Vec<&Value> = jobs.iter().map(|job| &job["job"]).collect();
        assert_eq!(jobs, [&json!(1), &json!(2)], "{point:?}");
        root.cmd("poller", &["--once", "-q"]).expect(0);
        until("no batch is left", || in_dir(&root, "queue", ".batch").is_empty());
        root.check();
    }
}
