//! What a job asks for, as placement compares it.

use super::sites::SiteId;
use crate::model::resources::{Others, Resources};
use crate::strategy::Strategy;

/// Cores and bytes of memory: what every job asks for, and every node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Basic {
    pub cores: u64,
    pub memory: u64,
}

impl Basic {
    pub fn of(all: &Resources) -> Basic {
        Basic { cores: all.cores, memory: all.memory }
    }
}

/// Jobs that ask for the same are of a kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Ask {
    pub basic: Basic,
    pub others: Others,
    /// Which nodes will do.
    pub site: SiteId,
    pub strategy: Strategy,
}
