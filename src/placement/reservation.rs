//! What is reserved on a node: see [`super::reservations`].

use super::candidates::Turn;
use super::ends::{Millis, NEVER, has_room};
use crate::model::resources::Resources;

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
}

impl Reservation {
    /// Whether a job that has room now does not put it off.
    pub fn lets_past(&self, job: &Resources, lasts: Millis, now: Millis) -> bool {
        self.ends_before(lasts, now) || has_room(job, &self.spare, &Resources::NONE)
    }

    fn ends_before(&self, lasts: Millis, now: Millis) -> bool {
        lasts <= self.time_left(now)
    }

    /// How long at most a job may last that will have ended before; all that is known to end will, where it is
    /// not known when that is.
    pub fn time_left(&self, now: Millis) -> Millis {
        self.until.saturating_sub(now).min(NEVER - 1)
    }
}
