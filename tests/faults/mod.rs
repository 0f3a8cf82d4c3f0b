//! Faults on purpose: programs under strace, what they did, and what must hold afterwards.
#![allow(dead_code, unused_imports, missing_docs, clippy::unwrap_used, clippy::expect_used)]

pub mod act;
pub mod changes;
pub mod journal;

pub use act::{Act, Point, Ran, at_every_point};
pub use journal::{Counts, Journal, listing, names};
