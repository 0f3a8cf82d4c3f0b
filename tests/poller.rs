//! The poller as a program: from cron, standing by, told to end, and shown step by step.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use common::head::{drain_localhost, host, node_reaches, open_root, register};
use common::node::root_of_nobody;
use common::{SOON, signal, until, wait_for};
use serde_json::json;

#[test]
fn rounds_from_cron_carry_jobs_to_their_end() {
    let root = open_root("");
    let script =
        format!("echo run; until [ -e {} ]; do sleep 0.02; done", root.path("go").display());
    let job = root.submit(&json!({"command": script, "request_id": "one"}));
    let retried =
        root.submit(&json!({"command": "exit 1", "max_retry_count": 1, "retry_delay": "50ms"}));
    let once = || root.cmd("poller", &["--once"]).expect(0).stderr;
    let said = once();
    assert!(said.contains("node localhost: connected, 2 cores, 4 GiB memory\n"), "{said}");
    assert!(said.contains(&format!("job {job}: placed on localhost as ")), "{said}");
    assert_eq!(root.card(job)[1]["event"], "placed");
    root.reason(job, "no poller is running"); // between the rounds
    wait_for(SOON, || {
        once();
        let state = root.status(job)["state"].clone();
        if state == "running" { Ok(()) } else { Err(state.to_string()) }
    });
    root.write("go", "");
    for (job, status, attempt) in [(job, "good", 1), (retried, "error", 2)] {
        let end = wait_for(SOON, || {
            once();
            let end = root.status(job);
            if end["state"] == "stopped" { Ok(end) } else { Err(end.to_string()) }
        });
        assert_eq!((&end["status"], &end["attempt"]), (&json!(status), &json!(attempt)));
    }
    // Killed by a round, too.
    let job = root.submit(&json!({"command": ["sleep", "100"]}));
    wait_for(SOON, || {
        once();
        let state = root.status(job)["state"].clone();
        if state == "running" { Ok(()) } else { Err(state.to_string()) }
    });
    root.update(job, "kill=1").expect(0);
    wait_for(SOON, || {
        once();
        let end = root.status(job);
        if end["cause"] == "killed" { Ok(()) } else { Err(end.to_string()) }
    });
    root.check();
    // Where a poller is at work, a round from cron is not needed, and says so.
    let _poller = root.poller();
    let idle = root.cmd("poller", &["--once"]).expect(0);
    assert_eq!(idle.stderr, "poller: another poller is at work\n");
}

