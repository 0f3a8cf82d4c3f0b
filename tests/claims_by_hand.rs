//! A node that nobody reaches, played by hand: what it asks and is answered, and what the head makes of it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

use common::head::{CONF, Door, drain_localhost, node_reaches};
use common::rights::token;
use common::{Answer, SOON, TestRoot, let_pass, wait_for};
use corkboard::model::proof;
use nix::fcntl::{Flock, FlockArg};
use serde_json::{Value, json};

/// A worker that is only what it sends.
struct Worker<'d> {
    door: &'d Door<'d>,
    token: String,
    name: &'static str,
    /// The fields that say who it is.
    who: Value,
}

impl Worker<'_> {
    fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        let bearer = format!("Bearer {}", self.token);
        self.door.send(method, path, &[("Authorization", &bearer)], body)
    }

    fn post(&self, path: &str, more: &Value) -> Answer {
        let mut body = self.who.clone();
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.ask("POST", &format!("/scheduler/nodes/{}/{path}", self.name), &body.to_string())
    }

    fn claim(&self, more: &Value) -> Value {
        self.post("claim", more).expect(200).json()
    }

    /// The next order to this path, of a worker that has none in hand.
    fn order(&self, path: &str) -> Value {
        wait_for(SOON, || {
            let got = self.claim(&json!({"wait_ms": 5000}));
            let orders = got["orders"].as_array().unwrap();
            let found =
                orders.iter().find(|order| order["path"].as_str().unwrap().starts_with(path));
            found.cloned().ok_or_else(|| {
                for order in orders {
                    self.answer(order, 200, json!([])); // about what it does not know
                }
                got.to_string()
            })
        })
    }

    fn answer(&self, order: &Value, status: u16, body: Value) {
        let answer = json!({"order": order["order"], "status": status, "body": body});
        self.post("report", &json!({"answers": [answer]})).expect(200);
    }

    fn report(&self, order: &Value, more: &str, body: &str) -> Answer {
        let id = order["order"].as_str().unwrap();
        self.ask("POST", &format!("/scheduler/nodes/{}/report?order={id}{more}", self.name), body)
    }
}

/// Runs a test twice, each time in a closed root of its own: bare CGI, and through a web server.
fn both_ways(test: impl Fn(&TestRoot, &Door)) {
    let root = TestRoot::new(CONF);
    test(&root, &Door::Bare(&root));
    let root = TestRoot::new(CONF);
    let httpd = root.httpd();
    test(&root, &Door::Web(&httpd));
}

fn joined<'d>(root: &TestRoot, door: &'d Door<'d>, name: &'static str) -> Worker<'d> {
    let join = token(root, &["role=join", &format!("node={name}")]);
    let bearer = format!("Bearer {join}");
    let node = json!({"name": name, "driver": "worker", "uri": "worker:w-1"}).to_string();
    let said = door.send("POST", "/scheduler/nodes/join", &[("Authorization", &bearer)], &node);
    let token = said.expect(201).json()["token"].as_str().unwrap().to_string();
    Worker { door, token, name, who: json!({"root": "w-1", "session": "s1", "boot": "b1"}) }
}

fn info(cores: u64) -> Value {
    json!({"resources": {"cores": cores, "memory": 1 << 30}, "labels": {}})
}

