//! How the figures change with the number of clients, jobs and nodes; cards are in [`crate::scale`].

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::http::{get, json, load, post};
use crate::requests::{JOB, one_to_its_end};
use crate::run::{SLOTS, ours, xargs};
use crate::site::{Site, settle};
use crate::table::{Table, median};
use crate::{Bench, Result};

/// More would not be told apart from what else the machine does.
pub const ROUNDS: usize = 3;

const PATIENCE: Duration = Duration::from_secs(120);

/// How long a job of the second kind takes in [`nodes`].
const SLEEP: f64 = 0.2;

/// Submit and status with more and more clients.
pub fn clients(bench: &Bench, table: &mut Table) -> Result<()> {
    let site = Site::new(bench, bench.disk.join("growth"))?;
    let count = bench.size(600, 40);
    let job = site.submit(JOB)?;
    let status = get(&format!("scheduler/jobs/{job}/status"));
    let (submit, null) = (post("scheduler/jobs/new", JOB), get("null"));
    for (name, ours) in [("submit", &submit), ("status", &status)] {
        for clients in [1, 2, 4, 8] {
            let mut rounds = Vec::new();
            for _ in 0..bench.rounds.min(ROUNDS) {
                let rate = load(site.address, clients, count, ours)?;
                rounds.push((rate, load(site.address, clients, count, &null)?));
            }
            let what = format!("{name} with {clients} clients, by a CGI that prints one line");
            table.ratio("growth", what, "requests/s", &rounds, None, "");
        }
    }
    Ok(())
}

/// Jobs from the queue to done, more and more of them.
pub fn jobs(bench: &Bench, table: &mut Table) -> Result<()> {
    for count in [100, 1000, bench.size(10_000, 2000)] {
        let mut rounds = Vec::new();
        for _ in 0..bench.rounds.min(ROUNDS) {
            let rate = ours(bench, &bench.disk, count)?;
            rounds.push((rate, xargs(&bench.disk, count)?));
        }
        let what = format!("{count} jobs by xargs on the disk");
        table.ratio("growth", what, "jobs/s", &rounds, None, "");
    }
    Ok(())
}

/// Jobs on more and more nodes. Each is a root of its own on this machine with its own httpd and
/// one slot. What they do beside waiting they do on the same processors.
pub fn nodes(bench: &Bench, table: &mut Table) -> Result<()> {
    let head = Site::new(bench, bench.disk.join("head"))?;
    head.scheduler(&["nodes", "localhost", "update", "-d", r#"{"drain":true}"#])?;
    let _poller = head.poller()?;
    let mut roots: Vec<Site> = Vec::new();
    let mut finished = 0;
    let all: &[usize] = if bench.quick { &[1, 2, 4] } else { &[1, 2, 4, 8, 16, 32] };
    for &count in all {
        while roots.len() < count {
            roots.push(register(bench, &head, roots.len() + 1)?);
        }
        wait_connected(&head, count)?;
        let (mut short, mut sleeping, mut latencies) = (Vec::new(), Vec::new(), Vec::new());
        let jobs = bench.size(1000, 100);
        let sleeps = count * bench.size(20, 5);
        let sleep = format!(r#"{{"command":["sleep","{SLEEP}"]}}"#);
        for _ in 0..bench.rounds.min(ROUNDS) {
            let rate = run_all(&head, JOB, jobs)?;
            short.push((rate, xargs(&bench.disk, jobs)?));
            let ideal = count as f64 / SLEEP;
            sleeping.push((run_all(&head, &sleep, sleeps)?, ideal));
            let one: Result<Vec<f64>> =
                (0..10).map(|_| one_to_its_end(&head).map(|s| s * 1e3)).collect();
            latencies.push(median(&one?));
            finished += jobs + sleeps + 10;
        }
        head.check_good(finished)?;
        let with = format!("{count} nodes, separate roots");
        let what = format!("{with}: {jobs} jobs by xargs -P{SLOTS}");
        table.ratio("growth", what, "jobs/s", &short, None, "");
        let what = format!("{with}: {sleeps} jobs of {SLEEP} s by no time between them");
        table.ratio("growth", what, "jobs/s", &sleeping, None, "one slot each");
        let what = format!("{with}: one job from its POST to its end");
        table.figure("growth", what, "ms", &latencies, None, "");
    }
    Ok(())
}

/// A root with one slot that is a node of this head.
fn register(bench: &Bench, head: &Site, number: usize) -> Result<Site> {
    let name = format!("node-{number:02}");
    let root = Site::new(bench, bench.disk.join(&name))?;
    fs::write(root.dir.join("corkboard.conf"), "cores = 1\n")?;
    let node = format!(r#"{{"name":"{name}","driver":"http","uri":"http://{}"}}"#, root.address);
    head.scheduler(&["nodes", "new", "-d", &node])?;
    Ok(root)
}

/// Waits until the head knows so many nodes that take jobs.
fn wait_connected(head: &Site, count: usize) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = json(head.address, &get("scheduler/nodes/list"))?;
        let nodes = answer["nodes"].as_array().ok_or("no nodes")?;
        let takes = |node: &&Value| node["state"] == "connected" && node["drain"] != true;
        if nodes.iter().filter(takes).count() == count {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("{count} nodes are not connected: {answer}").into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// From the POST of all jobs until the last card is done; jobs per second.
fn run_all(head: &Site, job: &str, count: usize) -> Result<f64> {
    settle(&head.dir)?;
    let begun = Instant::now();
    let last = head.submit_many(job, count)?;
    head.wait_done(last, PATIENCE)?;
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}
