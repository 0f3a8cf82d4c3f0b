//! Power loss: an ext4 file system of its own is shut down without a last write of its journal,
//! right after something was acknowledged, and mounted again. What was acknowledged is there.
//!
//! Needs root, loop devices and mkfs.ext4. Where they are missing the test fails, unless
//! `CORKBOARD_SKIP_POWER_LOSS` says why it is to be left out.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;
mod faults;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::{TestRoot, processes, until};
use faults::{Act, Journal, Point, Ran, names};
use serde_json::{Value, json};

const CONF: &str = "cores = 2\nmemory = 4 GiB\n";

/// `FS_IOC_SHUTDOWN`, `_IOR('X', 125, __u32)`: the file system goes down...
const SHUTDOWN: nix::libc::c_ulong = 0x8004_587d;

/// ...at once, without writing what the journal has not.
const NO_LOG_FLUSH: u32 = 2;

/// An ext4 image, mounted on a directory; unmounted and removed when dropped.
struct Disk {
    image: PathBuf,
    dir: PathBuf,
    mounted: bool,
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
}

impl Disk {
    fn new(dir: &Path, image: PathBuf) -> Disk {
        File::create(&image).unwrap().set_len(48 << 20).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image));
        fs::create_dir_all(dir).unwrap();
        let mut disk = Disk { image, dir: dir.to_path_buf(), mounted: false };
        disk.mount();
        disk
    }

    fn mount(&mut self) {
        run(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.dir));
        self.mounted = true;
    }

    /// The power fails.
    fn cut(&self) {
        let dir = File::open(&self.dir).unwrap();
        let flag = NO_LOG_FLUSH;
        // SAFETY: an open descriptor, and a pointer to the integer that this ioctl reads.
        let result = unsafe { nix::libc::ioctl(dir.as_raw_fd(), SHUTDOWN, &raw const flag) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }

    /// The power is back: the journal is replayed.
    fn back(&mut self) {
        until("it can be unmounted", || {
            Command::new("umount").arg(&self.dir).output().unwrap().status.success()
        });
        self.mounted = false;
        self.mount();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            // The loop device is freed with the mount.
            let _ = Command::new("umount").arg("-l").arg(&self.dir).status();
        }
        let _ = fs::remove_file(&self.image);
    }
}

/// Why this machine is to be left out, if somebody said so.
fn left_out() -> bool {
    let Some(why) = std::env::var_os("CORKBOARD_SKIP_POWER_LOSS") else { return false };
    println!("power loss is not tested: {}", why.display());
    true
}

/// What a client was told that the journal of acknowledged jobs does not say.
#[derive(Default)]
struct Told {
    /// Ends that the head told.
    ends: BTreeMap<u64, String>,
    /// Jobs that were accepted by the node itself.
    nodejobs: BTreeSet<String>,
    /// Jobs that were killed, or held, or given a priority.
    killed: BTreeSet<u64>,
    priority: BTreeMap<u64, i64>,
    /// How many tasks of arrays had ended well.
    tasks: BTreeMap<u64, u64>,
}

struct World<'r> {
    journal: Journal<'r>,
    told: Told,
    round: usize,
}

