//! Why a job has to wait, node by node: what is told is what is so, and what is not known is told as that.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs;

use common::head::{both_ways, node_reaches};
use serde_json::{Value, json};

/// What is told of the only node: whether it could have it now, or ever, and what speaks against it.
fn told(explained: &Value) -> (&Value, &Value, &Value) {
    let node = &explained["nodes"][0];
    assert_eq!(node["name"], "localhost", "{explained}");
    (&node["now"], &node["ever"], &node["objection"])
}

#[test]
fn a_job_that_waits_for_something_else_is_not_about_to_be_placed() {
    both_ways("", |root, door| {
        let _poller = root.poller();
        node_reaches(root, "localhost", "connected");
        let explain =
            |job: u64| door.get(&format!("/scheduler/jobs/{job}/explain")).expect(200).json();
        let of_list = |job: u64| {
            let path = format!("/scheduler/nodes/list?job={job}");
            let list = door.get(&path).expect(200).json();
            (list["nodes"][0]["now"].clone(), list["nodes"][0]["objection"].clone())
        };
        let held = door.submit(&json!({"command": ["true"], "state": "held"}));
        let why = explain(held)["reason"].clone();
        assert!(why.as_str().unwrap().starts_with("held by "), "{why}");
        assert_eq!(told(&explain(held)), (&json!(false), &json!(true), &why));
        assert_eq!(of_list(held), (json!(false), why));

        let later =
            door.submit(&json!({"command": ["false"], "max_retry_count": 1, "retry_delay": 600}));
        let why = root.reason(later, "waiting until ")["reason"].clone();
        assert_eq!(told(&explain(later)), (&json!(false), &json!(true), &why));

        let go = format!("until [ -e {} ]; do sleep 0.02; done", root.path("go").display());
        let array = door.submit(&json!({"command": go, "array": "0-3%1"}));
        root.reaches(array, "running");
        let why = json!("at most 1 of its tasks may run at a time");
        assert_eq!(told(&explain(array)), (&json!(false), &json!(true), &why));
        root.write("go", "");
        assert_eq!(door.ended(array)["status"], "good");
        door.post(&format!("/scheduler/jobs/{held}/update?release=1"), &Value::Null).expect(200);
        door.ended(held);
        door.post(&format!("/scheduler/jobs/{later}/update?kill=1"), &Value::Null).expect(200);
        door.ended(later);
        root.check();
    });
}

