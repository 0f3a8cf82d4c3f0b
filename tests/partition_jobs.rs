//! What jobs are given by the partition that they are submitted to, and who may submit to it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::head::{both_ways, open_root};
use common::partitions::{change, error, make, remove};
use common::rights::{ask, running, token};
use common::{signal, until};
use serde_json::{Value, json};

#[test]
fn a_job_keeps_what_it_was_given_and_its_repeat_is_known() {
    both_ways("", |root, door| {
        make(
            root,
            &json!({"name": "main", "defaults": {"priority": 3, "timeout": "1h",
                "requested_resources": {"memory": "1 MiB"}, "environment": {"A": "1", "B": "2"}}}),
        );
        let request = json!({"command": "echo $A $B", "partition": "main", "request_id": "r",
            "environment": {"B": "own"}, "timeout": null});
        let made = door.post("/scheduler/jobs/new", &request).expect(201).json();
        let given = json!({"priority": 3, "requested_resources": {"memory": "1 MiB"},
            "environment": {"A": "1"}});
        assert_eq!(made["defaults"], given, "{made}");
        assert_eq!(made["environment"], json!({"B": "own"}), "the request as it was sent");
        let job = made["job"].as_u64().unwrap();
        // The defaults are others by now: the same request is the same, and the job as it was.
        change(root, "main", &json!({"defaults": {"priority": 9, "environment": {"A": "7"}}}));
        let again = door.post("/scheduler/jobs/new", &request).expect(200).json();
        assert_eq!(again, made);
        remove(root, "main");
        assert_eq!(door.post("/scheduler/jobs/new", &request).expect(200).json(), made);
        let mut other = request.clone();
        other["environment"] = json!({"A": "1", "B": "own"});
        door.post("/scheduler/jobs/new", &other).expect(422); // what it was given it did not say
        make(root, &json!({"name": "main"}));
        let card = root.card(job);
        assert_eq!(card[0]["defaults"], given);
        let record = door.get(&format!("/scheduler/jobs/{job}")).expect(200).json();
        assert_eq!((&record["priority"], &record["defaults"]), (&json!(3), &given));
        assert_eq!(record["request"]["partition"], "main");
        let _poller = root.poller();
        assert_eq!(door.ended(job)["status"], "good");
        assert_eq!(root.log(job), "1 own\n");
        root.check();
    });
}

#[test]
fn each_of_many_jobs_in_one_request_is_given_what_it_lacks() {
    let root = open_root("");
    make(&root, &json!({"name": "a", "defaults": {"priority": 1}}));
    make(&root, &json!({"name": "b", "defaults": {"priority": 2}, "users": ["ada"]}));
    let many = json!([{"command": ["true"], "partition": "a", "request_id": "1"},
        {"command": ["true"], "partition": "b", "request_id": "2", "priority": 7},
        {"command": ["true"], "request_id": "3"}]);
    let text = many.to_string();
    let send = || root.cgi("POST", "/scheduler/jobs/new", &[], text.as_bytes());
    let made = send().expect(201).json();
    let given: Vec<Value> = (0..3).map(|index| made[index]["defaults"].clone()).collect();
    assert_eq!(given, [json!({"priority": 1}), Value::Null, Value::Null]);
    change(&root, "a", &json!({"defaults": null}));
    assert_eq!(send().expect(200).json(), made);
    // All or none.
    let ben = token(&root, &["role=user", "user=ben"]);
    let refused = ask(&root, &ben, "POST", "/scheduler/jobs/new", &many).expect(403);
    assert!(error(refused).starts_with("job 2 of the array: ben may not use partition b"));
    let missing = json!([{"command": ["true"]}, {"command": ["true"], "partition": "c"}]);
    let refused = ask(&root, &ben, "POST", "/scheduler/jobs/new", &missing).expect(400);
    assert_eq!(error(refused), "job 2 of the array: there is no partition c");
    let priority = |job: u64| {
        root.cmd("scheduler", &["jobs", &job.to_string()]).expect(0).json()["priority"].clone()
    };
    assert_eq!([1, 2, 3].map(priority), [json!(1), json!(7), json!(0)]);
    let listed = root.cmd("scheduler", &["jobs", "format=table"]).expect(0).body;
    assert!(listed.contains("PARTITION"), "{listed}");
    let _poller = root.poller();
    (1..=3).for_each(|job| assert_eq!(root.reaches(job, "stopped")["status"], "good"));
    root.check();
}

