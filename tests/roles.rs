//! Who may do what on whose things: every route as every role, with what is theirs and what is another
//! user's.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs;

use common::head::{CONF, open_root};
use common::{Answer, SOON, TestRoot, wait_for};
use corkboard::cgi::{Method, Program};
use corkboard::{nodemgr, processor, scheduler};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Who asks, in the order of the columns of [`ROUTES`]; `reader` is an admin's token that only looks.
const ROLES: [&str; 8] = ["admin", "reader", "user", "viewer", "head", "worker", "job", "run"];

const LOOK: &str = "AAAAAAA-";
const READ: &str = "AAOO--O-";
const READ_RUN: &str = "AAOOO-O-";
const SUBMIT: &str = "A-A---A-";
const CONTROL: &str = "A-O-----";
const RUN: &str = "A-A-A---";
const TEND: &str = "A-O-O---";
const REPORT: &str = "A-O---OO";
const ADMIN: &str = "A-------";
const SHELL: &str = "--------";

/// Program, method, pattern; for each role whether it may do that to all (`A`), to its own (`O`) or not.
const ROUTES: &[(&str, &str, &str, &str)] = &[
    ("scheduler", "POST", "jobs/new", SUBMIT),
    ("scheduler", "GET", "jobs", LOOK),
    ("scheduler", "GET", "jobs/status", LOOK),
    ("scheduler", "GET", "jobs/:number", READ),
    ("scheduler", "GET", "jobs/:number/status", LOOK),
    ("scheduler", "POST", "jobs/:number/update", CONTROL),
    ("scheduler", "GET", "jobs/:number/log", READ),
    ("scheduler", "GET", "jobs/:number/files", READ),
    ("scheduler", "GET", "jobs/:number/files/:name", READ),
    ("scheduler", "GET", "jobs/:number/graph", LOOK),
    ("scheduler", "GET", "queue", LOOK),
    ("scheduler", "GET", "queue/:number", LOOK),
    ("scheduler", "DELETE", "queue/:number", CONTROL),
    ("scheduler", "GET", "events", LOOK),
    ("scheduler", "GET", "nodes/list", LOOK),
    ("scheduler", "POST", "nodes/new", ADMIN),
    ("scheduler", "GET", "nodes/:name", LOOK),
    ("scheduler", "POST", "nodes/:name/update", ADMIN),
    ("scheduler", "POST", "nodes/:name/remove", ADMIN),
    ("scheduler", "GET", "tokens", SHELL),
    ("scheduler", "POST", "tokens/new", SHELL),
    ("scheduler", "POST", "tokens/:id/remove", SHELL),
    ("scheduler", "GET", "roles", LOOK),
    ("scheduler", "GET", "check", SHELL),
    ("processor", "POST", "jobs/new", RUN),
    ("processor", "GET", "jobs", LOOK),
    ("processor", "GET", "jobs/status", LOOK),
    ("processor", "GET", "jobs/:id", READ_RUN),
    ("processor", "GET", "jobs/:id/status", LOOK),
    ("processor", "POST", "jobs/:id/status", REPORT),
    ("processor", "GET", "jobs/:id/log", READ_RUN),
    ("processor", "GET", "jobs/:id/files", READ_RUN),
    ("processor", "GET", "jobs/:id/files/:name", READ_RUN),
    ("processor", "POST", "jobs/:id/kill", TEND),
    ("processor", "POST", "jobs/ack", TEND),
    ("processor", "GET", "info", LOOK),
    ("processor", "GET", "events", LOOK),
    ("processor", "GET", "check", SHELL),
    ("processor", "GET", "tokens", SHELL),
    ("processor", "POST", "tokens/new", SHELL),
    ("processor", "POST", "tokens/:id/remove", SHELL),
    ("nodemgr", "GET", "", LOOK),
    ("nodemgr", "GET", "list", LOOK),
    ("nodemgr", "POST", "jobs/run", CONTROL),
    ("nodemgr", "GET", ":name", LOOK),
    ("nodemgr", "GET", ":name/jobs", LOOK),
    ("nodemgr", "POST", ":name/jobs/new", ADMIN),
    ("nodemgr", "GET", ":name/jobs/:id/status", LOOK),
    ("nodemgr", "GET", ":name/jobs/:id/log", READ),
    ("nodemgr", "POST", ":name/jobs/:id/kill", CONTROL),
];

fn token(root: &TestRoot, words: &[&str]) -> String {
    let words = [&["tokens", "new", "-q"], words].concat();
    root.cmd("scheduler", &words).expect(0).body.trim().to_string()
}

fn ask(root: &TestRoot, token: &str, method: &str, path: &str, body: &Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let bearer = format!("Bearer {token}");
    root.cgi(method, path, &[("Authorization", &bearer)], body.as_bytes())
}

fn submit(root: &TestRoot, token: &str, request: &Value) -> u64 {
    let answer = ask(root, token, "POST", "/scheduler/jobs/new", request);
    answer.expect(201).json()["job"].as_u64().unwrap()
}

/// A job that runs until `go` is there, and the key of its attempt.
fn running(root: &TestRoot, token: &str, name: &str) -> (u64, String) {
    let file = root.path(name);
    let script = format!(
        "echo $CORKBOARD_TOKEN > {0}.new; mv {0}.new {0}; until [ -e {1} ]; do sleep 0.02; done",
        file.display(),
        root.path("go").display()
    );
    let job = submit(root, token, &json!({"command": script}));
    let key = wait_for(SOON, || {
        let key = root.read(name);
        if key.is_empty() { Err(root.tree()) } else { Ok(key.trim().to_string()) }
    });
    (job, key)
}

/// What is theirs, and what is another user's, of what a route is about.
struct Things {
    own: String,
    other: String,
}

