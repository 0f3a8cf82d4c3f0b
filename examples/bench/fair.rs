//! Two users of whom one has far more jobs than the other: how much of the cores each has until the one with
//! fewer has none waiting.

use std::fs;
use std::time::{Duration, Instant, SystemTime};

use corkboard::clock;
use corkboard::model::card::Column;
use corkboard::model::ids::NodejobId;
use serde_json::Value;

use crate::http;
use crate::site::{Site, settle};
use crate::table::{Limit, Table};
use crate::{Bench, Result};

/// What the node gives: more than this machine has, for jobs that sleep.
const CORES: u64 = 24;

const PATIENCE: Duration = Duration::from_secs(300);

pub fn measure(bench: &Bench, table: &mut Table) -> Result<()> {
    let (many, few) = (bench.size(100_000, 2000) as u64, bench.size(1000, 100) as u64);
    let what = |cores: u64| if cores == 1 { String::new() } else { format!(" of {cores} cores") };
    for cores in [[1, 1], [1, 2], [4, 1]] {
        let counts = [many, few];
        let all: Result<Vec<_>> =
            (0..bench.rounds.min(3)).map(|_| once(bench, counts, cores)).collect();
        let all = all?;
        let off: Vec<f64> = all.iter().map(|(share, _)| (share - 50.0).abs()).collect();
        let shares: Vec<String> = all.iter().map(|(share, _)| format!("{share:.1}")).collect();
        let busy: Vec<f64> = all.iter().map(|(_, busy)| *busy).collect();
        let note = format!(
            "his share: {} %; {:.0} % of {CORES} cores were in use",
            shares.join(", "),
            crate::table::median(&busy)
        );
        let (hers, his) = (what(cores[0]), what(cores[1]));
        let what = format!("ann has {many} jobs{hers}, ben {few}{his}");
        let limit = Some(Limit::AtMost(3.0, 1.0));
        table.figure("fair", what, "% off a half", &off, limit, note);
    }
    Ok(())
}

/// The share of the cores in use that the user with fewer jobs had, and of all how many were in use, in percent.
fn once(bench: &Bench, counts: [u64; 2], cores: [u64; 2]) -> Result<(f64, f64)> {
    let site = Site::new(bench, bench.memory.join("fair"))?;
    fs::write(site.dir.join("corkboard.conf"), format!("cores = {CORES}\n"))?;
    let mut next = 1;
    for (place, user) in ["ann", "ben"].into_iter().enumerate() {
        let (count, cores) = (counts[place], cores[place]);
        let token = site.ask(&["tokens", "new", "-q", "role=user", &format!("user={user}")])?;
        let job = format!(
            r#"{{"command":["sleep","0.25"],"dir":"/","requested_resources":{{"cores":{cores}}}}}"#
        );
        let request = http::bearing(&token, http::post("scheduler/jobs/new", &job));
        let first = http::json(site.address, &request)?["job"].as_u64().ok_or("no job number")?;
        if first != next {
            return Err(format!("the job is {first}, not {next}").into());
        }
        let model = site.card_text(Column::Queue, first)?;
        site.fill(Column::Queue, &model, first + 1, count - 1)?;
        next = first + count;
        site.count_from(next)?;
    }
    settle(&site.dir)?;
    let poller = site.poller()?;
    let deadline = Instant::now() + PATIENCE;
    let last = site.cards().card_path(Column::Queue, next - 1);
    while last.exists() {
        if Instant::now() > deadline {
            return Err(format!("ben's jobs still wait after {PATIENCE:?}").into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let until = SystemTime::now();
    std::thread::sleep(Duration::from_secs(2)); // what runs ends, and is told
    drop(poller);
    shares(&site, until, counts[0], cores)
}

fn shares(site: &Site, until: SystemTime, hers: u64, cores: [u64; 2]) -> Result<(f64, f64)> {
    let (mut had, mut begun) = ([0.0, 0.0], until);
    for entry in fs::read_dir(site.dir.join("state/processor/job"))? {
        let entry = entry?;
        let id = entry.file_name().to_string_lossy().into_owned();
        let job = NodejobId::parse(&id).ok_or("a job of nobody's")?.job;
        let story = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let lines = story.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let times: Vec<SystemTime> =
            lines.filter_map(|line| clock::parse_rfc3339(line["at"].as_str()?)).collect();
        let Some(from) = times.first().copied() else { continue };
        let ended = if times.len() > 1 { times[times.len() - 1].min(until) } else { until };
        let seconds = ended.duration_since(from).unwrap_or_default().as_secs_f64();
        let whose = usize::from(job > hers);
        had[whose] += seconds * cores[whose] as f64;
        begun = begun.min(from);
    }
    let all = had[0] + had[1];
    let time = until.duration_since(begun)?.as_secs_f64();
    Ok((had[1] / all * 100.0, all / (time * CORES as f64) * 100.0))
}
