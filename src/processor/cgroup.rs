//! Control groups, as far as they hold processes together: what is in a group is found there
//! whatever it does, and all of it can be killed at once.
//!
//! Each slot has a group, `corkboard-HASH/SLOT`, where HASH stands for the root's directory: below
//! the group that its supervisor was started in, so that what an administrator or a container has
//! set for that holds for the jobs as well. It is made by the slot's first job, serves one job after
//! another, and is removed when the supervisor lets its slot go. The slot's record names it, by
//! which whoever recovers a crash finds it.
//!
//! In a hierarchy of version 2 a child is born in its group. One of version 1 (the freezer's) has
//! no such thing, and moving a process costs milliseconds: there the supervisor is in the group
//! itself, and its children are born where it is. Where neither can be written to there are no
//! groups, and processes are looked for in `/proc`: see `tree`.

use std::cell::Cell;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use self::controllers::{Controller, Seat};
pub use self::hierarchy::Version;
use self::hierarchy::{PREFIX, hierarchies, is_gone, may_write, name_of};
use super::tree;
use crate::board::slots::LONGEST_GROUP;

pub mod controllers;
mod hierarchy;

/// Between two looks at a group that is to become empty. Nothing tells when it is.
const PAUSE: Duration = Duration::from_millis(1);

/// Where this process may make groups.
#[derive(Debug, Clone)]
pub struct Place {
    dir: PathBuf,
    version: Version,
}

impl Place {
    /// The place of this process; `None` where no hierarchy can be written to.
    pub fn find() -> Option<Place> {
        let find = |version: Version| {
            let is_it = |controllers: Option<&str>| match version {
                Version::Two => controllers.is_none(),
                Version::One => {
                    controllers.is_some_and(|names| names.split(',').any(|name| name == "freezer"))
                }
            };
            let dir = hierarchies("self", is_it).first()?.base();
            may_write(&dir).then_some(Place { dir, version })
        };
        find(Version::Two).or_else(|| find(Version::One))
    }

    /// Which kind it is.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The group of a slot, which need not be there; `None` where its name is too long.
    pub fn group(&self, root: &Path, slot: u64) -> Option<Group> {
        let dir = self.dir.join(name_of(root)).join(slot.to_string());
        let fits = dir.to_str().is_some_and(|path| path.len() <= LONGEST_GROUP);
        fits.then_some(Group { dir, version: self.version, open: None, spent: Cell::new(false) })
    }
}

/// Takes this process out of the group of a job that it was started from, in every hierarchy, to
/// where the groups of that job's root are: it is not to end with that job.
pub fn leave_job() -> io::Result<()> {
    let memberships = tree::text("/proc/self/cgroup")?;
    if !memberships.contains(PREFIX) {
        return Ok(());
    }
    for hierarchy in hierarchies("self", |_| true).iter().filter(|found| found.is_in_job()) {
        fs::write(hierarchy.base().join("cgroup.procs"), "0")?;
    }
    Ok(())
}

/// Takes this process to the groups of another one, in every hierarchy in which they are not the same,
/// or if those are a job's, to where that job's root has its groups.
pub fn join(other: i32) -> io::Result<()> {
    let of = |pid: &str| tree::text(&format!("/proc/{pid}/cgroup"));
    if of("self")? == of(&other.to_string())? {
        return Ok(());
    }
    let (its, own) = (hierarchies(&other.to_string(), |_| true), hierarchies("self", |_| true));
    for (hierarchy, now) in its.iter().zip(&own) {
        if hierarchy.base() != now.base() {
            fs::write(hierarchy.base().join("cgroup.procs"), "0")?;
        }
    }
    Ok(())
}

/// The group of a slot.
#[derive(Debug)]
pub struct Group {
    dir: PathBuf,
    version: Version,
    /// Once it is ready to be used.
    open: Option<OwnedFd>,
    /// Whether all of it has been killed at once. Kernels since 6.14 go on killing what is born
    /// into it from outside (`kill_seq` in the kernel's cgroup.c): it has to be made anew.
    spent: Cell<bool>,
}

