//! What nodes are kept for: for the first jobs that fit nowhere, though nobody was placed past them yet, and said
//! to whoever asks when a job will begin.

use std::time::{Duration, Instant};

use super::engine::Engine;
use super::index::Moment;
use crate::board::{pause, reservations};
use crate::clock;

/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(1);

impl Engine<'_> {
    /// Looks, at most once a second unless `at_once`, for which jobs nodes are to be kept, and says it.
    pub(super) fn reserve(&mut self, at_once: bool) {
        let is_due = self.reserving.looked.is_none_or(|last| last.elapsed() >= EVERY);
        if !is_due && !at_once {
            return;
        }
        self.reserving.looked = Some(Instant::now());
        // While nothing is placed nobody can tell when anything will begin.
        let all = match pause::is_paused(self.root) {
            true => Vec::new(),
            false => self.index.reserve_first(Moment::now()),
        };
        if self.index.has_grown() {
            let _ = self.yield_round(); // others may have what is kept no more
        }
        if self.reserving.is_said(&all) {
            return;
        }
        let lines: Vec<reservations::Reservation> = all
            .iter()
            .map(|one| reservations::Reservation {
                job: one.job,
                node: one.node.clone(),
                until: one.until.map(clock::rfc3339),
            })
            .collect();
        // Nothing is decided by it: nothing need be looked at again where it cannot be written.
        if let Err(error) = reservations::write(self.root, &lines) {
            self.complain(error);
        }
        self.reserving.said = Some(all);
    }
}
