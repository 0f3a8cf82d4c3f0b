//! Whose a job is: what its owner may, what others see, and how that is known of cards of 0.1.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use common::head::{CONF, open_root};
use common::rights::{ask, running, submit, token};
use common::{SOON, TestRoot, wait_for};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

#[test]
fn others_see_number_state_and_owner_alone() {
    let root = TestRoot::new(CONF);
    let _poller = root.poller();
    let ada = token(&root, &["role=user", "user=ada"]);
    let ben = token(&root, &["role=user", "user=ben"]);
    let get = |token: &str, path: &str| ask(&root, token, "GET", path, &Value::Null).expect(200);
    let start = get(&ben, "/scheduler/events").json()["cursor"].as_str().unwrap().to_string();
    let job = submit(&root, &ada, &json!({"command": ["sh", "-c", "exit 3"], "name": "hush"}));
    root.reaches(job, "stopped");
    let outside = json!({"state": "stopped", "status": "error", "owner": "ada"});
    assert_eq!(get(&ben, &format!("/scheduler/jobs/{job}/status")).json(), outside);
    assert_eq!(get(&ada, &format!("/scheduler/jobs/{job}/status")).json()["code"], 3);
    let mut listed = outside.clone();
    listed["job"] = json!(job);
    for path in [
        "/scheduler/jobs?format=json",
        "/scheduler/jobs?format=json&state=stopped",
        &format!("/scheduler/jobs/status?ids={job}"),
    ] {
        assert_eq!(get(&ben, path).json(), json!([listed]), "{path}");
    }
    assert_eq!(get(&ada, "/scheduler/jobs?format=json").json()[0]["owner"], "ada");
    let mut entry = listed;
    entry["valid"] = json!(false);
    assert_eq!(get(&ben, &format!("/scheduler/queue/{job}")).json(), entry);
    for format in ["json", "dot", "mermaid"] {
        let path = format!("/scheduler/jobs/{job}/graph?format={format}");
        assert!(!get(&ben, &path).body.contains("hush"), "{path}");
        assert!(get(&ada, &path).body.contains("hush"), "{path}");
    }
    let told = get(&ben, &format!("/scheduler/events?since={start}")).json();
    let told = told["events"].as_array().unwrap();
    assert!(told.len() >= 3, "{told:?}");
    for line in told {
        let names: Vec<&String> = line.as_object().unwrap().keys().collect();
        assert!(names.iter().all(|n| ["job", "state", "at", "event"].contains(&&***n)), "{line}");
    }
    let stream = get(&ben, &format!("/scheduler/events?since={start}&format=event-stream&wait=0"));
    assert!(stream.body.contains("\"event\":\"stopped\"") && !stream.body.contains("\"code\""));
    let own = get(&ada, &format!("/scheduler/events?since={start}"));
    assert!(own.body.contains("\"code\":3"), "{own:?}");
    root.check();
}

#[test]
fn a_job_that_is_shared() {
    let root = TestRoot::new(CONF);
    let ada = token(&root, &["role=user", "user=ada"]);
    let ben = token(&root, &["role=user", "user=ben"]);
    let viewer = token(&root, &["role=viewer", "user=ben"]);
    let held = |share: &str| json!({"command": ["true"], "state": "held", "share": share, "environment": {"PW": "x"}});
    let (read, control) = (held("read"), held("control"));
    let (read, control) = (submit(&root, &ada, &read), submit(&root, &ada, &control));
    let code = |token: &str, method: &str, path: String| {
        ask(&root, token, method, &path, &Value::Null).code
    };
    for (job, token, reads, changes) in [
        (read, &ben, 200, 403),
        (control, &ben, 200, 200),
        (read, &viewer, 200, 403),
        (control, &viewer, 200, 403),
        (read, &ada, 200, 200),
    ] {
        assert_eq!(code(token, "GET", format!("/scheduler/jobs/{job}")), reads);
        let record = ask(&root, token, "GET", &format!("/scheduler/jobs/{job}"), &Value::Null);
        let shown = if job == read && *token != ada || *token == viewer { "…" } else { "x" };
        assert_eq!(record.json()["request"]["environment"]["PW"], shown, "{job}");
        let change = format!("/scheduler/jobs/{job}/update?priority=2");
        assert_eq!(code(token, "POST", change), changes, "{job}");
    }
    let none = json!({"command": ["true"], "share": "all"});
    ask(&root, &ada, "POST", "/scheduler/jobs/new", &none).expect(400);
    let job = root.cmd("scheduler", &["jobs", "new", "-q", "--share", "read", "--", "true"]);
    let job = job.expect(0).body.trim().to_string();
    assert_eq!(code(&ben, "GET", format!("/scheduler/jobs/{job}")), 200);
    root.check();
}

