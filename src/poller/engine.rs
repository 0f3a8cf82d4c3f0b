//! The engine's state: what it knows, and what it talks by. What is done with it, see the files that are
//! named in [`super`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant, SystemTime};

use super::beside::Beside;
use super::doubts::Doubts;
use super::gather::Gathered;
use super::index::Index;
use super::link::Link;
use super::pace::Paces;
use super::roster::Roster;
use super::silence::Silences;
use super::silent::Silent;
use super::step::Step;
use super::sweeping::Sweeper;
use super::voice::Voice;
use super::wake::Wake;
use crate::board::cards::Cards;
use crate::board::root::Root;
use crate::error::{Error, Result};
use crate::model::ids::NodejobId;

/// Everything is looked at again so soon after something went wrong; each time twice as late.
pub(super) const AFTER_TROUBLE: Duration = Duration::from_millis(500);

/// See the module.
pub struct Engine<'r> {
    pub(super) root: &'r Root,
    pub(super) cards: Cards<'r>,
    pub(super) index: Index,
    pub(super) nodes: Roster,
    pub(super) links: BTreeMap<String, Link>,
    pub(super) paces: Paces,
    pub(super) doubts: Doubts,
    pub(super) wakes: Receiver<Wake>,
    pub(super) waker: Sender<Wake>,
    pub(super) step: Step,
    pub(super) once: bool,
    pub(super) voice: Voice,
    /// Ends of tasks that are to be recorded later.
    pub(super) gathered: Gathered,
    /// Results that are safe here and whose nodes do not know it yet.
    pub(super) unacknowledged: BTreeMap<String, Vec<NodejobId>>,
    /// When they are to be told at the latest.
    pub(super) acknowledge_at: Option<Instant>,
    /// When each node last answered, or failed to.
    pub(super) seen: BTreeMap<String, Instant>,
    /// The nodes that do not answer, as seen by this process.
    pub(super) silences: Silences,
    /// Attempts of which nobody gives word, by their ids, likewise.
    pub(super) unheard: Silences,
    /// Those that have not for so long that their jobs are to be given up.
    pub(super) unreachable: BTreeSet<String>,
    /// Runs that nodes are being asked about because the cards of their jobs cannot be read: node and
    /// id.
    pub(super) orphans: BTreeSet<(String, NodejobId)>,
    /// Who finds out whether nodes answer that did not.
    pub(super) silent: Arc<Silent>,
    beside: Beside<'r>,
    pub(super) scans: u32,
    pub(super) sweeper: Sweeper,
    /// What time it was at the last scan, by the clock and by what goes on steadily.
    pub(super) clock: (SystemTime, Instant),
    /// When queue and running cards last changed, once they were looked at after that.
    pub(super) settled: Option<(SystemTime, SystemTime)>,
    /// When a waiting card was last changed in place, once all were looked at after that.
    pub(super) unchanged_waiting: Option<SystemTime>,
    /// When the queue last changed, if after that no batch was in it.
    pub(super) no_batches: Option<SystemTime>,
    pub(super) ending: bool,
}

impl<'r> Engine<'r> {
    /// An engine for this root. The caller holds the poller's lock. `quiet`: say nothing.
    pub fn new(root: &'r Root, step: Step, quiet: bool) -> Engine<'r> {
        let (waker, wakes) = channel();
        Engine {
            root,
            cards: Cards::new(root),
            index: Index::default(),
            nodes: Roster::default(),
            links: BTreeMap::new(),
            paces: Paces::default(),
            doubts: Doubts::default(),
            wakes,
            waker,
            step,
            once: false,
            voice: Voice::new(quiet),
            gathered: Gathered::default(),
            unacknowledged: BTreeMap::new(),
            acknowledge_at: None,
            seen: BTreeMap::new(),
            silences: Silences::new(Instant::now()),
            unheard: Silences::new(Instant::now()),
            unreachable: BTreeSet::new(),
            orphans: BTreeSet::new(),
            silent: Arc::default(),
            beside: Beside::default(),
            scans: 0,
            sweeper: Sweeper::default(),
            clock: (SystemTime::now(), Instant::now()),
            settled: None,
            unchanged_waiting: None,
            no_batches: None,
            ending: false,
        }
    }

    /// Where to send wake-ups.
    pub fn waker(&self) -> Sender<Wake> {
        self.waker.clone()
    }

    /// Something that a thread is to do while this works: `start` starts it. Where no thread is to be had
    /// it is tried again with every scan; nothing here depends on it.
    pub fn beside(&mut self, start: impl FnMut() -> Result<()> + 'r) {
        self.beside.add(start);
    }

    pub(super) fn start_beside(&mut self) {
        for error in self.beside.start() {
            self.complain(error);
        }
    }

    /// See [`Voice::told`].
    pub(super) fn told<T>(&mut self, result: Result<T>) -> Option<T> {
        self.voice.told(result)
    }

    /// See [`Voice::complain`].
    pub(super) fn complain(&mut self, error: Error) {
        self.voice.complain(error);
    }

    pub(super) fn say(&self, line: &str) {
        self.voice.say(line);
    }
}
