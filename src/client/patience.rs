//! How long a question to a server may take.

use std::time::Duration;

/// How long a question may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Longest that nothing comes or goes.
    pub pause: Duration,
    /// Longest that all of it takes.
    pub whole: Duration,
}

impl Patience {
    /// For what comes and goes at once.
    pub(crate) fn of(whole: Duration) -> Patience {
        Patience { pause: whole, whole }
    }
}
