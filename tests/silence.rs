//! Nodes that do not answer, servers that die, heads that lack descriptors: what the head says of
//! nodes is true.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use common::head::{drain_localhost, host, node_reaches, open_root, register};
use common::{SOON, TestRoot, let_pass, until, wait_for};
use serde_json::{Value, json};

#[test]
fn what_a_node_gives_is_asked_again() {
    let root = open_root("");
    root.write("corkboard.conf", "cores = 2\nmemory = 4 GiB\nscan_every = 0.2\n");
    let (other, httpd, token) = host("");
    drain_localhost(&root);
    register(&root, &json!({"name": "other", "uri": httpd.url(), "token": token}));
    let _poller = root.poller();
    assert_eq!(node_reaches(&root, "other", "connected")["resources"]["cores"], 2);
    other.write("corkboard.conf", "cores = 1\nmemory = 4 GiB\n");
    let large = root.submit(&json!({"command": ["true"], "requested_resources": {"cores": 2}}));
    let cores = || {
        root.cmd("scheduler", &["nodes", "other"]).expect(0).json()["resources"]["cores"].clone()
    };
    until("the record says so", || cores() == 1);
    let next = root.submit(&json!({"command": ["true"], "requested_resources": {"cores": 2}}));
    root.reason(next, "2 cores");
    other.write("corkboard.conf", "cores = 2\nmemory = 4 GiB\n");
    root.reaches(next, "stopped");
    root.reaches(large, "stopped");
    root.check();
    other.check();
}

#[test]
fn a_node_whose_server_died_is_disconnected_with_the_first_request_that_fails() {
    let root = open_root("");
    let (other, httpd, token) = host("");
    // A request for the feed stays longer than the test waits.
    root.write("corkboard.conf", "cores = 2\nmemory = 4 GiB\nscan_every = 1m\n");
    drain_localhost(&root);
    register(&root, &json!({"name": "other", "uri": httpd.url(), "token": token}));
    let _poller = root.poller();
    let job = root.submit(&json!({"command": ["sleep", "1000"]}));
    root.reaches(job, "running");
    let port = httpd.port;
    drop(httpd); // what answers the request for the feed lives on
    root.update(job, "kill=1").expect(0);
    node_reaches(&root, "other", "disconnected");
    let _httpd = other.httpd_on(port);
    assert_eq!(root.reaches(job, "stopped")["cause"], "killed");
    node_reaches(&root, "other", "connected");
    root.check();
    other.check();
}

#[test]
fn a_head_without_descriptors_says_so_and_calls_no_node_disconnected() {
    let root = open_root("");
    let (other, httpd, token) = host("");
    drain_localhost(&root);
    for number in 0..40 {
        let name = format!("n{number}");
        register(&root, &json!({"name": name, "uri": httpd.url(), "token": token, "drain": true}));
    }
    let poller = root.poller_with_few_descriptors(40);
    wait_for(SOON, || {
        let log = root.read("poller.log");
        if log.contains("too many open files") { Ok(()) } else { Err(log) }
    });
    until("those that can be asked are", || {
        root.read("poller.log").matches(": connected, ").count() >= 10
    });
    drop(poller);
    let log = root.read("poller.log");
    assert!(!log.contains("disconnected"), "{log}");
    let _poller = root.poller();
    let last = wait_for(SOON, || {
        let list = root.cmd("scheduler", &["nodes", "list"]).expect(0).json();
        let nodes = list["nodes"].as_array().unwrap().clone();
        let connected = nodes.iter().filter(|node| node["state"] == "connected").count();
        if connected == 41 { Ok(nodes) } else { Err(format!("{connected} are connected")) }
    });
    assert_eq!(last.len(), 41);
    root.check();
    other.check();
}

/// Nodes whose names no name service tells hold up no other: neither its jobs, nor the asking whether it
/// answers.
#[test]
fn names_that_are_not_told_hold_up_no_other_node() {
    let mut root = open_root("connect_timeout = 30s\n");
    let (other, httpd, token) = host("");
    let tools = root.path("tools");
    fs::create_dir(&tools).unwrap();
    root.write(
        "tools/getent",
        "#!/bin/sh\ncase $2 in slow*) exec sleep 1000 ;; esac\necho \"127.0.0.1 STREAM $2\"\n",
    );
    fs::set_permissions(tools.join("getent"), fs::Permissions::from_mode(0o755)).unwrap();
    root.env.push(("PATH".into(), format!("{}:/usr/local/bin:/usr/bin:/bin", tools.display())));
    drain_localhost(&root);
    for number in 0..24 {
        let (name, uri) = (format!("slow{number}"), format!("http://slow{number}.example:80"));
        register(&root, &json!({"name": name, "uri": uri}));
    }
    register(&root, &json!({"name": "by-address", "uri": httpd.url(), "token": token}));
    let named = format!("http://quick.example:{}", httpd.port);
    register(&root, &json!({"name": "by-name", "uri": named, "token": token}));
    let begun = Instant::now();
    let _poller = root.poller();
    let both = |state: &str| {
        node_reaches(&root, "by-address", state);
        node_reaches(&root, "by-name", state);
    };
    both("connected");
    let job = root.submit(&json!({"command": ["true"]}));
    root.reaches(job, "stopped");
    let port = httpd.port;
    httpd.cut();
    both("disconnected");
    let _httpd = other.httpd_on(port);
    both("connected");
    let job = root.submit(&json!({"command": ["true"]}));
    root.reaches(job, "stopped");
    assert!(begun.elapsed() < Duration::from_secs(28), "{:?}", begun.elapsed());
    root.check();
    other.check();
}

