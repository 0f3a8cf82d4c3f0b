//! What jobs ask of nodes by labels, names and countables, and what they are told of it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use common::TestRoot;
use common::head::{CONF, Door, both_ways, drain_localhost, host, node_reaches, register};
use serde_json::{Value, json};

const HERE: &str = "labels = disk=hdd, zone=a\n";
const THERE: &str = "labels = disk=ssd, zone=b\ncountables = licenses=2\ngpus = 2\n";

/// What is told of one node of a job that waits.
fn told(door: &Door, job: u64, node: &str) -> Value {
    let all = door.get(&format!("/scheduler/jobs/{job}/explain")).expect(200).json();
    let of = |one: &&Value| one["name"] == node;
    all["nodes"].as_array().unwrap().iter().find(of).unwrap_or_else(|| panic!("{all}")).clone()
}

fn names(answer: &Value) -> Vec<&str> {
    let nodes = answer["nodes"].as_array().unwrap();
    nodes.iter().map(|node| node["name"].as_str().unwrap()).collect()
}

/// A head with two nodes: itself, and another root that has what it has not.
fn with_another(test: impl Fn(&TestRoot, &Door, &TestRoot)) {
    both_ways(HERE, |root, door| {
        let (other, httpd, token) = host(THERE);
        let _there = other.poller();
        register(root, &json!({"name": "other", "uri": httpd.url(), "token": token}));
        let _here = root.poller();
        let seen = node_reaches(root, "other", "connected");
        assert_eq!(seen["labels"]["disk"], "ssd", "{seen}");
        node_reaches(root, "localhost", "connected");
        test(root, door, &other);
        root.cmd("scheduler", &["check"]).expect(0);
        for one in [root, &other] {
            one.cmd("processor", &["check"]).expect(0);
        }
    });
}

#[test]
fn jobs_go_to_nodes_that_will_do() {
    with_another(|_, door, _| {
        for (more, node) in [
            (json!({"constraints": {"disk": "ssd"}}), "other"),
            (json!({"constraints": {"disk": {"in": ["ssd", "nvme"]}, "zone": "b"}}), "other"),
            (json!({"constraints": {"zone": {"not": "b"}}}), "localhost"),
            (
                json!({"constraints": {"gpu_memory": {"exists": false}}, "node": "localhost"}),
                "localhost",
            ),
            (json!({"node": "other"}), "other"),
            (json!({"node": ["other", "third"]}), "other"),
            (json!({"exclude": "localhost"}), "other"),
            (json!({"exclude": ["other"]}), "localhost"),
            (json!({"requested_resources": {"gpus": 1}}), "other"),
            (json!({"requested_resources": {"gpu_count": 2, "cpu_cores": {"count": 1}}}), "other"),
            (json!({"requested_resources": {"licenses": 2}}), "other"),
            (json!({"array": "0-1", "constraints": {"disk": "hdd"}}), "localhost"),
        ] {
            let mut request = json!({"command": ["true"]});
            request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let job = door.submit(&request);
            let status = door.ended(job);
            let good = (status["status"] == "good", status["node"] == node);
            assert_eq!(good, (true, true), "{request}: {status}");
        }
    });
}

#[test]
fn what_no_node_could_ever_have_waits_and_says_so_or_is_refused() {
    with_another(|root, door, other| {
        let request = json!({"command": ["true"], "constraints": {"disk": "nvme"}});
        let answer = door.post("/scheduler/jobs/new", &request).expect(201).json();
        assert_eq!(answer["warning"], "no node has 1 core, label disk = nvme", "{answer}");
        let job = answer["job"].as_u64().unwrap();
        let status = root.reason(job, "no node has 1 core, label disk = nvme");
        assert_eq!(status["state"], "queued");
        let localhost = told(door, job, "localhost");
        assert_eq!((&localhost["now"], &localhost["ever"]), (&json!(false), &json!(false)));
        assert_eq!(localhost["objection"], "label disk is hdd");
        assert_eq!(told(door, job, "other")["objection"], "label disk is ssd");

        let strict = json!({"command": ["true"], "constraints": {"disk": "nvme"}, "strict": true});
        let refused = door.post("/scheduler/jobs/new", &strict).expect(400).json();
        assert_eq!(
            refused["error"],
            "no node has 1 core, label disk = nvme, and the request is strict"
        );
        // No repeat mends that.
        let run = [
            "jobs",
            "run",
            r#"json_data={"command":["true"],"requested_resources":{"licenses":3}}"#,
        ];
        let never = root.cmd("nodemgr", &run).expect(1).stderr;
        assert!(never.contains("no node has 1 core, 3 licenses: register one"), "{never}");
        let fits = json!({"command": ["true"], "constraints": {"disk": "ssd"}, "strict": true});
        door.ended(door.submit(&fits));

        // Labels may change under a job that waits.
        other.write("corkboard.conf", &format!("{CONF}{}", THERE.replace("ssd", "nvme")));
        let status = door.ended(job);
        assert_eq!((&status["node"], &status["status"]), (&json!("other"), &json!("good")));
    });
}