#[test]
fn a_repeat_of_what_is_being_submitted_is_not_refused_for_what_was_changed_since() {
    let root = open_root("");
    make(&root, &json!({"name": "main"}));
    for round in 0.. {
        let one = |index: usize| json!({"command": ["true"], "partition": "main", "request_id": format!("{round}-{index}")});
        let many: Value = (0..2000).map(one).collect();
        root.write("many.json", &many.to_string());
        let file = format!("@{}", root.path("many.json").display());
        let mut first = root.start("scheduler", &["jobs", "new", "-d", &file]);
        let is_there = |dir: &str, end: &str| {
            let names = fs::read_dir(root.path(dir)).into_iter().flatten().flatten();
            names.into_iter().any(|entry| entry.file_name().to_string_lossy().ends_with(end))
        };
        until("it has claimed some", || is_there("state/scheduler/requests", ""));
        signal(first.id() as i32, "STOP");
        if is_there("state/scheduler/queue", ".batch") || is_there("state/scheduler/queue", ".job")
        {
            assert!(round < 20, "it is always too fast");
            signal(first.id() as i32, "CONT");
            assert!(first.wait().unwrap().success());
            fs::remove_dir_all(root.path("state/scheduler/requests")).unwrap();
            fs::create_dir(root.path("state/scheduler/requests")).unwrap();
            continue;
        }
        remove(&root, "main");
        let send = || root.cmd("scheduler", &["jobs", "new", "-d", &file]);
        let said = send().expect(75).stderr;
        assert!(said.contains("is being submitted by another process"), "{said}");
        signal(first.id() as i32, "CONT");
        assert!(first.wait().unwrap().success());
        assert_eq!(send().expect(0).json()[1999]["request_id"], format!("{round}-1999"));
        break;
    }
    make(&root, &json!({"name": "main"}));
    root.check();
}

#[test]
fn many_jobs_for_a_partition_of_few_nodes_take_no_longer_than_for_none() {
    let root = open_root("");
    let asleep = json!({"driver": "http", "uri": "http://127.0.0.1:9", "drain": true,
        "resources": {"cores": 2, "memory": 1 << 30}});
    make(&root, &json!({"name": "last", "node": "z"}));
    for index in 0..300 {
        root.write(&format!("state/scheduler/nodes/a{index:03}.json"), &asleep.to_string());
    }
    root.write("state/scheduler/nodes/z.json", &asleep.to_string());
    let time = |more: Value| {
        let one = |index: usize| {
            let mut request = json!({"command": ["true"], "request_id": format!("{more}{index}")
                .replace(|odd: char| !odd.is_ascii_alphanumeric(), "")});
            request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            request
        };
        let many: Value = (0..2000).map(one).collect();
        let text = many.to_string();
        [201, 200].map(|code| {
            let since = Instant::now();
            let made = root.cgi("POST", "/scheduler/jobs/new", &[], text.as_bytes()).expect(code);
            assert!(made.json()[1999].get("warning").is_none());
            since.elapsed()
        })
    };
    let plain = time(json!({}));
    let of_partition = time(json!({"partition": "last"}));
    for (plain, of_partition) in plain.into_iter().zip(of_partition) {
        assert!(
            of_partition < plain * 3 + Duration::from_millis(500),
            "{of_partition:?}, and of none {plain:?}"
        );
    }
}

#[test]
fn a_plain_jobs_card_says_nothing_of_partitions() {
    let root = open_root("");
    make(&root, &json!({"name": "main", "defaults": {"priority": 1}}));
    let job = root.submit(&json!({"command": ["true"]}));
    let first = root.card(job)[0].clone();
    let fields: Vec<&String> = first.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["job", "request_id", "at", "by", "request"]);
    let listed = root.cmd("scheduler", &["jobs", "format=table"]).expect(0).body;
    assert!(!listed.contains("PARTITION"), "{listed}");
}

