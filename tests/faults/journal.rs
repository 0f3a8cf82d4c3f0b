//! What a client was told, and what must hold afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::{Act, Ran};
use crate::common::{TestRoot, until};

/// After the faults have ended nothing may stand still for so long before all is right again.
pub const RECOVERY: Duration = Duration::from_secs(40);

/// However much there is to be done, it is done within this time.
const AT_MOST: Duration = Duration::from_secs(600);

/// What a test did and found.
#[derive(Debug, Default)]
pub struct Counts {
    pub faults: usize,
    pub submitted: usize,
    pub lost: usize,
    pub twice: usize,
}

impl Counts {
    /// Prints the counts, and insists on what is promised.
    pub fn report(&self, what: &str, begun: Instant) {
        println!(
            "{what}: {} faults, {} submissions, {} jobs lost, {} run twice, {:.1} s",
            self.faults,
            self.submitted,
            self.lost,
            self.twice,
            begun.elapsed().as_secs_f64()
        );
        assert_eq!((self.lost, self.twice), (0, 0), "{what}");
    }

    pub fn add(&mut self, other: &Counts) {
        self.faults += other.faults;
        self.submitted += other.submitted;
        self.lost += other.lost;
        self.twice += other.twice;
    }
}

/// What the client was told.
pub struct Journal<'r> {
    pub root: &'r TestRoot,
    /// Lies outside of the root: each start of an attempt appends its id.
    pub witness: PathBuf,
    /// Numbers that were acknowledged, with their requests.
    pub acked: BTreeMap<u64, Map<String, Value>>,
    /// Ends beside `good` that the faults of this test allow.
    pub allowed: &'static [&'static str],
    pub counts: Counts,
}

