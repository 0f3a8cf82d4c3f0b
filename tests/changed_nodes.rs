//! Nodes that change under the jobs that they have, or that wait for them: what runs goes on, and what comes
//! next goes by what there is then.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::time::Duration;

use common::head::{both_ways, host, node_reaches, register};
use common::node::{self, assert_clean};
use common::{SOON, TestRoot, let_pass, until, wait_for};
use serde_json::{Value, json};

const FOUR: &str = "cores = 4\nmemory = 4 GiB\ncountables = licenses=4\nscan_every = 0.1s\n";

const TWO: &str = "cores = 2\nmemory = 1 GiB\ncountables = licenses=1\nscan_every = 0.1s\n";

/// In which nothing comes that should not: a poller would have placed it, and a supervisor started it, by then.
const A_WHILE: Duration = Duration::from_millis(400);

/// Has changes of nodes heard of soon.
fn soon(root: &TestRoot) {
    let conf = root.read("corkboard.conf");
    root.write("corkboard.conf", &conf.replace("scan_every = 1s", "scan_every = 0.1s"));
}

/// Runs until it is let go.
fn held(root: &TestRoot, name: &str) -> String {
    format!("until [ -e {} ]; do sleep 0.02; done", root.path(name).display())
}

fn shown(root: &TestRoot, name: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    wait_for(2 * SOON, || {
        let node = root.cmd("scheduler", &["nodes", name]).expect(0).json();
        if is_so(&node) { Ok(node) } else { Err(node.to_string()) }
    })
}

#[test]
fn a_node_that_shrinks_kills_nothing_and_takes_no_more_until_that_fits() {
    both_ways("", |root, door| {
        let (other, httpd, token) = host("");
        other.write("corkboard.conf", FOUR);
        let _there = other.poller();
        register(root, &json!({"name": "far", "uri": httpd.url(), "token": token}));
        soon(root);
        let _here = root.poller();
        node_reaches(root, "far", "connected");
        let request = |name: &str, licenses: u64| {
            json!({"command": held(root, name), "dir": "/", "node": "far",
            "requested_resources": {"memory": "512 MiB", "licenses": licenses}})
        };
        let names = ["a", "b", "c", "d"];
        let jobs = names.map(|name| door.submit(&request(name, 1)));
        jobs.iter().for_each(|job| drop(root.reaches(*job, "running")));
        let next = door.submit(&request("next", 1));
        root.reason(next, "waiting for room on far");

        other.write("corkboard.conf", TWO);
        let node = shown(root, "far", |node| node["resources"]["cores"] == 2);
        let four = json!({"cores": 4, "memory": 2u64 << 30, "licenses": 4});
        assert_eq!((&node["allocated"], &node["free"]), (&four, &json!({"cores": 0, "memory": 0})));
        let info = other.cmd("processor", &["info"]).expect(0).json();
        assert_eq!(
            (&info["running"], &info["free"]),
            (&json!(4), &json!({"cores": 0, "memory": 0}))
        );
        let large = door.submit(
            &json!({"command": ["true"], "node": "far", "requested_resources": {"cores": 3}}),
        );
        root.reason(large, "no node has 3 cores");
        for (done, name) in names.iter().enumerate().take(3) {
            let_pass(A_WHILE);
            for job in &jobs[done..] {
                assert_eq!(root.status(*job)["state"], "running", "{done} have ended");
            }
            assert_eq!(root.status(next)["state"], "queued", "{done} have ended");
            root.write(name, "");
            assert_eq!(root.reaches(jobs[done], "stopped")["status"], "good");
        }
        // One license is there, and the last of the four has it.
        let_pass(A_WHILE);
        assert_eq!(root.status(next)["state"], "queued");
        let told = door.get(&format!("/scheduler/jobs/{next}/explain")).expect(200).json();
        let far = told["nodes"].as_array().unwrap().iter().find(|node| node["name"] == "far");
        assert_eq!(far.unwrap()["objection"], "short of 1 licenses", "{told}");
        root.write("d", "");
        assert_eq!(root.reaches(jobs[3], "stopped")["status"], "good");
        root.reaches(next, "running");
        let node = shown(root, "far", |node| node["free"]["cores"] == 1);
        assert_eq!(node["allocated"], json!({"cores": 1, "memory": 512u64 << 20, "licenses": 1}));
        root.write("next", "");
        assert_eq!(root.reaches(next, "stopped")["status"], "good");

        // It grows again.
        other.write("corkboard.conf", FOUR);
        assert_eq!(door.ended(large)["status"], "good");
        root.check();
        other.check();
    });
}

