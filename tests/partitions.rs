//! Partitions: made and changed by routes and by hand, what jobs are given there, who may use them, and by
//! which rules these are placed.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use common::head::{Door, Poller, both_ways, host, node_reaches, open_root, register};
use common::rights::{ask, running, submit, token};
use common::{TestRoot, let_pass, signal, until, wait_for};
use serde_json::{Value, json};

/// Makes a partition, by command.
fn make(root: &TestRoot, partition: &Value) {
    root.cmd_in("scheduler", &["partitions", "new"], &partition.to_string()).expect(0);
}

/// Changes one, by command.
fn change(root: &TestRoot, name: &str, fields: &Value) {
    let words = ["partitions", name, "update", "-d", &fields.to_string()];
    root.cmd("scheduler", &words).expect(0);
}

fn remove(root: &TestRoot, name: &str) {
    root.cmd("scheduler", &["partitions", name, "remove"]).expect(0);
}

fn path(name: &str) -> String {
    format!("state/scheduler/partitions/{name}.json")
}

/// Writes a record as many an editor does: beside it, then in its place.
fn write_over(root: &TestRoot, name: &str, text: &str) {
    root.write(&format!("{}~", path(name)), text);
    fs::rename(root.path(&format!("{}~", path(name))), root.path(&path(name))).unwrap();
}

