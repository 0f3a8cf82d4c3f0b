//! Kills of what has filled the disk, and of what waits or is claimed meanwhile.
//!
//! Small file systems are mounted: root and tmpfs are needed.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;
mod faults;

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use common::kills::{give_range, kill, reason};
use common::node::{assert_clean, claims, submit};
use common::{TestRoot, until};
use faults::Act;
use fs2::FileExt;
use serde_json::json;

/// A root whose state lies on a file system of this size; unmounted at the end.
struct Small {
    root: TestRoot,
    state: PathBuf,
}

impl Small {
    fn new(options: &str) -> Small {
        let root = TestRoot::new("cores = 1\nmemory = 4 GiB\n");
        let state = root.path("state");
        fs::create_dir_all(&state).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "corkboard-test"]).arg(&state);
        assert!(mount.status().unwrap().success(), "cannot mount a tmpfs: root is needed");
        root.open();
        Small { root, state }
    }

    /// A command that fills the disk, then goes on for long.
    fn filler(&self) -> String {
        let dir = self.state.join("filler");
        format!(
            "mkdir {0}; cd {0}; n=0; while touch $n; do n=$((n+1)); [ $n -lt 150 ] || break; done; \
             cat /dev/zero > 0; cd /; touch {1}; sleep 1000",
            dir.display(),
            self.root.path("full").display()
        )
    }

    /// A job runs that fills the disk once the file `go` is there.
    fn will_fill(&self) {
        let go = self.root.path("go");
        let command =
            format!("until [ -e {} ]; do sleep 0.02; done; {}", go.display(), self.filler());
        submit(&self.root, json!({"command": command, "request_id": "fills", "dir": "/"}));
        until("it runs", || self.root.node_status("fills")["state"] == "running");
    }

    fn is_full(&self) {
        until("the disk is full", || self.root.exists("full"));
        assert!(fs::write(self.state.join("more"), [b'x'; 4096]).is_err());
        let _ = fs::remove_file(self.state.join("more"));
    }

    fn make_room(&self) {
        fs::remove_dir_all(self.state.join("filler")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.state).status();
    }
}

#[test]
fn a_job_that_fills_the_disk_can_be_killed() {
    for options in ["size=1m,mode=0750", "size=4m,nr_inodes=120,mode=0750"] {
        let small = Small::new(options);
        let root = &small.root;
        submit(root, json!({"command": small.filler(), "request_id": "fills", "dir": "/"}));
        small.is_full();
        kill(root, "fills", &["by=ada", "grace=0.2"]);
        let end = root.ended("fills");
        assert_eq!(end["reason"], "killed by ada", "{options}");
        assert!(!root.exists("state/processor/job/fills/kill"), "there was no room for it");
        small.make_room();
        root.cmd("processor", &["sweep"]).expect(0);
        until("it is reported", || root.supervisors().is_empty());
        assert_clean(root);
    }
}

#[test]
fn a_task_that_fills_the_disk_can_be_killed() {
    let small = Small::new("size=1m,mode=0750");
    let root = &small.root;
    let command = format!("[ $CORKBOARD_TASK != 0 ] && exit 0; {}", small.filler());
    give_range(root, "r", "0-2", &command);
    small.is_full();
    kill(root, "r", &["by=ada", "task=0", "grace=0.2"]);
    until("its end is stamped", || {
        let story = root.read("state/processor/job/r/tasks");
        story.contains("killed by ada")
    });
    small.make_room();
    root.cmd("processor", &["sweep"]).expect(0);
    assert_eq!(reason(root, "r", 0), "killed by ada");
    root.ended("r");
    until("it is reported", || root.supervisors().is_empty());
    assert_clean(root);
}

