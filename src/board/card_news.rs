//! The head's change feed, read page by page for whoever asks. The board's own programs follow it
//! otherwise: see [`super::card_tail`].

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use super::card_feed::{self, Line, feed};
use super::card_marks::{self, Mark};
use super::card_tail::watch_on;
use super::feed_file::{FeedFile, Opened, read_full, unsteady, whole_lines};
use super::root::Root;
use super::watch::may_wait;
use crate::error::{At, Error, Kind, Result};

/// Most bytes of the feed in one page.
const PAGE: usize = 256 << 10;

/// How soon it is looked whether who was at it has told.
const SOON: Duration = Duration::from_millis(2);

/// Something that was done to a card.
#[derive(Debug, Clone)]
pub struct Told {
    /// Where to go on after it.
    pub cursor: String,
    /// A JSON object: `job`, its `state` after it, and the line of the card.
    pub line: String,
}

/// A part of the feed.
#[derive(Debug, Clone)]
pub struct NewsPage {
    /// Where to go on.
    pub cursor: String,
    /// What was done, in order.
    pub events: Vec<Told>,
    /// More was done, of which it is not known yet whether all is told.
    pending: bool,
}

/// What was done to cards after `since`; without it nothing but the present end. Waits at most `wait`
/// for something to come.
///
/// Errors: 410 for a cursor of another epoch, and where something may have been done after it that
/// nobody has told: whoever did it was killed meanwhile.
pub fn read(root: &Root, since: Option<&str>, wait: Duration) -> Result<NewsPage> {
    let Some(since) = since else { return end(root) };
    let feed = feed(root);
    let deadline = Instant::now() + wait;
    let mut watch = None;
    loop {
        let (opened, offset) = feed.since(since)?;
        let page = page(&feed, &opened, offset)?;
        if !page.events.is_empty() || wait.is_zero() {
            return Ok(page);
        }
        // Watched before the last look, so that nothing falls between look and wait.
        match &watch {
            None => watch = Some(watch_on(&feed)),
            Some(_) if page.pending && Instant::now() < deadline && may_wait() => {
                std::thread::sleep(SOON);
            }
            Some(watch) if watch.wait_until(deadline) => {}
            Some(_) => return Ok(page),
        }
    }
}

fn page(feed: &FeedFile, opened: &Opened, mut offset: u64) -> Result<NewsPage> {
    let mut bytes = vec![0u8; PAGE];
    loop {
        let length = read_full(&opened.file, &mut bytes, offset).at(feed.path())?;
        let is_all = length < bytes.len();
        let part = &bytes[..length];
        let taken = take(&part[..whole_lines(part)], &opened.header.epoch, offset, is_all)?;
        match taken {
            // A line, or what was done until somebody told, may be longer than a page.
            Taken { events, length: 0, .. } if events.is_empty() && !is_all => {
                bytes.resize(bytes.len() * 4, 0);
            }
            // Marks alone, and more behind them; or somebody's first one, who has told behind that.
            Taken { events, length, .. } if events.is_empty() && !is_all => {
                offset += length as u64;
            }
            Taken { events, length, pending } => {
                let cursor = format!("{}.{}", opened.header.epoch, offset + length as u64);
                return Ok(NewsPage { cursor, events, pending });
            }
        }
    }
}

/// What whole lines tell.
struct Taken {
    events: Vec<Told>,
    /// How many bytes of them are done with.
    length: usize,
    pending: bool,
}

/// Takes in whole lines, as far as all of it has been told. `is_all`: to the present end.
fn take(lines: &[u8], epoch: &str, offset: u64, is_all: bool) -> Result<Taken> {
    let marks = lines.split(|b| *b == b'\n').filter_map(Mark::read);
    let closed: HashMap<String, bool> =
        marks.filter_map(|mark| Some((mark.close?, mark.void))).collect();
    let mut events = Vec::new();
    let mut at = 0;
    let mut void = false;
    for line in lines.split_inclusive(|b| *b == b'\n') {
        let begun = at;
        at += line.len();
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        if line.is_empty() {
            void = false; // another write begins
        } else if let Some(mark) = Mark::read(line) {
            let Some(id) = mark.open else { continue };
            match closed.get(&id) {
                Some(is_void) => void = *is_void,
                None if is_all && card_marks::is_stale(&id) => return Err(untold()),
                None => return Ok(Taken { events, length: begun, pending: true }),
            }
        } else if !void && serde_json::from_slice::<Line>(line).is_ok_and(|line| line.job > 0) {
            let cursor = format!("{epoch}.{}", offset + at as u64);
            events.push(Told { cursor, line: String::from_utf8_lossy(line).into_owned() });
        }
    }
    Ok(Taken { events, length: lines.len(), pending: false })
}

