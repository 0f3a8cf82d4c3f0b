//! What wakes the engine: what happened on the board, what is learnt from nodes, what was done beside it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::driver::{Answer, Taken};
use crate::error::{Error, Result};
use crate::model::ids::{NodejobId, RunId};
use crate::model::run_status::RunStatus;
use crate::processor::sweep::Swept;
use crate::wire::node::Info;

/// Something to look at. Wake-ups from directories are hints, scans are the truth; those from
/// nodes are what the nodes said.
#[derive(Debug)]
pub enum Wake {
    /// A card came, went, or was stamped.
    Card(u64),
    /// A batch of cards is being submitted, or was.
    Batch,
    /// A node or a partition was made, changed or removed, or placement was paused or goes on.
    Records,
    /// Wake-ups were lost: look at everything.
    Overflow,
    /// The process is asked to end.
    End,
    /// What the line to a node has learnt.
    Node {
        /// The node's name.
        node: String,
        /// Which line it was. One that was closed meanwhile may lead elsewhere.
        line: LineId,
        /// What that is.
        news: News,
    },
    /// The processor of this root is swept, or could not be.
    Swept(Result<Swept>),
    /// What was seen of nodes is written down.
    Saved {
        /// But for these, and why.
        failed: Vec<(String, Error)>,
    },
}

/// Which line to a node: each that is opened is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineId(u64);

impl LineId {
    /// One that no other line has.
    pub(super) fn new() -> LineId {
        static LAST: AtomicU64 = AtomicU64::new(0);
        LineId(LAST.fetch_add(1, Ordering::Relaxed))
    }
}

/// What is learnt from a node.
#[derive(Debug)]
pub enum News {
    /// It answers. Its jobs are to be asked about: reports may have been missed. What it gives to
    /// jobs.
    Up(Box<Info>),
    /// It does not answer: what happened.
    Down(Error),
    /// What it gives to jobs, as it says now.
    Info(Box<Info>),
    /// A piece of its feed, possibly empty: what changed there.
    Feed(Vec<RunStatus>),
    /// What became of a request to run attempts.
    Sent {
        /// The attempts' ids.
        ids: Vec<NodejobId>,
        /// One result for each, or what went wrong with the request.
        results: Result<Vec<Result<Taken>>>,
    },
    /// Where jobs are.
    Statuses {
        /// The attempts' ids.
        ids: Vec<NodejobId>,
        /// One answer for each, or what went wrong.
        answers: Result<Vec<Result<Answer>>>,
    },
    /// Its durable word on an attempt that it would not have.
    Forbidden {
        /// The attempt's id.
        id: NodejobId,
        /// That it will not be started there, or where it is; or what went wrong.
        answer: Result<Answer>,
    },
    /// What it has that has not ended: ids of attempts, other heads' too; or what went wrong.
    Listed(Result<Vec<RunId>>),
    /// It was told that results are safe, and may not know it.
    Unacknowledged {
        /// The attempts' ids.
        ids: Vec<NodejobId>,
        /// What went wrong.
        error: Error,
    },
    /// What became of a request to kill.
    Killed {
        /// The attempt's id.
        id: NodejobId,
        /// The job's status after it, or what went wrong.
        status: Result<Box<RunStatus>>,
    },
}
