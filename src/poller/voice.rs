//! What the engine says, and what went wrong: each of it told once a minute, however often it happens.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// How often an error is told that stays the same.
const SAME_TROUBLE_EVERY: Duration = Duration::from_secs(60);

/// So many different errors are remembered.
const MOST_TOLD: usize = 1000;

/// See the module. Whatever went wrong since the last [`Voice::take_trouble`] is remembered: there is
/// trouble only where an error was noted.
#[derive(Debug)]
pub struct Voice {
    /// Nothing but errors is said.
    quiet: bool,
    /// The last error is not said: the program ends with it.
    keeps_last: bool,
    /// What went wrong last.
    last: Option<Error>,
    /// When what went wrong was told: several things may take turns.
    told: HashMap<String, Instant>,
    troubled: bool,
    /// When it was last told that this process lacks something.
    complained: Option<Instant>,
}

impl Voice {
    /// Nothing went wrong yet. `quiet`: nothing but errors is said.
    pub fn new(quiet: bool) -> Voice {
        let told = HashMap::new();
        Voice { quiet, keeps_last: false, last: None, told, troubled: false, complained: None }
    }

    /// From now on the last error is kept, for [`Voice::last_words`].
    pub fn keep_last(&mut self) {
        self.keeps_last = true;
    }

    /// Says what was done.
    pub fn say(&self, line: &str) {
        if !self.quiet {
            eprintln!("{line}");
        }
    }

    /// The result, or `None` for an error, which is told: one bad card, node or disk must not
    /// keep the rest from being done. The same error is told once a minute.
    pub fn told<T>(&mut self, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                if let Some(message) = self.note(error, Instant::now()) {
                    eprintln!("poller: {message}");
                }
                None
            }
        }
    }

    /// Notes an error; what is to be said of it.
    fn note(&mut self, error: Error, now: Instant) -> Option<String> {
        self.troubled = true;
        let is_old = |at: &Instant| now.saturating_duration_since(*at) > SAME_TROUBLE_EVERY;
        if !self.told.get(&error.message).is_none_or(is_old) {
            return None;
        }
        if self.told.len() >= MOST_TOLD {
            self.told.retain(|_, at| !is_old(at));
        }
        if self.told.len() >= MOST_TOLD {
            self.told.clear();
        }
        self.told.insert(error.message.clone(), now);
        let before = self.last.replace(error);
        let told = if self.keeps_last { before.as_ref() } else { self.last.as_ref() };
        told.map(|error| error.message.clone())
    }

    /// Tells that this process lacks something, for which nobody else can be blamed; once a minute.
    pub fn complain(&mut self, error: Error) {
        let recent = self.complained.is_some_and(|at| at.elapsed() < SAME_TROUBLE_EVERY);
        if !recent {
            self.complained = Some(Instant::now());
            eprintln!("poller: {}", error.message);
        }
    }

    /// Whether something went wrong.
    pub fn is_troubled(&self) -> bool {
        self.troubled
    }

    /// The same, to begin anew.
    pub fn take_trouble(&mut self) -> bool {
        debug_assert!(!self.troubled || self.last.is_some(), "trouble without an error");
        std::mem::take(&mut self.troubled)
    }

    /// The error that was kept, if there is trouble.
    pub fn last_words(&mut self) -> Option<Error> {
        self.last.take().filter(|_| self.keeps_last && self.troubled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(what: &str) -> Error {
        Error::bad(what)
    }

    #[test]
    fn the_same_trouble_is_said_once_a_minute_and_is_trouble_each_time() {
        let (mut voice, now) = (Voice::new(true), Instant::now());
        assert!(!voice.take_trouble());
        assert_eq!(voice.note(full("a"), now).as_deref(), Some("a"));
        assert_eq!(voice.note(full("a"), now + SAME_TROUBLE_EVERY), None);
        assert!(voice.take_trouble() && !voice.is_troubled());
        let later = now + SAME_TROUBLE_EVERY + Duration::from_secs(1);
        assert_eq!(voice.note(full("a"), later).as_deref(), Some("a"));
        assert_eq!(voice.note(full("b"), later).as_deref(), Some("b"));
        for other in ["a", "b", "a"] {
            assert_eq!(voice.note(full(other), later), None, "they take turns");
        }
        for number in 0..3 * MOST_TOLD {
            assert!(voice.note(full(&number.to_string()), later).is_some());
            assert!(voice.told.len() <= MOST_TOLD);
        }
        assert!(voice.is_troubled() && voice.last_words().is_none(), "they were said");
    }

    #[test]
    fn the_last_of_a_round_from_cron_is_what_the_program_ends_with() {
        let (mut voice, now) = (Voice::new(true), Instant::now());
        voice.keep_last();
        assert_eq!(voice.note(full("a"), now), None);
        assert_eq!(voice.note(full("b"), now).as_deref(), Some("a"));
        assert_eq!(voice.last_words().map(|error| error.message).as_deref(), Some("b"));
    }
}
