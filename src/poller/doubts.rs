//! Reports that do not count: each is told of once, and all are counted.

use std::collections::{BTreeMap, BTreeSet};

/// So many reports that do not count are remembered, so as to be told of once.
const MOST_TOLD: usize = 1000;

/// See the module. No more than [`MOST_TOLD`] are remembered.
#[derive(Debug, Default)]
pub struct Doubts {
    told: BTreeSet<(String, String)>,
    counts: BTreeMap<String, u64>,
}

impl Doubts {
    /// Counts one; the line to say, the first time that this node reports this.
    pub fn count(&mut self, node: &str, id: &str, why: &str) -> Option<String> {
        let count = self.counts.entry(node.to_string()).or_default();
        *count += 1;
        let is_new = if self.told.len() < MOST_TOLD {
            self.told.insert((node.to_string(), id.to_string()))
        } else {
            count.is_power_of_two()
        };
        is_new.then(|| {
            format!("node {node}: its report of {id} does not count: {why} ({count} so far)")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubt_is_told_once_and_counted() {
        let mut doubts = Doubts::default();
        let first = doubts.count("n", "c-7.1", "why").unwrap_or_default();
        assert!(first.contains("c-7.1") && first.ends_with("why (1 so far)"), "{first}");
        assert_eq!(doubts.count("n", "c-7.1", "why"), None);
        assert!(doubts.count("n", "c-8.1", "why").is_some_and(|line| line.ends_with("(3 so far)")));
        assert!(doubts.count("m", "c-7.1", "why").is_some_and(|line| line.ends_with("(1 so far)")));
        let told = (0..5000).filter(|n| doubts.count("n", &format!("c-9.{n}"), "why").is_some());
        assert!(told.count() < MOST_TOLD + 10);
    }
}