#[test]
fn what_takes_too_long_to_find_out_is_told_as_not_known() {
    both_ways("", |root, door| {
        let poller = root.poller();
        node_reaches(root, "localhost", "connected");
        let long = root.submit(&json!({"command": "sleep 1000", "dir": "/"}));
        root.reaches(long, "running");
        poller.end("TERM");
        let waits = root.submit(&json!({"command": ["true"]}));
        let get = |path: &str| door.get(path).expect(200).json();
        let explain = || get(&format!("/scheduler/jobs/{waits}/explain"));
        let list = || get(&format!("/scheduler/nodes/list?job={waits}"))["nodes"][0].clone();
        assert_eq!(told(&explain()), (&json!(true), &json!(true), &Value::Null));
        assert_eq!((&list()["allocated"]["cores"], &list()["now"]), (&json!(1), &json!(true)));

        // As many more as no index needs to be told of.
        let card = root.read(&format!("state/scheduler/running/{long}.job"));
        let path = |job: u64| format!("state/scheduler/running/{job}.job");
        let others = 100_000..105_000;
        for job in others.clone() {
            let other = card.replace(&format!("\"job\":{long},"), &format!("\"job\":{job},"));
            root.write(&path(job), &other.replace(&format!("-{long}.1"), &format!("-{job}.1")));
        }
        let why = json!("what nodes have room for is not looked up: they have more than 5000 jobs");
        assert_eq!(told(&explain()), (&Value::Null, &json!(true), &why));
        let one = list();
        assert_eq!(
            (&one["allocated"], &one["now"], &one["objection"]),
            (&Value::Null, &Value::Null, &why)
        );
        assert_eq!(get("/scheduler/nodes/list")["nodes"][0]["free"], Value::Null);
        let run = ["jobs", "run", r#"json_data={"command":["true"]}"#];
        let said = root.cmd("nodemgr", &run).expect(75).stderr;
        assert!(said.contains("more than 5000 jobs; name one with node="), "{said}");
        // What speaks against it whatever room there is is known all the same.
        door.post("/scheduler/pause?reason=disk", &Value::Null).expect(200);
        assert_eq!(told(&explain()).0, &json!(false));
        door.post("/scheduler/resume", &Value::Null).expect(200);

        others.for_each(|job| std::fs::remove_file(root.path(&path(job))).unwrap());
        assert_eq!(told(&explain()).0, &json!(true));
        let _poller = root.poller();
        assert_eq!(door.ended(waits)["status"], "good");
        root.update(long, "kill=1").expect(0);
        root.reaches(long, "stopped");
        root.check();
    });
}

#[test]
fn more_than_a_few_cards_are_read_for_those_alone_who_have_a_cap() {
    both_ways("", |root, door| {
        let poller = root.poller();
        node_reaches(root, "localhost", "connected");
        for partition in [json!({"name": "free"}), json!({"name": "small", "max_jobs": 1})] {
            door.post("/scheduler/partitions/new", &partition).expect(201);
        }
        let job = |partition: &str| {
            door.submit(&json!({"command": "sleep 1000", "dir": "/", "partition": partition}))
        };
        let long = job("small");
        root.reaches(long, "running");
        assert!(poller.end("TERM").success());
        let lock = fs::File::open(root.path("state/scheduler/poller.lock")).unwrap();
        fs2::FileExt::lock_exclusive(&lock).unwrap(); // as if one were at work
        let waits = [door.submit(&json!({"command": ["true"]})), job("free"), job("small")];
        let reasons = || {
            waits.map(|job| {
                let status = door.get(&format!("/scheduler/jobs/{job}/status")).expect(200).json();
                status["reason"].as_str().unwrap().to_string()
            })
        };
        let at_cap = "partition small is at the cap of 1 jobs at a time";
        let next = "about to be placed on localhost";
        assert_eq!(reasons(), [next, next, at_cap]);
        let card = root.read(&format!("state/scheduler/running/{long}.job"));
        let path = |job: u64| format!("state/scheduler/running/{job}.job");
        // What a newer program's job has counts for no cap of this one.
        let in_use = || {
            let shown = door.get("/scheduler/partitions/small").expect(200).json();
            shown["in_use"]["jobs"].clone()
        };
        assert_eq!(in_use(), 1);
        root.write(&path(long), &format!("{card}\n{{\"at\":\"\",\"event\":\"frozen\"}}\n"));
        assert_eq!((reasons(), in_use()), ([next, next, next].map(String::from), json!(0)));
        root.write(&path(long), &card);
        // Nor is it known what a partition was that is gone.
        let record = root.read("state/scheduler/partitions/small.json");
        fs::remove_file(root.path("state/scheduler/partitions/small.json")).unwrap();
        let explained =
            door.get(&format!("/scheduler/jobs/{}/explain", waits[2])).expect(200).json();
        let why = json!("partition small does not exist any more");
        assert_eq!(told(&explained), (&json!(false), &Value::Null, &why));
        root.write("state/scheduler/partitions/small.json", &record);
        let others = 100_000..100_100;
        for job in others.clone() {
            let other = card.replace(&format!("\"job\":{long},"), &format!("\"job\":{job},"));
            let other = other.replace("\"node\":\"localhost\"", "\"node\":\"elsewhere\"");
            root.write(&path(job), &other.replace(&format!("-{long}.1"), &format!("-{job}.1")));
        }
        let room = "waiting for room on localhost";
        assert_eq!(reasons(), [room, room, at_cap]);
        others.for_each(|job| fs::remove_file(root.path(&path(job))).unwrap());
        drop(lock);
        let _poller = root.poller();
        for job in [long, waits[1], waits[2]] {
            root.update(job, "kill=1").expect(0);
        }
        waits.iter().chain([&long]).for_each(|job| _ = root.reaches(*job, "stopped"));
        root.check();
    });
}
