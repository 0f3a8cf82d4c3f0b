//! A head that may have no more threads: it says so, calls no node disconnected, loses nothing, and
//! goes on when it may.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;
mod faults;

use std::os::unix::process::CommandExt;
use std::process::Command;

use common::head::open_root;
use common::{SOON, TestRoot, wait_for};
use faults::Act;
use serde_json::json;

const USER: u32 = 61_235;

#[test]
fn a_head_without_threads_goes_on_when_there_are_some() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!(
            "SKIPPED: root's processes are not counted, and only root can start another user's"
        );
        return;
    }
    // So many that it can be ended, one for the board, one for clean-up...
    for most in [2, 3, 4, 5, 6] {
        let mut root = TestRoot::new("cores = 2\nmemory = 4 GiB\nscan_every = 200ms\n");
        root.user = Some(USER);
        root.give_to_user();
        let job = root.submit(&json!({"command": ["true"]}));
        root.wrap = vec!["prlimit".into(), format!("--nproc={most}:1000")];
        let poller = root.poller();
        root.wrap.clear();
        let log = wait_for(SOON, || {
            let log = root.read("poller.log");
            if log.contains("no thread") || most > 4 { Ok(log) } else { Err(log) }
        });
        assert!(!log.contains("disconnected"), "{log}");
        let pid = poller.pid().to_string();
        let more = ["--pid", &pid, "--nproc=1000:1000"];
        assert!(Command::new("prlimit").args(more).uid(USER).gid(USER).status().unwrap().success());
        let end = root.reaches(job, "stopped");
        assert_eq!(end["status"], "good", "{end}");
        assert!(!root.read("poller.log").contains("disconnected"), "{}", root.read("poller.log"));
        assert_eq!(poller.end("TERM").code(), Some(0));
        root.check();
    }
}

#[test]
fn a_wait_that_nobody_listens_for_is_one_all_the_same() {
    let root = open_root("");
    let _poller = root.poller();
    let job = root.submit(&json!({"command": "true", "state": "held"})).to_string();
    let wait = Act::cmd(&root, "scheduler", &["jobs", &job, "status", "wait=0.2"], "");
    let ran = wait.inject("clone,clone3:error=EAGAIN:when=1");
    assert!(ran.code == 75 && ran.body.contains("held"), "{ran:?}");
    root.check();
}
