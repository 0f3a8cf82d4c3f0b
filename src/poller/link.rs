//! The line to one node. While it answers, one thread follows its change feed; while something is
//! ordered of it, another carries that out, and a third while files are sent to it. A node that is slow or gone holds up nobody else. What
//! is learnt goes to the engine as [`Wake`]s.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::desk::{Desk, Order};
use super::silent::{Backoff, Silent};
use super::{News, Wake};
use crate::board::root::Root;
use crate::driver::{self, Driver, Info};
use crate::error::{Error, Kind, Result};
use crate::model::node::{Address, Node};

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

/// Stack of a line's thread: a thousand nodes that answer are a thousand threads.
const STACK: usize = 256 << 10;

/// Which line: each that is opened is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineId(u64);

impl LineId {
    fn new() -> LineId {
        static LAST: AtomicU64 = AtomicU64::new(0);
        LineId(LAST.fetch_add(1, Ordering::Relaxed))
    }
}

/// The engine's end of a line. Dropped, the line's threads end after what they are doing.
pub struct Link {
    address: Address,
    line: Arc<Line>,
    /// Answers that are to come: one for each attempt that was sent, and for each question.
    pub outstanding: usize,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.line.closed.store(true, Ordering::Relaxed);
    }
}

impl Link {
    /// Opens the line. `once`: ask how the node is, and do not follow its feed.
    pub fn open(
        root: &Root,
        node: &Node,
        wakes: &Sender<Wake>,
        silent: &Arc<Silent>,
        once: bool,
    ) -> Link {
        let line = Arc::new(Line {
            id: LineId::new(),
            root: root.clone(),
            node: node.clone(),
            wakes: wakes.clone(),
            silent: silent.clone(),
            once,
            closed: AtomicBool::new(false),
            answers: AtomicBool::new(false),
            is_slowly_found: AtomicBool::new(false),
            holder: Mutex::new(Holder::Nobody),
            backoff: Mutex::default(),
            desk: Desk::new("orders", Line::desk),
            files: Desk::slow("files", Line::files),
        });
        let link = Link { address: node.address(), line, outstanding: 0 };
        link.tend();
        link
    }

    /// Whether what comes from this line is what the node says now.
    pub fn is(&self, line: LineId) -> bool {
        self.line.id == line
    }

    /// Where it leads: nothing goes anywhere else.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Whether the node answered when it was last asked.
    pub fn answers(&self) -> bool {
        self.line.answers.load(Ordering::Relaxed)
    }

    /// Gives an order, which is carried out after those before it. The answer comes as a wake-up,
    /// one for each order for which this returns `true`: others travel with those that wait.
    pub fn order(&self, order: Order) -> bool {
        let Order::Run(runs) = order else { return self.line.desk.put(order, &self.line) };
        // Files take their time, for which nothing else is to wait.
        let (slow, quick): (Vec<_>, Vec<_>) =
            runs.into_iter().partition(|run| !run.uploads.is_empty());
        let mut ordered = false;
        if !quick.is_empty() {
            ordered |= self.line.desk.put(Order::Run(quick), &self.line);
        }
        for run in slow {
            ordered |= self.line.files.put(Order::Run(vec![run]), &self.line);
        }
        ordered
    }

    /// Sees to it that somebody listens to the node, and carries out what is ordered: there may
    /// have been no thread for it.
    pub fn tend(&self) {
        self.line.desk.tend(&self.line);
        self.line.files.tend(&self.line);
        let mut holder = self.line.holder();
        if *holder == Holder::Nobody {
            *holder = Holder::Silent;
            drop(holder);
            self.line.hand_over();
        }
    }

    /// The node has not answered an order. What still hangs on its feed says nothing against that:
    /// the connection may be dead, or older than the server's end.
    pub fn suspect(&self) {
        let mut holder = self.line.holder();
        if matches!(*holder, Holder::Follower(_)) {
            *holder = Holder::Silent;
            drop(holder);
            self.line.hand_over();
        }
    }

    /// Before [`Link::close`], of all links: what is to be carried out yet, is at the same time.
    pub fn end(&self) {
        self.line.closed.store(true, Ordering::Relaxed);
        self.line.desk.end();
        self.line.files.end();
    }

    /// Waits until all orders are carried out, or have waited for too long; each of them has its own
    /// deadline. Files that are on their way are given up unless they are to be `sent`, which takes
    /// long: whoever is at work after this process sends them again.
    pub fn close(self, sent: bool) {
        self.end();
        self.line.desk.close(&self.line);
        if sent {
            self.line.files.close(&self.line);
        }
    }
}

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

/// What the threads of a line share.
pub struct Line {
    id: LineId,
    root: Root,
    node: Node,
    wakes: Sender<Wake>,
    silent: Arc<Silent>,
    once: bool,
    closed: AtomicBool,
    answers: AtomicBool,
    is_slowly_found: AtomicBool,
    holder: Mutex<Holder>,
    backoff: Mutex<Backoff>,
    desk: Desk,
    files: Desk,
}

