//! The words by which a board is checked, the same in every program that has one. They need a shell of
//! the machine: what is wrong with a root is for its owner.

use crate::board::root::Root;
use crate::cgi::words::{self, flag};
use crate::cgi::{Call, Key, Method, Response, Route, Special};
use crate::error::{Result, exit};
use crate::model::access::Need;

/// What a check found.
#[derive(Debug, Default)]
pub struct Found {
    /// What must not be.
    pub wrong: Vec<String>,
    /// What is in order, and worth knowing.
    pub notes: Vec<String>,
}

const REPAIR_KEY: &[Key] = &[Key::new("repair", "1", "mend what has one right answer")];

/// `check`, with `repair=1`.
pub const fn route(handler: fn(&Call) -> Result<Response>) -> Route {
    Route {
        method: Method::Get,
        pattern: "check",
        need: Need::Shell,
        query: REPAIR_KEY,
        body: false,
        help: "check every invariant of the board; exit code 1 if one is violated",
        handler,
    }
}

/// `check --repair`.
pub const REPAIR: Special = Special {
    usage: "--repair",
    options: || vec![flag("repair", "mend what has one right answer")],
    ..Special::plain("check", "mend what has one right answer", |given| {
        words::again(given.program, &["check".into(), "repair=1".into()])
    })
};

/// Carries a check out, which is told whether to repair.
pub fn answer(call: &Call, check: fn(&Root, bool) -> Result<Found>) -> Result<Response> {
    let repair = call.request.switch("repair")?;
    if repair {
        call.root.for_change()?;
    }
    let Found { wrong, notes } = check(call.root, repair)?;
    let mut text: String = wrong.iter().map(|line| format!("{line}\n")).collect();
    text.extend(notes.iter().map(|line| format!("note: {line}\n")));
    let code = if wrong.is_empty() { 0 } else { exit::REFUSED };
    Ok(Response::text(text).exit_code(code))
}
