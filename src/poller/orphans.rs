//! Attempts of jobs whose cards cannot be read. Nobody will ask for their results, and nobody could
//! kill them by the card: they are killed, or kept if the setting says so.

use super::desk::Order;
use super::engine::Engine;
use crate::board::numbers;
use crate::error::Result;
use crate::model::ids::NodejobId;

const BY: &str = "the head, which cannot read the job's card";

impl Engine<'_> {
    /// Forgets a job that is on the board no more, and kills its attempts if its card is there and
    /// cannot be read.
    pub(super) fn disown(&mut self, job: u64) -> Result<()> {
        let unreadable = self.cards.unreadable(job)?.is_some();
        if unreadable && self.root.settings.kill_unreadable {
            let known = self.index.attempts_mut(job);
            let orders: Vec<_> = known.map(|at| (at.node.clone(), at.id.clone())).collect();
            orders.into_iter().for_each(|(node, id)| self.kill_orphan(&node, id));
        }
        self.index.remove(job);
        Ok(())
    }

    /// Asks a node what it has, if there are cards that cannot be read: it alone knows their
    /// attempts.
    pub(super) fn ask_for_orphans(&mut self, node: &str) {
        let wanted = self.root.settings.kill_unreadable
            && self.cards.put_aside().is_ok_and(|jobs| !jobs.is_empty());
        if wanted {
            self.order(node, Order::List);
        }
    }

    /// What a node has that has not ended.
    pub(super) fn listed(&mut self, node: &str, ids: Vec<String>) -> Result<()> {
        let cluster = numbers::cluster(self.root)?;
        for id in ids {
            let Some(parsed) = NodejobId::parse(&id).filter(|parsed| parsed.cluster == cluster)
            else {
                continue; // another head's
            };
            let unreadable = self.cards.unreadable(parsed.job);
            if self.told(unreadable).flatten().is_some() {
                self.kill_orphan(node, id);
            }
        }
        Ok(())
    }

    fn kill_orphan(&mut self, node: &str, id: String) {
        eprintln!("poller: {id} on {node}: killed, since the card of its job cannot be read");
        self.order(node, Order::Kill { id, grace: None, by: BY.into(), tasks: None });
    }
}
