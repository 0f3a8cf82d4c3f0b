//! Stories: files of JSON lines that are only ever appended to.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::feed_file::read_full;
use super::files::{MODE, gone_is_fine, json_lines, open_by};
use crate::error::{At, Error, Result};

/// A story: a file of JSON lines that is only ever appended to.
#[derive(Debug)]
pub struct Story {
    file: File,
    path: PathBuf,
}

impl Story {
    /// Opens an existing story to read and append; `None` where there is none.
    pub fn open(path: PathBuf) -> Result<Option<Story>> {
        let opened = open_by(OpenOptions::new().read(true).append(true), &path);
        let file = gone_is_fine(opened).at(&path)?;
        Ok(file.map(|file| Story { file, path }))
    }

    /// Opens a story to append, making an empty one where there is none.
    pub fn open_or_create(path: PathBuf) -> Result<Story> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(MODE);
        let file = open_by(&mut options, &path).at(&path)?;
        Ok(Story { file, path })
    }

    /// All of it.
    pub fn read(&mut self) -> Result<Vec<u8>> {
        let size = self.file.metadata().at(&self.path)?.size();
        if size == 0 {
            return Ok(Vec::new()); // that of most jobs when it is opened
        }
        let mut bytes = Vec::new();
        let room = usize::try_from(size).ok().and_then(|size| size.checked_add(1));
        let had = room.is_some_and(|room| bytes.try_reserve_exact(room).is_ok());
        let Some(room) = room.filter(|_| had) else {
            return Err(Error::io(&self.path, &nix::Error::ENOMEM.into()));
        };
        bytes.resize(room, 0);
        let length = read_full(&self.file, &mut bytes, 0).at(&self.path)?;
        bytes.truncate(length);
        if length == room {
            // It grows meanwhile.
            io::Seek::seek(&mut self.file, io::SeekFrom::Start(size + 1)).at(&self.path)?;
            self.file.read_to_end(&mut bytes).at(&self.path)?;
        }
        Ok(bytes)
    }

    /// Appends lines by one write that starts and ends with a newline, so that a line torn by a
    /// crash cannot spoil its neighbours. If only a part could be written, that part is cut off
    /// again; the caller must be the only one who appends. Not synced.
    pub fn append<T: Serialize>(&mut self, lines: &[T]) -> Result<()> {
        self.append_lines(&json_lines(lines)?)
    }

    /// The same with lines as [`json_lines`] makes them.
    pub(super) fn append_lines(&mut self, bytes: &[u8]) -> Result<()> {
        let error = loop {
            match self.file.write(bytes) {
                Ok(written) if written == bytes.len() => return Ok(()),
                Ok(written) => {
                    if let Ok(meta) = self.file.metadata() {
                        let _ = self.file.set_len(meta.size().saturating_sub(written as u64));
                    }
                    break io::Error::from(nix::Error::ENOSPC);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break error,
            }
        };
        Err(Error::io(&self.path, &error))
    }

    /// The open file, to lock or to sync.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Its path when it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file away, to be synced.
    pub fn into_file(self) -> (File, PathBuf) {
        (self.file, self.path)
    }
}
