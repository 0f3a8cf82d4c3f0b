//! What a job asks for, as placement compares it.

use super::room::Basic;
use super::sites::SiteId;
use crate::model::resources::Others;
use crate::strategy::Strategy;

/// Jobs that ask for the same are of a kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Ask {
    pub basic: Basic,
    pub others: Others,
    /// Which nodes will do.
    pub site: SiteId,
    pub strategy: Strategy,
}
