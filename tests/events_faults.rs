//! The head's change feed when those who write it die, where the disk is full or no watches are to be
//! had, and for another user: whoever reads it, and does as 410 says, knows the board.
//!
//! A small file system is mounted: root and tmpfs are needed.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;
mod faults;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::head::{CONF, open_root};
use common::users::nobodys_root;
use common::{TestRoot, let_pass, until, wait_for};
use faults::{Act, Point};
use serde_json::{Value, json};

/// Longer than readers wait for somebody who does not live any more.
const PATIENCE: Duration = Duration::from_secs(10);

/// Somebody who knows the board by the feed alone, but for where that says that it does not suffice.
struct Reader<'r> {
    root: &'r TestRoot,
    cursor: String,
    known: BTreeMap<u64, String>,
    anew: usize,
}

fn board(root: &TestRoot) -> BTreeMap<u64, String> {
    let list = root.cmd("scheduler", &["jobs", "format=json"]).expect(0).json();
    let entry = |job: &Value| (job["job"].as_u64().unwrap(), job["state"].as_str().unwrap().into());
    list.as_array().unwrap().iter().map(entry).collect()
}

impl<'r> Reader<'r> {
    fn begin(root: &'r TestRoot) -> Reader<'r> {
        let mut reader = Reader { root, cursor: String::new(), known: BTreeMap::new(), anew: 0 };
        reader.begin_anew();
        reader
    }

    fn begin_anew(&mut self) {
        self.anew += 1;
        let page = self.root.cmd("scheduler", &["events"]).expect(0).json();
        self.cursor = page["cursor"].as_str().unwrap().into();
        self.known = board(self.root);
    }

    fn read(&mut self) {
        let answer = self.root.cmd("scheduler", &["events", &format!("since={}", self.cursor)]);
        if answer.code == 1 {
            let gone = answer.stderr.contains("then go on from the present end");
            assert!(gone, "{answer:?}");
            return self.begin_anew();
        }
        let page = answer.expect(0).json();
        self.cursor = page["cursor"].as_str().unwrap().into();
        for event in page["events"].as_array().unwrap() {
            let (job, state) = (event["job"].as_u64().unwrap(), event["state"].as_str().unwrap());
            match event["event"].as_str() {
                Some("removed") => drop(self.known.remove(&job)),
                _ => drop(self.known.insert(job, state.to_string())),
            }
        }
    }

    fn catches_up(&mut self, what: &str) {
        wait_for(PATIENCE, || {
            self.read();
            let is = board(self.root);
            if self.known == is {
                return Ok(());
            }
            let feed = self.root.read("state/scheduler/events");
            Err(format!("{what}: known {:?}, is {is:?}: {feed}", self.known))
        });
    }
}

/// The writes and moves of a program: before each, and so between any two, it is killed.
fn windows(act: &Act) -> Vec<Point> {
    act.calls(&["write", "renameat2"]).1
}

#[test]
fn whoever_dies_while_he_tells_is_found_out() {
    let root = open_root("keep_done = 1d\n");
    root.submit(&json!({"command": "true", "state": "held"}));
    let mut reader = Reader::begin(&root);
    let submit = |_: usize| Act::submit(&root, &json!({"command": "true", "state": "held"}));
    let claimed = |n: usize| {
        let request = json!({"command": "true", "state": "held", "request_id": format!("id-{n}")});
        Act::submit(&root, &request)
    };
    let batch = |_: usize| {
        let one = json!({"command": "true", "state": "held"});
        Act::submit(&root, &json!([one, one, one]))
    };
    let update = |n: usize| {
        let job = root.submit(&json!({"command": "true", "state": "held"})).to_string();
        let what = if n.is_multiple_of(2) { "release=1" } else { "kill=1" };
        Act::cmd(&root, "scheduler", &["jobs", &job, "update", what], "")
    };
    let round = |_: usize| {
        root.submit(&json!({"command": "true", "dir": "/"}));
        Act::cmd(&root, "poller", &["--once", "-q"], "")
    };
    let clean = |_: usize| {
        for _ in 0..2 {
            let job = root.submit(&json!({"command": "true", "state": "held"}));
            root.update(job, "kill=1").expect(0);
            let card = root.path(&format!("state/scheduler/done/0/{job}.job"));
            let old = std::time::SystemTime::now() - Duration::from_secs(9 * 86_400);
            fs::File::open(card).unwrap().set_modified(old).unwrap();
        }
        Act::cmd(&root, "poller", &["--once", "-q"], "")
    };
    let acts: [(&str, &dyn Fn(usize) -> Act); 6] = [
        ("a job", &submit),
        ("a job with an id", &claimed),
        ("several jobs", &batch),
        ("a change", &update),
        ("a round", &round),
        ("a clean-up", &clean),
    ];
    for (what, act) in acts {
        assert!(act(0).run().acknowledged());
        let (points, before) = (windows(&act(1)), reader.anew);
        let mut killed = 0;
        for (n, point) in points.iter().enumerate() {
            killed += usize::from(act(n + 2).kill_at(point).killed);
            reader.catches_up(&format!("{what}, {point:?}"));
        }
        let anew = reader.anew - before;
        println!("{what}: killed at {killed} of {} calls, begun anew {anew} times", points.len());
        assert!(killed > 0 && anew < killed, "most of it is known without");
    }
    until("all is done", || {
        root.cmd("poller", &["--once", "-q"]).expect(0);
        board(&root).values().all(|state| ["held", "stopped"].contains(&state.as_str()))
    });
    reader.catches_up("the end");
    root.check();
}

#[test]
fn whoever_is_stopped_while_he_submits_is_found_out() {
    let root = open_root("");
    root.submit(&json!({"command": "true", "state": "held"}));
    let mut reader = Reader::begin(&root);
    let act = Act::submit(&root, &json!({"command": "true", "state": "held"}));
    thread::scope(|scope| {
        // Longer than readers wait: the card gets its name when they have gone on.
        let slow = scope.spawn(|| act.inject("renameat2:delay_enter=6000000:when=1"));
        until("he has gone on", || {
            reader.read();
            slow.is_finished()
        });
        assert!(slow.join().unwrap().acknowledged());
    });
    assert_eq!(board(&root).len(), 2);
    reader.catches_up("he has gone on");
    assert!(reader.anew > 1, "nobody waits so long");
    root.check();
}

/// The card has its name, and whoever submits it has not told yet, when the feed begins anew, twice.
#[test]
fn a_job_is_submitted_before_anything_else_is_told_of_it() {
    let root = open_root("max_events = 2 KiB\n");
    root.submit(&json!({"command": "true", "state": "held"}));
    let epoch = || root.read("state/scheduler/events").lines().next().unwrap().to_string();
    let first = epoch();
    let act = Act::submit(&root, &json!({"command": "true", "state": "held"}));
    thread::scope(|scope| {
        let slow = scope.spawn(|| act.inject("renameat2:delay_exit=1500000:when=1"));
        until("the card is there", || root.exists("state/scheduler/queue/2.job"));
        for priority in 1..=12 {
            root.update(2, &format!("priority={priority}")).expect(0);
        }
        assert!(!slow.is_finished(), "all of that has come in between");
        assert!(slow.join().unwrap().acknowledged());
    });
    let header = epoch();
    assert_ne!(header, first);
    let of = serde_json::from_str::<serde_json::Value>(&header).unwrap();
    let cursor = format!("{}.{}", of["epoch"].as_str().unwrap(), header.len() + 1);
    let path = format!("/scheduler/events?since={cursor}");
    let page = root.cgi("GET", &path, &[], b"").expect(200).json();
    let told = page["events"].as_array().unwrap().iter().filter(|event| event["job"] == 2);
    let told: Vec<&str> = told.map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(told[0], "submitted", "{page}");
    assert!(told.len() > 1 && told[1..].iter().all(|event| *event == "priority"), "{page}");
    root.check();
}

/// Whoever has the board's lock is stopped, and there is no feed.
#[test]
fn no_submission_waits_for_the_feed() {
    let root = open_root("");
    let held = json!({"command": "true", "state": "held"});
    root.submit(&held);
    let mut reader = Reader::begin(&root);
    let lock = fs::File::open(root.path("state/scheduler/lock")).unwrap();
    fs2::FileExt::lock_exclusive(&lock).unwrap();
    fs::remove_file(root.path("state/scheduler/events")).unwrap();
    let begun = Instant::now();
    root.submit(&held);
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    drop(lock);
    reader.catches_up("the lock is let go");
    root.check();
}

/// A root whose state lies on a small file system.
struct Small(TestRoot);

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path("state")).status();
    }
}

