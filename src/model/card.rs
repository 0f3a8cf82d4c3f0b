//! A card: one job's story, and everything that follows from it.
//!
//! The first line is the request as accepted; each later line is an [`Event`]. State, column,
//! attempts and priority are one pure fold over the lines ([`Card::parse`]), so that whoever reads
//! a card comes to the same answer, and the directory it lies in is only the place where that
//! answer can be seen.

pub use super::attempt::Attempt;
pub use super::event::{Accepted, Event, What};
use super::ids::NodejobId;
use super::job_tasks::Tasks;
pub use super::line::Line;
use super::newer::written_by_newer;
use super::outcome::{Outcome, Status};
use super::request::{Expires, Spec};
pub use super::state::{Column, State};
use crate::clock::{self, Present};
use crate::error::{Error, Result as Checked};
use std::time::SystemTime;

/// A card, read.
#[derive(Debug, Clone)]
pub struct Card {
    /// The first line.
    pub accepted: Accepted,
    /// Bytes of its story when it was read, or when a line was last appended. Stories only grow:
    /// one that has this length still says the same.
    pub length: u64,
    /// What of it a newer program wrote that this one does not know: then this program leaves the
    /// card alone, and the rest of what is here is as far as it could be understood.
    pub newer: Option<String>,
    /// The later lines that could be read, in order.
    pub events: Vec<Event>,
    /// What the request means.
    pub spec: Spec,
    /// Where the job is in its life.
    pub state: State,
    /// As requested, or as changed since.
    pub priority: i64,
    /// Attempts so far, the last one last.
    pub attempts: Vec<Attempt>,
    /// The end, where it ended.
    pub outcome: Option<Outcome>,
    /// When the end was recorded.
    pub stopped_at: Option<String>,
    /// Who killed it, while that is going on.
    pub stopping_by: Option<String>,
    /// Why it went back to the queue, where it did.
    pub requeue_reason: Option<String>,
    /// Where its tasks are: of a plain job the one that it is.
    pub tasks: Tasks,
}

impl Card {
    /// Reads a card. Empty and damaged lines after the first are passed over: a crash or a power
    /// loss can leave a torn line or zeros. A whole line that is not known is no damage: a newer
    /// program wrote it (see [`Card::newer`]). A first line that is not whole is an error (its text
    /// says why): such a card belongs in `bad/`.
    pub fn parse(bytes: &[u8]) -> Result<Card, String> {
        let mut lines = bytes.split(|b| *b == b'\n');
        let first = lines.next().unwrap_or_default();
        let (accepted, unknown) = Accepted::read(first)
            .map_err(|e| format!("its first line is not an accepted request: {e}"))?;
        let (spec, unknown_request) = Spec::of_card(&accepted.whole_request());
        let mut card = Card {
            state: if spec.held { State::Held } else { State::Queued },
            priority: spec.priority,
            tasks: Tasks::new(spec.array.as_ref(), spec.held),
            accepted,
            length: bytes.len() as u64,
            newer: unknown.or(unknown_request).map(|what| format!("{what} in line 1")),
            events: Vec::new(),
            spec,
            attempts: Vec::new(),
            outcome: None,
            stopped_at: None,
            stopping_by: None,
            requeue_reason: None,
        };
        for (index, line) in lines.enumerate().filter(|(_, line)| !line.is_empty()) {
            match Line::read(line) {
                Line::Event(event) => card.add(event),
                Line::Newer(what) => {
                    card.newer.get_or_insert_with(|| format!("{what} in line {}", index + 2));
                }
                Line::Damaged => {}
            }
        }
        // Once: to see which attempts nodes have takes a look at each, and there may be thousands.
        card.see_state();
        Ok(card)
    }

    /// Refuses with 409 what this program may not touch: what a newer one wrote there could mean
    /// anything, also that the job runs.
    pub fn for_change(&self) -> Checked<()> {
        match self.newer_reason() {
            None => Ok(()),
            Some(why) => Err(Error::conflict(format!("job {}: its card was {why}", self.job()))),
        }
    }

    /// Why this program leaves the card alone, if it does.
    pub fn newer_reason(&self) -> Option<String> {
        self.newer.as_deref().map(written_by_newer)
    }