#[test]
fn a_request_is_the_users_whatever_token_it_comes_with() {
    let root = TestRoot::new(CONF);
    let first = token(&root, &["role=user", "user=ada", "name=laptop"]);
    let second = token(&root, &["role=user", "user=ada", "name=desk"]);
    let other = token(&root, &["role=user", "user=ben"]);
    let request = json!({"command": ["true"], "state": "held", "request_id": "r"});
    let job = submit(&root, &first, &request);
    let again = ask(&root, &second, "POST", "/scheduler/jobs/new", &request).expect(200);
    assert_eq!(again.json()["job"], job);
    assert_eq!(submit(&root, &other, &request), job + 1, "another user's");
    assert_eq!(root.card(job)[0]["by"], "ada");
    let listed = root.cmd("scheduler", &["tokens"]).expect(0).json();
    let users: Vec<&Value> =
        listed["tokens"].as_array().unwrap().iter().map(|t| &t["user"]).collect();
    assert_eq!(users, ["ada", "ada", "ben"]);
    root.check();
}

#[test]
fn cards_from_before_there_were_users() {
    let root = TestRoot::new(CONF);
    let ada = token(&root, &["role=user", "name=ada"]);
    let ben = token(&root, &["role=user", "name=ben"]);
    let request = json!({"command": ["true"], "state": "held", "request_id": "r"});
    let job = submit(&root, &ada, &request);
    // As 0.1 wrote it, and claimed its request id.
    let id = ada.split('_').nth(1).unwrap();
    let former = format!("token ada ({id})");
    let card = format!("state/scheduler/queue/{job}.job");
    let text = root.read(&card).replace("\"by\":\"ada\"", &format!("\"by\":\"{former}\""));
    fs::write(root.path(&card), text).unwrap();
    let claim = |who: &str| {
        let digest = Sha256::digest(format!("{who}\0r").as_bytes());
        let name: String = digest[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        root.path(&format!("state/scheduler/requests/{name}"))
    };
    fs::rename(claim("ada"), claim(&former)).unwrap();
    root.check();
    let again = ask(&root, &ada, "POST", "/scheduler/jobs/new", &request).expect(200);
    assert_eq!(again.json()["job"], job);
    let path = format!("/scheduler/jobs/{job}");
    let record = ask(&root, &ada, "GET", &path, &Value::Null).expect(200).json();
    assert_eq!((&record["by"], &record["owner"]), (&json!(former), &json!("ada")));
    ask(&root, &ben, "GET", &path, &Value::Null).expect(403);
    // A child that a job submitted then says nothing of its owner.
    let child = submit(&root, &ada, &json!({"command": ["true"], "parent": job, "state": "held"}));
    let card = format!("state/scheduler/queue/{child}.job");
    let text = root.read(&card).replace("\"by\":\"ada\"", &format!("\"by\":\"job {job}\""));
    fs::write(root.path(&card), text).unwrap();
    let path = format!("/scheduler/jobs/{child}");
    let record = ask(&root, &ada, "GET", &path, &Value::Null).expect(200).json();
    assert_eq!(record["owner"], "ada");
    ask(&root, &ben, "GET", &path, &Value::Null).expect(403);
}

#[test]
fn a_child_is_its_parents_owners() {
    let root = TestRoot::new(CONF);
    let _poller = root.poller();
    let ada = token(&root, &["role=user", "user=ada"]);
    let ben = token(&root, &["role=user", "user=ben"]);
    let (job, key) = running(&root, &ada, "key");
    let child = submit(&root, &key, &json!({"command": ["true"], "state": "held"}));
    let line = &root.card(child)[0];
    assert_eq!((&line["by"], &line["owner"]), (&json!(format!("job {job}")), &json!("ada")));
    let others = submit(&root, &ben, &json!({"command": ["true"], "state": "held"}));
    let read = |token: &str, job: u64| {
        ask(&root, token, "GET", &format!("/scheduler/jobs/{job}"), &Value::Null).code
    };
    assert_eq!((read(&ada, child), read(&key, child), read(&ben, child)), (200, 200, 403));
    assert_eq!((read(&key, others), read(&key, job)), (403, 200));
    let kill = format!("/scheduler/jobs/{child}/update?kill=1");
    ask(&root, &ben, "POST", &kill, &Value::Null).expect(403);
    ask(&root, &ada, "POST", &kill, &Value::Null).expect(200);
    root.write("go", "");
    root.reaches(job, "stopped");
    root.check();
}

#[test]
fn what_was_submitted_in_open_mode_is_the_admins_afterwards() {
    let root = open_root("");
    let held = json!({"command": ["true"], "state": "held"}).to_string();
    let job = root.cgi("POST", "/scheduler/jobs/new", &[], held.as_bytes()).expect(201).json();
    fs::remove_file(root.path("state/open")).unwrap();
    let path = format!("/scheduler/jobs/{}", job["job"]);
    let user = token(&root, &["role=user", "name=open"]);
    let admin = token(&root, &["role=admin"]);
    ask(&root, &user, "GET", &path, &Value::Null).expect(403);
    assert_eq!(ask(&root, &admin, "GET", &path, &Value::Null).expect(200).json()["owner"], "open");
    for user in ["open", "job 1", "", "../x"] {
        let named = format!("user={user}");
        root.cmd("scheduler", &["tokens", "new", "role=user", &named]).expect(1);
    }
}

#[test]
fn a_job_is_nobodys_before_it_is_there() {
    let root = TestRoot::new(CONF);
    let ada = token(&root, &["role=user", "user=ada"]);
    let ben = token(&root, &["role=user", "user=ben"]);
    let done = AtomicBool::new(false);
    let next = AtomicU64::new(1);
    let until = Instant::now() + Duration::from_secs(60); // also where a submission fails
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Relaxed) && Instant::now() < until {
                    let job = next.load(Relaxed);
                    let path = format!("/scheduler/jobs/{job}");
                    let answer = ask(&root, &ben, "GET", &path, &Value::Null);
                    assert!([403, 404, 410].contains(&answer.code), "{answer:?}");
                    if answer.code == 403 {
                        next.fetch_max(job + 1, Relaxed);
                    }
                }
            });
        }
        for _ in 0..300 {
            submit(&root, &ada, &json!({"command": ["true"], "state": "held"}));
        }
        done.store(true, Relaxed);
    });
    root.check();
}

