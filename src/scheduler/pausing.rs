//! Pausing placement as a whole, and going on.

use serde_json::json;

use crate::board::cards::Cards;
use crate::board::pause::{self, Pause};
use crate::cgi::{Call, Response};
use crate::clock;
use crate::error::{Error, Result};

/// Longest reason, in characters.
pub const LONGEST: usize = 200;

/// `POST pause`: from the answer on nothing is placed; what runs goes on.
pub fn pause(call: &Call) -> Result<Response> {
    let reason = call.request.param("reason").map(str::to_string);
    check(reason.as_deref())?;
    let new = Pause { at: clock::now(), by: call.who.name.clone(), reason };
    let held = Cards::new(call.root).lock()?;
    pause::begin(call.root, &held, &new)?;
    Ok(Response::of(json!({ "paused": new })))
}

/// `POST resume`: placement goes on.
pub fn resume(call: &Call) -> Result<Response> {
    let held = Cards::new(call.root).lock()?;
    pause::end(call.root, &held)?;
    Ok(Response::of(json!({ "paused": null })))
}

/// Refuses what is no reason.
pub fn check(reason: Option<&str>) -> Result<()> {
    match reason {
        Some(why)
            if why.is_empty()
                || why.chars().count() > LONGEST
                || why.chars().any(char::is_control) =>
        {
            Err(Error::bad(format!(
                "a reason has 1 to {LONGEST} characters, none of them a control character"
            )))
        }
        _ => Ok(()),
    }
}
