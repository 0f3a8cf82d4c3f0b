//! Nodes that users bring: such a node takes its user's jobs alone until an admin opens it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs;

use common::head::{CONF, Door, drain_localhost, host, node_reaches};
use common::rights::{running, submit, token};
use common::{Answer, TestRoot, until};
use serde_json::{Value, json};

/// What this holder is answered, bare or through a web server.
fn ask(door: &Door, token: &str, method: &str, path: &str, body: &Value) -> Answer {
    let bearer = format!("Bearer {token}");
    let text = if body.is_null() { String::new() } else { body.to_string() };
    door.send(method, path, &[("Authorization", &bearer)], &text)
}

/// Runs a test twice, each time in a closed root of its own: bare CGI, and through a web server.
fn both_ways(test: impl Fn(&TestRoot, &Door)) {
    let root = TestRoot::new(CONF);
    test(&root, &Door::Bare(&root));
    let root = TestRoot::new(CONF);
    let httpd = root.httpd();
    test(&root, &Door::Web(&httpd));
}

fn record(root: &TestRoot, name: &str) -> String {
    root.read(&format!("state/scheduler/nodes/{name}.json"))
}

#[test]
fn what_a_provider_may_do_with_nodes() {
    both_ways(|root, door| {
        let ann = token(root, &["role=provider", "user=ann"]);
        let ben = token(root, &["role=provider", "user=ben"]);
        let admin = token(root, &["role=admin"]);
        let new =
            |token: &str, node: &Value| ask(door, token, "POST", "/scheduler/nodes/new", node);
        let update = |token: &str, name: &str, fields: &Value| {
            ask(door, token, "POST", &format!("/scheduler/nodes/{name}/update"), fields)
        };
        let two = json!({"name": "two", "uri": "http://127.0.0.1:9", "token": "secret-of-ann"});
        let registered = new(&ann, &two).expect(201);
        assert_eq!(registered.json()["owner"], "ann");
        new(&ann, &two).expect(200);
        // Nobody takes its place, nor the token that is presented to it.
        let other = json!({"name": "two", "uri": "http://127.0.0.1:9", "token": "secret-of-ben"});
        new(&ben, &other).expect(409);
        new(&admin, &other).expect(409);
        assert_eq!(root.read("state/secrets/nodes/two"), "secret-of-ann\n");
        new(&ben, &json!({"name": "localhost", "uri": "http://127.0.0.1:9"})).expect(409);
        // What is about this machine, or about others, is an admin's to say.
        let three = |field: &str, value: Value| {
            let mut node = json!({"name": "three", "uri": "https://127.0.0.1:9"});
            node[field] = value;
            node
        };
        for (field, value) in [
            ("driver", json!("local")),
            ("ca", json!("/etc/ssl/certs/ca-certificates.crt")),
            ("owner", json!("ben")),
            ("owner", Value::Null),
        ] {
            let refused = new(&ben, &three(field, value.clone())).expect(403);
            assert!(refused.body.contains(&format!("{field} is set by admins")), "{refused:?}");
            update(&ann, "two", &json!({ field: value })).expect(403);
        }
        assert_eq!(record(root, "three"), "");
        // Theirs, and no others'.
        let before = record(root, "two");
        for fields in [json!({"drain": true}), json!({"token": "x"}), json!({"uri": "http://a:1"})]
        {
            update(&ben, "two", &fields).expect(403);
            update(&ben, "localhost", &fields).expect(403);
        }
        let remove = |token: &str, name: &str| {
            ask(door, token, "POST", &format!("/scheduler/nodes/{name}/remove"), &Value::Null)
        };
        remove(&ben, "two").expect(403);
        remove(&ben, "none").expect(404);
        assert_eq!(record(root, "two"), before);
        assert_eq!(update(&ann, "two", &json!({"drain": true})).expect(200).json()["owner"], "ann");
        // A token is for the machine that it was given for.
        let moved = json!({"uri": "http://127.0.0.1:10", "drain": null});
        assert!(update(&ann, "two", &moved).expect(400).body.contains("token for the new uri"));
        let mut moved = moved;
        moved["token"] = json!("secret-of-ann");
        update(&ann, "two", &moved).expect(200);
        // Its token is nobody's to see.
        for token in [&ann, &ben, &admin] {
            for path in ["/scheduler/nodes/two", "/scheduler/nodes/list", "/nodemgr/list"] {
                let shown = ask(door, token, "GET", path, &Value::Null).expect(200);
                assert!(shown.body.contains("\"ann\"") && !shown.body.contains("secret-of"));
            }
        }
        // Opened, it is an admin's.
        let opened = update(&admin, "two", &json!({"owner": null})).expect(200);
        assert_eq!(opened.json().get("owner"), None);
        assert!(!record(root, "two").contains("owner"), "{}", record(root, "two"));
        update(&ann, "two", &json!({"drain": true})).expect(403);
        remove(&ann, "two").expect(403);
        update(&admin, "two", &json!({"owner": "ann"})).expect(200);
        for wrong in [json!(""), json!("a\"b"), json!(7)] {
            update(&admin, "two", &json!({ "owner": wrong })).expect(400);
        }
        // What cannot be read is nobody's; written anew it is whose it was.
        let path = root.path("state/scheduler/nodes/two.json");
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, whole.replace('}', "")).unwrap();
        let all = json!({"uri": "http://127.0.0.1:10"});
        update(&ann, "two", &all).expect(403);
        assert_eq!(update(&admin, "two", &all).expect(200).json()["owner"], "ann");
        remove(&ann, "two").expect(200);
        root.check();
    });
}

