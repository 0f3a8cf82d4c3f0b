//! A network between a worker and its head that loses, repeats, keeps and breaks off single requests and answers, and
//! that is cut: every job runs once, and its result arrives.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;
#[path = "common/proxy.rs"]
mod proxy;

use std::io::Read;
use std::process::Stdio;
use std::time::Duration;

use common::head::{CONF, Door, Poller, drain_localhost};
use common::node::assert_clean;
use common::worker::{Worker, at_work, connected};
use common::{Httpd, SOON, TestRoot, let_pass, wait_for};
use proxy::{Act, Proxy};
use serde_json::json;

const QUICK: &str = "ping_timer = 500ms\nsilence_timeout = 2s\nrequest_timeout = 5s\n";

/// A head, a proxy before it, and a worker behind that.
struct Scene {
    head: TestRoot,
    httpd: Httpd,
    proxy: Proxy,
    _poller: Poller,
    root: TestRoot,
    worker: Worker,
}

impl Scene {
    fn new() -> Scene {
        let head = TestRoot::new(&format!("{CONF}{QUICK}"));
        head.open();
        drain_localhost(&head);
        let (httpd, _poller) = (head.httpd(), head.poller());
        let proxy = Proxy::start(httpd.port);
        let (root, worker) = at_work(&head, &url(&proxy), "");
        Scene { head, httpd, proxy, _poller, root, worker }
    }

    /// Jobs that each leave a line, and their number.
    fn submit(&self, count: usize) -> Vec<u64> {
        let file = self.root.path("witness");
        let command = format!("echo $CORKBOARD_JOB >> {}", file.display());
        let door = Door::Web(&self.httpd);
        (0..count).map(|_| door.submit(&json!({ "command": command }))).collect()
    }

    fn each_ran_once(&self, jobs: &[u64]) {
        for job in jobs {
            let status = wait_for(SOON * 2, || {
                let status = self.head.status(*job);
                if status["state"] == "stopped" { Ok(status) } else { Err(status.to_string()) }
            });
            assert_eq!(status["status"], "good", "{status}");
        }
        let mut ran: Vec<u64> =
            self.root.read("witness").lines().map(|line| line.parse().unwrap()).collect();
        ran.sort_unstable();
        ran.retain(|job| jobs.contains(job));
        assert_eq!(ran, jobs);
    }

    fn assert_clean(&self) {
        self.head.check();
        assert_clean(&self.root);
    }
}

fn url(proxy: &Proxy) -> String {
    format!("http://127.0.0.1:{}/cgi-bin", proxy.port)
}

#[test]
fn single_requests_and_answers_are_lost() {
    let scene = Scene::new();
    for line in ["/claim", "/report"] {
        for act in [
            Act::Lose,
            Act::LoseReply,
            Act::SwallowReply,
            Act::Twice,
            Act::CutReply(300),
            Act::HalveReply,
            Act::Belie(503),
            Act::DelayReply(Duration::from_secs(1)),
        ] {
            scene.proxy.rule(line, act, 2);
            let jobs = scene.submit(3);
            scene.each_ran_once(&jobs);
            scene.proxy.clear();
        }
    }
    let acts = scene.proxy.acts();
    assert!(acts.values().sum::<usize>() >= 20, "{acts:?}");
    scene.assert_clean();
}

#[test]
fn the_link_is_cut_while_a_log_is_followed() {
    let scene = Scene::new();
    let go = scene.root.path("go").display().to_string();
    let command = format!("echo one; until [ -e {go} ]; do sleep 0.05; done; echo two");
    let job = Door::Web(&scene.httpd).submit(&json!({ "command": command }));
    scene.head.reaches(job, "running");
    let mut follow = scene.head.base("scheduler");
    follow.args(["jobs", &job.to_string(), "log", "follow=1"]).stdout(Stdio::piped());
    let mut follow = follow.spawn().unwrap();
    let mut first = [0; 4];
    follow.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"one\n");
    scene.proxy.cut();
    let jobs = scene.submit(2);
    let_pass(Duration::from_secs(1));
    scene.root.write("go", "");
    scene.proxy.heal();
    let mut rest = String::new();
    follow.stdout.as_mut().unwrap().read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "two\n");
    assert!(follow.wait().unwrap().success());
    scene.each_ran_once(&jobs);
    scene.assert_clean();
}

#[test]
fn programs_on_both_sides_are_killed() {
    let mut scene = Scene::new();
    let mut all = Vec::new();
    for round in 0..4 {
        all.extend(scene.submit(5));
        let url = url(&scene.proxy);
        match round {
            0 | 2 => {
                let worker = Worker::start(&scene.root, &url, &[]);
                let before = std::mem::replace(&mut scene.worker, worker);
                before.end("KILL");
                drop(std::mem::replace(&mut scene.worker, Worker::start(&scene.root, &url, &[])));
            }
            1 => {
                let poller = scene.head.poller_with(&[]);
                let before = std::mem::replace(&mut scene._poller, poller);
                before.end("KILL");
            }
            _ => {
                scene.proxy.cut();
                let_pass(Duration::from_millis(300));
                scene.proxy.heal();
            }
        }
        connected(&scene.head);
    }
    scene.each_ran_once(&all);
    scene.assert_clean();
}
