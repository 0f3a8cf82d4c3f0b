//! Reading a job's output.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use super::{status, sweep, tasks};
use crate::board::files;
use crate::board::root::Root;
use crate::board::runs::{Runs, Stream};
use crate::board::watch::Watch;
use crate::error::{At, Error, Result};
use crate::model::ids::RunId;
use crate::model::log::{LogPiece, LogQuery};
use crate::model::request::Spec;
use crate::model::request_fields::Output;
use crate::model::run_status::RunState;

/// Most bytes of output in one answer.
pub const PIECE: u64 = 4 << 20;

/// Most bytes between two looks at the clock while output is followed.
const FOLLOWED: u64 = 256 << 10;

/// How long a command waits before it looks after the job's supervisor.
pub(super) const LOOK: Duration = Duration::from_secs(30);

/// Bytes that are looked at in one go when lines are counted from the end.
const BACKWARDS: u64 = 64 << 10;

/// The stream that a request names, checked against what the job writes. Without a name it is
/// `log`, or `stdout` of a job with split output.
fn stream(root: &Root, id: &RunId, name: Option<&str>) -> Result<Stream> {
    let output = Spec::for_run(&Runs::new(root).request(id)?)?.output;
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

/// A part of an output file: all of it, or what one task of a range wrote.
pub(super) struct Written {
    file: File,
    from: u64,
    pub(super) size: u64,
}

impl Written {
    /// All of a file as it is now.
    pub(super) fn whole(file: File) -> std::io::Result<Written> {
        let size = file.metadata()?.len();
        Ok(Written { file, from: 0, size })
    }

    /// Bytes from so far behind its beginning, all of which are there.
    pub(super) fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.file.read_exact_at(bytes, self.from + offset)
    }
}

/// The output file as it is now; `None` where nothing was written.
pub(super) fn open(root: &Root, id: &RunId, stream: Stream) -> Result<Option<Written>> {
    let path = Runs::new(root).log_path(id, stream);
    let opened = files::gone_is_fine(files::open(&path)).at(&path)?;
    opened.map(|file| Written::whole(file).at(&path)).transpose()
}

/// Reads output: a piece, at most `limit` bytes of the query and [`PIECE`]. A job that has written
/// nothing has an empty output. 404 for an id that is not here, 400 for a stream it does not have.
pub fn read(root: &Root, id: &RunId, query: &LogQuery) -> Result<LogPiece> {
    let stream = stream(root, id, query.stream.as_deref())?;
    let path = Runs::new(root).log_path(id, stream);
    let mut bounds = Some((0, None));
    if let Some(task) = query.task {
        tasks::look(root, id, task)?; // it is one of this range's
        bounds = tasks::part_of_log(root, id, task, usize::from(stream == Stream::Stderr))?;
    }
    let opened = files::gone_is_fine(files::open(&path)).at(&path)?;
    let (Some(file), Some((from, end))) = (opened, bounds) else {
        return Ok(LogPiece { bytes: Vec::new(), next: 0 });
    };
    let length = file.metadata().at(&path)?.len();
    let size = end.unwrap_or(length).min(length).saturating_sub(from);
    let part = Written { file, from, size };
    let offset = match query.tail {
        Some(lines) => query.offset.max(start_of_tail(&part, lines).at(&path)?),
        None => query.offset,
    };
    piece(&part, offset, query.limit.unwrap_or(PIECE)).at(&path)
}

fn piece(part: &Written, offset: u64, limit: u64) -> std::io::Result<LogPiece> {
    let offset = offset.min(part.size);
    let length = (part.size - offset).min(limit).min(PIECE);
    let mut bytes = vec![0; length as usize];
    let length = part.file.read_at(&mut bytes, part.from + offset)?;
    bytes.truncate(length);
    Ok(LogPiece { next: offset + length as u64, bytes })
}

