//! Reports that somebody else made: of another node, of a run that was put under an attempt's id,
//! with another attempt's key. They change nothing, and what is genuine goes on.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "common/net.rs"]
mod net;
#[path = "common/proxy.rs"]
mod proxy;

use std::fs;

use cluster::{Cluster, KILL, NEW, OFTEN, STATUS, cause};
use common::head::{Poller, node_reaches, open_root, register};
use common::{SOON, TestRoot, until, wait_for};
use corkboard::model::card::State;
use corkboard::model::outcome::Cause;
use net::Server;
use proxy::{Act, Proxy};
use serde_json::{Value, json};

/// A cluster whose head's poller writes a log.
fn cluster() -> (Cluster, Poller) {
    let mut cluster = Cluster::new("60s");
    cluster.poller(0, "KILL");
    let poller = cluster.head.poller();
    (cluster, poller)
}

/// Gives a node a job that is not the head's.
fn put(port: u16, request: &Value) {
    let said = net::http(port, "POST", "/processor/jobs/new", &request.to_string());
    assert_eq!(said.unwrap().0, 201);
}

/// How often the poller said that a report of this run does not count.
fn doubts(cluster: &Cluster, id: &str) -> usize {
    let log = cluster.head.read("poller.log");
    log.matches(&format!("its report of {id} does not count")).count()
}

/// Whether the node was told that the head holds the result of this run.
fn is_acknowledged(root: &TestRoot, id: &str) -> bool {
    let path = root.path(&format!("state/processor/job/{id}/status"));
    path.metadata().unwrap().permissions().readonly()
}

#[test]
fn what_another_node_says_of_an_attempt_changes_nothing() {
    let (cluster, _poller) = cluster();
    let other = open_root("");
    let server = Server::start(&other.dir);
    let uri = format!("http://127.0.0.1:{}", server.port);
    register(&cluster.head, &json!({"name": "other", "uri": uri, "drain": true}));
    node_reaches(&cluster.head, "other", "connected");
    for more in [json!({}), json!({"array": "0-3%1"})] {
        let job = cluster.submit_waiting(more);
        let attempt = cluster.card(job).attempts[0].clone();
        let id = attempt.nodejob.to_string();
        // Even with its key, and so with the right proof.
        let key = cluster.node.cmd("processor", &["jobs", &id]).expect(0);
        assert!(!key.body.contains("cbkey_"));
        let accepted = cluster.node.read(&format!("state/processor/job/{id}/request.json"));
        let accepted: Value = serde_json::from_str(&accepted).unwrap();
        let mut forged = json!({"command": "true", "request_id": id});
        forged["environment"] = accepted["environment"].clone();
        if let Some(tasks) = &attempt.tasks {
            forged["tasks"] = json!(tasks.to_string());
        }
        put(server.port, &forged);
        assert_eq!(other.ended(&id)["status"], "good");
        until("it is told", || doubts(&cluster, &id) == 1);
        cluster.head.cmd("scheduler", &["jobs", &job.to_string(), "update"]).expect(0);
        assert_eq!(cluster.card(job).state, State::Running);
        assert!(!cluster.card(job).tasks.is_finished());
        cluster.go();
        cluster.ended(job);
        until("the genuine result is acknowledged", || is_acknowledged(&cluster.node, &id));
        assert!(!is_acknowledged(&other, &id), "the head has no result of it");
        assert_eq!(doubts(&cluster, &id), 1);
        fs::remove_file(cluster.path("go")).unwrap();
    }
    cluster.assert_clean();
    other.check();
}

/// A job's key, as the job itself can read it.
fn key_of_a_job(cluster: &Cluster) -> String {
    let job = cluster.submit("echo $CORKBOARD_TOKEN > key", json!({"dir": cluster.head.dir}));
    cluster.assert_ran_once(job);
    cluster.head.read("key").trim().to_string()
}

#[test]
fn who_takes_an_id_before_the_head_ends_nothing_and_holds_up_nothing() {
    let (cluster, _poller) = cluster();
    let stolen = key_of_a_job(&cluster);
    assert!(stolen.starts_with("cbkey_"));
    let name = cluster.head.read("state/scheduler/cluster").trim().to_string();
    for (environment, more) in [
        (json!({}), json!({})),
        (json!({"CORKBOARD_TOKEN": stolen}), json!({})),
        (json!({"CORKBOARD_TOKEN": "x"}), json!({"array": "0-3"})),
        (json!({"CORKBOARD_TOKEN": stolen}), json!({"array": "0-3"})),
    ] {
        // While it cannot be placed the forged report is there already.
        let mut request = more.clone();
        request["state"] = json!("held");
        let job = cluster.submit("true", request);
        let id = format!("{name}-{job}.1");
        let mut forged = json!({
            "command": "true", "request_id": id, "environment": environment});
        if more["array"].is_string() {
            forged["tasks"] = json!("0-3");
        }
        put(cluster.server.port, &forged);
        assert_eq!(cluster.node.ended(&id)["status"], "good");
        until("it is told", || doubts(&cluster, &id) == 1);
        assert_eq!(cluster.card(job).state, State::Held);
        cluster.head.update(job, "release=1").expect(0);
        let card = cluster.ended(job);
        assert_eq!(card.status(), corkboard::model::outcome::Status::Good, "{card:?}");
        assert!(card.attempts[0].refused.is_some(), "{card:?}");
        let tasks = if more["array"].is_string() { 4 } else { 1 };
        let of_job = format!("{name}-{job}.");
        let ran: Vec<String> = cluster.ran();
        let ran: Vec<&String> = ran.iter().filter(|ran| ran.starts_with(&of_job)).collect();
        assert_eq!((ran.len(), ran.contains(&&id)), (tasks, false), "{ran:?}");
        assert_eq!(doubts(&cluster, &id), 1);
        assert!(!is_acknowledged(&cluster.node, &id), "the head has no result of it");
    }
    assert_eq!(cluster.far()["proves"], true);
    assert_eq!(cluster.far()["warning"], Value::Null);
    cluster.assert_clean();
}

