//! What a job left behind: its log and its files, fetched from the node that has them.

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::json;

use super::jobs::{number, wait_for_end};
use super::rounds::Rounds;
use super::tasks;
use crate::board::cards::Cards;
use crate::board::{nodes, root::Root, uploads};
use crate::cgi::request::LONGEST_WAIT;
use crate::cgi::{Call, Response};
use crate::driver::{self, Questions};
use crate::error::{Error, Kind, Result};
use crate::model::card::{Attempt, Card, State};
use crate::model::log::LogQuery;
use crate::model::tasks::TaskSet;

/// Between two looks at a log that is followed.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);

/// How long a node that does not answer is asked for the log of an attempt that has ended.
const PATIENCE: Duration = Duration::from_secs(20);

/// `GET jobs/N/log`.
pub fn log(call: &Call) -> Result<Response> {
    let job = number(call)?;
    let request = call.request;
    let query = LogQuery {
        stream: request.param("stream").map(str::to_string),
        offset: request.number("offset")?.unwrap_or(0),
        limit: request.number("limit")?,
        tail: request.number("tail")?,
        task: request.task()?,
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
        let card = Cards::new(&root).find(job)?;
        check(&card, &query)?;
        // An offset counts in the log of the attempt that is the last one now; the ranges of an
        // array are told from the first.
        let first = match card.array {
            Some(_) => 0,
            None => card.attempts.len().saturating_sub(1),
        };
        let rounds = Rounds::for_request(&root, request, job)?;
        return Ok(Response::stream(
            "text/plain; charset=utf-8",
            Box::new(move |out| {
                let ended = follow(&root, job, first, query, deadline, out)?;
                if let Some(rounds) = rounds.filter(|_| ended) {
                    rounds.finish();
                }
                Ok(())
            }),
        ));
    }
    let card = Cards::new(call.root).find(job)?;
    check(&card, &query)?;
    if card.array.is_some() && query.task.is_none() {
        return Err(Error::bad(format!(
            "job {job} is an array: name a task with task=K, or ask for all with follow=1"
        )));
    }
    match source(call.root, &card, query.task)? {
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

/// Refuses a task that the job does not have.
fn check(card: &Card, query: &LogQuery) -> Result<()> {
    query.task.map_or(Ok(()), |task| tasks::check(card, &TaskSet::one(task)))
}

/// Copies a job's log to `out` as it grows, until the job has ended (`true`), or the deadline,
/// where there is one, or the reader has left. Begins with the attempt at this index, with what the
/// query says; of a job that is tried again the log of each later attempt follows whole, of an
/// array one range after the other, unless the query names a task.
///
/// A node that does not answer is asked again: until the deadline, and for `PATIENCE` once
/// nothing more can come. Then the log of an attempt that was followed by another is left out.
pub fn follow(
    root: &Root,
    job: u64,
    first: usize,
    mut query: LogQuery,
    deadline: Option<Instant>,
    out: &mut dyn Write,
) -> Result<bool> {
    let mut index = first;
    let mut give_up = None;
    loop {
        // The card before the log: what it says has ended writes no more.
        let card = Cards::new(root).find(job)?;
        let ended = card.state == State::Stopped || tasks::has_ended(&card, query.task);
        let mut waits = false;
        while let Some(attempt) = card.attempts.get(index) {
            let task = query.task;
            if task.is_some_and(|task| !attempt.tasks.as_ref().is_some_and(|t| t.contains(task))) {
                index += 1;
                continue;
            }
            let over = card.with_nodes().all(|at| at.attempt != attempt.attempt)
                || task.is_some_and(|task| !attempt.left.contains(task));
            let is_last = index + 1 == card.attempts.len();
            match copy(root, attempt, &mut query, out) {
                Ok(true) => give_up = None,
                Ok(false) => return Ok(false),
                Err(e) if !over && e.kind == Kind::NotFound => {} // the node has not got it yet
                Err(e) if is_unreachable(&e) && !over => {}
                Err(e) if is_unreachable(&e) => {
                    let until = *give_up.get_or_insert_with(|| Instant::now() + PATIENCE);
                    waits = Instant::now() < until;
                    if !waits && is_last && ended {
                        return Err(e);
                    }
                }
                // Refused by its node, or forgotten there; the job went on.
                Err(e) if matches!(e.kind, Kind::NotFound | Kind::Gone) && !(is_last && ended) => {}
                Err(e) => return Err(e),
            }
            if !over || waits {
                break;
            }
            index += 1;
            give_up = None;
            (query.offset, query.tail) = (0, None);
        }
        if ended && !waits {
            return Ok(true);
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(false);
        }
        let next = Instant::now() + FOLLOW_EVERY;
        let next = deadline.map_or(next, |deadline| next.min(deadline));
        if ended {
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        } else {
            wait_for_end(root, job, next)?;
        }
    }
}

/// Copies what the log of an attempt has beyond the query's offset, which moves on. `false`: the
/// reader has left.
fn copy(root: &Root, attempt: &Attempt, query: &mut LogQuery, out: &mut dyn Write) -> Result<bool> {
    let node = nodes::read(root, &attempt.node)?;
    let node = driver::ask(root, &node)?;
    loop {
        let piece = node.log(&attempt.nodejob, query)?;
        query.offset = piece.next;
        query.tail = None;
        if piece.bytes.is_empty() {
            return Ok(true);
        }
        if out.write_all(&piece.bytes).and_then(|()| out.flush()).is_err() {
            return Ok(false);
        }
    }
}

/// Whether a node may well answer if it is asked again.
fn is_unreachable(error: &Error) -> bool {
    matches!(error.kind, Kind::BadGateway | Kind::Unavailable | Kind::GatewayTimeout)
}

/// The node that has the job's last attempt, or a task's, and the attempt's id; `None` before the
/// first.
fn source(
    root: &Root,
    card: &Card,
    task: Option<u32>,
) -> Result<Option<(Box<dyn Questions>, String)>> {
    let attempt = match task {
        Some(task) => tasks::attempt_of(card, task),
        None => card.attempts.last(),
    };
    let Some(attempt) = attempt else { return Ok(None) };
    let node = nodes::read(root, &attempt.node)?;
    Ok(Some((driver::ask(root, &node)?, attempt.nodejob.clone())))
}

/// `GET jobs/N/files`: what is in the job's work directory, or was uploaded for it.
pub fn files(call: &Call) -> Result<Response> {
    let card = Cards::new(call.root).find(number(call)?)?;
    let mut names = uploads::names(call.root, card.job())?;
    if let Some((node, id)) = source(call.root, &card, None)? {
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
    let content = match source(call.root, &card, None)? {
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
