//! The walkthrough of the original, and everything around it: submitting, looking, reading logs,
//! uploading files, and the same from a shell without any server.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use common::head::{both_ways, open_root};
use common::{SOON, wait_for};
use serde_json::{Value, json};

#[test]
fn the_walkthrough() {
    both_ways("", |root, door| {
        let _poller = root.poller();
        // 1. and 2.: the request goes to the queue, and comes back with its number.
        let request = json!({"action": "add_job", "command": ["echo", "hello"]});
        let answer = door.post("/scheduler/jobs/new", &request).expect(201);
        let said = answer.json();
        assert_eq!((&said["job"], &said["command"]), (&json!(1), &json!(["echo", "hello"])));
        assert_eq!(said["action"], "add_job");
        assert!(!said["request_id"].as_str().unwrap().is_empty());
        assert!(answer.header("Location").unwrap().ends_with("/scheduler/jobs/1"), "{answer:?}");
        assert_eq!(answer.header("Content-Type"), Some("application/json"));
        // 3.: nodes, and a job placed on one by the node manager.
        let nodes = door.get("/scheduler/nodes/list").expect(200).json();
        let first = &nodes["nodes"][0];
        assert_eq!(
            (&first["name"], &first["hostname"]),
            (&json!("localhost"), &json!("localhost"))
        );
        assert_eq!(first["ipv4"], json!(["127.0.0.1"]));
        let by_hand = door
            .send("POST", "/nodemgr/jobs/run?job-number=2&json_data=%7B%22command%22%3A%5B%22true%22%5D%7D&node=localhost", &[], "")
            .expect(201)
            .json();
        let nodejob = &by_hand["nodejobs"][0];
        assert_eq!(nodejob["schedulerjob-idx"], "2");
        assert_eq!(nodejob["ipv4"], json!(["127.0.0.1"]));
        root.ended(nodejob["nodejob-idx"].as_str().unwrap());
        // 5. and 6.: the status, by both spellings of the path.
        let end = door.ended(1);
        assert_eq!((&end["state"], &end["status"]), (&json!("stopped"), &json!("good")));
        assert_eq!(
            (&end["node"], &end["cause"], &end["code"]),
            (&json!("localhost"), &json!("exit"), &json!(0))
        );
        assert!(end["created-at"].as_str().unwrap() <= end["stopped-at"].as_str().unwrap());
        assert_eq!(door.get("/scheduler/job/1/status").expect(200).json(), end);
        assert_eq!(door.get("/scheduler/jobs").expect(200).body, "1\n");
        assert_eq!(door.get("/scheduler/job/1/log").expect(200).body, "hello\n");
        // The card tells it all.
        assert_eq!(root.story(1), ["placed", "running", "stopped"]);
        assert_eq!(root.tree().replace("nodes/localhost.json\n", ""), "done/0/1.job\n");
        root.check();
    });
}

#[test]
fn a_request_id_names_one_job() {
    both_ways("", |root, door| {
        let request = json!({"command": ["true"], "request_id": "123456789"});
        let first = door.post("/scheduler/jobs/new", &request).expect(201).json();
        let again = door.post("/scheduler/jobs/new", &request).expect(200).json();
        assert_eq!(first, again);
        let other = json!({"command": ["false"], "request_id": "123456789"});
        let refused = door.post("/scheduler/jobs/new", &other).expect(422).json();
        assert_eq!(
            refused["error"],
            "request_id 123456789 was used for job 1 with another request"
        );
        // As another person, who need not know: the command's user is not the web's.
        assert_ne!(root.submit(&request), 1);
        // It stands when the job has ended.
        root.cmd("poller", &["--once"]).expect(0);
        wait_for(SOON, || {
            root.cmd("poller", &["--once"]).expect(0);
            let state = root.status(1)["state"].clone();
            if state == "stopped" { Ok(()) } else { Err(state.to_string()) }
        });
        assert_eq!(door.post("/scheduler/jobs/new", &request).expect(200).json(), first);
        let cards = root.tree().lines().filter(|name| name.ends_with(".job")).count();
        assert_eq!(cards, 2, "{}", root.tree());
        wait_for(SOON, || {
            root.cmd("poller", &["--once"]).expect(0);
            let running = root.cmd("scheduler", &["jobs", "state=stopped"]).body;
            if running.lines().count() == 2 { Ok(()) } else { Err(running) }
        });
        root.check();
    });
}

