//! Why a job waits, as far as its card says: the one answer for whoever places jobs, ends those whose time
//! is over, and tells people the reason. What nodes have to do with it: [`crate::attempts::waits`].

use std::time::SystemTime;

use super::card::{Card, Column};
use super::draft;
use crate::clock::Present;

/// What a job, or some of its tasks, waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// A newer program wrote its card, and alone knows.
    Untouchable,
    /// Nothing of it waits.
    Not,
    /// For its end, as its time is over; or for its lines to be completed, which are half written.
    Over,
    /// For somebody to release it.
    Held,
    /// For others of its tasks: as many as may be are with nodes, which are so many.
    Crowded(u64),
    /// For a time.
    Until(SystemTime),
    /// For a node: so many attempts of it may be placed now.
    ForNode(u64),
}

impl Card {
    /// Whether any of it waits: of an array some may, while nodes have the rest.
    pub fn is_waiting(&self) -> bool {
        match self.column() {
            Column::Queue => true,
            Column::Running => !self.tasks.waiting.is_empty(),
            Column::Done => false,
        }
    }

    /// When it waits no more if it still does by then, whether or not it could be placed; always, where
    /// its lines are half written.
    pub fn over_at(&self, now: &Present) -> Option<SystemTime> {
        if draft::is_unsettled(self) {
            return Some(SystemTime::UNIX_EPOCH);
        }
        self.expires_at(now)
    }

    /// What it waits for now.
    pub fn waits(&self, now: &Present) -> Waits {
        if self.newer.is_some() {
            return Waits::Untouchable;
        }
        if !self.is_waiting() {
            return Waits::Not;
        }
        let over = self.over_at(now);
        let now = now.time();
        if over.is_some_and(|time| time <= now) {
            return Waits::Over;
        }
        if self.is_held() {
            return Waits::Held;
        }
        let left = self.left_at_once();
        let ready = self.tasks.ready(now).len();
        match (self.tasks.spec.at_once, self.tasks.next_time(now)) {
            (Some(most), _) if left == 0 => Waits::Crowded(most),
            (_, Some(time)) if ready == 0 => Waits::Until(time),
            _ => Waits::ForNode(left.min(ready)),
        }
    }

    /// The same of one task that waits.
    pub fn task_waits(&self, task: u32, now: &Present) -> Waits {
        match self.waits(now) {
            Waits::Until(_) | Waits::Crowded(_) | Waits::ForNode(_) => {}
            whole @ (Waits::Untouchable | Waits::Not | Waits::Over | Waits::Held) => return whole,
        }
        match (self.tasks.not_before(task, now.time()), self.tasks.spec.at_once) {
            (Some(time), _) => Waits::Until(time),
            (None, Some(most)) if self.left_at_once() == 0 => Waits::Crowded(most),
            (None, _) => Waits::ForNode(1),
        }
    }

    /// How many more of its attempts nodes may have.
    fn left_at_once(&self) -> u64 {
        let most = self.tasks.spec.at_once.unwrap_or(u64::MAX);
        most.saturating_sub(self.with_nodes().count() as u64)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::model::card::tests::{FIRST, PLACED, card};
    use std::time::Duration;

    fn with(more: &str) -> String {
        FIRST.replace(r#""command""#, &format!(r#"{more},"command""#))
    }

    #[test]
    fn what_a_job_waits_for() {
        let begun = clock::parse_rfc3339("2026-01-01T00:00:00Z").unwrap();
        let later = |seconds| begun + Duration::from_secs(seconds);
        let waits = |lines: &[&str], at| card(lines).waits(&later(at).into());
        assert_eq!(waits(&[FIRST], 0), Waits::ForNode(1));
        assert_eq!(waits(&[FIRST, PLACED], 0), Waits::Not);
        let held = with(r#""state":"held","expires":"60s""#);
        assert_eq!(waits(&[&held], 59), Waits::Held);
        assert_eq!(waits(&[&held], 60), Waits::Over);
        let refused = r#"{"at":"2026-01-01T00:00:02.000Z","event":"refused","attempt":1,"reason":"full","not_before":"2026-01-01T00:00:09.000Z"}"#;
        assert_eq!(waits(&[FIRST, PLACED, refused], 3), Waits::Until(later(9)));
        assert_eq!(waits(&[FIRST, PLACED, refused], 9), Waits::ForNode(1));
        let unknown = r#"{"at":"2026-01-01T00:00:02.000Z","event":"frozen"}"#;
        assert_eq!(waits(&[FIRST, unknown], 3), Waits::Untouchable);
    }

    #[test]
    fn what_tasks_wait_for() {
        let begun = &Present::from(clock::parse_rfc3339("2026-01-01T00:00:03Z").unwrap());
        let array = with(r#""array":"0-3%2""#);
        let range = |attempt: u32, tasks: &str| {
            PLACED
                .replace(r#""attempt":1"#, &format!(r#""attempt":{attempt},"tasks":"{tasks}""#))
                .replace("c-2.1", &format!("c-2.{attempt}"))
        };
        let (one, two) = (range(1, "0"), range(2, "1"));
        let of = |card: &Card, task| card.task_waits(task, begun);
        let whole = card(&[&array]);
        assert_eq!((whole.waits(begun), of(&whole, 3)), (Waits::ForNode(2), Waits::ForNode(1)));
        assert_eq!(card(&[&array, &one]).waits(begun), Waits::ForNode(1));
        let crowded = card(&[&array, &one, &two]);
        assert_eq!((crowded.waits(begun), of(&crowded, 3)), (Waits::Crowded(2), Waits::Crowded(2)));
        let stopping = r#"{"at":"2026-01-01T00:00:02.000Z","event":"stopping","by":"ada"}"#;
        let killed = card(&[&array, &one, stopping]);
        assert_eq!(killed.waits(begun), Waits::Over, "what waits of it was not ended with it");
    }
}
