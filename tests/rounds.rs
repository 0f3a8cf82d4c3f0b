//! Rounds without a poller at work: from cron, and those that a command makes beside its waiting.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "common/net.rs"]
mod net;
#[path = "common/proxy.rs"]
mod proxy;

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use cluster::{Cluster, KILL, NEW, OFTEN, cause};
use common::head::open_root;
use common::{Answer, TestRoot, signal, until, wait_for};
use corkboard::model::card::{Card, State};
use corkboard::model::outcome::Cause;
use proxy::Act;
use serde_json::json;

/// Rounds, one after the other, until the job has ended; how many, and its card.
fn rounds_until_ended(cluster: &Cluster, job: u64) -> (usize, Card) {
    let mut rounds = 0;
    let card = wait_for(Duration::from_secs(60), || {
        rounds += 1;
        cluster.head.cmd("poller", &["--once", "-q"]);
        let card = cluster.card(job);
        if card.state == State::Stopped { Ok(card) } else { Err(format!("{:?}", card.events)) }
    });
    (rounds, card)
}

/// No round is long enough to find out that nobody will ever know.
#[test]
fn rounds_from_cron_give_up_what_nobody_can_tell() {
    let mut cluster = Cluster::new("3s");
    cluster.poller(0, "KILL");
    cluster.proxy.rule(NEW, Act::Hold, 1);
    cluster.proxy.rule(NEW, Act::Refuse(403), OFTEN);
    cluster.proxy.rule(KILL, Act::Refuse(403), OFTEN);
    let job = cluster.submit("true", json!({}));
    let begun = Instant::now();
    let (rounds, card) = rounds_until_ended(&cluster, job);
    assert_eq!(cause(&card), Cause::Lost, "{card:?}");
    assert!(rounds > 3 && begun.elapsed() >= Duration::from_secs(3), "{rounds}: {card:?}");
    cluster.head.cmd("poller", &["--once", "-q"]);
    assert!(!cluster.head.exists("state/scheduler/unheard"), "nobody is unheard of any more");
    cluster.proxy.clear();
    cluster.pollers[0] = Some(cluster.head.start("poller", &["-q"]));
    until("nothing is owed", || cluster.far()["given_up"].is_null());
    cluster.proxy.deliver_held();
    cluster.until_node_is_idle();
    assert_eq!(cluster.ran(), [""; 0]);
    cluster.assert_clean();
}

#[test]
fn rounds_from_cron_give_up_what_its_node_has_forgotten() {
    let mut cluster = Cluster::new("60s");
    let job = cluster.submit_waiting(json!({}));
    cluster.poller(0, "KILL");
    cluster.poller(1, "KILL");
    let id = cluster.card(job).attempts[0].nodejob.clone();
    for supervisor in cluster.node.supervisors() {
        signal(supervisor, "KILL");
    }
    until("it is dead", || cluster.node.supervisors().is_empty());
    fs::remove_dir_all(cluster.node.path("state/processor/job").join(&**id)).unwrap();
    let (_, card) = rounds_until_ended(&cluster, job);
    assert_eq!(cause(&card), Cause::Lost, "{card:?}");
    assert!(card.outcome.unwrap().reason.unwrap().contains("does not know it any more"));
}

/// The poller that a command has started for its job, once it is there.
fn poller_of_command(root: &TestRoot) -> i32 {
    let is_one = |pid: &i32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).any(|word| word == b"--job")
    };
    wait_for(common::SOON, || {
        root.processes().into_iter().find(is_one).ok_or_else(|| "no rounds are made".into())
    })
}

/// What a command says that waits for a job, while those who make its rounds are killed.
fn killed_while_it_waits(root: &mut TestRoot, words: &[&str], job: u64) -> Answer {
    root.wrap = vec!["timeout".into(), "60".into()]; // it must not hang
    let root = &*root;
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| root.cmd("scheduler", words));
        for _ in 0..2 {
            let poller = poller_of_command(root);
            root.reaches(job, "running");
            signal(poller, "KILL");
            until("another one makes them", || poller_of_command(root) != poller);
        }
        root.write("go", "");
        waiting.join().unwrap()
    })
}

#[test]
fn rounds_that_are_killed_are_begun_again_and_that_is_said() {
    let command = |root: &TestRoot| {
        format!("until [ -e {} ]; do sleep 0.02; done; echo done", root.path("go").display())
    };
    for words in [&["log", "follow=1"][..], &["status", "wait=50"]] {
        let mut root = open_root("");
        let job = root.submit(&json!({"command": command(&root)}));
        let number = job.to_string();
        let said = killed_while_it_waits(&mut root, &[&["jobs", &number], words].concat(), job);
        let said = said.expect(0);
        assert!(said.body.contains("done") || said.body.contains("\"good\""), "{said:?}");
        assert!(said.stderr.matches("SIGKILL)): begun again").count() >= 2, "{said:?}");
        root.check();
    }
    let mut root = open_root("");
    let command = command(&root);
    let words = ["jobs", "new", "--dir", "/", "--wait", "--", "sh", "-c", &command];
    let said = killed_while_it_waits(&mut root, &words, 1).expect(0);
    assert_eq!(said.body, "done\n", "{said:?}");
    root.check();
}

#[test]
fn a_command_whose_rounds_end_at_once_says_so_and_ends() {
    let mut root = open_root("");
    fs::remove_file(root.path("bin/poller")).unwrap();
    symlink("/bin/false", root.path("bin/poller")).unwrap();
    let job = root.submit(&json!({"command": ["true"]}));
    let number = job.to_string();
    root.wrap = vec!["timeout".into(), "60".into()];
    for words in [
        &["jobs", &number, "log", "follow=1"][..],
        &["jobs", &number, "status", "wait=50"],
        &["jobs", "new", "--wait", "--", "true"],
    ] {
        let said = root.cmd("scheduler", words).expect(75);
        assert!(
            said.stderr.contains("rounds cannot be made, and no poller is at work"),
            "{said:?}"
        );
        assert!(said.stderr.contains("they ended 6 times"), "{said:?}");
    }
    root.wrap.clear();
    assert_eq!(root.status(job)["state"], "queued");
}
