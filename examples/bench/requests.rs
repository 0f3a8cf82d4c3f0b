//! Requests by HTTP: submit, status, a batch, one job after another.

use std::time::Instant;

use crate::chain::Chain;
use crate::disk;
use crate::http::{get, json, load, post, send};
use crate::site::{Site, settle};
use crate::table::{Limit, Table, median};
use crate::{Bench, Result};

/// Clients at a time, where nothing else is said.
pub const CLIENTS: usize = 4;

/// What is submitted.
pub const JOB: &str = r#"{"command":["/bin/true"]}"#;

pub fn submit(bench: &Bench, table: &mut Table) -> Result<()> {
    let site = Site::new(bench, bench.disk.join("submit"))?;
    let count = bench.size(1000, 40);
    let ours = post("scheduler/jobs/new", JOB);
    // The same bytes on the disk as a card has.
    let body = format!("{{\"card\":\"{}\"}}", "x".repeat(140));
    let publish = post("publish", &body);
    let null = get("null");
    load(site.address, CLIENTS, 20, &ours)?;
    load(site.address, CLIENTS, 20, &publish)?;
    let (mut by_publish, mut by_null, mut by_disk) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        let rate = load(site.address, CLIENTS, count, &ours)?;
        by_publish.push((rate, load(site.address, CLIENTS, count, &publish)?));
        let rate = load(site.address, CLIENTS, count, &ours)?;
        by_null.push((rate, load(site.address, CLIENTS, count, &null)?));
        by_disk.push((rate, disk::publish(&site.dir, CLIENTS, count)?));
    }
    let limit = Limit::AtLeast(0.85, 0.95);
    table.ratio(
        "submit",
        "by a CGI that publishes one file",
        "requests/s",
        &by_publish,
        Some(limit),
        "",
    );
    let limit = Limit::AtLeast(0.5, 0.7);
    table.ratio("submit", "by a CGI that prints one line", "requests/s", &by_null, Some(limit), "");
    let note = "no HTTP, no process: four threads make, sync and rename the same files";
    table.ratio("submit", "by the disk alone", "requests/s", &by_disk, None, note);
    Ok(())
}

pub fn status(bench: &Bench, table: &mut Table) -> Result<()> {
    let site = Site::new(bench, bench.disk.join("status"))?;
    let job = site.submit(JOB)?;
    let count = bench.size(2000, 40);
    let ours = get(&format!("scheduler/jobs/{job}/status"));
    let null = get("null");
    load(site.address, CLIENTS, 20, &ours)?;
    let mut rounds = Vec::new();
    for _ in 0..bench.rounds {
        let rate = load(site.address, CLIENTS, count, &ours)?;
        rounds.push((rate, load(site.address, CLIENTS, count, &null)?));
    }
    let limit = Limit::AtLeast(0.9, 0.95);
    table.ratio("status", "by a CGI that prints one line", "requests/s", &rounds, Some(limit), "");
    Ok(())
}

pub fn batch(bench: &Bench, table: &mut Table) -> Result<()> {
    let site = Site::new(bench, bench.disk.join("batch"))?;
    let count = bench.size(10_000, 200);
    let request = post("scheduler/jobs/new", &format!("[{}]", vec![JOB; count].join(",")));
    let mut rates = Vec::new();
    for _ in 0..bench.rounds {
        settle(&site.dir)?;
        let begun = Instant::now();
        let answer = json(site.address, &request)?;
        let rate = count as f64 / begun.elapsed().as_secs_f64();
        if answer.as_array().map(Vec::len) != Some(count) {
            return Err("not all jobs were accepted".into());
        }
        rates.push(rate);
    }
    let limit = Limit::AtLeast(20_000.0, 50_000.0);
    table.figure(
        "batch",
        format!("{count} jobs in one request"),
        "jobs/s",
        &rates,
        Some(limit),
        "",
    );
    Ok(())
}

pub fn latency(bench: &Bench, table: &mut Table) -> Result<()> {
    let site = Site::new(bench, bench.disk.join("latency"))?;
    let _poller = site.poller()?;
    let count = bench.size(60, 5);
    let null = get("null");
    let one = || one_to_its_end(&site).map(|seconds| seconds * 1e3);
    one()?; // the node is known to be up from here on
    let mut chain = Chain::new(&site)?;
    let (mut by_chain, mut by_null) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        let (mut ours, mut bare, mut floor) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..count {
            ours.push(one()?);
            bare.push(chain.run()? * 1e3);
            let begun = Instant::now();
            send(site.address, &null)?;
            floor.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        by_chain.push((median(&ours), median(&bare)));
        by_null.push((median(&ours), median(&floor)));
    }
    let note = "the same process starts and syncs one after another, without us";
    table.ratio("latency", "by a bare chain", "ms", &by_chain, None, note);
    let limit = Limit::AtMost(8.0, 5.0);
    let what = "by a request to a CGI that prints one line";
    table.ratio("latency", what, "ms", &by_null, Some(limit), "");
    Ok(())
}

/// Seconds from the POST of a job until its end has been told.
pub fn one_to_its_end(site: &Site) -> Result<f64> {
    let begun = Instant::now();
    let job = site.submit(JOB)?;
    let end = json(site.address, &get(&format!("scheduler/jobs/{job}/status?wait=30")))?;
    if end["state"] != "stopped" || end["status"] != "good" {
        return Err(format!("job {job} did not end well: {end}").into());
    }
    Ok(begun.elapsed().as_secs_f64())
}
