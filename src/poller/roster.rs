//! The nodes as the engine knows them: what is registered, and what was seen of them since.
//!
//! What is seen of a node counts at once, and is written down by a thread beside the engine, for
//! many nodes together: no job waits for a record, however many nodes fall silent at a time. A
//! crash loses what was seen in the last few seconds; it is seen again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::board::files::Version;
use crate::board::nodes;
use crate::board::root::Root;
use crate::error::{Error, Kind, Result};
use crate::model::node::Node;

/// Between two times that records are written.
const SAVE_EVERY: Duration = Duration::from_secs(2);

/// See the module. Only of nodes that are known there is a version, and something to be written; what
/// is being written is not to be begun again before that is over; a node whose record cannot be read
/// gets nothing new.
#[derive(Debug, Default)]
pub struct Roster {
    nodes: BTreeMap<String, Node>,
    /// Which versions of their records were read.
    versions: BTreeMap<String, Version>,
    /// Which could not be read the last time.
    unreadable: BTreeSet<String>,
    /// Whether it could not be known then which there are.
    unlisted: bool,
    /// Nodes of which more is known than their records say.
    unsaved: BTreeSet<String>,
    /// Those that are being written.
    saving: BTreeSet<String>,
    /// Not to be written before.
    save_at: Option<Instant>,
}

/// What is registered now.
pub struct Fresh {
    /// Each node with what was seen of it since its record was written.
    pub nodes: BTreeMap<String, Node>,
    /// What kept records from being read, and may be over the next time.
    pub trouble: Vec<Error>,
}

impl Roster {
    /// A node, if it is known.
    pub fn get(&self, node: &str) -> Option<&Node> {
        self.nodes.get(node)
    }

    /// All nodes, by name.
    pub fn values(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.nodes.keys()
    }

    /// Reads what is registered; only records that changed are read. One that cannot be is not gone: it
    /// keeps what it has, and gets nothing new until it can be read. See [`Roster::replace`].
    pub fn read(&mut self, root: &Root) -> Result<Fresh> {
        let mut fresh = Fresh { nodes: BTreeMap::new(), trouble: Vec::new() };
        self.unlisted = true;
        let names = nodes::names(root)?;
        self.unlisted = false;
        let before = std::mem::take(&mut self.unreadable);
        for name in names {
            let version = nodes::version(root, &name);
            let known = self.nodes.get(&name);
            if let (Ok(Some(version)), Some(known)) = (&version, known)
                && self.versions.get(&name) == Some(version)
            {
                fresh.nodes.insert(name, known.clone());
                continue;
            }
            self.versions.remove(&name);
            let node = match nodes::find(root, &name) {
                Ok(Some(mut node)) => {
                    if let Some(known) = known.filter(|_| self.is_unsaved(&name)) {
                        node.take_observed(known);
                    }
                    if let Ok(Some(version)) = version {
                        self.versions.insert(name.clone(), version);
                    }
                    node
                }
                Ok(None) => continue, // has just been removed
                Err(error) => {
                    let known = known.map(|known| Node { drain: true, ..known.clone() });
                    self.unreadable.insert(name.clone());
                    if error.kind == Kind::Unavailable {
                        fresh.trouble.push(error);
                    } else if !before.contains(&name) {
                        eprintln!("poller: {}; it gets no new jobs", error.message);
                    }
                    let Some(known) = known else { continue };
                    known
                }
            };
            fresh.nodes.insert(name, node);
        }
        Ok(fresh)
    }

    /// Takes over what was read.
    pub fn replace(&mut self, fresh: BTreeMap<String, Node>) {
        self.nodes = fresh;
        self.versions.retain(|name, _| self.nodes.contains_key(name));
        self.unsaved.retain(|name| self.nodes.contains_key(name));
        debug_assert!(self.holds(), "{self:?}");
    }

    /// Whether a node is not known because its record cannot be read: it is registered, and where is
    /// not known.
    pub fn is_unreadable(&self, node: &str) -> bool {
        self.unlisted || self.unreadable.contains(node)
    }

