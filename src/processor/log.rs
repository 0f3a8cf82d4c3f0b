//! Reading a job's output and the files in its `work/`.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;

use super::status;
use crate::board::files;
use crate::board::root::Root;
use crate::board::runs::{Runs, Stream, unknown};
use crate::board::watch::Watch;
use crate::error::{At, Error, Result};
use crate::model::outcome::RunState;
use crate::model::request::{Output, Spec};

/// Most bytes of output in one answer.
pub const PIECE: u64 = 4 << 20;

/// Bytes that are looked at in one go when lines are counted from the end.
const BACKWARDS: u64 = 64 << 10;

/// A part of an output file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Where to go on.
    pub next: u64,
}

/// The stream that a request names, checked against what the job writes. Without a name it is
/// `log`, or `stdout` of a job with split output.
pub fn stream(root: &Root, id: &str, name: Option<&str>) -> Result<Stream> {
    let output = Spec::for_node(&Runs::new(root).request(id)?)?.output;
    match (name, output) {
        (None | Some("log"), Output::Combined) => Ok(Stream::Log),
        (None | Some("stdout"), Output::Split) => Ok(Stream::Stdout),
        (Some("stderr"), Output::Split) => Ok(Stream::Stderr),
        (Some("stdout" | "stderr"), Output::Combined) => {
            Err(Error::bad("this job has one stream, log; ask for two with output: \"split\""))
        }
        _ => Err(Error::bad("stream must be stdout or stderr")),
    }
}

/// Reads output from `offset`, or the last `tail` lines, at most `limit` bytes and [`PIECE`].
/// A job that has written nothing has an empty output. 404 for an id that is not here.
pub fn read(
    root: &Root,
    id: &str,
    stream: Stream,
    offset: u64,
    limit: Option<u64>,
    tail: Option<u64>,
) -> Result<Part> {
    let runs = Runs::new(root);
    let path = runs.log_path(id, stream);
    let Some(file) = files::gone_is_fine(File::open(&path)).at(&path)? else {
        return Ok(Part { bytes: Vec::new(), next: 0 });
    };
    let offset = match tail {
        Some(lines) => offset.max(start_of_tail(&file, lines).at(&path)?),
        None => offset,
    };
    let size = file.metadata().at(&path)?.len();
    let length = size.saturating_sub(offset).min(limit.unwrap_or(PIECE)).min(PIECE);
    let mut bytes = vec![0; length as usize];
    let length = file.read_at(&mut bytes, offset).at(&path)?;
    bytes.truncate(length);
    Ok(Part { next: offset.min(size) + length as u64, bytes })
}

/// Where the last `lines` lines begin.
fn start_of_tail(file: &File, lines: u64) -> std::io::Result<u64> {
    let size = file.metadata()?.len();
    let mut end = size;
    let mut seen = 0;
    let mut bytes = vec![0; BACKWARDS as usize];
    while end > 0 {
        let begin = end.saturating_sub(BACKWARDS);
        let piece = &mut bytes[..(end - begin) as usize];
        file.read_exact_at(piece, begin)?;
        for (index, _) in piece.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let after = begin + index as u64 + 1;
            // The newline that ends the last line begins none.
            if after < size {
                seen += 1;
            }
            if seen == lines || lines == 0 {
                return Ok(if lines == 0 { size } else { after });
            }
        }
        end = begin;
    }
    Ok(if lines == 0 { size } else { 0 })
}

/// Writes output as it comes, until the job has ended or `wait` is over. Returns where to go on.
pub fn follow(
    root: &Root,
    id: &str,
    stream: Stream,
    mut offset: u64,
    wait: Duration,
    out: &mut dyn Write,
) -> Result<u64> {
    let runs = Runs::new(root);
    let deadline = Instant::now() + wait;
    let watch = Watch::new(&[&runs.job_dir(id)]);
    loop {
        // Asked before the output is read: what is written before the end is read after it.
        let ended = status::of(root, id)?.state == RunState::Stopped;
        loop {
            let part = read(root, id, stream, offset, None, None)?;
            if part.bytes.is_empty() {
                break;
            }
            offset = part.next;
            if out.write_all(&part.bytes).and_then(|()| out.flush()).is_err() {
                return Ok(offset); // the reader has left
            }
        }
        if ended || !watch.wait(deadline) {
            return Ok(offset);
        }
    }
}

/// Names of the plain files in a job's `work/`.
pub fn work_files(root: &Root, id: &str) -> Result<Vec<String>> {
    let runs = Runs::new(root);
    runs.request(id)?;
    let dir = runs.work_dir(id);
    let mut found: Vec<String> = files::names(&dir)?
        .into_iter()
        .filter(|name| fs::symlink_metadata(dir.join(name)).is_ok_and(|meta| meta.is_file()))
        .collect();
    found.sort();
    Ok(found)
}

/// A plain file in a job's `work/`, at most `limit` bytes. The job may have put anything there,
/// so no link is followed and nothing but a plain file is opened.
pub fn work_file(root: &Root, id: &str, name: &str, limit: u64) -> Result<Vec<u8>> {
    let runs = Runs::new(root);
    runs.request(id)?;
    let missing = || Error::not_found(format!("no such file in the work directory of {id}"));
    if name.is_empty() || name.contains('/') || name == "." || name == ".." {
        return Err(missing());
    }
    let work = runs.work_dir(id);
    let flags = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let dir: OwnedFd = match open(&work, flags | OFlag::O_DIRECTORY, Mode::empty()) {
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
    if meta.len() > limit {
        return Err(Error::new(
            crate::error::Kind::TooLarge,
            format!("the file has {} bytes, more than {limit} (setting max_body)", meta.len()),
        ));
    }
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).at(&work)?;
    Ok(bytes)
}

/// 404 unless the job is here.
pub fn known(root: &Root, id: &str) -> Result<()> {
    let runs = Runs::new(root);
    crate::board::runs::check_id(id)?;
    if runs.job_dir(id).exists() { Ok(()) } else { Err(unknown(id)) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn tails() {
        let path = std::env::temp_dir().join(format!("tail-{}", files::random_name().unwrap()));
        let tail = |text: &str, lines| {
            fs::write(&path, text).unwrap();
            start_of_tail(&File::open(&path).unwrap(), lines).unwrap()
        };
        assert_eq!(tail("a\nb\nc\n", 1), 4);
        assert_eq!(tail("a\nb\nc", 1), 4);
        assert_eq!(tail("a\nb\nc\n", 2), 2);
        assert_eq!(tail("a\nb\nc\n", 9), 0);
        assert_eq!(tail("a\nb\n", 0), 4);
        assert_eq!(tail("", 3), 0);
        fs::remove_file(&path).unwrap();
    }
}
