//! The line to one node. While it answers, one thread follows its change feed; while something is
//! ordered of it, another carries that out, and a third while files are sent to it. A node that is slow
//! or gone holds up nobody else. What is learnt goes to the engine as [`Wake`]s.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use super::desk::{Desk, Order};
use super::ear::Ear;
use super::line::Line;
use super::silent::Silent;
use super::wake::{LineId, Wake};
use crate::board::root::Root;
use crate::model::node::{Address, Node};

/// The engine's end of a line. Dropped, the line's threads end after what they are doing.
pub struct Link {
    address: Address,
    line: Arc<Line>,
    ear: Arc<Ear>,
    desk: Arc<Desk>,
    files: Arc<Desk>,
    /// How many answers are to come, see [`answers_to`].
    outstanding: usize,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.line.close();
    }
}

impl Link {
    /// Opens the line. `once`: ask how the node is, and do not follow its feed.
    pub fn open(
        root: &Root,
        node: &Node,
        wakes: &Sender<Wake>,
        silent: &Arc<Silent>,
        once: bool,
    ) -> Link {
        let line = Arc::new(Line::new(root, node, wakes, once));
        let ear = Ear::new(line.clone(), silent.clone());
        let desk = Desk::new("orders", line.clone());
        let files = Desk::slow("files", line.clone());
        let link = Link { address: node.address(), line, ear, desk, files, outstanding: 0 };
        link.tend();
        link
    }

    /// Whether what comes from this line is what the node says now.
    pub fn is(&self, line: LineId) -> bool {
        self.line.id() == line
    }

    /// Where it leads: nothing goes anywhere else.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Whether the node answered when it was last asked.
    pub fn answers(&self) -> bool {
        self.line.answers()
    }

    /// Gives an order, which is carried out after those before it. The answer comes as a wake-up,
    /// one for each order for which this returns `true`: others travel with those that wait.
    pub fn order(&mut self, order: Order) -> bool {
        let answers = answers_to(&order);
        let ordered = self.put(order);
        if ordered {
            self.outstanding += answers;
        }
        ordered
    }

    /// So many answers have come.
    pub fn answered(&mut self, count: usize) {
        self.outstanding = self.outstanding.saturating_sub(count);
    }

    /// Whether answers are to come.
    pub fn is_asked(&self) -> bool {
        self.outstanding > 0
    }

    fn put(&self, order: Order) -> bool {
        let Order::Run(runs) = order else { return self.desk.put(order) };
        // Files take their time, for which nothing else is to wait.
        let (slow, quick): (Vec<_>, Vec<_>) =
            runs.into_iter().partition(|(_, run)| !run.uploads.is_empty());
        let mut ordered = false;
        if !quick.is_empty() {
            ordered |= self.desk.put(Order::Run(quick));
        }
        for run in slow {
            ordered |= self.files.put(Order::Run(vec![run]));
        }
        ordered
    }

    /// Sees to it that somebody listens to the node, and carries out what is ordered: there may
    /// have been no thread for it.
    pub fn tend(&self) {
        self.desk.tend();
        self.files.tend();
        self.ear.tend();
    }

    /// The node has not answered an order. What still hangs on its feed says nothing against that:
    /// the connection may be dead, or older than the server's end.
    pub fn suspect(&self) {
        self.ear.suspect();
    }

    /// Before [`Link::close`], of all links: what is to be carried out yet, is at the same time.
    pub fn end(&self) {
        self.line.close();
        self.desk.end();
        self.files.end();
    }

    /// Waits until all orders are carried out, or have waited for too long; each of them has its own
    /// deadline. Files that are on their way are given up unless they are to be `sent`, which takes
    /// long: whoever is at work after this process sends them again.
    pub fn close(self, sent: bool) {
        self.end();
        self.desk.close();
        if sent {
            self.files.close();
        }
    }
}

/// How many answers come to an order: one for each attempt that is sent, for several orders may be sent as
/// one, and one for each question.
fn answers_to(order: &Order) -> usize {
    match order {
        Order::Run(runs) => runs.len(),
        Order::Status(_) | Order::Kill(..) | Order::Forbid(_) | Order::List => 1,
        Order::Prepare | Order::Acknowledge(_) => 0,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::driver::Run;
    use crate::model::ids::NodejobId;

    #[test]
    fn what_is_answered() {
        let id = |job| NodejobId::new("c", job, 1).unwrap();
        let run = |job| {
            let id: NodejobId = id(job);
            let run = Run { id: id.run().clone(), request: Value::Null, uploads: Vec::new() };
            (id, run)
        };
        assert_eq!(answers_to(&Order::Run(vec![run(1), run(2)])), 2);
        assert_eq!(answers_to(&Order::Status(vec![id(1), id(2)])), 1);
        assert_eq!(answers_to(&Order::Forbid(id(1))), 1);
        assert_eq!(answers_to(&Order::Acknowledge(vec![id(1)])), 0);
        assert_eq!(answers_to(&Order::Prepare), 0);
    }
}
