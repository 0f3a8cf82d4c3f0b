//! A node's record, or what else is noted of it, cannot be read: that is no removal, no job is forgotten, and whose
//! the node is stays so.
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

use cluster::{Cluster, cause, has_had_jobs, other_machine};
use common::head::register;
use common::{TestRoot, let_pass, until};
use corkboard::board::cards::Cards;
use corkboard::board::root::Root;
use corkboard::model::card::State;
use corkboard::model::outcome::Cause;
use serde_json::{Value, json};

#[test]
fn a_record_that_cannot_be_read_is_no_removal() {
    let cluster = Cluster::new("1s");
    let running = cluster.submit_waiting(json!({}));
    let aside = cluster.head.path("aside");
    fs::rename(cluster.record(), &aside).unwrap();
    fs::create_dir(cluster.record()).unwrap();
    let waiting = cluster.submit("true", json!({}));
    // Longer than a job of a node that is not registered would be kept.
    let_pass(Duration::from_millis(2500));
    assert_eq!(cluster.card(running).state, State::Running);
    assert_eq!(cluster.card(waiting).state, State::Queued);
    fs::remove_dir(cluster.record()).unwrap();
    fs::rename(&aside, cluster.record()).unwrap();
    cluster.go();
    cluster.assert_ran_once(running);
    cluster.assert_ran_once(waiting);
    cluster.assert_clean();
}

/// A record of which a crash of the disk, or a hand, has left a part: the node is registered anew, and
/// has what it had.
#[test]
fn a_damaged_record_is_written_anew_and_its_jobs_stay() {
    let cluster = Cluster::new("60s");
    let (other, httpd) = other_machine();
    let job = cluster.submit_waiting(json!({}));
    let uri = cluster.far()["uri"].clone();
    let whole = cluster.head.read("state/scheduler/nodes/far.json");
    let damage = |text: &str| {
        let board = Root::open(&cluster.head.dir).unwrap();
        let _lock = Cards::new(&board).lock().unwrap();
        fs::write(cluster.record(), text).unwrap();
    };
    for text in ["", "\0\0\0\0", &whole[..whole.len() / 2]] {
        damage(text);
        for refused in [
            cluster.remove_far(),
            cluster.change("far", &json!({"uri": httpd.url()})),
            cluster.change("far", &json!({"drain": true})),
            cluster.head.cmd_in(
                "scheduler",
                &["nodes", "new"],
                r#"{"name":"far","uri":"http://127.0.0.1:9"}"#,
            ),
        ] {
            assert_eq!(refused.code, 1, "{refused:?}");
            let told = ["node far has job 1", "`scheduler nodes far update` with all its fields"];
            assert!(told.iter().any(|told| refused.stderr.contains(told)), "{refused:?}");
        }
        let found = cluster.head.cmd("scheduler", &["check"]).expect(1).body;
        assert!(found.contains("`scheduler nodes far remove` removes it"), "{found}");
        cluster.change("far", &json!({"name": "far", "uri": uri})).expect(0);
        cluster.until_node("connected");
        assert_eq!(cluster.far()["uri"], uri);
        assert_eq!(cluster.card(job).state, State::Running);
    }
    let next = cluster.submit("true", json!({}));
    cluster.assert_ran_once(next);
    cluster.go();
    cluster.assert_ran_once(job);
    damage("{");
    cluster.remove_far().expect(0);
    cluster.remove_far().expect(1);
    register(&cluster.head, &json!({"name": "far", "uri": uri}));
    let last = cluster.submit("true", json!({}));
    cluster.assert_ran_once(last);
    assert!(!has_had_jobs(&other));
    cluster.assert_clean();
}

/// What may still run there is remembered as far as the record still says it.
#[test]
fn what_was_given_up_is_not_forgotten_with_a_damaged_record() {
    let cluster = Cluster::new("1s");
    let job = cluster.submit_waiting(json!({}));
    let id = cluster.card(job).attempts[0].nodejob.clone();
    cluster.proxy.cut();
    assert_eq!(cause(&cluster.ended(job)), Cause::Lost);
    until("it is given up", || cluster.far()["given_up"].as_array().map(Vec::len) == Some(1));
    let uri = cluster.far()["uri"].clone();
    let text = cluster.head.read("state/scheduler/nodes/far.json");
    let end = text.rfind(']').unwrap();
    fs::write(cluster.record(), &text[..end]).unwrap();
    let refused = cluster.remove_far().expect(1);
    assert!(refused.stderr.contains("1 attempts that were given up"), "{refused:?}");
    let elsewhere = json!({"uri": "http://127.0.0.1:9"});
    let refused = cluster.change("far", &elsewhere).expect(1);
    assert!(refused.stderr.contains("1 attempts that were given up"), "{refused:?}");
    let written = cluster.change("far", &json!({"uri": uri})).expect(0).json();
    assert_eq!(written["given_up"], json!([id]));
    cluster.proxy.heal();
    assert_eq!(cluster.node.ended(&id)["cause"], "killed", "it is not let run on unseen");
    cluster.assert_clean();
}

