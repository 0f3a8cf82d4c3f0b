//! A node's change feed, `state/processor/events`: one line for every change of a job, for heads
//! that follow it instead of asking about each job.
//!
//! The first line names the epoch, which is new at every boot and when the file has grown too
//! large; a cursor is `<epoch>.<offset>`. Lines are appended under the board's lock, after what
//! they say is durable; they are not synced themselves, since a power loss begins a new epoch.
//! A line may come twice, and a reader whose epoch is gone (410) asks about its jobs instead.

use std::fs::File;
use std::time::{Duration, Instant};

use super::feed_file::{FeedFile, Opened, read_full, unsteady, whole_lines};
use super::lock::Lock;
use super::root::Root;
use super::runs::Runs;
use super::story::Story;
use super::watch::Watch;
use crate::error::{At, Result};
use crate::model::run_status::RunStatus;
use crate::wire::feed::FeedPage;

/// Most bytes of the feed in one page.
const PAGE: usize = 256 << 10;

fn feed(root: &Root) -> FeedFile<'_> {
    FeedFile::of(root, "processor")
}

/// Appends lines, beginning a new epoch where one is due. The caller holds the board's lock.
pub fn append(root: &Root, held: &Lock, lines: &[RunStatus]) -> Result<()> {
    append_to(&feed(root), held, lines)
}

/// The same of a feed that lies anywhere, for who holds its lock.
pub(super) fn append_to(feed: &FeedFile, _held: &Lock, lines: &[RunStatus]) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut story = match Story::open(feed.path().to_path_buf())? {
        Some(story) if feed.current(story.file())?.is_some() => story,
        _ => {
            feed.begin(None)?;
            Story::open_or_create(feed.path().to_path_buf())?
        }
    };
    story.append(lines)
}

/// What changed after `since`; without it nothing but the present end. Waits at most `wait` for
/// something to come. 410 for a cursor of another epoch.
pub fn read(root: &Root, since: Option<&str>, wait: Duration) -> Result<FeedPage> {
    let Some(since) = since else {
        return end_of(&feed(root), || Runs::new(root).lock());
    };
    let feed = feed(root);
    let deadline = Instant::now() + wait;
    let mut watch = None;
    loop {
        let page = page_of(&feed, since)?;
        if !page.events.is_empty() || wait.is_zero() {
            return Ok(page);
        }
        // Watched before the last look, so that nothing falls between look and wait.
        match &watch {
            None => watch = Some(Watch::on(&[feed.path()])),
            Some(watch) if watch.wait_until(deadline) => {}
            Some(_) => return Ok(page),
        }
    }
}

/// What there is after a cursor; 410 for one of another epoch.
pub(super) fn page_of(feed: &FeedFile, since: &str) -> Result<FeedPage> {
    let (Opened { file, header, .. }, offset) = feed.since(since)?;
    page(&file, &header.epoch, offset)
}

fn page(file: &File, epoch: &str, offset: u64) -> Result<FeedPage> {
    let mut bytes = vec![0u8; PAGE];
    // A line about many tasks may be longer than a page: then the page is that one line.
    let whole = loop {
        let length = read_full(file, &mut bytes, offset).at("events")?;
        let end = whole_lines(&bytes[..length]);
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

/// The present end, beginning an epoch if this boot has none yet.
pub(super) fn end_of(feed: &FeedFile, lock: impl Fn() -> Result<Lock>) -> Result<FeedPage> {
    for _ in 0..2 {
        if let Some(Opened { file, header, .. }) = feed.open()? {
            let size = file.metadata().at(feed.path())?.len();
            return Ok(FeedPage { cursor: format!("{}.{size}", header.epoch), events: Vec::new() });
        }
        let _held = lock()?;
        if feed.open()?.is_none() {
            feed.begin(None)?;
        }
    }
    Err(unsteady())
}