#[test]
fn many_silent_nodes_take_few_threads_and_hold_up_no_job() {
    const SILENT: usize = 300;
    let root = open_root("connect_timeout = 1s\nrequest_timeout = 1s\n");
    let first = root.poller(); // makes the record of localhost
    node_reaches(&root, "localhost", "connected");
    drop(first);
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap(); // a few wait to be accepted, others are not
    let uri = format!("http://{}", deaf.local_addr().unwrap());
    for number in 0..SILENT {
        let node =
            json!({"driver": "http", "uri": uri, "resources": {"cores": 64, "memory": 1 << 30}});
        root.write(&format!("state/scheduler/nodes/n{number}.json"), &node.to_string());
    }
    let poller = root.poller();
    let threads = || fs::read_dir(format!("/proc/{}/task", poller.pid())).unwrap().count();
    let mut most = 0;
    wait_for(SOON, || {
        most = most.max(threads());
        let job = root.submit(&json!({"command": ["true"]}));
        assert_eq!(root.reaches(job, "stopped")["node"], "localhost");
        let list = root.cmd("scheduler", &["nodes", "list"]).expect(0).json();
        let nodes = list["nodes"].as_array().unwrap();
        let down = nodes.iter().filter(|node| node["state"] == "disconnected").count();
        if down == SILENT { Ok(()) } else { Err(format!("{down} are disconnected")) }
    });
    assert!(most < 30, "{most} threads");
    root.check();
}

#[test]
fn who_runs_something_on_a_node_that_says_nothing_is_told_under_which_id() {
    let root = open_root("connect_timeout = 1s\nrequest_timeout = 1s\n");
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap(); // takes requests, and answers none
    let uri = format!("http://{}", deaf.local_addr().unwrap());
    register(&root, &json!({"name": "deaf", "uri": uri}));
    let request = json!({"command": "true"}).to_string();
    let said = root.cmd_in("nodemgr", &["deaf", "jobs", "new"], &request).expect(75).stderr;
    let (_, id) = said.split_once("it may have come there, as ").expect(&said);
    let id = id.split(':').next().unwrap();
    assert!(
        id.starts_with("nodemgr-") && said.contains(&format!("deaf/jobs/{id}/status")),
        "{said}"
    );
}

/// A job of this root that waits until there is `go`, and runs.
fn waiting_job(root: &TestRoot) -> u64 {
    let go = root.path("go");
    let job = root
        .submit(&json!({"command": format!("until [ -e {} ]; do sleep 0.02; done", go.display())}));
    root.reaches(job, "running");
    job
}

fn last_event(root: &TestRoot, job: u64) -> Value {
    root.card(job).last().cloned().unwrap()
}

/// Somebody makes a typing error in the settings of this node's root, does something, and mends it after a
/// while that is some times `lost_after`.
fn typing_error(root: &TestRoot, name: &str, at: &TestRoot, meanwhile: impl Fn()) {
    let job = waiting_job(root);
    let good = at.read("corkboard.conf");
    let said = |what: &str| root.read("poller.log").matches(&format!("{name}: {what}")).count();
    let before = said("connected");
    at.write("corkboard.conf", &format!("{good}corez = 4\n"));
    until("it says that it can do nothing", || said("disconnected: ") == 1);
    assert!(root.read("poller.log").contains("corkboard.conf"), "{}", root.read("poller.log"));
    meanwhile();
    let_pass(Duration::from_secs(4));
    assert_eq!(last_event(root, job)["event"], "running");
    at.write("corkboard.conf", &good);
    until("it is connected", || said("connected") > before);
    let_pass(Duration::from_secs(1)); // in which the job would be killed
    root.write("go", "");
    let end = root.reaches(job, "stopped");
    assert_eq!((&end["status"], &end["attempt"]), (&json!("good"), &json!(1)), "{end}");
    root.check();
}

#[test]
fn a_typing_error_in_the_settings_loses_no_job_of_this_root() {
    let root = open_root("lost_after = 1s\n");
    let conf = root.read("corkboard.conf").replace("scan_every = 1s", "scan_every = 0.1");
    root.write("corkboard.conf", &conf);
    let _poller = root.poller();
    typing_error(&root, "localhost", &root, || {});
}

/// Those that are to end do not wait for ever for one that can end nothing.
#[test]
fn a_typing_error_in_its_settings_loses_no_job_of_another_node() {
    let root = open_root("lost_after = 1s\n");
    let (other, httpd, token) = host("");
    drain_localhost(&root);
    register(&root, &json!({"name": "other", "uri": httpd.url(), "token": token}));
    let _poller = root.poller();
    let killed = waiting_job(&root);
    typing_error(&root, "other", &other, || {
        root.update(killed, "kill=1").expect(0);
        let end = root.reaches(killed, "stopped");
        let reason = end["reason"].as_str().unwrap();
        assert!(reason.contains("node other can neither end it nor tell of it"), "{end}");
    });
    let status = || other.cmd("processor", &["jobs", "state=running"]).expect(0).body;
    until("what was given up is killed", || status().trim().is_empty());
    other.check();
}
