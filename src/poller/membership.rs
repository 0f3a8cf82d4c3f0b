//! The nodes: which there are, whether they answer, and giving up the jobs of those that do not.

use super::engine::Engine;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::link::{Link, Order};
use super::silence;
use crate::board::nodes;
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::model::node::{Node, NodeState};
use crate::model::resources::Resources;

/// How exact `last_seen` in a node's record is.
const LAST_SEEN_EVERY: Duration = Duration::from_secs(60);

impl Engine<'_> {
    pub(super) fn load_nodes(&mut self) -> Result<()> {
        let mut fresh: BTreeMap<String, Node> = BTreeMap::new();
        for (name, read) in nodes::all(self.root)? {
            let read = match read {
                Ok(node) => Some(node),
                // It is not gone: it keeps what it has, and gets nothing until it can be read.
                Err(error) => {
                    if error.kind == Kind::Unavailable {
                        self.told::<()>(Err(error));
                    }
                    self.nodes.get(&name).map(|node| Node { drain: true, ..node.clone() })
                }
            };
            fresh.extend(read.map(|node| (name, node)));
        }
        self.links.retain(|name, link| {
            // One that was registered anew, or whose resources were forgotten, is asked again.
            let known = |new: &Node| new.state != NodeState::Unknown && new.resources.is_some();
            matches!((self.nodes.get(name), fresh.get(name)), (Some(old), Some(new))
                if new.newer.is_none() && *link.address() == new.address()
                    && (known(new) || !known(old)))
        });
        self.index.rooms.retain(|name| fresh.contains_key(name));
        self.silences.retain(|name| fresh.contains_key(name));
        for node in fresh.values() {
            self.index.rooms.update(node);
            if let Some(why) = node.newer_reason() {
                if self.nodes.get(&node.name).is_none_or(|old| old.newer.is_none()) {
                    eprintln!("poller: node {}: its record was {why}; left alone", node.name);
                }
                continue;
            }
            if !self.links.contains_key(&node.name) {
                self.seen.remove(&node.name);
                self.probing.remove(&node.name);
                match Link::open(self.root, node, &self.waker, self.once) {
                    Ok(link) => {
                        self.links.insert(node.name.clone(), link);
                    }
                    Err(error) => self.say(&format!("node {}: {}", node.name, error.message)),
                }
            }
        }
        self.nodes = fresh;
        Ok(())
    }

    pub(super) fn up(&mut self, node: &str, resources: Resources) -> Result<()> {
        self.silences.end(node);
        self.unreachable.remove(node);
        self.probing.remove(node);
        self.seen.insert(node.to_string(), Instant::now());
        self.observe(node, |node| {
            if node.state != NodeState::Connected {
                node.since = Some(clock::now());
            }
            node.state = NodeState::Connected;
            node.reason = None;
            node.silence = None;
            node.last_seen = Some(clock::now());
            if !node.fixed {
                node.resources = Some(resources);
            }
        })?;
        self.say(&format!("node {node}: connected, {}", resources.human()));
        for (_, known) in self.index.on_nodes_mut().filter(|(_, known)| known.node == node) {
            known.killed = None;
        }
        self.resync(node);
        Ok(())
    }

    pub(super) fn down(&mut self, node: &str, error: &Error) -> Result<()> {
        let now = Instant::now();
        self.probing.remove(node);
        self.seen.insert(node.to_string(), now);
        self.note_silence(node)?;
        let known = self.nodes.get(node).map(|n| (n.state, n.reason.as_deref()));
        if known == Some((NodeState::Disconnected, Some(error.message.as_str()))) {
            return Ok(());
        }
        self.say(&format!("node {node}: disconnected: {}", error.message));
        self.observe(node, |node| {
            if node.state != NodeState::Disconnected {
                node.since = Some(clock::now());
            }
            node.state = NodeState::Disconnected;
            node.reason = Some(error.message.clone());
        })
    }

    /// A node answered, even if it had nothing to say.
    pub(super) fn heard(&mut self, node: &str) -> Result<()> {
        // Whatever its record says: a failure may have got lost on its way there.
        self.silences.end(node);
        self.unreachable.remove(node);
        let Some(record) = self.nodes.get(node) else { return Ok(()) };
        if record.state != NodeState::Connected {
            if let Some(resources) = record.resources {
                return self.up(node, resources);
            }
            // What it has was not taken in: ask again.
            self.links.remove(node);
            return self.load_nodes();
        }
        let now = Instant::now();
        let recent = self.seen.get(node).is_some_and(|seen| now - *seen < LAST_SEEN_EVERY);
        if recent {
            return Ok(());
        }
        self.seen.insert(node.to_string(), now);
        self.observe(node, |node| node.last_seen = Some(clock::now()))
    }

    pub(super) fn observe(&mut self, node: &str, change: impl FnOnce(&mut Node)) -> Result<()> {
        nodes::observe(self.root, node, change)?;
        if let Some(fresh) = nodes::find(self.root, node)? {
            self.index.rooms.update(&fresh);
            self.nodes.insert(node.to_string(), fresh);
        }
        Ok(())
    }

    /// A failure counts by what this process has lived through, so that neither a clock that jumps
    /// nor a head that was away or stopped loses a job. A round for cron is over too soon for that,
    /// and goes by what those before it have recorded.
    fn note_silence(&mut self, node: &str) -> Result<()> {
        let lost_after = self.root.settings.lost_after;
        let mut is_long = self.silences.note(node, lost_after);
        if self.once
            && let Some(record) = self.nodes.get(node)
        {
            let (silence, for_long) = silence::add_to(record.silence.clone(), lost_after)?;
            is_long = for_long;
            self.observe(node, |record| record.silence = Some(silence))?;
        }
        if is_long {
            self.unreachable.insert(node.to_string());
        }
        Ok(())
    }

    /// Gives up the jobs of nodes that did not answer for `lost_after`, and whose last word was
    /// that. One that cannot be given up now is when its node fails the next time.
    pub(super) fn give_up_unreachable(&mut self) {
        for node in std::mem::take(&mut self.unreachable) {
            let ids = self.index.on(&node).map(|(_, known)| known.id.clone()).collect();
            let lost = self.lose(&node, ids, "abandoned (node unreachable)");
            self.told(lost);
        }
    }

    /// Asks nodes that do not answer whether they are back: the request for the feed may hang on a
    /// connection that is dead, longer than the node was away. One such question at a time.
    pub(super) fn probe_disconnected(&mut self) {
        let down = self.nodes.values().filter(|n| n.state == NodeState::Disconnected);
        let names: Vec<String> = down.map(|n| n.name.clone()).collect();
        for name in names {
            if self.probing.insert(name.clone()) {
                self.order(&name, Order::Probe);
            }
        }
    }

    /// These attempts have ended, or will never start: nothing is left to be asked of their nodes.
    pub(super) fn settle(&mut self, ids: &[String]) -> Result<()> {
        let has = |node: &&Node| node.given_up.iter().any(|id| ids.contains(id));
        let names: Vec<String> =
            self.nodes.values().filter(has).map(|node| node.name.clone()).collect();
        for node in names {
            let settled =
                self.observe(&node, |record| record.given_up.retain(|id| !ids.contains(id)));
            self.told(settled);
        }
        Ok(())
    }
}
