//! Runs on nodes whose jobs' cards cannot be read: the nodes are being asked about them.

use std::collections::BTreeSet;

/// See the module: nodes, and the runs' ids. Each is there from when its node listed it until it is judged
/// by what the node says, or the node is registered no more.
#[derive(Debug, Default)]
pub struct Strays {
    asked: BTreeSet<(String, String)>,
}

impl Strays {
    /// The node has this run, and is asked about it.
    pub fn ask(&mut self, node: &str, id: &str) {
        self.asked.insert((node.to_string(), id.to_string()));
    }

    /// Whether the node is being asked about this run.
    pub fn has(&self, node: &str, id: &str) -> bool {
        // No allocation where there are none, as nearly always.
        !self.asked.is_empty() && self.asked.contains(&(node.to_string(), id.to_string()))
    }

    /// What the node says of this run has been judged.
    pub fn judged(&mut self, node: &str, id: &str) {
        self.asked.remove(&(node.to_string(), id.to_string()));
    }

    /// Forgets what lies on nodes that are not registered any more.
    pub fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.asked.retain(|(node, _)| is_there(node));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_a_stray_of_its_node_alone_until_it_is_judged() {
        let mut strays = Strays::default();
        assert!(!strays.has("a", "c-1.1"));
        for node in ["a", "b"] {
            strays.ask(node, "c-1.1");
        }
        strays.judged("a", "c-1.1");
        assert!(!strays.has("a", "c-1.1") && strays.has("b", "c-1.1") && !strays.has("b", "c-2.1"));
        strays.retain(|node| node != "b");
        assert!(!strays.has("b", "c-1.1"));
    }
}
