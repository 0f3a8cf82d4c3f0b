//! The edge of a program: where an error becomes a line on standard error and an exit code.
//!
//! Inside, errors are typed, and callers decide by their kind ([`crate::error`]). On the way out
//! `anyhow` has added what the program was doing, for people alone:
//! `poller: taking the lock of the poller: /srv/state/scheduler/poller.lock: permission denied`.

use std::fmt;
use std::io::{self, Write};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use crate::error::{Error, exit};

/// Says a line on standard error: all that is said there is said by this. Where it cannot be written, since
/// the log is on a disk that is full, nobody can be told, and the program goes on with what it is at.
pub fn say(line: fmt::Arguments) {
    let line = format!("{line}\n");
    let _ = io::stderr().write_all(line.as_bytes());
}

/// From now on a limit on the length of files is told where it is met, as an error, and does not end this
/// program, whatever it is at. What it starts, and is none of these programs, is not to inherit that.
pub fn outlast_limits() {
    let ignored = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: the signal is ignored; no handler is involved.
    let _ = unsafe { sigaction(Signal::SIGXFSZ, &ignored) }; // cannot fail for this signal
}

/// Says what a program was doing and why that failed; returns the exit code, by the kind of the
/// error within.
pub fn complain(program: &str, error: &anyhow::Error) -> i32 {
    eprintln!("{program}: {error:#}");
    exit_code(error)
}

fn exit_code(error: &anyhow::Error) -> i32 {
    error.downcast_ref::<Error>().map_or(exit::REFUSED, |error| error.kind.exit_code())
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;
    use crate::error::Kind;

    #[test]
    fn what_was_done_is_for_people_and_the_kind_decides() {
        let full = || Err::<(), _>(Error::new(Kind::Unavailable, "/x: no space left on device"));
        let error = full().context("writing the card").context("placing").err();
        let told = error.as_ref().map(|error| format!("{error:#}"));
        assert_eq!(told.as_deref(), Some("placing: writing the card: /x: no space left on device"));
        assert_eq!(error.as_ref().map(exit_code), Some(exit::TRY_LATER));
        assert_eq!(exit_code(&anyhow::anyhow!("no error of ours")), exit::REFUSED);
    }
}