/// By the head, whose disk is the same.
#[test]
fn the_head_kills_a_job_that_fills_the_disk() {
    let small = Small::new("size=1m,mode=0750");
    let root = &small.root;
    let _poller = root.poller();
    let job = root.submit(&json!({"command": small.filler(), "dir": "/"}));
    small.is_full();
    root.update(job, "kill=1").expect(0);
    until("its program has ended", || {
        root.node_status(&format!("{}-{job}.1", root.read("state/scheduler/cluster").trim()))["state"]
            == "stopped"
    });
    small.make_room();
    assert_eq!(root.reaches(job, "stopped")["cause"], "killed");
    until("it is reported", || root.supervisors().is_empty());
    root.check();
}

/// What waits has no story yet, nor is there room for one: its request is written over.
#[test]
fn what_waits_on_a_full_disk_can_be_killed() {
    for options in ["size=1m,mode=0750", "size=4m,nr_inodes=120,mode=0750"] {
        let small = Small::new(options);
        let root = &small.root;
        let go = root.path("go");
        let command =
            format!("until [ -e {} ]; do sleep 0.02; done; {}", go.display(), small.filler());
        submit(root, json!({"command": command, "request_id": "fills", "dir": "/"}));
        submit(root, json!({"command": "true", "request_id": "w"}));
        give_range(root, "r", "0-2", "true");
        root.write("go", "");
        small.is_full();
        for id in ["w", "r"] {
            let ended = kill(root, id, &["by=ada"]);
            assert_eq!((&ended["state"], &ended["cause"]), (&json!("stopped"), &json!("killed")));
            kill(root, id, &["by=eve"]); // once more
            let status = root.cmd("processor", &["jobs", id, "status"]).expect(1);
            assert!(status.stderr.contains("will not be started"), "{options}: {status:?}");
            assert!(!root.exists(&format!("state/processor/queue/{id}")), "{options}");
        }
        kill(root, "fills", &["by=ada", "grace=0.2"]);
        root.ended("fills");
        small.make_room();
        root.cmd("processor", &["sweep"]).expect(0);
        until("it is reported", || root.supervisors().is_empty());
        // The id is taken.
        let again = json!({"command": "true", "request_id": "w"}).to_string();
        root.cmd_in("processor", &["jobs", "new"], &again).expect(1);
        assert_clean(root);
    }
}

/// Not even a directory can be made for what has ended: the line alone says it.
#[test]
fn the_head_kills_what_waits_on_a_full_disk() {
    for options in ["size=1m,mode=0750", "size=4m,nr_inodes=120,mode=0750"] {
        let small = Small::new(options);
        let root = &small.root;
        let _poller = root.poller();
        let go = root.path("go");
        let command =
            format!("until [ -e {} ]; do sleep 0.02; done; {}", go.display(), small.filler());
        let first = root.submit(&json!({"command": command, "dir": "/"}));
        root.reaches(first, "running");
        let waits = root.submit(&json!({"command": "true", "dir": "/"}));
        let held = root.submit(&json!({"command": "true", "dir": "/", "state": "held"}));
        let array = root.submit(&json!({"command": "true", "dir": "/", "array": "0-9"}));
        root.write("go", "");
        small.is_full();
        for job in [waits, held, array] {
            let killed = root.update(job, "kill=1").expect(0).json();
            assert_eq!((&killed["state"], &killed["cause"]), (&json!("stopped"), &json!("killed")));
            assert_eq!(root.status(job)["state"], "stopped", "{options}");
        }
        root.update(first, "kill=1").expect(0);
        let id = format!("{}-{first}.1", root.read("state/scheduler/cluster").trim());
        root.ended(&id);
        small.make_room();
        assert_eq!(root.reaches(first, "stopped")["cause"], "killed");
        until("it is reported", || root.supervisors().is_empty());
        until("all are where they belong", || root.cmd("scheduler", &["check"]).code == 0);
        root.check();
    }
}

