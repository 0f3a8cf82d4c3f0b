//! What a job left behind: its log and its files, fetched from the node that has them.

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::json;

use super::jobs::{number, wait_for_end};
use crate::board::cards::Cards;
use crate::board::{nodes, root::Root, uploads};
use crate::cgi::request::LONGEST_WAIT;
use crate::cgi::{Call, Response};
use crate::driver::{self, Driver};
use crate::error::{Error, Kind, Result};
use crate::model::card::{Card, State};
use crate::model::log::LogQuery;

/// Between two looks at a log that is followed.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);

/// `GET jobs/N/log`.
pub fn log(call: &Call) -> Result<Response> {
    let job = number(call)?;
    let request = call.request;
    let query = LogQuery {
        stream: request.param("stream").map(str::to_string),
        offset: request.number("offset")?.unwrap_or(0),
        limit: request.number("limit")?,
        tail: request.number("tail")?,
    };
    if query.stream.as_deref().is_some_and(|s| s != "stdout" && s != "stderr") {
        return Err(Error::bad("stream must be stdout or stderr"));
    }
    if request.switch("follow")? {
        if query.limit.is_some() {
            return Err(Error::bad("limit and follow exclude each other"));
        }
        let root = call.root.clone();
        // As a command there is nobody in between who would give up.
        let deadline = (!request.command).then(|| Instant::now() + LONGEST_WAIT);
        Cards::new(&root).find(job)?;
        return Ok(Response::stream(
            "text/plain; charset=utf-8",
            Box::new(move |out| follow(&root, job, query, deadline, out)),
        ));
    }
    let card = Cards::new(call.root).find(job)?;
    match source(call.root, &card)? {
        None => Ok(Response::text("").header("X-Corkboard-Offset", "0")),
        Some((node, id)) => match node.log(&id, &query) {
            Ok(piece) => Ok(Response::bytes("text/plain; charset=utf-8", piece.bytes)
                .header("X-Corkboard-Offset", piece.next.to_string())),
            // Placed, and the node has not got it yet.
            Err(e) if e.kind == Kind::NotFound && card.state == State::Placed => {
                Ok(Response::text("").header("X-Corkboard-Offset", "0"))
            }
            Err(e) => Err(e),
        },
    }
}

/// Copies a job's log to `out` as it grows, until the job has ended (or the deadline, where there
/// is one). Of a job that is tried again, only the attempt that was current at the start.
pub fn follow(
    root: &Root,
    job: u64,
    mut query: LogQuery,
    deadline: Option<Instant>,
    out: &mut dyn Write,
) -> Result<()> {
    loop {
        let card = Cards::new(root).find(job)?;
        let ended = card.state == State::Stopped;
        if let Some((node, id)) = source(root, &card)? {
            loop {
                let piece = match node.log(&id, &query) {
                    Ok(piece) => piece,
                    Err(e) if e.kind == Kind::NotFound && !ended => break,
                    Err(e) => return Err(e),
                };
                query.offset = piece.next;
                query.tail = None;
                if piece.bytes.is_empty() {
                    break;
                }
                if out.write_all(&piece.bytes).and_then(|()| out.flush()).is_err() {
                    return Ok(()); // the reader has left
                }
            }
        }
        if ended || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(());
        }
        let next = Instant::now() + FOLLOW_EVERY;
        wait_for_end(root, job, deadline.map_or(next, |deadline| next.min(deadline)))?;
    }
}

/// The node that has the job's last attempt, and the attempt's id; `None` before the first.
fn source(root: &Root, card: &Card) -> Result<Option<(Box<dyn Driver>, String)>> {
    let Some(attempt) = card.attempts.last() else { return Ok(None) };
    let node = nodes::read(root, &attempt.node)?;
    Ok(Some((driver::open(root, &node)?, attempt.nodejob.clone())))
}

/// `GET jobs/N/files`: what is in the job's work directory, or was uploaded for it.
pub fn files(call: &Call) -> Result<Response> {
    let card = Cards::new(call.root).find(number(call)?)?;
    let mut names = uploads::names(call.root, card.job())?;
    if let Some((node, id)) = source(call.root, &card)? {
        match node.files(&id) {
            Ok(there) => names.extend(there),
            Err(e) if e.kind == Kind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    names.sort_unstable();
    names.dedup();
    Response::json(&json!({ "files": names }))
}

/// `GET jobs/N/files/NAME`.
pub fn file(call: &Call) -> Result<Response> {
    let card = Cards::new(call.root).find(number(call)?)?;
    let name = call.value(1);
    let content = match source(call.root, &card)? {
        Some((node, id)) => match node.file(&id, name) {
            Ok(content) => Some(content),
            Err(e) if e.kind == Kind::NotFound => None,
            Err(e) => return Err(e),
        },
        None => None,
    };
    let content = match content {
        Some(content) => Some(content),
        None => uploads::read(call.root, card.job(), name)?,
    };
    let content = content.ok_or_else(|| {
        Error::not_found(format!("job {} has no such file; jobs/N/files lists them", card.job()))
    })?;
    Ok(Response::bytes("application/octet-stream", content))
}