/// The same for a poller that begins while the record cannot be read.
#[test]
fn a_record_that_cannot_be_read_at_the_start_is_no_removal() {
    let mut cluster = Cluster::new("1s");
    let running = cluster.submit_waiting(json!({}));
    let aside = cluster.head.path("aside");
    cluster.poller(0, "KILL");
    fs::rename(cluster.record(), &aside).unwrap();
    fs::create_dir(cluster.record()).unwrap();
    let poller = cluster.head.poller();
    let_pass(Duration::from_millis(2500)); // longer than `lost_after`
    assert_eq!(cluster.card(running).state, State::Running);
    let log = cluster.head.read("poller.log");
    assert_eq!(
        log.matches("nodes/far.json: is a directory; it gets no new jobs").count(),
        1,
        "{log}"
    );
    fs::remove_dir(cluster.record()).unwrap();
    fs::rename(&aside, cluster.record()).unwrap();
    cluster.go();
    cluster.assert_ran_once(running);
    cluster.assert_clean();
    drop(poller);
}

/// In whatever form the record is: somebody's own machine does not take everybody's jobs for want of a word.
#[test]
fn a_damaged_record_keeps_whose_node_it_is_in_any_form() {
    let root = TestRoot::new("");
    let uri = "http://127.0.0.1:9";
    register(&root, &json!({"name": "far", "uri": uri, "owner": "ann"}));
    for text in [
        format!(r#"{{"name":"far","uri":"{uri}","driver":"http","proves":true,"owner":"ann","dr"#),
        format!(
            "{{\"reason\":\"its owner\",\n\"uri\":\t\"{uri}\",\"owner\" :\n \"ann\",\"proves\" : true,"
        ),
    ] {
        root.write("state/scheduler/nodes/far.json", &text);
        let change = json!({"uri": uri, "driver": "http"}).to_string();
        let written =
            root.cmd_in("scheduler", &["nodes", "far", "update"], &change).expect(0).json();
        assert_eq!(
            (&written["owner"], &written["proves"]),
            (&json!("ann"), &json!(true)),
            "{text}"
        );
    }
    root.write("state/scheduler/nodes/far.json", r#"{"name":"far","owner":"ann""#);
    let change = json!({"uri": uri, "driver": "http", "owner": null}).to_string();
    let written = root.cmd_in("scheduler", &["nodes", "far", "update"], &change).expect(0).json();
    assert_eq!((&written["owner"], &written["proves"]), (&Value::Null, &Value::Null));
    root.check();
}

/// A token that may be bound to the name is good for the next machine that has it.
#[test]
fn a_node_whose_tokens_cannot_be_told_stays() {
    let root = TestRoot::new("");
    let bound = |node: &str| {
        let words = ["tokens", "new", "-q", "role=worker", &format!("node={node}")];
        let token = root.cmd("scheduler", &words).expect(0).body;
        token.split('_').nth(1).unwrap().to_string()
    };
    register(&root, &json!({"name": "two", "uri": "http://127.0.0.1:9"}));
    let (known, other) = (bound("two"), bound("three"));
    let record = |id: &str| format!("state/tokens/{id}");
    let newer = |id: &str| root.read(&record(id)).replacen('{', r#"{"labels":["x"],"#, 1);
    root.write(&record(&other), &newer(&other)); // it says whose it is
    let id = bound("two");
    for text in [newer(&id), String::new(), root.read(&record(&id))[..20].to_string()] {
        root.write(&record(&id), &text);
        let refused = root.cmd("scheduler", &["nodes", "two", "remove"]).expect(1);
        assert!(refused.stderr.contains(&format!("tokens rm id={id}")), "{refused:?}");
        assert!(root.exists(&record(&known)) && root.exists("state/scheduler/nodes/two.json"));
    }
    root.cmd("scheduler", &["tokens", "rm", &format!("id={id}")]).expect(0);
    root.cmd("scheduler", &["nodes", "two", "remove"]).expect(0);
    assert!(!root.exists(&record(&known)) && root.exists(&record(&other)));
}
