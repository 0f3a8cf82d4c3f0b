//! One round after another: wake-ups in, transitions and orders out.
//!
//! A round takes in everything that came since the last one, records the nodes' reports with one
//! sync, stamps and moves what is to be placed with another, and only then talks to nodes. What a
//! crash cuts short is found by the next poller on the cards: a placed card is asked about, and
//! sent again if its node does not know it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime};

use super::Wake;
use super::index::Index;
use super::link::Link;
use super::notice;
use super::step::Step;
use crate::board::cards::Cards;
use crate::board::root::Root;
use crate::error::Result;
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

/// Pause after a round that failed.
const AFTER_ERROR: Duration = Duration::from_millis(500);

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
    pub(super) wakes: Receiver<Wake>,
    pub(super) waker: Sender<Wake>,
    pub(super) step: Step,
    pub(super) once: bool,
    pub(super) quiet: bool,
    /// Answers that are outstanding: one for each attempt that was sent, and for each question.
    pub(super) outstanding: usize,
    pub(super) seen: BTreeMap<String, Instant>,
    pub(super) scans: u32,
    /// When queue and running cards last changed, once they were looked at after that.
    pub(super) settled: Option<(SystemTime, SystemTime)>,
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
            wakes,
            waker,
            step,
            once: false,
            quiet,
            outstanding: 0,
            seen: BTreeMap::new(),
            scans: 0,
            settled: None,
            ending: false,
        }
    }

    /// Where to send wake-ups.
    pub fn waker(&self) -> Sender<Wake> {
        self.waker.clone()
    }

    /// Works until the end that was asked for. An error of one round (a full disk, say) is told,
    /// and the work goes on at the next scan.
    pub fn run(&mut self, until: Until) -> Result<()> {
        self.once = until == Until::Idle;
        if !self.once {
            notice::watch_board(self.root, &self.waker)?;
        }
        let begin = Instant::now();
        let mut next_scan = begin;
        while !self.ending {
            let now = Instant::now();
            let mut wakes = Vec::new();
            let scan = now >= next_scan;
            if scan {
                next_scan = now + self.root.settings.scan_every;
            } else {
                wakes.extend(self.next_wakes(next_scan - now));
            }
            let result = if scan { self.scan() } else { Ok(()) };
            if let Err(error) = result.and_then(|()| self.round(wakes)) {
                eprintln!("poller: {}", error.message);
                // What could not be recorded is still on the nodes and on the board.
                std::thread::sleep(AFTER_ERROR);
                self.scans = 0;
                next_scan = Instant::now();
                self.resync_all();
            }
            let done = match until {
                Until::End => false,
                Until::Idle => {
                    self.outstanding == 0 && self.all_answered() || begin.elapsed() > ONCE_AT_MOST
                }
                Until::Stopped(job) => {
                    !self.index.knows(job)
                        && self.cards.find(job).is_ok_and(|card| card.state == State::Stopped)
                }
            };
            if done {
                break;
            }
        }
        // What the nodes were to be told is told.
        for (_, link) in std::mem::take(&mut self.links) {
            link.close();
        }
        Ok(())
    }

    /// Whether every node has said whether it is up.
    fn all_answered(&self) -> bool {
        self.links.keys().all(|node| self.seen.contains_key(node))
    }

    fn next_wakes(&mut self, patience: Duration) -> Vec<Wake> {
        let soon = self
            .index
            .next_time()
            .map(|time| time.duration_since(SystemTime::now()).unwrap_or_default());
        let patience = soon.map_or(patience, |soon| soon.min(patience));
        let patience = if self.once { patience.min(Duration::from_millis(100)) } else { patience };
        match self.wakes.recv_timeout(patience) {
            Ok(first) => std::iter::once(first).chain(self.wakes.try_iter()).collect(),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Vec::new(),
        }
    }

    /// Wake-ups that come until the deadline.
    pub(super) fn wakes_until(&mut self, deadline: Instant) -> Vec<Wake> {
        let patience = deadline.saturating_duration_since(Instant::now());
        self.wakes.recv_timeout(patience).into_iter().collect()
    }

    pub(super) fn say(&self, line: &str) {
        if !self.quiet {
            eprintln!("{line}");
        }
    }

    fn round(&mut self, wakes: Vec<Wake>) -> Result<()> {
        let mut reports = Vec::new();
        let mut touched = BTreeSet::new();
        for wake in wakes {
            match wake {
                Wake::Card(job) => {
                    touched.insert(job);
                }
                Wake::Batch => {}
                Wake::Nodes => self.load_nodes()?,
                Wake::Overflow => {
                    self.scans = 0;
                    self.scan()?;
                }
                Wake::End => self.ending = true,
                Wake::Up { node, resources } => self.up(&node, resources)?,
                Wake::Down { node, error } => {
                    self.down(&node, &error)?;
                    self.give_up_unreachable()?;
                }
                Wake::Feed { node, events } => {
                    self.heard(&node)?;
                    self.paces.note(&node, &events);
                    reports.extend(events);
                }
                Wake::Sent { node, ids, results } => self.sent(&node, ids, results)?,
                Wake::Statuses { node, ids, answers } => {
                    reports.extend(self.statuses(&node, ids, answers)?);
                }
                Wake::Killed { node, id, status } => {
                    reports.extend(self.killed(&node, &id, status));
                }
            }
        }
        self.record(reports)?;
        for job in touched {
            self.look(job)?;
        }
        let expired = self.index.pass_time(SystemTime::now());
        self.expire(expired)?;
        self.place()
    }
}
