//! Which of the nodes that have room a job is given: the field `placement` of a request, and the setting
//! of that name.

use serde::{Deserialize, Serialize};

/// See the module. Whatever it is, a node on which the job has not failed comes first, and then one that
/// has room now.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// The one that is least loaded.
    #[default]
    Spread,
    /// The one that is most loaded, so that others stay whole for jobs that need much.
    Pack,
    /// The next by name after the one that was last given a job so.
    #[serde(alias = "rr")]
    RoundRobin,
    /// Any, by the job's number: the same board places the same.
    #[serde(alias = "rand")]
    Random,
}

impl Strategy {
    /// All of them.
    pub const ALL: [Strategy; 4] =
        [Strategy::Spread, Strategy::Pack, Strategy::RoundRobin, Strategy::Random];

    /// The one of this name.
    pub fn of(name: &str) -> Option<Strategy> {
        Strategy::deserialize(serde::de::value::StrDeserializer::<serde::de::value::Error>::new(
            name,
        ))
        .ok()
    }
}