#[test]
fn jobs_that_name_none_go_into_that_of_the_setting() {
    both_ways("partition = main\n", |root, door| {
        let plain = json!({"command": ["true"], "request_id": "r"});
        let why =
            "there is no partition main, into which jobs go that name none (setting partition)";
        assert_eq!(error(door.post("/scheduler/jobs/new", &plain).expect(503)), why);
        let check = root.cmd("scheduler", &["check"]).expect(0).body;
        let note = "note: partition main is not there: it is the setting, and jobs that name none are refused\n";
        assert_eq!(check, note);
        make(root, &json!({"name": "main", "node": "localhost", "defaults": {"priority": 4}}));
        make(root, &json!({"name": "other"}));
        let made = door.post("/scheduler/jobs/new", &plain).expect(201).json();
        assert_eq!(made["defaults"], json!({"partition": "main", "priority": 4}));
        let listed = door.get("/scheduler/partitions").expect(200).json();
        let by_setting: Vec<&Value> =
            listed["partitions"].as_array().unwrap().iter().map(|one| &one["default"]).collect();
        assert_eq!(by_setting, [&json!(true), &Value::Null]);
        // Another setting, and none, change nothing of what was accepted.
        let conf = root.read("corkboard.conf");
        for setting in ["partition = other", "partition = none"] {
            root.write("corkboard.conf", &conf.replace("partition = main", setting));
            assert_eq!(door.post("/scheduler/jobs/new", &plain).expect(200).json(), made);
        }
        let named = json!({"command": ["true"], "partition": "other"});
        let other = door.submit(&named);
        let null = json!({"command": ["true"], "partition": null});
        let said = error(door.post("/scheduler/jobs/new", &null).expect(400));
        assert!(said.contains("partition must be the name of a partition"), "{said}");
        let _poller = root.poller();
        for job in [made["job"].as_u64().unwrap(), other] {
            assert_eq!(door.ended(job)["status"], "good");
        }
        root.check();
    });
}

#[test]
fn who_may_submit() {
    both_ways("", |root, door| {
        let ada = token(root, &["role=user", "user=ada"]);
        let ben = token(root, &["role=user", "user=ben"]);
        let admin = token(root, &["role=admin", "user=cleo"]);
        let viewer = token(root, &["role=viewer", "user=ada"]);
        make(
            root,
            &json!({"name": "own", "users": ["ada"], "defaults": {"environment": {"KEY": "x"}}}),
        );
        let _poller = root.poller();
        let request = json!({"command": ["true"], "partition": "own"});
        let as_holder = |token: &str, method: &str, path: &str, body: &Value| {
            let bearer = format!("Bearer {token}");
            let body = if body.is_null() { String::new() } else { body.to_string() };
            door.send(method, path, &[("Authorization", &bearer)], &body)
        };
        let new = |token: &str| as_holder(token, "POST", "/scheduler/jobs/new", &request);
        let job = new(&ada).expect(201).json()["job"].as_u64().unwrap();
        let said = error(new(&ben).expect(403));
        assert_eq!(said, "ben may not use partition own: it is for other users");
        let list = |token: &str| as_holder(token, "POST", "/scheduler/nodes/list", &request);
        assert_eq!(error(list(&ben).expect(403)), said);
        list(&ada).expect(200);
        new(&admin).expect(201);
        // Whoever may not use it does not see what its jobs are given.
        for (token, value) in [(&ada, "x"), (&ben, "…"), (&admin, "x"), (&viewer, "…")] {
            let shown = as_holder(token, "GET", "/scheduler/partitions/own", &Value::Null);
            assert_eq!(shown.expect(200).json()["defaults"]["environment"]["KEY"], value);
        }
        for (token, value) in [(&ada, "x"), (&viewer, "…")] {
            let path = format!("/scheduler/jobs/{job}");
            let shown = as_holder(token, "GET", &path, &Value::Null).expect(200).json();
            assert_eq!(shown["defaults"]["environment"]["KEY"], value);
        }
        // A job speaks for its owner.
        let (_, adas) = running(root, &ada, "ada.key");
        let (_, bens) = running(root, &ben, "ben.key");
        new(&adas).expect(201);
        new(&bens).expect(403);
        for token in [&ada, &ben, &viewer, &adas] {
            as_holder(token, "POST", "/scheduler/partitions/own/update", &json!({})).expect(403);
            as_holder(token, "POST", "/scheduler/partitions/own/remove", &Value::Null).expect(403);
        }
        // Nobody but admins; and what is accepted stays so.
        as_holder(&admin, "POST", "/scheduler/partitions/own/update", &json!({"users": []}))
            .expect(200);
        new(&ada).expect(403);
        root.write("go", "");
        assert_eq!(root.reaches(job, "stopped")["status"], "good");
        until("all have ended", || {
            root.cmd("scheduler", &["jobs", "state=running"]).expect(0).body.is_empty()
        });
    });
}
