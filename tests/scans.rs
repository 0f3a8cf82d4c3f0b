//! Scans are the truth: what happens to cards is seen without wake-ups, or when they go astray.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs;
use std::io::Write;
use std::time::{Duration, SystemTime};

use common::head::{Poller, open_root};
use common::{TestRoot, let_pass, until};
use serde_json::json;

const ALL: u64 = 2;

/// A job that has all cores until `go` is there, and those that wait for it.
fn wait_for_room(root: &TestRoot) -> (u64, Vec<u64>) {
    let all = json!({"cores": ALL});
    let occupant = root.submit(&json!({"command": ["sleep", "1000"], "requested_resources": all}));
    root.reaches(occupant, "running");
    let waiting = (0..3).map(|_| {
        let note = format!("echo $CORKBOARD_JOB >> {}", root.path("ran").display());
        root.submit(&json!({"command": note, "requested_resources": all}))
    });
    (occupant, waiting.collect())
}

fn changes_in_place_are_seen(root: &TestRoot, poller: Poller) {
    let (occupant, waiting) = wait_for_room(root);
    let held = root.submit(&json!({"command": ["true"], "state": "held"}));
    let spare = root.submit(
        &json!({"command": ["true"], "state": "held", "requested_resources": {"cores": ALL}}),
    );
    until("the queue's time tells nothing more", || {
        let queue = fs::metadata(root.path("state/scheduler/queue")).unwrap();
        queue.modified().unwrap().elapsed().unwrap().as_secs() >= 5
    });
    // A card that stays in its directory leaves no trace there.
    root.update(waiting[0], "hold=1").expect(0);
    root.update(waiting[2], "priority=5").expect(0);
    root.update(held, "release=1").expect(0);
    root.update(held, "priority=9").expect(0);
    root.update(occupant, "kill=1").expect(0);
    assert_eq!(root.reaches(occupant, "stopped")["cause"], "killed");
    assert_eq!(root.reaches(held, "stopped")["status"], "good");
    for job in &waiting[1..] {
        root.reaches(*job, "stopped");
    }
    assert_eq!(root.read("ran"), format!("{}\n{}\n", waiting[2], waiting[1]), "by priority");
    assert_eq!(root.status(waiting[0])["state"], "held");
    root.update(waiting[0], "release=1").expect(0);
    root.reaches(waiting[0], "stopped");
    root.update(spare, "kill=1").expect(0);
    drop(poller);
    root.check();
}

#[test]
fn without_inotify_changes_in_place_are_seen() {
    let root = open_root("");
    let poller = root.poller_without_inotify();
    until("it says so", || root.read("poller.log").contains("no inotify watches are to be had"));
    changes_in_place_are_seen(&root, poller);
}

#[test]
fn changes_are_seen_in_directories_that_took_the_place_of_others() {
    let root = open_root("");
    let poller = root.poller();
    for column in ["queue", "running", "nodes"] {
        let (is, was) = (root.path(&format!("state/scheduler/{column}")), root.path(column));
        fs::rename(&is, &was).unwrap();
        fs::create_dir(&is).unwrap();
        for entry in fs::read_dir(&was).unwrap() {
            let entry = entry.unwrap();
            fs::rename(entry.path(), is.join(entry.file_name())).unwrap();
        }
    }
    changes_in_place_are_seen(&root, poller);
}

#[test]
fn a_wait_that_a_clock_ahead_wrote_down_is_over() {
    let root = open_root("");
    let job = root.submit(&json!({"command": ["true"], "max_retry_count": 1, "retry_delay": "1m"}));
    let array = root.submit(&json!({"command": ["true"], "array": "0-1", "max_retry_count": 1}));
    let ahead = SystemTime::now() + Duration::from_secs(365 * 86_400);
    let at = corkboard::clock::rfc3339(ahead);
    let until = corkboard::clock::rfc3339(ahead + Duration::from_secs(60));
    for (job, tasks) in [(job, ""), (array, ",\"tasks\":\"0-1\"")] {
        let path = root.path(&format!("state/scheduler/queue/{job}.job"));
        let mut card = fs::OpenOptions::new().append(true).open(path).unwrap();
        let placed = format!(
            "{{\"at\":\"{at}\",\"event\":\"placed\",\"attempt\":1,\"node\":\"localhost\",\"nodejob\":\"c-{job}.1\",\"driver\":\"local\"{tasks}}}"
        );
        let refused = format!(
            "{{\"at\":\"{at}\",\"event\":\"refused\",\"attempt\":1,\"reason\":\"full\",\"not_before\":\"{until}\"}}"
        );
        writeln!(card, "\n{placed}\n\n{refused}").unwrap();
    }
    let _poller = root.poller();
    assert_eq!(root.reaches(job, "stopped")["status"], "good");
    assert_eq!(root.reaches(array, "stopped")["status"], "good");
    root.check();
}

/// What the poller took out to be placed it considers again, though nothing has changed on the card.
#[test]
fn tasks_that_could_not_be_placed_are_once_the_board_can_be_changed_again() {
    let conf = |cores: u32| format!("cores = {cores}\nmemory = 4 GiB\nscan_every = 0.2\n");
    let root = TestRoot::new(&conf(2));
    root.open();
    let _poller = root.poller();
    let wait = format!("until [ -e {} ]; do sleep 0.05; done", root.path("go").display());
    let command = format!("[ $CORKBOARD_TASK -gt 1 ] || {wait}");
    let job = root.submit(&json!({"command": command, "array": "0-3"}));
    let tasks = |which: &str| root.status(job)["tasks"][which].as_u64().unwrap();
    until("two run", || tasks("running") == 2);
    let (lock, aside) = (root.path("state/scheduler/lock"), root.path("aside"));
    fs::rename(&lock, &aside).unwrap();
    fs::create_dir(&lock).unwrap();
    root.write("corkboard.conf", &conf(4));
    until("there would be room", || root.read("poller.log").contains("gives 4 cores"));
    assert!(root.read("poller.log").contains("scheduler/lock"));
    let_pass(Duration::from_millis(500)); // it is tried to place them, in vain: nothing more is said
    fs::remove_dir(&lock).unwrap();
    fs::rename(&aside, &lock).unwrap();
    until("the others have run", || tasks("good") == 2);
    root.write("go", "");
    assert_eq!(root.reaches(job, "stopped")["status"], "good");
    root.check();
}