/// A job for this partition that runs until this file is there.
fn until_file(root: &TestRoot, partition: &str, file: &str, more: Value) -> Value {
    let script = format!("until [ -e {} ]; do sleep 0.02; done", root.path(file).display());
    let mut request = json!({"command": script, "partition": partition});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

fn error(answer: common::Answer) -> String {
    answer.json()["error"].as_str().unwrap_or_default().to_string()
}

#[test]
fn they_are_made_shown_changed_and_removed() {
    both_ways("", |root, door| {
        let list = || door.get("/scheduler/partitions").expect(200).json();
        assert_eq!(list(), json!({"partitions": []}));
        assert!(!root.exists("state/scheduler/partitions"), "none, and no directory for them");
        let gpu = json!({"name": "gpu", "constraints": {"arch": {"exists": true}}, "max_cores": 8,
            "max_jobs_per_user": 2, "defaults": {"timeout": "1h"}, "users": ["ada"],
            "priority": 5});
        let made = door.post("/scheduler/partitions/new", &gpu).expect(201);
        assert!(made.header("Location").unwrap().ends_with("/scheduler/partitions/gpu"));
        assert_eq!(made.json(), gpu);
        let record = root.read(&path("gpu"));
        assert_eq!(serde_json::from_str::<Value>(&record).unwrap(), gpu);
        assert!(record.contains("\n  \"max_cores\": 8,\n"), "for people: {record}");
        assert_eq!(door.post("/scheduler/partitions/new", &gpu).expect(200).json(), gpu);
        let other = json!({"name": "gpu", "max_cores": 9});
        let said = error(door.post("/scheduler/partitions/new", &other).expect(409));
        assert!(said.contains("change it with partitions/gpu/update"), "{said}");

        let change = json!({"max_cores": null, "users": null, "priority": -1, "name": "gpu"});
        let changed = door.post("/scheduler/partitions/gpu/update", &change).expect(200).json();
        assert_eq!((&changed["priority"], &changed["max_jobs_per_user"]), (&json!(-1), &json!(2)));
        assert!(changed.get("max_cores").is_none() && changed.get("users").is_none());
        let shown = door.get("/scheduler/partitions/gpu").expect(200).json();
        assert_eq!(shown["in_use"], json!({"jobs": 0, "cores": 0}));
        assert_eq!(list(), json!({"partitions": [shown]}));
        let table = root.cmd("scheduler", &["partitions", "format=table"]).expect(0).body;
        assert!(table.starts_with("PARTITION  PRIORITY"), "{table}");
        let one = root.cmd("scheduler", &["partitions", "gpu"]).expect(0).json();
        assert_eq!(one["name"], "gpu");

        for (request, why) in [
            (json!({"name": "x", "max_gpus": 1}), "unknown field \"max_gpus\" of a partition"),
            (json!({"name": "x", "max_jobs": 0}), "max_jobs must be at least 1"),
            (json!({"name": "x", "max_cores": -2}), "invalid value"),
            (json!({"name": "x", "max_cores_per_user": 0.5}), "invalid type"),
            (json!({"name": "x", "constraints": {"a": {"like": 1}}}), "no operator \"like\""),
            (json!({"name": "x", "node": "../x"}), "node must be the name of a node"),
            (json!({"name": "x", "defaults": {"command": "true"}}), "\"command\" is no field"),
            (json!({"name": "x", "defaults": {"timeout": "soon"}}), "not a duration"),
            (json!({"name": "x", "users": "ada"}), "invalid type"),
            (json!({"name": "../x"}), "a partition needs a name"),
            (json!({"name": "new"}), "a partition needs a name"),
            (json!({}), "a partition needs a name"),
            (json!(["x"]), "must be a JSON object"),
        ] {
            let said = error(door.post("/scheduler/partitions/new", &request).expect(400));
            assert!(said.contains(why), "{request}: {said}");
        }
        for (change, why) in [
            (json!({"name": "cpu"}), "name cannot be changed"),
            (json!({"max_jobs": 0}), "must be at least 1"),
            (json!({"nodes": []}), "unknown field \"nodes\""),
        ] {
            let said = error(door.post("/scheduler/partitions/gpu/update", &change).expect(400));
            assert!(said.contains(why), "{change}: {said}");
        }
        assert_eq!(door.get("/scheduler/partitions/gpu").expect(200).json(), shown);

        let empty = Value::Null;
        let removed = door.post("/scheduler/partitions/gpu/remove", &empty).expect(200).json();
        assert_eq!(removed, changed);
        assert!(!root.exists(&path("gpu")));
        for path in ["/scheduler/partitions/gpu/remove", "/scheduler/partitions/gpu/update"] {
            door.post(path, &json!({})).expect(404);
        }
        door.get("/scheduler/partitions/gpu").expect(404);
        door.get("/scheduler/partitions/-x").expect(400);
        // Numbers are names, too, and no jobs.
        door.post("/scheduler/partitions/new", &json!({"name": "7"})).expect(201);
        door.post("/scheduler/partitions/7/update", &json!({"max_jobs": 1})).expect(200);
        root.check();
    });
}

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

/// What is told of each node of a job that waits.
fn objections(door: &Door, job: u64) -> Vec<String> {
    let all = door.get(&format!("/scheduler/jobs/{job}/explain")).expect(200).json();
    let nodes = all["nodes"].as_array().unwrap().iter();
    nodes.map(|node| node["objection"].as_str().unwrap_or_default().to_string()).collect()
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
fn a_record_that_is_edited_counts_at_once_and_a_bad_one_stops_its_own_jobs_alone() {
    both_ways("", |root, door| {
        let _poller = root.poller();
        // The first of all, by hand.
        fs::create_dir(root.path("state/scheduler/partitions")).unwrap();
        root.write(&path("main"), "{}\n");
        let job = |more: Value| {
            let mut request = json!({"command": ["true"], "partition": "main"});
            request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            door.submit(&request)
        };
        assert_eq!(door.ended(job(json!({})))["status"], "good");
        let dir = root.path("state/scheduler/partitions");
        let file = dir.join("main.json").display().to_string();
        for (bad, why, check) in [
            ("", format!("{file}: not a partition's record: EOF"), 1),
            ("{\"max_jobs\": 1", format!("{file}: not a partition's record: EOF"), 1),
            ("[]", format!("{file}: not a partition's record: not a JSON object"), 1),
            ("{\"max_jobs\": 0}", format!("{file}: not a partition's record: max_jobs must"), 1),
            (
                "{\"constraints\": {\"a\": {\"near\": 1}}}",
                format!("{file}: not a partition's record: label a: there is no operator"),
                1,
            ),
            (
                "{\"max_gpus\": 1}",
                "partition main: its record was written by a newer version of corkboard (unknown field \"max_gpus\")"
                    .into(),
                0,
            ),
        ] {
            let held = job(json!({"state": "held"}));
            match bad.len() % 2 {
                0 => root.write(&path("main"), bad),
                _ => write_over(root, "main", bad),
            }
            door.post(&format!("/scheduler/jobs/{held}/update?release=1"), &Value::Null)
                .expect(200);
            assert_eq!(root.reason(held, &why)["state"], "queued");
            assert!(objections(door, held)[0].starts_with(&why));
            let code = if check == 0 { 409 } else { 503 };
            let request = json!({"command": ["true"], "partition": "main"});
            let refused = error(door.post("/scheduler/jobs/new", &request).expect(code));
            assert!(refused.starts_with(&why), "{refused}");
            let said = root.cmd("scheduler", &["check"]).expect(check).body;
            assert!(said.contains(&why), "{said}");
            let listed = door.get("/scheduler/partitions").expect(200).json();
            let reason = listed["partitions"][0]["reason"].as_str().unwrap().to_string();
            assert!(reason.starts_with(&why), "{listed}");
            // Nothing else is disturbed.
            assert_eq!(door.ended(door.submit(&json!({"command": ["true"]})))["status"], "good");
            let change = json!({"max_jobs": 2});
            let update = door.post("/scheduler/partitions/main/update", &change);
            if check == 0 {
                update.expect(409); // a newer program's is left alone
                door.post("/scheduler/partitions/main/remove", &Value::Null).expect(409);
                door.post("/scheduler/partitions/new", &json!({"name": "main"})).expect(409);
                write_over(root, "main", "{\"name\": \"whatever\", \"max_jobs\": 2}");
            } else {
                update.expect(503); // it may be half written just now
                let whole = json!({"name": "main", "max_jobs": 2});
                let update = door.post("/scheduler/partitions/main/update", &whole);
                assert_eq!(update.expect(200).json(), whole);
            }
            assert_eq!(door.ended(held)["status"], "good");
        }
        // One that cannot be looked at is told among the others.
        make(root, &json!({"name": "other"}));
        let held = job(json!({"state": "held"}));
        fs::remove_file(root.path(&path("main"))).unwrap();
        fs::create_dir(root.path(&path("main"))).unwrap();
        door.post(&format!("/scheduler/jobs/{held}/update?release=1"), &Value::Null).expect(200);
        let why = format!("{file}: is a directory");
        assert_eq!(root.reason(held, &why)["state"], "queued");
        assert_eq!(objections(door, held), std::slice::from_ref(&why));
        let list = format!("/scheduler/nodes/list?job={held}");
        assert_eq!(door.get(&list).expect(200).json()["nodes"][0]["objection"], why);
        let listed = door.get("/scheduler/partitions").expect(200).json();
        assert_eq!(listed["partitions"][0]["reason"], why);
        assert_eq!(listed["partitions"][1]["name"], "other");
        assert_eq!(door.get("/scheduler/partitions/main").expect(200).json()["reason"], why);
        let whole = json!({"name": "main"});
        for path in
            ["jobs/new", "partitions/new", "partitions/main/update", "partitions/main/remove"]
        {
            let plain = json!({"command": ["true"], "partition": "main"});
            let body = if path == "jobs/new" { &plain } else { &whole };
            assert_eq!(error(door.post(&format!("/scheduler/{path}"), body).expect(503)), why);
        }
        let said = root.cmd("scheduler", &["check"]).expect(1).body;
        assert_eq!(said, format!("{why}\n"));
        assert_eq!(door.ended(door.submit(&json!({"command": ["true"]})))["status"], "good");
        fs::remove_dir(root.path(&path("main"))).unwrap();
        write_over(root, "main", "{}");
        assert_eq!(door.ended(held)["status"], "good");
        // What a job is given and cannot be is nothing that its submitter has to mend.
        for (defaults, why) in [
            (json!({"max_retry_count": 5000}), "max_retry_count must be at most 1000"),
            (json!({"expires": "2001-01-01T00:00:00Z"}), "expires lies in the past"),
            (
                json!({"timeout": "soon"}),
                "the request has a wrong value: \"soon\" is not a duration",
            ),
        ] {
            let whole = json!({"name": "main", "defaults": defaults});
            let said = error(door.post("/scheduler/partitions/main/update", &whole).expect(400));
            assert!(said.starts_with("defaults: "), "{said}");
            write_over(root, "main", &whole.to_string());
            let said = root.cmd("scheduler", &["check"]).expect(1).body;
            assert!(said.starts_with("partition main: defaults: "), "{said}");
            let request = json!({"command": ["true"], "partition": "main"});
            let said = error(door.post("/scheduler/jobs/new", &request).expect(503));
            let all = format!("with what partition main gives the request: {why}");
            assert!(said.starts_with(&all), "{said}");
            let own = json!({"max_retry_count": 0, "expires": "1h", "timeout": "1h"});
            assert_eq!(door.ended(job(own))["status"], "good");
        }
        let labels = |word: &str| -> Value {
            (0..40).map(|index| (format!("{word}{index}"), json!({"exists": false}))).collect()
        };
        change(root, "main", &json!({"defaults": {"constraints": labels("a")}}));
        job(json!({"state": "held"}));
        let many = json!({"command": ["true"], "partition": "main", "constraints": labels("b")});
        let said = error(door.post("/scheduler/jobs/new", &many).expect(503));
        assert!(said.contains("gives the request: "), "{said}");
        // What no job can be given stops new ones alone.
        let held = job(json!({"state": "held"}));
        write_over(root, "main", "{\"defaults\": {\"command\": [\"true\"]}}");
        let request = json!({"command": ["true"], "partition": "main"});
        let why = "partition main: defaults: \"command\" is no field";
        let refused = error(door.post("/scheduler/jobs/new", &request).expect(503));
        assert!(refused.starts_with(why), "{refused}");
        let said = root.cmd("scheduler", &["check"]).expect(1).body;
        assert!(said.starts_with(why), "{said}");
        door.post(&format!("/scheduler/jobs/{held}/update?release=1"), &Value::Null).expect(200);
        assert_eq!(door.ended(held)["status"], "good");
        change(root, "main", &json!({"defaults": null}));
        root.write(&format!("{}~", path("main")), "what an editor left");
        root.write("state/scheduler/partitions/#main.json#", "what another one keeps");
        root.check();
        // A copy is another partition, and the name that is no text none.
        root.write(&path("main.bak"), "{\"name\": \"main\"}");
        let said = root.cmd("scheduler", &["check"]).expect(0).body;
        let copy = dir.join("main.bak.json");
        let copy = copy.display();
        let note = format!("{copy}: it is partition main.bak, though the name in it is \"main\"");
        assert_eq!(said, format!("note: {note}\n"));
        fs::remove_file(root.path(&path("main.bak"))).unwrap();
        let odd = dir.join(OsStr::from_bytes(b"odd\xff.json"));
        fs::write(&odd, "{}").unwrap();
        let said = root.cmd("scheduler", &["check"]).expect(1).body;
        assert!(said.ends_with("odd\u{fffd}.json: not a partition's record\n"), "{said}");
        fs::remove_file(odd).unwrap();
        // Where a link leads counts, and goes on to do so.
        fs::rename(root.path(&path("main")), root.path("elsewhere.json")).unwrap();
        symlink(root.path("elsewhere.json"), root.path(&path("main"))).unwrap();
        let update = door.post("/scheduler/partitions/main/update", &json!({"max_jobs": 3}));
        let said = error(update.expect(409));
        assert!(said.ends_with("elsewhere.json, where it leads"), "{said}");
        door.get("/scheduler/partitions/main").expect(200);
        fs::remove_file(root.path(&path("main"))).unwrap();
        fs::rename(root.path("elsewhere.json"), root.path(&path("main"))).unwrap();
        root.check();
        root.write("state/scheduler/partitions/notes.txt", "what nobody knows");
        let said = root.cmd("scheduler", &["check"]).expect(1).body;
        assert!(said.ends_with("notes.txt: not a partition's record\n"), "{said}");
    });
}

/// A root whose poller looks for itself no sooner than a test lasts.
fn root_without_scans() -> TestRoot {
    let root = TestRoot::new("cores = 2\nmemory = 4 GiB\nscan_every = 10m\n");
    root.open();
    root
}

/// A job is in this state within two or three seconds.
fn soon(root: &TestRoot, job: u64, state: &str) {
    wait_for(Duration::from_secs(3), || {
        let status = root.status(job);
        if status["state"] == state { Ok(()) } else { Err(status.to_string()) }
    });
}

#[test]
fn whatever_is_done_to_a_record_counts_at_once() {
    type Start = fn(&TestRoot) -> Poller;
    for start in [TestRoot::poller as Start, TestRoot::poller_without_inotify] {
        let root = root_without_scans();
        make(&root, &json!({"name": "main"}));
        let (record, aside) = (root.path(&path("main")), root.path("main.json"));
        let poller = start(&root);
        node_reaches(&root, "localhost", "connected");
        let job = || root.submit(&json!({"command": ["true"], "partition": "main"}));
        // What lies elsewhere, by another name.
        for link in [
            |from: &Path, to: &Path| symlink(from, to),
            |from: &Path, to: &Path| fs::hard_link(from, to),
        ] {
            let held =
                root.submit(&json!({"command": ["true"], "partition": "main", "state": "held"}));
            fs::rename(&record, &aside).unwrap();
            root.update(held, "release=1").expect(0);
            root.reason(held, "partition main does not exist any more");
            let next = root.submit(&json!({"command": ["true"]}));
            soon(&root, next, "stopped"); // what was released before was looked at before
            link(&aside, &record).unwrap();
            soon(&root, held, "stopped");
            fs::remove_file(&record).unwrap();
            fs::rename(&aside, &record).unwrap();
        }
        // Written where it lies.
        root.write(&path("main"), "{\"node\": \"none\"}");
        let waits = job();
        root.reason(waits, "no node has 1 core, in partition main");
        let next = root.submit(&json!({"command": ["true"]}));
        soon(&root, next, "stopped");
        root.write(&path("main"), "{}");
        soon(&root, waits, "stopped");
        // What is kept for a job is not, when its partition is moved away.
        let runs = root.submit(&until_file(&root, "main", "go", json!({})));
        root.reaches(runs, "running");
        let wide = json!({"command": ["true"], "partition": "main", "priority": 5,
            "requested_resources": {"cores": 2}});
        let wide = root.submit(&wide);
        root.reason(wide, "waiting for room");
        let narrow = root.submit(&json!({"command": ["true"]}));
        let kept = format!("; some is kept for job {wide}");
        until("a node is kept for the wide one", || {
            root.submit(&json!({"command": ["true"], "state": "held"})); // it is said with the next that comes
            root.status(narrow)["reason"].as_str().is_some_and(|reason| reason.ends_with(&kept))
        });
        fs::rename(&record, &aside).unwrap();
        soon(&root, narrow, "stopped");
        root.write("go", "");
        fs::rename(&aside, &record).unwrap();
        [runs, wide].iter().for_each(|job| _ = root.reaches(*job, "stopped"));
        assert!(poller.end("TERM").success());
        root.check();
    }
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
