//! The boards: the only code that knows paths, publishes, appends, moves, locks and numbers.
//!
//! - [`root`]: where a root is, and its tree with modes.
//! - [`files`]: the primitives, each with what a crash can leave behind.
//! - [`lock`]: flock with a deadline.
//! - [`numbers`]: job numbers and the cluster's name.
//! - [`cards`]: the head's board, `state/scheduler`.
//! - [`batches`]: many cards in one commit.
//! - [`nodes`]: the node records of the head.
//! - [`runs`]: a node's board, `state/processor`.
//! - [`slots`]: what its supervisors have claimed, and the room they use.
//! - [`feed`]: a node's change feed.
//! - [`watch`]: waiting for files to change.
//! - [`vault`]: `state/open`, tokens and secrets.

pub mod batches;
pub mod cards;
pub mod feed;
pub mod files;
pub mod lock;
pub mod nodes;
pub mod numbers;
pub mod root;
pub mod runs;
pub mod slots;
pub mod vault;
pub mod watch;