#[test]
fn what_it_was_doing_is_told_with_each_cause_once() {
    let root = open_root("");
    root.cmd("scheduler", &["jobs"]).expect(0); // which makes the tree
    let lock = root.path("state/scheduler/poller.lock");
    fs::create_dir(&lock).unwrap();
    let said = root.cmd("poller", &["--once"]).expect(1).stderr;
    let wanted = format!("taking the lock of the poller: {}: is a directory", lock.display());
    assert_eq!(said, format!("poller: {wanted}\n"));
    fs::remove_dir(&lock).unwrap();
    root.write("corkboard.conf", "linger = long");
    let said = root.cmd("poller", &["--once"]).expect(1).stderr;
    let file = root.path("corkboard.conf");
    let wanted = format!("{}, line 1: linger: \"long\" is not a duration", file.display());
    assert!(said.starts_with(&format!("poller: opening the root: {wanted}")), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    root.write("corkboard.conf", "");
}

#[test]
fn another_takes_over() {
    let root = open_root("");
    let first = root.poller();
    let script = format!("until [ -e {} ]; do sleep 0.02; done; exit 4", root.path("go").display());
    let job = root.submit(&json!({"command": script}));
    root.reaches(job, "running");
    let second = root.poller_with(&[]);
    let third = root.poller_with(&[]);
    wait_for(SOON, || {
        let log = root.read("poller.log");
        if log.matches("standing by").count() == 2 { Ok(()) } else { Err(log) }
    });
    assert_eq!(root.read("poller.log").matches("at work for").count(), 1);
    assert!(!first.end("KILL").success());
    wait_for(SOON, || {
        let log = root.read("poller.log");
        if log.matches("at work for").count() == 2 { Ok(()) } else { Err(log) }
    });
    root.write("go", "");
    assert_eq!(root.reaches(job, "stopped")["reason"], "exit 4");
    let next = root.submit(&json!({"command": ["true"]}));
    assert_eq!(root.reaches(next, "stopped")["status"], "good");
    // Both the one at work and the one that stands by end when they are told to.
    assert_eq!(second.end("TERM").code(), Some(0));
    assert_eq!(third.end("INT").code(), Some(0));
    assert_eq!(root.story(job), ["placed", "running", "stopped"]);
    root.check();
}

#[test]
fn told_to_end_it_leaves_jobs_running() {
    let root = open_root("");
    let poller = root.poller();
    let script = format!("until [ -e {} ]; do sleep 0.02; done", root.path("go").display());
    let job = root.submit(&json!({"command": script}));
    root.reaches(job, "running");
    assert_eq!(poller.end("TERM").code(), Some(0));
    let said = root.read("poller.log");
    assert!(said.ends_with("poller: ended\n"), "{said}");
    for line in said.lines() {
        assert!(line.contains(": "), "one line each: {line:?} in {said}");
    }
    assert!(said.contains(&format!("job {job}: running on localhost\n")), "{said}");
    assert_eq!(root.status(job)["reason"], "no poller is running");
    root.write("go", "");
    let _poller = root.poller();
    assert_eq!(root.reaches(job, "stopped")["status"], "good");
    wait_for(SOON, || {
        let said = root.read("poller.log");
        let line = format!("job {job}: stopped, good (exit 0) on localhost\n");
        if said.contains(&line) { Ok(()) } else { Err(said) }
    });
    root.check();
}

#[test]
fn quiet_says_nothing_but_errors() {
    let root = open_root("");
    let job = root.submit(&json!({"command": ["true"]}));
    let said = root.cmd("poller", &["--once", "-q"]).expect(0);
    assert_eq!((said.body.as_str(), said.stderr.as_str()), ("", ""));
    wait_for(SOON, || {
        root.cmd("poller", &["--once", "-q"]).expect(0);
        let state = root.status(job)["state"].clone();
        if state == "stopped" { Ok(()) } else { Err(state.to_string()) }
    });
    root.cmd("poller", &["--pace", "often"]).expect(2);
    root.cmd("poller", &["--pace", "1s", "--step"]).expect(2);
    root.cmd("poller", &["--nonsense"]).expect(2);
    root.check();
}

#[test]
fn transitions_are_shown() {
    let root = open_root("");
    let poller = root.poller_with(&["--pace", "20ms"]);
    let job = root.submit(&json!({"command": ["sleep", "0.3"]}));
    root.reaches(job, "stopped");
    assert_eq!(poller.end("TERM").code(), Some(0));
    let said = root.read("poller.log");
    let parts = [
        "--- job 1\nappend to queue/1.job:\n    {\"at\":\"",
        "\"event\":\"placed\",\"attempt\":1,\"node\":\"localhost\"",
        "rename:\n    queue/1.job -> running/1.job\n",
        "the board now:\n    queue   \n    running 1.job\n    done    \n",
        "append to running/1.job:\n    {\"at\":\"",
        "\"event\":\"running\"",
        "rename:\n    running/1.job -> done/0/1.job\n",
        "    done    1.job\n",
    ];
    let mut rest = said.as_str();
    for part in parts {
        let at = rest.find(part).unwrap_or_else(|| panic!("{part:?} in {rest}\nall: {said}"));
        rest = &rest[at + part.len()..];
    }
    root.check();
}

#[test]
fn step_waits_for_enter() {
    let root = open_root("");
    let job = root.submit(&json!({"command": ["true"]}));
    let start = |args: &[&str]| {
        let log = File::options().create(true).append(true).open(root.path("step.log")).unwrap();
        let mut command = Command::new(root.path("bin/poller"));
        command.args(args).env("CORKBOARD_ROOT", &root.dir).stdin(Stdio::piped()).stderr(log);
        command.spawn().unwrap()
    };
    let mut poller = start(&["--step"]);
    let mut keyboard = poller.stdin.take().unwrap();
    let shown = |count: usize| {
        wait_for(SOON, || {
            let said = root.read("step.log");
            if said.matches("Enter to go on").count() >= count { Ok(()) } else { Err(said) }
        });
    };
    shown(1);
    assert_eq!(root.status(job)["state"], "queued", "not before Enter");
    keyboard.write_all(b"\n").unwrap();
    shown(2);
    assert_eq!(root.card(job)[1]["event"], "placed");
    assert_ne!(root.status(job)["state"], "stopped");
    // Told to end, or with nobody there any more to press Enter, it ends, and what it shows is not
    // made.
    common::signal(poller.id() as i32, "TERM");
    assert!(poller.wait().unwrap().success());
    assert_eq!(root.story(job), ["placed"]);
    let mut poller = start(&["--step"]);
    let keyboard = poller.stdin.take().unwrap();
    shown(3);
    drop(keyboard);
    assert!(poller.wait().unwrap().success());
    assert_eq!(root.story(job), ["placed"]);
    let mut poller = start(&["--pace", "1h"]);
    let _keyboard = poller.stdin.take().unwrap();
    wait_for(SOON, || {
        let said = root.read("step.log");
        if said.matches("--- job").count() >= 4 { Ok(()) } else { Err(said) }
    });
    common::signal(poller.id() as i32, "TERM");
    assert!(poller.wait().unwrap().success());
    assert_eq!(root.story(job), ["placed"]);
    let _poller = root.poller();
    root.reaches(job, "stopped");
    root.check();
}

#[test]
fn a_batch_is_finished_when_its_submitter_dies_late() {
    let root = open_root("");
    let batch = json!([{"command": ["true"]}, {"command": ["true"]}]).to_string();
    root.cmd_in("scheduler", &["jobs", "new"], &batch).expect(0);
    // As if the submitter were still at work: it holds its lock, and cards are missing.
    let file = File::open(root.path("state/scheduler/queue/1-2.batch")).unwrap();
    file.lock().unwrap();
    for job in [1, 2] {
        fs::remove_file(root.path(&format!("state/scheduler/queue/{job}.job"))).unwrap();
    }
    let queue = File::open(root.path("state/scheduler/queue")).unwrap();
    queue.set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
    let _poller = root.poller();
    // The first scan is over then, and nothing in the queue changes from here on.
    wait_for(SOON, || {
        let nodes = root.cmd("scheduler", &["nodes", "list"]).expect(0).json();
        let state = nodes["nodes"][0]["state"].clone();
        if state == "connected" { Ok(()) } else { Err(state.to_string()) }
    });
    drop(file);
    until("the batch is removed", || !root.exists("state/scheduler/queue/1-2.batch"));
    for job in [1, 2] {
        root.reaches(job, "stopped");
    }
    root.check();
}

/// A process that this root's user may not signal survives its supervisor: the sweeps that try to end it
/// hold up nobody else.
#[test]
fn what_a_dead_supervisor_left_holds_up_no_other_node() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root can run programs as another user");
        return;
    }
    let root = root_of_nobody();
    root.write("corkboard.conf", "cores = 2\nmemory = 4 GiB\nscan_every = 200ms\n");
    let (other, httpd, token) = host("");
    register(&root, &json!({"name": "other", "uri": httpd.url(), "token": token}));
    let become_root = root.install("become", Path::new("/usr/bin/setpriv"), "4755");
    let command = [become_root.to_str().unwrap(), "--reuid=0", "sleep", "1000"];
    let request = json!({"command": command, "dir": "/", "request_id": "stays"});
    root.cmd_in("processor", &["jobs", "new"], &request.to_string()).expect(0);
    until("it is root's", || {
        let pid = root.node_status("stays")["pid"].as_i64().unwrap_or(0);
        fs::metadata(format!("/proc/{pid}")).is_ok_and(|meta| meta.uid() == 0)
    });
    drain_localhost(&root);
    let _poller = root.poller();
    node_reaches(&root, "other", "connected");
    for supervisor in root.supervisors() {
        signal(supervisor, "KILL");
    }
    let mut others = 0; // with all of them held up, one
    while root.node_status("stays")["state"] != "stopped" {
        let job = root.submit(&json!({"command": ["true"]}));
        root.reaches(job, "stopped");
        others += 1;
    }
    assert!(others > 2, "{others}");
    root.check();
    other.check();
}

