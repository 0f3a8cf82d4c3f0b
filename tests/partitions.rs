//! By which rules jobs of partitions are placed.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs;
use std::time::Duration;

use common::head::{Door, both_ways, host, node_reaches, open_root, register};
use common::partitions::{change, error, make, objections, path, until_file};
use common::rights::{ask, submit, token};
use common::{TestRoot, let_pass};
use serde_json::{Value, json};

/// A head with two nodes: itself, with disk=hdd, and another root, with disk=ssd.
fn with_another(test: impl Fn(&TestRoot, &Door)) {
    both_ways("labels = disk=hdd\n", |root, door| {
        let (other, httpd, token) = host("labels = disk=ssd\n");
        let _there = other.poller();
        register(root, &json!({"name": "other", "uri": httpd.url(), "token": token}));
        let _here = root.poller();
        node_reaches(root, "other", "connected");
        node_reaches(root, "localhost", "connected");
        test(root, door);
        root.cmd("scheduler", &["check"]).expect(0);
        for one in [root, &other] {
            one.cmd("processor", &["check"]).expect(0);
        }
    });
}

#[test]
fn jobs_go_to_nodes_of_their_partition_alone() {
    with_another(|root, door| {
        make(root, &json!({"name": "fast", "constraints": {"disk": "ssd"}}));
        make(root, &json!({"name": "named", "node": ["localhost", "third"]}));
        make(root, &json!({"name": "others", "exclude": "localhost"}));
        let shown = door.get("/scheduler/partitions").expect(200).json();
        let nodes: Vec<&Value> =
            shown["partitions"].as_array().unwrap().iter().map(|one| &one["nodes"]).collect();
        assert_eq!(nodes, [&json!(["other"]), &json!(["localhost"]), &json!(["other"])]);
        for (partition, more, node) in [
            ("fast", json!({}), "other"),
            ("named", json!({}), "localhost"),
            ("others", json!({}), "other"),
            ("fast", json!({"node": ["localhost", "other"]}), "other"),
            ("named", json!({"array": "0-1"}), "localhost"),
            ("named", json!({"constraints": {"disk": {"not": "ssd"}}}), "localhost"),
        ] {
            let mut request = json!({"command": ["true"], "partition": partition});
            request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let status = door.ended(door.submit(&request));
            assert_eq!((&status["status"], &status["node"]), (&json!("good"), &json!(node)));
        }
        // What none of its nodes has.
        let request = json!({"command": ["true"], "partition": "named", "node": "other"});
        let answer = door.post("/scheduler/jobs/new", &request).expect(201).json();
        let why = "no node has 1 core, node other, in partition named";
        assert_eq!(answer["warning"], why, "{answer}");
        let job = answer["job"].as_u64().unwrap();
        root.reason(job, why);
        assert_eq!(
            objections(door, job),
            [
                "it is not the node that is asked for",
                "not in partition named: it is not the node that is asked for"
            ]
        );
        let mut strict = request.clone();
        strict["strict"] = json!(true);
        let said = error(door.post("/scheduler/jobs/new", &strict).expect(400));
        assert_eq!(said, format!("{why}, and the request is strict"));
        let names = |request: &Value| -> Vec<String> {
            let found = door.post("/scheduler/nodes/list", request).expect(200).json();
            let nodes = found["nodes"].as_array().unwrap().iter();
            nodes.map(|node| node["name"].as_str().unwrap().to_string()).collect()
        };
        assert_eq!(names(&json!({"command": ["true"], "partition": "fast"})), ["other"]);
        assert!(names(&request).is_empty());
        door.post("/scheduler/nodes/list", &json!({"command": ["true"], "partition": "none"}))
            .expect(400);

        // Other nodes may be in it from now on.
        change(root, "named", &json!({"node": "other"}));
        let status = door.ended(job);
        assert_eq!((&status["status"], &status["node"]), (&json!("good"), &json!("other")));
    });
}