impl Line {
    /// The head's root.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The node, as it was registered when the line was opened.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.node.name
    }

    /// Whether nobody wants to know any more how the node is.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// How long it is waited before the node is asked again.
    pub fn backoff(&self) -> MutexGuard<'_, Backoff> {
        self.backoff.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it took long to look up the node's name, the last time.
    pub fn is_slowly_found(&self) -> bool {
        self.is_slowly_found.load(Ordering::Relaxed)
    }

    /// Notes whether it did.
    pub fn note_found(&self, slowly: bool) {
        self.is_slowly_found.store(slowly, Ordering::Relaxed);
    }

    /// What is ordered of the node...
    pub fn desk(&self) -> &Desk {
        &self.desk
    }

    /// ...and what is sent to it with files.
    pub fn files(&self) -> &Desk {
        &self.files
    }

    fn holder(&self) -> MutexGuard<'_, Holder> {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the engine; `false` if it is gone.
    pub fn tell(&self, news: News) -> bool {
        self.wakes.send(Wake::Node { node: self.node.name.clone(), line: self.id, news }).is_ok()
    }

    /// The node did not answer those who ask silent ones; whether they are to ask again.
    pub fn failed(&self, error: Error) -> bool {
        self.answers.store(false, Ordering::Relaxed);
        let is_shortage = error.kind == Kind::Shortage;
        let told = self.tell(News::Down(error));
        told && !self.is_closed() && (!self.once || is_shortage)
    }

    /// The node answers: follows its feed from now on, by a thread.
    ///
    /// Errors: there is none to be had.
    pub fn follow(self: &Arc<Line>) -> Result<()> {
        let begun = Instant::now();
        *self.holder() = Holder::Follower(begun);
        let follower =
            Follower { line: self.clone(), begun, driver: None, asked: None, is_hasty: false };
        self.spawn("feed", move || follower.run()).inspect_err(|_| {
            *self.holder() = Holder::Silent;
        })
    }

    /// Starts a thread for this line.
    pub fn spawn(&self, what: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = thread::Builder::new().name(what.into()).stack_size(STACK);
        thread.spawn(work).map(|_| ()).map_err(|error| {
            let name = self.name();
            Error::new(Kind::Shortage, format!("no thread for node {name}: {error}"))
        })
    }

    /// Gives the node to those who ask silent ones.
    fn hand_over(self: &Arc<Line>) {
        self.answers.store(false, Ordering::Relaxed);
        if let Err(error) = self.silent.add(self.clone()) {
            *self.holder() = Holder::Nobody;
            self.tell(News::Down(error));
        }
    }
}

/// A node's driver, opened when it is needed, and anew after an error.
pub type Open = Option<Box<dyn Driver>>;

/// Asks a node something.
pub fn ask<T>(
    line: &Line,
    open: &mut Open,
    question: impl FnOnce(&dyn Driver) -> Result<T>,
) -> Result<T> {
    let driver = match open.take() {
        Some(driver) => driver,
        None => driver::open(line.root(), line.node())?,
    };
    let answer = question(driver.as_ref());
    if answer.is_ok() {
        *open = Some(driver);
    }
    answer
}

struct Follower {
    line: Arc<Line>,
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
            if self.line.is_closed() || *self.line.holder() != Holder::Follower(self.begun) {
                return;
            }
            match learnt {
                Ok(news) => {
                    self.line.backoff().answers();
                    self.line.answers.store(true, Ordering::Relaxed);
                    let is_busy =
                        |news: &News| matches!(news, News::Feed(events) if events.len() > BUSY);
                    let busy = news.iter().any(is_busy);
                    let told = news.into_iter().all(|news| self.line.tell(news));
                    if !told || self.line.once {
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
            let mut holder = self.line.holder();
            if *holder != Holder::Follower(self.begun) {
                return;
            }
            *holder = Holder::Silent;
        }
        if self.line.failed(error) {
            self.line.hand_over();
        }
    }

    /// One question: without a cursor how the node is, and where its feed stands; then the feed,
    /// and now and then how the node is.
    fn step(&mut self, cursor: &mut Option<String>) -> Result<Vec<News>> {
        let line = self.line.clone();
        if cursor.is_none() {
            // The cursor first: what happens after it is in the feed, what happened before it
            // the engine learns by asking for every job it has there.
            let page = ask(&line, &mut self.driver, |driver| driver.feed(None, Duration::ZERO))?;
            let resources = self.info()?;
            *cursor = Some(page.cursor);
            return Ok(vec![News::Up(resources)]);
        }
        let every = (line.root.settings.scan_every * SCANS_PER_INFO).min(INFO_EVERY);
        let wait = FEED_WAIT.min(every);
        let begun = Instant::now();
        let page = ask(&line, &mut self.driver, |driver| driver.feed(cursor.as_deref(), wait))?;
        let stands = page.events.is_empty() || cursor.as_ref() == Some(&page.cursor);
        self.is_hasty = stands && begun.elapsed() < wait / 2;
        *cursor = Some(page.cursor);
        let mut news = vec![News::Feed(page.events)];
        if self.asked.is_none_or(|asked| asked.elapsed() >= every) {
            match self.info() {
                Ok(resources) => news.push(News::Info(resources)),
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

    fn info(&mut self) -> Result<crate::model::resources::Resources> {
        let Info { resources } = ask(&self.line, &mut self.driver, |driver| driver.info())?;
        self.asked = Some(Instant::now());
        Ok(resources)
    }
}
