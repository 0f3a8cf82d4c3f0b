//! `audit`: who changed what, and who was refused.

use std::time::SystemTime;

use serde_json::json;

use crate::board::audit::{self, Of};
use crate::cgi::{Call, Key, Response};
use crate::clock;
use crate::error::{Error, Result};
use crate::model::access::{Need, Reach};
use crate::model::audit::Entry;

/// How many are shown where nobody says.
const USUAL: usize = 1000;

/// Keys of [`show`].
pub const KEYS: &[Key] = &[
    Key::new("since", "WHEN", "a time, or so long ago, e.g. 2h"),
    Key::new("user", "USER", "what this user did"),
    Key::new("limit", "N", "the newest so many; 1000 if absent"),
];

/// `GET audit`: the newest lines, the oldest of them first. Whoever may not read everything is shown what
/// they did themselves.
pub fn show(call: &Call) -> Result<Response> {
    let since = call.request.param("since").map(|text| {
        let ago = || SystemTime::now().checked_sub(clock::parse_duration(text)?);
        let wrong = || Error::bad("since must be a time, or a duration such as 2h");
        clock::parse_rfc3339(text).or_else(ago).ok_or_else(wrong)
    });
    let since = since.transpose()?;
    let user = call.request.param("user");
    let limit = call.request.number("limit")?.unwrap_or(USUAL);
    let sees_all = call.who.reach(Need::Read) == Reach::All;
    let is_meant = |entry: &Entry| {
        (sees_all || (entry.user.is_some() && entry.user == call.who.user))
            && user.is_none_or(|user| entry.user.as_deref() == Some(user))
            && since.is_none_or(|since| {
                clock::parse_rfc3339(&entry.at).is_none_or(|at| at >= since) // rather too much
            })
    };
    let mut entries = audit::newest(call.root, Of::Users, limit, is_meant)?;
    if sees_all {
        entries.extend(audit::newest(call.root, Of::Strangers, limit, is_meant)?);
    }
    let mut entries = Vec::from(entries);
    entries.sort_by(|one, other| one.at.cmp(&other.at)); // all in one form
    entries.drain(..entries.len().saturating_sub(limit));
    Ok(Response::of(json!({ "audit": entries })))
}
