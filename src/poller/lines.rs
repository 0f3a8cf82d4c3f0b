//! The lines to all nodes, each to where its node is registered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use super::link::Link;
use super::silent::Silent;
use super::wake::{LineId, Wake};
use crate::board::root::Root;
use crate::model::node::Node;

/// See the module. There is one line to a node at most; whoever finds out whether silent nodes answer does
/// so for all of them.
#[derive(Default)]
pub struct Lines {
    links: BTreeMap<String, Link>,
    silent: Arc<Silent>,
}

impl Lines {
    /// The line to this node.
    pub fn get(&self, node: &str) -> Option<&Link> {
        self.links.get(node)
    }

    /// The same, to order something.
    pub fn get_mut(&mut self, node: &str) -> Option<&mut Link> {
        self.links.get_mut(node)
    }

    /// The nodes to which there are lines.
    pub fn nodes(&self) -> impl Iterator<Item = &String> {
        self.links.keys()
    }

    /// Whether this is the line that leads to this node now.
    pub fn is(&self, node: &str, line: LineId) -> bool {
        self.links.get(node).is_some_and(|link| link.is(line))
    }

    /// Opens a line to a node, unless there is one; whether it did. `once`: see [`Link::open`].
    pub fn open(&mut self, root: &Root, node: &Node, wakes: &Sender<Wake>, once: bool) -> bool {
        if self.links.contains_key(&node.name) {
            return false;
        }
        let link = Link::open(root, node, wakes, &self.silent, once);
        self.links.insert(node.name.clone(), link);
        true
    }

    /// Closes those that do not lead to where they should.
    pub fn retain(&mut self, is_right: impl Fn(&str, &Link) -> bool) {
        self.links.retain(|node, link| is_right(node, link));
    }

    /// Whether every node has answered all that it was asked, and `knows` of it how it is.
    pub fn are_quiet(&self, knows: impl Fn(&str) -> bool) -> bool {
        self.links.iter().all(|(node, link)| !link.is_asked() && knows(node))
    }

    /// See [`Link::tend`].
    pub fn tend(&self) {
        self.links.values().for_each(Link::tend);
    }

    /// Closes all of them, at the same time; see [`Link::close`].
    pub fn close(&mut self, sent: bool) {
        self.links.values().for_each(Link::end);
        for (_, link) in std::mem::take(&mut self.links) {
            link.close(sent);
        }
    }
}
