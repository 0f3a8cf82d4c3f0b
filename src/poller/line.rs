//! What all that talk to one node share: where it is, who is told of it, whether anybody still wants to
//! know.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use super::backoff::Backoff;
use super::wake::{LineId, News, Wake};
use crate::board::root::Root;
use crate::driver::{self, Driver};
use crate::error::{Error, Kind, Result};
use crate::model::node::Node;

/// Stack of a line's thread: a thousand nodes that answer are a thousand threads.
const STACK: usize = 256 << 10;

/// A line to a node. Once closed it stays so: what is learnt after that concerns nobody.
pub struct Line {
    id: LineId,
    root: Root,
    node: Node,
    wakes: Sender<Wake>,
    once: bool,
    closed: AtomicBool,
    answers: AtomicBool,
    is_slowly_found: AtomicBool,
    backoff: Mutex<Backoff>,
}

impl Line {
    /// A line to this node, which tells what is learnt by `wakes`. `once`: it is asked how it is, and
    /// not listened to.
    pub fn new(root: &Root, node: &Node, wakes: &Sender<Wake>, once: bool) -> Line {
        Line {
            id: LineId::new(),
            root: root.clone(),
            node: node.clone(),
            wakes: wakes.clone(),
            once,
            closed: AtomicBool::new(false),
            answers: AtomicBool::new(false),
            is_slowly_found: AtomicBool::new(false),
            backoff: Mutex::default(),
        }
    }

    /// Which line this is.
    pub fn id(&self) -> LineId {
        self.id
    }

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

    /// Whether the node is asked but once how it is.
    pub fn is_once(&self) -> bool {
        self.once
    }

    /// From now on nobody wants to know any more how the node is.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Whether that is so.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Whether the node answered when it was last asked.
    pub fn answers(&self) -> bool {
        self.answers.load(Ordering::Relaxed)
    }

    /// Notes whether it did.
    pub fn note_answers(&self, answers: bool) {
        self.answers.store(answers, Ordering::Relaxed);
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

    /// Tells the engine; `false` if it is gone.
    pub fn tell(&self, news: News) -> bool {
        self.wakes.send(Wake::Node { node: self.node.name.clone(), line: self.id, news }).is_ok()
    }

    /// The node did not answer those who ask silent ones; whether they are to ask again.
    pub fn failed(&self, error: Error) -> bool {
        self.note_answers(false);
        let is_shortage = error.kind == Kind::Shortage;
        let told = self.tell(News::Down(error));
        told && !self.is_closed() && (!self.once || is_shortage)
    }

    /// Starts a thread for this line.
    pub fn spawn(&self, what: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = thread::Builder::new().name(what.into()).stack_size(STACK);
        thread.spawn(work).map(|_| ()).map_err(|error| {
            let name = self.name();
            Error::new(Kind::Shortage, format!("no thread for node {name}: {error}"))
        })
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
