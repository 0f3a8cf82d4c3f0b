//! Cores and memory.

use crate::model::resources::Resources;

/// An amount of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Basic {
    /// Cores.
    pub cores: u64,
    /// Bytes.
    pub memory: u64,
}

impl From<&Resources> for Basic {
    fn from(all: &Resources) -> Basic {
        Basic { cores: all.cores, memory: all.memory }
    }
}

impl Basic {
    /// Nothing.
    pub const NONE: Basic = Basic { cores: 0, memory: 0 };

    /// Whether it is no more than this.
    pub fn fits(&self, room: &Basic) -> bool {
        self.cores <= room.cores && self.memory <= room.memory
    }

    /// The sum.
    #[must_use]
    pub fn plus(&self, other: &Basic) -> Basic {
        Basic { cores: self.cores.saturating_add(other.cores), memory: self.memory.saturating_add(other.memory) }
    }

    /// What is left.
    #[must_use]
    pub fn minus(&self, other: &Basic) -> Basic {
        Basic { cores: self.cores.saturating_sub(other.cores), memory: self.memory.saturating_sub(other.memory) }
    }
}