#[test]
fn who_takes_an_id_while_a_start_is_under_way_ends_nothing() {
    for kill in [false, true] {
        let (cluster, _poller) = cluster();
        cluster.proxy.rule(STATUS, Act::Lose, OFTEN);
        cluster.proxy.rule(NEW, Act::Lose, OFTEN);
        let job = cluster.submit("true", json!({}));
        until("it is under way", || cluster.proxy.count(NEW) > 0);
        let id = cluster.card(job).attempts[0].nodejob.to_string();
        put(cluster.server.port, &json!({"command": "true", "request_id": id}));
        cluster.node.ended(&id);
        if kill {
            cluster.kill(job);
        }
        cluster.proxy.clear();
        let card = cluster.ended(job);
        if kill {
            assert_eq!((cause(&card), card.attempts.len()), (Cause::Killed, 1), "{card:?}");
            assert!(cluster.ran().is_empty());
        } else {
            assert_eq!((cause(&card), card.attempts.len()), (Cause::Exit, 2), "{card:?}");
            assert_eq!(cluster.ran(), [card.attempts[1].nodejob.to_string()]);
        }
        cluster.assert_clean();
    }
}

#[test]
fn a_kill_ends_no_run_that_somebody_else_put_under_the_id() {
    for more in [json!({}), json!({"array": "0-1"})] {
        let (cluster, _poller) = cluster();
        cluster.proxy.rule(STATUS, Act::Lose, OFTEN);
        cluster.proxy.rule(NEW, Act::Lose, OFTEN);
        let is_array = more["array"].is_string();
        let job = cluster.submit("true", more);
        until("it is under way", || cluster.proxy.count(NEW) > 0);
        let id = cluster.card(job).attempts[0].nodejob.to_string();
        let go = cluster.path("go");
        let wait = format!("until [ -e {go} ]; do sleep 0.02; done");
        let mut others = json!({"command": wait, "request_id": id});
        if is_array {
            others["tasks"] = json!("0-1");
        }
        put(cluster.server.port, &others);
        let state = || cluster.node.node_status(&id)["state"].clone();
        until("it runs", || state() == "running");
        let kills = cluster.proxy.count(KILL);
        cluster.kill(job);
        until("the node is told", || cluster.proxy.count(KILL) > kills);
        cluster.proxy.clear();
        assert_eq!(cause(&cluster.ended(job)), Cause::Killed);
        assert_eq!(state(), "running", "{}", cluster.node.node_status(&id));
        cluster.go();
        assert_eq!(cluster.node.ended(&id)["status"], "good");
        assert!(cluster.ran().is_empty());
        cluster.assert_clean();
    }
}

#[test]
fn a_node_that_knows_of_no_proofs_is_told_to_kill_all_the_same() {
    let (cluster, _poller) = cluster();
    let job = cluster.submit_waiting(json!({}));
    // So says one of 0.1 to a question with what it does not know.
    cluster.proxy.rule("&proof=", Act::Refuse(400), OFTEN);
    cluster.kill(job);
    assert_eq!(cause(&cluster.ended(job)), Cause::Killed);
    assert_eq!(cluster.proxy.count("&proof="), 1);
    cluster.assert_clean();
}

#[test]
fn a_kill_before_a_start_needs_no_proof() {
    let (cluster, _poller) = cluster();
    let job = cluster.submit("true", json!({}));
    cluster.assert_ran_once(job);
    until("it has proved", || cluster.far()["proves"] == true);
    cluster.kill_before_it_comes();
    cluster.held_starts_are_refused();
    assert_eq!(cluster.ran().len(), 1);
    cluster.assert_clean();
}

