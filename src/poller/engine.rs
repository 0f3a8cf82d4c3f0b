//! One round after another: wake-ups in, transitions and orders out.
//!
//! A round takes in everything that came since the last one, records the nodes' reports with one
//! sync, stamps and moves what is to be placed with another, and only then talks to nodes. What a
//! crash cuts short is found by the next poller on the cards: a placed card is asked about, and
//! sent again if its node does not know it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant, SystemTime};

use super::Wake;
use super::belief::Doubts;
use super::gather::Gathered;
use super::index::Index;
use super::link::Link;
use super::notice;
use super::records::Records;
use super::silence::Silences;
use super::silent::Silent;
use super::step::Step;
use super::sweeping::Sweeper;
use crate::board::cards::Cards;
use crate::board::root::Root;
use crate::error::{Error, Result};
use crate::model::card::State;
use crate::model::node::Node;

use super::pace::Paces;

/// Whether to go on after a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Until asked to end.
    End,
    /// Until nothing is left to do at once: for cron.
    Idle,
    /// Until this job has ended.
    Stopped(u64),
}

/// Everything is looked at again so soon after something went wrong; each time twice as late.
pub(super) const AFTER_TROUBLE: Duration = Duration::from_millis(500);

/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How often an error is told that stays the same.
pub(super) const SAME_TROUBLE_EVERY: Duration = Duration::from_secs(60);

/// Longest time that [`Until::Idle`] takes.
const ONCE_AT_MOST: Duration = Duration::from_secs(50);

