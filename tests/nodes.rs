//! Nodes: registering them, placing jobs on several hosts, and nodes that are gone, silent, refuse,
//! or speak nonsense.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::io::{Read, Write};
use std::net::TcpListener;

use common::head::{both_ways, drain_localhost, host, node_reaches, open_root, register};
use common::{SOON, lives, until, wait_for};
use serde_json::{Value, json};

#[test]
fn registering() {
    both_ways("", |root, door| {
        let node = json!({"name": "n1", "uri": "http://127.0.0.1:9/", "ipv4": ["127.0.0.1"], "hostname": "n1.internal", "token": "secret-of-n1"});
        let new = |node: &Value| door.post("/scheduler/nodes/new", node);
        let answer = new(&node).expect(201);
        assert_eq!(answer.header("Location"), Some("/cgi-bin/scheduler/nodes/n1"));
        assert!(!answer.body.contains("secret-of-n1"), "{answer:?}");
        assert!(!root.read("state/scheduler/nodes/n1.json").contains("secret-of-n1"));
        assert_eq!(root.read("state/secrets/nodes/n1"), "secret-of-n1\n");
        new(&node).expect(200);
        new(&json!({"name": "n1", "uri": "http://127.0.0.1:10"})).expect(409);
        for (wrong, part) in [
            (json!({"uri": "http://x"}), "a node needs a name"),
            (json!({"name": "../x", "uri": "http://x"}), "a node needs a name"),
            (json!({"name": "x"}), "an http node needs a uri"),
            (json!({"name": "job", "uri": "http://x"}), "a node cannot be called job"),
            (json!({"name": "x", "uri": "file:///etc"}), "uri must be like"),
            (json!({"name": "x", "uri": "http://a@b"}), "uri must be like"),
            (json!({"name": "x", "driver": "local", "uri": "http://x"}), "a local node has no uri"),
            (json!({"name": "x", "driver": "magic"}), "unknown variant"),
            (json!({"name": "x", "uri": "http://x", "state": "connected"}), "unknown field "),
            (json!({"name": "x", "uri": "http://x", "token": "a b"}), "token must be"),
            (json!(["x"]), "must be a JSON object"),
        ] {
            let said = new(&wrong).expect(400).body;
            assert!(said.contains(part), "{wrong}: {said}");
        }
        let list = door.get("/scheduler/nodes/list").expect(200).json();
        let names: Vec<&Value> =
            list["nodes"].as_array().unwrap().iter().map(|n| &n["name"]).collect();
        assert_eq!(names, ["localhost", "n1"]);

        let update = |body: &Value| door.post("/scheduler/nodes/n1/update", body);
        let changed =
            update(&json!({"resources": {"cores": 4, "memory": "2 GiB"}, "hostname": null}))
                .expect(200)
                .json();
        assert_eq!((&changed["resources"]["cores"], &changed["hostname"]), (&json!(4), &json!("")));
        update(&json!({"name": "n2"})).expect(400);
        update(&json!({"uri": null})).expect(400);
        assert!(root.exists("state/secrets/nodes/n1"), "a token stays unless it is changed");
        update(&json!({"token": null})).expect(200);
        assert!(!root.exists("state/secrets/nodes/n1"));
        door.post("/scheduler/nodes/none/update", &json!({})).expect(404);

        // Large enough for a job: by size, whether they answer or not, unless they are drained.
        let job = door.submit(&json!({"command": ["true"], "requested_resources": {"cores": 3}}));
        let fit = || door.get(&format!("/scheduler/nodes/list?job={job}")).expect(200).json();
        assert_eq!(fit()["nodes"][0]["name"], "n1");
        update(&json!({"drain": true})).expect(200);
        assert_eq!(fit(), json!({"nodes": []}));
        door.get("/scheduler/nodes/list?job=77").expect(404);

        let removed = door.post("/scheduler/nodes/n1/remove", &Value::Null).expect(200).json();
        assert_eq!(removed["name"], "n1");
        door.get("/scheduler/nodes/n1").expect(404);
        door.post("/scheduler/nodes/n1/remove", &Value::Null).expect(404);
        root.check();
    });
}

