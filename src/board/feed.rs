//! A node's change feed, `state/processor/events`: one line for every change of a job, for heads
//! that follow it instead of asking about each job.
//!
//! The first line names the epoch, which is new at every boot and when the file has grown too
//! large; a cursor is `<epoch>.<offset>`. Lines are appended under the board's lock, after what
//! they say is durable; they are not synced themselves, since a power loss begins a new epoch.
//! A line may come twice, and a reader whose epoch is gone (410) asks about its jobs instead.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::files;
use super::lock::Lock;
use super::root::{Root, boot_id};
use super::runs::Runs;
use super::story::Story;
use super::watch::Watch;
use crate::error::{At, Error, Kind, Result};
use crate::model::run_status::RunStatus;

/// Most bytes of the feed in one page.
const PAGE: usize = 256 << 10;

/// The first line is shorter than this.
const HEADER: usize = 512;

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    epoch: String,
    boot: String,
}

/// A part of the feed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FeedPage {
    /// Where to go on.
    pub cursor: String,
    /// What changed, in order; each names its job.
    pub events: Vec<RunStatus>,
}

/// Appends lines, beginning a new epoch where one is due. The caller holds the board's lock.
pub fn append(root: &Root, held: &Lock, lines: &[RunStatus]) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let path = Runs::new(root).path("events");
    let current = Story::open(path.clone())?;
    let mut story = match current {
        Some(story) if is_current(root, story.file())? => story,
        _ => {
            begin(root, held)?;
            Story::open_or_create(path)?
        }
    };
    story.append(lines)
}

fn is_current(root: &Root, file: &File) -> Result<bool> {
    let path = Runs::new(root).path("events");
    let small = file.metadata().at(&path)?.len() <= root.settings.max_events;
    let boot = boot_id()?;
    Ok(small && header(file)?.is_some_and(|(header, _)| header.boot == boot))
}

/// The first line, and its length with the newline.
fn header(file: &File) -> Result<Option<(Header, u64)>> {
    let mut bytes = [0u8; HEADER];
    let length = file.read_at(&mut bytes, 0).at("events")?;
    let Some(end) = bytes[..length].iter().position(|b| *b == b'\n') else { return Ok(None) };
    let header = serde_json::from_slice(&bytes[..end]).ok();
    Ok(header.map(|header| (header, end as u64 + 1)))
}

/// Begins a new epoch: the file is replaced whole, so that no reader sees half of it.
fn begin(root: &Root, _held: &Lock) -> Result<()> {
    let runs = Runs::new(root);
    let prepared = runs.tmp_dir().join(files::random_name()?);
    let header = Header { epoch: files::random_hex::<6>()?, boot: boot_id()? };
    files::create(&prepared, &files::json_line(&header)?)?;
    let path = runs.path("events");
    fs::rename(&prepared, &path).at(&path)
}

/// What changed after `since`; without it nothing but the present end. Waits at most `wait` for
/// something to come. 410 for a cursor of another epoch.
pub fn read(root: &Root, since: Option<&str>, wait: Duration) -> Result<FeedPage> {
    let path = Runs::new(root).path("events");
    let Some(since) = since else { return end(root) };
    let (epoch, offset) = since
        .rsplit_once('.')
        .and_then(|(epoch, offset)| Some((epoch, offset.parse::<u64>().ok()?)))
        .ok_or_else(|| Error::bad("since must be a cursor as a page of the feed gave it"))?;
    let deadline = Instant::now() + wait;
    let mut watch = None;
    loop {
        let file = files::gone_is_fine(files::open(&path)).at(&path)?.ok_or_else(other_epoch)?;
        let size = file.metadata().at(&path)?.len();
        let (header, first) = header(&file)?.ok_or_else(other_epoch)?;
        if header.epoch != epoch || header.boot != boot_id()? || !(first..=size).contains(&offset) {
            return Err(other_epoch());
        }
        let page = page(&file, epoch, offset)?;
        if !page.events.is_empty() || wait.is_zero() {
            return Ok(page);
        }
        // Watched before the last look, so that nothing falls between look and wait.
        match &watch {
            None => watch = Some(Watch::on(&[&path])),
            Some(watch) if watch.wait_until(deadline) => {}
            Some(_) => return Ok(page),
        }
    }
}

fn page(file: &File, epoch: &str, offset: u64) -> Result<FeedPage> {
    let mut bytes = vec![0u8; PAGE];
    // A line about many tasks may be longer than a page: then the page is that one line.
    let whole = loop {
        let length = read_full(file, &mut bytes, offset).at("events")?;
        let end = bytes[..length].iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
        let says_nothing = bytes[..end].iter().all(|b| *b == b'\n');
        if !says_nothing || length < bytes.len() {
            break end;
        }
        bytes.resize(bytes.len() * 4, 0);
    };
    let events = bytes[..whole]
        .split(|b| *b == b'\n')
        .filter(|line| !line.is_empty())
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect();
    Ok(FeedPage { cursor: format!("{epoch}.{}", offset + whole as u64), events })
}

/// Reads as much as there is room for; less is the end of the file.
fn read_full(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
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

/// The present end, beginning an epoch if this boot has none yet.
fn end(root: &Root) -> Result<FeedPage> {
    let runs = Runs::new(root);
    let path = runs.path("events");
    for _ in 0..2 {
        if let Some(file) = files::gone_is_fine(files::open(&path)).at(&path)?
            && let Some((header, _)) = header(&file)?
            && header.boot == boot_id()?
        {
            let size = file.metadata().at(&path)?.len();
            return Ok(FeedPage { cursor: format!("{}.{size}", header.epoch), events: Vec::new() });
        }
        let held = runs.lock()?;
        let current = files::gone_is_fine(files::open(&path)).at(&path)?;
        if !matches!(current.map(|file| is_current(root, &file)).transpose()?, Some(true)) {
            begin(root, &held)?;
        }
    }
    Err(Error::new(Kind::Unavailable, "the feed keeps changing; try again"))
}

fn other_epoch() -> Error {
    Error::new(
        Kind::Gone,
        "the cursor is of another epoch of the feed: ask about the jobs, then go on from the present end",
    )
}
