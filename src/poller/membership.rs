//! The nodes, and the partitions: which there are, whether they answer, and giving up the jobs of those that do not.

use super::engine::Engine;
use std::collections::BTreeMap;
use std::thread;
use std::time::Instant;

use super::silence;
use super::wake::Wake;
use crate::board::nodes::{self, Change};
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::model::about::Live;
use crate::model::ids::NodejobId;
use crate::model::node::{Node, NodeState};
use crate::wire::node::Info;

const STACK: usize = 128 << 10;

impl Engine<'_> {
    /// Takes in partitions that were made, changed or removed.
    pub(super) fn load_partitions(&mut self) -> Result<()> {
        let (changed, trouble) = self.rules.read(self.root)?;
        for error in trouble {
            self.told::<()>(Err(error));
        }
        for (name, partition) in changed {
            self.index.set_partition(&name, partition.as_deref());
        }
        Ok(())
    }

    pub(super) fn load_nodes(&mut self) -> Result<()> {
        let fresh = self.nodes.read(self.root)?;
        for error in fresh.trouble {
            self.told::<()>(Err(error));
        }
        let fresh = fresh.nodes;
        self.lines.retain(|name, link| {
            // One that was registered anew, or whose resources were forgotten, is asked again.
            let known = |new: &Node| new.state != NodeState::Unknown && new.resources.is_some();
            matches!((self.nodes.get(name), fresh.get(name)), (Some(old), Some(new))
                if new.newer.is_none() && *link.address() == new.address()
                    && (known(new) || !known(old)))
        });
        self.index.rooms.retain(|name| fresh.contains_key(name));
        self.presence.retain(|name| fresh.contains_key(name));
        self.strays.retain(|name| fresh.contains_key(name));
        for node in fresh.values() {
            self.index.rooms.update(node);
            if let Some(why) = node.newer_reason() {
                if self.nodes.get(&node.name).is_none_or(|old| old.newer.is_none()) {
                    eprintln!("poller: node {}: its record was {why}; left alone", node.name);
                }
                continue;
            }
            if self.lines.open(self.root, node, &self.waker, self.once) {
                self.presence.ask_anew(&node.name);
            }
        }
        self.nodes.replace(fresh);
        Ok(())
    }

    pub(super) fn up(&mut self, node: &str, info: Info) {
        self.presence.is_up(node, Instant::now());
        let live = self.live(node, &info, true);
        self.note(node, |node| {
            if node.state != NodeState::Connected {
                node.since = Some(clock::now());
            }
            node.state = NodeState::Connected;
            node.reason = None;
            node.silence = None;
            node.last_seen = Some(clock::now());
            if !node.fixed {
                node.resources = Some(info.resources.clone());
            }
            node.labels.clone_from(&info.labels);
            node.about.clone_from(&info.about);
            node.live.clone_from(&live);
        });
        self.say(&format!("node {node}: connected, {}", info.resources.human()));
        for (_, known) in self.index.on_nodes_mut().filter(|(_, known)| known.node == node) {
            known.killed = None;
        }
        self.outbox.answers(node, Instant::now());
        self.resync(node);
    }

    /// What a node gives to jobs may change at any time.
    pub(super) fn informed(&mut self, node: &str, info: Info) {
        self.heard(node);
        let Some(record) = self.nodes.get(node) else { return };
        let gives = !record.fixed && record.resources.as_ref() != Some(&info.resources);
        if gives {
            self.say(&format!("node {node}: gives {} now", info.resources.human()));
        }
        let tells = record.labels != info.labels || record.about != info.about;
        let live = self.live(node, &info, false);
        if gives || tells || live.is_some() {
            self.note(node, |node| {
                if gives {
                    node.resources = Some(info.resources.clone());
                }
                node.labels.clone_from(&info.labels);
                node.about.clone_from(&info.about);
                if live.is_some() {
                    node.live = live;
                }
            });
        }
    }

    /// How busy a node says that it is, if that is to be noted: once a minute, or since it answers `anew`.
    fn live(&mut self, node: &str, info: &Info, anew: bool) -> Option<Live> {
        let is_due = self.presence.tells(node, Instant::now(), anew);
        let live = info.live.clone().filter(|_| is_due)?;
        Some(Live { at: Some(clock::now()), ..live })
    }

    /// A node did not answer, or answered what no node should. What this process lacks to ask it
    /// says nothing of the node.
    pub(super) fn down(&mut self, node: &str, error: &Error) -> Result<()> {
        if error.kind == Kind::Shortage {
            self.presence.is_unasked(node, error.clone());
            if !self.once {
                self.complain(error.clone()); // a round from cron tells it if it could not be made up for
            }
            return Ok(());
        }
        if let Some(link) = self.lines.get(node) {
            link.suspect();
        }
        let noted = match error.is_said {
            true => self.note_word(node, error),
            false => self.note_silence(node),
        };
        let known = self.nodes.get(node).map(|n| (n.state, n.reason.as_deref()));
        if known != Some((NodeState::Disconnected, Some(error.message.as_str()))) {
            self.say(&format!("node {node}: disconnected: {}", error.message));
            self.note(node, |node| {
                if node.state != NodeState::Disconnected {
                    node.since = Some(clock::now());
                }
                node.state = NodeState::Disconnected;
                node.reason = Some(error.message.clone());
            });
        }
        noted
    }

    /// A node answered, even if it had nothing to say.
    pub(super) fn heard(&mut self, node: &str) {
        self.presence.has_answered(node);
        let Some(record) = self.nodes.get(node) else { return };
        if record.state != NodeState::Connected {
            return; // it is being asked how it is
        }
        if self.presence.see(node, Instant::now()) {
            self.note(node, |node| node.last_seen = Some(clock::now()));
        }
    }

    /// A failure counts by what this process has lived through, so that neither a clock that jumps
    /// nor a head that was away or stopped loses a job. A round for cron is over too soon for that,
    /// and goes by what those before it have recorded.
    fn note_silence(&mut self, node: &str) -> Result<()> {
        let lost_after = self.root.settings.lost_after;
        let mut is_long = self.presence.is_down(node, Instant::now(), lost_after);
        if self.once
            && let Some(record) = self.nodes.get(node)
        {
            let (silence, for_long) = silence::add_to(record.silence.clone(), lost_after)?;
            is_long = for_long;
            self.note(node, |record| record.silence = Some(silence));
        }
        if is_long {
            self.presence.give_up(node);
        }
        Ok(())
    }

    /// The node says itself why it can do nothing: a wrong line in its settings, say, which somebody will
    /// mend. Its jobs go on meanwhile, and are not given up. Of those that are to end nobody can wait for
    /// ever: they are over once it has said so for `lost_after`.
    fn note_word(&mut self, node: &str, error: &Error) -> Result<()> {
        self.presence.is_up(node, Instant::now());
        if self.nodes.get(node).is_some_and(|record| record.silence.is_some()) {
            self.note(node, |record| record.silence = None);
        }
        let there: Vec<NodejobId> =
            self.index.on(node).map(|(_, known)| known.id.clone()).collect();
        let over: Vec<NodejobId> = there.into_iter().filter(|id| self.is_unseen(id)).collect();
        if !over.is_empty() {
            let why = &error.message;
            self.abandon(
                node,
                over,
                &format!("node {node} can neither end it nor tell of it: {why}"),
            );
        }
        Ok(())
    }

    /// Gives up the jobs of nodes that did not answer for `lost_after`, and whose last word was
    /// that. One that cannot be given up now is when its node fails the next time.
    pub(super) fn give_up_unreachable(&mut self) {
        let mut lost: BTreeMap<String, Vec<NodejobId>> = BTreeMap::new();
        for node in self.presence.take_lost() {
            let forgotten = self.forget_orders(&node);
            if self.told(forgotten).is_none() {
                continue; // the next time that it fails
            }
            let ids: Vec<NodejobId> =
                self.index.on(&node).map(|(_, known)| known.id.clone()).collect();
            if !ids.is_empty() {
                lost.insert(node, ids);
            }
        }
        if lost.is_empty() {
            return;
        }
        let changes: Vec<Change> = lost.iter().map(|(node, ids)| give_up(node, ids)).collect();
        let failed = nodes::observe_all(self.root, &changes);
        drop(changes);
        for (node, error) in failed {
            self.told::<()>(Err(error));
            lost.remove(&node);
        }
        for (node, ids) in &lost {
            self.nodes.note_saved(node, give_up(node, ids).1);
        }
        let ids: Vec<NodejobId> = lost.into_values().flatten().collect();
        let ended = self.end_as_lost(&ids, "abandoned (node unreachable)");
        self.told(ended);
    }

    /// Something was seen of a node.
    pub(super) fn note(&mut self, node: &str, change: impl FnOnce(&mut Node)) {
        if let Some(record) = self.nodes.note(node, change) {
            self.index.rooms.update(record);
        }
    }

    /// The same of what is told to others: it is durable when this returns.
    pub(super) fn observe(&mut self, node: &str, change: impl Fn(&mut Node)) -> Result<()> {
        nodes::observe(self.root, node, &change)?;
        self.nodes.note_saved(node, change);
        Ok(())
    }

    /// Begins to write down what was seen, if it is time.
    pub(super) fn save_records(&mut self) {
        let Some(seen) = self.nodes.begin_saving(Instant::now()) else { return };
        let (root, wakes) = (self.root.clone(), self.waker.clone());
        let work = move || {
            let failed = nodes::save_observed(&root, &seen);
            let _ = wakes.send(Wake::Saved { failed }); // an engine that is gone has ended
        };
        let thread = thread::Builder::new().name("records".into()).stack_size(STACK);
        if let Err(error) = thread.spawn(work) {
            let error = Error::new(Kind::Shortage, format!("no thread for the records: {error}"));
            self.complain(error);
            self.nodes.not_saved();
        }
    }

    /// What was seen is written down, but for these.
    pub(super) fn saved(&mut self, failed: Vec<(String, Error)>) {
        self.nodes.saved(failed.iter().map(|(node, _)| node.clone()));
        failed.into_iter().for_each(|(_, error)| self.complain(error));
    }

    /// Writes down what was seen, at the end.
    pub(super) fn save_all_records(&mut self) {
        for (_, error) in nodes::save_observed(self.root, &self.nodes.take_unsaved()) {
            self.told::<()>(Err(error));
        }
    }

    /// These attempts have ended, or will never start: nothing is left to be asked of their nodes.
    pub(super) fn settle(&mut self, ids: &[NodejobId]) -> Result<()> {
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

/// Notes that attempts are given up, to be asked about when their node answers.
fn give_up<'c>(node: &'c str, ids: &'c [NodejobId]) -> Change<'c> {
    let change = move |record: &mut Node| {
        let fresh: Vec<NodejobId> =
            ids.iter().filter(|id| !record.given_up.contains(id)).cloned().collect();
        record.given_up.extend(fresh);
    };
    (node, Box::new(change))
}
