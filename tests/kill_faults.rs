//! Kills by a head of what its node can hardly end: its supervisor is dead, its files are damaged, or
//! nothing is answered.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "common/net.rs"]
mod net;
#[path = "common/proxy.rs"]
mod proxy;

use std::fs;
use std::time::{Duration, Instant};

use cluster::{Cluster, KILL, OFTEN, STATUS, cause};
use common::{lives, signal, until};
use corkboard::model::card::State;
use corkboard::model::outcome::Cause;
use proxy::Act;
use serde_json::json;

/// No poller looks after the node.
#[test]
fn a_kill_reaches_what_a_dead_supervisor_left_behind() {
    for more in [json!({}), json!({"array": "0-1%1"})] {
        let mut cluster = Cluster::new("60s");
        let job = cluster.submit_waiting(more);
        cluster.poller(1, "KILL");
        for supervisor in cluster.node.supervisors() {
            signal(supervisor, "KILL");
            until("it is dead", || !lives(supervisor));
        }
        cluster.kill(job);
        let card = cluster.ended(job);
        assert_eq!(cause(&card), Cause::Killed, "{card:?}");
        let why = card.outcome.as_ref().unwrap().reason.as_deref().unwrap();
        assert!(why.contains("its supervisor died"), "{why}");
        assert_eq!(card.attempts.len(), 1, "{card:?}");
        cluster.assert_clean();
    }
}

/// What is there does not prove to be the attempt, and cannot be killed: its request is damaged.
#[test]
fn a_kill_of_what_its_node_can_neither_end_nor_see_is_over_after_a_while() {
    let cluster = Cluster::new("2s");
    let first = cluster.submit("true", json!({}));
    cluster.assert_ran_once(first);
    until("it has proved", || cluster.far()["proves"] == true);
    let job = cluster.submit_waiting(json!({}));
    let id = cluster.card(job).attempts[0].nodejob.clone();
    let request = cluster.node.path(&format!("state/processor/job/{id}/request.json"));
    let whole = fs::read(&request).unwrap();
    fs::write(&request, "x").unwrap();
    cluster.kill(job);
    assert_eq!(cluster.card(job).state, State::Stopping);
    let card = cluster.ended(job);
    assert_eq!(cause(&card), Cause::Killed, "{card:?}");
    let why = card.outcome.as_ref().unwrap().reason.as_deref().unwrap();
    assert!(why.contains("would not end it") || why.contains("can neither end it"), "{why}");
    assert!(!cluster.far()["given_up"].is_null(), "it is killed once it can be");
    fs::write(&request, whole).unwrap();
    cluster.until_node_is_idle();
    assert_eq!(cluster.node.ended(&id)["cause"], "killed");
    cluster.assert_clean();
}

/// A node that cannot say what became of one job says it of the others.
#[test]
fn a_kill_of_what_its_node_cannot_tell_of_is_over_after_a_while() {
    let cluster = Cluster::new("2s");
    let job = cluster.submit_waiting(json!({}));
    let id = cluster.card(job).attempts[0].nodejob.clone();
    let dir = cluster.node.path(&format!("state/processor/job/{id}"));
    // In its place something that nobody can read.
    let (request, aside) = (dir.join("request.json"), dir.join("request.aside"));
    fs::rename(&request, &aside).unwrap();
    fs::create_dir(&request).unwrap();
    cluster.kill(job);
    let card = cluster.ended(job);
    assert_eq!(cause(&card), Cause::Killed, "{card:?}");
    let why = card.outcome.as_ref().unwrap().reason.as_deref().unwrap();
    assert!(why.contains("abandoned") || why.contains("can neither end it"), "{why}");
    fs::remove_dir(&request).unwrap();
    fs::rename(aside, request).unwrap();
    cluster.until_node_is_idle();
    assert_eq!(cluster.node.ended(&id)["cause"], "killed");
    cluster.assert_clean();
}

/// Many orders to a node that takes requests and answers none.
#[test]
fn told_to_end_the_poller_does_not_wait_for_all_that_is_not_answered() {
    let mut cluster = Cluster::new("60s");
    let conf = cluster.node.read("corkboard.conf").replace("cores = 2", "cores = 20");
    cluster.node.write("corkboard.conf", &conf);
    until("it has more cores", || cluster.far()["resources"]["cores"] == 20);
    let submit = || cluster.head.submit(&json!({"command": ["sleep", "600"]}));
    let jobs: Vec<u64> = (0..20).map(|_| submit()).collect();
    jobs.iter().for_each(|job| {
        cluster.until(*job, |card| card.state == State::Running);
    });
    cluster.proxy.rule(KILL, Act::SwallowReply, OFTEN);
    cluster.proxy.rule(STATUS, Act::SwallowReply, OFTEN);
    jobs.iter().for_each(|job| cluster.kill(*job));
    until("it has begun", || cluster.proxy.count(KILL) > 0);
    let begun = Instant::now();
    let mut poller = cluster.pollers[0].take().unwrap();
    signal(poller.id() as i32, "TERM");
    poller.wait().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    cluster.proxy.clear();
    cluster.pollers[0] = Some(cluster.head.start("poller", &["-q"]));
    jobs.iter().for_each(|job| assert_eq!(cause(&cluster.ended(*job)), Cause::Killed));
    cluster.assert_clean();
}