#[test]
fn curl_sends_a_form_type() {
    let root = open_root("");
    let httpd = root.httpd();
    root.write("job.json", "{\n  \"command\": [\"true\"]\n}\n");
    let file = format!("@{}", root.path("job.json").display());
    let answer = httpd.curl(&["-X", "POST", "-d", &file], "/scheduler/jobs/new").expect(201);
    assert_eq!(answer.json()["command"], json!(["true"]));
    assert_eq!(answer.header("Location"), Some("/cgi-bin/scheduler/jobs/1"));
    root.check();
}

#[test]
fn an_array_is_accepted_whole_or_not_at_all() {
    both_ways("max_jobs_per_request = 3\n", |root, door| {
        let new = |body: Value| door.post("/scheduler/jobs/new", &body);
        let jobs = json!([{"command": ["true"]}, {"command": ["echo", "two"]}]);
        let all = new(jobs).expect(201).json();
        assert_eq!((&all[0]["job"], &all[1]["job"]), (&json!(1), &json!(2)));
        assert_eq!(all[1]["command"], json!(["echo", "two"]));
        let bad = new(json!([{"command": ["true"]}, {"command": []}])).expect(400).json();
        assert_eq!(bad["error"], "job 2 of the array: a command must name a program");
        new(json!([])).expect(400);
        let many =
            new(json!([{"command": "a"}, {"command": "b"}, {"command": "c"}, {"command": "d"}]));
        assert!(many.expect(400).body.contains("max_jobs_per_request"));
        assert_eq!(door.get("/scheduler/queue").expect(200).body, "1\n2\n");

        let named = json!([{"command": ["true"], "request_id": "a"}, {"command": ["false"], "request_id": "b"}]);
        let first = new(named.clone()).expect(201).json();
        assert_eq!(new(named).expect(200).json(), first);
        for (body, code) in [
            // Another request under a known id; a new id among known ones; one id for two jobs.
            (
                json!([{"command": ["x"], "request_id": "a"}, {"command": ["false"], "request_id": "b"}]),
                422,
            ),
            (
                json!([{"command": ["true"], "request_id": "a"}, {"command": ["x"], "request_id": "c"}]),
                422,
            ),
            (
                json!([{"command": ["true"], "request_id": "d"}, {"command": ["true"], "request_id": "d"}]),
                400,
            ),
            (json!([{"command": ["true"], "request_id": "e"}, {"command": ["true"]}]), 400),
        ] {
            new(body).expect(code);
        }
        let listed = door.get("/scheduler/jobs").expect(200).body;
        assert_eq!(listed.lines().count(), 4, "{listed}");
        // What was refused left no claim behind: these ids are free.
        new(json!({"command": ["x"], "request_id": "c"})).expect(201);
        new(json!({"command": ["x"], "request_id": "d"})).expect(201);
        root.check();
    });
}

