//! Marks in the head's change feed: somebody has begun to change cards, or has told what he did.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::feed_file::{FeedFile, read_full};
use super::files;
use crate::error::{At, Result};

/// Whoever has begun so long ago and has not told does not live any more, or is stopped.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// What is read at a time, from the end.
const PIECE: u64 = 64 << 10;

/// A line of the feed that is no change.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Mark {
    /// Begun: by whom and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<String>,
    /// Told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub close: Option<String>,
    /// What was announced did not happen.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub void: bool,
    /// Of a submission: its numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
}

impl Mark {
    pub fn opening(id: &str) -> Mark {
        Mark { open: Some(id.to_string()), ..Mark::default() }
    }

    pub fn closing(id: &str) -> Mark {
        Mark { close: Some(id.to_string()), ..Mark::default() }
    }

    pub fn of(self, first: u64, last: u64) -> Mark {
        Mark { first: Some(first), last: Some(last), ..self }
    }

    pub fn void(self) -> Mark {
        Mark { void: true, ..self }
    }

    /// Reads a line; `None` for one that is no mark.
    pub fn read(line: &[u8]) -> Option<Mark> {
        let is_one = line.starts_with(b"{\"open\":") || line.starts_with(b"{\"close\":");
        is_one.then(|| serde_json::from_slice(line).ok()).flatten()
    }

    pub fn line(&self) -> Vec<u8> {
        files::json_line(self).unwrap_or_default() // texts and numbers: it cannot fail
    }

    /// What one write appends: a newline, this, and the lines that belong to it.
    pub fn group(&self, lines: &[u8]) -> Vec<u8> {
        let mut group = vec![b'\n'];
        group.extend(self.line());
        group.extend_from_slice(lines);
        group
    }
}

/// The marks of this process are known by these characters: when it made the first one, to the
/// nanosecond, which costs no system call.
fn own() -> &'static str {
    static OWN: OnceLock<String> = OnceLock::new();
    OWN.get_or_init(|| format!("{:x}", clock().as_nanos()))
}

/// Whether this process has made a mark.
pub(super) fn is_own(id: &str) -> bool {
    id.split('-').nth(1) == Some(own())
}

/// A new mark's id: `<when>-<who>-<which>`.
pub(super) fn new_id() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}-{}", now(), own(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// By the clock of this boot, which nobody sets: milliseconds.
fn now() -> u64 {
    clock().as_millis() as u64
}

fn clock() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default()
}

/// Whether whoever has made this mark must have told by now. One that is not of this boot's time is none
/// that is waited for.
pub(super) fn is_stale(id: &str) -> bool {
    let then = id.split('-').next().and_then(|then| then.parse::<u64>().ok());
    then.is_none_or(|then| now().abs_diff(then) > PATIENCE.as_millis() as u64)
}

/// What somebody who is at it still has written to a feed.
#[derive(Debug)]
pub(super) struct Open {
    /// Where his opening mark stands.
    pub at: u64,
    /// Its id.
    pub id: String,
    /// The whole write: the mark, and the lines that came with it.
    pub group: Vec<u8>,
}

/// Who is at it still, going by the marks near the end of a feed; in order.
pub(super) fn unclosed(file: &File, feed: &FeedFile) -> Result<Vec<Open>> {
    let size = file.metadata().at(feed.path())?.size();
    let mut from = size.saturating_sub(PIECE);
    loop {
        let mut bytes = vec![0; (size - from) as usize];
        let length = read_full(file, &mut bytes, from).at(feed.path())?;
        let (mut open, mut closed) = (Vec::new(), HashSet::new());
        let mut is_far = from == 0;
        let mut at = from;
        let mut follows = false; // whether a line belongs to the last of them
        for line in bytes[..length].split_inclusive(|b| *b == b'\n') {
            let mark = Mark::read(line);
            follows &= mark.is_none() && line != b"\n" && line.ends_with(b"\n");
            if let Some(Open { group, .. }) = open.last_mut().filter(|_| follows) {
                group.extend_from_slice(line);
            }
            if let Some(Mark { open: begun, close, .. }) = mark {
                // Not one that tells, which may come long after it was begun.
                is_far |= begun.as_ref().is_some_and(|id| is_stale(id));
                follows = begun.is_some();
                let group = [b"\n", line].concat();
                open.extend(begun.map(|id| Open { at, id, group }));
                closed.extend(close);
            }
            at += line.len() as u64;
        }
        if is_far {
            open.retain(|open| !closed.contains(&open.id) && !is_stale(&open.id));
            return Ok(open);
        }
        from = from.saturating_sub((size - from) * 3);
    }
}