#[test]
fn a_full_disk_takes_the_feed_and_keeps_no_change() {
    let small = Small(TestRoot::new(CONF));
    let root = &small.0;
    let state = root.path("state");
    fs::create_dir_all(&state).unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=1m,mode=0750", "corkboard-test"]).arg(&state);
    assert!(mount.status().unwrap().success(), "cannot mount a tmpfs: root is needed");
    root.open();
    let job = root.submit(&json!({"command": "true", "state": "held"}));
    let mut reader = Reader::begin(root);
    let filler = state.join("filler");
    let _ = fs::write(&filler, vec![b'x'; 2 << 20]); // as much as there is room for
    let mut held = true;
    until("there is no room for the feed", || {
        // There is for a line on the card, whose last block has room.
        root.update(job, if held { "release=1" } else { "hold=1" }).expect(0);
        held = !held;
        !root.exists("state/scheduler/events")
    });
    let cursor = format!("since={}", reader.cursor);
    let gone = root.cgi("GET", &format!("/scheduler/events?{cursor}"), &[], b"");
    gone.expect(410);
    // Its own block may do for the first line of another.
    let another = root.cgi("GET", "/scheduler/events", &[], b"");
    assert!([200, 503].contains(&another.code), "{another:?}");
    root.update(job, if held { "release=1" } else { "hold=1" }).expect(0);
    let state = if held { "queued" } else { "held" };
    assert_eq!(root.status(job)["state"], state, "{:?}", root.story(job));
    fs::remove_file(&filler).unwrap();
    reader.catches_up("there is room again");
    assert_eq!(reader.known[&job], state);
    root.update(job, "kill=1").expect(0);
    let before = reader.anew;
    reader.catches_up("as ever");
    assert_eq!(reader.anew, before);
    root.check();
}

