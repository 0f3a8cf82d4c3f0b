//! One round after another: wake-ups in, transitions and orders out.
//!
//! A round takes in everything that came since the last one, records the nodes' reports with one
//! sync, stamps and moves what is to be placed with another, and only then talks to nodes. What a
//! crash cuts short is found by the next poller on the cards: a placed card is asked about, and
//! sent again if its node does not know it.

use std::time::{Duration, Instant};

use super::engine::{AFTER_TROUBLE, Engine};
use super::index::Moment;
use super::notice;
use crate::board::lock;
use crate::error::Result;
use crate::model::card::State;

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

/// The longest pause after something went wrong.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Longest time that [`Until::Idle`] takes.
const ONCE_AT_MOST: Duration = Duration::from_secs(50);

impl Engine<'_> {
    /// Works until the end that was asked for. What goes wrong with one card, node or scan is told
    /// and tried again later; the rest goes on. An error is returned by [`Until::Idle`] alone,
    /// after everything that could be done.
    pub fn run(&mut self, until: Until) -> Result<()> {
        self.once = until == Until::Idle;
        if self.once {
            self.voice.keep_last();
        }
        let recorded = self.take_up_unheard();
        self.told(recorded);
        self.step.follow(self.root);
        if !self.once {
            let (root, waker) = (self.root, self.waker.clone());
            self.beside(move || notice::watch_board(root, &waker));
            self.start_beside(); // before the first scan: nothing is between them
        }
        let begin = Instant::now();
        let mut next_scan = begin;
        let mut pause = AFTER_TROUBLE;
        let mut failed = false;
        let mut begun = true;
        while !self.ending {
            let patience = next_scan.saturating_duration_since(Instant::now());
            let wakes = self.next_wakes(patience, failed);
            lock::wait_once_for_all(); // whoever has it may be stopped
            self.presence.pass(Instant::now());
            self.unheard.pass(Instant::now());
            self.count_shares(); // before what has ended is no more in use
            self.hear(wakes);
            let scan = Instant::now() >= next_scan;
            if scan {
                next_scan = Instant::now() + self.root.settings.scan_every;
                self.scan();
                if begun {
                    begun = !self.take_up_shares();
                }
            }
            self.act();
            failed = self.voice.is_troubled();
            if !self.once && self.voice.take_trouble() {
                // What could not be recorded is still on the nodes and on the board.
                self.looks.begin_anew();
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
        if self.once {
            for error in self.presence.unasked() {
                self.told::<()>(Err(error)); // what was to be done there is not
            }
        }
        self.write_shares(true);
        self.reserve(true);
        self.save_all_records();
        let recorded = self.record_unheard();
        self.told(recorded);
        // What the nodes were to be told is told.
        self.acknowledge();
        // A round from cron ends when it has sent what it could: the next one would begin anew.
        self.lines.close(self.once);
        self.voice.last_words().map_or(Ok(()), Err)
    }

    /// Whether every node has said whether it is up, and all else that it was asked, and nothing is
    /// done beside.
    fn is_idle(&self) -> bool {
        !self.sweeps.is_at_work() && self.lines.are_quiet(|node| self.presence.knows(node))
    }

    /// The second half of a round: does what follows from what was heard, and from the time that has
    /// passed.
    fn act(&mut self) {
        self.give_up_unreachable();
        let expired = self.index.pass_time(Moment::now());
        let expired = self.expire(expired);
        self.told(expired);
        let placed = self.place();
        self.told(placed);
        self.reserve(false);
        if !self.once {
            self.save_records();
            self.write_shares(false);
        }
    }
}
