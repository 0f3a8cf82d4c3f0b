//! What is reserved on a node: see [`super::reservations`].

use super::candidates::Turn;
use super::ends::{Millis, NEVER, has_room};
use crate::model::resources::Resources;

/// So long a job may last that goes before one of which nobody knows when it will begin.
const UNKNOWN_AT_MOST: Millis = 3_600_000;

/// What is reserved on a node, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reservation {
    /// The job's turn, which holds its number.
    pub turn: Turn,
    /// What it needs.
    pub needs: Resources,
    /// By then there is room for it; [`NEVER`] where nobody knows.
    pub until: Millis,
    /// What others may have beside it from then on.
    pub spare: Resources,
    /// When it was made.
    pub since: Millis,
}

impl Reservation {
    /// Whether a job that has room now does not put it off.
    pub fn lets_past(&self, job: &Resources, lasts: Millis, now: Millis) -> bool {
        self.ends_before(lasts, now) || has_room(job, &self.spare, &Resources::NONE)
    }

    fn ends_before(&self, lasts: Millis, now: Millis) -> bool {
        lasts <= self.time_left(now)
    }

    /// How long at most a job may last that will have ended before. Where nobody knows when that is, what is short
    /// beside such a wait may go first.
    pub fn time_left(&self, now: Millis) -> Millis {
        match self.until {
            NEVER => UNKNOWN_AT_MOST,
            until => until.saturating_sub(now),
        }
    }
}
