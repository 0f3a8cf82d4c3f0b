//! A board that fills up, against an empty one: no request may look at more than it needs.

use std::fs;
use std::time::Duration;

use corkboard::model::card::Column;

use crate::growth::ROUNDS;
use crate::http::{get, load, post};
use crate::requests::{CLIENTS, JOB};
use crate::run::SLOTS;
use crate::site::{Site, settle};
use crate::table::{Limit, Table};
use crate::{Bench, Result};

const DONE: &[u64] = &[100, 1000, 10_000, 100_000, 1_000_000];
const WAITING: &[u64] = &[100, 1000, 10_000, 100_000];

/// A board that is empty but for a card or two, and one that is not.
struct Boards {
    small: Site,
    large: Site,
    /// The last number of a card that is made here. What is submitted has numbers above it.
    last: u64,
}

/// How thoroughly the two are compared.
struct Effort {
    case: &'static str,
    rounds: usize,
    count: usize,
    limit: Option<Limit>,
}

pub fn measure(bench: &Bench, table: &mut Table) -> Result<()> {
    let (done, waiting) = if bench.quick { (&DONE[..2], &WAITING[..2]) } else { (DONE, WAITING) };
    let small = Site::new(bench, bench.disk.join("small"))?;
    let large = Site::new(bench, bench.disk.join("large"))?;
    let (finished, queued) = models(&small)?;
    let most = |steps: &[u64]| steps.last().copied().unwrap_or(0);
    let boards = Boards { small, large, last: most(done) + most(waiting) };
    boards.small.count_from(boards.last + 1)?;
    boards.large.count_from(boards.last + 1)?;
    let step = Effort {
        case: "growth",
        rounds: bench.rounds.min(ROUNDS),
        count: bench.size(300, 40),
        limit: None,
    };
    let whole = Effort {
        case: "scale",
        rounds: bench.rounds,
        count: bench.size(1000, 40),
        limit: Some(Limit::AtMost(1.2, 1.05)),
    };
    let mut there = 0;
    for count in done {
        boards.large.fill(Column::Done, &finished, there + 1, count - there)?;
        there = *count;
        boards.compare(table, &step, there, &format!("{there} done"))?;
    }
    let begin = there;
    for count in waiting {
        boards.large.fill(Column::Queue, &queued, there + 1, begin + count - there)?;
        there = begin + count;
        let effort = if there == boards.last { &whole } else { &step };
        boards.compare(table, effort, begin / 2, &format!("{begin} done, {count} waiting"))?;
    }
    Ok(())
}

/// A finished card and a waiting one, as they are written.
fn models(site: &Site) -> Result<(String, String)> {
    fs::write(site.dir.join("corkboard.conf"), format!("cores = {SLOTS}\n"))?;
    let poller = site.poller()?;
    let finished = site.submit(JOB)?;
    site.wait_done(finished, Duration::from_secs(60))?;
    drop(poller);
    let queued = site.submit(JOB)?;
    Ok((site.card_text(Column::Done, finished)?, site.card_text(Column::Queue, queued)?))
}

impl Boards {
    /// Measures both in turns. What is submitted is taken away again: the boards stay as full as
    /// they are said to be.
    fn compare(&self, table: &mut Table, effort: &Effort, job: u64, what: &str) -> Result<()> {
        let submit = post("scheduler/jobs/new", JOB);
        let of_small = get("scheduler/jobs/1/status");
        let of_large = get(&format!("scheduler/jobs/{job}/status"));
        settle(&self.large.dir)?;
        for site in [&self.small, &self.large] {
            load(site.address, CLIENTS, 20, &submit)?;
        }
        let milliseconds = |site: &Site, request: &[u8]| -> Result<f64> {
            Ok(CLIENTS as f64 * 1e3 / load(site.address, CLIENTS, effort.count, request)?)
        };
        let (mut submits, mut statuses) = (Vec::new(), Vec::new());
        for _ in 0..effort.rounds {
            let ours = milliseconds(&self.large, &submit)?;
            submits.push((ours, milliseconds(&self.small, &submit)?));
            let ours = milliseconds(&self.large, &of_large)?;
            statuses.push((ours, milliseconds(&self.small, &of_small)?));
        }
        for site in [&self.small, &self.large] {
            let cards = site.cards();
            let submitted =
                cards.numbers(Column::Queue)?.into_iter().filter(|job| *job > self.last);
            for job in submitted {
                fs::remove_file(cards.card_path(Column::Queue, job))?;
            }
        }
        for (request, rounds) in [("submit", &submits), ("status", &statuses)] {
            let what = format!("{request} with {what}, by an empty board");
            table.ratio(effort.case, what, "ms", rounds, effort.limit, "");
        }
        Ok(())
    }
}