/// As a head repeats it until the job has ended: a slot has room for so many.
#[test]
fn a_kill_may_be_repeated_on_a_full_disk_as_often_as_one_likes() {
    let small = Small::new("size=1m,mode=0750");
    let root = &small.root;
    let command = format!("trap '' TERM; {}", small.filler());
    submit(root, json!({"command": command, "request_id": "fills", "dir": "/"}));
    small.is_full();
    for _ in 0..60 {
        kill(root, "fills", &["by=ada", "grace=1000"]);
    }
    kill(root, "fills", &["by=bo", "grace=0.1"]);
    assert_eq!(root.ended("fills")["reason"], "killed by ada");
    small.make_room();
    root.cmd("processor", &["sweep"]).expect(0);
    until("it is reported", || root.supervisors().is_empty());
    assert_clean(root);
}

/// Behind one that runs, in the slot of the same supervisor.
#[test]
fn what_is_claimed_on_a_full_disk_can_be_killed() {
    let small = Small::new("size=1m,mode=0750");
    let root = &small.root;
    small.will_fill();
    submit(root, json!({"command": "true", "request_id": "c"}));
    give_range(root, "r", "0-2", "true");
    for id in ["c", "r"] {
        fs::remove_file(root.path(&format!("state/processor/queue/{id}"))).unwrap();
    }
    root.write("state/processor/slot/7", &claims(std::process::id() as i32, &["c", "r"]));
    let slot = File::options().write(true).open(root.path("state/processor/slot/7")).unwrap();
    FileExt::lock_exclusive(&slot).unwrap();
    root.write("go", "");
    small.is_full();
    for id in ["c", "r"] {
        let ended = kill(root, id, &["by=ada"]);
        assert_eq!((&ended["state"], &ended["cause"]), (&json!("stopped"), &json!("killed")));
        kill(root, id, &["by=eve"]); // once more
    }
    drop(slot);
    kill(root, "fills", &["by=ada", "grace=0.2"]);
    root.ended("fills");
    small.make_room();
    root.cmd("processor", &["sweep"]).expect(0);
    for id in ["c", "r"] {
        let status = root.cmd("processor", &["jobs", id, "status"]).expect(1);
        assert!(status.stderr.contains("will not be started"), "{status:?}");
    }
    until("it is reported", || root.supervisors().is_empty());
    assert_clean(root);
}

/// What is noted in its slot is kept when it waits again, or is kept there until there is room for it.
#[test]
fn single_tasks_of_what_is_claimed_on_a_full_disk_can_be_killed() {
    let small = Small::new("size=1m,mode=0750");
    let root = &small.root;
    small.will_fill();
    give_range(root, "r", "0-3", "true");
    fs::remove_file(root.path("state/processor/queue/r")).unwrap();
    root.write("state/processor/slot/7", &claims(std::process::id() as i32, &["r"]));
    let slot = File::options().write(true).open(root.path("state/processor/slot/7")).unwrap();
    FileExt::lock_exclusive(&slot).unwrap();
    root.write("go", "");
    small.is_full();
    kill(root, "r", &["by=ada", "task=1"]);
    kill(root, "r", &["by=eve", "task=1,3"]);
    drop(slot);
    kill(root, "fills", &["by=ada", "grace=0.2"]);
    root.ended("fills");
    root.cmd("processor", &["sweep"]).expect(0);
    assert!(!root.exists("state/processor/queue/r"), "nobody would know of its kills");
    small.make_room();
    root.cmd("processor", &["sweep"]).expect(0);
    for (task, how) in [(0, "good"), (1, "killed by ada"), (2, "good"), (3, "killed by eve")] {
        assert_eq!(reason(root, "r", task), how, "{task}");
    }
    until("it is reported", || root.supervisors().is_empty());
    assert_clean(root);
}

