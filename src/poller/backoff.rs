//! How long it is waited before a node that did not answer is asked again.

use std::time::{Duration, Instant};

/// Between two attempts to reach a node; doubled up to [`SLOWEST_RETRY`].
const FIRST_RETRY: Duration = Duration::from_millis(250);

/// See [`FIRST_RETRY`]. With many nodes it is longer, so that each thread asks no more than a few in
/// a second.
const SLOWEST_RETRY: Duration = Duration::from_secs(2);

/// The longest pause for a node that has answered in between.
const FLAPPING_RETRY: Duration = Duration::from_secs(1);

/// How many that are.
const ASKED_PER_SECOND: u32 = 12;

/// After so long without trouble a node is asked at once.
const FORGOTTEN: Duration = Duration::from_secs(5);

/// How long it is waited before a node is asked again.
#[derive(Debug, Default)]
pub struct Backoff {
    pause: Option<Duration>,
    answers_since: Option<Instant>,
}

impl Backoff {
    /// It answers now.
    pub fn answers(&mut self) {
        self.answers_since.get_or_insert_with(Instant::now);
    }

    /// When it is to be asked (again), one of so many: at once if it has answered for a while, or never
    /// was asked.
    pub fn next(&mut self, now: Instant, all: u32) -> Instant {
        let slowest = SLOWEST_RETRY.max(Duration::from_secs(1) * all / ASKED_PER_SECOND);
        let answered = self.answers_since.take();
        let slowest = if answered.is_some() { FLAPPING_RETRY } else { slowest };
        let forgotten = answered.is_some_and(|since| now > since + FORGOTTEN);
        let pause = match self.pause.filter(|_| !forgotten) {
            None => Duration::ZERO,
            Some(pause) => (pause * 2).clamp(FIRST_RETRY, slowest),
        };
        self.pause = Some(pause);
        // Spread, for those that fell silent together.
        now + pause + pause / 32 * u32::from(random_byte(now) % 8)
    }
}

fn random_byte(now: Instant) -> u8 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(now) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_a_bound_and_who_answered_for_long_is_asked_at_once() {
        let now = Instant::now();
        let mut backoff = Backoff::default();
        assert_eq!(backoff.next(now, 1), now);
        let pauses: Vec<Duration> = (0..6).map(|_| backoff.next(now, 1) - now).collect();
        assert!(
            pauses.iter().all(|p| *p >= FIRST_RETRY && *p < SLOWEST_RETRY * 5 / 4),
            "{pauses:?}"
        );
        assert!(pauses[4] >= SLOWEST_RETRY, "{pauses:?}");
        (0..9).for_each(|_| _ = backoff.next(now, 1200));
        assert!(backoff.next(now, 1200) - now >= Duration::from_secs(90), "many are asked in turn");
        backoff.answers();
        let flapping = backoff.next(Instant::now(), 1200) - now;
        assert!(flapping < 2 * FLAPPING_RETRY, "{flapping:?}");
        backoff.answers();
        let later = Instant::now() + 2 * FORGOTTEN;
        assert_eq!(backoff.next(later, 1), later);
    }
}
