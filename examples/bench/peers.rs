//! The same separate jobs by other job systems, on the same disk. What queues is given its jobs
//! before time is taken, as ours is.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::process::Guarded;
use crate::run::{self, SLOTS};
use crate::site::{Removed, settle};
use crate::table::{Limit, Table};
use crate::{Bench, Result};

const PATIENCE: Duration = Duration::from_secs(180);

/// Runs in HyperQueue's Python; prints seconds.
const HYPERQUEUE: &str = include_str!("local_cluster.py");

/// Holds a queue back until there is a file `go`.
const HOLD: &str = "while [ ! -e go ]; do sleep 0.01; done";

/// Runs so many jobs in a directory; jobs per second.
type Measure = Box<dyn Fn(&Path, usize) -> Result<f64>>;

struct Peer {
    name: &'static str,
    count: usize,
    note: String,
    measure: Measure,
    rounds: Vec<(f64, f64)>,
    failed: Option<String>,
}

pub fn measure(bench: &Bench, table: &mut Table) -> Result<()> {
    let count = bench.size(10_000, 200);
    let mut peers: Vec<Peer> = Vec::new();
    let mut add = |name, count, note: &str, measure: Measure| {
        peers.push(Peer {
            name,
            count,
            note: note.into(),
            measure,
            rounds: Vec::new(),
            failed: None,
        });
    };
    add(
        "GNU parallel",
        bench.size(2000, 100),
        "keeps no queue and no record; fewer jobs, since its rate does not depend on their number",
        Box::new(parallel),
    );
    add(
        "task-spooler",
        bench.size(500, 50),
        "fewer jobs: each that waits is a process, and a list is walked for each; not durable",
        Box::new(task_spooler),
    );
    add(
        "nq",
        bench.size(500, 50),
        "fewer jobs: each that waits is a process that waits for all before it; runs one at a time; not durable",
        Box::new(nq),
    );
    match &bench.hyperqueue {
        Some(python) => {
            let python = python.clone();
            add(
                "HyperQueue",
                count,
                "server and worker in one process, no journal, output of tasks dropped; its client looks once a second; all jobs are tasks of one submission",
                Box::new(move |dir, count| hyperqueue(&python, dir, count)),
            );
        }
        None => table.failed("peers", "HyperQueue could not be installed"),
    }
    for _ in 0..bench.rounds {
        let ours = run::ours(bench, &bench.disk, count)?;
        for peer in &mut peers {
            let dir = bench.disk.join("peer");
            fs::create_dir_all(&dir)?;
            let _removed = Removed(dir.clone());
            settle(&dir)?;
            if peer.failed.is_some() {
                continue;
            }
            match (peer.measure)(&dir, peer.count) {
                Ok(rate) => peer.rounds.push((ours, rate)),
                Err(error) => peer.failed = Some(error.to_string()),
            }
        }
    }
    for peer in peers {
        if let Some(error) = peer.failed {
            table.failed("peers", &format!("{}: {error}", peer.name));
            continue;
        }
        let what = format!("{count} jobs by {} ({} jobs)", peer.name, peer.count);
        let limit = Limit::AtLeast(1.0, 2.0);
        table.ratio("peers", what, "jobs/s", &peer.rounds, Some(limit), peer.note);
    }
    Ok(())
}

fn command(program: impl AsRef<std::ffi::OsStr>, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(dir)
        .env("TMPDIR", dir)
        .env("HOME", dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

fn finish(command: &mut Command) -> Result<()> {
    let mut child = Guarded::start(command)?;
    child.finish(PATIENCE).map_err(|error| format!("{command:?}: {error}").into())
}

fn parallel(dir: &Path, count: usize) -> Result<f64> {
    let list = dir.join("list");
    fs::write(&list, "x\n".repeat(count))?;
    let jobs = format!("-j{SLOTS}");
    let begun = Instant::now();
    finish(
        command("parallel", dir)
            .args(["--will-cite", &jobs, "/bin/true"])
            .stdin(File::open(&list)?),
    )?;
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

/// Ends the server of a directory's task-spooler.
struct Spooler(PathBuf);

impl Spooler {
    fn command(&self) -> Command {
        let mut command = command("tsp", &self.0);
        command.env("TS_SOCKET", self.0.join("socket")).env("TS_MAXFINISHED", "10");
        command
    }
}

impl Drop for Spooler {
    fn drop(&mut self) {
        let _ = finish(self.command().arg("-K")); // the server ends, and with it what waits
    }
}

fn task_spooler(dir: &Path, count: usize) -> Result<f64> {
    let spooler = Spooler(dir.to_path_buf());
    finish(spooler.command().args(["-S", &SLOTS.to_string()]))?;
    for _ in 0..SLOTS {
        finish(spooler.command().args(["sh", "-c", HOLD]))?;
    }
    for _ in 0..count {
        finish(spooler.command().arg("/bin/true"))?;
    }
    let begun = Instant::now();
    File::create(dir.join("go"))?;
    // Two at a time from a list: with the last, at most one before it is left.
    let last = (count + SLOTS - 1).to_string();
    finish(spooler.command().args(["-w", &last]))?;
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

fn nq(dir: &Path, count: usize) -> Result<f64> {
    finish(command("nq", dir).args(["sh", "-c", HOLD]))?;
    for _ in 0..count {
        finish(command("nq", dir).arg("/bin/true"))?;
    }
    let begun = Instant::now();
    File::create(dir.join("go"))?;
    finish(command("nq", dir).arg("-w"))?;
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

fn hyperqueue(python: &Path, dir: &Path, count: usize) -> Result<f64> {
    let script = dir.join("local_cluster.py");
    fs::write(&script, HYPERQUEUE)?;
    let answer = dir.join("seconds");
    let mut child = Guarded::start(
        command(python, dir)
            .arg(&script)
            .args([count.to_string(), SLOTS.to_string()])
            .stdout(File::create(&answer)?)
            .stderr(File::create(dir.join("errors"))?),
    )?;
    if let Err(error) = child.finish(PATIENCE) {
        let errors = fs::read_to_string(dir.join("errors")).unwrap_or_default();
        let last = errors.lines().last().unwrap_or_default();
        return Err(format!("{error}: {last}").into());
    }
    // The server prints, too.
    let said = fs::read_to_string(&answer)?;
    let seconds: f64 = said.lines().rev().find_map(|l| l.parse().ok()).ok_or("it said no time")?;
    Ok(count as f64 / seconds)
}