#[test]
fn who_may_ask_for_orders() {
    both_ways(|root, door| {
        let worker = joined(root, door, "lap");
        // Nobody else may, whatever else they may; nor by a token that is for another node.
        for words in [&["role=admin"][..], &["role=worker"], &["role=worker", "node=other"]] {
            let other = Worker { token: token(root, words), who: worker.who.clone(), ..worker };
            for path in ["claim", "report"] {
                other.post(path, &json!({})).expect(403);
            }
            other.ask("GET", "/scheduler/nodes/lap/claim?order=x", "").expect(403);
        }
        let stranger = token(root, &["role=worker", "node=localhost"]);
        let local =
            Worker { token: stranger, name: "localhost", who: worker.who.clone(), ..worker };
        local.post("claim", &json!({})).expect(404);
        worker.post("claim", &json!({"root": "w-2"})).expect(409);
        worker.post("claim", &json!({"root": 7})).expect(400);
        assert!(!root.exists("state/scheduler/workers"), "nothing was made for them");

        let shown = |state: &str| {
            let all = root.cmd("scheduler", &["workers"]).expect(0).json();
            assert_eq!(
                (&all["workers"][0]["id"], &all["workers"][0]["state"]),
                (&json!("lap"), &json!(state))
            );
            all["workers"][0].clone()
        };
        shown("disconnected");
        let first = worker.claim(&json!({"anew": true, "info": info(2), "wait_ms": 0}));
        assert_eq!((&first["orders"], first.get("superseded")), (&json!([]), None));
        assert!(first["ping_ms"] == 5000 && first["cluster"].is_string(), "{first}");
        let one = shown("connected");
        assert!(one["tasks"] == 0 && one["since"].is_string(), "{one}");
        // Another process of another machine is refused while this one asks; one of the same takes over.
        let other = |session: &str, boot: &str| {
            worker.post("claim", &json!({"session": session, "boot": boot, "wait_ms": 0}))
        };
        let refused = other("s2", "b2").expect(409);
        assert!(refused.body.contains("another worker of this name is at work"), "{refused:?}");
        other("s2", "b1").expect(200);
        // Who takes leave is not waited for.
        worker.post("report", &json!({"leaving": true})).expect(200);
        shown("disconnected");
        other("s3", "b2").expect(200);
        // A claim that is overtaken gets nothing.
        thread::scope(|scope| {
            let older = scope
                .spawn(|| worker.claim(&json!({"session": "s4", "boot": "b2", "wait_ms": 5000})));
            wait_for(SOON, || {
                let session = root.read("state/scheduler/workers/lap/session");
                if session.contains("s4") { Ok(()) } else { Err(session) }
            });
            other("s5", "b2").expect(200);
            assert_eq!(older.join().unwrap()["superseded"], true);
        });
        let dir = std::fs::metadata(root.path("state/scheduler/workers/lap")).unwrap();
        assert_eq!(dir.permissions().mode() & 0o777, 0o700);
        root.check();
        root.cmd("scheduler", &["nodes", "lap", "remove"]).expect(0);
        assert!(!root.exists("state/scheduler/workers/lap"));
        worker.post("claim", &json!({})).expect(401);
    });
}

#[test]
fn a_job_is_ordered_until_it_is_answered() {
    both_ways(|root, door| {
        let worker = joined(root, door, "lap");
        worker.claim(&json!({"anew": true, "info": info(2), "wait_ms": 0}));
        drain_localhost(root);
        let _poller = root.poller();
        node_reaches(root, "lap", "connected");
        let request = json!({"command": ["true"]}).to_string();
        let job = root.cmd_in("scheduler", &["jobs", "new", "-q"], &request).expect(0).body;
        let job: u64 = job.trim().parse().unwrap();
        let order = worker.order("jobs/new");
        assert_eq!(order["method"], "POST");
        let run = &order["body"][0];
        let id = run["request_id"].as_str().unwrap();
        assert!(id.ends_with(&format!("-{job}.1")), "{order}");
        // It comes again, unless the worker says that it has it.
        let id_of = |got: &Value| got["orders"][0]["order"].clone();
        assert_eq!(id_of(&worker.claim(&json!({"wait_ms": 0}))), order["order"]);
        let have = worker.claim(&json!({"wait_ms": 0, "have": [order["order"]]}));
        assert_eq!(have["orders"], json!([]), "{have}");
        assert_eq!(id_of(&worker.claim(&json!({"wait_ms": 0}))), order["order"]);
        let got = format!("state/scheduler/workers/lap/got/{}", order["order"].as_str().unwrap());
        assert!(root.exists(&got));
        worker.answer(&order, 201, json!({"nodejobs": [{"id": id, "state": "queued"}]}));
        assert!(!root.exists(&got));
        // What happens is told in its feed, twice at times.
        let proof = proof::of_request(run.to_string().as_bytes()).unwrap();
        let event = |state: &str, more: Value| {
            let mut event = json!({"id": id, "state": state, "status": "unknown",
                                   "at": "2026-01-31T12:00:00.000Z", "proof": proof});
            event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            event
        };
        let running = event("running", json!({"pid": 7}));
        worker.post("report", &json!({"events": [running, running]})).expect(200);
        root.reaches(job, "running");
        // A log is asked for, and the answer comes by itself.
        thread::scope(|scope| {
            let log = scope.spawn(|| root.log(job));
            let asked = worker.order(&format!("jobs/{id}/log"));
            worker.report(&asked, "&offset=6", "hello\n").expect(200);
            assert_eq!(log.join().unwrap(), "hello\n");
            worker.report(&asked, "&offset=6", "hello\n").expect(410);
            worker.report(&json!({"order": "../x"}), "", "x").expect(400);
        });
        let ended = event("stopped", json!({"status": "error", "cause": "exit", "code": 3}));
        let forged =
            event("stopped", json!({"status": "good", "cause": "exit", "code": 0, "proof": "0"}));
        worker.post("report", &json!({"events": [forged]})).expect(200);
        worker.post("report", &json!({"events": [ended]})).expect(200);
        let stopped = wait_for(SOON, || {
            let status = root.status(job);
            if status["state"] == "stopped" {
                return Ok(status);
            }
            let got = worker.claim(&json!({"wait_ms": 100}));
            for order in got["orders"].as_array().unwrap() {
                worker.answer(order, 200, json!([ended])); // it asks about what was forged
            }
            Err(status.to_string())
        });
        assert_eq!((&stopped["code"], &stopped["node"]), (&json!(3), &json!("lap")));
        // That its result is safe.
        let ack = worker.order("jobs/ack");
        assert_eq!(ack["body"]["nodejobs"][0], *id);
        worker.answer(&ack, 200, json!({"acknowledged": 1}));
        root.check();
    });
}

