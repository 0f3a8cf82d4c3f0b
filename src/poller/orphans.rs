//! Attempts of jobs whose cards cannot be read. Nobody will ask for their results, and nobody could
//! kill them by the card: they are killed, or kept if the setting says so. What the nodes have alone
//! tells of them, and an id says nothing of whose run it is: only one that proves to be this head's
//! attempt is killed.

use super::desk::Order;
use super::engine::Engine;
use crate::attempts::proofs::Worth;
use crate::board::numbers;
use crate::error::Result;
use crate::model::ids::{NodejobId, RunId};
use crate::model::run_status::RunState;

const BY: &str = "the head, which cannot read the job's card";

impl Engine<'_> {
    /// Forgets a job that is on the board no more. If its card is there and cannot be read, the nodes
    /// that had its attempts are asked what they have.
    pub(super) fn disown(&mut self, job: u64) -> Result<()> {
        let unreadable = self.cards.unreadable(job)?.is_some();
        let nodes: Vec<String> = self.index.attempts(job).map(|at| at.node.clone()).collect();
        self.index.remove(job);
        if unreadable {
            nodes.iter().for_each(|node| self.ask_for_orphans(node));
        }
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

    /// What a node has that has not ended. Of what may be an orphan it is to say more.
    pub(super) fn listed(&mut self, node: &str, ids: Result<Vec<RunId>>) -> Result<()> {
        self.answered(node, 1);
        let Ok(ids) = ids else { return Ok(()) }; // asked again with everything else
        let cluster = numbers::cluster(self.root)?;
        let mut ask = Vec::new();
        for id in ids {
            let Some(id) = id.nodejob().filter(|id| id.cluster() == cluster) else {
                continue; // another head's
            };
            let unreadable = self.cards.unreadable(id.job);
            if self.told(unreadable).flatten().is_some() && self.known_mut(&id).is_none() {
                self.strays.ask(node, &id);
                ask.push(id);
            }
        }
        if !ask.is_empty() {
            self.order(node, Order::Status(ask));
        }
        Ok(())
    }

    /// What a node says of such a run: one that is this head's is killed, any other is left alone. The
    /// card may have been mended meanwhile.
    pub(super) fn judge_orphan(
        &mut self,
        node: &str,
        id: NodejobId,
        worth: Option<Worth>,
    ) -> Result<()> {
        let unreadable = self.cards.unreadable(id.job)?.is_some();
        match worth.filter(|_| unreadable) {
            Some(Worth::Counts(said)) if said.proven => {
                if said.status.state != RunState::Stopped {
                    eprintln!(
                        "poller: {id} on {node}: killed, since the card of its job cannot be read"
                    );
                    self.order_kill(node, id.clone(), BY)?;
                }
            }
            None | Some(Worth::Strangers(_) | Worth::NotOurs) => {} // which is told
            Some(_) => {
                let why = "it does not prove to be this head's attempt, so it is not killed though the card of its job cannot be read";
                self.doubt(node, &id, why);
            }
        }
        self.strays.judged(node, &id);
        Ok(())
    }
}
