//! Listening to one node: while it answers, a thread follows its feed; while it does not, those who ask
//! silent nodes find out whether it does again. Nobody else is held up by it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::line::{Line, Open, ask};
use super::silent::{Listener, Silent};
use super::wake::News;
use crate::error::{Error, Kind, Result};
use crate::wire::feed::Since;
use crate::wire::node::Info;

/// How long one request for the feed waits at the node. Short enough for every proxy.
const FEED_WAIT: Duration = Duration::from_secs(25);

/// A node is asked again what it gives to jobs each so many scans, but at least each minute.
const SCANS_PER_INFO: u32 = 12;

/// See [`SCANS_PER_INFO`].
const INFO_EVERY: Duration = Duration::from_secs(60);

/// A page of the feed with more than so many lines comes from a busy node...
const BUSY: usize = 4;

/// ...where each question costs as much as a short job: the next one waits, so that its answer
/// has more to tell. Far shorter than the time for which jobs are sent ahead.
const GATHER: Duration = Duration::from_millis(20);

/// A node that says at once that nothing has happened, and does not wait for it, is asked again after
/// this; so is one whose feed does not go on.
const NOTHING_YET: Duration = Duration::from_millis(250);

/// A node's feed is begun anew no more often than this.
const NEW_EPOCHS: Duration = Duration::from_secs(1);

/// Who finds out how the node is.
#[derive(Debug, PartialEq, Eq)]
enum Holder {
    /// There was no thread for it.
    Nobody,
    /// Those who ask nodes that do not answer.
    Silent,
    /// The thread that follows its feed: the one that began at this time.
    Follower(Instant),
}

/// See the module. At any time there is one who finds out how the node is, or nobody for want of a
/// thread: a follower that finds another in its place ends.
pub struct Ear {
    line: Arc<Line>,
    silent: Arc<Silent>,
    holder: Mutex<Holder>,
}

impl Ear {
    /// Nobody listens yet.
    pub fn new(line: Arc<Line>, silent: Arc<Silent>) -> Arc<Ear> {
        Arc::new(Ear { line, silent, holder: Mutex::new(Holder::Nobody) })
    }

    /// Sees to it that somebody listens: there may have been no thread for it.
    pub fn tend(self: &Arc<Ear>) {
        self.hand_over_from(|holder| *holder == Holder::Nobody);
    }

    /// The node has not answered an order. What still hangs on its feed says nothing against that:
    /// the connection may be dead, or older than the server's end.
    pub fn suspect(self: &Arc<Ear>) {
        self.hand_over_from(|holder| matches!(holder, Holder::Follower(_)));
    }

    fn holder(&self) -> MutexGuard<'_, Holder> {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the node to those who ask silent ones, if this is so of who has it.
    fn hand_over_from(self: &Arc<Ear>, is_so: impl FnOnce(&Holder) -> bool) {
        let mut holder = self.holder();
        if is_so(&holder) {
            *holder = Holder::Silent;
            drop(holder);
            self.hand_over();
        }
    }

    fn hand_over(self: &Arc<Ear>) {
        self.line.note_answers(false);
        if let Err(error) = self.silent.add(self.clone()) {
            *self.holder() = Holder::Nobody;
            self.line.tell(News::Down(error));
        }
    }
}

impl Listener for Ear {
    fn line(&self) -> &Arc<Line> {
        &self.line
    }

    fn answered(self: Arc<Ear>) -> Result<()> {
        let begun = Instant::now();
        *self.holder() = Holder::Follower(begun);
        let ear = self.clone();
        let follower = Follower { ear, begun, driver: None, asked: None, is_hasty: false };
        self.line.spawn("feed", move || follower.run()).inspect_err(|_| {
            *self.holder() = Holder::Silent;
        })
    }
}

struct Follower {
    ear: Arc<Ear>,
    begun: Instant,
    driver: Open,
    /// When the node was last asked what it gives to jobs.
    asked: Option<Instant>,
    /// Whether it said that nothing has happened, or that its feed ends where it did, long before it
    /// had to.
    is_hasty: bool,
}

impl Follower {
    fn run(mut self) {
        let mut cursor: Option<String> = None;
        let mut anew = Instant::now();
        loop {
            let learnt = self.step(&mut cursor);
            if self.ear.line.is_closed() || *self.ear.holder() != Holder::Follower(self.begun) {
                return;
            }
            match learnt {
                Ok(news) => {
                    self.ear.line.backoff().answers();
                    self.ear.line.note_answers(true);
                    let is_busy =
                        |news: &News| matches!(news, News::Feed(events) if events.len() > BUSY);
                    let busy = news.iter().any(is_busy);
                    let told = news.into_iter().all(|news| self.ear.line.tell(news));
                    if !told || self.ear.line.is_once() {
                        return;
                    }
                    if busy {
                        thread::sleep(GATHER);
                    }
                    if self.is_hasty {
                        thread::sleep(NOTHING_YET);
                    }
                }
                Err(error) if error.kind == Kind::Gone && cursor.is_some() => {
                    cursor = None; // another epoch: begin anew, and let the engine ask
                    // One that always says so is not asked over and over.
                    thread::sleep(NEW_EPOCHS.saturating_sub(anew.elapsed()));
                    anew = Instant::now();
                }
                Err(error) => return self.lost(error),
            }
        }
    }

    fn lost(self, error: Error) {
        {
            let mut holder = self.ear.holder();
            if *holder != Holder::Follower(self.begun) {
                return;
            }
            *holder = Holder::Silent;
        }
        if self.ear.line.failed(error) {
            self.ear.hand_over();
        }
    }

    /// One question: without a cursor how the node is, and where its feed stands; then the feed,
    /// and now and then how the node is.
    fn step(&mut self, cursor: &mut Option<String>) -> Result<Vec<News>> {
        let line = self.ear.line.clone();
        if cursor.is_none() {
            // The cursor first: what happens after it is in the feed, what happened before it
            // the engine learns by asking for every job it has there.
            let now = Since { cursor: None, wait: Duration::ZERO };
            let page = ask(&line, &mut self.driver, |driver| driver.feed(&now))?;
            let info = self.info()?;
            *cursor = Some(page.cursor);
            return Ok(vec![News::Up(info.into())]);
        }
        let every = (line.root().settings.scan_every * SCANS_PER_INFO).min(INFO_EVERY);
        let wait = FEED_WAIT.min(every);
        let begun = Instant::now();
        let since = Since { cursor: cursor.as_deref(), wait };
        let page = ask(&line, &mut self.driver, |driver| driver.feed(&since))?;
        let stands = page.events.is_empty() || cursor.as_ref() == Some(&page.cursor);
        self.is_hasty = stands && begun.elapsed() < wait / 2;
        *cursor = Some(page.cursor);
        let mut news = vec![News::Feed(page.events)];
        if self.asked.is_none_or(|asked| asked.elapsed() >= every) {
            match self.info() {
                Ok(info) => news.push(News::Info(info.into())),
                Err(error) => {
                    // What the feed told is told in any case: it does not come back to it.
                    news.into_iter().for_each(|news| {
                        line.tell(news);
                    });
                    return Err(error);
                }
            }
        }
        Ok(news)
    }

    fn info(&mut self) -> Result<Info> {
        let info = ask(&self.ear.line, &mut self.driver, |driver| driver.info())?;
        self.asked = Some(Instant::now());
        Ok(info)
    }
}
