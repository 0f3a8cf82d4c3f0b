//! Controllers: what a control group can hold the processes in it to. Used only where the hierarchy permits,
//! and made only once a job needs it.
//!
//! In the hierarchy of version 2 that is the slot's own group. Its controllers have to be enabled in the
//! groups above, which the kernel permits where no process is in them (but the root), or whoever delegated them
//! has done. Those of version 1 each have a hierarchy of their own: there a group of the same name is made,
//! which the job's program enters before it starts. That takes the kernel milliseconds, and only jobs that
//! ask for a limit pay them.

use std::ffi::CString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, eaccess};

use super::hierarchy::{Version, hierarchies, is_gone, may_write, name_of};

/// How often what another supervisor of the root has just removed is made anew: whoever removes the group of
/// its slot removes that of the root, too, if it is empty.
const TRIES: u32 = 100;

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controller {
    /// Of memory.
    Memory,
    /// Of the number of processes and threads.
    Pids,
}

impl Controller {
    /// As the kernel calls it.
    pub fn name(self) -> &'static str {
        match self {
            Controller::Memory => "memory",
            Controller::Pids => "pids",
        }
    }
}

fn lists(file: &Path, name: &str) -> bool {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.split_whitespace().any(|listed| listed == name)
}

/// Where the groups of this process's jobs can be held to something.
#[derive(Debug)]
pub struct Seat {
    base: PathBuf,
    version: Version,
    controller: Controller,
}

impl Seat {
    /// That of a controller; `None` where it cannot be used.
    pub fn find(controller: Controller) -> Option<Seat> {
        let name = controller.name();
        let one = |names: Option<&str>| {
            names.is_some_and(|names| names.split(',').any(|other| other == name))
        };
        if let Some(found) = hierarchies("self", one).first() {
            let base = found.base();
            return may_write(&base).then_some(Seat { base, version: Version::One, controller });
        }
        let base = hierarchies("self", |names| names.is_none()).first()?.base();
        let subtree = base.join("cgroup.subtree_control");
        let is_root = !base.join("cgroup.type").exists();
        let may_be_enabled =
            is_root && lists(&base.join("cgroup.controllers"), name) && writable(&subtree);
        let usable = may_write(&base) && (lists(&subtree, name) || may_be_enabled);
        usable.then_some(Seat { base, version: Version::Two, controller })
    }

    /// Which kind of hierarchy it is in.
    pub fn version(&self) -> Version {
        self.version
    }

    /// What holds a slot's jobs to so much: made, and entered by nobody. `group`: the one that they are born in,
    /// if there is one.
    pub fn bound(
        &self,
        root: &Path,
        slot: u64,
        group: Option<&Path>,
        most: u64,
    ) -> io::Result<Bound> {
        let mut tries = 0..TRIES;
        loop {
            let made = self.made(root, slot, group);
            let set = made.and_then(|bound| bound.set(Some(most)).map(|()| bound));
            match set {
                Err(error) if is_gone(&error) && tries.next().is_some() => {}
                set => return set,
            }
        }
    }

    fn made(&self, root: &Path, slot: u64, group: Option<&Path>) -> io::Result<Bound> {
        let (version, controller) = (self.version, self.controller);
        if version == Version::One {
            let dir = self.base.join(name_of(root)).join(slot.to_string());
            DirBuilder::new().recursive(true).mode(0o755).create(&dir)?;
            return Ok(Bound { dir, version, controller });
        }
        let group = group.filter(|group| group.starts_with(&self.base));
        let missing = || io::Error::new(io::ErrorKind::NotFound, "its jobs have no group");
        let dir = group.ok_or_else(missing)?.to_path_buf();
        for above in [Some(self.base.as_path()), dir.parent()].into_iter().flatten() {
            let subtree = above.join("cgroup.subtree_control");
            if !lists(&subtree, controller.name()) {
                fs::write(&subtree, format!("+{}", controller.name()))?;
            }
        }
        Ok(Bound { dir, version, controller })
    }

    /// Removes what was made for a slot beside the group of its jobs. What is not empty stays.
    pub fn remove(&self, root: &Path, slot: u64) {
        if self.version == Version::One {
            let above = self.base.join(name_of(root));
            let _ = fs::remove_dir(above.join(slot.to_string())); // it may not be there
            let _ = fs::remove_dir(above);
        }
    }

