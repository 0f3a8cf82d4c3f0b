//! Files uploaded with a job, `state/scheduler/files/N/`, kept until the job has stopped: a retry
//! on another node needs them again.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::files;
use super::incoming::{Arrived, Incoming};
use super::root::Root;
use crate::error::{At, Error, Kind, Result};

/// A file that goes with a job, where it lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    /// Its name there and on the node.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
    /// How long it is.
    pub size: u64,
}

fn dir(root: &Root, job: u64) -> PathBuf {
    root.state("scheduler/files").join(job.to_string())
}

/// Makes files that have arrived a job's, durable, before its card is published. A crash before
/// that leaves a directory whose number no card has; clean-up removes it.
pub fn store(root: &Root, job: u64, incoming: Incoming) -> Result<()> {
    let dir = dir(root, job);
    let mut sync = incoming.become_dir(&dir)?;
    sync.dir(&dir);
    sync.dir(files::parent(&dir));
    let stored = sync.commit();
    if stored.is_err() {
        remove(root, job)?;
    }
    stored
}

/// What tells these files from others, whatever their order: a hash of their names and contents.
/// `None` where there are none.
pub fn digest(files: &[Arrived]) -> Option<String> {
    let mut sorted: Vec<&Arrived> = files.iter().collect();
    sorted.sort_unstable_by_key(|file| &file.name);
    let mut hash = Sha256::new();
    for file in &sorted {
        for part in [file.name.as_bytes(), file.hash.as_deref().unwrap_or_default()] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    (!sorted.is_empty()).then(|| base16ct::lower::encode_string(&hash.finalize()[..16]))
}

/// The digest of a job's files, which are read for it.
pub fn digest_of(root: &Root, job: u64) -> Result<Option<String>> {
    struct Hashing(Sha256);
    impl Write for Hashing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let arrived = list(root, job)?.into_iter().map(|Upload { name, path, .. }| {
        let mut hash = Hashing(Sha256::new());
        let mut file = File::open(&path).at(&path)?;
        let size = io::copy(&mut file, &mut hash).at(&path)?;
        Ok(Arrived { name, size, hash: Some(hash.0.finalize().to_vec()) })
    });
    Ok(digest(&arrived.collect::<Result<Vec<_>>>()?))
}

/// Names of a job's files.
pub fn names(root: &Root, job: u64) -> Result<Vec<String>> {
    let mut names = files::names(&dir(root, job))?;
    names.sort_unstable();
    Ok(names)
}

/// One file and its length; the name must be one that [`names`] lists. `None` where there is none.
pub fn open(root: &Root, job: u64, name: &str) -> Result<Option<(File, u64)>> {
    if !names(root, job)?.iter().any(|known| known == name) {
        return Ok(None);
    }
    let path = dir(root, job).join(name);
    let Some(file) = files::gone_is_fine(File::open(&path)).at(&path)? else { return Ok(None) };
    let size = file.metadata().at(&path)?.len();
    Ok(Some((file, size)))
}

/// All of a job's files, none of them read. An error where one cannot be.
pub fn list(root: &Root, job: u64) -> Result<Vec<Upload>> {
    let dir = dir(root, job);
    names(root, job)?
        .into_iter()
        .map(|name| {
            let path = dir.join(&name);
            let file = files::gone_is_fine(File::open(&path)).at(&path)?;
            let file =
                file.ok_or_else(|| Error::not_found(format!("{} vanished", path.display())))?;
            let meta = file.metadata().at(&path)?;
            if !meta.is_file() {
                let why = format!("{}: is no file", path.display());
                return Err(Error::new(Kind::Internal, why));
            }
            Ok(Upload { name, size: meta.len(), path })
        })
        .collect()
}

/// Files that have arrived and go on to a node from where they lie.
pub fn of_arrived(incoming: &Incoming) -> Vec<Upload> {
    let upload = |file: &Arrived| Upload {
        name: file.name.clone(),
        path: incoming.path(file),
        size: file.size,
    };
    incoming.files().iter().map(upload).collect()
}

/// Removes a job's files.
pub fn remove(root: &Root, job: u64) -> Result<()> {
    files::remove_tree(&dir(root, job))
}