    /// Something was seen of a node; the node as it is now if that was new.
    pub fn note(&mut self, node: &str, change: impl FnOnce(&mut Node)) -> Option<&Node> {
        let record = self.nodes.get_mut(node)?;
        let before = record.clone();
        change(record);
        if *record == before {
            return None;
        }
        self.unsaved.insert(node.to_string());
        Some(record)
    }

    /// The same, which is in its record by now.
    pub fn note_saved(&mut self, node: &str, change: impl FnOnce(&mut Node)) {
        if let Some(record) = self.nodes.get_mut(node) {
            change(record);
        }
    }

    /// When something is to be written.
    pub fn due(&self) -> Option<Instant> {
        let is_free = self.saving.is_empty() && !self.unsaved.is_empty();
        is_free.then(|| self.save_at.unwrap_or_else(Instant::now))
    }

    /// What is to be written now, if it is time; [`Roster::saved`] says that it is.
    pub fn begin_saving(&mut self, now: Instant) -> Option<Vec<Node>> {
        self.due()?;
        if self.save_at.is_some_and(|at| at > now) {
            return None;
        }
        self.save_at = Some(now + SAVE_EVERY);
        self.saving = std::mem::take(&mut self.unsaved);
        debug_assert!(self.holds(), "{self:?}");
        Some(self.seen_of(&self.saving))
    }

    /// It is written, but for these.
    pub fn saved(&mut self, failed: impl Iterator<Item = String>) {
        self.saving.clear();
        let known = failed.filter(|node| self.nodes.contains_key(node));
        self.unsaved.extend(known);
        debug_assert!(self.holds(), "{self:?}");
    }

    /// Nobody was there to write it.
    pub fn not_saved(&mut self) {
        let failed = std::mem::take(&mut self.saving);
        self.saved(failed.into_iter());
    }

    /// All that is to be written at the end.
    pub fn take_unsaved(&mut self) -> Vec<Node> {
        let mut unsaved = std::mem::take(&mut self.unsaved);
        unsaved.append(&mut self.saving);
        self.seen_of(&unsaved)
    }

    fn is_unsaved(&self, node: &str) -> bool {
        self.unsaved.contains(node) || self.saving.contains(node)
    }

    fn seen_of(&self, names: &BTreeSet<String>) -> Vec<Node> {
        names.iter().filter_map(|name| self.nodes.get(name)).cloned().collect()
    }

    fn holds(&self) -> bool {
        let known = |node: &String| self.nodes.contains_key(node);
        self.versions.keys().chain(&self.unsaved).all(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::node::NodeState;

    fn one() -> Roster {
        let node = Node::localhost();
        Roster { nodes: BTreeMap::from([(node.name.clone(), node)]), ..Roster::default() }
    }

    #[test]
    fn what_is_seen_is_written_once_and_again_where_that_failed() {
        let (mut roster, now) = (one(), Instant::now());
        assert!(roster.note("localhost", |_| {}).is_none());
        assert!(roster.note("other", |node| node.drain = true).is_none());
        assert_eq!(roster.due(), None);
        let up = |node: &mut Node| node.state = NodeState::Connected;
        assert!(
            roster.note("localhost", up).is_some_and(|node| node.state == NodeState::Connected)
        );
        let saving = roster.begin_saving(now).unwrap_or_default();
        assert_eq!(saving.len(), 1);
        assert!(roster.note("localhost", |node| node.state = NodeState::Disconnected).is_some());
        assert_eq!(roster.due(), None, "it is being written");
        roster.saved(std::iter::empty());
        assert_eq!(roster.due(), Some(now + SAVE_EVERY), "what was seen meanwhile");
        assert_eq!(roster.begin_saving(now), None);
        assert!(roster.begin_saving(now + SAVE_EVERY).is_some());
        roster.saved(["localhost".to_string(), "gone".to_string()].into_iter());
        assert!(roster.due().is_some() && roster.holds());
        roster.replace(BTreeMap::new());
        assert_eq!((roster.due(), roster.take_unsaved().len()), (None, 0));
    }
}