#[test]
fn looking_at_jobs() {
    both_ways("", |root, door| {
        let held = json!({"command": ["true"], "state": "held", "name": "later", "priority": 3});
        assert_eq!(door.submit(&held), 1);
        assert_eq!(door.submit(&json!({"command": ["true"]})), 2);
        let record = door.get("/scheduler/jobs/1").expect(200);
        assert_eq!(record.header("ETag"), Some("\"1-0\""));
        let record = record.json();
        assert_eq!(record["request"], held);
        assert_eq!((&record["state"], &record["priority"]), (&json!("held"), &json!(3)));
        assert_eq!(record["reason"], "held by open until released");
        assert_eq!(record["attempts"], json!([]));
        assert_eq!(door.get("/scheduler/jobs?limit=1").expect(200).body, "2\n");
        assert_eq!(door.get("/scheduler/jobs?state=held").expect(200).body, "1\n");
        let list = door.get("/scheduler/jobs?format=json").expect(200).json();
        assert_eq!((&list[0]["job"], &list[1]["name"]), (&json!(2), &json!("later")));
        let entry = door.get("/scheduler/queue/2").expect(200).json();
        assert_eq!(
            (&entry["valid"], &entry["reason"]),
            (&json!(true), &json!("no poller is running"))
        );

        let gone = door.send("DELETE", "/scheduler/queue/2", &[], "").expect(200).json();
        assert_eq!((&gone["cause"], &gone["reason"]), (&json!("killed"), &json!("killed by open")));
        let header = [("X-HTTP-Method-Override", "DELETE")];
        door.send("POST", "/scheduler/queue/1", &header, "").expect(200);
        let again = door.send("POST", "/scheduler/queue/1", &header, "").expect(409).json();
        assert!(again["error"].as_str().unwrap().contains("waits no more, it is stopped"));
        let entry = door.get("/scheduler/queue/2").expect(200).json();
        assert_eq!((&entry["valid"], &entry["state"]), (&json!(false), &json!("stopped")));
        assert_eq!(door.get("/scheduler/queue").expect(200).body, "");
        for path in [
            "/scheduler/jobs/3",
            "/scheduler/jobs/0/status",
            "/scheduler/queue/x",
            "/scheduler/jobs/-1/log",
        ] {
            door.get(path).expect(404);
        }
        root.check();
    });
}

#[test]
fn logs() {
    both_ways("", |root, door| {
        let _poller = root.poller();
        assert_eq!(door.submit(&json!({"command": "echo one; echo two; echo three >&2"})), 1);
        let split = json!({"command": "echo out; echo err >&2", "output": "split"});
        assert_eq!(door.submit(&split), 2);
        door.ended(1);
        door.ended(2);
        let log = |query: &str| door.get(&format!("/scheduler/jobs/1/log{query}")).expect(200);
        let whole = log("");
        assert_eq!(
            (whole.body.as_str(), whole.header("X-Corkboard-Offset")),
            ("one\ntwo\nthree\n", Some("14"))
        );
        assert_eq!(log("?tail=1").body, "three\n");
        assert_eq!(log("?tail=2").body, "two\nthree\n");
        let piece = log("?offset=4&limit=3");
        assert_eq!((piece.body.as_str(), piece.header("X-Corkboard-Offset")), ("two", Some("7")));
        assert_eq!(log("?offset=14").body, "");
        assert_eq!(log("?follow=1").body, "one\ntwo\nthree\n");
        for (stream, text) in [("stdout", "out\n"), ("stderr", "err\n")] {
            let path = format!("/scheduler/jobs/2/log?stream={stream}");
            assert_eq!(door.get(&path).expect(200).body, text);
        }
        for query in ["stream=both", "offset=x", "tail=-1", "follow=perhaps", "follow=1&limit=2"] {
            door.get(&format!("/scheduler/jobs/1/log?{query}")).expect(400);
        }
        // Followed while it runs: the job ends only after the reader has its first line.
        let go = root.path("go");
        let script =
            format!("echo begin; until [ -e {} ]; do sleep 0.02; done; echo end", go.display());
        let job = door.submit(&json!({"command": script}));
        std::thread::scope(|scope| {
            let path = format!("/scheduler/jobs/{job}/log?follow=1");
            let reader = scope.spawn(move || door.get(&path));
            wait_for(SOON, || if root.log(job) == "begin\n" { Ok(()) } else { Err(root.tree()) });
            std::fs::write(&go, "").unwrap();
            assert_eq!(reader.join().unwrap().expect(200).body, "begin\nend\n");
        });
        door.ended(job);
        root.check();
    });
}