#[test]
fn two_hosts() {
    let root = open_root("");
    let (other, httpd, token) = host("");
    let _there = other.poller();
    let _here = root.poller();
    let node = json!({"name": "other", "uri": httpd.url(), "token": token});
    register(&root, &node);
    let seen = node_reaches(&root, "other", "connected");
    assert_eq!(seen["resources"], json!({"cores": 2, "memory": 4u64 << 30}));
    let script = format!(
        "echo here; until [ -e {} ]; do sleep 0.02; done; echo done",
        root.path("go").display()
    );
    let jobs: Vec<u64> = (0..4).map(|_| root.submit(&json!({"command": script}))).collect();
    let mut there = Vec::new();
    for job in &jobs {
        if root.reaches(*job, "running")["node"] == "other" {
            there.push(*job);
        }
    }
    assert_eq!(there.len(), 2, "two cores each");
    until("it has written", || root.log(there[0]) == "here\n");
    let refused = root.cmd("scheduler", &["nodes", "other", "remove"]).expect(1);
    assert!(refused.stderr.contains("drain it with"), "{refused:?}");

    // Its server goes away: the jobs keep their state, and say why nothing is heard of them.
    let port = httpd.port;
    httpd.cut();
    let status = root.reason(there[0], "node other is disconnected since ");
    assert_eq!((&status["state"], &status["status"]), (&json!("running"), &json!("unknown")));
    root.cmd("scheduler", &["jobs", &there[0].to_string(), "log"]).expect(75);
    root.update(there[1], "kill=1").expect(0);
    root.write("go", ""); // the first one ends while nobody can ask
    let own = jobs.iter().filter(|job| !there.contains(job));
    for job in own {
        assert_eq!(root.reaches(*job, "stopped")["node"], "localhost");
    }
    assert_eq!(root.status(there[1])["state"], "stopping");
    let more = root.submit(&json!({"command": ["true"]}));
    assert_eq!(root.reaches(more, "stopped")["node"], "localhost");
    let id =
        root.cmd("scheduler", &["jobs", &there[0].to_string()]).json()["attempts"][0]["nodejob"]
            .clone();
    other.ended(id.as_str().unwrap());
    assert_eq!(root.status(there[0])["state"], "running");

    let _httpd = other.httpd_on(port);
    let end = root.reaches(there[0], "stopped");
    assert_eq!((&end["status"], &end["node"]), (&json!("good"), &json!("other")));
    assert_eq!(root.log(there[0]), "here\ndone\n");
    // It may have ended by itself before the kill came: the first end stands.
    let end = root.reaches(there[1], "stopped");
    assert!(end["cause"] == "killed" || end["cause"] == "exit", "{end}");
    root.cmd("scheduler", &["nodes", "other", "remove"]).expect(0);
    root.check();
    other.check();
}

#[test]
fn a_node_that_stays_away_loses_its_jobs() {
    let root = open_root("lost_after = 1s\n");
    let (other, httpd, token) = host("");
    drain_localhost(&root);
    register(&root, &json!({"name": "other", "uri": httpd.url(), "token": token}));
    let _poller = root.poller();
    let request = json!({"command": ["sleep", "100"], "max_retry_count": 2});
    let lost = root.submit(&request);
    let killed = root.submit(&request);
    root.reaches(lost, "running");
    root.reaches(killed, "running");
    let port = httpd.port;
    httpd.cut();
    node_reaches(&root, "other", "disconnected");
    root.cmd("scheduler", &["jobs", &killed.to_string(), "update", "kill=1"]);
    let end = root.reaches(lost, "stopped");
    assert_eq!(
        (&end["cause"], &end["reason"]),
        (&json!("lost"), &json!("abandoned (node unreachable)"))
    );
    assert_eq!(end["attempt"], 1, "an unproven loss is not retried");
    let end = root.reaches(killed, "stopped");
    assert_eq!(
        end["cause"],
        if end["reason"].as_str().unwrap().starts_with("killed by") { "killed" } else { "lost" }
    );
    // When it is back, what was given up is killed there.
    let _httpd = other.httpd_on(port);
    node_reaches(&root, "other", "connected");
    for job in [lost, killed] {
        let id = root.card(job)[1]["nodejob"].as_str().unwrap().to_string();
        assert_eq!(other.ended(&id)["cause"], "killed");
    }
    assert_eq!(root.status(lost)["cause"], "lost", "the first end stands");
    root.check();
    other.check();
}

