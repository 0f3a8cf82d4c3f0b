//! What this node has, uses and has free.

use std::fs;
use std::thread::available_parallelism;

use super::cgroup::Place;
use crate::board::root::Root;
use crate::board::runs::Runs;
use crate::board::{files, slots};
use crate::error::Result;
use crate::model::resources::Resources;
use crate::model::run_status::RunState;
use crate::model::selector::Labels;
use crate::wire::node::{Info, Node, SCAN};

/// What is given to jobs: as set, else what the machine has.
pub fn total(root: &Root) -> Result<Resources> {
    let cores = root
        .settings
        .cores
        .unwrap_or_else(|| available_parallelism().map_or(1, |count| count.get() as u64));
    Ok(Resources::of(cores, root.settings.memory.unwrap_or_else(memory)))
}

/// What a head is told where it asks no server.
pub fn told(root: &Root) -> Result<Info> {
    Ok(Info { resources: total(root)?, labels: Labels::new() })
}

/// The machine's memory in bytes; 0 if that cannot be told.
fn memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kibibytes = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB"))
        .and_then(|number| number.trim().parse::<u64>().ok());
    kibibytes.unwrap_or(0) << 10
}

/// The node as it is now.
pub fn info(root: &Root) -> Result<Node> {
    let runs = Runs::new(root);
    let seen = slots::all(&runs)?;
    let mut running = 0;
    for id in seen.iter().filter(|slot| slot.live).flat_map(|slot| slot.jobs()) {
        // One whose story cannot be read has its room all the same.
        let ended = matches!(runs.last_line(id), Ok(Some(line)) if line.state == RunState::Stopped);
        running += usize::from(!ended);
    }
    let total = total(root)?;
    Ok(Node {
        free: total.minus(&slots::used(&seen, None)),
        resources: total,
        labels: Labels::new(),
        running,
        queued: files::names(&runs.queue_dir())?.len(),
        containment: Place::find().map_or(SCAN, |place| place.version().name()).to_string(),
    })
}
