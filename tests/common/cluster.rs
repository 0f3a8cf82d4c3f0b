//! A head and a node with a network between them that misbehaves as it is told.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::PathBuf;
use std::process::Child;

use corkboard::board::cards::Cards;
use corkboard::board::root::Root;
use corkboard::model::card::{Card, State, What};
use corkboard::model::outcome::Cause;
use serde_json::{Value, json};

use crate::common::head::{drain_localhost, node_reaches, register};
use crate::common::{Answer, Httpd, SOON, TestRoot, signal, until, wait_for};
use crate::net::Server;
use crate::proxy::{Act, Proxy};

pub const NEW: &str = "POST /cgi-bin/processor/jobs/new";

pub const KILL: &str = "/kill";

pub const ACK: &str = "POST /cgi-bin/processor/jobs/ack";

pub const STATUS: &str = "GET /cgi-bin/processor/jobs/status?ids=";

pub const FEED: &str = "/processor/events?since=";

pub const OFTEN: usize = 1_000_000;

/// A head whose only open node is behind a proxy.
pub struct Cluster {
    pub head: TestRoot,
    pub node: TestRoot,
    pub server: Server,
    pub proxy: Proxy,
    /// The head's, then the node's.
    pub pollers: [Option<Child>; 2],
}

impl Cluster {
    pub fn new(lost_after: &str) -> Cluster {
        let conf = format!(
            "cores = 2\nmemory = 4 GiB\nscan_every = 0.2\nconnect_timeout = 1\nrequest_timeout = 2\nunknown_after = 1\nlost_after = {lost_after}\n"
        );
        let (head, node) = (TestRoot::new(&conf), TestRoot::new(&conf));
        head.open();
        node.open();
        let server = Server::start(&node.dir);
        let proxy = Proxy::start(server.port);
        drain_localhost(&head);
        let uri = format!("http://127.0.0.1:{}", proxy.port);
        register(&head, &json!({"name": "far", "uri": uri}));
        let pollers = [Some(head.start("poller", &["-q"])), Some(node.start("poller", &["-q"]))];
        let cluster = Cluster { head, node, server, proxy, pollers };
        cluster.until_node("connected");
        cluster
    }

    pub fn until_node(&self, state: &str) {
        node_reaches(&self.head, "far", state);
    }

    pub fn far(&self) -> Value {
        self.head.cmd("scheduler", &["nodes", "far"]).expect(0).json()
    }

    /// The node's address in its record.
    pub fn far_uri(&self, record: &str) -> String {
        serde_json::from_str::<Value>(record).unwrap()["uri"].as_str().unwrap().to_string()
    }

    /// Submits a job that notes its attempt, then does this.
    pub fn submit(&self, then: &str, more: Value) -> u64 {
        let note = format!("echo $CORKBOARD_NODEJOB >> {}", self.path("witness"));
        let mut request = json!({"command": format!("{note}; {then}")});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.head.submit(&request)
    }

    /// A job that runs until [`Cluster::go`].
    pub fn submit_waiting(&self, more: Value) -> u64 {
        let job =
            self.submit(&format!("until [ -e {} ]; do sleep 0.02; done", self.path("go")), more);
        self.until(job, |card| card.state == State::Running);
        job
    }

    pub fn go(&self) {
        fs::write(self.path("go"), "").unwrap();
    }

    pub fn path(&self, name: &str) -> String {
        self.head.path(name).display().to_string()
    }

    pub fn card(&self, job: u64) -> Card {
        let root = Root::open(&self.head.dir).unwrap();
        Cards::new(&root).find(job).unwrap()
    }

    pub fn until(&self, job: u64, is_so: impl Fn(&Card) -> bool) -> Card {
        wait_for(SOON, || {
            let card = self.card(job);
            if is_so(&card) { Ok(card) } else { Err(format!("{:?} {:?}", card.state, card.events)) }
        })
    }

    pub fn ended(&self, job: u64) -> Card {
        self.until(job, |card| card.state == State::Stopped)
    }

    pub fn kill(&self, job: u64) {
        self.head.cmd("scheduler", &["jobs", &job.to_string(), "update", "kill=1"]).expect(0);
    }

    /// The attempts that ran, in order.
    pub fn ran(&self) -> Vec<String> {
        self.head.read("witness").lines().map(str::to_string).collect()
    }