#[test]
fn a_node_tells_others_no_more_than_the_head() {
    let root = TestRoot::new(CONF);
    let _poller = root.poller();
    let ada = token(&root, &["role=user", "user=ada"]);
    let ben = token(&root, &["role=user", "user=ben"]);
    let head = token(&root, &["role=head"]);
    let start = ask(&root, &ben, "GET", "/processor/events", &Value::Null).json();
    let start = start["cursor"].as_str().unwrap().to_string();
    let job = submit(&root, &ada, &json!({"command": ["sh", "-c", "exit 42"]}));
    root.reaches(job, "stopped");
    let id = root.card(job)[1]["nodejob"].as_str().unwrap().to_string();
    let get = |token: &str, path: &str| ask(&root, token, "GET", path, &Value::Null).expect(200);
    for path in [
        format!("/processor/jobs/{id}/status"),
        format!("/processor/jobs/status?ids={id}"),
        "/processor/jobs?format=json".into(),
        format!("/processor/events?since={start}"),
        format!("/nodemgr/localhost/jobs/{id}/status"),
    ] {
        let said = get(&ben, &path);
        assert!(said.body.contains("stopped"), "{said:?}");
        for hidden in ["\"code\"", "\"pid\"", "reason", "cause"] {
            assert!(!said.body.replace(&id, "").contains(hidden), "{path}: {said:?}");
        }
    }
    assert_eq!(get(&head, &format!("/processor/jobs/{id}/status")).json()["code"], 42);
    assert_eq!(get(&ada, &format!("/nodemgr/localhost/jobs/{id}/status")).json()["code"], 42);
    // How it ends is told by the exit code of who waits, too.
    let waited = get(&ben, &format!("/scheduler/jobs/{job}/status?wait=1"));
    assert_eq!(waited.header("X-Corkboard-Exit-Code"), Some("1"));
    let sizes = format!("/scheduler/nodes/list?job={job}");
    ask(&root, &ben, "GET", &sizes, &Value::Null).expect(403);
    let child = json!({"command": ["true"], "parent": job});
    ask(&root, &ben, "POST", "/scheduler/jobs/new", &child).expect(403);
    root.check();
}

