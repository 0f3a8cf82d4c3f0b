//! A node's registration changes while it has jobs: no job is sent elsewhere, none is forgotten.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "common/net.rs"]
mod net;
#[path = "common/proxy.rs"]
mod proxy;

use std::fs::{self, File};
use std::time::Duration;

use cluster::{Cluster, NEW, OFTEN, cause, has_had_jobs, other_machine};
use common::head::{node_reaches, register};
use common::{let_pass, until};
use corkboard::board::cards::Cards;
use corkboard::board::root::Root;
use corkboard::model::card::State;
use corkboard::model::outcome::Cause;
use proxy::{Act, Proxy};
use serde_json::{Value, json};

#[test]
fn the_address_of_a_node_that_has_jobs_stays() {
    let cluster = Cluster::new("60s");
    let (other, httpd) = other_machine();
    let job = cluster.submit_waiting(json!({}));
    let refused = cluster.change("far", &json!({"uri": httpd.url()})).expect(1);
    assert!(refused.stderr.contains("node far has job 1: drain it"), "{refused:?}");
    cluster.remove_far().expect(1);
    cluster.change("far", &json!({"hostname": "far.example", "drain": true})).expect(0);
    cluster.go();
    cluster.assert_ran_once(job);
    cluster.change("far", &json!({"uri": httpd.url(), "drain": null})).expect(0);
    let next = cluster.submit("true", json!({}));
    cluster.assert_ran_once(next);
    assert!(has_had_jobs(&other));
    cluster.assert_clean();
}

#[test]
fn what_was_given_up_is_not_forgotten_with_the_registration() {
    let cluster = Cluster::new("1s");
    let job = cluster.submit_waiting(json!({}));
    cluster.proxy.cut();
    assert_eq!(cause(&cluster.ended(job)), Cause::Lost);
    for refused in
        [cluster.remove_far(), cluster.change("far", &json!({"uri": "http://127.0.0.1:9"}))]
    {
        assert!(refused.stderr.contains("1 attempts that were given up"), "{refused:?}");
    }
    assert_eq!(cluster.far()["given_up"].as_array().map(Vec::len), Some(1));
    cluster.change("far", &json!({"given_up": ["x"]})).expect(1);
    cluster.change("far", &json!({"given_up": null})).expect(0);
    cluster.remove_far().expect(0);
    cluster.go();
    cluster.until_node_is_idle();
}

/// Whoever removes the card, clean-up or a hand, does not end what its node may still run.
#[test]
fn what_was_given_up_is_killed_though_its_card_is_gone() {
    let cluster = Cluster::new("1s");
    let job = cluster.submit_waiting(json!({}));
    let id = cluster.card(job).attempts[0].nodejob.clone();
    cluster.proxy.cut();
    assert_eq!(cause(&cluster.ended(job)), Cause::Lost);
    let card = cluster.head.path(&format!("state/scheduler/done/0/{job}.job"));
    until("it has been moved", || fs::remove_file(&card).is_ok());
    cluster.proxy.heal();
    assert_eq!(cluster.node.ended(&id)["cause"], "killed");
    cluster.assert_clean();
}

/// A card that was placed before the registration was changed by hand, and was not sent.
#[test]
fn an_attempt_is_sent_nowhere_but_to_its_address() {
    for removed in [false, true] {
        let mut cluster = Cluster::new("2s");
        let (other, httpd) = other_machine();
        cluster.proxy.rule(NEW, Act::Lose, OFTEN);
        let job = cluster.submit("true", json!({}));
        cluster.until(job, |card| card.state == State::Placed && cluster.proxy.count(NEW) > 0);
        cluster.poller(0, "KILL");
        let text = fs::read_to_string(cluster.record()).unwrap();
        fs::remove_file(cluster.record()).unwrap();
        if !removed {
            let old = cluster.far_uri(&text);
            fs::write(cluster.record(), text.replace(&old, &httpd.url())).unwrap();
        }
        cluster.pollers[0] = Some(cluster.head.start("poller", &["-q"]));
        let card = cluster.ended(job);
        assert_eq!(cause(&card), Cause::Lost, "{card:?}");
        let reason = card.outcome.unwrap().reason.unwrap();
        let why = if removed { "is not registered any more" } else { "at another address now" };
        assert!(reason.contains(why), "{reason}");
        assert!(!has_had_jobs(&other));
        assert_eq!(cluster.ran(), [""; 0]);
    }
}

