//! The head's change feed, followed by the board's own programs, for which what it says is a hint.

use std::fs::{self, File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use nix::sys::inotify::AddWatchFlags;

use super::card_feed::{Line, SUBMITTED, feed};
use super::card_marks::{self, Mark};
use super::feed_file::{FeedFile, Opened, read_full, whole_lines};
use super::files;
use super::root::Root;
use super::watch::{LOOK_EVERY, Watch, may_wait};
use crate::error::{At, Result};

/// Most bytes that are read at a time.
const PIECE: usize = 256 << 10;

/// Where much happens to other jobs, whoever waits for one looks no more often than this...
const SLOWEST_LOOK: Duration = Duration::from_millis(50);

/// ...once so many wake-ups in a row were of no use. Those for what is done to one job are fewer.
const MANY: u32 = 5;

/// Nothing has happened for so long: the next thing is looked at at once.
const QUIET: Duration = Duration::from_millis(100);

/// More cards get their names by no submission between two marks.
const MOST_AT_ONCE: u64 = 1 << 20;

/// How soon it is looked again where much happens.
const SOON: Duration = Duration::from_millis(2);

/// What wakes whoever waits for the feed to go on.
pub(super) fn watch_on(feed: &FeedFile) -> Watch {
    let watch = Watch::new();
    arm(&watch, feed);
    watch
}

/// Watches the feed, and for one that comes in its place.
fn arm(watch: &Watch, feed: &FeedFile) {
    let comes = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
    watch.add(files::parent(feed.path()), comes);
    watch.add(feed.path(), AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_ATTRIB);
}

/// Follows the feed for the board's own programs: for them what it says is a hint, and what is lost of it
/// is found by looking. Waits for nobody who is at it.
#[derive(Debug)]
pub struct Tail<'r> {
    feed: FeedFile<'r>,
    /// What wakes whoever follows.
    pub watch: Watch,
    opened: Option<Opened>,
    /// Which file that is: device and inode.
    id: (u64, u64),
    offset: u64,
    /// Numbers in the lines of a write whose closing mark has not been read.
    group: Vec<u64>,
    /// Whether what this process tells itself is left out.
    but_own: bool,
    /// How many wake-ups in a row were of no use to whoever waits for one job.
    idle_wakes: u32,
}

/// What is new in the feed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Numbers of jobs to whose cards something was done, some more than once.
    pub jobs: Vec<u64>,
    /// Something may be missing.
    pub lost: bool,
}