#[test]
fn a_providers_node_runs_its_users_jobs_alone_until_it_is_opened() {
    both_ways(|root, door| {
        let (two, two_httpd, secret) = host("");
        let _poller = root.poller();
        drain_localhost(root);
        let ann = token(root, &["role=provider", "user=ann"]);
        let annes = token(root, &["role=user", "user=ann"]);
        let ben = token(root, &["role=user", "user=ben"]);
        let uri = format!("http://127.0.0.1:{}", two_httpd.port);
        let node = json!({"name": "two", "uri": uri, "token": secret});
        ask(door, &ann, "POST", "/scheduler/nodes/new", &node).expect(201);
        node_reaches(root, "two", "connected");
        let hidden =
            json!({"command": ["true"], "environment": {"SECRET": "of ben"}, "priority": 9});
        let bens = submit(root, &ben, &hidden);
        let array = json!({"command": ["true"], "array": "0-3", "priority": 9});
        let bens_array = submit(root, &ben, &array);
        let first = submit(root, &ann, &json!({"command": ["true"]}));
        let second = submit(root, &annes, &json!({"command": ["true"]}));
        let third = submit(root, &annes, &json!({"command": ["true"], "array": "0-3"}));
        for job in [first, second, third] {
            assert_eq!(root.reaches(job, "stopped")["status"], "good");
            assert_eq!(root.card(job)[1]["node"], "two");
        }
        for job in [bens, bens_array] {
            root.reason(job, "; node two takes only ann's jobs");
            let sizes = |token: &str| {
                let path = format!("/scheduler/nodes/list?job={job}");
                ask(door, token, "GET", &path, &Value::Null).expect(200).json()
            };
            assert_eq!(sizes(&ben)["nodes"], json!([]));
        }
        let own = submit(root, &annes, &json!({"command": ["true"], "state": "held"}));
        let path = format!("/scheduler/nodes/list?job={own}");
        let list = ask(door, &annes, "GET", &path, &Value::Null).expect(200).json();
        assert_eq!(list["nodes"][0]["name"], "two");
        // What a job submits is its owner's, and runs there, too.
        let (parent, key) = running(root, &annes, "key");
        let child = submit(root, &key, &json!({"command": ["true"]}));
        for job in [child, parent] {
            assert_eq!(root.reaches(job, "stopped")["status"], "good");
            assert_eq!(root.card(job)[1]["node"], "two");
            root.write("go", "");
        }
        // Nor is it chosen for what runs beside the board.
        let refused = root.cmd("nodemgr", &["jobs", "run", "-d", r#"{"command": ["true"]}"#]);
        assert_ne!(refused.code, 0, "{refused:?}");
        let runs = || {
            let dir = two.path("state/processor/job");
            let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
            let texts = names.map(|dir| fs::read_to_string(dir.join("request.json")).unwrap());
            texts.collect::<Vec<String>>()
        };
        assert!(!runs().is_empty());
        for request in runs() {
            assert!(!request.contains("of ben"), "{request}");
        }
        let numbers: Vec<String> =
            two.cmd("processor", &["jobs"]).expect(0).body.lines().map(str::to_string).collect();
        for id in &numbers {
            let job = id.rsplit(['-', '.']).nth(1).unwrap();
            assert!(![bens, bens_array].contains(&job.parse().unwrap()), "{numbers:?}");
        }
        root.cmd("scheduler", &["nodes", "two", "update", "-d", r#"{"owner": null}"#]).expect(0);
        for job in [bens, bens_array] {
            assert_eq!(root.reaches(job, "stopped")["status"], "good");
            assert_eq!(
                root.card(job).iter().find(|line| line["event"] == "placed").unwrap()["node"],
                "two"
            );
        }
        root.cmd("scheduler", &["jobs", &own.to_string(), "update", "kill=1"]).expect(0);
        until("nothing runs there", || two.supervisors().is_empty());
        root.check();
        two.check();
    });
}

#[test]
fn a_node_becomes_a_users_while_jobs_wait() {
    let root = TestRoot::new(CONF);
    let ann = token(&root, &["role=user", "user=ann"]);
    let ben = token(&root, &["role=user", "user=ben"]);
    let own = json!({"owner": "ann"}).to_string();
    root.cmd("scheduler", &["nodes", "localhost", "update", "-d", &own]).expect(0);
    let jobs: Vec<(u64, u64)> = (0..5)
        .map(|_| {
            let job = json!({"command": ["true"]});
            (submit(&root, &ben, &job), submit(&root, &ann, &job))
        })
        .collect();
    let poller = root.poller();
    for (bens, anns) in &jobs {
        root.reaches(*anns, "stopped");
        assert_eq!(root.status(*bens)["state"], "queued");
        root.reason(*bens, "no node has 1 core; node localhost takes only ann's jobs");
    }
    // What is nobody's any more: the owner of nothing has no node.
    let other = json!({"owner": "cleo"}).to_string();
    root.cmd("scheduler", &["nodes", "localhost", "update", "-d", &other]).expect(0);
    let anns = submit(&root, &ann, &json!({"command": ["true"]}));
    root.reason(anns, "node localhost takes only cleo's jobs");
    drop(poller);
    root.cmd("scheduler", &["nodes", "localhost", "update", "-d", r#"{"owner": "ben"}"#]).expect(0);
    root.cmd("poller", &["--once", "-q"]).expect(0);
    let _poller = root.poller();
    for (bens, _) in &jobs {
        root.reaches(*bens, "stopped");
    }
    assert_eq!(root.status(anns)["state"], "queued");
    root.cmd("scheduler", &["nodes", "localhost", "update", "-d", r#"{"owner": null}"#]).expect(0);
    root.reaches(anns, "stopped");
    root.check();
}
