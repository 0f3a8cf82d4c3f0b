//! Full disks, few descriptors, failing calls and torn lines: nothing is told that is not so, what
//! is refused changes nothing, and everything goes on when the cause is gone.
//!
//! The tests mount small file systems and trace programs: they need root, tmpfs and strace.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;
mod faults;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use common::{TestRoot, until};
use faults::changes::{assert_nodejobs, assert_same, changes, held, note, refused, seen, unknown};
use faults::{Act, Journal};
use serde_json::json;

const CONF: &str = "cores = 2\nmemory = 4 GiB\n";

/// A file system that is unmounted when dropped.
struct Mount(PathBuf);

impl Mount {
    fn tmpfs(dir: &Path, options: &str) -> Mount {
        fs::create_dir_all(dir).unwrap();
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", options, "corkboard-test"]).arg(dir);
        assert!(command.status().unwrap().success(), "cannot mount a tmpfs: root is needed");
        Mount(dir.to_path_buf())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk() {
    let begun = Instant::now();
    let root = TestRoot::new(CONF);
    let other = TestRoot::new("");
    let _mount = Mount::tmpfs(&root.path("state"), "size=2m,nr_inodes=600,mode=0750");
    root.open();
    let mut journal = Journal::new(&root);
    journal.witness = other.path("witness");
    journal.allowed = &["killed"];
    let mut nodejobs = Vec::new();
    let ran = Act::submit(&root, &journal.request(json!({}))).run();
    journal.answered(&ran);
    journal.settle();
    let cluster = root.read("state/scheduler/cluster");
    let id = |job: u64| format!("{}-{job}.1", cluster.trim());
    for full in ["bytes", "inodes", "nearly bytes", "nearly inodes"] {
        let go = other.path("go");
        let _ = fs::remove_file(&go);
        let waits =
            format!("until [ -e {} ]; do sleep 0.01; done; {}", go.display(), journal.line());
        let ran = Act::submit(&root, &json!({"command": waits, "dir": "/"})).run();
        let running = journal.answered(&ran)[0];
        until("it runs", || {
            root.cmd("poller", &["--once", "-q"]).expect(0);
            let card = root.cmd("scheduler", &["jobs", &running.to_string(), "status"]);
            card.expect(0).json()["state"] == "running"
        });
        let held = held(&mut journal);
        let ran = Act::submit(&root, &journal.request(json!({}))).run();
        journal.answered(&ran);
        let mark = full.replace(' ', "-");
        let acts = changes(&journal, &mark, held);
        fill(&root, full);
        let mut last = (0, 0);
        for (what, act) in &acts {
            let before = seen(&root);
            let ran = act.run();
            journal.counts.faults += 1;
            note(&mut journal, what, &ran, &mut nodejobs, &format!("{mark}-{what}"));
            assert!(ran.acknowledged() || refused(&ran), "{full}, {what}: {ran:?}");
            if refused(&ran) {
                last.0 += 1;
                if what != "place" {
                    assert_same(&before, &seen(&root), &format!("{full}, {what}: {ran:?}"));
                }
                assert!(journal.named(&format!("{mark}-{what}")).is_empty());
            } else {
                last.1 += 1;
            }
        }
        println!("{full}: {} refused, {} done", last.0, last.1);
        assert!(last.0 > 0, "{full}: nothing was refused");
        // It ends while there is no room: told or not, its supervisor has tried.
        fs::write(&go, "").unwrap();
        until("its end was seen", || {
            let ended = root.node_status(&id(running))["state"] == "stopped";
            ended || root.supervisors().is_empty()
        });
        drain(&root);
        root.cmd("scheduler", &["jobs", &held.to_string(), "update", "kill=1"]).expect(0);
        journal.settle();
        // Everything that was refused is accepted now, and only once.
        for (what, act) in changes(&journal, &mark, held) {
            if ["priority", "release", "hold", "kill"].contains(&what.as_str()) {
                continue; // it has ended
            }
            let ran = act.run();
            assert!(ran.acknowledged(), "{full}, {what}: {ran:?}");
            note(&mut journal, &what, &ran, &mut nodejobs, &format!("{mark}-{what}"));
        }
        journal.settle();
        assert_eq!(journal.named(&format!("{mark}-array-ids")).len(), 3);
        assert_eq!(journal.named(&format!("{mark}-id")).len(), 1);
    }
    assert_nodejobs(&mut journal, &nodejobs);
    journal.verify();
    journal.counts.report("a full disk", begun);
}

/// Leaves no room at all, or a little: for a few more bytes or files, not for a whole change.
fn fill(root: &TestRoot, what: &str) {
    let dir = root.path("state/filler");
    fs::create_dir(&dir).unwrap();
    let mut made = 0;
    loop {
        let done = match what.ends_with("bytes") {
            true => File::create(dir.join(made.to_string()))
                .and_then(|mut file| file.write_all(&[b'x'; 4096])),
            false => File::create(dir.join(made.to_string())).map(|_| ()),
        };
        if done.is_err() {
            break;
        }
        made += 1;
    }
    assert!(made > 3, "there was no room before");
    if what.starts_with("nearly") {
        for k in 0..3 {
            fs::remove_file(dir.join((made - 1 - k).to_string())).unwrap();
        }
    }
}

fn drain(root: &TestRoot) {
    fs::remove_dir_all(root.path("state/filler")).unwrap();
}

#[test]
fn few_descriptors() {
    let begun = Instant::now();
    let root = TestRoot::new(CONF);
    root.open();
    let mut journal = Journal::new(&root);
    journal.allowed = &["killed"];
    let mut nodejobs = Vec::new();
    let mut refusals = Vec::new();
    let mut outcomes = (0, 0);
    for limit in 3..=20 {
        let held = held(&mut journal);
        let mark = format!("fd{limit}");
        for (what, act) in changes(&journal, &mark, held) {
            let ran = act.run_with_files(limit);
            journal.counts.faults += 1;
            note(&mut journal, &what, &ran, &mut nodejobs, &format!("{mark}-{what}"));
            let said = format!("limit {limit}, {what}: {ran:?}");
            assert!(ran.acknowledged() || refused(&ran) || unknown(&ran), "{said}");
            outcomes.0 += usize::from(ran.acknowledged());
            outcomes.1 += usize::from(!ran.acknowledged());
            if refused(&ran) {
                refusals.push(format!("{mark}-{what}"));
            }
        }
        for words in [["supervise", "--stay"].as_slice(), &["sweep"]] {
            let ran = Act::cmd(&root, "processor", words, "").run_with_files(limit);
            assert!(ran.acknowledged() || refused(&ran) || unknown(&ran), "{limit}: {ran:?}");
        }
        root.cmd("scheduler", &["jobs", &held.to_string(), "update", "kill=1"]).expect(0);
    }
    journal.settle();
    for name in refusals {
        assert!(journal.named(&name).is_empty(), "{name} was refused");
        assert!(!root.exists(&format!("state/processor/job/{name}")), "{name} was refused");
    }
    assert_nodejobs(&mut journal, &nodejobs);
    journal.verify();
    println!("few descriptors: {} done, {} refused", outcomes.0, outcomes.1);
    journal.counts.report("few descriptors", begun);
}

const FAILING_CHANGES: &[(&str, &str)] = &[
    ("fsync", "error=EIO"),
    ("syncfs", "error=EIO"),
    ("renameat2", "error=EIO"),
    ("rename", "error=ENOSPC"),
    ("linkat", "error=ENOSPC"),
    ("write", "error=EIO"),
    ("write", "error=ENOSPC"),
    ("write", "error=EINTR"),
    ("pwrite64", "error=EIO"),
    ("pwrite64", "error=EINTR"),
    ("mkdir", "error=ENOSPC"),
    ("flock", "error=EINTR"),
];

const FAILING_OPENS: &[(&str, &str)] = &[("openat", "error=EIO"), ("openat", "error=EMFILE")];

#[test]
fn failing_changes() {
    failing("failing changes", FAILING_CHANGES);
}

#[test]
fn failing_opens() {
    failing("failing opens", FAILING_OPENS);
}

/// Lets each of these calls fail once, in everything that changes something.
fn failing(title: &str, calls: &[(&str, &str)]) {
    let begun = Instant::now();
    let root = TestRoot::new(CONF);
    root.open();
    let mut journal = Journal::new(&root);
    journal.allowed = &["killed"];
    let mut nodejobs = Vec::new();
    let mut refusals = Vec::new();
    let ran = Act::submit(&root, &journal.request(json!({}))).run();
    journal.answered(&ran);
    journal.settle();
    let mut counts = [0; 3];
    for (call, error) in calls {
        // As many calls as the change makes that makes most of them.
        let held_job = held(&mut journal);
        let mark = format!("{call}{}", error.replace('=', ""));
        let mut most = Vec::new();
        for (what, act) in changes(&journal, &format!("{mark}-0"), held_job) {
            let (ran, calls) = act.calls(&[call]);
            note(&mut journal, &what, &ran, &mut nodejobs, &format!("{mark}-0-{what}"));
            assert!(ran.acknowledged(), "{what}: {ran:?}");
            most.push((what, calls.len()));
        }
        journal.settle();
        let longest = most.iter().map(|(_, calls)| *calls).max().unwrap();
        for nth in 1..=longest {
            let held_job = held(&mut journal);
            let mark = format!("{mark}-{nth}");
            for ((what, act), (_, calls)) in
                changes(&journal, &mark, held_job).into_iter().zip(&most)
            {
                // A round opens the same few files again and again.
                let thinned = *call == "openat" && (what == "place" && nth % 5 != 0);
                if nth > *calls || thinned {
                    continue;
                }
                let before = seen(&root);
                let ran = act.inject(&format!("{call}:{error}:when={nth}"));
                journal.counts.faults += 1;
                note(&mut journal, &what, &ran, &mut nodejobs, &format!("{mark}-{what}"));
                let said = format!("{call} {error} {nth}, {what}: {ran:?}");
                // An answer that cannot be written is the reader's loss.
                let unheard = *call == "write" && ran.body.is_empty() && !refused(&ran);
                let fine = ran.acknowledged() || refused(&ran) || unknown(&ran) || unheard;
                assert!(fine, "{said}");
                counts[0] += usize::from(ran.acknowledged());
                counts[1] += usize::from(refused(&ran));
                counts[2] += usize::from(unknown(&ran));
                if refused(&ran) && what != "place" {
                    assert_same(&before, &seen(&root), &said);
                    refusals.push(format!("{mark}-{what}"));
                }
                if !ran.acknowledged() && !["plain", "array", "place"].contains(&what.as_str()) {
                    let again = act.run();
                    assert!(again.acknowledged(), "{said}, and again {again:?}");
                    note(&mut journal, &what, &again, &mut nodejobs, &format!("{mark}-{what}"));
                    refusals.retain(|name| *name != format!("{mark}-{what}"));
                }
            }
            root.cmd("scheduler", &["jobs", &held_job.to_string(), "update", "kill=1"]).expect(0);
        }
        journal.settle();
    }
    for name in refusals {
        assert!(journal.named(&name).is_empty(), "{name} was refused");
    }
    assert_nodejobs(&mut journal, &nodejobs);
    journal.verify();
    println!("{title}: {counts:?} done, refused, unknown");
    journal.counts.report(title, begun);
}

/// A supervisor whose calls fail: what may have started is lost at most, the rest runs later.
#[test]
fn a_supervisor_whose_calls_fail() {
    let begun = Instant::now();
    let root = TestRoot::new("cores = 1\nmemory = 4 GiB\n");
    root.starts_no_supervisor();
    let mut journal = Journal::new(&root);
    journal.allowed = &["lost"];
    let mut round = 0;
    let mut accept = |journal: &mut Journal| -> Vec<String> {
        round += 1;
        (0..2).map(|k| journal.accept(json!({"request_id": format!("e{round}.{k}")}))).collect()
    };
    let supervise = Act::cmd(&root, "processor", &["supervise", "--stay"], "");
    let failing = [
        ("fsync", "error=EIO"),
        ("openat", "error=EMFILE"),
        ("write", "error=ENOSPC"),
        ("write", "error=EINTR"),
        ("pwrite64", "error=EIO"),
        ("unlink", "error=EIO"),
        ("rename", "error=ENOSPC"),
        ("symlink", "error=ENOSPC"),
        ("pipe2", "error=EMFILE"),
        ("socketpair", "error=EMFILE"),
        ("clone", "error=EAGAIN"),
        ("clone3", "error=EAGAIN"),
        ("clone3", "error=ENOSYS"),
        ("mkdir", "error=ENOSPC"),
        ("flock", "error=EINTR"),
        ("poll", "error=EINTR"),
    ];
    let mut lost = 0;
    for (call, error) in failing {
        accept(&mut journal);
        let (_, calls) = supervise.calls(&[call]);
        for point in calls {
            let ids = accept(&mut journal);
            let ran = supervise.inject(&format!("{call}:{error}:when={}", point.nth));
            journal.counts.faults += 1;
            lost += journal.end_on_node(&ids, &format!("{point:?} {ran:?}"));
        }
    }
    journal.verify();
    println!("a supervisor whose calls fail: {lost} jobs that had started ended as lost");
    journal.counts.report("a supervisor whose calls fail", begun);
}

/// A line that was written in part: cut off if its writer lives, passed over if not.
#[test]
fn torn_lines() {
    let begun = Instant::now();
    let root = TestRoot::new(CONF);
    let mut journal = Journal::new(&root);
    journal.allowed = &["killed"];
    let job = held(&mut journal).to_string();
    let update = |what: &str| Act::cmd(&root, "scheduler", &["jobs", &job, "update", what], "");
    let card = format!("state/scheduler/queue/{job}.job");
    for k in 0..5 {
        let before = root.read(&card);
        // The first is the mark in the board's feed, which keeps nothing from being done: see below.
        let ran = update("priority=9").inject("write:retval=1:when=2");
        journal.counts.faults += 1;
        assert!(refused(&ran), "{ran:?}");
        let after = root.read(&card);
        assert!(before.starts_with(&after) && after.len() + 1 >= before.len(), "{after:?}");
        root.write(&card, &format!("{after}\n{{\"at\":\"2026-01-01T00:00:00.000Z\",\"eve\0\0"));
        assert!(update(&format!("priority={k}")).run().acknowledged());
        let record = root.cmd("scheduler", &["jobs", &job]).expect(0).json();
        assert_eq!(record["priority"], k);
    }
    let ran = update("priority=9").inject("write:retval=1:when=1");
    journal.counts.faults += 1;
    assert!(ran.acknowledged() && ran.stderr.contains("changes are not told"), "{ran:?}");
    assert_eq!(root.cmd("scheduler", &["jobs", &job]).expect(0).json()["priority"], 9);
    // The same on the node: in a story, and in the feed.
    let torn = "\n{\"state\":\"stopped\",\"sta";
    let id = journal.request(json!({"request_id": "torn", "command": "sleep 0.3"}));
    root.cmd_in("processor", &["jobs", "new"], &id.to_string()).expect(0);
    until("it runs", || root.node_status("torn")["state"] == "running");
    for file in ["state/processor/job/torn/status", "state/processor/events"] {
        let mut file =
            fs::OpenOptions::new().append(true).create(true).open(root.path(file)).unwrap();
        file.write_all(torn.as_bytes()).unwrap();
        journal.counts.faults += 1;
    }
    until("it has ended", || {
        root.cmd("processor", &["jobs", "torn", "status"]).expect(0).json()["status"] == "good"
    });
    assert!(update("release=1").run().acknowledged());
    for name in ["scheduler", "processor"] {
        let check = root.cmd(name, &["check"]);
        assert_eq!((check.code, check.body.as_str()), (0, ""), "{check:?}");
    }
    journal.counts.report("torn lines", begun);
}