#[test]
fn one_that_asks_no_more_is_disconnected() {
    both_ways(|root, door| {
        root.write("corkboard.conf", &format!("{CONF}ping_timer = 500ms\nsilence_timeout = 1s\n"));
        let worker = joined(root, door, "lap");
        drain_localhost(root);
        let _poller = root.poller();
        let claim = || worker.claim(&json!({"info": info(2), "wait_ms": 5000}));
        wait_for(SOON, || {
            claim();
            let node = root.cmd("scheduler", &["nodes", "lap"]).expect(0).json();
            if node["state"] == "connected" { Ok(()) } else { Err(node.to_string()) }
        });
        let node = node_reaches(root, "lap", "disconnected");
        assert!(node["reason"].as_str().unwrap().contains("has not asked for"), "{node}");
        // What was to be asked of it meanwhile is refused at once, and nothing is left in its box.
        let request = json!({"command": ["true"]}).to_string();
        root.cmd_in("nodemgr", &["lap", "jobs", "new"], &request).expect(75);
        let asked = |place: &str| {
            let dir = root.path(&format!("state/scheduler/workers/lap/{place}"));
            std::fs::read_dir(dir).unwrap().count()
        };
        assert_eq!((asked("ask"), asked("got"), asked("say")), (0, 0, 0));
        claim();
        wait_for(SOON, || {
            claim();
            let node = root.cmd("scheduler", &["nodes", "lap"]).expect(0).json();
            if node["state"] == "connected" { Ok(()) } else { Err(node.to_string()) }
        });
        root.check();
    });
}

/// A worker whose node is connected, and a job that was ordered of it.
fn ordered(root: &TestRoot, worker: &Worker) -> u64 {
    wait_for(SOON, || {
        worker.claim(&json!({"info": info(2), "wait_ms": 0}));
        let node = root.cmd("scheduler", &["nodes", "lap"]).expect(0).json();
        if node["state"] == "connected" { Ok(()) } else { Err(node.to_string()) }
    });
    let job = root.submit(&json!({"command": ["true"]}));
    wait_for(SOON, || {
        worker.post("report", &json!({})).expect(200); // it is there, and asks for nothing
        let ask = root.path("state/scheduler/workers/lap/ask");
        let orders = std::fs::read_dir(ask).unwrap().flatten();
        let runs = orders.filter(|order| {
            std::fs::read_to_string(order.path()).unwrap_or_default().contains("\"runs\"")
        });
        if runs.count() == 1 { Ok(()) } else { Err(root.tree()) }
    });
    job
}

