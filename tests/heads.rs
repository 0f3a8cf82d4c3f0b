//! What is for heads alone, and what for the jobs that they send: ids of heads on a node, and where a
//! running attempt submits.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs;

use common::head::{CONF, register};
use common::{TestRoot, until};
use serde_json::json;

fn token(root: &TestRoot, words: &[&str]) -> String {
    let words = [&["tokens", "new", "-q"], words].concat();
    root.cmd("scheduler", &words).expect(0).body.trim().to_string()
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

#[test]
fn ids_of_heads_are_for_heads() {
    let root = TestRoot::new(CONF);
    let httpd = root.httpd();
    let [user, old, head, admin, worker] = ["user", "user", "head", "admin", "worker"]
        .map(|role| token(&root, &[&format!("role={role}")]));
    // As 0.1 made it: heads had the role user.
    let record = format!("state/tokens/{}", old.split('_').nth(1).unwrap());
    let now = root.read(&record);
    assert!(now.contains(r#","head":false"#), "{now}");
    root.write(&record, &now.replace(r#","head":false"#, ""));
    let ask =
        |token: &str, path: &str, body: &str| httpd.curl(&["-H", &bearer(token), "-d", body], path);
    let new = |id: &str| format!(r#"{{"command":["true"],"request_id":"{id}"}}"#);
    let name = "lab-7f3k-2";
    for (attempt, token) in [(1, &old), (2, &head), (3, &admin)] {
        let id = format!("{name}.{attempt}");
        ask(token, "/processor/jobs/new", &new(&id)).expect(201);
        root.ended(&id);
        ask(token, &format!("/processor/jobs/{id}/kill?by=ada"), "").expect(200);
        let ack = json!({"nodejobs": [id]}).to_string();
        assert_eq!(ask(token, "/processor/jobs/ack", &ack).expect(200).json()["acknowledged"], 1);
        ask(token, &format!("/processor/jobs/{name}.{}/kill", attempt + 10), "").expect(200);
    }
    ask(&head, "/scheduler/jobs/new", r#"{"command":["true"]}"#).expect(403);
    for token in [&user, &worker] {
        ask(token, "/processor/jobs/new", &new(&format!("{name}.4"))).expect(403);
        ask(token, &format!("/processor/jobs/{name}.1/kill"), "").expect(403);
        ask(token, &format!("/processor/jobs/{name}.4/kill"), "").expect(403);
        ask(token, "/processor/jobs/ack", &json!({"nodejobs": [format!("{name}.1")]}).to_string())
            .expect(403);
    }
    // Nor by this root's own head, to which they are another's.
    ask(&user, &format!("/nodemgr/localhost/jobs/{name}.1/kill"), "").expect(403);
    ask(&admin, &format!("/nodemgr/localhost/jobs/{name}.1/kill"), "").expect(200);
    // Of many, each for itself.
    let many = format!("[{},{}]", new("mine"), new(&format!("{name}.4")));
    let said = ask(&user, "/processor/jobs/new", &many).expect(200).json();
    assert_eq!(
        (&said["nodejobs"][0]["state"], &said["nodejobs"][1]["code"]),
        (&json!("queued"), &json!(403))
    );
    assert!(!root.exists(&format!("state/processor/job/{name}.4")));
    root.ended("mine");
    ask(&user, "/processor/jobs/mine/kill?by=ada", "").expect(403);
    ask(&user, "/processor/jobs/mine/kill", "").expect(200);
    root.check();
}

#[test]
fn a_running_attempt_submits_at_its_head_alone() {
    let mut root = TestRoot::new(CONF);
    let httpd = root.httpd();
    let _poller = root.poller();
    let script = format!(
        "echo $CORKBOARD_TOKEN > {0}.new; mv {0}.new {0}; until [ -e {1} ]; do sleep 0.02; done",
        root.path("key").display(),
        root.path("go").display()
    );
    let job = root.submit(&json!({"command": script}));
    until("it runs", || root.exists("key"));
    let key = root.read("key").trim().to_string();
    for body in [r#"{"command":["true"]}"#, r#"[{"command":["true"]}]"#] {
        let refused = httpd.curl(&["-H", &bearer(&key), "-d", body], "/processor/jobs/new");
        let refused = refused.expect(403);
        assert!(refused.body.contains("scheduler/jobs/new"), "{refused:?}");
        httpd.curl(&["-H", &bearer(&key), "-d", body], "/scheduler/jobs/new").expect(201);
    }
    root.env.push(("CORKBOARD_TOKEN".into(), key));
    root.cmd("processor", &["jobs", "new", "--", "true"]).expect(1);
    root.cmd_in("processor", &["jobs", "new"], r#"{"command":["true"]}"#).expect(1);
    root.env.clear();
    root.write("go", "");
    for job in job..=job + 2 {
        root.reaches(job, "stopped");
    }
    root.check();
}

/// What a head has sent is its own, and the node's admins'; what 0.1 was sent is every head's.
#[test]
fn heads_that_share_a_node_are_kept_from_each_others_runs() {
    let root = TestRoot::new(CONF);
    let httpd = root.httpd();
    let [one, two] =
        ["one", "two"].map(|user| token(&root, &["role=head", &format!("user={user}")]));
    let again = token(&root, &["role=head", "user=one"]);
    let unnamed = token(&root, &["role=head"]);
    let admin = token(&root, &["role=admin"]);
    let ask = |token: &str, path: &str, body: Option<&str>| {
        let body = body.map_or(vec![], |body| vec!["-d", body]);
        httpd.curl(&[&["-H", &bearer(token)], &body[..]].concat(), path)
    };
    let new = |id: &str| format!(r#"{{"command":"echo said; sleep 1000","request_id":"{id}"}}"#);
    let ack = |id: &str| json!({"nodejobs": [id]}).to_string();
    let id = "lab-7f3k-2.1";
    ask(&one, "/processor/jobs/new", Some(&new(id))).expect(201);
    until("it runs", || root.node_status(id)["state"] == "running");
    let of = |id: &str, what: &str| format!("/processor/jobs/{id}{what}");
    for stranger in [&two, &unnamed] {
        for what in ["", "/log"] {
            ask(stranger, &of(id, what), None).expect(403);
        }
        ask(stranger, &of(id, "/kill?by=ada"), Some("")).expect(403);
        ask(stranger, "/processor/jobs/ack", Some(&ack(id))).expect(403);
        ask(stranger, "/processor/jobs/new", Some(&new(id))).expect(422);
    }
    for own in [&one, &again, &admin] {
        ask(own, &of(id, ""), None).expect(200);
        ask(own, &of(id, "/log"), None).expect(200);
    }
    ask(&again, "/processor/jobs/new", Some(&new(id))).expect(200);
    // Whoever sent it before runs said whose they are.
    let request = format!("state/processor/job/{id}/request.json");
    let said = root.read(&request);
    assert!(said.contains(r#""by":"one""#), "{said}");
    fs::write(root.path(&request), said.replace(r#","by":"one""#, "")).unwrap();
    ask(&two, &of(id, ""), None).expect(200);
    fs::write(root.path(&request), said).unwrap();
    ask(&again, &of(id, "/kill?by=ada&grace=0"), Some("")).expect(200);
    assert_eq!(root.ended(id)["reason"], "killed by ada");
    ask(&one, "/processor/jobs/ack", Some(&ack(id))).expect(200);
    // One that is not here may yet come, from whomever.
    ask(&two, &of("lab-7f3k-2.2", "/kill?by=bo"), Some("")).expect(200);
    root.check();
}

/// Nobody else would tell the processor of this root, whose server is asked where a poller is at work.
#[test]
fn without_a_poller_a_kill_ends_what_runs_here_under_the_address_of_its_own_server() {
    let root = TestRoot::new(CONF);
    root.open();
    let httpd = root.httpd();
    let url = httpd.url();
    root.write("corkboard.conf", &format!("{CONF}advertise = {url}\n"));
    register(&root, &json!({"name": "localhost", "uri": url}));
    let poller = root.poller();
    let job = root.submit(&json!({"command": "sleep 1000"}));
    root.reaches(job, "running");
    let placed = root.card(job)[1].clone();
    assert_eq!(placed["driver"], "http", "{placed}");
    poller.end("KILL");
    root.update(job, "kill=1").expect(0);
    assert_eq!(root.ended(placed["nodejob"].as_str().unwrap())["cause"], "killed");
    let _poller = root.poller();
    assert_eq!(root.reaches(job, "stopped")["cause"], "killed");
    root.check();
}
