//! Who may do what on whose things: every route as every role, with what is theirs and what is another
//! user's.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use common::head::{CONF, open_root};
use common::rights::{ask, running, submit, token};
use common::{Answer, SOON, TestRoot, wait_for};
use corkboard::cgi::{Method, Program};
use corkboard::{nodemgr, processor, scheduler};
use serde_json::{Value, json};

/// Who asks, in the order of the columns of [`ROUTES`]; `reader` is an admin's token that only looks.
const ROLES: [&str; 10] =
    ["admin", "reader", "user", "provider", "viewer", "head", "worker", "join", "job", "run"];

const LOOK: &str = "AAAAAAA-A-";
const READ: &str = "AAOOO---O-";
const READ_RUN: &str = "AAOOOO--O-";
const SUBMIT: &str = "A-AA----A-";
const CONTROL: &str = "A-OO------";
const RUN: &str = "A-AA-A----";
const TEND: &str = "A-OO-O----";
const REPORT: &str = "A-OO----OO";
const NEW_NODE: &str = "A--A------";
const NODES: &str = "A--O------";
/// Whoever may read something reads the lines of their own; all are for admins.
const OWN_LINES: &str = "AAAAAA--A-";
const JOIN: &str = "------AA--";
const WORK: &str = "------O---";
const ADMIN: &str = "A---------";
const SHELL: &str = "----------";

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
    ("scheduler", "GET", "jobs/:number/explain", READ),
    ("scheduler", "GET", "queue", LOOK),
    ("scheduler", "GET", "queue/:number", LOOK),
    ("scheduler", "DELETE", "queue/:number", CONTROL),
    ("scheduler", "GET", "events", LOOK),
    ("scheduler", "GET", "nodes/list", LOOK),
    ("scheduler", "POST", "nodes/list", LOOK),
    ("scheduler", "POST", "nodes/new", NEW_NODE),
    ("scheduler", "POST", "nodes/join", JOIN),
    ("scheduler", "GET", "nodes/:name", LOOK),
    ("scheduler", "POST", "nodes/:name/update", NODES),
    ("scheduler", "POST", "nodes/:name/remove", NODES),
    ("scheduler", "POST", "nodes/:name/claim", WORK),
    ("scheduler", "GET", "nodes/:name/claim", WORK),
    ("scheduler", "POST", "nodes/:name/report", WORK),
    ("scheduler", "GET", "workers", LOOK),
    ("scheduler", "GET", "partitions", LOOK),
    ("scheduler", "POST", "partitions/new", ADMIN),
    ("scheduler", "GET", "partitions/:name", LOOK),
    ("scheduler", "POST", "partitions/:name/update", ADMIN),
    ("scheduler", "POST", "partitions/:name/remove", ADMIN),
    ("scheduler", "POST", "pause", ADMIN),
    ("scheduler", "POST", "resume", ADMIN),
    ("scheduler", "GET", "tokens", SHELL),
    ("scheduler", "POST", "tokens/new", ADMIN),
    ("scheduler", "POST", "tokens/:id/remove", SHELL),
    ("scheduler", "GET", "roles", LOOK),
    ("scheduler", "GET", "audit", OWN_LINES),
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
    ("processor", "POST", "start", RUN),
    ("processor", "POST", "stop", TEND),
    ("processor", "POST", "query_one", READ_RUN),
    ("processor", "GET", "query_running", LOOK),
    ("processor", "POST", "query_running", LOOK),
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
        let worker = token(&root, &["role=worker", "node=laps"]);
        let laps = json!({"name": "laps", "driver": "worker", "uri": "worker:w-1"}).to_string();
        root.cmd_in("scheduler", &["nodes", "new"], &laps).expect(0);
        let provider = token(&root, &["role=provider", "user=ada"]);
        let other = token(&root, &["role=provider", "user=ben"]);
        for (token, name) in [(&provider, "adas"), (&other, "bens")] {
            let node = json!({"name": name, "uri": "http://127.0.0.1:9"});
            ask(&root, token, "POST", "/scheduler/nodes/new", &node).expect(201);
        }
        let tokens = vec![
            token(&root, &["role=admin"]),
            token(&root, &["role=admin", "scope=read"]),
            ada,
            provider,
            token(&root, &["role=viewer", "user=ada"]),
            head,
            worker,
            token(&root, &["role=join", "node=adas"]),
            key,
            run_key,
        ];
        Scene { root, tokens, waiting, running: ids }
    }

    fn things(&self, program: &str, pattern: &str, role: &str) -> Things {
        let (own, other) = match (program, role) {
            ("scheduler", "provider") if pattern.starts_with("nodes") => {
                ("adas".into(), "bens".into())
            }
            ("scheduler", "worker") if pattern.starts_with("nodes") => {
                ("laps".into(), "bens".into())
            }
            ("scheduler", _) if pattern.starts_with("nodes") || pattern.starts_with("part") => {
                ("nowhere".into(), "nowhere".into())
            }
            ("scheduler", _) => (self.waiting.0.to_string(), self.waiting.1.to_string()),
            ("nodemgr", _) => self.running.clone(),
            (_, "head") => ("elsewhere-8.1".into(), "ada-run".into()),
            (_, "run") => ("elsewhere-9.1".into(), "ada-run".into()),
            (_, "job") => (self.running.0.clone(), "ben-run".into()),
            _ => ("ada-run".into(), "ben-run".into()),
        };
        Things { own, other }
    }

    /// The process of a run, which may have ended by now.
    fn pid(&self, run: &str) -> i64 {
        wait_for(SOON, || {
            let status = self.root.node_status(run);
            status["pid"].as_i64().ok_or_else(|| format!("{run}: {status}"))
        })
    }

    /// Asks for a route with this thing in it.
    fn ask(&self, program: &str, method: &str, pattern: &str, token: &str, thing: &str) -> Answer {
        let path = pattern
            .replace(":number", thing)
            .replace(":id", if pattern.starts_with("tokens") { "0000" } else { thing })
            .replace("files/:name", "files/none")
            .replace(":name", if program == "nodemgr" { "localhost" } else { thing });
        let number = match pattern {
            "jobs/run" => format!("?job-number={}", thing.rsplit(['-', '.']).nth(1).unwrap()),
            "jobs/:number/update" => "?priority=1".into(),
            _ => String::new(),
        };
        let path = format!("/{program}/{path}{number}");
        let body = match pattern {
            "jobs/ack" => json!({ "nodejobs": [thing] }),
            "jobs/:id/status" if method == "POST" => json!("half"),
            "stop" | "query_one" => json!({"pid": self.pid(thing)}),
            "start" => json!({"none": "such"}),
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
                let things = scene.things(name, pattern, role);
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
fn the_table_is_printed() {
    let root = open_root("");
    let table = root.cmd("scheduler", &["roles"]).expect(0).json();
    let rows = table["roles"].as_array().unwrap();
    let control = rows.iter().find(|row| row["need"] == "control").unwrap();
    assert_eq!((&control["user"], &control["viewer"]), (&json!("own"), &json!("-")));
    assert!(rows.iter().all(|row| row["shell"] == "all"));
}