impl World<'_> {
    fn submit(&mut self, request: &Value) -> (Ran, Vec<u64>) {
        let act = Act::cmd(self.journal.root, "scheduler", &["jobs", "new"], &request.to_string());
        let ran = act.run();
        let jobs = self.journal.answered(&ran);
        (ran, jobs)
    }

    fn request(&self, what: &str, more: Value) -> Value {
        let mut request = self.journal.request(more);
        request["name"] = json!(format!("{what}-{}", self.round));
        request
    }

    fn update(&mut self, job: u64, what: &str) {
        let words = ["jobs", &job.to_string(), "update", what];
        let ran = Act::cmd(self.journal.root, "scheduler", &words, "").run();
        assert!(ran.acknowledged(), "{ran:?}");
        match what.split_once('=').unwrap() {
            ("kill", _) => drop(self.told.killed.insert(job)),
            ("priority", value) => drop(self.told.priority.insert(job, value.parse().unwrap())),
            _ => {}
        }
    }

    fn accept(&mut self, id: &str) {
        let request = self.journal.request(json!({"request_id": id})).to_string();
        let ran = Act::cmd(self.journal.root, "processor", &["jobs", "new"], &request).run();
        assert!(ran.acknowledged(), "{ran:?}");
        self.journal.counts.submitted += 1;
        self.told.nodejobs.insert(id.to_string());
    }

    fn once(&self) {
        self.journal.root.cmd("poller", &["--once", "-q"]).expect(0);
    }

    /// Remembers every end that the head tells.
    fn listen(&mut self) {
        let list = self.journal.root.cmd("scheduler", &["jobs", "format=json"]).expect(0).json();
        for record in list.as_array().unwrap() {
            if record["state"] == "stopped" {
                let job = record["job"].as_u64().unwrap();
                let end = format!("{} {}", record["status"], record["cause"]);
                let known = self.told.ends.entry(job).or_insert_with(|| end.clone());
                assert_eq!(*known, end, "job {job} had another end before");
            }
        }
    }

    /// What is done before the power fails: something else every time.
    fn act(&mut self) {
        let round = self.round;
        let held = self.request("held", json!({"state": "held"}));
        match round % 13 {
            0 => drop(self.submit(&self.request("plain", json!({})))),
            1 => drop(self.submit(&self.request("id", json!({"request_id": round.to_string()})))),
            2 => {
                let one = self.request("array", json!({}));
                drop(self.submit(&json!([one, one, one])));
            }
            3 => {
                let one =
                    |k: i32| self.request("ids", json!({"request_id": format!("{round}-{k}")}));
                let jobs = json!([one(1), one(2), one(3)]);
                drop(self.submit(&jobs));
            }
            4 => self.accept(&format!("node-{round}")),
            5 => {
                let job = self.submit(&held).1[0];
                self.update(job, "kill=1");
            }
            6 => {
                let job = self.submit(&held).1[0];
                self.update(job, &format!("priority={round}"));
            }
            7 => {
                drop(self.submit(&self.request("placed", json!({}))));
                self.once();
            }
            8 => {
                drop(self.submit(&self.request("ended", json!({}))));
                until("the node has ended something", || {
                    self.once();
                    self.listen();
                    let all = self.journal.acked.keys();
                    all.last().is_some_and(|job| self.told.ends.contains_key(job))
                });
            }
            9 => {
                // A sleeper that runs: it was started, and is not started again.
                let line = format!("{}; exec sleep 1000", self.journal.line());
                let job = self.submit(&json!({"command": line, "dir": "/"})).1[0];
                let cluster = || self.journal.root.read("state/scheduler/cluster");
                until("it runs", || {
                    self.once();
                    let id = format!("{}-{job}.1", cluster().trim());
                    let root = self.journal.root;
                    let started = fs::read_to_string(&self.journal.witness).unwrap_or_default();
                    root.node_status(&id)["state"] == "running" && started.contains(&id)
                });
            }
            10 => {
                // More numbers than a block has, and more cards than are synced one by one.
                let one = self.request("many", json!({"command": "true", "dir": "/"}));
                drop(self.submit(&Value::Array(vec![one; 40])));
                self.once();
            }
            11 => {
                // Some of its tasks have ended when the power fails, others run or wait.
                let line = format!("{}; sleep 0.02", self.journal.line());
                let array = json!({"command": line, "dir": "/", "array": "0-199"});
                let job = self.submit(&array).1[0];
                let status = || {
                    let words = ["jobs", &job.to_string(), "update"];
                    self.journal.root.cmd("scheduler", &words).expect(0).json()
                };
                until("some tasks have ended", || {
                    self.once();
                    status()["tasks"]["good"].as_u64() > Some(10)
                });
                self.told.tasks.insert(job, status()["tasks"]["good"].as_u64().unwrap());
            }
            _ => {
                // A submitter that dies at a sync, and others who go on after it.
                let request = self.request("dies", json!({}));
                let act = |root: &TestRoot| {
                    Act::cmd(root, "scheduler", &["jobs", "new"], &request.to_string())
                };
                let point = Point { name: "fsync".into(), nth: 1, seen: true };
                let ran = act(self.journal.root).kill_at(&point);
                assert!(ran.killed);
                drop(self.submit(&request));
            }
        }
    }

    /// After the power is back, before anything was recovered: what was told is there.
    fn check(&mut self) {
        let root = self.journal.root;
        for (job, priority) in &self.told.priority {
            let card = root.cmd("scheduler", &["jobs", &job.to_string()]).expect(0).json();
            assert_eq!(card["priority"], json!(priority), "job {job}");
        }
        for (job, good) in &self.told.tasks {
            let status = root.cmd("scheduler", &["jobs", &job.to_string(), "status"]);
            let now = status.expect(0).json()["tasks"]["good"].as_u64();
            assert!(now >= Some(*good), "job {job}: {good} tasks had ended well, {now:?} have");
        }
        for job in &self.told.killed {
            let card = root.cmd("scheduler", &["jobs", &job.to_string()]).expect(0).json();
            assert_eq!(card["cause"], "killed", "job {job}");
        }
        for id in &self.told.nodejobs {
            let status = root.cmd("processor", &["jobs", id, "status"]);
            assert_eq!(status.code, 0, "{id}: {status:?}");
        }
    }
}

