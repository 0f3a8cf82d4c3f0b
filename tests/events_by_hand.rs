//! What somebody does to the head's change feed by hand: whoever follows it goes on, and no wait is a
//! wait for nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::head::{Poller, both_ways, open_root};
use common::{SOON, TestRoot, until};
use serde_json::{Value, json};

const FEED: &str = "state/scheduler/events";

/// Its poller finds by looking alone what it finds after minutes.
fn followed(more: &str) -> (TestRoot, Poller) {
    let root = TestRoot::new(&format!("cores = 2\nmemory = 4 GiB\nscan_every = 600s\n{more}"));
    root.open();
    let poller = root.poller();
    root.submit(&json!({"command": "true", "dir": "/", "state": "held"}));
    (root, poller)
}

/// A job of now runs at once, and whoever waits for it is told.
fn is_followed(root: &TestRoot, what: &str) {
    let begun = Instant::now();
    let job = root.submit(&json!({"command": "true", "dir": "/"})).to_string();
    let status = root.cgi("GET", &format!("/scheduler/jobs/{job}/status?wait=20"), &[], b"");
    let status = status.expect(200).json();
    assert_eq!(status["state"], "stopped", "{what}: {status}, {}", root.read(FEED));
    assert!(begun.elapsed() < Duration::from_secs(10), "{what}: {:?}", begun.elapsed());
}

fn change(root: &TestRoot, times: usize) {
    for priority in 1..=times {
        root.update(1, &format!("priority={priority}")).expect(0);
    }
}

#[test]
fn a_feed_that_is_cut_short_is_followed() {
    let (root, _poller) = followed("");
    is_followed(&root, "as ever");
    for whole in [true, false] {
        change(&root, 40);
        let header = root.read(FEED).lines().next().unwrap().len() as u64 + 1;
        let file = File::options().write(true).open(root.path(FEED)).unwrap();
        file.set_len(if whole { header } else { 0 }).unwrap();
        is_followed(&root, &format!("cut, with its header: {whole}"));
    }
    root.check();
}

/// As a backup by `cp -al` has it: the old file has a name still when another has come in its place.
#[test]
fn a_feed_that_has_another_name_is_left_for_the_new_one() {
    let (root, _poller) = followed("max_events = 4 KiB\n");
    is_followed(&root, "as ever");
    fs::hard_link(root.path(FEED), root.path("copy")).unwrap();
    let before = root.read("copy");
    change(&root, 40);
    assert_ne!(root.read(FEED).lines().next(), before.lines().next(), "another epoch");
    is_followed(&root, "begun anew");
    fs::rename(root.path(FEED), root.path("moved")).unwrap();
    is_followed(&root, "moved away");
    root.check();
}

#[test]
fn what_lies_in_the_place_of_the_feed_costs_nobody_his_time() {
    let root = open_root("");
    let _poller = root.poller();
    let feed = root.path(FEED);
    let held = root.submit(&json!({"command": "true", "dir": "/", "state": "held"}));
    type Put<'a> = &'a dyn Fn();
    let puts: [(&str, Put); 4] = [
        ("a directory", &|| {
            fs::create_dir(&feed).unwrap();
            fs::write(feed.join("file"), "").unwrap();
        }),
        ("an empty directory", &|| fs::create_dir(&feed).unwrap()),
        ("a pipe", &|| assert!(Command::new("mkfifo").arg(&feed).status().unwrap().success())),
        ("a socket", &|| drop(UnixListener::bind(&feed).unwrap())),
    ];
    for (what, put) in puts {
        let _ = fs::remove_file(&feed);
        put();
        let mut command = root.base("scheduler");
        command.args(["jobs", &held.to_string(), "status", "wait=2"]).stdout(Stdio::null());
        let mut waiter = command.spawn().unwrap();
        let stat = format!("/proc/{}/stat", waiter.id());
        let (mut ticks, begun) = (0, Instant::now());
        while waiter.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < SOON, "{what}: a wait of 2 s does not end");
            let stat = fs::read_to_string(&stat).unwrap_or_default();
            let fields: Vec<&str> = stat.split_whitespace().collect();
            // Time as user and in the kernel, in hundredths of a second. Gone once it has ended.
            let now = |at: usize| fields.get(at).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
            ticks = ticks.max(now(13) + now(14));
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(ticks < 60, "{what}: a wait of 2 s took {ticks}/100 s of a processor");
        let job = root.submit(&json!({"command": "true", "dir": "/"}));
        root.reaches(job, "stopped");
        root.update(held, "priority=7").expect(0);
        root.update(held, "priority=8").expect(0);
        if what == "a directory" {
            assert!(feed.join("file").exists());
            let found = root.cmd("scheduler", &["check"]).expect(1);
            let is_named =
                |text: &str| text.contains(&format!("{}: no plain file", feed.display()));
            assert!(is_named(&found.body) || is_named(&found.stderr), "{found:?}");
            fs::remove_dir_all(&feed).unwrap();
        } else {
            until("there is a feed again", || fs::metadata(&feed).is_ok_and(|meta| meta.is_file()));
        }
        let log = root.read("poller.log");
        assert!(log.matches("not a plain file").count() < 3, "{what}: {log}");
    }
    root.check();
}

/// Whoever has told all that he did is waited for by nobody, however much that is.
#[test]
fn what_is_told_by_now_is_read_however_much_it_is() {
    both_ways("", |root, door| {
        let job = door.submit(&json!({"command": "true", "state": "held"}));
        let begin = door.get("/scheduler/events").expect(200).json()["cursor"].clone();
        // The first mark comes before, by itself.
        let line = |n: usize| {
            let what = json!({"job": job, "state": "held", "at": "t", "event": "priority", "n": n});
            format!("{what}\n")
        };
        let lines: String = (0..6000).map(line).collect();
        let mut feed = File::options().append(true).open(root.path(FEED)).unwrap();
        feed.write_all(b"\n{\"open\":\"1-x-0\"}\n").unwrap();
        feed.write_all(format!("\n{lines}{{\"close\":\"1-x-0\"}}\n").as_bytes()).unwrap();
        let asked = Instant::now();
        let cursor = begin.as_str().unwrap();
        let page = door.get(&format!("/scheduler/events?since={cursor}&wait=20")).expect(200);
        assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
        let page: Value = page.json();
        assert_eq!(page["events"].as_array().unwrap().len(), 6000);
        root.check();
    });
}
