//! What this node has, uses and has free, and what else it tells of itself.

use std::thread::available_parallelism;

use super::cgroup::Place;
use super::gpus::{self, Known};
use super::{labels, limits, live};
use crate::board::root::{Root, boot_id};
use crate::board::runs::Runs;
use crate::board::{files, slots};
use crate::error::Result;
use crate::model::about::{About, Gpu};
use crate::model::resources::{GPUS, Resources};
use crate::model::run_status::RunState;
use crate::wire::node::{Info, Node, SCAN};

/// What is given to jobs in all: as set, else what the machine has.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Total {
    /// As far as it is known.
    pub resources: Resources,
    /// Why it is not known which GPUs there are, if it is not.
    pub unsure: Option<String>,
}

impl Total {
    /// With these GPUs.
    pub fn with(root: &Root, gpus: &Known) -> Total {
        let unsure = match gpus {
            Known::These(_) => None,
            Known::NotYet(why) => Some(why.clone()),
        };
        Total { resources: total_with(root, gpus.all()), unsure }
    }

    /// By what is known already.
    pub fn known(root: &Root) -> Total {
        Total::with(root, &gpus::known(root))
    }
}

fn total_with(root: &Root, gpus: &[Gpu]) -> Resources {
    let settings = &root.settings;
    let cores = settings
        .cores
        .unwrap_or_else(|| available_parallelism().map_or(1, |count| count.get() as u64));
    let memory = settings.memory.unwrap_or_else(|| live::meminfo("MemTotal:"));
    let total = Resources::of(cores, memory).and(GPUS, gpus.len() as u64);
    settings.countables.iter().fold(total, |total, (name, amount)| total.and(name, *amount))
}

/// What a head is told where it asks no server.
pub fn told(root: &Root) -> Result<Info> {
    let gpus = gpus::told(root).all().to_vec();
    Ok(Info {
        resources: total_with(root, &gpus),
        labels: labels::of(root, &gpus),
        live: Some(live::now(&Runs::new(root))),
        about: about(root, gpus)?,
    })
}

fn about(root: &Root, gpus: Vec<Gpu>) -> Result<About> {
    Ok(About {
        version: env!("CARGO_PKG_VERSION").to_string(),
        boot: boot_id()?,
        containment: Place::find().map_or(SCAN, |place| place.version().name()).to_string(),
        enforcement: Some(limits::enforcement(root, &total_with(root, &gpus))),
        gpus,
    })
}

/// The node as it is now.
pub fn info(root: &Root) -> Result<Node> {
    let runs = Runs::new(root);
    let gpus = gpus::told(root).all().to_vec();
    let seen = slots::all(&runs)?;
    let mut running = 0;
    for id in seen.iter().filter(|slot| slot.live).flat_map(|slot| slot.jobs()) {
        // One whose story cannot be read has its room all the same.
        let ended = matches!(runs.last_line(id), Ok(Some(line)) if line.state == RunState::Stopped);
        running += usize::from(!ended);
    }
    let total = total_with(root, &gpus);
    Ok(Node {
        free: total.minus(&slots::used(&seen, None)),
        resources: total,
        running,
        queued: files::names(&runs.queue_dir())?.len(),
        labels: labels::of(root, &gpus),
        live: live::now(&runs),
        about: about(root, gpus)?,
    })
}