/// A root in which each role has something that is its own.
struct Scene {
    root: TestRoot,
    tokens: Vec<String>,
    /// Jobs of ada's and ben's that wait, and attempts of theirs that run.
    waiting: (u64, u64),
    running: (String, String),
}

impl Scene {
    fn new() -> Scene {
        let root = TestRoot::new(&CONF.replace("cores = 2", "cores = 8"));
        let _poller = root.poller();
        let ada = token(&root, &["role=user", "user=ada"]);
        let ben = token(&root, &["role=user", "user=ben"]);
        let head = token(&root, &["role=head", "user=other-head"]);
        let (ada_runs, key) = running(&root, &ada, "ada.key");
        let (ben_runs, _) = running(&root, &ben, "ben.key");
        let of = |job: u64| root.card(job)[1]["nodejob"].as_str().unwrap().to_string();
        let ids = (of(ada_runs), of(ben_runs));
        let held = json!({"command": ["true"], "state": "held", "environment": {"SECRET": "x"}});
        let waiting = (submit(&root, &ada, &held), submit(&root, &ben, &held));
        // What they have run here without the board, and what another root's head has.
        let until = format!("until [ -e {} ]; do sleep 0.02; done", root.path("go").display());
        for (token, id) in [(&ada, "ada-run"), (&ben, "ben-run")] {
            let run = json!({"command": until, "request_id": id});
            ask(&root, token, "POST", "/processor/jobs/new", &run).expect(201);
        }
        let run_key = format!("cbkey_elsewhere-9.1_{}", "0".repeat(64));
        // One to be ended, and one whose key speaks to the end.
        for (id, key) in [("elsewhere-8.1", "none"), ("elsewhere-9.1", &run_key)] {
            let run = json!({"command": until, "request_id": id,
                             "environment": {"CORKBOARD_TOKEN": key}});
            ask(&root, &head, "POST", "/processor/jobs/new", &run).expect(201);
        }
        let tokens = vec![
            token(&root, &["role=admin"]),
            token(&root, &["role=admin", "scope=read"]),
            ada,
            token(&root, &["role=viewer", "user=ada"]),
            head,
            token(&root, &["role=worker"]),
            key,
            run_key,
        ];
        Scene { root, tokens, waiting, running: ids }
    }

    fn things(&self, program: &str, role: &str) -> Things {
        let (own, other) = match (program, role) {
            ("scheduler", _) => (self.waiting.0.to_string(), self.waiting.1.to_string()),
            ("nodemgr", _) => self.running.clone(),
            (_, "head") => ("elsewhere-8.1".into(), "ada-run".into()),
            (_, "run") => ("elsewhere-9.1".into(), "ada-run".into()),
            (_, "job") => (self.running.0.clone(), "ben-run".into()),
            _ => ("ada-run".into(), "ben-run".into()),
        };
        Things { own, other }
    }

    /// Asks for a route with this thing in it.
    fn ask(&self, program: &str, method: &str, pattern: &str, token: &str, thing: &str) -> Answer {
        let path = pattern
            .replace(":number", thing)
            .replace(":id", if pattern.starts_with("tokens") { "0000" } else { thing })
            .replace("files/:name", "files/none")
            .replace(":name", if program == "nodemgr" { "localhost" } else { "nowhere" });
        let number = match pattern {
            "jobs/run" => format!("?job-number={}", thing.rsplit(['-', '.']).nth(1).unwrap()),
            "jobs/:number/update" => "?priority=1".into(),
            _ => String::new(),
        };
        let path = format!("/{program}/{path}{number}");
        let body = match pattern {
            "jobs/ack" => json!({ "nodejobs": [thing] }),
            "jobs/:id/status" if method == "POST" => json!("half"),
            _ if method == "POST" && pattern.ends_with("new") => json!({"none": "such"}),
            _ => Value::Null,
        };
        ask(&self.root, token, method, &path, &body)
    }
}

fn method(method: Method) -> &'static str {
    method.name()
}

#[test]
fn every_route_as_every_role() {
    let scene = Scene::new();
    let mut untold: Vec<_> = ROUTES.to_vec();
    let mut wrong = Vec::new();
    for program in [&scheduler::PROGRAM, &processor::PROGRAM, &nodemgr::PROGRAM] as [&Program; 3] {
        for route in program.routes {
            let this = (program.name, method(route.method), route.pattern);
            let at = untold
                .iter()
                .position(|(name, method, pattern, _)| (*name, *method, *pattern) == this);
            let Some(at) = at else {
                panic!("{this:?} is not in this table: say who may do that");
            };
            let (name, method, pattern, row) = untold.remove(at);
            for ((role, token), may) in ROLES.iter().zip(&scene.tokens).zip(row.chars()) {
                let things = scene.things(name, role);
                for (thing, allowed) in
                    [(&things.other, may == 'A'), (&things.own, may == 'A' || may == 'O')]
                {
                    let answer = scene.ask(name, method, pattern, token, thing);
                    let refused = answer.code == 403;
                    if refused == allowed || answer.code == 401 || answer.code >= 500 {
                        wrong.push(format!("{this:?} as {role}, {thing}: {answer:?}"));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(untold.is_empty(), "no such routes: {untold:?}");
    scene.root.write("go", "");
}

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
    let held = |share: &str| json!({"command": ["true"], "state": "held", "share": share});
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
fn the_table_is_printed() {
    let root = open_root("");
    let table = root.cmd("scheduler", &["roles"]).expect(0).json();
    let rows = table["roles"].as_array().unwrap();
    let control = rows.iter().find(|row| row["need"] == "control").unwrap();
    assert_eq!((&control["user"], &control["viewer"]), (&json!("own"), &json!("-")));
    assert!(rows.iter().all(|row| row["shell"] == "all"));
}
