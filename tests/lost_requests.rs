//! A network between head and node that loses, repeats, holds back and breaks off single requests: an attempt
//! runs at most once, its result arrives once.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "common/net.rs"]
mod net;
#[path = "common/proxy.rs"]
mod proxy;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use cluster::{ACK, Cluster, FEED, KILL, NEW, OFTEN, cause};
use common::{lives, until};
use corkboard::model::card::State;
use corkboard::model::outcome::Cause;
use net::Random;
use proxy::Act;
use serde_json::json;

#[test]
fn the_reply_to_a_start_is_lost() {
    for act in [Act::LoseReply, Act::SwallowReply] {
        let cluster = Cluster::new("60s");
        cluster.proxy.rule(NEW, act, 2);
        let job = cluster.submit("true", json!({}));
        cluster.assert_ran_once(job);
        // It is not closed for long: it answers other questions.
        let next = cluster.submit("true", json!({}));
        cluster.assert_ran_once(next);
        cluster.assert_clean();
    }
}

#[test]
fn a_start_is_lost_on_its_way() {
    let cluster = Cluster::new("60s");
    cluster.proxy.rule(NEW, Act::Lose, 3);
    let job = cluster.submit("true", json!({}));
    cluster.assert_ran_once(job);
    cluster.assert_clean();
}

#[test]
fn a_start_arrives_twice_and_again_long_after() {
    let cluster = Cluster::new("60s");
    cluster.proxy.rule(NEW, Act::Twice, 1);
    let job = cluster.submit("true", json!({}));
    cluster.assert_ran_once(job);
    until("the result is acknowledged", || cluster.proxy.count(ACK) > 0);
    let again = cluster.proxy.deliver(&cluster.proxy.last(NEW));
    assert!(again.contains(r#""state":"stopped""#), "{again}");
    cluster.until_node_is_idle();
    cluster.assert_ran_once(job);
    cluster.assert_clean();
}

#[test]
fn a_start_that_is_held_back_comes_after_the_job_was_cancelled() {
    let cluster = Cluster::new("60s");
    cluster.kill_before_it_comes();
    cluster.held_starts_are_refused();
    assert_eq!(cluster.ran(), [""; 0]);
    cluster.assert_clean();
}

/// It refuses one request before it has read all of it, and is there for every other.
#[test]
fn a_node_breaks_off_a_request() {
    let cluster = Cluster::new("60s");
    let since = cluster.far()["since"].clone();
    assert!(since.is_string(), "{since}");
    cluster.proxy.rule(NEW, Act::BreakOff, 3);
    // More than the connection holds while nobody reads.
    let job = cluster.submit("true", json!({"stdin": "x".repeat(1 << 20)}));
    cluster.assert_ran_once(job);
    assert_eq!(cluster.proxy.acts()["BreakOff"], 3);
    assert_eq!(cluster.far()["since"], since, "it was taken for one that does not answer");
    cluster.assert_clean();
}

#[test]
fn replies_of_the_feed_are_lost() {
    let cluster = Cluster::new("60s");
    for act in [Act::LoseReply, Act::CutReply(100), Act::Lose] {
        cluster.proxy.rule(FEED, act, 3);
    }
    let jobs: Vec<u64> = (0..12).map(|_| cluster.submit("sleep 0.1", json!({}))).collect();
    jobs.iter().for_each(|job| cluster.assert_ran_once(*job));
    cluster.assert_clean();
}

#[test]
fn acknowledgements_are_lost() {
    let cluster = Cluster::new("60s");
    cluster.proxy.rule(ACK, Act::Lose, OFTEN);
    let job = cluster.submit("true", json!({}));
    cluster.assert_ran_once(job);
    until("it was tried", || cluster.proxy.count(ACK) > 0);
    let id = &cluster.card(job).attempts[0].nodejob;
    let story = cluster.node.path(&format!("state/processor/job/{id}/status"));
    assert_eq!(fs::metadata(story).unwrap().permissions().mode() & 0o777, 0o640);
    // When all that comes with the next one's end has happened, so has what the loss may cause.
    let next = cluster.submit("true", json!({}));
    cluster.assert_ran_once(next);
    until("it was tried for the next one", || cluster.proxy.count(ACK) > 1);
    cluster.assert_ran_once(job);
    cluster.assert_clean();
}

#[test]
fn a_kill_or_its_reply_is_lost() {
    for act in [Act::LoseReply, Act::Lose, Act::Twice, Act::Cut(30)] {
        let cluster = Cluster::new("60s");
        let job = cluster.submit_waiting(json!({}));
        let pid = cluster.card(job).attempts[0].pid.unwrap();
        cluster.proxy.rule(KILL, act, 2);
        cluster.kill(job);
        let card = cluster.ended(job);
        assert_eq!((cause(&card), card.attempts.len()), (Cause::Killed, 1), "{act:?}");
        assert!(!lives(pid));
        cluster.assert_clean();
    }
}

#[test]
fn orders_are_lost_while_questions_are_answered() {
    let cluster = Cluster::new("60s");
    cluster.proxy.rule("POST ", Act::Lose, OFTEN);
    let job = cluster.submit("true", json!({}));
    until("it was tried", || cluster.proxy.count(NEW) > 0);
    let (tried, asked) = (cluster.proxy.count(NEW), cluster.proxy.count("processor/"));
    let begun = Instant::now();
    until("it was tried again and again", || cluster.proxy.count(NEW) >= tried + 3);
    let a_second =
        (cluster.proxy.count("processor/") - asked) as f64 / begun.elapsed().as_secs_f64();
    assert!(a_second < 15.0, "{a_second:.1} requests a second about one job");
    assert_eq!(cluster.card(job).state, State::Placed);
    cluster.proxy.clear();
    cluster.assert_ran_once(job);
    cluster.assert_clean();
}

#[test]
fn a_node_that_cannot_be_told_that_a_result_is_safe_is_told_again() {
    let cluster = Cluster::new("60s");
    cluster.proxy.rule(ACK, Act::Refuse(503), 1);
    cluster.proxy.rule(ACK, Act::Lose, 1);
    let job = cluster.submit("true", json!({}));
    let id = cluster.ended(job).attempts[0].nodejob.to_string();
    let status = cluster.node.path(&format!("state/processor/job/{id}/status"));
    until("its story is closed", || {
        fs::metadata(&status).unwrap().permissions().mode() & 0o777 == 0o440
    });
    cluster.assert_ran_once(job);
    cluster.assert_clean();
}

#[test]
fn connections_break_at_any_byte() {
    let cluster = Cluster::new("60s");
    let mut random = Random::seeded();
    let mut jobs = Vec::new();
    for _ in 0..30 {
        let at = random.below(400) as usize;
        let lines = [NEW, NEW, ACK, FEED, "jobs/status", "/processor/"];
        let line = random.pick(&lines).unwrap();
        let delay = Duration::from_millis(random.below(300));
        let acts = [Act::Cut(at), Act::CutReply(at), Act::Twice, Act::LoseReply, Act::Delay(delay)];
        cluster.proxy.rule(line, *random.pick(&acts).unwrap(), 1);
        jobs.push(cluster.submit("true", json!({})));
        // Not a wait for anything: the moment of the next fault is random, too.
        std::thread::sleep(Duration::from_millis(random.below(100)));
    }
    jobs.iter().for_each(|job| cluster.assert_ran_once(*job));
    cluster.assert_clean();
}
