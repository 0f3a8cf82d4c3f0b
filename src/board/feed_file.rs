//! A change feed as a file: its first line names the epoch, which is new at every boot and when the file
//! has grown too large; a cursor is `<epoch>.<offset>`. What the other lines say is for those who write
//! them: `feed` for a node's, `card_feed` for the head's.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::files;
use super::root::{Root, boot_id};
use crate::error::{At, Error, Kind, Result};

/// The first line is shorter than this.
const HEADER: usize = 512;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Header {
    pub epoch: String,
    boot: String,
    /// The epoch before this one, where the file had grown too large: nothing is missing between them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// Where a feed lies.
#[derive(Debug)]
pub(super) struct FeedFile<'r> {
    root: &'r Root,
    path: PathBuf,
    tmp: PathBuf,
}

/// A feed that is open, of this boot.
#[derive(Debug)]
pub(super) struct Opened {
    pub file: File,
    pub header: Header,
    /// Where its first line after the header begins.
    pub first: u64,
}

impl<'r> FeedFile<'r> {
    /// The feed of a board, which is a directory of the state tree.
    pub fn of(root: &'r Root, board: &str) -> FeedFile<'r> {
        let board = root.state(board);
        FeedFile { root, path: board.join("events"), tmp: board.join("tmp") }
    }

    /// One that lies elsewhere, and is prepared here.
    pub fn at(root: &'r Root, path: PathBuf, tmp: PathBuf) -> FeedFile<'r> {
        FeedFile { root, path, tmp }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens it to read; `None` where there is none of this boot.
    pub fn open(&self) -> Result<Option<Opened>> {
        let file = match files::gone_is_fine(files::open(&self.path)).at(&self.path) {
            Ok(Some(file)) => file,
            Err(error) if self.may_be_one() => return Err(error),
            Ok(None) | Err(_) => return Ok(None),
        };
        let Some((header, first)) = self.header(&file)? else { return Ok(None) };
        Ok((header.boot == boot_id()?).then_some(Opened { file, header, first }))
    }

    /// Whether a feed may lie in its place, and not something that somebody has put there.
    pub fn may_be_one(&self) -> bool {
        fs::metadata(&self.path).map_or(true, |meta| meta.is_file())
    }

    /// The first line, and its length with the newline.
    fn header(&self, file: &File) -> Result<Option<(Header, u64)>> {
        let mut bytes = [0u8; HEADER];
        let length = file.read_at(&mut bytes, 0).at(&self.path)?;
        let Some(end) = bytes[..length].iter().position(|b| *b == b'\n') else { return Ok(None) };
        let header = serde_json::from_slice(&bytes[..end]).ok();
        Ok(header.map(|header| (header, end as u64 + 1)))
    }

    /// The epoch of an open feed that may be appended to; `None` where a new one is due.
    pub fn current(&self, file: &File) -> Result<Option<String>> {
        let boot = boot_id()?;
        if self.is_large(file.metadata().at(&self.path)?.size()) {
            return Ok(None);
        }
        Ok(self.header(file)?.filter(|(header, _)| header.boot == boot).map(|(h, _)| h.epoch))
    }

    /// Whether a new epoch is due when it has so many bytes.
    pub fn is_large(&self, size: u64) -> bool {
        size > self.root.settings.max_events
    }

    /// Begins a new epoch: the file is replaced whole, so that no reader sees half of it. The caller
    /// holds the board's lock.
    pub fn begin(&self, after: Option<String>) -> Result<()> {
        let prepared = self.tmp.join(files::random_name()?);
        let header = Header { epoch: files::random_hex::<6>()?, boot: boot_id()?, after };
        files::create(&prepared, &files::json_line(&header)?)?;
        let mut placed = fs::rename(&prepared, &self.path).at(&self.path);
        if placed.is_err() && fs::remove_dir(&self.path).is_ok() {
            placed = fs::rename(&prepared, &self.path).at(&self.path); // it was in its place
        }
        if placed.is_err() {
            let _ = files::remove(&prepared); // the first error is the one to report
        }
        placed
    }

    /// The feed at a cursor, and the offset in it; 410 for a cursor of another epoch.
    pub fn since(&self, since: &str) -> Result<(Opened, u64)> {
        let (epoch, offset) = since
            .rsplit_once('.')
            .and_then(|(epoch, offset)| Some((epoch, offset.parse::<u64>().ok()?)))
            .ok_or_else(|| Error::bad("since must be a cursor as a page of the feed gave it"))?;
        let opened = self.open()?.ok_or_else(other_epoch)?;
        let size = opened.file.metadata().at(&self.path)?.len();
        if opened.header.epoch != epoch || !(opened.first..=size).contains(&offset) {
            return Err(other_epoch());
        }
        Ok((opened, offset))
    }
}

/// As much of a file as there is room for; less is the end of the file.
pub(super) fn read_full(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut length = 0;
    while length < bytes.len() {
        match file.read_at(&mut bytes[length..], offset + length as u64) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(length)
}

/// The whole lines at the beginning of what was read: their length.
pub(super) fn whole_lines(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1)
}

pub(super) fn other_epoch() -> Error {
    Error::new(
        Kind::Gone,
        "the cursor is of another epoch of the feed: ask about the jobs, then go on from the present end",
    )
}

/// The error of whoever finds that the feed is begun anew over and over.
pub(super) fn unsteady() -> Error {
    Error::new(Kind::Unavailable, "the feed keeps changing; try again")
}