#[test]
fn what_waits_on_a_node_that_has_shrunk_goes_by_what_there_is_now() {
    let root = TestRoot::new(FOUR);
    let give = |name: &str| {
        let request = json!({"command": held(&root, name), "dir": "/", "request_id": name});
        node::submit(&root, request);
    };
    let runs = |name: &str| root.node_status(name)["state"] == "running";
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    names.iter().for_each(|name| give(name));
    until("four run", || names[..4].iter().all(|name| runs(name)));
    root.write("corkboard.conf", TWO);
    for (place, name) in names.iter().enumerate() {
        let_pass(A_WHILE);
        let running: Vec<&&str> = names.iter().filter(|name| runs(name)).collect();
        assert!(
            running.len() <= 4usize.saturating_sub(place).max(2),
            "{place} have ended: {running:?}"
        );
        until("its turn has come", || runs(name));
        root.write(name, "");
        assert_eq!(root.ended(name)["status"], "good");
    }
    until("all are told", || root.supervisors().is_empty());
    assert_clean(&root);
}

#[test]
fn a_node_that_is_drained_ends_what_it_has_and_nothing_else() {
    both_ways("", |root, door| {
        let (other, httpd, token) = host("");
        let _there = other.poller();
        register(root, &json!({"name": "far", "uri": httpd.url(), "token": token}));
        soon(root);
        let _here = root.poller();
        node_reaches(root, "far", "connected");
        let runs = door.submit(&json!({"command": held(root, "go"), "dir": "/", "node": "far"}));
        let retried = door
            .submit(&json!({"command": format!("{}; false", held(root, "go")), "dir": "/",
            "max_retry_count": 1, "node": ["far", "localhost"], "priority": 5}));
        root.reaches(runs, "running");
        let first = root.reaches(retried, "running")["node"].clone();
        let update = |query: &str| {
            door.post(&format!("/scheduler/nodes/far/update?{query}"), &Value::Null).expect(200)
        };
        update("drain=1");
        let waits = door.submit(&json!({"command": ["true"], "node": "far"}));
        root.reason(waits, "take no new jobs (drain): far");
        let_pass(A_WHILE);
        assert_eq!(root.status(runs)["state"], "running");
        assert_eq!(shown(root, "far", |_| true)["duty"], "drained");
        // It may be removed once it is empty, and not before.
        let remove = door.post("/scheduler/nodes/far/remove", &Value::Null).expect(409).json();
        assert!(remove["error"].as_str().unwrap().contains("drain"), "{remove}");
        root.write("go", "");
        assert_eq!(door.ended(runs)["status"], "good");
        let end = door.ended(retried);
        assert_eq!((&end["attempt"], &end["code"]), (&json!(2), &json!(1)), "{end}");
        assert_eq!(end["node"], "localhost", "it was first on {first}");
        assert_eq!(root.status(waits)["state"], "queued");
        update("drain=0");
        assert_eq!(door.ended(waits)["node"], "far");
        root.check();
        other.check();
    });
}

#[test]
fn labels_that_change_under_a_job_that_waits() {
    both_ways("labels = disk=hdd\n", |root, door| {
        soon(root);
        let _poller = root.poller();
        node_reaches(root, "localhost", "connected");
        let conf = root.read("corkboard.conf");
        let request = |disk: &str, command: &str| json!({"command": command, "dir": "/", "constraints": {"disk": disk}});
        let runs = door.submit(&request("hdd", &held(root, "go")));
        root.reaches(runs, "running");
        let waits = door.submit(&request("ssd", "true"));
        root.reason(waits, "no node has 1 core, label disk = ssd");
        root.write("corkboard.conf", &conf.replace("hdd", "ssd"));
        assert_eq!(door.ended(waits)["status"], "good");
        // What runs there goes on, and what else asked for what is gone has to wait for it.
        assert_eq!(root.status(runs)["state"], "running");
        let later = door.submit(&request("hdd", "true"));
        root.reason(later, "no node has 1 core, label disk = hdd");
        root.write("corkboard.conf", &conf);
        assert_eq!(door.ended(later)["status"], "good");
        root.write("go", "");
        assert_eq!(door.ended(runs)["status"], "good");
        root.check();
    });
}