#[test]
fn what_is_asked_wrongly_is_refused() {
    both_ways("", |_, door| {
        for (more, why) in [
            (json!({"constraints": {"disk": {"like": "s"}}}), "there is no operator \"like\""),
            (json!({"constraints": {"disk": {"in": []}}}), "the list is empty"),
            (json!({"constraints": {"disk": null}}), "must be a text"),
            (json!({"constraints": {"a b": "c"}}), "cannot be a label"),
            (json!({"constraints": ["disk"]}), "wrong value"),
            (json!({"node": "../etc"}), "node must be the name of a node"),
            (json!({"node": []}), "node must name a node"),
            (json!({"exclude": 3}), "exclude must be the name of a node"),
            (json!({"placement": "best"}), "wrong value"),
            (json!({"strict": "yes"}), "wrong value"),
            (json!({"requested_resources": {"gpus": -1}}), "gpus must be a whole number"),
            (json!({"requested_resources": {"gpus": 0.5}}), "gpus must be a whole number"),
            (json!({"requested_resources": {"scratch": "1 XB"}}), "or a size"),
            (json!({"requested_resources": {"Scratch": 1}}), "is no resource"),
            (json!({"requested_resources": {"memory": 1, "cpu_memory_bytes": 2}}), "not both"),
            (json!({"requested_resources": {"cpu_cores": {"count": 0}}}), "at least 1"),
        ] {
            let mut request = json!({"command": ["true"]});
            request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let refused = door.post("/scheduler/jobs/new", &request).expect(400).json();
            let said = refused["error"].as_str().unwrap().to_string();
            assert!(said.contains(why), "{request}: {said}");
        }
        assert_eq!(door.get("/scheduler/jobs").expect(200).body, "");
    });
}

#[test]
fn countables_are_never_given_twice() {
    with_another(|root, door, other| {
        let script = format!("until [ -e {} ]; do sleep 0.02; done", root.path("go").display());
        let request = json!({"command": script, "requested_resources": {"licenses": 1}});
        let jobs: Vec<u64> = (0..2).map(|_| door.submit(&request)).collect();
        for job in &jobs {
            assert_eq!(root.reaches(*job, "running")["node"], "other");
        }
        let gpu = json!({"command": script, "requested_resources": {"gpus": 1, "licenses": 1}});
        let third = door.submit(&gpu);
        root.reason(third, "waiting for room on other");
        assert_eq!(told(door, third, "other")["objection"], "short of 1 core, 1 licenses");
        assert_eq!(told(door, third, "localhost")["objection"], "has only 0 gpus, 0 licenses");
        let info = other.cmd("processor", &["info"]).expect(0).json();
        assert_eq!(
            (&info["free"].get("licenses"), &info["free"]["gpus"]),
            (&None, &json!(2)),
            "{info}"
        );
        root.write("go", "");
        for job in jobs.iter().chain([&third]) {
            assert_eq!(door.ended(*job)["status"], "good");
        }
    });
}

#[test]
fn nodes_that_could_have_a_request() {
    with_another(|root, door, _| {
        let request = json!({"command": ["true"], "constraints": {"zone": "b"}});
        let found = door.post("/scheduler/nodes/list", &request).expect(200).json();
        assert_eq!((names(&found), &found["nodes"][0]["now"]), (vec!["other"], &json!(true)));
        let text = request.to_string().replace('"', "%22").replace('{', "%7B");
        let text = text.replace('}', "%7D").replace('[', "%5B").replace(']', "%5D");
        let found = door.get(&format!("/scheduler/nodes/list?json_data={text}")).expect(200).json();
        assert_eq!(names(&found), ["other"]);
        door.get("/scheduler/nodes/list?json_data=%7B&job=1").expect(400);
        door.post("/scheduler/nodes/list", &json!({"comand": 1})).expect(400);
        let all = door.get("/scheduler/nodes/list").expect(200).json();
        assert_eq!(names(&all), ["localhost", "other"]);
        // As words, with a job.
        drain_localhost(root);
        let words =
            ["jobs", "new", "-q", "--node", "localhost", "--placement", "pack", "--", "true"];
        let job: u64 = root.cmd("scheduler", &words).expect(0).body.trim().parse().unwrap();
        assert_eq!(told(door, job, "localhost")["objection"], "drained");
        let table = root.cmd("scheduler", &["jobs", &job.to_string(), "explain", "format=table"]);
        assert!(table.expect(0).body.contains("drained"));
        let words = [
            "jobs",
            "new",
            "--wait",
            "--resource",
            "licenses=1",
            "--constraint",
            "disk=ssd",
            "--gpus",
            "1",
            "--exclude",
            "localhost",
            "--strict",
            "--",
            "true",
        ];
        root.cmd("scheduler", &words).expect(0);
    });
}
