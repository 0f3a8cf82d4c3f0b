//! What was last said of what nodes are kept for, and when it was looked at.

use std::time::{Duration, Instant, SystemTime};

use super::index::Reserved;

/// Times that differ by less are the same.
const ABOUT: Duration = Duration::from_secs(1);

/// What was said last, and when.
#[derive(Debug, Default)]
pub struct Reserving {
    pub looked: Option<Instant>,
    /// Nothing before this process has said something.
    pub said: Option<Vec<Reserved>>,
}

impl Reserving {
    /// Whether that is what was said.
    pub fn is_said(&self, all: &[Reserved]) -> bool {
        let same = |a: &Reserved, b: &Reserved| {
            a.job == b.job && a.node == b.node && about(a.until, b.until)
        };
        self.said.as_ref().is_some_and(|said| {
            said.len() == all.len() && said.iter().zip(all).all(|(a, b)| same(a, b))
        })
    }
}

fn about(a: Option<SystemTime>, b: Option<SystemTime>) -> bool {
    let (Some(a), Some(b)) = (a, b) else { return a == b };
    a.duration_since(b).or_else(|_| b.duration_since(a)).is_ok_and(|between| between < ABOUT)
}