impl Group {
    /// The group that a slot's record names; `None` for a path that is no group of this root's slot,
    /// and where its hierarchy cannot be seen.
    pub fn recorded(root: &Path, slot: u64, path: &str) -> Option<Group> {
        let dir = PathBuf::from(path);
        let parent = dir.parent()?;
        let is_ours = dir.file_name()?.to_str()? == slot.to_string()
            && parent.file_name()?.to_str()? == name_of(root);
        // What is mounted there, and whether it is, shows by the group above both.
        let base = parent.parent().filter(|base| base.join("cgroup.procs").exists())?;
        let two = base.join("cgroup.controllers").exists();
        let version = if two { Version::Two } else { Version::One };
        is_ours.then_some(Group { dir, version, open: None, spent: Cell::new(false) })
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Ends what may be in it, makes it anew, and of version 1 enters it.
    pub fn prepare(&mut self, patience: Duration) -> io::Result<()> {
        self.open = None;
        if self.version == Version::One && self.has_this_process() {
            leave_job()?;
        }
        if !self.end(patience) {
            return Err(io::Error::new(ErrorKind::ResourceBusy, "what is in it does not end"));
        }
        self.remove_dirs(); // whoever was here before may have killed all of it
        let mut made = Ok(());
        for _ in 0..10 {
            made = DirBuilder::new().recursive(true).mode(0o755).create(&self.dir);
            if !made.as_ref().is_err_and(|e| e.kind() == ErrorKind::NotFound) {
                break; // else another supervisor has removed the one above meanwhile
            }
        }
        made?;
        self.spent.set(false);
        if self.version == Version::One {
            fs::write(self.dir.join("cgroup.procs"), "0")?;
        }
        self.open = Some(File::open(&self.dir)?.into());
        Ok(())
    }

    /// It may be gone: it is prepared again before it is used.
    pub fn close(&mut self) {
        self.open = None;
    }

    /// Whether it may be used.
    pub fn is_ready(&self) -> bool {
        self.open.is_some() && !self.spent.get()
    }

    /// Whether it holds what its supervisor starts, and not the supervisor.
    pub fn holds_children(&self) -> bool {
        self.version == Version::Two
    }

    /// What a child is to be born into; `None` where it is born in the group of its parent.
    pub fn birthplace(&self) -> Option<BorrowedFd<'_>> {
        self.open.as_ref().filter(|_| self.version == Version::Two).map(OwnedFd::as_fd)
    }

    /// Whether no process is in it, nor in a group that a job has made below. True for one that is
    /// not there, false where that cannot be read.
    pub fn is_empty(&self) -> bool {
        match self.version {
            Version::Two => match fs::read_to_string(self.dir.join("cgroup.events")) {
                Ok(text) => text.lines().any(|line| line == "populated 0"),
                Err(e) => is_gone(&e),
            },
            // Threads, whose process may have ended but for them.
            Version::One => self.ids("tasks").is_ok_and(|ids| ids.is_empty()),
        }
    }

    /// The processes in it, and in groups that a job has made below.
    pub fn members(&self) -> Vec<i32> {
        self.ids("cgroup.procs").unwrap_or_default()
    }

    fn has_this_process(&self) -> bool {
        self.members().contains(&(std::process::id() as i32))
    }

    fn ids(&self, file: &str) -> io::Result<Vec<i32>> {
        let mut found = Vec::new();
        for dir in self.all_dirs()? {
            let text = unless_gone(fs::read_to_string(dir.join(file)))?.unwrap_or_default();
            found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        }
        Ok(found)
    }

