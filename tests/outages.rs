//! Outages: the link to a node is cut, or who stands at its ends stops, dies or is restarted. An attempt runs at
//! most once, its result arrives once, what was given up is found out about.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "common/net.rs"]
mod net;
#[path = "common/proxy.rs"]
mod proxy;

use std::fs;
use std::time::Duration;

use cluster::{Cluster, KILL, NEW, OFTEN, STATUS, cause, lates};
use common::{let_pass, lives, signal, until};
use corkboard::model::card::State;
use corkboard::model::outcome::Cause;
use proxy::Act;
use serde_json::{Value, json};

#[test]
fn a_start_that_is_held_back_comes_after_the_outage() {
    let cluster = Cluster::new("1s");
    cluster.proxy.rule(NEW, Act::Hold, OFTEN);
    let lost = cluster.submit("true", json!({}));
    let killed = cluster.submit("true", json!({}));
    cluster.until(killed, |card| card.state == State::Placed && cluster.proxy.count(NEW) > 0);
    cluster.proxy.cut();
    cluster.kill(killed);
    assert_eq!(cause(&cluster.ended(lost)), Cause::Lost);
    assert_eq!(cause(&cluster.ended(killed)), Cause::Killed);
    cluster.proxy.clear();
    cluster.proxy.heal();
    until("both are forbidden to start", || cluster.far()["given_up"] == Value::Null);
    cluster.held_starts_are_refused();
    assert_eq!(cluster.ran(), [""; 0]);
    cluster.assert_clean();
}

#[test]
fn a_node_answers_after_an_outage_in_which_it_was_given_up() {
    let mut cluster = Cluster::new("1s");
    let job = cluster.submit_waiting(json!({}));
    cluster.proxy.cut();
    let card = cluster.ended(job);
    assert_eq!(cause(&card), Cause::Lost);
    cluster.go();
    cluster.node.ended(&card.attempts[0].nodejob);
    cluster.restart_poller(0);
    cluster.proxy.heal();
    let after = cluster.until(job, |card| !lates(card).is_empty());
    assert_eq!(lates(&after), [(1, Cause::Exit)]);
    assert_eq!((cause(&after), after.attempts.len()), (Cause::Lost, 1));
    cluster.assert_clean();
    assert_eq!(cluster.card(job).events.len(), after.events.len());
    assert_eq!(cluster.ran().len(), 1);
}

