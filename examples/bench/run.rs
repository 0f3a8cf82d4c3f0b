//! Jobs from the queue to done, against `xargs`.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::disk;
use crate::process::Guarded;
use crate::requests::JOB;
use crate::site::{Site, settle};
use crate::table::{Limit, Table};
use crate::{Bench, Result};

/// Jobs that run at a time: what localhost gives, and what the floors are told.
pub const SLOTS: usize = 2;

const PATIENCE: Duration = Duration::from_secs(300);

pub fn in_memory(bench: &Bench, table: &mut Table) -> Result<()> {
    let count = bench.size(10_000, 200);
    let mut rounds = Vec::new();
    for _ in 0..bench.rounds {
        let rate = ours(bench, &bench.memory, count)?;
        rounds.push((rate, xargs(&bench.memory, count)?));
    }
    let limit = Limit::AtLeast(0.85, 1.1);
    let what = format!("{count} jobs by xargs -P{SLOTS}");
    table.ratio("run-tmpfs", what, "jobs/s", &rounds, Some(limit), "");
    Ok(())
}

pub fn on_disk(bench: &Bench, table: &mut Table) -> Result<()> {
    let count = bench.size(10_000, 200);
    let (mut rounds, mut raw) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        let rate = ours(bench, &bench.disk, count)?;
        rounds.push((rate, xargs(&bench.disk, count)?));
        settle(&bench.disk)?;
        raw.push((rate, disk::run(&bench.disk, count)?));
    }
    let limit = Limit::AtLeast(0.55, 0.9);
    let what = format!("{count} jobs by xargs -P{SLOTS}");
    table.ratio("run-disk", what, "jobs/s", &rounds, Some(limit), "");
    let note = "no process: one thread makes, syncs and moves the same files";
    table.ratio("run-disk", format!("{count} jobs by the disk alone"), "jobs/s", &raw, None, note);
    Ok(())
}

/// The same as one array.
pub fn array_in_memory(bench: &Bench, table: &mut Table) -> Result<()> {
    array(bench, table, "array-tmpfs", &bench.memory)
}

/// The same as one array.
pub fn array_on_disk(bench: &Bench, table: &mut Table) -> Result<()> {
    array(bench, table, "array-disk", &bench.disk)
}

fn array(bench: &Bench, table: &mut Table, case: &str, dir: &Path) -> Result<()> {
    let count = bench.size(10_000, 1000);
    let mut rounds = Vec::new();
    for _ in 0..bench.rounds {
        let rate = tasks(bench, dir, count)?;
        rounds.push((rate, xargs(dir, count)?));
    }
    let limit = Limit::AtLeast(1.15, 1.2);
    let what = format!("one array of {count} tasks by xargs -P{SLOTS}");
    table.ratio(case, what, "tasks/s", &rounds, Some(limit), "");
    Ok(())
}

/// So many separate jobs wait; the poller is started; until all cards are done. Jobs per second.
pub fn ours(bench: &Bench, dir: &Path, count: usize) -> Result<f64> {
    let site = Site::new(bench, dir.join("run"))?;
    fs::write(site.dir.join("corkboard.conf"), format!("cores = {SLOTS}\n"))?;
    let last = site.submit_many(JOB, count)?;
    settle(&site.dir)?;
    let begun = Instant::now();
    let poller = site.poller()?;
    site.wait_done(last, PATIENCE)?;
    let seconds = begun.elapsed().as_secs_f64();
    drop(poller);
    site.check_good(count)?;
    Ok(count as f64 / seconds)
}

/// One array of so many tasks waits; the poller is started; until its card is done. Tasks per
/// second.
fn tasks(bench: &Bench, dir: &Path, count: usize) -> Result<f64> {
    let site = Site::new(bench, dir.join("run"))?;
    fs::write(site.dir.join("corkboard.conf"), format!("cores = {SLOTS}\n"))?;
    let job = site.submit(&array_of(count))?;
    settle(&site.dir)?;
    let begun = Instant::now();
    let poller = site.poller()?;
    site.wait_done(job, PATIENCE)?;
    let seconds = begun.elapsed().as_secs_f64();
    drop(poller);
    site.check_tasks(job, count)?;
    Ok(count as f64 / seconds)
}

fn array_of(count: usize) -> String {
    format!(r#"{{"command":["/bin/true"],"array":"0-{}"}}"#, count - 1)
}

/// The same programs by `xargs`; jobs per second.
pub fn xargs(dir: &Path, count: usize) -> Result<f64> {
    let list = dir.join("xargs");
    fs::write(&list, "x\n".repeat(count))?;
    let begun = Instant::now();
    let mut xargs = Guarded::start(
        Command::new("xargs")
            .args([&format!("-P{SLOTS}"), "-n1", "/bin/true"])
            .stdin(File::open(&list)?)
            .stdout(Stdio::null()),
    )?;
    xargs.finish(PATIENCE)?;
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    fs::remove_file(&list)?;
    Ok(rate)
}
