//! Processes that are stopped (SIGSTOP, a laptop's lid) and go on: the time in which a head did not
//! listen is nobody's silence.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "common/net.rs"]
mod net;
#[path = "common/proxy.rs"]
mod proxy;

use std::time::Duration;

use cluster::{Cluster, OFTEN, STATUS, cause};
use common::{let_pass, signal, until, wait_for};
use corkboard::model::card::State;
use corkboard::model::outcome::Cause;
use proxy::Act;
use serde_json::json;

#[test]
fn a_poller_that_was_stopped_loses_no_job() {
    let mut cluster = Cluster::new("8s");
    let job = cluster.submit_waiting(json!({}));
    cluster.proxy.cut();
    cluster.until_node("disconnected");
    cluster.poller(0, "STOP");
    cluster.proxy.heal();
    let_pass(Duration::from_secs(9)); // longer than `lost_after`
    cluster.poller(0, "CONT");
    cluster.until_node("connected");
    // Nor does one that is hardly ever awake.
    for _ in 0..5 {
        cluster.poller(0, "STOP");
        let_pass(Duration::from_secs(2));
        cluster.poller(0, "CONT");
        let_pass(Duration::from_millis(50));
    }
    cluster.go();
    cluster.assert_ran_once(job);
    cluster.assert_clean();
}

#[test]
fn a_node_whose_server_is_stopped_for_long_loses_its_jobs() {
    let cluster = Cluster::new("3s");
    let job = cluster.submit_waiting(json!({}));
    let server = cluster.server.pid().unwrap();
    signal(server, "STOP");
    // The request for the feed that is under way is answered by a process of its own.
    let card = wait_for(Duration::from_secs(90), || {
        let card = cluster.card(job);
        if card.state == State::Stopped { Ok(card) } else { Err(format!("{:?}", card.state)) }
    });
    assert_eq!(cause(&card), Cause::Lost);
    signal(server, "CONT");
    let ended = cluster.node.ended(&card.attempts[0].nodejob);
    assert_eq!(ended["cause"], "killed", "it is not let run on unseen");
    cluster.assert_clean();
}

#[test]
fn a_job_whose_supervisor_is_stopped_stays_running() {
    let cluster = Cluster::new("2s");
    let job = cluster.submit_waiting(json!({}));
    let supervisors = cluster.node.supervisors();
    assert_eq!(supervisors.len(), 1);
    signal(supervisors[0], "STOP");
    cluster.go();
    let_pass(Duration::from_secs(4)); // longer than `lost_after` and `unknown_after`
    assert_eq!(cluster.card(job).state, State::Running);
    signal(supervisors[0], "CONT");
    cluster.assert_ran_once(job);
    cluster.assert_clean();
}

/// What a node did not know before and does not after says nothing of the time between.
#[test]
fn a_poller_that_was_stopped_counts_no_time_in_which_a_job_was_not_known() {
    let mut cluster = Cluster::new("60s");
    let conf =
        cluster.head.read("corkboard.conf").replace("unknown_after = 1", "unknown_after = 8");
    cluster.head.write("corkboard.conf", &conf);
    cluster.restart_poller(0);
    let job = cluster.submit_waiting(json!({}));
    let id = cluster.card(job).attempts[0].nodejob.to_string();
    let unknown = json!([{"id": id, "error": "there is no such job", "code": 404}]).to_string();
    cluster.proxy.rule(STATUS, Act::Say(Box::leak(unknown.into_boxed_str())), OFTEN);
    let asked = |times: usize| {
        let before = cluster.proxy.count(STATUS);
        until("it was asked", || cluster.proxy.count(STATUS) >= before + times);
    };
    asked(2);
    let poller = cluster.pollers[0].as_ref().unwrap().id() as i32;
    signal(poller, "STOP");
    let_pass(Duration::from_secs(9)); // longer than `unknown_after`
    signal(poller, "CONT");
    asked(2);
    cluster.proxy.clear();
    cluster.go();
    cluster.assert_ran_once(job);
    cluster.assert_clean();
}

#[test]
fn a_failure_that_could_not_be_recorded_is_not_counted_later() {
    let cluster = Cluster::new("4s");
    let job = cluster.submit_waiting(json!({}));
    // Without that directory no record can be replaced.
    let tmp = cluster.head.path("state/scheduler/tmp");
    let away = cluster.head.path("tmp-away");
    std::fs::rename(&tmp, &away).unwrap();
    cluster.proxy.cut();
    until("it has failed", || cluster.proxy.refused() > 1);
    cluster.proxy.heal();
    let_pass(Duration::from_secs(5)); // longer than `lost_after`
    std::fs::rename(&away, &tmp).unwrap();
    cluster.until_node("connected");
    cluster.proxy.cut();
    cluster.until_node("disconnected");
    cluster.proxy.heal();
    cluster.until_node("connected");
    assert_eq!(cluster.card(job).state, State::Running);
    cluster.go();
    cluster.assert_ran_once(job);
    cluster.assert_clean();
}