#[test]
fn a_node_is_removed_and_registered_while_jobs_are_placed() {
    let cluster = Cluster::new("60s");
    let node = json!({"name": "far", "uri": cluster.far()["uri"]});
    let mut jobs = Vec::new();
    let mut removals = 0;
    for _ in 0..40 {
        jobs.push(cluster.submit("true", json!({})));
        if cluster.remove_far().code == 0 {
            removals += 1;
            register(&cluster.head, &node);
        }
    }
    jobs.iter().for_each(|job| cluster.assert_ran_once(*job));
    println!("{removals} removals");
    cluster.assert_clean();
}

#[test]
fn an_upload_that_cannot_be_read_keeps_no_other_job() {
    let mut cluster = Cluster::new("60s");
    cluster.poller(0, "KILL");
    let body = "--B\r\nContent-Disposition: form-data; name=\"job\"\r\n\r\n{\"command\": \"cat in\"}\r\n--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"in\"\r\n\r\ndata\r\n--B--\r\n";
    let form = [("Content-Type", "multipart/form-data; boundary=B")];
    let answer = cluster.head.cgi("POST", "/scheduler/jobs/new", &form, body.as_bytes());
    let bad = answer.expect(201).json()["job"].as_u64().unwrap();
    let upload = cluster.head.path(&format!("state/scheduler/files/{bad}/in"));
    fs::remove_file(&upload).unwrap();
    fs::create_dir(&upload).unwrap();
    let good = cluster.submit("true", json!({}));
    cluster.pollers[0] = Some(cluster.head.start("poller", &["-q"]));
    cluster.assert_ran_once(good);
    cluster.head.reason(bad, "it cannot be sent");
    fs::remove_dir(&upload).unwrap();
    fs::write(&upload, "data").unwrap();
    let card = cluster.ended(bad);
    assert_eq!(card.outcome.as_ref().unwrap().code, Some(0), "{card:?}");
    assert_eq!(cluster.head.log(bad), "data");
    cluster.assert_clean();
}

#[test]
fn a_range_is_sent_once() {
    let cluster = Cluster::new("60s");
    let body = "--B\r\nContent-Disposition: form-data; name=\"job\"\r\n\r\n{\"command\": \"true\", \"array\": \"0-299\"}\r\n--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"in\"\r\n\r\ndata\r\n--B--\r\n";
    let form = [("Content-Type", "multipart/form-data; boundary=B")];
    let mut ranges = 0;
    for _ in 0..8 {
        let answer = cluster.head.cgi("POST", "/scheduler/jobs/new", &form, body.as_bytes());
        let job = answer.expect(201).json()["job"].as_u64().unwrap();
        let card = cluster.ended(job);
        assert_eq!(card.outcome.as_ref().unwrap().code, Some(0), "{card:?}");
        ranges += card.attempts.len();
        assert_eq!(cluster.proxy.count(NEW), ranges, "{:?}", card.events);
    }
    cluster.assert_clean();
}

/// Who removes a node holds the board's lock, and so does who places on it.
#[test]
fn a_node_is_removed_in_the_instant_before_a_job_is_placed_on_it() {
    let cluster = Cluster::new("60s");
    let node = json!({"name": "far", "uri": cluster.far()["uri"]});
    let poller = cluster.pollers[0].as_ref().unwrap().id();
    let lock = cluster.head.path("state/scheduler/lock");
    let held = File::options().write(true).open(&lock).unwrap();
    held.lock().unwrap();
    let job = cluster.submit("true", json!({}));
    until("the poller is about to place it", || {
        let open = fs::read_dir(format!("/proc/{poller}/fd")).unwrap().flatten();
        open.filter_map(|fd| fs::read_link(fd.path()).ok()).any(|path| path == lock)
    });
    fs::remove_file(cluster.record()).unwrap();
    drop(held);
    let_pass(Duration::from_secs(1)); // in which it would have been placed
    assert_eq!(cluster.card(job).attempts.len(), 0);
    register(&cluster.head, &node);
    cluster.assert_ran_once(job);
    cluster.assert_clean();
}