    /// The same card without its history: what it says now.
    #[must_use]
    pub fn without_events(&self) -> Card {
        Card {
            accepted: self.accepted.clone(),
            length: self.length,
            newer: self.newer.clone(),
            events: Vec::new(),
            spec: self.spec.clone(),
            state: self.state,
            priority: self.priority,
            attempts: self.attempts.clone(),
            outcome: self.outcome.clone(),
            stopped_at: self.stopped_at.clone(),
            stopping_by: self.stopping_by.clone(),
            requeue_reason: self.requeue_reason.clone(),
            tasks: self.tasks.clone(),
        }
    }

    /// The job's number.
    pub fn job(&self) -> u64 {
        self.accepted.job
    }

    /// Whether it was asked for as an array: then its tasks have numbers.
    pub fn is_array(&self) -> bool {
        self.tasks.is_array()
    }

    /// The tasks, of an array.
    pub fn array(&self) -> Option<&Tasks> {
        self.is_array().then_some(&self.tasks)
    }

    /// The column in which this card belongs.
    pub fn column(&self) -> Column {
        self.state.column()
    }

    /// The attempts that nodes have: of an array any number, else at most one.
    pub fn with_nodes(&self) -> impl Iterator<Item = &Attempt> {
        let out = self.column() == Column::Running;
        self.attempts.iter().filter(move |attempt| out && attempt.ended_at.is_none())
    }

    /// Whether `id` is an attempt that a node has now.
    pub fn is_current(&self, id: &NodejobId) -> bool {
        self.current(id).is_some()
    }

    /// The attempt of this id, while a node has it.
    pub fn current(&self, id: &NodejobId) -> Option<&Attempt> {
        self.with_nodes().find(|a| a.attempt == id.attempt && a.nodejob == *id)
    }

    /// `unknown` until the end.
    pub fn status(&self) -> Status {
        self.outcome.as_ref().map_or(Status::Unknown, |o| o.status)
    }

    /// When it expires if it still waits: a time is a time, and a duration is time that passes, whatever
    /// was done to the clock since it was accepted.
    pub fn expires_at(&self, now: &Present) -> Option<SystemTime> {
        match self.spec.expires? {
            Expires::At(time) => Some(time),
            Expires::After(duration) => {
                now.passed_since(clock::parse_rfc3339(&self.accepted.at)?, duration)
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use super::*;

    pub const FIRST: &str = r#"{"job":2,"request_id":"r","at":"2026-01-01T00:00:00.000Z","by":"ada","request":{"command":["true"],"max_retry_count":1}}"#;
    pub const PLACED: &str = r#"{"at":"2026-01-01T00:00:01.000Z","event":"placed","attempt":1,"node":"n","nodejob":"c-2.1","driver":"local"}"#;

    pub fn card(lines: &[&str]) -> Card {
        Card::parse(lines.join("\n").as_bytes()).unwrap()
    }

    #[test]
    fn a_story_becomes_a_state() {
        assert_eq!(card(&[FIRST]).state, State::Queued);
        assert_eq!(card(&[FIRST, PLACED]).state, State::Placed);
        let running = r#"{"at":"t","event":"running","attempt":1,"pid":7}"#;
        let card1 = card(&[FIRST, "", PLACED, "\0\0\0", running]);
        assert_eq!(card1.state, State::Running);
        assert_eq!(card1.attempts[0].pid, Some(7));
        let late = r#"{"at":"t","event":"running","attempt":2,"pid":8}"#;
        assert_eq!(card(&[FIRST, PLACED, late]).state, State::Placed);
    }

    #[test]
    fn the_first_end_stands() {
        let good =
            r#"{"at":"t","event":"stopped","attempt":1,"status":"good","cause":"exit","code":0}"#;
        let bad = r#"{"at":"t","event":"stopped","attempt":1,"status":"error","cause":"lost"}"#;
        let ended = card(&[FIRST, PLACED, good, bad, PLACED]);
        assert_eq!(ended.outcome.unwrap(), Outcome::exit(0));
        assert_eq!(ended.state, State::Stopped);
        assert_eq!(ended.attempts.len(), 1);
    }

    #[test]
    fn a_damaged_first_line_is_an_error() {
        assert!(Card::parse(b"").is_err());
        assert!(Card::parse(&FIRST.as_bytes()[..40]).is_err());
    }
}
