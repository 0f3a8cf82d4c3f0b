//! Results that are safe here and whose nodes do not know it yet. Nobody waits for being told, and each
//! request to a node costs as much as a short job: they are gathered.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::model::ids::NodejobId;

/// A node is told within this time that results are safe...
const WITHIN: Duration = Duration::from_millis(500);

/// ...and at once when there are so many.
const AT_ONCE: usize = 1000;

/// A node that could not take it is told again after this...
const AGAIN: Duration = Duration::from_secs(5);

/// ...of so many results, at most: of others it keeps what it has for longer than it had to.
const MOST: usize = 100_000;

/// See the module. No node is there without a result, and nothing is due without one. What is there and
/// not due waits for a node that does not answer.
#[derive(Debug, Default)]
pub struct Outbox {
    nodes: BTreeMap<String, Vec<NodejobId>>,
    due: Option<Instant>,
}

impl Outbox {
    /// One more: the attempt of this id, of which this node is to be told.
    pub fn add(&mut self, node: String, id: NodejobId, now: Instant) {
        let ids = self.nodes.entry(node).or_default();
        ids.push(id);
        let many = ids.len().is_multiple_of(AT_ONCE);
        let within = if many { Duration::ZERO } else { WITHIN };
        self.be_due(now + within);
    }

    /// A node answers again, which may not have been told.
    pub fn answers(&mut self, node: &str, now: Instant) {
        if self.nodes.contains_key(node) {
            self.be_due(now);
        }
    }

    fn be_due(&mut self, at: Instant) {
        self.due = Some(self.due.map_or(at, |other| other.min(at)));
        debug_assert!(self.holds(), "{self:?}");
    }

    /// When something is to be told.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Takes out all that is to be told: nothing is due any more.
    pub fn take(&mut self) -> BTreeMap<String, Vec<NodejobId>> {
        self.due = None;
        std::mem::take(&mut self.nodes)
    }

    /// Puts back what a node could not be told: it is when that answers.
    pub fn put_back(&mut self, node: String, ids: Vec<NodejobId>) {
        if ids.is_empty() {
            return;
        }
        let waiting = self.nodes.entry(node).or_default();
        let room = MOST.saturating_sub(waiting.len());
        waiting.extend(ids.into_iter().take(room));
        debug_assert!(self.holds(), "{self:?}");
    }

    /// The same of a node that answers, and could not take it: it is told again after a while.
    pub fn put_off(&mut self, node: String, ids: Vec<NodejobId>, now: Instant) {
        if ids.is_empty() {
            return;
        }
        self.put_back(node, ids);
        self.be_due(now + AGAIN);
    }

    fn holds(&self) -> bool {
        let is_due_for_something = self.due.is_none() || !self.nodes.is_empty();
        is_due_for_something && self.nodes.values().all(|ids| !ids.is_empty())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn results_are_told_together_many_at_once_and_those_of_a_silent_node_when_it_answers() {
        let (mut outbox, now) = (Outbox::default(), Instant::now());
        let id = |job| NodejobId::new("c", job, 1).unwrap();
        assert_eq!(outbox.due(), None);
        outbox.add("a".into(), id(1), now);
        outbox.add("b".into(), id(2), now + WITHIN / 2);
        assert_eq!(outbox.due(), Some(now + WITHIN), "the first sets the time");
        let all = outbox.take();
        assert_eq!((all.len(), outbox.due()), (2, None));
        outbox.put_back("a".into(), all["a"].clone());
        assert_eq!(outbox.due(), None, "it does not answer");
        outbox.answers("b", now);
        assert_eq!(outbox.due(), None, "it has been told");
        outbox.answers("a", now);
        assert_eq!((outbox.due(), outbox.take().len()), (Some(now), 1));
        outbox.put_off("a".into(), vec![id(1)], now);
        assert_eq!(outbox.due(), Some(now + AGAIN), "it answers, and is told again");
        outbox.add("b".into(), id(2), now);
        assert_eq!((outbox.due(), outbox.take().len()), (Some(now + WITHIN), 2));
        (1..=AT_ONCE as u64).for_each(|job| outbox.add("a".into(), id(job), now));
        assert_eq!(outbox.due(), Some(now));
    }
}
