//! `processor check`: every invariant of the node's board.
pub use super::sweep::Swept;
use crate::board::root::Root;
use crate::error::Result;
/// Stub.
pub fn check(_root: &Root, _repair: bool) -> Result<Vec<String>> {
    Ok(Vec::new())
}
