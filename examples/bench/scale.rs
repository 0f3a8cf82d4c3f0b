//! A board that has been in use for long, against an empty one.

use corkboard::model::card::Column;

use crate::http::{get, load, post};
use crate::requests::JOB;
use crate::run::SLOTS;
use crate::site::{Site, settle};
use crate::table::{Limit, Table};
use crate::{Bench, Result};

const CLIENTS: usize = 4;

pub fn measure(bench: &Bench, table: &mut Table) -> Result<()> {
    let (done, waiting) = (bench.size(1_000_000, 5000) as u64, bench.size(100_000, 2000) as u64);
    let small = Site::new(bench, bench.disk.join("small"))?;
    let large = Site::new(bench, bench.disk.join("large"))?;
    std::fs::write(small.dir.join("corkboard.conf"), format!("cores = {SLOTS}\n"))?;
    let first = {
        let _poller = small.poller()?;
        let job = small.submit(JOB)?;
        small.wait_done(job, std::time::Duration::from_secs(60))?;
        job
    };
    let finished = small.card_text(Column::Done, first)?;
    let queued = small.submit(JOB)?;
    let queued = small.card_text(Column::Queue, queued)?;
    let begun = std::time::Instant::now();
    large.fill(Column::Done, &finished, 1, done)?;
    large.fill(Column::Queue, &queued, done + 1, waiting)?;
    large.count_from(done + waiting + 1)?;
    settle(&large.dir)?;
    eprintln!("bench:   {done} + {waiting} cards made in {:.0?}", begun.elapsed());

    let count = bench.size(1000, 40);
    let submit = post("scheduler/jobs/new", JOB);
    let of_small = get(&format!("scheduler/jobs/{first}/status"));
    let of_large = get(&format!("scheduler/jobs/{}/status", done / 2));
    for site in [&small, &large] {
        load(site.address, CLIENTS, 20, &submit)?;
    }
    let (mut submits, mut statuses) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        let milliseconds = |rate: f64| CLIENTS as f64 * 1e3 / rate;
        let ours = load(large.address, CLIENTS, count, &submit)?;
        let floor = load(small.address, CLIENTS, count, &submit)?;
        submits.push((milliseconds(ours), milliseconds(floor)));
        let ours = load(large.address, CLIENTS, count, &of_large)?;
        let floor = load(small.address, CLIENTS, count, &of_small)?;
        statuses.push((milliseconds(ours), milliseconds(floor)));
    }
    let limit = Some(Limit::AtMost(1.2, 1.05));
    let with = format!("{done} done, {waiting} waiting, by an empty board");
    table.ratio("scale", format!("submit with {with}"), "ms", &submits, limit, "");
    table.ratio("scale", format!("status with {with}"), "ms", &statuses, limit, "");
    Ok(())
}
