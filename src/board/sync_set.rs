//! What must be durable before anyone is told of it, in one go.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::files::{sync, sync_dir, unknown};
use crate::error::{At, Result};

/// Files above this number are synced by one `syncfs`. Measured on ext4: a file costs 0.25 to
/// 0.5 ms, the whole file system 0.3 to 1 ms, but that waits for what others wrote, too.
const SYNC_EACH_UP_TO: usize = 4;

/// Stack of a thread that syncs a directory.
const SYNC_STACK: usize = 64 << 10;

/// What must be durable before anyone is told of it. Collected over a round, then made durable
/// by [`SyncSet::commit`] in one go.
#[derive(Debug, Default)]
#[must_use = "nothing is durable before commit"]
pub struct SyncSet {
    /// The first few; more are not kept open, since one `syncfs` does for all.
    files: Vec<(File, PathBuf)>,
    dirs: Vec<PathBuf>,
    /// How many files are not kept.
    others: usize,
}

impl SyncSet {
    /// Nothing yet.
    pub fn new() -> SyncSet {
        SyncSet::default()
    }

    /// This file's content.
    pub fn file(&mut self, file: File, path: PathBuf) {
        if self.files.len() <= SYNC_EACH_UP_TO {
            self.files.push((file, path));
        } else {
            self.others += 1;
        }
    }

    /// This directory's entries.
    pub fn dir(&mut self, path: &Path) {
        if !self.dirs.iter().any(|dir| dir == path) {
            self.dirs.push(path.to_path_buf());
        }
    }

    /// Everything that another one has.
    pub fn merge(&mut self, other: SyncSet) {
        for (file, path) in other.files {
            self.file(file, path);
        }
        self.others += other.others;
        for dir in other.dirs {
            self.dir(&dir);
        }
    }

    /// How many files and directories are to be synced.
    pub fn len(&self) -> usize {
        self.files.len() + self.dirs.len() + self.others
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes all of it durable. After an error the outcome is unknown (the lines are written,
    /// and may or may not survive a power loss): 500, and the caller says to repeat.
    pub fn commit(self) -> Result<()> {
        if self.len() > SYNC_EACH_UP_TO {
            let (dir, path) = match (self.files.into_iter().next(), self.dirs.into_iter().next()) {
                (Some((file, path)), _) => (file, path),
                (None, Some(dir)) => (File::open(&dir).at(&dir).map_err(unknown)?, dir),
                (None, None) => return Ok(()),
            };
            return nix::unistd::syncfs(&dir).at(&path).map_err(unknown);
        }
        for (file, path) in &self.files {
            sync(file, path).map_err(unknown)?;
        }
        for dir in &self.dirs {
            sync_dir(dir).map_err(unknown)?;
        }
        Ok(())
    }

    /// [`SyncSet::commit`] with the directories synced beside the files, each by a thread: one
    /// commit of the file system's journal serves all who ask for it at a time. For a process that
    /// has threads anyway; one that cannot be started is no error.
    pub fn commit_beside(mut self) -> Result<()> {
        if self.len() > SYNC_EACH_UP_TO {
            return self.commit();
        }
        let dirs = std::mem::take(&mut self.dirs);
        std::thread::scope(|scope| {
            let beside: Vec<_> = dirs
                .iter()
                .map(|dir| {
                    let thread = std::thread::Builder::new().stack_size(SYNC_STACK);
                    (dir, thread.spawn_scoped(scope, || sync_dir(dir)))
                })
                .collect();
            let mut synced = self.commit();
            for (dir, thread) in beside {
                let done = thread.ok().and_then(|thread| thread.join().ok());
                let done = done.unwrap_or_else(|| sync_dir(dir));
                synced = synced.and(done.map_err(unknown));
            }
            synced
        })
    }
}