#[test]
fn a_partition_has_no_more_than_its_caps_in_all_and_for_each_user() {
    both_ways("linger = 0\n", |root, door| {
        let conf = root.read("corkboard.conf").replace("cores = 2", "cores = 12");
        root.write("corkboard.conf", &conf);
        let (ada, ben) =
            (token(root, &["role=user", "user=ada"]), token(root, &["role=user", "user=ben"]));
        make(
            root,
            &json!({"name": "small", "max_jobs": 3, "max_cores": 6, "max_jobs_per_user": 2,
                "max_cores_per_user": 4}),
        );
        let _poller = root.poller();
        let before = |token: &str, cores: u64, priority: i64| {
            let more = json!({"requested_resources": {"cores": cores}, "priority": priority});
            submit(root, token, &until_file(root, "small", "go", more))
        };
        let job = |token: &str, cores: u64| before(token, cores, 0);
        let first = job(&ada, 3);
        root.reaches(first, "running");
        let second = job(&ada, 2);
        root.reason(second, "the user has 3 of at most 4 cores in partition small");
        let third = job(&ada, 1);
        root.reaches(third, "running");
        root.reason(second, "the user is at the cap of 2 jobs at a time in partition small");
        let fourth = job(&ben, 3);
        root.reason(fourth, "partition small has 4 of at most 6 cores");
        let fifth = before(&ben, 2, 1); // what is left is kept for the fourth, which it comes before
        root.reaches(fifth, "running");
        root.reason(fourth, "partition small is at the cap of 3 jobs at a time");
        assert_eq!(objections(door, fourth), ["partition small is at the cap of 3 jobs at a time"]);
        let shown = door.get("/scheduler/partitions/small").expect(200).json();
        assert_eq!(shown["in_use"], json!({"jobs": 3, "cores": 6}));
        // What is for no partition has room all the while.
        let plain = submit(root, &ada, &json!({"command": ["true"]}));
        assert_eq!(root.reaches(plain, "stopped")["status"], "good");
        // What it may never have.
        let wide = until_file(
            root,
            "small",
            "go",
            json!({"requested_resources": {"cores": 5}, "strict": true}),
        );
        let said = error(ask(root, &ben, "POST", "/scheduler/jobs/new", &wide).expect(400));
        assert_eq!(
            said,
            "a user may have 4 cores at most at a time in partition small, and the request is strict"
        );
        // More is allowed to those who wait.
        change(root, "small", &json!({"max_jobs": null, "max_cores": 9, "max_cores_per_user": 5}));
        root.reaches(fourth, "running");
        change(root, "small", &json!({"max_jobs_per_user": 3, "max_cores_per_user": 6}));
        root.reason(second, "partition small is at the cap of 9 cores");
        change(root, "small", &json!({"max_cores": 11}));
        root.reaches(second, "running");
        root.write("go", "");
        for job in [first, second, third, fourth, fifth] {
            assert_eq!(root.reaches(job, "stopped")["status"], "good");
        }
        root.check();
    });
}

#[test]
fn an_array_is_held_to_the_caps_range_by_range() {
    let root = open_root("linger = 0\n");
    make(&root, &json!({"name": "one", "max_jobs": 1}));
    let _poller = root.poller();
    let array = until_file(&root, "one", "go", json!({"array": "0-5%2"}));
    let job = root.submit(&array);
    root.reaches(job, "running");
    let other = root.submit(&json!({"command": ["true"], "partition": "one"}));
    root.reason(other, "partition one is at the cap of 1 jobs at a time");
    root.write("go", "");
    for job in [job, other] {
        assert_eq!(root.reaches(job, "stopped")["status"], "good");
    }
    root.check();
}

/// In which order jobs began.
fn order(root: &TestRoot) -> Vec<String> {
    root.read("order").lines().map(str::to_string).collect()
}