    /// A job that is killed while the request that would start it is held back.
    pub fn kill_before_it_comes(&self) {
        let before = self.proxy.count(NEW);
        self.proxy.rule(NEW, Act::Hold, OFTEN);
        let job = self.submit("true", json!({}));
        until("it is under way", || self.proxy.count(NEW) > before);
        self.kill(job);
        assert_eq!(cause(&self.ended(job)), Cause::Killed);
    }

    /// Lets requests come that were held back, too late: the node refuses each.
    pub fn held_starts_are_refused(&self) {
        self.proxy.clear();
        for reply in self.proxy.deliver_held() {
            assert!(reply.contains("410"), "{reply}");
        }
        self.until_node_is_idle();
    }

    /// Changes what is registered of a node.
    pub fn change(&self, name: &str, change: &Value) -> Answer {
        self.head.cmd_in("scheduler", &["nodes", name, "update"], &change.to_string())
    }

    pub fn remove_far(&self) -> Answer {
        self.head.cmd("scheduler", &["nodes", "far", "remove"])
    }

    /// What is registered of it.
    pub fn record(&self) -> PathBuf {
        self.head.path("state/scheduler/nodes/far.json")
    }

    /// Waits until nothing is left to do on the node: what was wrongly accepted has run, too.
    pub fn until_node_is_idle(&self) {
        wait_for(SOON, || {
            // What is claimed leaves the queue once its supervisor's slot names it.
            let queue = fs::read_dir(self.node.path("state/processor/queue")).unwrap();
            let (waiting, busy) = (queue.count(), self.node.supervisors());
            let idle = waiting == 0 && busy.is_empty();
            if idle { Ok(()) } else { Err(format!("{waiting} wait, {busy:?} are at work")) }
        });
    }

    /// The job ended well, in one attempt that ran once and was reported once.
    pub fn assert_ran_once(&self, job: u64) {
        let card = self.ended(job);
        assert_eq!(card.outcome.as_ref().unwrap().code, Some(0), "{card:?}");
        assert_eq!(card.attempts.len(), 1, "{card:?}");
        let ends = card.events.iter().filter(|e| matches!(e.what, What::Stopped { .. })).count();
        assert_eq!((ends, lates(&card).len()), (1, 0), "{card:?}");
        let id = &card.attempts[0].nodejob;
        assert_eq!(self.ran().iter().filter(|ran| **ran == ***id).count(), 1, "{:?}", self.ran());
    }

    pub fn poller(&mut self, which: usize, signal_name: &str) {
        let child = self.pollers[which].as_mut().unwrap();
        signal(child.id() as i32, signal_name);
        if signal_name == "KILL" {
            child.wait().unwrap();
            self.pollers[which] = None;
        }
    }

    pub fn restart_poller(&mut self, which: usize) {
        self.poller(which, "KILL");
        let root = if which == 0 { &self.head } else { &self.node };
        self.pollers[which] = Some(root.start("poller", &["-q"]));
    }

    /// Both boards are in order, nothing is owed, and no program is left.
    pub fn assert_clean(&self) {
        until("nothing is owed", || self.far()["given_up"] == Value::Null);
        self.head.check();
        self.node.check();
        println!("{:?}; {} runs", self.proxy.acts(), self.ran().len());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.pollers.iter_mut().flatten() {
            signal(child.id() as i32, "CONT");
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The `late` lines: attempt and cause.
pub fn lates(card: &Card) -> Vec<(u32, Cause)> {
    let late = |what: &What| match what {
        What::Late { attempt, outcome } => Some((*attempt, outcome.cause)),
        _ => None,
    };
    card.events.iter().filter_map(|event| late(&event.what)).collect()
}

pub fn cause(card: &Card) -> Cause {
    card.outcome.as_ref().unwrap().cause
}

/// Another machine that could be taken for the node.
pub fn other_machine() -> (TestRoot, Httpd) {
    let other = TestRoot::new("cores = 2\nmemory = 4 GiB\n");
    other.open();
    let httpd = other.httpd();
    (other, httpd)
}

pub fn has_had_jobs(root: &TestRoot) -> bool {
    fs::read_dir(root.path("state/processor/job")).is_ok_and(|mut jobs| jobs.next().is_some())
}
