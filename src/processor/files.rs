//! The files in a job's `work/`: what was uploaded, and what the job left there.

use std::fs::{self, File};
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{self, OFlag, openat};
use nix::sys::stat::Mode;

use crate::board::files;
use crate::board::root::Root;
use crate::board::runs::Runs;
use crate::error::{At, Error, Result};
use crate::model::ids::RunId;

/// Names of the plain files in a job's `work/`.
pub fn names(root: &Root, id: &RunId) -> Result<Vec<String>> {
    let runs = Runs::new(root);
    runs.request(id)?;
    let dir = runs.work_dir(id);
    // The job may have put anything there, and nothing of it is followed.
    let is_dir = files::gone_is_fine(fs::symlink_metadata(&dir)).at(&dir)?;
    if !is_dir.is_some_and(|meta| meta.is_dir()) {
        return Ok(Vec::new());
    }
    let mut found: Vec<String> = files::names(&dir)?
        .into_iter()
        .filter(|name| fs::symlink_metadata(dir.join(name)).is_ok_and(|meta| meta.is_file()))
        .collect();
    found.sort();
    Ok(found)
}

/// A plain file in a job's `work/`, and its length. The job may have put anything there, so no link
/// is followed and nothing but a plain file is opened.
pub fn open(root: &Root, id: &RunId, name: &str) -> Result<(File, u64)> {
    let runs = Runs::new(root);
    runs.request(id)?;
    let missing = || Error::not_found(format!("no such file in the work directory of {id}"));
    if name.is_empty() || name.contains('/') || name == "." || name == ".." {
        return Err(missing());
    }
    let work = runs.work_dir(id);
    let flags = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let dir: OwnedFd = match fcntl::open(&work, flags | OFlag::O_DIRECTORY, Mode::empty()) {
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Err(missing()),
        other => other.at(&work)?,
    };
    // O_NONBLOCK: opening a FIFO must not wait for its writer.
    let file: File = match openat(&dir, name, flags | OFlag::O_NONBLOCK, Mode::empty()) {
        Err(Errno::ENOENT | Errno::ELOOP | Errno::ENXIO) => return Err(missing()),
        other => other.at(&work)?.into(),
    };
    let meta = file.metadata().at(&work)?;
    if !meta.is_file() {
        return Err(missing());
    }
    Ok((file, meta.len()))
}
