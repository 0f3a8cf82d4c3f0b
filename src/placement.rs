//! Which waiting job goes to which node. Pure policy: no clock, no files.
//!
//! Higher priority first, then the lower number; of the nodes that have room, one on which the job
//! has not failed yet, then one that has room now before one that is about to have it or takes jobs
//! ahead, then as the job's strategy says ([`Strategy`]): the one that is least loaded, and of these the one
//! with the least memory in use, and then the first by name.
//!
//! A node that is a user's takes that user's jobs alone, and is to them as any other. What a job asks of
//! nodes by labels and names is looked at once for all jobs that ask the same (`sites`).
//!
//! Jobs are kept by what they ask for ([`ready`]), nodes by what they have room for ([`rooms`]).
//! Both lie in index trees (`kdtree`): a room that has grown finds the first job that fits, a job
//! finds the least loaded room, and a decision costs neither the number of jobs and of kinds of
//! need, nor the number of nodes.
//!
//! A job that needs much is not starved by smaller ones: see `reservations`.

use std::sync::Arc;

use crate::model::resources::Resources;
use crate::model::selector::Selector;
use crate::strategy::Strategy;

mod account;
mod ask;
mod blocked;
mod candidates;
mod choosing;
pub mod ends;
mod gates;
mod groups;
mod kdtree;
mod keeping;
mod kept;
mod ledger;
mod limits;
mod listings;
mod offers;
pub mod ranges;
pub mod ready;
mod reservation;
mod reservations;
mod room;
pub mod rooms;
mod sites;
mod spots;
pub mod why;

pub use gates::{Cap, Caps, InUse, Uses};
pub use groups::Rules;
pub use ready::{Placed, Ready};
pub use rooms::{Room, Rooms};

/// A job that may be placed now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its number.
    pub job: u64,
    /// Higher goes first.
    pub priority: i64,
    /// The user whose job it is, where that is known.
    pub owner: Option<Arc<str>>,
    /// The partition that it is for, if it is for one.
    pub partition: Option<Arc<str>>,
    /// What it asks for.
    pub resources: Resources,
    /// For how long at most it will have that, in milliseconds; [`ends::NEVER`] where that is not known.
    pub lasts: ends::Millis,
    /// Which nodes will do, where not all will.
    pub selector: Option<Arc<Selector>>,
    /// Which of those that have room it is given.
    pub strategy: Strategy,
    /// Nodes on which an attempt of it failed or was refused.
    pub avoid: Vec<String>,
    /// Of an array: how many more ranges of it may be placed.
    pub more: u64,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