#[test]
fn files_travel_with_the_job() {
    for driver in ["local", "http"] {
        let root = open_root("");
        let httpd = root.httpd();
        if driver == "http" {
            let node = json!({"name": "localhost", "uri": httpd.url().replace("/cgi-bin", "")});
            root.cmd_in("scheduler", &["nodes", "new"], &node.to_string()).expect(0);
        }
        root.write("input.dat", "some input\n");
        root.write("job.json", r#"{"command": "pwd; cat input.dat; echo more > 'a result'"}"#);
        let job = format!("job=@{}", root.path("job.json").display());
        let file = format!("file=@{}", root.path("input.dat").display());
        httpd.curl(&["-F", &job, "-F", &file], "/scheduler/jobs/new").expect(201);
        let names = httpd.curl(&[], "/scheduler/jobs/1/files").expect(200).json();
        assert_eq!(names, json!({"files": ["input.dat"]}));
        let _poller = root.poller();
        assert_eq!(root.reaches(1, "stopped")["status"], "good", "{driver}");
        let log = httpd.curl(&[], "/scheduler/jobs/1/log").expect(200).body;
        let (dir, rest) = log.split_once('\n').unwrap();
        assert!(dir.ends_with("/work"), "{log}");
        assert_eq!(rest, "some input\n");
        let names = httpd.curl(&[], "/scheduler/jobs/1/files").expect(200).json();
        assert_eq!(names, json!({"files": ["a result", "input.dat"]}));
        for (name, text) in [("a%20result", "more\n"), ("input.dat", "some input\n")] {
            let path = format!("/scheduler/jobs/1/files/{name}");
            assert_eq!(httpd.curl(&[], &path).expect(200).body, text);
        }
        httpd.curl(&[], "/scheduler/jobs/1/files/none").expect(404);
        wait_for(SOON, || {
            if root.exists("state/scheduler/files/1") { Err(root.tree()) } else { Ok(()) }
        });
        root.check();
    }
}

#[test]
fn a_job_of_the_board_is_placed_by_its_number() {
    both_ways("", |root, door| {
        let run = |job: u64| {
            let path = format!("/nodemgr/jobs/run?job-number={job}");
            door.send("POST", &path, &[], "")
        };
        let held = json!({"command": "true", "state": "held"});
        let jobs = [
            door.submit(&json!({"command": ["echo", "placed"]})),
            door.submit(&held),
            door.submit(&json!({"command": "true", "requested_resources": {"cores": 512}})),
        ];
        // Nobody is at work: a round is made for it.
        let placed = run(jobs[0]).expect(201).json();
        let nodejob = &placed["nodejobs"][0];
        assert_eq!(nodejob["schedulerjob-idx"], "1");
        assert_eq!(
            (&nodejob["node"], &nodejob["hostname"]),
            (&json!("localhost"), &json!("localhost"))
        );
        assert_eq!(nodejob["ipv4"], json!(["127.0.0.1"]));
        let id = nodejob["nodejob-idx"].as_str().unwrap();
        assert!(id.ends_with("-1.1"), "{placed}");
        assert_eq!(root.ended(id)["status"], "good");
        assert_eq!(run(jobs[0]).expect(200).json(), placed);
        let _poller = root.poller();
        let next = door.submit(&json!({"command": "true"}));
        run(next); // 201, or 200 where it was placed by itself
        assert_eq!(door.ended(next)["status"], "good");
        assert!(run(jobs[1]).expect(409).body.contains("is held"));
        let late = run(jobs[2]).expect(503).body;
        assert!(late.contains("goes on waiting"), "{late}");
        run(99).expect(404);
        // Placement chooses where.
        door.send("POST", "/nodemgr/jobs/run?job-number=2&node=localhost", &[], "").expect(400);
        for job in &jobs[1..] {
            root.update(*job, "kill=1").expect(0);
        }
        run(jobs[1]).expect(409);
        root.check();
    });
}

#[test]
fn statuses_of_all_recent_jobs_of_a_node() {
    both_ways("", |root, door| {
        let none = door.get("/processor/jobs/status").expect(200).json();
        assert_eq!(none, json!([]));
        for id in ["first", "second"] {
            let request =
                json!({"commands": [{"exec": ["true"]}], "environment": {}, "request_id": id});
            door.post("/processor/job/new", &request).expect(201);
            root.ended(id);
        }
        let all = door.get("/processor/jobs/status").expect(200).json();
        let ids: Vec<&Value> = all.as_array().unwrap().iter().map(|one| &one["id"]).collect();
        assert_eq!(ids, ["second", "first"]);
        assert_eq!(all[0], door.get("/processor/jobs/status?ids=second").expect(200).json()[0]);
        let one = door.get("/processor/jobs/status?limit=1").expect(200).json();
        assert_eq!(one.as_array().unwrap().len(), 1);
    });
}
