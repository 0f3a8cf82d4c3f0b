//! What stays in memory: the poller of a full board that can do nothing, and what stays with one
//! running job.

use std::fs;
use std::time::{Duration, Instant};

use corkboard::model::card::Column;

use crate::http::{post, send};
use crate::process::{self, Guarded};
use crate::site::{Site, settle};
use crate::table::{Limit, Table};
use crate::{Bench, Result};

pub fn idle(bench: &Bench, table: &mut Table) -> Result<()> {
    let count = bench.size(100_000, 2000) as u64;
    let site = Site::new(bench, bench.disk.join("idle"))?;
    let job = r#"{"command":["/bin/true"],"requested_resources":{"cores":100000}}"#;
    let first = site.submit(job)?;
    let model = site.card_text(Column::Queue, first)?;
    site.fill(Column::Queue, &model, first + 1, count - 1)?;
    site.count_from(first + count)?;
    settle(&site.dir)?;
    let poller = site.poller()?;
    wait_until_quiet(&poller)?;
    let window = Duration::from_secs(bench.size(30, 3) as u64);
    let (before, begun) = (process::cpu(poller.pid())?, Instant::now());
    std::thread::sleep(window);
    let used = process::cpu(poller.pid())? - before;
    let share = used / begun.elapsed().as_secs_f64() * 100.0;
    let (pss, rss) = process::memory(poller.pid())?;
    let what = format!("poller, {count} cards that fit nowhere");
    let note = format!("over {} s, once it has read them", window.as_secs());
    let limit = Some(Limit::AtMost(0.2, 0.05));
    table.figure("idle", format!("{what}: processor"), "% of a core", &[share], limit, note);
    let limit = Some(Limit::AtMost(40.0, 32.0));
    table.figure("idle", format!("{what}: PSS"), "MiB", &[pss], limit, format!("RSS {rss:.1} MiB"));
    Ok(())
}

/// Waits until it did next to nothing for longer than from one scan to the next: of a directory
/// that changed a moment ago, the first scans look at everything.
fn wait_until_quiet(poller: &Guarded) -> Result<()> {
    const QUIET_SECONDS: usize = 7;
    let deadline = Instant::now() + Duration::from_secs(120);
    let (mut before, mut quiet) = (0.0, 0);
    while Instant::now() < deadline {
        std::thread::sleep(Duration::from_secs(1));
        let now = process::cpu(poller.pid())?;
        quiet = if now - before < 0.03 && now > 0.0 { quiet + 1 } else { 0 };
        before = now;
        if quiet == QUIET_SECONDS {
            return Ok(());
        }
    }
    Err("the poller does not come to rest".into())
}

pub fn supervisor(bench: &Bench, table: &mut Table) -> Result<()> {
    let site = Site::new(bench, bench.disk.join("supervisor"))?;
    let _poller = site.poller()?;
    let (mut all, mut resident) = (Vec::new(), 0.0);
    for _ in 0..bench.rounds {
        let job = site.submit(r#"{"command":["sleep","60"]}"#)?;
        let program = program_of(&site)?;
        std::thread::sleep(Duration::from_millis(300)); // it has told that the job runs
        let (pss, rss) = process::memory(process::parent(program)?)?;
        all.push(pss);
        resident = rss;
        send(site.address, &post(&format!("scheduler/jobs/{job}/update?kill=1"), ""))?;
        site.wait_done(job, Duration::from_secs(30))?;
    }
    let limit = Some(Limit::AtMost(0.9, 0.5));
    let note = format!("RSS {resident:.2} MiB");
    table.figure("supervisor", "PSS with one running job", "MiB", &all, limit, note);
    Ok(())
}

/// The program that runs: links of ended ones have two times in their name.
fn program_of(site: &Site) -> Result<i32> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        for entry in fs::read_dir(site.dir.join("state/processor/pid"))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if let [pid, _start] = name.split('_').collect::<Vec<_>>()[..] {
                return Ok(pid.parse()?);
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err("the job does not start".into())
}
