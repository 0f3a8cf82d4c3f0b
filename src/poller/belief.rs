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
                Worth::Counts(Said { status, .. }) | Worth::Unproven(status)
                    if self.is_of_another(node, &status) =>
                {
                    let id = status.id.unwrap_or_default();
                    self.doubt(node, &id, "another node has that attempt");
                }
                // A node tells of what waits there only where it waits no more: it was given back.
                Worth::Counts(Said { status, .. })
                    if status.state == RunState::Queued && status.tasks.is_none() =>
                {
                    ask.extend(status.id);
                }
                Worth::Counts(report) => said.push(report),
                Worth::Unproven(status) => ask.extend(status.id),
                Worth::Strangers(status) => self.doubt_stranger(node, status.id.as_deref()),
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
    fn is_of_another(&self, node: &str, status: &RunStatus) -> bool {
        let id = status.id.as_deref().unwrap_or_default();
        let is_known = NodejobId::parse(id).is_some_and(|id| self.index.on_node(&id).is_some());
        is_known && !self.is_of(node, id)
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
            Worth::Unproven(status)
                if status.cause == Some(Cause::Killed) && !status.has_begun() =>
            {
                return Ok(Some(Said { node: node.to_string(), proven: false, status }));
            }
            // What is under the id, and how it ended, decides.
            Worth::Unproven(status) | Worth::Strangers(status) => {
                self.order(node, Order::Status(status.id.into_iter().collect()));
            }
            Worth::NotOurs => {}
        }
        Ok(None)
    }

    /// Notes that a node reports a run that somebody else put there under an attempt's id.
    pub(super) fn doubt_stranger(&mut self, node: &str, id: Option<&str>) {
        self.doubt(node, id.unwrap_or("-"), "that run is not this head's, whoever put it there");
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
            let known = self.nodes.get(node).filter(|node| node.driver != DriverKind::Local);
            // What was proved once must always be.
            if known.is_some_and(|known| known.proves.is_none_or(|before| !before && *proves)) {
                let noted = self.observe(node, |record| record.proves = Some(*proves));
                self.told(noted);
            }
        }
        Ok(())
    }
}
