//! What an attempt has used.

use serde::{Deserialize, Serialize};

/// What its programs, with what they waited for, have used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Time of processor cores, in milliseconds.
    pub cpu_ms: u64,
    /// The most memory that one of its processes had at a time, or where a control group counted it, all of
    /// them together; in bytes.
    pub max_memory: u64,
}

impl Usage {
    /// The same with what came after it.
    pub fn add(&mut self, next: Usage) {
        self.cpu_ms = self.cpu_ms.saturating_add(next.cpu_ms);
        self.max_memory = self.max_memory.max(next.max_memory);
    }
}
