//! When the head was last heard of. An order holds for the time in which it was heard of without too long a break:
//! after one the head may have counted as lost what it has ordered, and have it run elsewhere.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::board::workers::steady_ms;
use crate::error::{Error, Kind, Result};

/// For all threads.
#[derive(Default)]
pub(super) struct Heard {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When what the head answered last was sent to it, in milliseconds since this machine was started; sleep counts.
    sent_at: u64,
    /// For how long it may not be heard of, in milliseconds.
    give_up: u64,
    spell: Spell,
}

/// A time without too long a break.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spell(u64);

impl State {
    fn is_over(&self, now: u64) -> bool {
        now.saturating_sub(self.sent_at) >= self.give_up
    }
}

impl Heard {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The head has answered what was sent at this time; in which spell that is. An error where it was sent so long
    /// ago that the head may have given up by now what it orders with that.
    pub(super) fn note(&self, sent_at: u64, give_up: Duration) -> Result<Spell> {
        let (now, give_up) = (steady_ms()?, give_up.as_millis() as u64);
        let said = State { sent_at, give_up, spell: Spell::default() };
        let mut state = self.state();
        if said.is_over(now) {
            return Err(Error::new(Kind::GatewayTimeout, "the head's answer is too old"));
        }
        let spell = if state.is_over(now) { Spell(state.spell.0 + 1) } else { state.spell };
        *state = State { spell, ..said };
        Ok(spell)
    }

    /// Whether it is this spell yet.
    pub(super) fn is_yet(&self, spell: Spell) -> bool {
        let state = self.state();
        steady_ms().is_ok_and(|now| state.spell == spell && !state.is_over(now))
    }
}
