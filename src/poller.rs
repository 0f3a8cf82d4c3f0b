//! The poller: places jobs on nodes, takes in what nodes report, looks after what waits.
//!
//! - [`engine`]: one round after another: wake-ups in, transitions and orders out.
//! - `hearing`, `scan`, `transitions`, `placing`, `dialogue`, `answers`, `membership`: what a round is
//!   made of: taking in what came, looking at the board, changing cards, placing them, talking to
//!   nodes, what they say of attempts, knowing which there are.
//! - `unsure`, `killing`: what a node may have and would not have; what is to end there.
//! - `belief`: which of a node's reports count.
//! - [`index`]: what it knows of the board without looking.
//! - `orphans`: attempts of jobs whose cards cannot be read.
//! - [`link`], `desk`, `silent`, `lookups`: the line to one node, what is ordered of it, and finding
//!   out whether those that do not answer do now, and where those are that have a name.
//! - `records`: what is registered, and what was seen since.
//! - [`notice`]: wake-ups from the board's directories and from signals.
//! - `silence`: since when nodes have not answered.
//! - `sweeping`: recovery of what died on this machine, beside all else.
//! - [`gather`]: ends of tasks, recorded together.
//! - [`pace`]: how much may be sent ahead.
//! - [`step`]: shows transitions before they are made.
//! - [`cleanup`]: what the head's board keeps, and for how long.
//! - [`program`]: the program's options; one at work, others standing by.

use link::LineId;

use crate::driver::{Answer, Taken};
use crate::error::{Error, Result};
use crate::model::resources::Resources;
use crate::model::run_status::RunStatus;

mod answers;
mod belief;
pub mod cleanup;
mod desk;
mod dialogue;
pub mod engine;
pub mod gather;
mod hearing;
pub mod index;
mod killing;
pub mod link;
mod lookups;
mod membership;
pub mod notice;
mod orphans;
pub mod pace;
mod placing;
pub mod program;
mod records;
mod scan;
mod silence;
mod silent;
pub mod step;
mod sweeping;
mod transitions;
mod unsure;

/// Something to look at. Wake-ups from directories are hints, scans are the truth; those from
/// nodes are what the nodes said.
#[derive(Debug)]
pub enum Wake {
    /// A card came, went, or was stamped.
    Card(u64),
    /// A batch of cards is being submitted, or was.
    Batch,
    /// A node was registered, changed or removed.
    Nodes,
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
    /// The processor of this root could not be swept: why.
    Swept(Error),
    /// What was seen of nodes is written down.
    Saved {
        /// But for these, and why.
        failed: Vec<(String, Error)>,
    },
}

/// What is learnt from a node.
#[derive(Debug)]
pub enum News {
    /// It answers. Its jobs are to be asked about: reports may have been missed. What it gives to
    /// jobs.
    Up(Resources),
    /// It does not answer: what happened.
    Down(Error),
    /// What it gives to jobs, as it says now.
    Info(Resources),
    /// A piece of its feed, possibly empty: what changed there.
    Feed(Vec<RunStatus>),
    /// What became of a request to run attempts.
    Sent {
        /// The attempts' ids.
        ids: Vec<String>,
        /// One result for each, or what went wrong with the request.
        results: Result<Vec<Result<Taken>>>,
    },
    /// Where jobs are.
    Statuses {
        /// The attempts' ids.
        ids: Vec<String>,
        /// One answer for each, or what went wrong.
        answers: Result<Vec<Result<Answer>>>,
    },
    /// Its durable word on an attempt that it would not have.
    Forbidden {
        /// The attempt's id.
        id: String,
        /// That it will not be started there, or where it is; or what went wrong.
        answer: Result<Answer>,
    },
    /// What it has that has not ended: ids of attempts, other heads' too; or what went wrong.
    Listed(Result<Vec<String>>),
    /// What became of a request to kill.
    Killed {
        /// The attempt's id.
        id: String,
        /// The job's status after it, or what went wrong.
        status: Result<Box<RunStatus>>,
    },
}
