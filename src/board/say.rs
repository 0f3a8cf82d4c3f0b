//! `say/ID` in a worker's box ([`super::workers`]): the pipe by which the answer to an order comes to who waits
//! for it. First a line with its code, its headers and its length, then the bytes; nothing of it is stored.
//!
//! Who waits makes the pipe before the order, and removes it. Who has the answer takes the pipe away before
//! the first byte: it is given once, by one.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::poll::PollFlags;
use serde::{Deserialize, Serialize};

use super::bell::{self, is_full, is_ready};
use super::files;
use super::workers::WorkerBox;
use crate::error::{At, Error, Kind, Result};

/// Longest first line.
const LONGEST: usize = 64 << 10;

/// Longest time in which nothing of an answer comes, or is taken.
const PAUSE: Duration = Duration::from_secs(10);

/// What stands before the bytes of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Its code.
    pub status: u16,
    /// Those of its headers that mean something.
    pub headers: BTreeMap<String, String>,
    /// How many bytes follow.
    pub length: u64,
}

/// Who waits for an answer.
#[derive(Debug)]
pub struct Waiting {
    pipe: File,
    path: PathBuf,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path); // it was taken, or nobody answers; clean-up removes the rest
    }
}

/// The bytes of an answer, as they come.
#[derive(Debug)]
pub struct Answer {
    waiting: Waiting,
    ahead: io::Cursor<Vec<u8>>,
    left: u64,
}

impl Waiting {
    /// From now on the answer to this order can come.
    pub fn new(of: &WorkerBox, id: &str) -> Result<Waiting> {
        of.make()?;
        let path = of.path("say").join(id);
        bell::make(&path)?;
        let pipe = bell::open(OpenOptions::new().read(true), &path).at(&path)?;
        Ok(Waiting { pipe, path })
    }

    /// The answer, when it has begun to come. Each time that it has not within so long as `left` says, that
    /// is asked again: an error of it ends the wait.
    pub fn answer(mut self, left: impl Fn() -> Result<Duration>) -> Result<(Head, Answer)> {
        let mut bytes = Vec::new();
        let mut piece = [0; 4096];
        loop {
            let wait = if bytes.is_empty() { left()? } else { PAUSE };
            if !is_ready(&self.pipe, PollFlags::POLLIN, wait) {
                if !bytes.is_empty() {
                    return Err(self.broken("it has not come whole"));
                }
                continue;
            }
            match self.pipe.read(&mut piece) {
                Ok(0) => return Err(self.broken("it broke off")),
                Ok(read) => bytes.extend_from_slice(&piece[..read]),
                Err(error) if is_full(&error) => continue,
                Err(error) => return Err(error).at(&self.path),
            }
            if let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
                let head: Head = serde_json::from_slice(&bytes[..end])
                    .map_err(|e| self.broken(&format!("it makes no sense: {e}")))?;
                let (left, ahead) = (head.length, io::Cursor::new(bytes.split_off(end + 1)));
                return Ok((head, Answer { waiting: self, ahead, left }));
            }
            if bytes.len() > LONGEST {
                return Err(self.broken("it makes no sense"));
            }
        }
    }

    fn broken(&self, how: &str) -> Error {
        Error::new(Kind::GatewayTimeout, format!("no answer: {how}"))
    }
}

impl Read for Answer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let buffer = &mut buffer[..most];
        if buffer.is_empty() {
            return Ok(0);
        }
        let read = loop {
            match self.ahead.read(buffer)? {
                0 => {}
                read => break read,
            }
            if !is_ready(&self.waiting.pipe, PollFlags::POLLIN, PAUSE) {
                return Err(ErrorKind::TimedOut.into());
            }
            match self.waiting.pipe.read(buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Err(error) if is_full(&error) => {}
                read => break read?,
            }
        };
        self.left -= read as u64;
        Ok(read)
    }
}

/// Gives an answer to who waits for it: so many bytes of `body`. `false` where nobody does, or does any
/// more.
///
/// Errors: the answer itself could not be read.
pub fn give(of: &WorkerBox, id: &str, head: &Head, body: &mut dyn Read) -> Result<bool> {
    of.check(id)?;
    let path = of.path("say").join(id);
    let Ok(mut pipe) = bell::open(OpenOptions::new().write(true), &path) else { return Ok(false) };
    if !taken(&path)? {
        return Ok(false);
    }
    let line = files::json_line(head)?;
    if !write(&mut pipe, &line) {
        return Ok(false);
    }
    let mut piece = vec![0; 64 << 10];
    let mut left = head.length;
    while left > 0 {
        let most = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = match body.read(&mut piece[..most]) {
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            read => read.at("the answer")?,
        };
        if read == 0 {
            return Err(Error::new(Kind::LengthRequired, "the answer broke off"));
        }
        if !write(&mut pipe, &piece[..read]) {
            return Ok(false);
        }
        left -= read as u64;
    }
    Ok(true)
}

/// Takes the pipe away; `false` where another one has.
fn taken(path: &Path) -> Result<bool> {
    files::gone_is_fine(fs::remove_file(path)).map(|gone| gone.is_some()).at(path)
}

/// Writes all of it; `false` where nobody reads.
fn write(pipe: &mut File, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match pipe.write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if is_full(&error) => {
                if !is_ready(pipe, PollFlags::POLLOUT, PAUSE) {
                    return false;
                }
            }
            Err(_) => return false,
        }
    }
    true
}