#[test]
fn a_node_that_refuses() {
    let root = open_root("");
    let (other, httpd, token) = host("");
    drain_localhost(&root);
    register(&root, &json!({"name": "other", "uri": httpd.url()}));
    let _poller = root.poller();
    let job = root.submit(&json!({"command": ["true"]}));
    let node = node_reaches(&root, "other", "disconnected");
    assert!(
        node["reason"].as_str().unwrap().starts_with("node other says 401: send a token as"),
        "{node}"
    );
    root.reason(
        job,
        "nodes with 1 core take no new jobs (drain): localhost; other nodes did not answer yet",
    );
    let asked = root.cmd("nodemgr", &["other", "jobs"]).expect(1);
    assert!(asked.stderr.contains("401"), "{asked:?}");
    // A wrong token, then the right one.
    let update = |token: &str| {
        let body = json!({"token": token}).to_string();
        root.cmd("scheduler", &["nodes", "other", "update", "-d", &body]).expect(0);
    };
    update("cb_00000000_00");
    wait_for(SOON, || {
        let node = root.cmd("scheduler", &["nodes", "other"]).expect(0).json();
        if node["reason"].as_str().unwrap_or("").contains("is not known here") {
            Ok(())
        } else {
            Err(node.to_string())
        }
    });
    update(&token);
    assert_eq!(root.reaches(job, "stopped")["status"], "good");
    // A role that may look but not run: the attempt is refused, and tried again elsewhere later.
    let worker = other.cmd("processor", &["tokens", "new", "role=worker", "-q"]).expect(0).body;
    update(worker.trim());
    let tokens = other.cmd("processor", &["tokens"]).expect(0).json();
    let id =
        tokens["tokens"].as_array().unwrap().iter().find(|t| t["role"] == "admin").unwrap()["id"]
            .clone();
    other.cmd("processor", &["tokens", "rm", &format!("id={}", id.as_str().unwrap())]).expect(0);
    let job = root.submit(&json!({"command": ["true"]}));
    let status = root.reason(job, "not started on other: node other says 403");
    assert_eq!(status["state"], "queued");
    assert_eq!(root.story(job)[..2], ["placed", "refused"]);
    let can = other.cmd("processor", &["tokens", "new", "role=head", "-q"]).expect(0).body;
    update(can.trim());
    assert_eq!(root.reaches(job, "stopped")["status"], "good");
    root.check();
    other.check();
}

#[test]
fn a_node_that_says_nothing() {
    let root = open_root("request_timeout = 400ms\nconnect_timeout = 400ms\n");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap(); // connections wait in its backlog
    let uri = format!("http://{}", silent.local_addr().unwrap());
    register(
        &root,
        &json!({"name": "silent", "uri": uri, "resources": {"cores": 64, "memory": "1 GiB"}}),
    );
    let _poller = root.poller();
    let node = node_reaches(&root, "silent", "disconnected");
    assert!(node["reason"].as_str().unwrap().contains("does not answer: timeout"), "{node}");
    // Nobody else is held up.
    let job = root.submit(&json!({"command": ["true"]}));
    assert_eq!(root.reaches(job, "stopped")["node"], "localhost");
    let large = root.submit(&json!({"command": ["true"], "requested_resources": {"cores": 9}}));
    root.reason(large, "nodes with 9 cores do not answer: silent");
    root.cmd("nodemgr", &["silent", "jobs"]).expect(75);
    root.update(large, "kill=1").expect(0);
    root.check();
}

/// A server that answers every request with these bytes.
fn fake(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 65536]);
            let _ = stream.write_all(answer);
        }
    });
    uri
}