/// Where the last `lines` lines begin, or what one answer can hold of them.
pub(super) fn start_of_tail(part: &Written, lines: u64) -> std::io::Result<u64> {
    let size = part.size;
    let mut end = size;
    let mut seen = 0;
    let mut bytes = vec![0; BACKWARDS as usize];
    let first = size.saturating_sub(PIECE);
    while end > first {
        let begin = end.saturating_sub(BACKWARDS).max(first);
        let piece = &mut bytes[..(end - begin) as usize];
        part.read_exact_at(piece, begin)?;
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
    Ok(if lines == 0 { size } else { first })
}

/// How far output was followed.
#[derive(Debug)]
pub struct Followed {
    /// Where to go on.
    pub next: u64,
    /// Whether there is nothing more to tell: it has ended, or the reader has left.
    pub over: bool,
}

/// Writes output as it comes, from where the query says, until the job, or the task that the query
/// names, has ended or `wait` is over, however much comes.
pub fn follow(
    root: &Root,
    id: &RunId,
    mut query: LogQuery,
    wait: Duration,
    out: &mut dyn Write,
) -> Result<Followed> {
    let runs = Runs::new(root);
    let deadline = Instant::now() + wait;
    let watch = Watch::on(&[&runs.job_dir(id)]);
    query.limit = Some(FOLLOWED);
    loop {
        // Asked before the output is read: what is written before the end is read after it.
        let ended = match query.task {
            Some(task) => tasks::has_ended(root, id, task)?,
            None => status::look(root, id)?.state == RunState::Stopped,
        };
        loop {
            let part = read(root, id, &query)?;
            if part.bytes.is_empty() {
                break;
            }
            query.offset = part.next;
            if out.write_all(&part.bytes).and_then(|()| out.flush()).is_err() {
                return Ok(Followed { next: query.offset, over: true });
            }
            if Instant::now() >= deadline {
                return Ok(Followed { next: query.offset, over: false });
            }
        }
        if ended || !watch.wait_until(deadline) {
            return Ok(Followed { next: query.offset, over: ended });
        }
    }
}

/// [`follow`] for a command, behind which nobody gives up: until it is over. Its supervisor may die
/// meanwhile, which is seen where the root may be changed.
pub(super) fn follow_on(
    root: &Root,
    id: &RunId,
    mut query: LogQuery,
    out: &mut dyn Write,
) -> Result<()> {
    loop {
        let followed = follow(root, id, query.clone(), LOOK, out)?;
        if followed.over {
            return Ok(());
        }
        query.offset = followed.next;
        if root.for_change().is_ok() {
            sweep::sweep(root)?;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn tails() {
        let path = std::env::temp_dir().join(format!("tail-{}", files::random_name().unwrap()));
        let tail = |text: &str, lines| {
            fs::write(&path, text).unwrap();
            let part =
                Written { file: File::open(&path).unwrap(), from: 0, size: text.len() as u64 };
            start_of_tail(&part, lines).unwrap()
        };
        assert_eq!(tail("a\nb\nc\n", 1), 4);
        assert_eq!(tail("a\nb\nc", 1), 4);
        assert_eq!(tail("a\nb\nc\n", 2), 2);
        assert_eq!(tail("a\nb\nc\n", 9), 0);
        assert_eq!(tail("a\nb\n", 0), 4);
        assert_eq!(tail("", 3), 0);
        // Without an end of line in all of it: no more is read than can be told.
        let size = 2 * PIECE + 5;
        File::create(&path).unwrap().set_len(size).unwrap();
        let part = Written { file: File::open(&path).unwrap(), from: 0, size };
        assert_eq!(start_of_tail(&part, 3).unwrap(), size - PIECE);
        // From beyond its end, as far as a number goes.
        let of_a_task = Written { from: 7, size: 5, ..part };
        let beyond = piece(&of_a_task, u64::MAX, PIECE).unwrap();
        assert_eq!((beyond.bytes.len(), beyond.next), (0, 5));
        fs::remove_file(&path).unwrap();
    }
}
