//! Runs on nodes whose jobs' cards cannot be read: the nodes are being asked about them.

use std::collections::BTreeSet;

use crate::model::ids::NodejobId;

/// See the module: nodes, and the runs' ids. Each is there from when its node listed it until it is judged
/// by what the node says, or the node is registered no more.
#[derive(Debug, Default)]
pub struct Strays {
    asked: BTreeSet<(String, NodejobId)>,
}

impl Strays {
    /// The node has this run, and is asked about it.
    pub fn ask(&mut self, node: &str, id: &NodejobId) {
        self.asked.insert((node.to_string(), id.clone()));
    }

    /// Whether the node is being asked about this run.
    pub fn has(&self, node: &str, id: &NodejobId) -> bool {
        // No allocation where there are none, as nearly always.
        !self.asked.is_empty() && self.asked.contains(&(node.to_string(), id.clone()))
    }

    /// What the node says of this run has been judged.
    pub fn judged(&mut self, node: &str, id: &NodejobId) {
        self.asked.remove(&(node.to_string(), id.clone()));
    }

    /// Forgets what lies on nodes that are not registered any more.
    pub fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.asked.retain(|(node, _)| is_there(node));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_a_stray_of_its_node_alone_until_it_is_judged() {
        let mut strays = Strays::default();
        let [one, two] = ["c-1.1", "c-2.1"].map(|id| NodejobId::parse(id).unwrap());
        assert!(!strays.has("a", &one));
        for node in ["a", "b"] {
            strays.ask(node, &one);
        }
        strays.judged("a", &one);
        assert!(!strays.has("a", &one) && strays.has("b", &one) && !strays.has("b", &two));
        strays.retain(|node| node != "b");
        assert!(!strays.has("b", &one));
    }
}
