//! What a job asks for, as placement compares it.

use super::ends::Millis;
use super::sites::SiteId;
use crate::model::resources::Resources;
use crate::strategy::Strategy;

/// Jobs that ask for the same are of a kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Ask {
    pub resources: Resources,
    /// For how long at most it will have it.
    pub lasts: Millis,
    /// Which nodes will do.
    pub site: SiteId,
    pub strategy: Strategy,
}