fn untold() -> Error {
    Error::new(
        Kind::Gone,
        "something was done that nobody could tell: ask about the jobs, then go on from the present end",
    )
}

/// The present end, beginning an epoch if this boot has none yet. What somebody is at is still to come.
fn end(root: &Root) -> Result<NewsPage> {
    let feed = feed(root);
    for _ in 0..2 {
        if let Some(Opened { file, header, first }) = feed.open()? {
            let size = file.metadata().at(feed.path())?.size();
            let open = card_marks::unclosed(&file, &feed)?;
            let at = open.first().map_or(size, |open| open.at).max(first);
            let cursor = format!("{}.{at}", header.epoch);
            return Ok(NewsPage { cursor, events: Vec::new(), pending: false });
        }
        if !root.is_own() {
            let why = "nothing has been told since this machine was started; try again later";
            return Err(Error::new(Kind::Unavailable, why));
        }
        card_feed::renew(&feed)?;
    }
    Err(unsteady())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const A: &str =
        "{\"job\":1,\"state\":\"held\",\"at\":\"t\",\"event\":\"submitted\",\"by\":\"a\"}\n";
    const B: &str = "{\"job\":2,\"state\":\"held\",\"at\":\"t\",\"event\":\"held\",\"by\":\"a\"}\n";

    fn line(mark: &Mark) -> String {
        String::from_utf8(mark.line()).unwrap()
    }

    fn open(id: &str) -> String {
        line(&Mark::opening(id))
    }

    fn close(id: &str) -> String {
        line(&Mark::closing(id))
    }

    fn jobs(text: &str) -> (Vec<u64>, usize, bool) {
        let taken = take(text.as_bytes(), "e", 100, true).unwrap();
        let job = |told: &Told| serde_json::from_str::<Line>(&told.line).unwrap().job;
        (taken.events.iter().map(job).collect(), taken.length, taken.pending)
    }

    #[test]
    fn what_somebody_is_at_is_waited_for() {
        let (one, other) = (card_marks::new_id(), card_marks::new_id());
        let told =
            format!("\n{}{A}\n{}\n{}\n{B}{}", open(&one), close(&one), open(&other), close(&other));
        assert_eq!(jobs(&told), (vec![1, 2], told.len(), false));
        // The line of a card comes before the card has its name, and what is told after it waits, too.
        let before = format!("\n{B}{}\n", close(&other));
        let pending = format!("{before}{}{A}\n{B}", open(&one));
        assert_eq!(jobs(&pending), (vec![2], before.len(), true));
        // One of two that are at it at a time has told.
        let crossed = format!("\n{}\n{}{A}\n{B}{}", open(&other), open(&one), close(&other));
        let from_there = jobs(&crossed).1;
        assert_eq!((jobs(&crossed).0, from_there), (vec![], 2 + open(&other).len()));
        let whole = format!("{crossed}\n{}", close(&one));
        assert_eq!(jobs(&whole).0, [1, 2]);
        assert_eq!(jobs(&whole[from_there..]).0, [1, 2]);
    }

    #[test]
    fn what_did_not_happen_is_not_told_and_who_is_dead_is_not_waited_for() {
        let id = card_marks::new_id();
        let void = line(&Mark::closing(&id).void());
        let told = format!("\n{}{A}\n{void}\n{B}", open(&id));
        assert_eq!(jobs(&told).0, [2]);
        let stale = format!("\n{}{A}\n{B}", open("5-x-0"));
        assert!(take(stale.as_bytes(), "e", 100, true).is_err_and(|e| e.kind == Kind::Gone));
        assert!(take(stale.as_bytes(), "e", 100, false).unwrap().pending, "more is to be read");
        for damaged in ["\0\0\n", "{\"job\":\n", "{\"job\":3}\n", "12\n"] {
            assert_eq!(jobs(&format!("\n{damaged}\n{B}")).0, [2], "{damaged}");
        }
        let taken = take(format!("\n{B}").as_bytes(), "e", 100, true).unwrap();
        assert_eq!(taken.events[0].cursor, format!("e.{}", 101 + B.len()));
    }
}