/// A slot has room for so many.
#[test]
fn tasks_may_be_killed_one_by_one_on_a_full_disk() {
    let small = Small::new("size=1m,mode=0750");
    let root = &small.root;
    let command = format!("[ $CORKBOARD_TASK != 0 ] && exit 0; {}", small.filler());
    give_range(root, "r", "0-120", &command);
    small.is_full();
    for task in (2..=120).step_by(2) {
        kill(root, "r", &["by=ada", &format!("task={task}")]);
    }
    kill(root, "r", &["by=bo", "task=0-5", "grace=0.2"]);
    small.make_room();
    for (task, by) in [(0, "bo"), (1, "bo"), (2, "ada"), (3, "bo"), (120, "ada")] {
        assert_eq!(reason(root, "r", task), format!("killed by {by}"), "{task}");
    }
    root.ended("r");
    until("it is reported", || root.supervisors().is_empty());
    assert_clean(root);
}

/// Its end tells of the tasks that ended before, for which a refusal has no room.
#[test]
fn a_range_of_which_tasks_have_ended_can_be_killed_on_a_full_disk_before_it_starts() {
    let small = Small::new("size=1m,mode=0750");
    let root = &small.root;
    small.will_fill();
    give_range(root, "r", "0-2", "true");
    kill(root, "r", &["by=ada", "task=1"]);
    fs::remove_file(root.path("state/processor/queue/r")).unwrap();
    root.write("state/processor/slot/7", &claims(std::process::id() as i32, &["r"]));
    let slot = File::options().write(true).open(root.path("state/processor/slot/7")).unwrap();
    FileExt::lock_exclusive(&slot).unwrap();
    root.write("go", "");
    small.is_full();
    kill(root, "r", &["by=bo"]);
    drop(slot);
    kill(root, "fills", &["by=ada", "grace=0.2"]);
    root.ended("fills");
    small.make_room();
    root.cmd("processor", &["sweep"]).expect(0);
    let end = root.ended("r");
    assert_eq!((&end["cause"], &end["by"]), (&json!("killed"), &json!("bo")), "{end}");
    assert_eq!(reason(root, "r", 1), "killed by ada");
    until("it is reported", || root.supervisors().is_empty());
    assert_clean(root);
}

/// In the instant before its supervisor takes it in hand: that looks once more.
#[test]
fn what_is_about_to_start_on_a_full_disk_can_be_killed() {
    let small = Small::new("size=1m,mode=0750");
    let root = &small.root;
    root.starts_no_supervisor();
    let give = |id: &str| {
        let witness = format!("echo {id} >> {}", root.path("ran").display());
        let request = json!({"command": witness, "request_id": id, "dir": "/"});
        assert!(Act::accept(root, &request).acknowledged());
    };
    let supervise = Act::cmd(root, "processor", &["supervise", "--stay"], "");
    give("first");
    supervise.run();
    give("second");
    let (_, trace) = supervise.watch();
    let before = trace.lines().take_while(|line| !line.contains("status\", O_RDWR"));
    let locks = before.filter(|line| line.contains(" flock(")).count();
    give("third");
    let mut left = File::create(root.path("state/filler")).unwrap();
    std::io::copy(&mut std::io::repeat(b'x'), &mut left).unwrap_err();
    let delayed = format!("flock:delay_enter=3000000:when={locks}");
    std::thread::scope(|scope| {
        let supervisor = scope.spawn(|| supervise.inject(&delayed));
        until("it is claimed", || root.read("state/processor/slot/1").contains("\"third\""));
        let killed = Act::cmd(root, "processor", &["jobs", "third", "kill", "by=ada"], "").run();
        assert!(killed.acknowledged(), "{killed:?}");
        assert_eq!(killed.json()["cause"], "killed", "{killed:?}");
        assert!(!supervisor.is_finished(), "it was too late");
        supervisor.join().unwrap();
    });
    fs::remove_file(root.path("state/filler")).unwrap();
    supervise.run();
    assert_eq!(root.read("ran"), "first\nsecond\n");
    let check = Act::cmd(root, "processor", &["check"], "").run();
    assert_eq!((check.code, check.body.as_str()), (0, ""), "{check:?}");
}