    /// Removes all that was made for a root.
    pub(super) fn remove_all(&self, root: &Path) {
        let above = self.base.join(name_of(root));
        let slots = fs::read_dir(&above).into_iter().flatten().flatten();
        for slot in slots.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
            self.remove(root, slot);
        }
    }
}

fn writable(path: &Path) -> bool {
    eaccess(path, AccessFlags::W_OK).is_ok()
}

/// What the kernel has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Processes that were killed for want of memory, whoever had too little.
    pub killed: u64,
    /// How often the group's own limit was met.
    pub reached: u64,
}

/// What holds a slot's jobs to something.
#[derive(Debug)]
pub struct Bound {
    dir: PathBuf,
    version: Version,
    controller: Controller,
}

impl Bound {
    /// Sets the limit, or takes it away.
    pub fn set(&self, most: Option<u64>) -> io::Result<()> {
        let write = |file: &str, text: &str| fs::write(self.dir.join(file), text);
        let number = |none: &str| most.map_or(none.to_string(), |most| most.to_string());
        match (self.controller, self.version) {
            (Controller::Pids, _) => write("pids.max", &number("max")),
            (Controller::Memory, Version::Two) => {
                // All of the job ends, not the part that happened to be the largest; and what has no room
                // in memory is not to go to the disk. Kernels without these do without.
                let _ = write("memory.oom.group", "1");
                let _ = write("memory.swap.max", if most.is_some() { "0" } else { "max" });
                write("memory.max", &number("max"))
            }
            (Controller::Memory, Version::One) => {
                // That with the disk's is never less than that without. It may not be counted.
                let _ = write("memory.memsw.limit_in_bytes", "-1");
                write("memory.limit_in_bytes", &number("-1"))?;
                let _ = write("memory.memsw.limit_in_bytes", &number("-1"));
                let _ = write("memory.max_usage_in_bytes", "0");
                Ok(())
            }
        }
    }

    /// The file by which a process enters it; `None` where it is born there.
    pub fn entrance(&self) -> Option<CString> {
        let file = self.dir.join("cgroup.procs");
        let is_apart = self.version == Version::One;
        is_apart.then(|| CString::new(file.as_os_str().as_bytes()).ok()).flatten()
    }

    /// What was counted until now; nothing where that cannot be read.
    pub fn counts(&self) -> Counts {
        let read = |file: &str| fs::read_to_string(self.dir.join(file)).unwrap_or_default();
        let of = |text: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
        };
        let number = |file: &str| read(file).trim().parse::<u64>().unwrap_or(0);
        match self.version {
            Version::Two => {
                let events = read("memory.events");
                Counts { killed: of(&events, "oom_kill"), reached: of(&events, "oom") }
            }
            Version::One => {
                // Some kernels count no failures there: then the highest use tells, which was made 0 when
                // the limit was set. The second limit is met first where it is counted: it is as low.
                let failures = number("memory.failcnt") + number("memory.memsw.failcnt");
                let most = number("memory.limit_in_bytes");
                let is_met = number("memory.max_usage_in_bytes") >= most;
                let killed = of(&read("memory.oom_control"), "oom_kill");
                Counts { killed, reached: failures + u64::from(is_met) }
            }
        }
    }

    /// The most memory that was in use since the limit was set; `None` where that is not told.
    pub fn peak(&self) -> Option<u64> {
        let one = self.version == Version::One && self.controller == Controller::Memory;
        let file = self.dir.join("memory.max_usage_in_bytes");
        one.then(|| fs::read_to_string(file).ok()?.trim().parse().ok()).flatten()
    }

    /// What it is, in `info` and in statuses.
    pub fn name(&self) -> &'static str {
        self.version.name()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn two_slots_that_come_and_go_do_not_disturb_each_other() {
        let Some(seat) = Seat::find(Controller::Memory).filter(|seat| seat.version == Version::One)
        else {
            println!("NOT TESTED: this machine has no memory controller of version 1 to be used");
            return;
        };
        // By this directory the groups are named, and by no root's.
        let root = std::env::temp_dir().join(format!("corkboard-slots-{}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        thread::scope(|scope| {
            for slot in [1, 2] {
                let (seat, root) = (&seat, &root);
                scope.spawn(move || {
                    for round in 0..2000 {
                        let bound = seat.bound(root, slot, None, 1 << 30);
                        assert!(bound.is_ok(), "slot {slot}, round {round}: {bound:?}");
                        seat.remove(root, slot);
                    }
                });
            }
        });
        assert!(!seat.base.join(name_of(&root)).exists());
        fs::remove_dir(&root).unwrap();
    }
}
