//! The engine's state: what it knows, and what it talks by. What is done with it, see the files that are
//! named in [`super`].

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use super::beside::Beside;
use super::doubts::Doubts;
use super::fairness::Fairness;
use super::gather::Gathered;
use super::index::{Index, Moment};
use super::lines::Lines;
use super::looks::Looks;
use super::outbox::Outbox;
use super::pace::Paces;
use super::presence::Presence;
use super::reserved::Reserving;
use super::roster::Roster;
use super::rules::Rules;
use super::silence::Silences;
use super::step::Step;
use super::strays::Strays;
use super::sweeps::Sweeps;
use super::voice::Voice;
use super::wake::Wake;
use crate::attempts::Said;
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
    pub(super) rules: Rules,
    pub(super) lines: Lines,
    pub(super) paces: Paces,
    pub(super) doubts: Doubts,
    pub(super) wakes: Receiver<Wake>,
    pub(super) waker: Sender<Wake>,
    pub(super) step: Step,
    pub(super) once: bool,
    pub(super) voice: Voice,
    /// Ends of tasks that are to be recorded later.
    pub(super) gathered: Gathered,
    /// Ends that could not be recorded, or may not survive a power loss: they are recorded again.
    pub(super) unsynced: BTreeMap<(String, NodejobId), Said>,
    pub(super) outbox: Outbox,
    pub(super) presence: Presence,
    /// Attempts of which nobody gives word, by their ids.
    pub(super) unheard: Silences,
    pub(super) strays: Strays,
    pub(super) looks: Looks,
    beside: Beside<'r>,
    pub(super) sweeps: Sweeps,
    pub(super) fairness: Fairness,
    pub(super) reserving: Reserving,
    pub(super) ending: bool,
}

impl<'r> Engine<'r> {
    /// An engine for this root. The caller holds the poller's lock. `quiet`: say nothing.
    pub fn new(root: &'r Root, step: Step, quiet: bool) -> Engine<'r> {
        let (waker, wakes) = channel();
        Engine {
            root,
            cards: Cards::new(root),
            index: Index::with(&root.settings),
            nodes: Roster::default(),
            rules: Rules::default(),
            lines: Lines::default(),
            paces: Paces::default(),
            doubts: Doubts::default(),
            wakes,
            waker,
            step,
            once: false,
            voice: Voice::new(quiet),
            gathered: Gathered::default(),
            unsynced: BTreeMap::new(),
            outbox: Outbox::default(),
            presence: Presence::new(Instant::now()),
            unheard: Silences::new(Instant::now()),
            strays: Strays::default(),
            looks: Looks::new(Moment::now()),
            beside: Beside::default(),
            sweeps: Sweeps::default(),
            fairness: Fairness::new(Instant::now()),
            reserving: Reserving::default(),
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