const QUICK: &str = "ping_timer = 1s\nsilence_timeout = 3s\nrequest_timeout = 2s\n";

#[test]
fn what_was_not_fetched_has_not_run_and_goes_elsewhere_or_ends() {
    for (ends, door) in [(false, "bare"), (true, "web")] {
        let root = TestRoot::new(CONF);
        let conf = format!("{CONF}{QUICK}dead_timeout = 4s\ndead_timeout_ends = {ends}\n");
        root.write("corkboard.conf", &conf);
        let httpd = (door == "web").then(|| root.httpd());
        let door = httpd.as_ref().map_or(Door::Bare(&root), Door::Web);
        let worker = joined(&root, &door, "lap");
        drain_localhost(&root);
        let _poller = root.poller();
        let job = ordered(&root, &worker);
        root.reaches(job, "placed");
        let open = r#"{"drain": false}"#;
        root.cmd("scheduler", &["nodes", "localhost", "update", "-d", open]).expect(0);
        let status = root.reaches(job, "stopped");
        let story = root.story(job);
        if ends {
            assert_eq!(status["cause"], "expired", "{status}");
            let why = status["reason"].as_str().unwrap();
            assert!(why.contains("did not fetch it within 4s"), "{status}");
            assert_eq!(story, ["placed", "stopped"]);
        } else {
            assert_eq!((&status["node"], &status["status"]), (&json!("localhost"), &json!("good")));
            assert_eq!(story[..3], ["placed", "refused", "placed"]);
        }
        // It comes back, and is not ordered to run it.
        let got = worker.claim(&json!({"wait_ms": 0}));
        let all = got["orders"].as_array().unwrap();
        assert!(all.iter().all(|order| order["path"] != "jobs/new"), "{got}");
        root.check();
    }
}

#[test]
fn what_was_given_up_is_ordered_no_more() {
    let root = TestRoot::new(CONF);
    root.write("corkboard.conf", &format!("{CONF}{QUICK}lost_after = 4s\n"));
    let httpd = root.httpd();
    let door = Door::Web(&httpd);
    let worker = joined(&root, &door, "lap");
    drain_localhost(&root);
    let _poller = root.poller();
    let job = ordered(&root, &worker);
    let order = worker.order("jobs/new"); // it has got it, and is not heard of any more
    let status = root.reaches(job, "stopped");
    assert_eq!(status["cause"], "lost", "{status}");
    let got = format!("state/scheduler/workers/lap/got/{}", order["order"].as_str().unwrap());
    assert!(!root.exists(&got));
    let back = worker.claim(&json!({"wait_ms": 0}));
    let all = back["orders"].as_array().unwrap();
    assert!(all.iter().all(|order| order["path"] != "jobs/new"), "{back}");
    root.check();
}

#[test]
fn a_claim_that_is_stopped_keeps_no_other_node_waiting() {
    let root = TestRoot::new(CONF);
    root.write("corkboard.conf", &format!("{CONF}{QUICK}dead_timeout = 1s\n"));
    let httpd = root.httpd();
    let door = Door::Web(&httpd);
    let worker = joined(&root, &door, "lap");
    drain_localhost(&root);
    let _poller = root.poller();
    let job = ordered(&root, &worker);
    // As whoever is stopped while it has the box.
    let lock = File::options().write(true).open(root.path("state/scheduler/workers/lap/lock"));
    let held = Flock::lock(lock.unwrap(), FlockArg::LockExclusive).unwrap();
    let open = r#"{"drain": false}"#;
    root.cmd("scheduler", &["nodes", "localhost", "update", "-d", open]).expect(0);
    for _ in 0..3 {
        let began = Instant::now();
        let other = root.submit(&json!({"command": ["true"], "node": "localhost"}));
        root.reaches(other, "stopped");
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        let_pass(Duration::from_secs(1));
    }
    drop(held);
    assert_eq!(root.reaches(job, "stopped")["node"], "localhost");
    root.check();
}