#[test]
fn nothing_that_was_acknowledged_is_lost() {
    if left_out() {
        return;
    }
    let begun = Instant::now();
    let mut root = TestRoot::new(CONF);
    let outside = TestRoot::new("");
    let mut disk = Disk::new(&root.path("state"), outside.path("disk.img"));
    let witness = outside.path("witness");
    root.env.push(("CORKBOARD_BOOT_ID".into(), "boot-0".into()));
    let mut told = Told::default();
    let mut acked = BTreeMap::new();
    let mut counts = faults::Counts::default();
    let mut highest = 0;
    let mut mended = 0;
    for round in 0..39 {
        root.env[0].1 = format!("boot-{round}");
        let mut journal = Journal::new(&root);
        journal.witness = witness.clone();
        journal.acked = std::mem::take(&mut acked);
        journal.allowed = &["killed", "lost"];
        let mut world = World { journal, told: std::mem::take(&mut told), round };
        world.act();
        let newest = *world.journal.acked.keys().last().unwrap_or(&0);
        assert!(newest >= highest, "numbers go down");
        highest = newest;
        // Not a wait for anything: each cut comes at another moment. A journal is written every five seconds
        // by itself; it must not help.
        std::thread::sleep(Duration::from_millis((round as u64 * 37) % 90));
        disk.cut();
        counts.faults += 1;
        processes::end_all(&root.dir, false).unwrap(); // all are dead when the power fails
        let World { journal, told: t, .. } = world;
        (acked, told) = (journal.acked, t);
        counts.submitted += journal.counts.submitted;
        disk.back();
        let waited: Vec<String> = names(&root.path("state/processor/queue"))
            .into_iter()
            .filter(|id| root.exists(&format!("state/processor/job/{id}")))
            .collect();
        root.env[0].1 = format!("boot-{}", round + 1);
        let mut journal = Journal::new(&root);
        journal.witness = witness.clone();
        journal.acked = acked;
        journal.allowed = &["killed", "lost"];
        let mut world = World { journal, told, round };
        // Before recovery the head may answer that a card of a batch is being recovered.
        world.once();
        world.check();
        release_held(&root);
        world.journal.settle();
        world.listen();
        for id in waited {
            assert_ne!(root.node_status(&id)["cause"], "lost", "{id} had not been claimed");
        }
        for name in ["scheduler", "processor"] {
            let found = Act::cmd(&root, name, &["check"], "").run();
            if !found.body.is_empty() {
                println!("round {round}: {name} check: {}", found.body);
                mended += found.body.lines().count();
            }
        }
        world.journal.verify();
        counts.lost += world.journal.counts.lost;
        counts.twice += world.journal.counts.twice;
        acked = world.journal.acked;
        told = world.told;
    }
    // Only what had been claimed when the power failed may have ended as lost.
    let lost: Vec<u64> =
        told.ends.iter().filter(|(_, end)| end.contains("lost")).map(|(job, _)| *job).collect();
    println!("power loss: {} jobs claimed when it came ended as lost, {mended} mended", lost.len());
    assert_eq!(mended, 0);
    counts.report("power loss", begun);
    drop(disk);
}

/// Ends what is held, so that everything ends.
fn release_held(root: &TestRoot) {
    let held = root.cmd("scheduler", &["jobs", "state=held"]).expect(0).body;
    for job in held.lines() {
        root.cmd("scheduler", &["jobs", job, "update", "release=1"]).expect(0);
    }
}