impl<'r> Tail<'r> {
    /// Follows it from its present end.
    pub fn begin(root: &'r Root) -> Tail<'r> {
        let feed = feed(root);
        let watch = watch_on(&feed);
        let opened = feed.open().ok().flatten();
        let meta = opened.as_ref().and_then(|opened| opened.file.metadata().ok());
        let (id, offset) = meta.map_or(((0, 0), 0), |meta| (id(&meta), meta.size()));
        Tail { feed, watch, opened, id, offset, group: Vec::new(), but_own: false, idle_wakes: 0 }
    }

    /// The same, but for what this process does itself.
    pub fn of_others(root: &'r Root) -> Tail<'r> {
        Tail { but_own: true, ..Tail::begin(root) }
    }

    /// Whether there is a feed to follow: without one, everything has to be looked for.
    pub fn is_there(&self) -> bool {
        self.opened.is_some()
    }

    /// Watches by a new instance.
    pub fn watch_anew(&mut self) {
        self.watch = watch_on(&self.feed);
    }

    /// What is new since the last time.
    pub fn news(&mut self) -> Result<News> {
        let mut news = News::default();
        if let Some(opened) = self.opened.take() {
            let read = self.read_opened(&opened, &mut news);
            self.opened = Some(opened);
            if read? {
                return Ok(news);
            }
        }
        // There is another one, or none. What is written to the old one from now on is in the new one, too.
        let before = self.opened.take();
        self.group.clear();
        arm(&self.watch, &self.feed);
        let Some(opened) = self.feed.open()? else {
            news.lost |= before.is_some();
            return Ok(news);
        };
        let goes_on = |before: &Opened| opened.header.after.as_ref() == Some(&before.header.epoch);
        news.lost |= !before.as_ref().is_some_and(goes_on);
        let meta = opened.file.metadata().at(self.feed.path())?;
        (self.id, self.offset) = (id(&meta), opened.first);
        self.read(&opened.file, meta.size(), &mut news)?;
        self.opened = Some(opened);
        Ok(news)
    }

    /// Takes in what is new in the feed that is open; `false` if that is no longer the one that has the
    /// name. It may have others: that of a copy.
    fn read_opened(&mut self, opened: &Opened, news: &mut News) -> Result<bool> {
        let path = self.feed.path();
        let named = files::gone_is_fine(fs::metadata(path)).at(path)?;
        let named = named.filter(|meta| id(meta) == self.id);
        let size = match &named {
            Some(meta) => meta.size(),
            None => opened.file.metadata().at(path)?.size(),
        };
        self.read(&opened.file, size, news)?;
        Ok(named.is_some())
    }

    /// Takes in the whole lines of so many bytes.
    fn read(&mut self, file: &File, size: u64, news: &mut News) -> Result<()> {
        if size < self.offset {
            // Somebody has cut it short: what came after that nobody can tell from what was there.
            (self.offset, news.lost) = (size, true);
            self.group.clear();
        }
        loop {
            let left = usize::try_from(size.saturating_sub(self.offset)).unwrap_or(usize::MAX);
            if left == 0 {
                return Ok(());
            }
            let mut bytes = vec![0; left.min(PIECE)];
            let mut length = read_full(file, &mut bytes, self.offset).at(self.feed.path())?;
            let mut whole = whole_lines(&bytes[..length]);
            if whole == 0 && left > PIECE {
                bytes.resize(left, 0); // none is so long
                length = read_full(file, &mut bytes, self.offset).at(self.feed.path())?;
                whole = whole_lines(&bytes[..length]);
            }
            if whole == 0 {
                return Ok(()); // somebody is writing it
            }
            for line in bytes[..whole].split(|b| *b == b'\n') {
                self.take(line, news);
            }
            self.offset += whole as u64;
        }
    }

    fn take(&mut self, line: &[u8], news: &mut News) {
        if line.is_empty() {
            news.jobs.append(&mut self.group); // another write begins
        } else if let Some(mark) = Mark::read(line) {
            let Some(id) = mark.close else { return };
            let own = self.but_own && card_marks::is_own(&id);
            if let (Some(first), Some(last), false) = (mark.first, mark.last, mark.void) {
                // The lines came before the cards had their names.
                match last.checked_sub(first) {
                    Some(0..MOST_AT_ONCE) => news.jobs.extend(first..=last),
                    _ => news.lost = true, // nobody has written that
                }
            }
            match own {
                true => self.group.clear(),
                false => news.jobs.append(&mut self.group),
            }
        } else if let Ok(line) = serde_json::from_slice::<Line>(line)
            && line.event != SUBMITTED
        {
            self.group.push(line.job);
        }
    }

    /// Waits until something is told of this job, or it is time to look at it anyway; `false` once the
    /// deadline has passed, or whoever waits may not any more.
    pub fn wait_for(&mut self, job: u64, deadline: Instant) -> bool {
        let look_at = Instant::now() + LOOK_EVERY;
        loop {
            let news = self.news().unwrap_or_else(|_| {
                // What cannot be read is no reason to wait for it, but for a while.
                std::thread::sleep(
                    SLOWEST_LOOK.min(deadline.saturating_duration_since(Instant::now())),
                );
                News { jobs: Vec::new(), lost: true }
            });
            let now = Instant::now();
            if now >= deadline || !may_wait() {
                return false;
            }
            if news.lost || news.jobs.contains(&job) || now >= look_at {
                return true;
            }
            let left = look_at.min(deadline) - now;
            if !self.is_there() {
                std::thread::sleep(left.min(SLOWEST_LOOK));
                return true;
            }
            // On a busy board most of what is told is of others.
            if let Some(more) = self.idle_wakes.checked_sub(MANY).filter(|_| !self.watch.is_deaf())
            {
                std::thread::sleep((SOON * (1 << more.min(5))).min(SLOWEST_LOOK).min(left));
            }
            if self.watch.wait(left).is_err() {
                return true; // an error of the hint leaves the look
            }
            let waited = now.elapsed();
            self.idle_wakes = if waited >= QUIET { 0 } else { self.idle_wakes.saturating_add(1) };
        }
    }
}

fn id(meta: &Metadata) -> (u64, u64) {
    (meta.dev(), meta.ino())
}
