//! A job's output: pipe to file, up to a limit, then pipe to nowhere.
//!
//! The program never waits for more than this process: past the limit, or on a full disk, its
//! output is read and dropped. The file is made at the first byte, so a silent job costs none.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use nix::fcntl::OFlag;
use nix::unistd::pipe2;

use crate::board::files;
use crate::board::sync_set::SyncSet;
use crate::error::{At, Result};

/// Bytes that are copied at once: what a pipe holds.
const PIECE: usize = 64 << 10;

/// One stream of a job.
#[derive(Debug)]
pub struct Capture {
    path: PathBuf,
    /// The reading end until the end was read.
    from: Option<File>,
    /// The writing end, while programs may still be given it.
    to: Option<OwnedFd>,
    file: Option<File>,
    left: u64,
    /// What a person reads where it is reached.
    limit: String,
    full: bool,
}

impl Capture {
    /// A new pipe, of which so much is copied to this file; `limit` says it to a person.
    pub fn new(path: PathBuf, left: u64, limit: String) -> Result<Capture> {
        let (from, to) = pipe2(OFlag::O_CLOEXEC).at("pipe")?;
        Ok(Capture {
            path,
            from: Some(from.into()),
            to: Some(to),
            file: None,
            left,
            limit,
            full: false,
        })
    }

    /// The end that programs write to.
    pub fn writer(&self) -> Option<BorrowedFd<'_>> {
        self.to.as_ref().map(OwnedFd::as_fd)
    }

    /// No further program will be given the writing end.
    pub fn last_started(&mut self) {
        self.to = None;
    }

    /// The end to poll, until its end was read.
    pub fn reader(&self) -> Option<BorrowedFd<'_>> {
        self.from.as_ref().map(File::as_fd)
    }

    /// Copies one piece; poll has said that there is one, or the end.
    pub fn copy(&mut self, buffer: &mut Vec<u8>) {
        buffer.resize(PIECE, 0);
        let Some(from) = &mut self.from else { return };
        match from.read(buffer) {
            Ok(0) => self.from = None,
            Ok(length) => self.keep(&buffer[..length]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => self.from = None,
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.full {
            return;
        }
        let fitting = (bytes.len() as u64).min(self.left) as usize;
        let mut marker = None;
        if fitting > 0 {
            match self.write(&bytes[..fitting]) {
                Ok(()) => self.left -= fitting as u64,
                Err(_) => marker = Some("the disk would not take the rest of the output".into()),
            }
        }
        if marker.is_none() && fitting < bytes.len() {
            marker = Some(format!("output over {} dropped", self.limit));
        }
        if let Some(text) = marker {
            self.full = true;
            let _ = self.write(format!("\n[corkboard: {text}]\n").as_bytes()); // nobody to tell
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            let mut options = OpenOptions::new();
            options.append(true).create(true).mode(0o640);
            self.file = Some(files::open_by(&mut options, &self.path)?);
        }
        self.file.as_mut().map_or(Ok(()), |file| file.write_all(bytes))
    }

    /// Gives the file away, with its length; `None` if nothing was written.
    pub fn into_file(self) -> Option<(File, u64)> {
        let file = self.file?;
        let length = file.metadata().ok()?.len();
        Some((file, length))
    }

    /// Gives the file away, to be synced.
    pub fn into_sync(self, sync: &mut SyncSet) {
        if let Some(file) = self.file {
            sync.file(file, self.path);
        }
    }
}
