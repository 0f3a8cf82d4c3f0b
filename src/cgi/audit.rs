//! What is told in the audit: every change that is asked for, whatever comes of it, and every refusal.
//! What a run says of its own progress is told where its progress is.

use super::body::Body;
use super::environment::{Method, var};
use super::request::Request;
use super::response::Response;
use crate::auth::{self, Who};
use crate::board::audit::{self, Of};
use crate::board::root::Root;
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::model::access::Need;
use crate::model::audit::{Entry, what};
use crate::wire::codes;

/// Whether an error says that whoever asks may not.
pub(super) fn is_refusal(error: &Error) -> bool {
    matches!(error.kind, Kind::Unauthorized | Kind::Forbidden | Kind::Misdirected)
}

/// Whether a request that was admitted is told of.
pub(super) fn is_told(need: Need, request: &Request) -> bool {
    let is_change = request.method != Method::Get || request.param("repair").is_some();
    is_change && !matches!(need, Need::Report | Need::Work | Need::Look | Need::Read)
}

/// What a request asks for, as the audit says it.
pub(super) fn said(request: &Request, program: &str) -> String {
    what(request.method.name(), program, &request.path, &request.query)
}

/// Tells what came of what somebody asked.
pub(super) fn tell(
    root: &Root,
    who: &Who,
    program: &str,
    request: &Request,
    answer: &Result<Response>,
) {
    let (outcome, made) = match answer {
        Ok(answer) => (answer.status.0, answer.made()),
        Err(error) => (codes::of(error.kind).0, None),
    };
    let entry = Entry {
        at: clock::now(),
        user: who.user.clone(),
        by: who.means.clone(),
        from: if request.command { None } else { var("REMOTE_ADDR") },
        what: said(request, program),
        outcome,
        made: made.map(str::to_string),
    };
    write(root, Of::Users, &entry);
}

/// Tells what came of a command that is more than a route in words: where that is which it made.
pub fn tell_command(root: &Root, who: &Who, program: &str, path: &[&str], made: Result<String>) {
    let path = path.iter().map(|word| word.to_string()).collect();
    let request = Request::from_words(Method::Post, path, Vec::new(), Body::None);
    let answer =
        made.map(|made| Response::text("").status(201, "Created").location(program, &made));
    tell(root, who, program, &request, &answer);
}

/// Tells that somebody was refused who did not prove to be anybody.
pub(super) fn tell_refused(root: &Root, program: &str, error: &Error) {
    let path = var("PATH_INFO").unwrap_or_default();
    let path: Vec<String> = path.split('/').skip(1).map(String::from).collect();
    let entry = Entry {
        at: clock::now(),
        user: None,
        by: auth::claimed(root).map_or("nothing".into(), |id| format!("not token {id}")),
        from: var("REMOTE_ADDR"),
        what: what(&var("REQUEST_METHOD").unwrap_or_default(), program, &path, &[]),
        outcome: codes::of(error.kind).0,
        made: None,
    };
    write(root, Of::Strangers, &entry);
}

/// What cannot be written keeps nobody from anything: the change is on the card.
fn write(root: &Root, of: Of, entry: &Entry) {
    if root.is_own()
        && let Err(error) = audit::append(root, of, entry)
    {
        eprintln!("corkboard: the audit lacks {}: {}", entry.what, error.message);
    }
}