#[test]
fn nodes_that_speak_nonsense() {
    let root = open_root("request_timeout = 2s\n");
    let answers: [(&str, &[u8], &str); 5] = [
        ("html", b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\nConnection: close\r\n\r\n<h1>Hello</h1>", "answers nonsense"),
        ("shape", b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\nConnection: close\r\n\r\n{\"cores\": 99}", "answers nonsense"),
        ("noise", b"\x00\xff\x07 what? \r\n\r\n", "does not answer"),
        ("nothing", b"", "does not answer"),
        ("elsewhere", b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "says 302"),
    ];
    let _poller = root.poller();
    for (name, answer, part) in answers {
        register(&root, &json!({"name": name, "uri": fake(answer)}));
        let node = node_reaches(&root, name, "disconnected");
        assert!(node["reason"].as_str().unwrap().contains(part), "{node}");
        let asked = root.cmd("nodemgr", &[name, "x-1.1", "status"]);
        assert_ne!(asked.code, 0, "{asked:?}");
    }
    let job = root.submit(&json!({"command": ["true"]}));
    assert_eq!(root.reaches(job, "stopped")["node"], "localhost");
    root.check();
}

#[test]
fn the_node_manager() {
    both_ways("", |root, door| {
        let (other, httpd, token) = host("");
        register(root, &json!({"name": "other", "uri": httpd.url(), "token": token}));
        for name in ["localhost", "other"] {
            let on = |path: &str| format!("/node/{name}/{path}");
            let info = door.get(&format!("/nodemgr/{name}")).expect(200).json();
            assert_eq!(info["resources"]["cores"], 2);
            assert_eq!(door.get(&on("jobs")).expect(200).body, "");
            let request = json!({"command": "echo hi; exec sleep 100", "request_id": "one"});
            let answer = door.post(&on("jobs/new"), &request).expect(201).json();
            assert_eq!(answer["nodejobs"][0]["nodejob-idx"], "one");
            door.post(&on("jobs/new"), &request).expect(201);
            door.post(&on("jobs/new"), &json!({"command": ["x"], "request_id": "one"})).expect(422);
            let forged = json!({"command": ["x"], "request_id": "lab-7f3k-2.1"});
            door.post(&on("jobs/new"), &forged).expect(403);
            assert_eq!(door.get(&on("jobs")).expect(200).body, "one\n");
            wait_for(SOON, || {
                let log = door.get(&on("jobs/one/log")).expect(200).body;
                if log == "hi\n" { Ok(()) } else { Err(log) }
            });
            assert_eq!(door.get(&on("jobs/one/status")).expect(200).json()["state"], "running");
            door.post(&on("jobs/one/kill?grace=2"), &Value::Null).expect(200);
            wait_for(SOON, || {
                let status = door.get(&on("jobs/one/status")).expect(200).json();
                if status["cause"] == "killed" { Ok(()) } else { Err(status.to_string()) }
            });
            door.get(&on("jobs/none/status")).expect(404);
            // An unknown id is refused from now on.
            door.post(&on("jobs/late/kill"), &Value::Null).expect(200);
            door.get(&on("jobs/late/status")).expect(410);
            door.post(&on("jobs/new"), &json!({"command": ["true"], "request_id": "late"}))
                .expect(410);
        }
        door.get("/node/none/jobs").expect(404);
        assert_eq!(door.get("/node").expect(200).json()["nodes"][1]["name"], "other");
        root.check();
        other.check();
    });
}

#[test]
fn nodemgr_as_a_command() {
    let root = open_root("");
    let run = [
        "jobs",
        "run",
        "job-number=2",
        r#"json_data={"command":["echo","x y"],"request_id":"r2"}"#,
        "node=localhost",
    ];
    let answer = root.cmd("nodemgr", &run).expect(0).json();
    let expected = json!({"nodejobs": [{"nodejob-idx": "r2", "schedulerjob-idx": "2",
        "node": "localhost", "hostname": "localhost", "ipv4": ["127.0.0.1"]}]});
    assert_eq!(answer, expected);
    root.ended("r2");
    assert_eq!(root.cmd("node", &["localhost", "jobs", "r2", "log"]).expect(0).body, "x y\n");
    // The best node: known once a poller has looked.
    root.cmd("poller", &["--once"]).expect(0);
    let request = r#"{"command": ["true"]}"#;
    let id = root.cmd("nodemgr", &["jobs", "run", "-q", "-d", request]).expect(0).body;
    root.ended(id.trim());
    root.cmd("nodemgr", &["jobs", "run", "job-number=x", "-d", request]).expect(1);
    root.cmd("nodemgr", &["jobs", "run", "json_data=x"]).expect(1);
    root.cmd("nodemgr", &["jobs", "run", "node=none", "-d", request]).expect(1);
    root.check();
}

#[test]
fn a_follow_outlasts_a_silent_node() {
    let (there, httpd, token) = host("");
    let root = open_root("");
    register(
        &root,
        &json!({"name": "other", "uri": httpd.url().replace("/cgi-bin", ""), "token": token}),
    );
    drain_localhost(&root);
    let go = there.path("go");
    let script = format!("echo one; until [ -e {} ]; do sleep 0.02; done; echo two", go.display());
    let job = root.submit(&json!({"command": script}));
    let _poller = root.poller();
    root.reaches(job, "running");
    let id = root.card(job)[1]["nodejob"].as_str().unwrap().to_string();
    let words = ["jobs", &job.to_string(), "log", "follow=1"];
    let mut follow = root.start_into("followed", "scheduler", &words);
    until("it has followed to the node", || root.read("followed") == "one\n");
    let port = httpd.port;
    httpd.cut();
    there.write("go", "");
    there.ended(&id);
    node_reaches(&root, "other", "disconnected");
    assert!(lives(follow.id() as i32), "it goes on: {}", root.read("followed"));
    let _httpd = there.httpd_on(port);
    assert!(follow.wait().unwrap().success());
    assert_eq!(root.read("followed"), "one\ntwo\n");
}
