//! Telling nodes what is to be killed, until they have heard it.

use super::desk::Order;
use super::engine::Engine;
use crate::attempts::Said;
use crate::attempts::kills::KillOrder;
use crate::attempts::proofs::Proofs;
use crate::error::{Kind, Result};
use crate::model::ids::NodejobId;
use crate::model::run_status::{RunState, RunStatus};

/// So often it is looked at once what became of a kill that was not carried out; after that with all
/// others.
const KILLS_AT_ONCE: u32 = 3;

impl Engine<'_> {
    /// Tells the nodes that have a job what of it is to be killed, where they do not know yet.
    pub(super) fn order_kills(&mut self, job: u64) {
        let (mut orders, mut failed) = (Vec::new(), Vec::new());
        if self.index.attempts(job).all(|known| known.to_kill().is_none()) {
            return;
        }
        let proofs = Proofs::read(self.root);
        let Some(proofs) = self.told(proofs) else { return }; // they are asked about with all others
        let unkilled = self.index.attempts(job).filter(|known| known.to_kill().is_some());
        let reached = unkilled.filter(|known| self.reaches(&known.node, &known.id, &known.address));
        let reached: Vec<NodejobId> = reached.map(|known| known.id.clone()).collect();
        for known in self.index.attempts_mut(job).filter(|known| reached.contains(&known.id)) {
            while let Some(kill) = known.to_kill().cloned() {
                match proofs.wish(&known.id, known.grace, kill.clone()) {
                    Ok(wish) => {
                        known.note_killed(&kill);
                        orders.push((known.node.clone(), known.id.clone(), kill, wish));
                    }
                    Err(error) => {
                        failed.push(error); // ordered with all others
                        break;
                    }
                }
            }
        }
        for error in failed {
            self.told::<()>(Err(error));
        }
        for (node, id, kill, wish) in orders {
            let what = match &kill.tasks {
                Some(tasks) => format!("job {job}, tasks {}", tasks.brief()),
                None => format!("job {job}"),
            };
            self.say(&format!("{what}: to be killed on {node}, asked by {}", kill.by));
            self.order(&node, Order::Kill(id, wish));
        }
    }

    /// Kills an attempt that was given up, or forbids its start.
    pub(super) fn fence(&mut self, node: &str, id: NodejobId) {
        let ordered = self.order_kill(node, id, "the head, which had given it up");
        self.told(ordered); // asked about again with all others
    }

    /// Has an attempt ended that no card asks for: in the head's own name.
    pub(super) fn order_kill(&mut self, node: &str, id: NodejobId, by: &str) -> Result<()> {
        let kill = KillOrder { by: by.to_string(), tasks: None };
        let wish = Proofs::read(self.root)?.wish(&id, None, kill)?;
        self.order(node, Order::Kill(id, wish));
        Ok(())
    }

    pub(super) fn killed(
        &mut self,
        node: &str,
        id: &NodejobId,
        status: Result<Box<RunStatus>>,
    ) -> Result<Option<Said>> {
        self.answered(node, 1);
        match status {
            // Of an attempt that was given up nothing but its end is news: it is being killed.
            Ok(status) if status.state != RunState::Stopped && self.known_mut(id).is_none() => {
                Ok(None)
            }
            Ok(status) => {
                self.known_mut(id).into_iter().for_each(|known| known.failed_kills = 0);
                let said = self.believed_kill(node, status.of(id))?;
                if said.is_some() {
                    self.unheard.end(id); // it is seen there
                }
                Ok(said)
            }
            Err(error) => {
                let mut at_once = false;
                if let Some(known) = self.known_mut(id) {
                    known.killed = None;
                    known.failed_kills += 1;
                    at_once = known.failed_kills <= KILLS_AT_ONCE;
                }
                if at_once {
                    self.order(node, Order::Status(vec![id.clone()])); // then it is repeated
                }
                if error.kind != Kind::NotFound {
                    self.did_not_say(node, id, &error);
                }
                self.say(&format!(
                    "{id}: not killed on {node}: {}; will be repeated",
                    error.message
                ));
                Ok(None)
            }
        }
    }
}