#[test]
fn what_a_head_has_run_beside_its_board_is_its_own() {
    let root = TestRoot::new(CONF);
    let head = token(&root, &["role=head"]);
    let run = json!({"command": ["sleep", "1000"], "request_id": "nodemgr-x"});
    ask(&root, &head, "POST", "/processor/jobs/new", &run).expect(201);
    ask(&root, &head, "GET", "/processor/jobs/nodemgr-x/log", &Value::Null).expect(200);
    ask(&root, &head, "POST", "/processor/jobs/nodemgr-x/kill", &Value::Null).expect(200);
    root.ended("nodemgr-x");
}

#[test]
fn what_a_user_has_a_node_run_is_theirs_to_read_and_to_end() {
    let root = TestRoot::new(CONF);
    let ada = token(&root, &["role=user", "user=ada"]);
    let ben = token(&root, &["role=user", "user=ben"]);
    let one = json!({"command": ["echo", "hi"], "request_id": "one"});
    ask(&root, &ada, "POST", "/processor/jobs/new", &one).expect(201);
    root.ended("one");
    for path in ["/processor/jobs/one/log", "/processor/jobs/one/log?follow=1"] {
        assert_eq!(ask(&root, &ada, "GET", path, &Value::Null).expect(200).body, "hi\n", "{path}");
        ask(&root, &ben, "GET", path, &Value::Null).expect(403);
    }
    assert_eq!(root.cmd("processor", &["jobs", "one", "log"]).expect(0).body, "hi\n");
    ask(&root, &ada, "POST", "/processor/jobs/new", &one).expect(200);
    ask(&root, &ben, "POST", "/processor/jobs/new", &one).expect(422);
    // Nobody says whose a run is but the node.
    let named = json!({"command": ["true"], "by": "ada"});
    ask(&root, &ben, "POST", "/processor/jobs/new", &named).expect(400);
    let range = json!({"command": ["sleep", "1000"], "request_id": "range", "tasks": "0-2"});
    ask(&root, &ada, "POST", "/processor/jobs/new", &range).expect(201);
    // One of its processes cannot be stopped alone, and so not by its pid.
    let pid = wait_for(SOON, || {
        let answer = ask(&root, &ada, "GET", "/processor/query_running", &Value::Null).expect(200);
        answer.json()["dataTable"][0]["pid"].as_i64().ok_or(answer.body)
    });
    let stopped = ask(&root, &ada, "POST", "/processor/stop", &json!({ "pid": pid })).expect(409);
    assert!(stopped.body.contains("one task of the range"), "{stopped:?}");
    ask(&root, &ada, "POST", "/processor/jobs/range/kill?task=1-2", &Value::Null).expect(200);
    let status = |token: &str| {
        ask(&root, token, "GET", "/processor/jobs/range/status?task=2", &Value::Null).expect(200)
    };
    wait_for(SOON, || match status(&ada).json() {
        told if told["cause"] == "killed" => Ok(()),
        told => Err(told.to_string()),
    });
    assert_eq!(status(&ben).json()["cause"], Value::Null);
    ask(&root, &ben, "POST", "/processor/jobs/range/kill", &Value::Null).expect(403);
    ask(&root, &ada, "POST", "/processor/jobs/range/kill", &Value::Null).expect(200);
    root.ended("range");
    // One that was accepted before runs said whose they are, repeated.
    let path = root.path("state/processor/job/one/request.json");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("\"by\":\"ada\""), "{text}");
    fs::write(&path, text.replace(",\"by\":\"ada\"", "")).unwrap();
    ask(&root, &ada, "POST", "/processor/jobs/new", &one).expect(200);
    root.check();
}

#[test]
fn what_open_mode_has_made_is_everybodys_while_it_is_on() {
    let root = open_root("");
    let ada = token(&root, &["role=user", "user=ada"]);
    let held = json!({"command": ["true"], "state": "held", "environment": {"A": "b"}});
    let made = root.cgi("POST", "/scheduler/jobs/new", &[], held.to_string().as_bytes());
    let job = made.expect(201).json()["job"].clone();
    let (card, update) =
        (format!("/scheduler/jobs/{job}"), format!("/scheduler/jobs/{job}/update?priority=3"));
    ask(&root, &ada, "GET", &card, &Value::Null).expect(200);
    ask(&root, &ada, "POST", &update, &Value::Null).expect(200);
    let listed = ask(&root, &ada, "GET", "/scheduler/jobs?format=json", &Value::Null).json();
    assert_eq!(listed[0]["priority"], 3, "{listed}");
    fs::remove_file(root.path("state/open")).unwrap();
    ask(&root, &ada, "GET", &card, &Value::Null).expect(403);
    ask(&root, &ada, "POST", &update, &Value::Null).expect(403);
    root.check();
}
