//! Nodes that answer oddly: at once where they are to wait, and not at all in the middle.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "common/net.rs"]
mod net;
#[path = "common/proxy.rs"]
mod proxy;

use std::time::{Duration, Instant};

use cluster::{Cluster, FEED, NEW, OFTEN, STATUS, cause};
use common::{let_pass, until};
use corkboard::board::{nodes, root::Root};
use corkboard::driver::{self, Answer};
use corkboard::error::Kind;
use corkboard::model::ids::RunId;
use corkboard::model::outcome::{Cause, Status};
use proxy::Act;
use serde_json::{Value, json};

/// A node whose feed always says this page, at once, is not asked for it over and over, and its jobs run.
fn is_not_asked_over_and_over(page: &'static str) {
    let cluster = Cluster::new("60s");
    cluster.proxy.rule(FEED, Act::Say(page), OFTEN);
    cluster.proxy.cut();
    cluster.until_node("disconnected");
    cluster.proxy.heal();
    cluster.until_node("connected");
    let before = cluster.proxy.count(FEED);
    let_pass(Duration::from_secs(2)); // it must not be asked often
    let asked = cluster.proxy.count(FEED) - before;
    assert!((2..20).contains(&asked), "{asked} times in two seconds");
    // What its feed does not tell, it is asked.
    let job = cluster.submit("true", json!({}));
    cluster.assert_ran_once(job);
    cluster.proxy.clear();
    cluster.assert_clean();
}