impl<'r> Journal<'r> {
    pub fn new(root: &'r TestRoot) -> Journal<'r> {
        let witness = root.path("witness");
        Journal { root, witness, acked: BTreeMap::new(), allowed: &[], counts: Counts::default() }
    }

    /// The shell line of a job, or a task, that bears witness of each start.
    pub fn line(&self) -> String {
        let name = "$CORKBOARD_NODEJOB${CORKBOARD_TASK:+.$CORKBOARD_TASK}";
        format!("echo {name} >> {}", self.witness.display())
    }

    /// The request of such a job.
    pub fn request(&self, more: Value) -> Value {
        let mut request = json!({"command": self.line(), "dir": "/"});
        for (name, value) in more.as_object().unwrap() {
            request[name] = value.clone();
        }
        request
    }

    /// Has the node accept such a job, through the node manager, which starts no supervisor where
    /// [`TestRoot::starts_no_supervisor`]. Its id is the request's.
    pub fn accept(&mut self, more: Value) -> String {
        self.counts.submitted += 1;
        let request = self.request(more);
        let words = ["localhost", "jobs", "new"];
        let answer = self.root.cmd_in("nodemgr", &words, &request.to_string()).expect(0);
        assert_eq!(answer.stderr, "");
        request["request_id"].as_str().unwrap().to_string()
    }

    /// Sweeps until these jobs of the node have ended: well, or as lost where they may have started.
    /// Returns how many are lost.
    pub fn end_on_node(&self, ids: &[String], said: &str) -> usize {
        let sweep = Act::cmd(self.root, "processor", &["sweep"], "");
        until("all have ended", || {
            assert!(sweep.run().acknowledged());
            ids.iter().all(|id| self.root.node_status(id)["state"] == "stopped")
        });
        let is_lost = |id: &&String| {
            let end = self.root.node_status(id);
            let story = self.root.read(&format!("state/processor/job/{id}/status"));
            if end["cause"] == "lost" {
                // Its `running` line was there, so it is not started again.
                assert!(story.contains("\"running\""), "{said} {story}");
                return true;
            }
            assert_eq!(end["status"], "good", "{said} {story}");
            false
        };
        ids.iter().filter(is_lost).count()
    }

    /// Notes what a submission answered: one job, or an array of them.
    pub fn answered(&mut self, ran: &Ran) -> Vec<u64> {
        self.counts.submitted += 1;
        if !ran.acknowledged() {
            return Vec::new();
        }
        let answers = match ran.json() {
            Value::Array(all) => all,
            one => vec![one],
        };
        answers
            .into_iter()
            .map(|answer| {
                let Value::Object(mut map) = answer else { panic!("{ran:?}") };
                let job = map.remove("job").unwrap().as_u64().unwrap();
                map.remove("request_id");
                let before = self.acked.insert(job, map.clone());
                assert!(before.is_none_or(|b| b == map), "number {job} was given twice: {ran:?}");
                job
            })
            .collect()
    }

    /// Makes rounds until everything on the board, and on the node, has stopped. How long that takes
    /// depends on how much was left to be done, and on what else the machine does: so it fails where
    /// nothing changes any more, and tells what stands still.
    pub fn settle(&self) {
        let begun = Instant::now();
        let (mut seen, mut since, mut changes) = (Vec::new(), begun, 0);
        loop {
            let round = self.root.cmd("poller", &["--once", "-q"]);
            let swept = Act::cmd(self.root, "processor", &["sweep"], "").run();
            let open = self.open();
            let supervisors = self.root.supervisors();
            if open.is_empty() && supervisors.is_empty() {
                return;
            }
            if open != seen {
                (seen, since, changes) = (open, Instant::now(), changes + 1);
            }
            assert!(
                since.elapsed() < RECOVERY && begun.elapsed() < AT_MOST,
                "not recovered: the same for {:?} after {changes} changes in {:?}: {seen:?} {supervisors:?} {round:?} {swept:?}",
                since.elapsed(),
                begun.elapsed()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What has not stopped, and how much there is of it: what is done for one adds to it.
    fn open(&self) -> Vec<String> {
        let length = |path: &Path| path.metadata().map_or(0, |meta| meta.len());
        let mut open: Vec<String> = cards(self.root)
            .into_iter()
            .filter(|(_, paths)| paths.iter().any(|path| !path.contains("/done/")))
            .flat_map(|(_, paths)| paths)
            .map(|path| format!("{path} ({} bytes)", length(Path::new(&path))))
            .collect();
        for id in names(&self.root.path("state/processor/job")) {
            let dir = self.root.path("state/processor/job").join(&id);
            let refused = fs::read_to_string(dir.join("request.json")).unwrap_or_default();
            let ended = self.root.node_status(&id)["state"] == "stopped";
            if !ended && !refused.starts_with("{\"refused\"") {
                let told = length(&dir.join("status")) + length(&dir.join("tasks"));
                open.push(format!("{id} ({told} bytes)"));
            }
        }
        open
    }

    /// Checks everything that is promised, after [`Journal::settle`].
    pub fn verify(&mut self) {
        // What has ended may not be in the feed yet.
        until("no supervisor is at work", || self.root.supervisors().is_empty());
        let on_board = cards(self.root);
        let mut first_lines: BTreeMap<u64, Value> = BTreeMap::new();
        for (job, paths) in &on_board {
            assert_eq!(paths.len(), 1, "job {job} lies in {paths:?}");
            let text = fs::read_to_string(&paths[0]).unwrap();
            let first: Value = serde_json::from_str(text.lines().next().unwrap_or_default())
                .unwrap_or_else(|e| panic!("{}: {e}: {text:?}", paths[0]));
            assert_eq!(first["job"], json!(job));
            let last = text.lines().rev().find(|line| line.contains("\"event\":\"stopped\""));
            let end: Value = serde_json::from_str(last.unwrap()).unwrap();
            let cause = end["cause"].as_str().unwrap();
            if end["status"] != "good" && !self.allowed.contains(&cause) {
                if cause != "lost" {
                    panic!("job {job} did not end well: {text}");
                }
                self.counts.lost += 1;
                println!("job {job} was lost: {text}");
            }
            first_lines.insert(*job, first);
        }
        for (job, request) in &self.acked {
            match first_lines.get(job) {
                Some(first) => assert_eq!(first["request"], json!(request), "job {job}"),
                None => {
                    println!("job {job} is gone");
                    self.counts.lost += 1;
                }
            }
        }
        let mut starts: BTreeMap<String, usize> = BTreeMap::new();
        for id in fs::read_to_string(&self.witness).unwrap_or_default().lines() {
            *starts.entry(id.to_string()).or_default() += 1;
        }
        for (id, times) in starts.iter().filter(|(_, times)| **times > 1) {
            println!("{id} was started {times} times");
            self.counts.twice += 1;
        }
        for name in ["scheduler", "processor"] {
            let check = Act::cmd(self.root, name, &["check"], "").run();
            assert_eq!((check.code, check.body.as_str()), (0, ""), "{name} check: {check:?}");
        }
        self.sweeps_change_nothing();
    }

    /// P11: sweeps of a board that is right leave it as it is. Left out of the comparison are
    /// locks, whose content is the boot at most, records of nodes, which say when each was last seen,
    /// and what the first clean-up notes of the clock.
    fn sweeps_change_nothing(&self) {
        let before = listing(&self.root.path("state"));
        let round = Act::cmd(self.root, "poller", &["--once", "-q"], "").run();
        assert!(round.acknowledged(), "{round:?}");
        let swept = Act::cmd(self.root, "processor", &["sweep"], "").run().json();
        assert_eq!(swept, json!({"lost": 0, "requeued": 0, "started": false}));
        let after = listing(&self.root.path("state"));
        assert_eq!(before, after);
    }

    /// Numbers of the cards whose request has this name.
    pub fn named(&self, name: &str) -> Vec<u64> {
        cards(self.root)
            .into_iter()
            .filter(|(_, paths)| {
                let text = fs::read_to_string(&paths[0]).unwrap_or_default();
                let first = text.lines().next().unwrap_or_default().to_string();
                serde_json::from_str::<Value>(&first)
                    .is_ok_and(|first| first["request"]["name"] == name)
            })
            .map(|(job, _)| job)
            .collect()
    }
}

/// Where every card lies.
pub fn cards(root: &TestRoot) -> BTreeMap<u64, Vec<String>> {
    let mut found: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    let board = root.path("state/scheduler");
    let shards = names(&board.join("done"));
    let mut dirs = vec![board.join("queue"), board.join("running")];
    dirs.extend(shards.into_iter().map(|shard| board.join("done").join(shard)));
    for dir in dirs {
        for name in names(&dir) {
            if let Some(job) = name.strip_suffix(".job") {
                let path = dir.join(&name).display().to_string();
                found.entry(job.parse().unwrap()).or_default().push(path);
            }
        }
    }
    found
}

pub fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

/// Every file with its size and number of names, every directory; see
/// [`Journal::sweeps_change_nothing`] for what is left out.
pub fn listing(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        let is_nodes = dir.ends_with("scheduler/nodes");
        for name in names(&dir) {
            let path = dir.join(&name);
            if ["lock", "poller.lock", "clock"].contains(&name.as_str()) || is_nodes {
                continue;
            }
            let Ok(meta) = path.symlink_metadata() else { continue };
            if meta.is_dir() {
                found.push(format!("{}/", path.display()));
                dirs.push(path);
            } else {
                found.push(format!("{} {} {}", path.display(), meta.len(), meta.nlink()));
            }
        }
    }
    found.sort();
    found
}