#[test]
fn the_priority_of_a_partition_counts_with_its_jobs() {
    let root = open_root("linger = 0\n");
    let conf = root.read("corkboard.conf").replace("cores = 2", "cores = 1");
    root.write("corkboard.conf", &conf);
    make(&root, &json!({"name": "high", "priority": 5}));
    make(&root, &json!({"name": "low", "priority": -5}));
    let job = |partition: &str, priority: i64, word: &str| {
        let command = format!("echo {word} >> {}", root.path("order").display());
        let mut request = json!({"command": command, "priority": priority});
        if !partition.is_empty() {
            request["partition"] = json!(partition);
        }
        root.submit(&request)
    };
    let jobs = [
        job("low", 9, "low-9"),
        job("", 0, "plain-0"),
        job("", 6, "plain-6"),
        job("high", 0, "high-0"),
        job("high", 2, "high-2"),
    ];
    let poller = root.poller();
    jobs.iter().for_each(|job| _ = root.reaches(*job, "stopped"));
    assert_eq!(order(&root), ["high-2", "plain-6", "high-0", "low-9", "plain-0"]);

    // It may be changed under jobs that wait. Another poller sends nothing ahead.
    assert!(poller.end("TERM").success());
    let poller = root.poller();
    fs::remove_file(root.path("order")).unwrap();
    let first = root.submit(&until_file(&root, "high", "go", json!({})));
    root.reaches(first, "running");
    let jobs = [job("", 0, "plain"), job("high", 0, "high"), job("low", 0, "low")];
    change(&root, "high", &json!({"priority": -9}));
    change(&root, "low", &json!({"priority": 9}));
    // Once it has seen these it has seen those.
    let seen = root.submit(&json!({"command": ["true"], "partition": "low", "priority": 5}));
    root.reason(seen, "waiting for room");
    root.write("go", "");
    jobs.iter().chain([&first, &seen]).for_each(|job| _ = root.reaches(*job, "stopped"));
    assert_eq!(order(&root), ["low", "plain", "high"]);
    assert!(poller.end("TERM").success());
    root.check();
}

#[test]
fn jobs_of_a_partition_that_is_removed_wait_until_it_is_there_again() {
    both_ways("linger = 0\n", |root, door| {
        make(root, &json!({"name": "main", "max_jobs": 1, "defaults": {"priority": 1}}));
        let poller = root.poller();
        let runs = door.submit(&until_file(root, "main", "go", json!({})));
        root.reaches(runs, "running");
        let waits = door.submit(&json!({"command": ["true"], "partition": "main"}));
        let array = door.submit(&json!({"command": ["true"], "partition": "main", "array": "0-3"}));
        root.reason(waits, "partition main is at the cap of 1 jobs at a time");
        door.post("/scheduler/partitions/main/remove", &Value::Null).expect(200);
        let why = "partition main does not exist any more";
        for job in [waits, array] {
            assert_eq!(root.reason(job, why)["state"], "queued");
            assert_eq!(objections(door, job), [why]);
        }
        let task = door.get(&format!("/scheduler/jobs/{array}/status?task=2")).expect(200).json();
        assert_eq!(task["reason"], why);
        // New ones are refused, and others go on.
        let new = json!({"command": ["true"], "partition": "main"});
        assert_eq!(
            error(door.post("/scheduler/jobs/new", &new).expect(400)),
            "there is no partition main"
        );
        assert_eq!(door.ended(door.submit(&json!({"command": ["true"]})))["status"], "good");
        let check = root.cmd("scheduler", &["check"]).expect(0).body;
        assert_eq!(check, "note: partition main is not there: 2 jobs wait for it\n");
        root.write("go", "");
        assert_eq!(door.ended(runs)["status"], "good");
        root.reason(waits, why);
        // Another poller finds no more than this one, nor does a round.
        assert!(poller.end("TERM").success());
        root.cmd("poller", &["--once"]).expect(0);
        assert_eq!(root.status(waits)["state"], "queued");
        let _poller = root.poller();
        root.reason(waits, why);
        make(root, &json!({"name": "main"}));
        for job in [waits, array] {
            assert_eq!(door.ended(job)["status"], "good");
        }
        root.check();
    });
}

#[test]
fn a_job_is_placed_by_the_record_that_is_there_when_it_is() {
    let root = open_root("");
    make(&root, &json!({"name": "main"}));
    let _poller = root.poller();
    let first = root.submit(&json!({"command": ["true"], "partition": "main"}));
    root.reaches(first, "stopped");
    // The poller has chosen a node, and waits for the board's lock.
    let lock = fs::File::open(root.path("state/scheduler/lock")).unwrap();
    fs2::FileExt::lock_exclusive(&lock).unwrap();
    let job = root.submit(&json!({"command": ["true"], "partition": "main"}));
    let_pass(Duration::from_millis(300)); // it has by now
    fs::remove_file(root.path(&path("main"))).unwrap();
    drop(lock);
    root.reason(job, "partition main does not exist any more");
    let_pass(Duration::from_millis(300)); // it would have been placed by now
    assert_eq!(root.story(job), Vec::<String>::new());
    make(&root, &json!({"name": "main"}));
    assert_eq!(root.reaches(job, "stopped")["status"], "good");
    root.check();
}