#[test]
fn a_node_of_0_1_works_with_a_warning_until_it_has_proved_once() {
    let (cluster, _poller) = cluster();
    cluster.proxy.prove_nothing(true);
    for more in [json!({}), json!({"array": "0-3"})] {
        let job = cluster.submit("true", more);
        assert_eq!(cluster.ended(job).attempts[0].refused, None);
    }
    let warned = wait_for(SOON, || {
        let far = cluster.far();
        if far["proves"] == false { Ok(far) } else { Err(far.to_string()) }
    });
    assert!(warned["warning"].as_str().unwrap().contains("replace its programs"), "{warned}");
    let nodes = cluster.head.cmd("scheduler", &["nodes", "list"]).expect(0).json();
    let far = nodes["nodes"].as_array().unwrap().iter().find(|node| node["name"] == "far");
    assert_eq!(far.unwrap()["warning"], warned["warning"]);
    // Its programs are replaced while a job runs.
    let job = cluster.submit_waiting(json!({}));
    cluster.proxy.prove_nothing(false);
    cluster.go();
    cluster.assert_ran_once(job);
    until("it has proved", || cluster.far()["proves"] == true);
    assert_eq!(cluster.far()["warning"], Value::Null);
    // From then on nothing counts without.
    cluster.proxy.prove_nothing(true);
    let ran = cluster.ran().len();
    let job = cluster.submit("true", json!({}));
    let card = cluster.ended(job);
    assert_eq!((cause(&card), card.attempts.len()), (Cause::Lost, 1), "{card:?}");
    let reason = card.outcome.unwrap().reason.unwrap();
    assert!(reason.contains("does not prove"), "{reason}");
    assert_eq!(cluster.ran().len(), ran + 1);
    cluster.proxy.prove_nothing(false);
    let job = cluster.submit("true", json!({}));
    cluster.assert_ran_once(job);
    cluster.assert_clean();
}

#[test]
fn what_a_dead_supervisor_left_is_proved_by_its_request() {
    let (cluster, _poller) = cluster();
    let first = cluster.submit("true", json!({}));
    cluster.assert_ran_once(first);
    let job = cluster.submit_waiting(json!({}));
    for pid in cluster.node.supervisors() {
        common::signal(pid, "KILL");
    }
    let card = cluster.ended(job);
    assert_eq!(cause(&card), Cause::Lost);
    assert_eq!(card.outcome.unwrap().reason.unwrap(), "its supervisor died");
    cluster.assert_clean();
}

#[test]
fn the_secret_of_attempts_is_not_made_anew_while_jobs_are_with_nodes() {
    let (cluster, _poller) = cluster();
    let job = cluster.submit_waiting(json!({}));
    let (secret, aside) = (cluster.head.path("state/secrets/attempts"), cluster.head.path("aside"));
    fs::rename(&secret, &aside).unwrap();
    cluster.go();
    let id = cluster.card(job).attempts[0].nodejob.to_string();
    cluster.node.ended(&id);
    let other = cluster.head.submit(&json!({"command": "true"}));
    until("it is told", || {
        cluster
            .head
            .read("poller.log")
            .contains("secrets/attempts is missing but jobs are with nodes")
    });
    let check = cluster.head.cmd("scheduler", &["check"]).expect(1);
    assert!(check.body.contains("secrets/attempts is missing"), "{check:?}");
    assert_eq!(cluster.card(job).state, State::Running);
    assert!(!secret.exists());
    fs::rename(&aside, &secret).unwrap();
    cluster.assert_ran_once(job);
    assert_eq!(cause(&cluster.ended(other)), Cause::Exit);
    cluster.assert_clean();
}

/// A node that was not given an attempt knows nothing of it, whatever its feed says: it is not asked.
#[test]
fn a_node_that_was_not_given_an_attempt_is_not_asked_about_it() {
    let (cluster, _poller) = cluster();
    let other = open_root("");
    let server = Server::start(&other.dir);
    let proxy = Proxy::start(server.port);
    let uri = format!("http://127.0.0.1:{}", proxy.port);
    let drain = |name: &str, drain: bool| {
        let change = json!({"drain": drain}).to_string();
        cluster.head.cmd_in("scheduler", &["nodes", name, "update"], &change).expect(0);
    };
    let on_other = || {
        drain("far", true);
        drain("other", false);
        let job = cluster.submit("true", json!({}));
        let node = cluster.ended(job).attempts[0].node.clone();
        assert_eq!(node, "other");
        drain("other", true);
        drain("far", false);
    };
    register(&cluster.head, &json!({"name": "other", "uri": uri}));
    node_reaches(&cluster.head, "other", "connected");
    on_other(); // which has proved by that what it can
    let job = cluster.submit_waiting(json!({}));
    let id = cluster.card(job).attempts[0].nodejob.to_string();
    let line = json!({"id": id, "state": "stopped", "status": "good", "at": "t", "cause": "exit",
        "code": 0});
    let feed = other.path("state/processor/events");
    let mut feed = fs::File::options().append(true).open(feed).unwrap();
    std::io::Write::write_all(&mut feed, format!("\n{line}\n").as_bytes()).unwrap();
    until("it is told", || doubts(&cluster, &id) == 1);
    on_other(); // all that was to be asked was asked before
    assert_eq!(proxy.count(&format!("ids={id}")), 0);
    assert_eq!(cluster.card(job).state, State::Running);
    cluster.go();
    cluster.assert_ran_once(job);
    cluster.assert_clean();
    other.check();
}