#[test]
fn a_node_that_does_not_wait_is_not_asked_over_and_over() {
    is_not_asked_over_and_over(r#"{"cursor":"0123456789ab.80","events":[]}"#);
}

/// It tells the same over and over, and says each time that this is where to go on.
#[test]
fn a_feed_that_does_not_go_on_is_not_read_over_and_over() {
    is_not_asked_over_and_over(
        r#"{"cursor":"0123456789ab.80","events":[{"id":"other-1.1","state":"running","status":"unknown","at":"t"}]}"#,
    );
}

/// A page of a feed, said by the proxy.
fn page(events: &[Value]) -> Act {
    let page = json!({"cursor": "0123456789ab.80", "events": events}).to_string();
    Act::Say(Box::leak(page.into_boxed_str()))
}

/// A job that its node has taken, as it says, and of which it says this.
fn told_of(cluster: &Cluster, what: &Value) -> u64 {
    cluster.proxy.rule(NEW, Act::Say(r#"{"nodejobs":[{}]}"#), OFTEN);
    cluster.proxy.rule(STATUS, Act::Lose, OFTEN);
    let job = cluster.submit("true", json!({}));
    let card = cluster.until(job, |card| card.attempts.len() == 1);
    let mut event = json!({"id": card.attempts[0].nodejob, "status": "unknown", "at": "t"});
    event.as_object_mut().unwrap().extend(what.as_object().unwrap().clone());
    cluster.proxy.rule(FEED, page(&[event]), OFTEN);
    job
}

/// Every reader of a card reads all of it.
#[test]
fn a_card_is_not_made_long_by_what_a_node_says() {
    let cluster = Cluster::new("60s");
    let long = "2".repeat(100_000);
    let job = told_of(&cluster, &json!({"state": "running", "at": long}));
    let card = cluster.until(job, |card| card.attempts[0].started_at.is_some());
    assert!(card.length < 4000, "{} bytes", card.length);
    cluster.proxy.clear();
    cluster.ended(job); // nobody knows it there
    cluster.assert_clean();
}

#[test]
fn an_end_that_says_no_more_is_none_that_is_good_or_unknown() {
    let cluster = Cluster::new("60s");
    let job = told_of(&cluster, &json!({"state": "stopped"}));
    let card = cluster.ended(job);
    assert_eq!((card.status(), cause(&card)), (Status::Error, Cause::Lost), "{card:?}");
    cluster.proxy.clear();
    cluster.assert_clean();
}

/// So many that they cannot be counted together.
#[test]
fn nodes_may_say_that_they_have_any_number_of_cores() {
    let cluster = Cluster::new("60s");
    let most = json!({"drain": null, "resources": {"cores": u64::MAX, "memory": u64::MAX}});
    for name in ["localhost", "far"] {
        cluster.head.cmd_in("scheduler", &["nodes", name, "update"], &most.to_string()).expect(0);
        common::head::node_reaches(&cluster.head, name, "connected");
    }
    let job = cluster.submit("true", json!({"array": "0-9"}));
    let card = cluster.ended(job);
    assert_eq!(card.outcome.as_ref().unwrap().code, Some(0), "{card:?}");
    cluster.assert_clean();
}

/// What it says is true, of another job.
#[test]
fn an_answer_about_another_job_says_nothing_of_the_one_that_was_asked_about() {
    let cluster = Cluster::new("60s");
    let other = cluster.submit("true", json!({}));
    cluster.assert_ran_once(other);
    let id = cluster.card(other).attempts[0].nodejob.clone();
    let path = format!("/processor/jobs/status?ids={id}");
    let answer = cluster.node.cgi("GET", &path, &[], b"").expect(200).body;
    let answer: &str = Box::leak(answer.into_boxed_str());
    let job = cluster.submit_waiting(json!({}));
    let before = cluster.proxy.count(STATUS);
    cluster.proxy.rule(STATUS, Act::Say(answer), OFTEN);
    until("it was asked about for long", || cluster.proxy.count(STATUS) > before + 3);
    cluster.proxy.clear();
    cluster.go();
    cluster.assert_ran_once(job);
    cluster.assert_clean();
}

#[test]
fn what_runs_though_its_node_has_refused_it_is_ended() {
    let cluster = Cluster::new("60s");
    // The refusal comes first.
    cluster.proxy.rule(FEED, Act::DelayReply(Duration::from_millis(1500)), OFTEN);
    let before = cluster.submit("true", json!({}));
    cluster.assert_ran_once(before); // told by a question that was under way
    cluster.proxy.rule(NEW, Act::Belie(503), 1);
    let go = cluster.path("go");
    let job = cluster.submit(&format!("until [ -e {go} ]; do sleep 0.02; done"), json!({}));
    let card = cluster.until(job, |card| card.attempts.len() == 2);
    let first = card.attempts[0].nodejob.clone();
    assert_eq!(cluster.node.ended(&first)["cause"], "killed");
    cluster.go();
    let card = cluster.ended(job);
    assert_eq!((cause(&card), card.attempts.len()), (Cause::Exit, 2), "{card:?}");
    cluster.assert_clean();
}

#[test]
fn what_is_told_to_run_is_not_taken_back_for_a_refusal() {
    let cluster = Cluster::new("60s");
    cluster.proxy.rule(NEW, Act::BelieLater(503, Duration::from_secs(1)), 1);
    let job = cluster.submit_waiting(json!({}));
    let_pass(Duration::from_millis(1200)); // the refusal is there, and must do nothing
    cluster.go();
    cluster.assert_ran_once(job);
    cluster.assert_clean();
}

#[test]
fn a_node_that_falls_silent_while_it_is_asked_much_is_waited_for_once() {
    let cluster = Cluster::new("60s");
    let root = Root::open(&cluster.head.dir).unwrap();
    let far = driver::open(&root, &nodes::read(&root, "far").unwrap()).unwrap();
    let ids: Vec<RunId> =
        (1..=1000).filter_map(|job| RunId::parse(&format!("other-{job}.1"))).collect();
    cluster.proxy.rule(STATUS, Act::Delay(Duration::ZERO), 1);
    cluster.proxy.rule(STATUS, Act::SwallowReply, OFTEN);
    let begun = Instant::now();
    let answers = far.statuses(&ids).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert_eq!((answers.len(), cluster.proxy.count(STATUS)), (1000, 2));
    let known = answers.iter().take_while(|one| matches!(one, Ok(Answer::Unknown))).count();
    assert!((1..500).contains(&known), "{known}");
    let silent = |one: &Result<Answer, corkboard::error::Error>| {
        one.as_ref().is_err_and(|error| error.kind == Kind::GatewayTimeout)
    };
    assert!(answers[known..].iter().all(silent));
    cluster.proxy.clear();
    cluster.assert_clean();
}
