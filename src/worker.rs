//! The worker: a root that nobody reaches is a node of a head. It dials out, asks the head for the orders of its
//! node, and has its own processor carry them out: the same routes that a head asks of any other node. What it
//! starts outlives it.
//!
//! - [`program`]: its options, its threads, its end; `conf`: a file of options.
//! - `heads`: where the head is, and what it is asked; `joining`: this root becomes its node.
//! - `conversation`: claims, one after the other.
//! - `heard`: when the head was last heard of, and so which orders hold; `overdue`: what it was not heard of for
//!   too long for.
//! - `orders`: carries out what is ordered, in order; `fetched`: what is sent with one.
//! - `outbox`: what is to be told, until it is taken.
//! - `reporter`: what happens here; `tending`: sweeps, clean-up, and what this machine has.

mod conf;
mod conversation;
mod fetched;
mod heads;
mod heard;
mod joining;
mod orders;
mod outbox;
mod overdue;
pub mod program;
mod reporter;
mod tending;
