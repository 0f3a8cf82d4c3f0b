//! A node refuses what it may have been sent before: a refusal after silence proves nothing, and
//! whatever arrives late runs at most once.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "common/net.rs"]
mod net;
#[path = "common/proxy.rs"]
mod proxy;

use std::collections::BTreeMap;
use std::time::Duration;

use cluster::{Cluster, KILL, NEW, OFTEN, cause};
use common::{SOON, until, wait_for};
use corkboard::model::card::{Card, State, What};
use corkboard::model::outcome::Cause;
use net::Random;
use proxy::Act;
use serde_json::{Value, json};

const CODES: [u16; 5] = [401, 403, 421, 422, 503];

/// A job, or two tasks of an array: what a line of the witness begins with is what ran.
fn submit(cluster: &Cluster, more: &Value) -> u64 {
    let note =
        format!("echo ${{CORKBOARD_TASK:-job}} $CORKBOARD_NODEJOB >> {}", cluster.path("witness"));
    let mut request = json!({"command": note});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    cluster.head.submit(&request)
}

fn kinds() -> [Value; 2] {
    [json!({}), json!({"array": "0-1%1"})]
}

/// Every task ran once; the numbers of the attempts that ran.
fn ran_once(cluster: &Cluster, more: &Value) -> Vec<u32> {
    let lines: Vec<(String, u32)> = cluster.ran().iter().map(|line| parse(line)).collect();
    let mut what: Vec<&str> = lines.iter().map(|(what, _)| what.as_str()).collect();
    what.sort_unstable();
    let wanted: &[&str] = if more.get("array").is_some() { &["0", "1"] } else { &["job"] };
    assert_eq!(what, wanted, "{lines:?}");
    lines.into_iter().map(|(_, attempt)| attempt).collect()
}

fn parse(line: &str) -> (String, u32) {
    let (what, id) = line.split_once(' ').unwrap();
    (what.to_string(), id.rsplit_once('.').unwrap().1.parse().unwrap())
}

fn refusals(card: &Card) -> usize {
    card.events.iter().filter(|event| matches!(event.what, What::Refused { .. })).count()
}

/// The first request is under way; it was not answered.
fn until_held(cluster: &Cluster) {
    until("the first request is held back", || cluster.proxy.acts().contains_key("Hold"));
}

#[test]
fn a_refused_repeat_does_not_take_back_what_may_still_arrive_of_a_job() {
    a_refused_repeat_does_not_take_back_what_may_still_arrive(&kinds()[0]);
}

#[test]
fn a_refused_repeat_does_not_take_back_what_may_still_arrive_of_a_range() {
    a_refused_repeat_does_not_take_back_what_may_still_arrive(&kinds()[1]);
}

fn a_refused_repeat_does_not_take_back_what_may_still_arrive(more: &Value) {
    for code in CODES {
        let cluster = Cluster::new("60s");
        cluster.proxy.rule(NEW, Act::Hold, 1);
        cluster.proxy.rule(NEW, Act::Refuse(code), OFTEN);
        let job = submit(&cluster, more);
        cluster.until(job, |card| refusals(card) > 0);
        cluster.proxy.clear();
        let card = cluster.ended(job);
        assert_eq!(card.outcome.as_ref().unwrap().code, Some(0), "{card:?}");
        for reply in cluster.proxy.deliver_held() {
            assert!(reply.contains("410"), "{code}: {reply}");
        }
        cluster.until_node_is_idle();
        assert!(ran_once(&cluster, more).iter().all(|attempt| *attempt > 1));
        cluster.assert_clean();
    }
}

#[test]
fn a_node_that_refuses_its_word_too_keeps_the_attempt_of_a_job() {
    a_node_that_refuses_its_word_too_keeps_the_attempt(&kinds()[0]);
}

#[test]
fn a_node_that_refuses_its_word_too_keeps_the_attempt_of_a_range() {
    a_node_that_refuses_its_word_too_keeps_the_attempt(&kinds()[1]);
}

fn a_node_that_refuses_its_word_too_keeps_the_attempt(more: &Value) {
    for code in CODES {
        let cluster = Cluster::new("60s");
        cluster.proxy.rule(NEW, Act::Hold, 1);
        cluster.proxy.rule(NEW, Act::Refuse(code), OFTEN);
        cluster.proxy.rule(KILL, Act::Refuse(code), OFTEN);
        let job = submit(&cluster, more);
        cluster.head.reason(job, "whether an earlier request arrived is not known");
        let card = cluster.card(job);
        assert_eq!((card.state, card.attempts.len()), (State::Placed, 1), "{card:?}");
        cluster.proxy.deliver_held();
        cluster.proxy.clear();
        let card = cluster.ended(job);
        assert_eq!(card.outcome.as_ref().unwrap().code, Some(0), "{card:?}");
        assert_eq!(refusals(&card), 0, "{code}: {card:?}");
        cluster.until_node_is_idle();
        ran_once(&cluster, more);
        cluster.assert_clean();
    }
}