/// See the module.
pub struct Engine<'r> {
    pub(super) root: &'r Root,
    pub(super) cards: Cards<'r>,
    pub(super) index: Index,
    pub(super) nodes: BTreeMap<String, Node>,
    pub(super) links: BTreeMap<String, Link>,
    pub(super) paces: Paces,
    pub(super) doubts: Doubts,
    pub(super) wakes: Receiver<Wake>,
    pub(super) waker: Sender<Wake>,
    pub(super) step: Step,
    pub(super) once: bool,
    pub(super) quiet: bool,
    /// Ends of tasks that are to be recorded later.
    pub(super) gathered: Gathered,
    /// Results that are safe here and whose nodes do not know it yet.
    pub(super) unacknowledged: BTreeMap<String, Vec<String>>,
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
    pub(super) orphans: BTreeSet<(String, String)>,
    /// Who finds out whether nodes answer that did not.
    pub(super) silent: Arc<Silent>,
    pub(super) records: Records,
    /// What threads are to do that could not be started yet.
    to_start: Vec<Box<dyn FnMut() -> Result<()> + 'r>>,
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
    /// What went wrong last, and when it was told.
    pub(super) trouble: Option<(Error, Instant)>,
    pub(super) troubled: bool,
    /// When it was last told that this process lacks something.
    pub(super) complained: Option<Instant>,
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
            nodes: BTreeMap::new(),
            links: BTreeMap::new(),
            paces: Paces::default(),
            doubts: Doubts::default(),
            wakes,
            waker,
            step,
            once: false,
            quiet,
            gathered: Gathered::default(),
            unacknowledged: BTreeMap::new(),
            acknowledge_at: None,
            seen: BTreeMap::new(),
            silences: Silences::new(Instant::now()),
            unheard: Silences::new(Instant::now()),
            unreachable: BTreeSet::new(),
            orphans: BTreeSet::new(),
            silent: Arc::default(),
            records: Records::default(),
            to_start: Vec::new(),
            scans: 0,
            sweeper: Sweeper::default(),
            clock: (SystemTime::now(), Instant::now()),
            settled: None,
            unchanged_waiting: None,
            no_batches: None,
            trouble: None,
            troubled: false,
            complained: None,
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
        self.to_start.push(Box::new(start));
    }

    pub(super) fn start_beside(&mut self) {
        let mut left = std::mem::take(&mut self.to_start);
        left.retain_mut(|start| match start() {
            Ok(()) => false,
            Err(error) => {
                self.complain(error);
                true
            }
        });
        self.to_start = left;
    }

    /// Works until the end that was asked for. What goes wrong with one card, node or scan is told
    /// and tried again later; the rest goes on. An error is returned by [`Until::Idle`] alone,
    /// after everything that could be done.
    pub fn run(&mut self, until: Until) -> Result<()> {
        self.once = until == Until::Idle;
        let recorded = self.take_up_unheard();
        self.told(recorded);
        self.step.follow(self.root);
        if !self.once {
            let (root, waker) = (self.root, self.waker.clone());
            self.beside(move || notice::watch_board(root, &waker));
            self.sweep_beside();
            self.start_beside(); // before the first scan: nothing is between them
        }
        let begin = Instant::now();
        let mut next_scan = begin;
        let mut pause = AFTER_TROUBLE;
        let mut failed = false;
        while !self.ending {
            let patience = next_scan.saturating_duration_since(Instant::now());
            let wakes = self.next_wakes(patience, failed);
            self.silences.pass(Instant::now());
            self.unheard.pass(Instant::now());
            self.hear(wakes);
            let scan = Instant::now() >= next_scan;
            if scan {
                next_scan = Instant::now() + self.root.settings.scan_every;
                self.scan();
            }
            self.act();
            failed = self.troubled;
            if self.troubled && !self.once {
                // What could not be recorded is still on the nodes and on the board.
                self.troubled = false;
                self.scans = 0;
                next_scan = next_scan.min(Instant::now() + pause);
                pause = (pause * 2).min(LONGEST_PAUSE);
            } else if scan {
                pause = AFTER_TROUBLE;
            }
            let done = match until {
                Until::End => false,
                Until::Idle => self.is_idle() || begin.elapsed() > ONCE_AT_MOST,
                Until::Stopped(job) => {
                    !self.index.knows(job)
                        && self.cards.find(job).is_ok_and(|card| card.state == State::Stopped)
                }
            };
            if done {
                break;
            }
        }
        self.save_all_records();
        let recorded = self.record_unheard();
        self.told(recorded);
        // What the nodes were to be told is told.
        self.acknowledge();
        self.links.values().for_each(Link::end);
        for (_, link) in std::mem::take(&mut self.links) {
            // A round from cron ends when it has sent what it could: the next one would begin anew.
            link.close(self.once);
        }
        match self.trouble.take().filter(|_| self.once && self.troubled) {
            Some((error, _)) => Err(error),
            None => Ok(()),
        }
    }

    /// The result, or `None` for an error, which is told: one bad card, node or disk must not
    /// keep the rest from being done. The same error is told once a minute.
    pub(super) fn told<T>(&mut self, result: Result<T>) -> Option<T> {
        let error = match result {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        self.troubled = true;
        let news = self.trouble.as_ref().is_none_or(|(last, at)| {
            last.message != error.message || at.elapsed() > SAME_TROUBLE_EVERY
        });
        if news {
            let before = self.trouble.replace((error, Instant::now()));
            // The last one of a round from cron is what the program ends with.
            let told = if self.once { before.as_ref() } else { self.trouble.as_ref() };
            if let Some((error, _)) = told {
                eprintln!("poller: {}", error.message);
            }
        }
        None
    }

    /// Tells that this process lacks something, for which nobody else can be blamed; once a minute.
    pub(super) fn complain(&mut self, error: Error) {
        let recent = self.complained.is_some_and(|at| at.elapsed() < SAME_TROUBLE_EVERY);
        if !recent {
            self.complained = Some(Instant::now());
            eprintln!("poller: {}", error.message);
        }
    }

    /// Whether every node has said whether it is up, and all else that it was asked.
    fn is_idle(&self) -> bool {
        self.links.iter().all(|(node, link)| link.outstanding == 0 && self.seen.contains_key(node))
    }

    pub(super) fn say(&self, line: &str) {
        if !self.quiet {
            eprintln!("{line}");
        }
    }

    /// The second half of a round: does what follows from what was heard, and from the time that has
    /// passed.
    fn act(&mut self) {
        self.give_up_unreachable();
        let expired = self.index.pass_time(SystemTime::now());
        let expired = self.expire(expired);
        self.told(expired);
        let placed = self.place();
        self.told(placed);
        if !self.once {
            self.save_records();
        }
    }
}
