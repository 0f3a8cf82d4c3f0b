//! Users take turns by what they have had, and have no more at a time than they may.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use common::head::{Door, both_ways, open_root};
use common::rights::{ask, submit, token};
use common::{SOON, TestRoot, until, wait_for};
use serde_json::{Value, json};

/// Jobs of a root that are in this state, oldest first.
fn in_state(root: &TestRoot, state: &str) -> Vec<u64> {
    let listed = root.cmd("scheduler", &["jobs", &format!("state={state}")]).expect(0).body;
    let mut all: Vec<u64> = listed.lines().map(|line| line.parse().unwrap()).collect();
    all.sort_unstable();
    all
}

fn waits_for(root: &TestRoot, file: &str) -> Value {
    let script = format!("until [ -e {} ]; do sleep 0.02; done", root.path(file).display());
    json!({"command": script})
}

#[test]
fn who_has_had_least_is_next() {
    let root = open_root("linger = 0\n");
    let (ada, ben) =
        (token(&root, &["role=user", "user=ada"]), token(&root, &["role=user", "user=ben"]));
    // Two cores: ada comes first with many, and ben's only job is placed with her first.
    let own: Vec<u64> = (0..4).map(|_| submit(&root, &ada, &waits_for(&root, "go"))).collect();
    let other = submit(&root, &ben, &waits_for(&root, "go"));
    let poller = root.poller();
    root.reaches(own[0], "running");
    root.reaches(other, "running");
    assert_eq!(in_state(&root, "queued"), own[1..]);
    root.write("go", "");
    for job in own.iter().chain([&other]) {
        root.reaches(*job, "stopped");
    }
    assert!(poller.end("TERM").success());
    // What they have had is written down, for people and for the next poller.
    let shares: Value = serde_json::from_str(&root.read("state/scheduler/shares")).unwrap();
    let had = |user: &str| shares["had"][user].as_f64().unwrap_or_else(|| panic!("{shares}"));
    assert!(had("ada") > 0.0 && had("ben") > 0.0, "{shares}");

    // Somebody who has had much yields.
    let mut much = shares.clone();
    much["had"]["ada"] = json!(100_000.0);
    root.write("state/scheduler/shares", &much.to_string());
    std::fs::remove_file(root.path("go")).unwrap();
    let own: Vec<u64> = (0..3).map(|_| submit(&root, &ada, &waits_for(&root, "go"))).collect();
    let others: Vec<u64> = (0..2).map(|_| submit(&root, &ben, &waits_for(&root, "go"))).collect();
    let _poller = root.poller();
    others.iter().for_each(|job| _ = root.reaches(*job, "running"));
    assert_eq!(in_state(&root, "queued"), own);
    root.write("go", "");
    own.iter().for_each(|job| _ = root.reaches(*job, "stopped"));
    root.check();
}

#[test]
fn what_cannot_be_read_begins_anew() {
    let root = open_root("");
    root.submit(&json!({"command": ["true"], "state": "held"}));
    for odd in ["", "{", "[]", "{\"had\": {\"ada\": -1e300}}"] {
        root.write("state/scheduler/shares", odd);
        let _poller = root.poller();
        let job = root.submit(&json!({"command": ["true"]}));
        assert_eq!(root.reaches(job, "stopped")["status"], "good", "{odd}");
    }
    root.check();
}

#[test]
fn what_a_job_had_is_counted_to_its_end() {
    let root = open_root("linger = 0\n");
    let ada = token(&root, &["role=user", "user=ada"]);
    let poller = root.poller();
    let job = submit(&root, &ada, &json!({"command": "sleep 2"}));
    assert_eq!(root.reaches(job, "stopped")["status"], "good");
    assert!(poller.end("TERM").success());
    let shares: Value = serde_json::from_str(&root.read("state/scheduler/shares")).unwrap();
    let had = shares["had"]["ada"].as_f64().unwrap_or_else(|| panic!("{shares}"));
    assert!((1.8..20.0).contains(&had), "{shares}");
}

/// What is told of a job that waits.
fn reason(door: &Door, token: &str, job: u64) -> String {
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str())];
    let path = format!("/scheduler/jobs/{job}/status");
    let status = door.send("GET", &path, &headers, "").expect(200).json();
    status["reason"].as_str().unwrap_or_default().to_string()
}

#[test]
fn a_user_has_no_more_than_they_may() {
    both_ways("max_cores_per_user = 3\nmax_jobs_per_user = 2\n", |root, door| {
        root.write(
            "corkboard.conf",
            &root.read("corkboard.conf").replace("cores = 2", "cores = 8"),
        );
        let ada = token(root, &["role=user", "user=ada"]);
        let ben = token(root, &["role=user", "user=ben"]);
        let _poller = root.poller();
        let wide = |cores: u64| {
            let mut request = waits_for(root, "go");
            request["requested_resources"] = json!({"cores": cores});
            request
        };
        let first = submit(root, &ada, &wide(2));
        root.reaches(first, "running");
        let second = submit(root, &ada, &wide(2));
        wait_for(SOON, || match reason(door, &ada, second) {
            why if why == "the user has 2 of at most 3 cores" => Ok(()),
            why => Err(why),
        });
        let third = submit(root, &ada, &wide(1));
        root.reaches(third, "running");
        let fourth = submit(root, &ada, &wide(1));
        wait_for(SOON, || match reason(door, &ada, fourth) {
            why if why == "the user is at the cap of 2 jobs at a time" => Ok(()),
            why => Err(why),
        });
        // What none of theirs may ever have is refused to who asks for that.
        let mut strict = wide(4);
        strict["strict"] = json!(true);
        let refused = ask(root, &ada, "POST", "/scheduler/jobs/new", &strict).expect(400).json();
        let why = "a user may have 3 cores at most at a time, and the request is strict";
        assert_eq!(refused["error"], why);
        // That is not others' affair.
        let other = submit(root, &ben, &wide(3));
        root.reaches(other, "running");
        let explained =
            root.cmd("scheduler", &["jobs", &fourth.to_string(), "explain"]).expect(0).json();
        assert_eq!(
            explained["nodes"][0]["objection"],
            "the user is at the cap of 2 jobs at a time"
        );
        root.write("go", "");
        for job in [first, second, third, fourth, other] {
            until("it has ended", || root.status(job)["state"] == "stopped");
        }
        root.check();
    });
}