/// The same of a round from cron: others are placed before, and what the sweep has found is recorded by the
/// round that made it.
#[test]
fn a_round_from_cron_places_others_while_it_sweeps_and_records_what_that_found() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root can run programs as another user");
        return;
    }
    let root = root_of_nobody();
    let become_root = root.install("become", Path::new("/usr/bin/setpriv"), "4755");
    let command = [become_root.to_str().unwrap(), "--reuid=0", "sleep", "1000"];
    let stays = root.submit(&json!({"command": command, "dir": "/"}));
    let once = || assert_eq!(root.cmd("poller", &["--once", "-q"]).expect(0).stderr, "");
    once();
    let id = root.card(stays)[1]["nodejob"].as_str().unwrap().to_string();
    until("it is root's", || {
        let pid = root.node_status(&id)["pid"].as_i64().unwrap_or(0);
        fs::metadata(format!("/proc/{pid}")).is_ok_and(|meta| meta.uid() == 0)
    });
    let (other, httpd, token) = host("");
    register(&root, &json!({"name": "other", "uri": httpd.url(), "token": token}));
    drain_localhost(&root);
    once();
    node_reaches(&root, "other", "connected");
    for supervisor in root.supervisors() {
        signal(supervisor, "KILL");
    }
    let passes = root.submit(&json!({"command": ["true"]}));
    once();
    let end = root.status(stays);
    assert_eq!((&end["state"], &end["cause"]), (&json!("stopped"), &json!("lost")), "{end}");
    let placed = &root.card(passes)[1];
    let lost_at = root.node_status(&id)["at"].clone();
    let is_before = placed["at"].as_str() < lost_at.as_str();
    assert!(placed["event"] == "placed" && is_before, "{placed}: not before {lost_at}");
    wait_for(SOON, || {
        once();
        let status = root.status(passes);
        if status["status"] == "good" { Ok(()) } else { Err(status.to_string()) }
    });
    root.check();
    other.check();
}

#[test]
fn a_round_from_cron_that_waits_for_a_node_does_no_work_meanwhile() {
    let root = open_root("connect_timeout = 3s\nrequest_timeout = 3s\n");
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("http://{}", deaf.local_addr().unwrap());
    register(&root, &json!({"name": "deaf", "uri": uri}));
    let mut round = Command::new("bash");
    round.args(["-c", "\"$0\" --once -q; times"]).arg(root.path("bin/poller"));
    let begun = Instant::now();
    let output = round.env("CORKBOARD_ROOT", &root.dir).output().unwrap();
    assert!(begun.elapsed() > Duration::from_secs(2), "it did not wait: {output:?}");
    // What the shell's children took: minutes, and seconds with a fraction.
    let said = String::from_utf8(output.stdout).unwrap();
    let taken = said.lines().last().unwrap().split(' ');
    let seconds = |time: &str| -> f64 {
        let (minutes, seconds) = time.strip_suffix('s').unwrap().split_once('m').unwrap();
        minutes.parse::<f64>().unwrap() * 60.0 + seconds.parse::<f64>().unwrap()
    };
    let taken: f64 = taken.map(seconds).sum();
    assert!(taken < 0.15, "{taken} s of a processor");
}
