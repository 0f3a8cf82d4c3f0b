//! The nodes' records as the engine knows them, and what it has seen of the nodes on its way there.
//!
//! What is seen of a node counts at once, and is written down by a thread beside the engine, for
//! many nodes together: no job waits for a record, however many nodes fall silent at a time. A
//! crash loses what was seen in the last few seconds; it is seen again.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use super::Wake;
use super::engine::Engine;
use crate::board::nodes::{self, Version};
use crate::error::{Error, Kind, Result};
use crate::model::node::Node;

/// Between two times that records are written.
const SAVE_EVERY: Duration = Duration::from_secs(2);

const STACK: usize = 128 << 10;

/// What is known of the records beside what they say.
#[derive(Debug, Default)]
pub struct Records {
    /// Which versions of them were read.
    versions: BTreeMap<String, Version>,
    /// Which could not be read the last time.
    unreadable: BTreeSet<String>,
    /// Whether it could not be known then which there are.
    unlisted: bool,
    /// Nodes of which more is known than their records say.
    unsaved: BTreeSet<String>,
    /// Those of them that are being written.
    saving: BTreeSet<String>,
    /// Not to be written before.
    save_at: Option<Instant>,
}

impl Records {
    /// When something is to be written.
    pub fn due(&self) -> Option<Instant> {
        let is_free = self.saving.is_empty() && !self.unsaved.is_empty();
        is_free.then(|| self.save_at.unwrap_or_else(Instant::now))
    }
}

impl Engine<'_> {
    /// What is registered now, each with what was seen of it since its record was written. Only
    /// records that changed are read. One that cannot be is not gone: it keeps what it has, and gets
    /// nothing new until it can be read.
    pub(super) fn read_records(&mut self) -> Result<BTreeMap<String, Node>> {
        let mut fresh = BTreeMap::new();
        self.records.unlisted = true;
        let names = nodes::names(self.root)?;
        self.records.unlisted = false;
        let before = std::mem::take(&mut self.records.unreadable);
        for name in names {
            let version = nodes::version(self.root, &name);
            let known = self.nodes.get(&name);
            if let (Ok(Some(version)), Some(known)) = (&version, known)
                && self.records.versions.get(&name) == Some(version)
            {
                fresh.insert(name, known.clone());
                continue;
            }
            self.records.versions.remove(&name);
            let node = match nodes::find(self.root, &name) {
                Ok(Some(mut node)) => {
                    if let Some(known) = known.filter(|_| self.records.is_unsaved(&name)) {
                        node.take_observed(known);
                    }
                    if let Ok(Some(version)) = version {
                        self.records.versions.insert(name.clone(), version);
                    }
                    node
                }
                Ok(None) => continue, // has just been removed
                Err(error) => {
                    let known = known.map(|known| Node { drain: true, ..known.clone() });
                    self.records.unreadable.insert(name.clone());
                    if error.kind == Kind::Unavailable {
                        self.told::<()>(Err(error));
                    } else if !before.contains(&name) {
                        eprintln!("poller: {}; it gets no new jobs", error.message);
                    }
                    let Some(known) = known else { continue };
                    known
                }
            };
            fresh.insert(name, node);
        }
        self.records.versions.retain(|name, _| fresh.contains_key(name));
        self.records.unsaved.retain(|name| fresh.contains_key(name));
        Ok(fresh)
    }

    /// Whether a node is not known because its record cannot be read: it is registered, and where is
    /// not known.
    pub(super) fn is_unreadable(&self, node: &str) -> bool {
        self.records.unlisted || self.records.unreadable.contains(node)
    }

    /// Something was seen of a node.
    pub(super) fn note(&mut self, node: &str, change: impl FnOnce(&mut Node)) {
        let Some(record) = self.nodes.get_mut(node) else { return };
        let before = record.clone();
        change(record);
        if *record != before {
            self.index.rooms.update(record);
            self.records.unsaved.insert(node.to_string());
        }
    }

    /// The same of what is told to others: it is durable when this returns.
    pub(super) fn observe(&mut self, node: &str, change: impl Fn(&mut Node)) -> Result<()> {
        nodes::observe(self.root, node, &change)?;
        self.nodes.get_mut(node).into_iter().for_each(change);
        Ok(())
    }

    /// Begins to write down what was seen, if it is time.
    pub(super) fn save_records(&mut self) {
        if self.records.due().is_none_or(|due| due > Instant::now()) {
            return;
        }
        self.records.save_at = Some(Instant::now() + SAVE_EVERY);
        self.records.saving = std::mem::take(&mut self.records.unsaved);
        let seen = self.seen_of(&self.records.saving);
        let (root, wakes) = (self.root.clone(), self.waker.clone());
        let work = move || {
            let failed = nodes::save_observed(&root, &seen);
            let _ = wakes.send(Wake::Saved { failed }); // an engine that is gone has ended
        };
        let thread = thread::Builder::new().name("records".into()).stack_size(STACK);
        if let Err(error) = thread.spawn(work) {
            let error = Error::new(Kind::Shortage, format!("no thread for the records: {error}"));
            self.complain(error);
            let saving = std::mem::take(&mut self.records.saving);
            self.records.unsaved.extend(saving);
        }
    }

    /// What was seen is written down, but for these.
    pub(super) fn saved(&mut self, failed: Vec<(String, Error)>) {
        self.records.saving.clear();
        for (node, error) in failed {
            self.records.unsaved.insert(node);
            self.complain(error);
        }
    }

    /// Writes down what was seen, at the end.
    pub(super) fn save_all_records(&mut self) {
        let mut unsaved = std::mem::take(&mut self.records.unsaved);
        unsaved.append(&mut self.records.saving);
        for (_, error) in nodes::save_observed(self.root, &self.seen_of(&unsaved)) {
            self.told::<()>(Err(error));
        }
    }

    fn seen_of(&self, names: &BTreeSet<String>) -> Vec<Node> {
        names.iter().filter_map(|name| self.nodes.get(name)).cloned().collect()
    }
}

impl Records {
    fn is_unsaved(&self, node: &str) -> bool {
        self.unsaved.contains(node) || self.saving.contains(node)
    }
}
