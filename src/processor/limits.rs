//! What the jobs of a slot are held to: their cores, their memory, the number of their processes.
//!
//! What is asked for and cannot be enforced on this machine is not: the job runs, and its status says what it is held
//! to. A plain job costs one system call for its cores, and nothing else.

use std::cell::OnceCell;
use std::ffi::CString;
use std::path::Path;

use nix::sched::CpuSet;

use super::cgroup::controllers::{Bound, Controller, Counts, Seat};
use super::child::Bounds;
use super::units::{self, Given, Units};
use crate::board::root::Root;
use crate::model::about::Enforcement;
use crate::model::enforced::Enforced;
use crate::model::outcome::{Cause, Outcome};
use crate::model::resources::{Resources, human_size};
use crate::settings::Settings;

/// What limits memory where no control group can.
const ADDRESS_SPACE: &str = "address space";

/// A limit that is set.
#[derive(Debug)]
struct Set {
    bound: Bound,
    most: u64,
    /// What had been counted before.
    before: Counts,
}

/// What the jobs of a slot are held to.
#[derive(Debug)]
pub(super) struct Limits {
    units: Units,
    given: Given,
    cpus: Option<CpuSet>,
    /// Looked for once they are needed.
    seats: [OnceCell<Option<Seat>>; 2],
    memory: Option<Set>,
    processes: Option<Set>,
    /// What a program enters before it starts.
    groups: Vec<CString>,
    address_space: Option<u64>,
}

impl Limits {
    pub fn new(units: Units) -> Limits {
        Limits {
            units,
            given: Given::default(),
            cpus: None,
            seats: [OnceCell::new(), OnceCell::new()],
            memory: None,
            processes: None,
            groups: Vec::new(),
            address_space: None,
        }
    }

    /// From now on there is this to be given.
    pub fn have(&mut self, units: Units) {
        self.units = units;
    }

    /// What there is to be given.
    pub fn units(&self) -> &Units {
        &self.units
    }

    /// What the slot's jobs are given.
    pub fn given(&self) -> &Given {
        &self.given
    }

    /// Gives them this from now on.
    pub fn give(&mut self, given: Given) {
        self.cpus = units::cpu_set(&given.cpus);
        self.given = given;
    }

    /// Sees to it that what is started next in this group is held to what it asks for.
    pub fn hold(&mut self, root: &Root, slot: u64, group: Option<&Path>, job: &Resources) {
        let settings = &root.settings;
        let memory = Some(job.memory).filter(|most| *most > 0);
        self.address_space = None; // that of what ran before
        let none_is_set = self.memory.is_none() && self.processes.is_none();
        if none_is_set && memory.is_none() && settings.max_processes.is_none() {
            return;
        }
        let dir = root.dir();
        let before = (self.memory.take(), self.processes.take());
        self.memory = self.set(Controller::Memory, dir, slot, group, memory, before.0);
        self.processes =
            self.set(Controller::Pids, dir, slot, group, settings.max_processes, before.1);
        let by_addresses = self.memory.is_none() && settings.limit_address_space;
        self.address_space = memory.filter(|_| by_addresses);
        let sets = [&self.memory, &self.processes].into_iter().flatten();
        self.groups = sets.filter_map(|set| set.bound.entrance()).collect();
    }

    fn seat(&self, controller: Controller) -> Option<&Seat> {
        let [memory, pids] = &self.seats;
        let cell = if controller == Controller::Memory { memory } else { pids };
        cell.get_or_init(|| Seat::find(controller)).as_ref()
    }

    fn set(
        &self,
        controller: Controller,
        root: &Path,
        slot: u64,
        group: Option<&Path>,
        most: Option<u64>,
        before: Option<Set>,
    ) -> Option<Set> {
        let Some(most) = most else {
            // The group of the next job is the same one.
            let lifted = before.map_or(Ok(()), |set| set.bound.set(None));
            if let Err(error) = lifted {
                eprintln!("processor: a limit of {} stays: {error}", controller.name());
            }
            return None;
        };
        match self.seat(controller)?.bound(root, slot, group, most) {
            Ok(bound) => Some(Set { before: bound.counts(), most, bound }),
            Err(error) => {
                eprintln!("processor: jobs have no limit of {}: {error}", controller.name());
                None
            }
        }
    }

