//! Which processor cores and GPUs a slot's jobs have: no two slots of a root that are in use have the same.
//!
//! They are chosen under the board's lock, by the records of the slots that are held: a slot's are free
//! again with its lock, so a crash leaves nothing to be put right.

use std::fs;
use std::os::unix::fs::MetadataExt;

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use super::gpus::{self, Known};
use crate::board::root::Root;
use crate::board::slots::{self, Seen};
use crate::model::resources::{GPUS, Resources};
use crate::model::tasks::TaskSet;

/// Why cores are shared where they are not pinned.
const NOT_PINNED: &str = "shared: pin_cores is off";

/// What there is to be given.
#[derive(Debug)]
pub(super) struct Units {
    /// The cores, in the order in which they are given; or why all are shared.
    cores: Result<Vec<u32>, String>,
    gpus: Vec<u32>,
    /// Whether programs might find GPUs that they were not given.
    hides_gpus: bool,
}

/// What a slot's jobs are given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Given {
    /// None where cores are shared.
    pub cpus: TaskSet,
    pub gpus: TaskSet,
}

impl Units {
    /// Those of this machine that this process may use, of a node that gives so much.
    pub fn of(root: &Root, total: &Resources, gpus: &Known) -> Units {
        Units {
            cores: cores(root, total.cores),
            gpus: gpus.all().iter().map(|gpu| gpu.index).collect(),
            hides_gpus: gpus::are_possible(root, gpus),
        }
    }

    /// What a job that needs so much has beside those of the other slots. What cannot be had, as
    /// from slots that an older program holds, is shared.
    pub fn choose(&self, needed: &Resources, seen: &[Seen], own: u64) -> Given {
        let (cpus, gpus) = slots::units(seen, Some(own));
        let cores = self.cores.as_deref().unwrap_or_default();
        Given {
            cpus: first(cores, &cpus, needed.cores),
            gpus: first(&self.gpus, &gpus, needed.others.get(GPUS)),
        }
    }

    /// Whether programs are to be told which GPUs they may use, if any.
    pub fn hides_gpus(&self) -> bool {
        self.hides_gpus
    }
}

/// The first so many that are not taken; none where there are not enough.
fn first(all: &[u32], taken: &TaskSet, count: u64) -> TaskSet {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let mut free: Vec<u32> = all.iter().copied().filter(|unit| !taken.contains(*unit)).collect();
    if count == 0 || free.len() < count {
        return TaskSet::default();
    }
    free.truncate(count);
    free.sort_unstable();
    let mut set = TaskSet::default();
    free.into_iter().for_each(|unit| set.add(&TaskSet::one(unit)));
    set
}

/// The cores that jobs are given, each one's its own; or why they share all. Roots on one machine know
/// nothing of each other, so each begins at another core.
pub(super) fn cores(root: &Root, number: u64) -> Result<Vec<u32>, String> {
    if !root.settings.pin_cores {
        return Err(NOT_PINNED.into());
    }
    let set = sched_getaffinity(Pid::from_raw(0))
        .map_err(|errno| format!("shared: this process's cores are not known: {}", errno.desc()))?;
    let mut usable: Vec<u32> = (0..CpuSet::count())
        .filter(|cpu| set.is_set(*cpu) == Ok(true))
        .map(|cpu| cpu as u32)
        .collect();
    if number > usable.len() as u64 {
        let usable = usable.len();
        return Err(format!("shared: it gives {number} cores, and may use {usable}"));
    }
    let begin = fs::metadata(root.dir()).map_or(0, |meta| meta.ino());
    let begin = usize::try_from(begin).unwrap_or(0) % usable.len().max(1);
    usable.rotate_left(begin);
    Ok(usable)
}

/// The same cores as the kernel is told them; `None` for none.
pub(super) fn cpu_set(cpus: &TaskSet) -> Option<CpuSet> {
    let mut set = CpuSet::new();
    cpus.iter().try_for_each(|cpu| set.set(cpu as usize)).ok()?;
    (!cpus.is_empty()).then_some(set)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_are_free_or_none() {
        let set = |text: &str| text.parse::<TaskSet>().unwrap();
        let all = [2, 3, 0, 1];
        assert_eq!(first(&all, &TaskSet::default(), 2), set("2-3"));
        assert_eq!(first(&all, &set("3"), 2), set("0,2"));
        assert_eq!(first(&all, &set("0-2"), 2), TaskSet::default());
        assert_eq!(first(&all, &set("9"), 4), set("0-3"));
        assert_eq!(first(&all, &TaskSet::default(), 0), TaskSet::default());
        assert_eq!(first(&[], &TaskSet::default(), u64::MAX), TaskSet::default());
    }
}
