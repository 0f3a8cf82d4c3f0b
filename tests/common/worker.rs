//! Workers: roots that nobody reaches, each with the program that asks a head for its orders.

use std::fs::File;
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::Value;

use super::head::CONF;
use super::rights::token;
use super::{SOON, TestRoot, signal, wait_for};

/// A worker's process, ended when dropped. What it says is in `worker.log` of its root.
pub struct Worker {
    child: Child,
}

impl Worker {
    /// The worker of this root for the head at this address; `more`: further options.
    pub fn start(root: &TestRoot, url: &str, more: &[&str]) -> Worker {
        Worker { child: command(root, url, more).spawn().unwrap() }
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Sends a signal and returns how it ended.
    pub fn end(mut self, name: &str) -> ExitStatus {
        signal(self.pid(), name);
        wait_for(SOON, || match self.child.try_wait().unwrap() {
            Some(status) => Ok(status),
            None => Err("the worker still runs".into()),
        })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program, as [`Worker::start`] starts it.
pub fn command(root: &TestRoot, url: &str, more: &[&str]) -> Command {
    let mut command = root.base("worker");
    let log = File::options().create(true).append(true).open(root.path("worker.log")).unwrap();
    command.args(["--head", url, "--token-file", "token", "--name", "lap"]).args(more);
    command.current_dir(&root.dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command
}

/// A root with a token in `token` by which it joins this head as `lap`.
pub fn invited(head: &TestRoot, more: &str) -> TestRoot {
    let root = TestRoot::new(&format!("{CONF}{more}"));
    root.write("token", &token(head, &["role=join", "node=lap"]));
    root
}

/// A root that has joined this head as `lap`, and is at work.
pub fn at_work(head: &TestRoot, url: &str, more: &str) -> (TestRoot, Worker) {
    let root = invited(head, more);
    let worker = Worker::start(&root, url, &[]);
    let node = connected(head);
    assert_eq!(node["driver"], "worker");
    (root, worker)
}

/// The node `lap` of this head once it is there and asks.
pub fn connected(head: &TestRoot) -> Value {
    wait_for(SOON, || {
        let node = head.cmd("scheduler", &["nodes", "lap"]);
        match node.code {
            0 if node.json()["state"] == "connected" => Ok(node.json()),
            _ => Err(format!("{node:?}")),
        }
    })
}