#[test]
fn another_user_reads_the_feed_and_leaves_it() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root can try what another user does");
        return;
    }
    let mut root = nobodys_root(CONF);
    let held = json!({"command": "true", "dir": "/", "state": "held"});
    let job = root.submit(&held);
    let path = root.path("state/scheduler/events");
    let owner = root.user.take();
    let page = root.cmd("scheduler", &["events"]).expect(0).json();
    let since = format!("since={}", page["cursor"].as_str().unwrap());
    root.user = owner;
    let other = root.submit(&held);
    root.update(job, "release=1").expect(0);
    root.user = None;
    let told = root.cmd("scheduler", &["events", &since, "wait=5"]).expect(0).json();
    let told: Vec<(u64, &str)> = told["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| (event["job"].as_u64().unwrap(), event["event"].as_str().unwrap()))
        .collect();
    assert_eq!(told, [(other, "submitted"), (job, "released")]);
    let stream = root.cmd("scheduler", &["events", &since, "format=event-stream", "wait=0.2"]);
    assert_eq!(stream.expect(0).body.matches("data: ").count(), 2);
    // What is the owner's to make is not made by others.
    fs::remove_file(&path).unwrap();
    root.cmd("scheduler", &["events", &since]).expect(1);
    root.cmd("scheduler", &["events"]).expect(75);
    assert!(!path.exists());
    root.user = owner;
    root.cmd("scheduler", &["events"]).expect(0);
    assert!(path.exists());
    root.check();
}

/// A wait for something that the kernel wakes nobody for: no inotify instance is to be had.
fn without_inotify(root: &TestRoot) -> TestRoot {
    let script = "echo 0 > /proc/sys/user/max_inotify_instances && exec \"$0\" \"$@\"";
    let wrap = ["unshare", "--user", "--map-root-user", "sh", "-c", script];
    TestRoot {
        dir: root.dir.clone(),
        env: root.env.clone(),
        user: root.user,
        wrap: wrap.map(String::from).to_vec(),
    }
}

#[test]
fn without_inotify_nobody_waits_a_second_longer() {
    let root = TestRoot::new("cores = 2\nmemory = 4 GiB\nscan_every = 600s\n");
    root.open();
    let deaf = std::mem::ManuallyDrop::new(without_inotify(&root)); // the root is removed once
    let poller = root.poller_without_inotify();
    until("it says so", || root.read("poller.log").contains("no inotify watches are to be had"));
    let mut longest = [Duration::ZERO; 2];
    for _ in 0..5 {
        let_pass(Duration::from_millis(200)); // nothing happens: it looks least often by now
        let go = root.path("go");
        let wait = format!("until [ -e {} ]; do sleep 0.01; done", go.display());
        let submitted = Instant::now();
        let job = root.submit(&json!({"command": wait, "dir": "/"}));
        root.reaches(job, "running");
        longest[0] = longest[0].max(submitted.elapsed());
        let number = job.to_string();
        let took = std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                let status =
                    deaf.cmd("scheduler", &["jobs", &number, "status", "wait=30"]).expect(0);
                (status.json(), Instant::now())
            });
            let_pass(Duration::from_millis(400)); // nothing happens: it waits by then, at its slowest
            assert!(!waiter.is_finished());
            File::create(&go).unwrap().write_all(b"go").unwrap();
            let begun = Instant::now();
            let (status, at) = waiter.join().unwrap();
            assert_eq!(status["state"], "stopped", "{status}");
            at.saturating_duration_since(begun)
        });
        longest[1] = longest[1].max(took);
        fs::remove_file(&go).unwrap();
    }
    println!("submitted to running: {:?}; ended to told: {:?}", longest[0], longest[1]);
    assert!(longest.iter().all(|longest| *longest < Duration::from_secs(1)), "{longest:?}");
    drop(poller);
    root.check();
}
