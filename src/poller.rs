//! The poller: places jobs on nodes, takes in what nodes report, looks after what waits.
//!
//! - [`engine`]: one round after another: wake-ups in, transitions and orders out.
//! - `scan`, `transitions`, `placing`, `dialogue`, `membership`: what a round is made of: looking at
//!   the board, changing cards, placing them, talking to nodes, knowing which there are.
//! - `unsure`, `killing`: what a node may have and would not have; what is to end there.
//! - `belief`: which of a node's reports count.
//! - [`index`]: what it knows of the board without looking.
//! - `orphans`: attempts of jobs whose cards cannot be read.
//! - [`link`], `desk`, `silent`: the line to one node, what is ordered of it, and finding out whether
//!   those that do not answer do now.
//! - `records`: what is registered, and what was seen since.
//! - [`notice`]: wake-ups from the board's directories and from signals.
//! - `silence`: since when nodes have not answered.
//! - [`gather`]: ends of tasks, recorded together.
//! - [`pace`]: how much may be sent ahead.
//! - [`step`]: shows transitions before they are made.
//! - [`cleanup`]: what the head's board keeps, and for how long.
//! - [`program`]: the program's options; one at work, others standing by.

use crate::driver::Answer;
use crate::error::{Error, Result};
use crate::model::outcome::RunStatus;
use crate::model::resources::Resources;

mod belief;
pub mod cleanup;
mod desk;
mod dialogue;
pub mod engine;
pub mod gather;
pub mod index;
mod killing;
pub mod link;
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
    /// A node answers. Its jobs are to be asked about: reports may have been missed.
    Up {
        /// Its name.
        node: String,
        /// What it gives to jobs.
        resources: Resources,
    },
    /// A node does not answer.
    Down {
        /// Its name.
        node: String,
        /// What happened.
        error: Error,
    },
    /// What a node gives to jobs, as it says now.
    Info {
        /// Its name.
        node: String,
        /// What that is.
        resources: Resources,
    },
    /// What was seen of nodes is written down.
    Saved {
        /// But for these, and why.
        failed: Vec<(String, Error)>,
    },
    /// A node's feed, possibly empty.
    Feed {
        /// Its name.
        node: String,
        /// What changed there.
        events: Vec<RunStatus>,
    },
    /// What became of a request to run attempts.
    Sent {
        /// The node's name.
        node: String,
        /// The attempts' ids.
        ids: Vec<String>,
        /// One result for each, or what went wrong with the request.
        results: Result<Vec<Result<()>>>,
    },
    /// Where jobs are.
    Statuses {
        /// The node's name.
        node: String,
        /// The attempts' ids.
        ids: Vec<String>,
        /// One answer for each, or what went wrong.
        answers: Result<Vec<Result<Answer>>>,
    },
    /// A node's durable word on an attempt that it would not have.
    Forbidden {
        /// The node's name.
        node: String,
        /// The attempt's id.
        id: String,
        /// That it will not be started there, or where it is; or what went wrong.
        answer: Result<Answer>,
    },
    /// What a node has that has not ended.
    Listed {
        /// The node's name.
        node: String,
        /// The attempts' ids, other heads' too.
        ids: Vec<String>,
    },
    /// What became of a request to kill.
    Killed {
        /// The node's name.
        node: String,
        /// The attempt's id.
        id: String,
        /// The job's status after it, or what went wrong.
        status: Result<Box<RunStatus>>,
    },
}