#[test]
fn a_node_that_never_gives_its_word_is_given_up() {
    for retry in [false, true] {
        let cluster = Cluster::new("1s");
        cluster.proxy.rule(NEW, Act::Hold, 1);
        cluster.proxy.rule(NEW, Act::Refuse(403), OFTEN);
        cluster.proxy.rule(KILL, Act::Refuse(403), OFTEN);
        let more = json!({"retry_lost": retry, "max_retry_count": 1});
        let job = submit(&cluster, &more);
        let card =
            cluster.until(job, |card| card.attempts.first().is_some_and(|a| a.outcome.is_some()));
        let end = card.attempts[0].outcome.clone().unwrap();
        assert_eq!(end.cause, Cause::Lost);
        let reason = end.reason.unwrap();
        assert!(reason.contains("whether an earlier request arrived is not known"), "{reason}");
        assert_eq!(card.state == State::Stopped, !retry, "{card:?}");
        cluster.proxy.clear();
        until("it is forbidden to start", || cluster.far()["given_up"] == Value::Null);
        for reply in cluster.proxy.deliver_held() {
            assert!(reply.contains("410"), "{reply}");
        }
        let card = cluster.ended(job);
        cluster.until_node_is_idle();
        if retry {
            assert!(ran_once(&cluster, &more)[0] > 1);
        } else {
            assert_eq!((cause(&card), cluster.ran().len()), (Cause::Lost, 0));
        }
        cluster.assert_clean();
    }
}

#[test]
fn a_poller_does_not_know_what_the_one_before_it_has_sent_of_a_job() {
    a_poller_does_not_know_what_the_one_before_it_has_sent(&kinds()[0]);
}

#[test]
fn a_poller_does_not_know_what_the_one_before_it_has_sent_of_a_range() {
    a_poller_does_not_know_what_the_one_before_it_has_sent(&kinds()[1]);
}

fn a_poller_does_not_know_what_the_one_before_it_has_sent(more: &Value) {
    for code in CODES {
        let mut cluster = Cluster::new("60s");
        cluster.proxy.rule(NEW, Act::Hold, 1);
        cluster.proxy.rule(NEW, Act::Refuse(code), 1);
        let job = submit(&cluster, more);
        until_held(&cluster);
        cluster.restart_poller(0);
        let card = cluster.ended(job);
        assert_eq!(card.outcome.as_ref().unwrap().code, Some(0), "{card:?}");
        cluster.proxy.deliver_held();
        cluster.until_node_is_idle();
        ran_once(&cluster, more);
        cluster.assert_clean();
    }
}

#[test]
fn a_first_request_that_is_refused_is_refused() {
    for code in CODES {
        let cluster = Cluster::new("60s");
        cluster.proxy.rule(NEW, Act::Refuse(code), 1);
        let job = submit(&cluster, &json!({}));
        let card = cluster.ended(job);
        assert_eq!((refusals(&card), card.attempts.len()), (1, 2), "{card:?}");
        assert_eq!(cluster.proxy.count(KILL), 0, "its answer is proof enough");
        assert_eq!(ran_once(&cluster, &json!({})), [2]);
        cluster.assert_clean();
    }
}

#[test]
fn a_task_killed_before_its_range_has_arrived_never_starts() {
    let cluster = Cluster::new("60s");
    cluster.proxy.rule(NEW, Act::Hold, 2);
    let job = submit(&cluster, &json!({"array": "0-1%1"}));
    until_held(&cluster);
    let card = cluster.card(job);
    let tasks = card.attempts[0].tasks.clone().unwrap();
    assert!(tasks.contains(0), "{card:?}");
    cluster
        .head
        .cmd("scheduler", &["jobs", &job.to_string(), "update", "kill=1", "task=0"])
        .expect(0);
    let card = cluster.ended(job);
    cluster.proxy.deliver_held();
    cluster.until_node_is_idle();
    let ran: Vec<(String, u32)> = cluster.ran().iter().map(|line| parse(line)).collect();
    assert_eq!(ran.iter().map(|(task, _)| task.as_str()).collect::<Vec<_>>(), ["1"], "{card:?}");
    let array = &card.tasks;
    assert_eq!(array.outcome_of(0).unwrap().cause, Cause::Killed);
    assert_eq!(array.outcome_of(1).unwrap().code, Some(0));
    cluster.assert_clean();
}

#[test]
fn refusals_losses_and_late_requests_in_any_order() {
    let cluster = Cluster::new("60s");
    let mut random = Random::seeded();
    let mut jobs = Vec::new();
    for _ in 0..24 {
        let code = *random.pick(&CODES).unwrap();
        let delay = Duration::from_millis(random.below(2500));
        let acts = [
            Act::Hold,
            Act::Lose,
            Act::LoseReply,
            Act::Twice,
            Act::Delay(delay),
            Act::Refuse(code),
            Act::Refuse(code),
        ];
        let line = random.pick(&[NEW, NEW, NEW, KILL]).unwrap();
        cluster.proxy.rule(line, *random.pick(&acts).unwrap(), 1);
        let more = random.pick(&kinds()).unwrap().clone();
        jobs.push(submit(&cluster, &more));
        // Not a wait for anything: the moment of the next fault is random, too.
        std::thread::sleep(Duration::from_millis(random.below(150)));
        if random.below(4) == 0 {
            cluster.proxy.deliver_held();
        }
    }
    for job in &jobs {
        // One job may get many of the faults, and is asked about ever more rarely.
        let card = wait_for(4 * SOON, || {
            let card = cluster.card(*job);
            if card.state == State::Stopped { Ok(card) } else { Err(format!("{card:?}")) }
        });
        assert_eq!(card.outcome.as_ref().unwrap().code, Some(0), "{card:?}");
    }
    cluster.proxy.deliver_held();
    cluster.until_node_is_idle();
    let mut runs: BTreeMap<(String, String), u32> = BTreeMap::new();
    for line in cluster.ran() {
        let (what, id) = line.split_once(' ').unwrap();
        let job = id.rsplit_once('.').unwrap().0;
        *runs.entry((job.to_string(), what.to_string())).or_default() += 1;
    }
    assert!(runs.values().all(|times| *times == 1), "{runs:?}");
    let tasks = jobs.iter().map(|job| cluster.card(*job).tasks.spec.tasks.len());
    assert_eq!(runs.len() as u64, tasks.sum::<u64>());
    cluster.assert_clean();
}
