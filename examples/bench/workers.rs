//! Jobs by workers, which ask the head for them, against the same by a node that the head asks; and by many workers
//! against one with as many slots.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::process::{self, Guarded};
use crate::requests::JOB;
use crate::run::{SLOTS, ours};
use crate::site::{PATH, Removed, Site, settle};
use crate::table::{Limit, Table};
use crate::{Bench, Result};

const PATIENCE: Duration = Duration::from_secs(300);

/// How many there are of them where there are many.
const MANY: usize = 32;

/// A worker and its root. Dropped, its processes are ended, then it is removed.
struct Lap {
    dir: PathBuf,
    worker: Option<Guarded>,
    _removed: Removed,
}

impl Drop for Lap {
    fn drop(&mut self) {
        self.worker = None;
        process::end_those_of(&self.dir);
    }
}

impl Lap {
    /// One that has joined this head.
    fn new(bench: &Bench, head: &Site, name: &str, slots: usize) -> Result<Lap> {
        let dir = head.dir.with_file_name(name);
        for part in ["cgi-bin", "bin", "run"] {
            fs::create_dir_all(dir.join(part))?;
        }
        let removed = Removed(dir.clone());
        for (from, to) in [("processor", "cgi-bin/processor"), ("worker", "bin/worker")] {
            let from = bench.programs.join(from);
            fs::copy(&from, dir.join(to)).map_err(|e| format!("{}: {e}", from.display()))?;
        }
        fs::write(dir.join("corkboard.conf"), format!("cores = {slots}\n"))?;
        let role = ["tokens", "new", "role=join", &format!("node={name}"), "-q"];
        fs::write(dir.join("token"), head.ask(&role)?)?;
        let url = format!("http://{}/cgi-bin", head.address);
        let log = File::create(dir.join("run/worker.log"))?;
        let worker = Guarded::start(
            Command::new(dir.join("bin/worker"))
                .args(["--head", &url, "--token-file", "token", "--name", name])
                .current_dir(&dir)
                .env_clear()
                .env("PATH", PATH)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log),
        )?;
        Ok(Lap { dir, worker: Some(worker), _removed: removed })
    }
}

/// A head that gives this machine nothing itself, with so many workers that have so many slots each: so many jobs wait,
/// the poller is started, until all cards are done. Jobs per second.
fn by_workers(bench: &Bench, dir: &Path, many: usize, slots: usize, jobs: usize) -> Result<f64> {
    let head = Site::new(bench, dir.join("head"))?;
    head.scheduler(&["nodes", "localhost", "update", "-d", r#"{"drain":true}"#])?;
    let laps: Result<Vec<Lap>> =
        (0..many).map(|lap| Lap::new(bench, &head, &format!("lap{lap}"), slots)).collect();
    let _laps = laps?;
    wait_for_workers(&head, many)?;
    let last = head.submit_many(JOB, jobs)?;
    settle(&head.dir)?;
    let begun = Instant::now();
    let poller = head.poller()?;
    head.wait_done(last, PATIENCE)?;
    let seconds = begun.elapsed().as_secs_f64();
    drop(poller);
    head.check_good(jobs)?;
    Ok(jobs as f64 / seconds)
}

/// Until so many are in touch with the head.
fn wait_for_workers(head: &Site, many: usize) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = head.ask(&["workers"])?;
        let said: serde_json::Value = serde_json::from_str(&text)?;
        let workers = said["workers"].as_array().ok_or("no workers")?;
        if workers.iter().filter(|worker| worker["state"] == "connected").count() == many {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("{many} workers are not connected: {said}").into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// One worker against a node that the head reaches.
pub fn run(bench: &Bench, table: &mut Table) -> Result<()> {
    let jobs = bench.size(10_000, 200);
    for (place, dir) in [("memory", &bench.memory), ("the disk", &bench.disk)] {
        let mut rounds = Vec::new();
        for _ in 0..bench.rounds {
            let rate = by_workers(bench, dir, 1, SLOTS, jobs)?;
            rounds.push((rate, ours(bench, dir, jobs)?));
        }
        let what = format!("{jobs} jobs in {place} by the same on an http node");
        table.ratio("worker-run", what, "jobs/s", &rounds, Some(Limit::AtLeast(0.8, 1.0)), "");
    }
    Ok(())
}

/// Many workers against one that has as many slots.
pub fn contention(bench: &Bench, table: &mut Table) -> Result<()> {
    let jobs = bench.size(10_000, 200);
    let many = bench.size(MANY, 4);
    let mut rounds = Vec::new();
    for _ in 0..bench.rounds {
        let rate = by_workers(bench, &bench.memory, many, 1, jobs)?;
        rounds.push((rate, by_workers(bench, &bench.memory, 1, many, jobs)?));
    }
    let what = format!("{jobs} jobs by {many} workers by one of {many} slots");
    table.ratio("worker-many", what, "jobs/s", &rounds, Some(Limit::AtLeast(0.7, 1.0)), "");
    Ok(())
}
