//! Which of a node's reports count: those that prove to be about this head's attempts; of a node
//! that has never proved any, as those of 0.1 cannot, also those that prove nothing. For each
//! attempt only its own node counts, which the card decides.

use super::desk::Order;
use super::engine::Engine;
use crate::attempts::proofs::{Proofs, Worth};
use crate::attempts::{Applied, Said};
use crate::error::Result;
use crate::model::ids::NodejobId;
use crate::model::node::{DriverKind, Node};
use crate::model::outcome::Cause;
use crate::model::run_status::{RunState, RunStatus};

impl Engine<'_> {
    /// What counts of a piece of a node's feed. A line that should prove itself and does not is
    /// asked about: what it is about may.
    pub(super) fn believed(&mut self, node: &str, events: Vec<RunStatus>) -> Result<Vec<Said>> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let proofs = Proofs::read(self.root)?;
        let mut said = Vec::with_capacity(events.len());
        let mut ask = Vec::new();
        let must_prove = self.must_prove(node);
        for status in events {
            match proofs.judge(node, must_prove, status)? {
                Worth::Counts(Said { id, .. }) | Worth::Unproven(Said { id, .. })
                    if self.is_of_another(node, &id) =>
                {
                    self.doubt(node, &id, "another node has that attempt");
                }
                // A node tells of what waits there only where it waits no more: it was given back.
                Worth::Counts(Said { id, status, .. })
                    if status.state == RunState::Queued && status.tasks.is_none() =>
                {
                    ask.push(id);
                }
                Worth::Counts(report) => said.push(report),
                Worth::Unproven(said) => ask.push(said.id),
                Worth::Strangers(said) => self.doubt_stranger(node, &said.id),
                Worth::NotOurs => {}
            }
        }
        if !ask.is_empty() {
            self.order(node, Order::Status(ask));
        }
        Ok(said)
    }

    /// Whether a report is about an attempt that was placed elsewhere: on a node of another name, or of
    /// this name at another address.
    fn is_of_another(&self, node: &str, id: &NodejobId) -> bool {
        self.index.on_node(id).is_some() && !self.is_of(node, id)
    }

    /// Whether a node's reports count only with a proof.
    pub(super) fn must_prove(&self, node: &str) -> bool {
        self.nodes.get(node).is_none_or(Node::must_prove)
    }

    /// What counts of the answer to a kill. Where nothing had come under the id it says that
    /// nothing ever will, which there is nothing to prove by.
    pub(super) fn believed_kill(&mut self, node: &str, status: RunStatus) -> Result<Option<Said>> {
        let proofs = Proofs::read(self.root)?;
        match proofs.judge(node, self.must_prove(node), status)? {
            Worth::Counts(said) => return Ok(Some(said)),
            Worth::Unproven(said)
                if said.status.cause == Some(Cause::Killed) && !said.status.has_begun() =>
            {
                return Ok(Some(said));
            }
            // What is under the id, and how it ended, decides.
            Worth::Unproven(said) | Worth::Strangers(said) => {
                self.order(node, Order::Status(vec![said.id]));
            }
            Worth::NotOurs => {}
        }
        Ok(None)
    }

    /// Notes that a node reports a run that somebody else put there under an attempt's id.
    pub(super) fn doubt_stranger(&mut self, node: &str, id: &NodejobId) {
        self.doubt(node, id, "that run is not this head's, whoever put it there");
    }

    /// Notes that a node reports something that does not count.
    pub(super) fn doubt(&mut self, node: &str, id: &str, why: &str) {
        if let Some(line) = self.doubts.count(node, id, why) {
            eprintln!("poller: {line}");
        }
    }

    /// Remembers which nodes prove what they report, and tells what did not count.
    pub(super) fn note_proofs(&mut self, applied: &Applied) -> Result<()> {
        for (node, id) in &applied.foreign {
            self.doubt(node, id, "another node has that attempt");
        }
        for (node, proves) in &applied.proves {
            let known = self.nodes.get(node).filter(|node| node.driver == DriverKind::Http);
            // What was proved once must always be.
            if known.is_some_and(|known| known.proves.is_none_or(|before| !before && *proves)) {
                let noted = self.observe(node, |record| record.proves = Some(*proves));
                self.told(noted);
            }
        }
        Ok(())
    }
}