    /// It and those below, each before those that are in it.
    fn all_dirs(&self) -> io::Result<Vec<PathBuf>> {
        let mut dirs = vec![self.dir.clone()];
        let mut at = 0;
        while let Some(dir) = dirs.get(at) {
            let mut below = Vec::new();
            for entry in unless_gone(fs::read_dir(dir))?.into_iter().flatten() {
                let entry = entry?;
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    below.push(entry.path());
                }
            }
            dirs.extend(below);
            at += 1;
        }
        Ok(dirs)
    }

    /// Kills all that is in it, without waiting. Nothing escapes by being born meanwhile. Not for
    /// the one that this process is in.
    pub fn kill(&self) {
        if self.version == Version::Two && fs::write(self.dir.join("cgroup.kill"), "1").is_ok() {
            self.spent.set(true);
            // The kernel passes over a process whose first thread has exited.
            return self.signal_members();
        }
        // A kernel without that file. What is frozen makes no children; of version 1 it ends once
        // it is thawed.
        let (file, freeze, thaw) = match self.version {
            Version::Two => ("cgroup.freeze", "1", "0"),
            Version::One => ("freezer.state", "FROZEN", "THAWED"),
        };
        let _ = fs::write(self.dir.join(file), freeze); // killed in any case, if not at once
        self.signal_members();
        let _ = fs::write(self.dir.join(file), thaw);
    }

    fn signal_members(&self) {
        for process in self.members().into_iter().filter_map(tree::look) {
            tree::signal(&process, Signal::SIGKILL);
        }
    }

    /// Kills all that is in it, and waits until it is empty; `false` if that is not so in time.
    pub fn end(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while !self.is_empty() {
            if Instant::now() >= deadline {
                return false;
            }
            self.kill();
            std::thread::sleep(PAUSE);
        }
        true
    }

    fn remove_dirs(&self) {
        for dir in self.all_dirs().unwrap_or_default().iter().rev() {
            let _ = fs::remove_dir(dir); // not there, or not empty
        }
    }

    /// Removes it, if nothing is in it, and the one above if that was the last. What cannot be
    /// removed is used again, or found by a later recovery.
    pub fn remove(&mut self) {
        self.open = None;
        if self.version == Version::One && self.has_this_process() {
            let _ = leave_job(); // else it stays, and so does the group
        }
        self.remove_dirs();
        if let Some(above) = self.dir.parent() {
            let _ = fs::remove_dir(above);
        }
    }
}

/// `None` for a group that is not there, or not any more.
fn unless_gone<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes the groups that are left of a root, once none of its programs runs: of one that is being
/// removed itself.
pub fn remove_all(root: &Path) {
    for controller in [Controller::Memory, Controller::Pids] {
        if let Some(seat) = Seat::find(controller) {
            seat.remove_all(root);
        }
    }
    let Some(place) = Place::find() else { return };
    let above = place.dir.join(name_of(root));
    let slots = fs::read_dir(&above).into_iter().flatten().flatten();
    for slot in slots.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        if let Some(mut group) = place.group(root, slot) {
            group.remove();
        }
    }
    let _ = fs::remove_dir(&above);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_groups_of_the_slot_are_taken_from_its_record() {
        let base = std::env::temp_dir().join(format!("corkboard-base-{}", std::process::id()));
        let root = base.as_path();
        fs::create_dir(&base).unwrap();
        let path = |slot: u64| format!("{}/{}/{slot}", base.display(), name_of(root));
        assert!(Group::recorded(root, 3, &path(3)).is_none(), "no hierarchy is mounted there");
        fs::write(base.join("cgroup.procs"), "").unwrap();
        assert!(Group::recorded(root, 3, &path(3)).is_some_and(|group| !group.dir.exists()));
        assert!(Group::recorded(root, 4, &path(3)).is_none());
        assert!(Group::recorded(Path::new("/"), 3, &path(3)).is_none());
        assert!(Group::recorded(root, 3, &format!("{}/x/3", base.display())).is_none());
        fs::remove_dir_all(&base).unwrap();
    }
}