#[test]
fn a_stale_attempt_is_killed_after_the_outage() {
    for restart in [false, true] {
        let mut cluster = Cluster::new("1s");
        let job = cluster.submit_waiting(json!({"retry_lost": true, "max_retry_count": 1}));
        let first = cluster.card(job).attempts[0].clone();
        cluster.proxy.cut();
        cluster.head.cmd_in("scheduler", &["nodes", "localhost", "update"], r#"{"drain": null}"#);
        let card = cluster.until(job, |c| c.attempts.len() == 2 && c.state == State::Running);
        assert_eq!(card.attempts[1].node, "localhost");
        assert!(lives(first.pid.unwrap()));
        if restart {
            cluster.restart_poller(0);
        }
        cluster.proxy.heal();
        assert_eq!(cluster.node.ended(&first.nodejob)["cause"], "killed");
        assert!(!lives(first.pid.unwrap()));
        let kills = cluster.proxy.count(KILL);
        assert!(kills < 20, "{kills} requests to kill one job");
        cluster.go();
        let card = cluster.ended(job);
        assert_eq!(card.outcome.as_ref().unwrap().code, Some(0));
        let card = cluster.until(job, |card| !lates(card).is_empty());
        assert_eq!(lates(&card), [(1, Cause::Killed)], "{card:?}");
        assert_eq!(cluster.ran().len(), 2);
        cluster.assert_clean();
    }
}

#[test]
fn requests_arrive_and_no_reply_does() {
    let cluster = Cluster::new("60s");
    let job = cluster.submit_waiting(json!({}));
    cluster.proxy.rule("", Act::LoseReply, OFTEN);
    cluster.proxy.cut();
    cluster.proxy.heal();
    cluster.go();
    cluster.node.ended(&cluster.card(job).attempts[0].nodejob);
    cluster.until_node("disconnected");
    assert_ne!(cluster.card(job).state, State::Stopped);
    cluster.proxy.clear();
    cluster.assert_ran_once(job);
    cluster.assert_clean();
}

#[test]
fn cancelled_during_an_outage() {
    let cluster = Cluster::new("60s");
    let job = cluster.submit_waiting(json!({}));
    let pid = cluster.card(job).attempts[0].pid.unwrap();
    cluster.proxy.cut();
    cluster.until_node("disconnected");
    cluster.kill(job);
    let before = cluster.proxy.refused();
    until("it was tried again and again", || cluster.proxy.refused() >= before + 3);
    assert_eq!(cluster.card(job).state, State::Stopping);
    cluster.proxy.heal();
    assert_eq!(cause(&cluster.ended(job)), Cause::Killed);
    assert!(!lives(pid));
    cluster.assert_clean();
}

#[test]
fn cancelled_during_a_long_outage() {
    let cluster = Cluster::new("1s");
    let job = cluster.submit_waiting(json!({"retry_lost": true, "max_retry_count": 5}));
    let pid = cluster.card(job).attempts[0].pid.unwrap();
    cluster.proxy.cut();
    cluster.kill(job);
    let card = cluster.ended(job);
    assert_eq!((cause(&card), card.attempts.len()), (Cause::Killed, 1));
    assert!(lives(pid));
    cluster.proxy.heal();
    until("its program is killed", || !lives(pid));
    cluster.assert_clean();
    assert_eq!(cause(&cluster.card(job)), Cause::Killed);
}

#[test]
fn a_poller_does_not_give_up_by_the_outage_that_an_earlier_one_saw() {
    let mut cluster = Cluster::new("2s");
    let job = cluster.submit_waiting(json!({}));
    cluster.proxy.cut();
    cluster.until_node("disconnected");
    cluster.poller(0, "KILL");
    // Longer than `lost_after`: what counts is that the node would have been given up in it.
    let_pass(Duration::from_millis(2500));
    cluster.proxy.heal();
    cluster.pollers[0] = Some(cluster.head.start("poller", &["-q"]));
    cluster.until_node("connected");
    cluster.go();
    cluster.assert_ran_once(job);
    cluster.assert_clean();
}

#[test]
fn a_node_is_restarted() {
    let mut cluster = Cluster::new("60s");
    let once = cluster.submit_waiting(json!({"max_retry_count": 0}));
    let again = cluster.submit_waiting(json!({"max_retry_count": 1}));
    cluster.poller(1, "KILL");
    cluster.server.down();
    for supervisor in cluster.node.supervisors() {
        signal(supervisor, "KILL");
        until("it is dead", || !lives(supervisor));
    }
    cluster.go();
    cluster.node.env.push(("CORKBOARD_BOOT_ID".into(), "another-boot".into()));
    cluster.server.restart_with("CORKBOARD_BOOT_ID", "another-boot");
    cluster.pollers[1] = Some(cluster.node.start("poller", &["-q"]));
    let card = cluster.ended(once);
    let end = card.outcome.as_ref().unwrap();
    assert_eq!(end.reason.as_deref(), Some("the machine was restarted"));
    assert_eq!((end.cause, card.attempts.len()), (Cause::Lost, 1));
    let card = cluster.ended(again);
    assert_eq!((cause(&card), card.attempts.len()), (Cause::Exit, 2));
    assert_eq!(card.attempts[0].outcome.as_ref().unwrap().cause, Cause::Lost);
    assert_eq!(cluster.ran().len(), 3);
    cluster.assert_clean();
}

#[test]
fn a_node_forgets_everything() {
    let mut cluster = Cluster::new("60s");
    let job = cluster.submit_waiting(json!({"max_retry_count": 1}));
    cluster.poller(1, "KILL");
    for supervisor in cluster.node.supervisors() {
        signal(supervisor, "KILL");
        until("it is dead", || !lives(supervisor));
    }
    fs::remove_dir_all(cluster.node.path("state/processor")).unwrap();
    let card = cluster.ended(job);
    assert_eq!((cause(&card), card.attempts.len()), (Cause::Lost, 1));
    let reason = card.outcome.unwrap().reason.unwrap();
    assert_eq!(reason, "node far does not know it any more");
    cluster.pollers[1] = Some(cluster.node.start("poller", &["-q"]));
    let next = cluster.submit("true", json!({}));
    cluster.assert_ran_once(next);
    until("nothing is owed", || cluster.far()["given_up"] == Value::Null);
    cluster.proxy.deliver(&cluster.proxy.last(NEW));
    assert_eq!(cluster.ran().len(), 2);
    cluster.assert_clean();
}

#[test]
fn a_stopped_supervisor_is_alive() {
    let cluster = Cluster::new("60s");
    let job = cluster.submit_waiting(json!({}));
    let supervisor = cluster.node.supervisors()[0];
    signal(supervisor, "STOP");
    cluster.go();
    let before = cluster.proxy.count(STATUS);
    until("the head has asked about it", || cluster.proxy.count(STATUS) >= before + 2);
    assert_eq!(cluster.node.cmd("processor", &["sweep"]).expect(0).json()["lost"], 0);
    assert_eq!(cluster.card(job).state, State::Running);
    signal(supervisor, "CONT");
    cluster.assert_ran_once(job);
    cluster.assert_clean();
}

#[test]
fn a_stopped_poller_is_at_work() {
    let mut cluster = Cluster::new("60s");
    let standby = cluster.head.poller_with(&["-q"]);
    let log = cluster.head.path("poller.log");
    let says = |what: &str| fs::read_to_string(&log).unwrap().contains(what);
    until("it stands by", || says("standing by"));
    cluster.poller(0, "STOP");
    let job = cluster.submit("true", json!({}));
    // It looks for the lock as one does that is started now; that one has looked when it ends.
    cluster.head.cmd("poller", &["--once", "-q"]).expect(0);
    assert!(!says("at work for"), "two pollers are at work");
    assert_eq!(cluster.card(job).state, State::Queued, "the lock is held, nobody takes over");
    cluster.poller(0, "CONT");
    cluster.assert_ran_once(job);
    // Dead it is followed at once.
    cluster.poller(0, "STOP");
    cluster.poller(0, "KILL");
    let job = cluster.submit("true", json!({}));
    cluster.assert_ran_once(job);
    cluster.assert_clean();
    assert!(standby.end("TERM").success());
}
