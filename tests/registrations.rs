//! A node's registration changes while it has jobs, or cannot be read: no job is sent elsewhere,
//! none is forgotten.
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

use cluster::{Cluster, NEW, OFTEN, cause};
use common::head::{node_reaches, register};
use common::{Answer, TestRoot, let_pass, until};
use corkboard::board::cards::Cards;
use corkboard::board::root::Root;
use corkboard::model::card::State;
use corkboard::model::outcome::Cause;
use proxy::{Act, Proxy};
use serde_json::{Value, json};

fn update(cluster: &Cluster, name: &str, change: &Value) -> Answer {
    cluster.head.cmd_in("scheduler", &["nodes", name, "update"], &change.to_string())
}

fn remove(cluster: &Cluster) -> Answer {
    cluster.head.cmd("scheduler", &["nodes", "far", "remove"])
}

fn record(cluster: &Cluster) -> std::path::PathBuf {
    cluster.head.path("state/scheduler/nodes/far.json")
}

/// Another machine that could be taken for the node.
fn other_machine() -> (TestRoot, common::Httpd) {
    let other = TestRoot::new("cores = 2\nmemory = 4 GiB\n");
    other.open();
    let httpd = other.httpd();
    (other, httpd)
}

fn has_had_jobs(root: &TestRoot) -> bool {
    fs::read_dir(root.path("state/processor/job")).is_ok_and(|mut jobs| jobs.next().is_some())
}

#[test]
fn the_address_of_a_node_that_has_jobs_stays() {
    let cluster = Cluster::new("60s");
    let (other, httpd) = other_machine();
    let job = cluster.submit_waiting(json!({}));
    let refused = update(&cluster, "far", &json!({"uri": httpd.url()})).expect(1);
    assert!(refused.stderr.contains("node far has job 1: drain it"), "{refused:?}");
    remove(&cluster).expect(1);
    update(&cluster, "far", &json!({"hostname": "far.example", "drain": true})).expect(0);
    cluster.go();
    cluster.assert_ran_once(job);
    update(&cluster, "far", &json!({"uri": httpd.url(), "drain": null})).expect(0);
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
        [remove(&cluster), update(&cluster, "far", &json!({"uri": "http://127.0.0.1:9"}))]
    {
        assert!(refused.stderr.contains("1 attempts that were given up"), "{refused:?}");
    }
    assert_eq!(cluster.far()["given_up"].as_array().map(Vec::len), Some(1));
    update(&cluster, "far", &json!({"given_up": ["x"]})).expect(1);
    update(&cluster, "far", &json!({"given_up": null})).expect(0);
    remove(&cluster).expect(0);
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
        let text = fs::read_to_string(record(&cluster)).unwrap();
        fs::remove_file(record(&cluster)).unwrap();
        if !removed {
            let old = cluster.far_uri(&text);
            fs::write(record(&cluster), text.replace(&old, &httpd.url())).unwrap();
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
        if remove(&cluster).code == 0 {
            removals += 1;
            register(&cluster.head, &node);
        }
    }
    jobs.iter().for_each(|job| cluster.assert_ran_once(*job));
    println!("{removals} removals");
    cluster.assert_clean();
}

#[test]
fn a_record_that_cannot_be_read_is_no_removal() {
    let cluster = Cluster::new("1s");
    let running = cluster.submit_waiting(json!({}));
    let aside = cluster.head.path("aside");
    fs::rename(record(&cluster), &aside).unwrap();
    fs::create_dir(record(&cluster)).unwrap();
    let waiting = cluster.submit("true", json!({}));
    // Longer than a job of a node that is not registered would be kept.
    let_pass(Duration::from_millis(2500));
    assert_eq!(cluster.card(running).state, State::Running);
    assert_eq!(cluster.card(waiting).state, State::Queued);
    fs::remove_dir(record(&cluster)).unwrap();
    fs::rename(&aside, record(&cluster)).unwrap();
    cluster.go();
    cluster.assert_ran_once(running);
    cluster.assert_ran_once(waiting);
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
    fs::remove_file(record(&cluster)).unwrap();
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
        let text = fs::read_to_string(record(&cluster)).unwrap();
        let prepared = cluster.head.path("prepared");
        fs::write(&prepared, text.replace(old, new)).unwrap();
        fs::rename(&prepared, record(&cluster)).unwrap();
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
        fs::write(record(&cluster), text).unwrap();
    };
    for text in ["", "\0\0\0\0", &whole[..whole.len() / 2]] {
        damage(text);
        for refused in [
            remove(&cluster),
            update(&cluster, "far", &json!({"uri": httpd.url()})),
            update(&cluster, "far", &json!({"drain": true})),
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
        update(&cluster, "far", &json!({"name": "far", "uri": uri})).expect(0);
        cluster.until_node("connected");
        assert_eq!(cluster.far()["uri"], uri);
        assert_eq!(cluster.card(job).state, State::Running);
    }
    let next = cluster.submit("true", json!({}));
    cluster.assert_ran_once(next);
    cluster.go();
    cluster.assert_ran_once(job);
    damage("{");
    remove(&cluster).expect(0);
    remove(&cluster).expect(1);
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
    fs::write(record(&cluster), &text[..end]).unwrap();
    let refused = remove(&cluster).expect(1);
    assert!(refused.stderr.contains("1 attempts that were given up"), "{refused:?}");
    let elsewhere = json!({"uri": "http://127.0.0.1:9"});
    let refused = update(&cluster, "far", &elsewhere).expect(1);
    assert!(refused.stderr.contains("1 attempts that were given up"), "{refused:?}");
    let written = update(&cluster, "far", &json!({"uri": uri})).expect(0).json();
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
    fs::rename(record(&cluster), &aside).unwrap();
    fs::create_dir(record(&cluster)).unwrap();
    let poller = cluster.head.poller();
    let_pass(Duration::from_millis(2500)); // longer than `lost_after`
    assert_eq!(cluster.card(running).state, State::Running);
    let log = cluster.head.read("poller.log");
    assert_eq!(
        log.matches("nodes/far.json: is a directory; it gets no new jobs").count(),
        1,
        "{log}"
    );
    fs::remove_dir(record(&cluster)).unwrap();
    fs::rename(&aside, record(&cluster)).unwrap();
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