#[test]
fn this_machine_may_move_its_server_while_it_has_jobs() {
    let root = common::head::open_root("lost_after = 1s\n");
    let first = root.httpd();
    fs::create_dir_all(root.path("run")).unwrap();
    let at = |httpd: &common::Httpd| json!({"name": "localhost", "uri": httpd.url()});
    root.write("run/url", &first.url());
    register(&root, &at(&first));
    let _poller = root.poller();
    node_reaches(&root, "localhost", "connected");
    let until = format!("until [ -e {}/go ]; do sleep 0.02; done", root.path("").display());
    let job = root.submit(&json!({ "command": until }));
    root.reaches(job, "running");
    let second = root.httpd();
    let change = json!({"uri": second.url()}).to_string();
    root.cmd_in("scheduler", &["nodes", "localhost", "update"], &change).expect(1);
    root.write("run/url", &second.url());
    root.cmd_in("scheduler", &["nodes", "localhost", "update"], &change).expect(0);
    first.cut();
    root.write("go", "");
    let end = root.reaches(job, "stopped");
    assert_eq!(end["status"], "good", "{end}");
    root.check();
}

/// A job runs on one machine, and then another one is registered under the name of that: it is not
/// asked about the job, and not believed what it says of it.
#[test]
fn a_machine_that_was_registered_later_is_not_heard_about_an_attempt() {
    let cluster = Cluster::new("60s");
    let (other, httpd) = other_machine();
    let proxy = Proxy::start(httpd.port);
    let job = cluster.submit_waiting(json!({}));
    let id = cluster.card(job).attempts[0].nodejob.clone();
    let uri = format!("http://127.0.0.1:{}", proxy.port);
    let own = cluster.far()["uri"].as_str().unwrap().to_string();
    // Under the board's lock, as all who change a record: else the poller writes over it.
    let register_at = |old: &str, new: &str| {
        let board = Root::open(&cluster.head.dir).unwrap();
        let _lock = Cards::new(&board).lock().unwrap();
        let text = fs::read_to_string(cluster.record()).unwrap();
        let prepared = cluster.head.path("prepared");
        fs::write(&prepared, text.replace(old, new)).unwrap();
        fs::rename(&prepared, cluster.record()).unwrap();
    };
    register_at(&own, &uri);
    until("it is followed", || proxy.count("/processor/events?since=") > 0);
    // With the key of the attempt, and so with the right proof.
    let request = cluster.node.read(&format!("state/processor/job/{id}/request.json"));
    let request: Value = serde_json::from_str(&request).unwrap();
    let forged =
        json!({"command": "true", "request_id": id, "environment": request["environment"]});
    other.cmd_in("processor", &["jobs", "new"], &forged.to_string()).expect(0);
    assert_eq!(other.ended(&id)["status"], "good");
    // A job that is placed there, and reported after that.
    let later = cluster.submit("true", json!({}));
    assert_eq!(cluster.ended(later).attempts[0].uri.as_deref(), Some(&*uri));
    let asked = cluster.head.cmd("scheduler", &["jobs", &job.to_string(), "update"]).expect(75);
    assert!(asked.stderr.contains("another address"), "{asked:?}");
    cluster.head.cmd("scheduler", &["jobs", &job.to_string(), "log"]).expect(75);
    assert_eq!(proxy.count(&id), 0);
    assert_eq!(cluster.card(job).state, State::Running);
    register_at(&uri, &own);
    cluster.go();
    cluster.assert_ran_once(job);
    cluster.assert_clean();
    other.check();
}