    /// What a child is to do to itself.
    pub fn bounds(&self) -> Bounds<'_> {
        let (cpus, address_space) = (self.cpus.as_ref(), self.address_space);
        Bounds { cpus, groups: &self.groups, address_space }
    }

    /// As the status says it.
    pub fn enforced(&self) -> Option<Enforced> {
        let by = |set: &Option<Set>| set.as_ref().map(|set| set.bound.name().to_string());
        let memory = by(&self.memory).or(self.address_space.map(|_| ADDRESS_SPACE.to_string()));
        let enforced = Enforced {
            cpus: self.given.cpus.clone(),
            gpus: self.given.gpus.clone(),
            memory: memory.unwrap_or_default(),
            processes: by(&self.processes).unwrap_or_default(),
        };
        (enforced != Enforced::default()).then_some(enforced)
    }

    /// The GPUs as `CUDA_VISIBLE_DEVICES` names them; `None` on a machine that cannot have any.
    pub fn gpus(&self) -> Option<String> {
        let names: Vec<String> = self.given.gpus.iter().map(|gpu| gpu.to_string()).collect();
        self.units.hides_gpus().then(|| names.join(","))
    }

    /// How a job ends of which the kernel has killed something for want of memory, since the last program was
    /// started.
    pub fn out_of_memory(&self) -> Option<Outcome> {
        let set = self.memory.as_ref()?;
        let now = set.bound.counts();
        let why = match (now.killed > set.before.killed, now.reached > set.before.reached) {
            (false, _) => return None,
            (true, true) => format!("out of memory: reached {}", human_size(set.most)),
            (true, false) => "out of memory: the machine had none left".to_string(),
        };
        Some(Outcome::error(Cause::Signal, why))
    }

    /// The most memory that all processes together had since the last program was started, where it is counted.
    pub fn peak(&self) -> Option<u64> {
        self.memory.as_ref()?.bound.peak()
    }

    /// Lifts what is set: whoever comes next in this slot knows nothing of it.
    pub fn lift(&mut self) {
        for set in [self.memory.take(), self.processes.take()].into_iter().flatten() {
            if let Err(error) = set.bound.set(None) {
                eprintln!("processor: a limit stays: {error}");
            }
        }
    }

    /// Removes what was made for the slot.
    pub fn remove(&mut self, root: &Path, slot: u64) {
        (self.memory, self.processes) = (None, None);
        for seat in self.seats.iter().filter_map(|cell| cell.get()?.as_ref()) {
            seat.remove(root, slot);
        }
    }
}

/// What holds jobs to what they were given on this machine, of a node that gives so much.
pub(super) fn enforcement(root: &Root, total: &Resources) -> Enforcement {
    let settings: &Settings = &root.settings;
    let by = |controller| Seat::find(controller).map(|seat| seat.version().name().to_string());
    let memory = by(Controller::Memory).unwrap_or_else(|| match settings.limit_address_space {
        true => format!("{ADDRESS_SPACE} of each process"),
        false => "none: no memory controller can be used here".to_string(),
    });
    let processes = match settings.max_processes {
        None => "none: max_processes is not set".to_string(),
        // RLIMIT_NPROC counts all processes of the user, and would end others' jobs.
        Some(_) => by(Controller::Pids)
            .unwrap_or_else(|| "none: no pids controller can be used here".to_string()),
    };
    let cores = units::cores(root, total.cores).map_or_else(|why| why, |_| "affinity".to_string());
    Enforcement { cores, memory, processes }
}

/// Removes what a dead supervisor's slot had.
pub(super) fn remove_of(root: &Path, slot: u64) {
    for controller in [Controller::Memory, Controller::Pids] {
        if let Some(seat) = Seat::find(controller) {
            seat.remove(root, slot);
        }
    }
}
