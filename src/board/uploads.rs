//! Files uploaded with a job, `state/scheduler/files/N/`, kept until the job has stopped: a retry
//! on another node needs them again.

use std::fs;
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use super::files::{self, SyncSet};
use super::root::Root;
use crate::cgi::body::Upload;
use crate::error::{At, Error, Result};

fn dir(root: &Root, job: u64) -> PathBuf {
    root.state("scheduler/files").join(job.to_string())
}

/// Stores files, durable, before the job's card is published. A crash before that leaves a
/// directory whose number no card has; clean-up removes it.
pub fn store(root: &Root, job: u64, uploads: &[Upload]) -> Result<()> {
    if uploads.is_empty() {
        return Ok(());
    }
    let dir = dir(root, job);
    let stored = store_in(&dir, uploads);
    if stored.is_err() {
        remove(root, job)?;
    }
    stored
}

fn store_in(dir: &PathBuf, uploads: &[Upload]) -> Result<()> {
    fs::create_dir(dir).at(dir)?;
    let mut sync = SyncSet::new();
    for upload in uploads {
        let path = dir.join(&upload.name);
        sync.file(files::create(&path, &upload.content)?, path);
    }
    sync.dir(dir);
    sync.dir(files::parent(dir));
    sync.commit()
}

/// What tells these files from others, whatever their order: a hash of their names and contents.
/// `None` where there are none.
pub fn digest(uploads: &[Upload]) -> Option<String> {
    let mut sorted: Vec<&Upload> = uploads.iter().collect();
    sorted.sort_unstable_by_key(|upload| &upload.name);
    let mut hash = Sha256::new();
    for upload in &sorted {
        for part in [upload.name.as_bytes(), &upload.content] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    (!sorted.is_empty()).then(|| files::hex(&hash.finalize()[..16]))
}

/// Names of a job's files.
pub fn names(root: &Root, job: u64) -> Result<Vec<String>> {
    let mut names = files::names(&dir(root, job))?;
    names.sort_unstable();
    Ok(names)
}

/// One file; the name must be one that [`names`] lists. `None` where there is none.
pub fn read(root: &Root, job: u64, name: &str) -> Result<Option<Vec<u8>>> {
    if !names(root, job)?.iter().any(|known| known == name) {
        return Ok(None);
    }
    files::read(&dir(root, job).join(name))
}

/// All of a job's files.
pub fn read_all(root: &Root, job: u64) -> Result<Vec<Upload>> {
    let dir = dir(root, job);
    names(root, job)?
        .into_iter()
        .map(|name| {
            let path = dir.join(&name);
            let content = files::read(&path)?
                .ok_or_else(|| Error::not_found(format!("{} vanished", path.display())))?;
            Ok(Upload { name, content })
        })
        .collect()
}

/// Removes a job's files.
pub fn remove(root: &Root, job: u64) -> Result<()> {
    files::remove_tree(&dir(root, job))
}
