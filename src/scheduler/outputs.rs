//! What a job left behind: its log and its files, fetched from the node that has them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use serde_json::json;

use super::jobs::{number, wait_for_end};
use super::rounds::{Rounds, Waiting};
use super::{interrupt, tasks};
use crate::board::cards::Cards;
use crate::board::{addresses, root::Root, uploads, watch};
use crate::cgi::request::LONGEST_WAIT;
use crate::cgi::{Call, Response, log as asked};
use crate::driver::{self, Questions};
use crate::error::{Error, Kind, Result};
use crate::model::card::{Attempt, Card, State};
use crate::model::log::{LogPiece, LogQuery};
use crate::model::tasks::TaskSet;

const TEXT: &str = "text/plain; charset=utf-8";

/// The key that says in which attempt's log an offset counts.
const ATTEMPT: &str = "attempt";

/// Most bytes between two looks at the clock while a log is followed over HTTP.
const FOLLOWED: u64 = 256 << 10;

/// Between two looks at a log that is followed.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);

/// How long a node that does not answer is asked for the log of an attempt that has ended.
const PATIENCE: Duration = Duration::from_secs(20);

/// Most ranges that an error names.
const NAMED: usize = 10;

/// `GET jobs/N/log`.
pub fn log(call: &Call) -> Result<Response> {
    let job = number(call)?;
    let request = call.request;
    let query = asked::query(request)?;
    if asked::is_followed(request, &query)? {
        let root = call.root.clone();
        // As a command there is nobody in between who would give up.
        let deadline = (!request.command).then(|| Instant::now() + LONGEST_WAIT);
        let card = Cards::new(&root).find(job)?;
        check(&card, &query)?;
        interrupt::of_request(request, job)?;
        let first = first_to_tell(&card, request.number(ATTEMPT)?);
        let place = place_of(&root, &card, first, &query);
        let mut rounds = Rounds::for_request(&root, request, job)?;
        let response = Response::stream(
            TEXT,
            Box::new(move |out| {
                let ended = follow(&root, job, first, query, deadline, rounds.as_mut(), out)?;
                if let Some(rounds) = rounds.filter(|_| ended) {
                    rounds.finish();
                }
                Ok(())
            }),
        );
        return Ok(match place {
            Some((attempt, offset)) => located(response, attempt, offset),
            None => response,
        });
    }
    let card = Cards::new(call.root).find(job)?;
    check(&card, &query)?;
    if let Some(number) = request.number::<u32>(ATTEMPT)? {
        let attempt = card.attempts.iter().find(|attempt| attempt.attempt == number);
        let absent = || Error::not_found(format!("job {job} has no attempt {number}"));
        let attempt = attempt.ok_or_else(absent)?;
        let piece = ask(call.root, attempt)?.log(&attempt.nodejob, &query)?;
        let response = Response::bytes(TEXT, piece.bytes);
        return Ok(located(response, number, piece.next));
    }
    if card.is_array() && query.task.is_none() {
        return Err(Error::bad(format!(
            "job {job} is an array: name a task with task=K, or ask for all with follow=1"
        )));
    }
    let (attempt, piece) = last_log(call.root, &card, &query)?;
    Ok(located(Response::bytes(TEXT, piece.bytes), attempt, piece.next))
}

/// Says where in which attempt's log to go on; of one that is followed, where it begins.
fn located(response: Response, attempt: u32, offset: u64) -> Response {
    response
        .header("X-Corkboard-Attempt", attempt.to_string())
        .header("X-Corkboard-Offset", offset.to_string())
}

/// Which attempt's log is to be followed first: the one from which on the request counts its offset.
/// Otherwise the one in which the job runs now, or ran last; the ranges of an array are told from the
/// first.
fn first_to_tell(card: &Card, from: Option<u32>) -> usize {
    let attempts = &card.attempts;
    match from {
        Some(from) => {
            let first = attempts.iter().position(|attempt| attempt.attempt >= from);
            first.unwrap_or(attempts.len())
        }
        None if card.is_array() => 0,
        None => {
            let ran = attempts.iter().rposition(|attempt| tasks::may_have_run(attempt, None));
            ran.unwrap_or(0)
        }
    }
}

/// Where what is followed begins: whoever is cut off goes on from there, and from as many bytes as came.
/// `None` where the node that knows does not answer.
fn place_of(root: &Root, card: &Card, first: usize, query: &LogQuery) -> Option<(u32, u64)> {
    let attempt = card.attempts.get(first);
    let number = attempt.map_or_else(
        || card.attempts.last().map_or(1, |last| last.attempt.saturating_add(1)),
        |a| a.attempt,
    );
    let (Some(attempt), Some(_)) = (attempt, query.tail) else {
        return Some((number, query.offset));
    };
    let nothing = LogQuery { limit: Some(0), ..query.clone() };
    let piece = ask(root, attempt).and_then(|node| node.log(&attempt.nodejob, &nothing)).ok()?;
    Some((number, piece.next))
}

/// A piece of the log of the attempt in which the job, or the task, last ran, and which that is. Empty
/// before that.
fn last_log(root: &Root, card: &Card, query: &LogQuery) -> Result<(u32, LogPiece)> {
    for attempt in tasks::runs_of(card, query.task) {
        let over = card.with_nodes().all(|at| at.attempt != attempt.attempt);
        match ask(root, attempt)?.log(&attempt.nodejob, query) {
            // Nothing was written: it may never have run there.
            Ok(piece) if piece.next == 0 => match query.task {
                Some(task) if !tasks::has_run(card, attempt, task) => {}
                _ => return Ok((attempt.attempt, piece)),
            },
            Ok(piece) => return Ok((attempt.attempt, piece)),
            // It did not come there before it ended, or the node has not got it yet.
            Err(e) if is_absent(&e) && attempt.started_at.is_none() => {
                if !over && query.task.is_none() {
                    break;
                }
            }
            Err(e) => return Err(e),
        }
    }
    let next = card.attempts.last().map_or(1, |attempt| attempt.attempt);
    Ok((next, LogPiece { bytes: Vec::new(), next: 0 }))
}

/// Refuses a task that the job does not have.
fn check(card: &Card, query: &LogQuery) -> Result<()> {
    query.task.map_or(Ok(()), |task| card.check_tasks(&TaskSet::one(task)))
}

/// Copies a job's log to `out` as it grows, until the job has ended (`true`), or the deadline,
/// where there is one, or the reader has left. Begins with the attempt at this index, with what the
/// query says; of a job that is tried again the log of each later attempt follows whole, of an
/// array one range after the other, unless the query names a task. An offset that is beyond the end of an
/// attempt that is over counts on in the next: so many bytes were told before.
///
/// Without a deadline it says meanwhile, on standard error, what the job waits for. Looks after the
/// rounds that are made meanwhile.
///
/// A node that does not answer is asked again: until the deadline, and for `PATIENCE` once
/// nothing more can come. Then the log of an attempt that was followed by another is left out.
pub fn follow(
    root: &Root,
    job: u64,
    first: usize,
    mut query: LogQuery,
    deadline: Option<Instant>,
    mut rounds: Option<&mut Rounds>,
    out: &mut dyn Write,
) -> Result<bool> {
    let mut index = first;
    let mut give_up = None;
    let mut waiting = deadline.is_none().then(Waiting::begin);
    loop {
        // The card before the log: what it says has ended writes no more.
        let card = Cards::new(root).find(job)?;
        let ended = card.state == State::Stopped || tasks::has_ended(&card, query.task);
        let mut waits = false;
        while let Some(attempt) = card.attempts.get(index) {
            let task = query.task;
            if !tasks::may_have_run(attempt, task) {
                index += 1;
                continue;
            }
            let over = card.with_nodes().all(|at| at.attempt != attempt.attempt)
                || task.is_some_and(|task| !attempt.left.contains(task));
            let later = card.attempts.get(index + 1..).unwrap_or_default();
            let is_last = !later.iter().any(|attempt| tasks::may_have_run(attempt, task));
            let mut beyond = 0;
            match copy(root, attempt, &mut query, deadline, out) {
                Ok(Some(left)) => (beyond, give_up) = (left, None),
                Ok(None) => return Ok(false),
                Err(e) if !over && e.kind == Kind::NotFound => {} // the node has not got it yet
                Err(e) if is_unreachable(&e) && !over => {}
                Err(e) if is_unreachable(&e) => {
                    let until = *give_up.get_or_insert_with(|| Instant::now() + PATIENCE);
                    waits = Instant::now() < until;
                    if !waits && is_last && ended {
                        return Err(e);
                    }
                }
                // Forgotten by its node, or never there; the job went on.
                Err(e) if is_absent(&e) && !(is_last && ended && attempt.started_at.is_some()) => {}
                Err(e) => return Err(e),
            }
            if !over || waits {
                break;
            }
            index += 1;
            give_up = None;
            (query.offset, query.tail) = (beyond, None);
        }
        if ended && !waits {
            return Ok(true);
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) || !watch::may_wait() {
            return Ok(false);
        }
        if let Some(rounds) = rounds.as_mut().filter(|_| !ended) {
            rounds.look()?;
        }
        let next = Instant::now() + FOLLOW_EVERY;
        let next = deadline.map_or(next, |deadline| next.min(deadline));
        if let Some(waiting) = waiting.as_mut().filter(|_| !ended) {
            waiting.look(root, &card, query.task);
        }
        if ended {
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        } else {
            wait_for_end(root, job, next)?;
        }
    }
}

/// Copies what the log of an attempt has beyond the query's offset, which moves on. Returns how far
/// beyond its end that was, or `None` if the reader has left or the deadline has passed.
fn copy(
    root: &Root,
    attempt: &Attempt,
    query: &mut LogQuery,
    deadline: Option<Instant>,
    out: &mut dyn Write,
) -> Result<Option<u64>> {
    let node = ask(root, attempt)?;
    let limit = deadline.map(|_| FOLLOWED);
    loop {
        let piece = node.log(&attempt.nodejob, &LogQuery { limit, ..query.clone() })?;
        let beyond = query.offset.saturating_sub(piece.next);
        query.offset = piece.next;
        query.tail = None;
        if piece.bytes.is_empty() {
            return Ok(Some(beyond));
        }
        let told = out.write_all(&piece.bytes).and_then(|()| out.flush());
        if told.is_err() || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(None);
        }
    }
}

/// Whether a node may well answer if it is asked again.
fn is_unreachable(error: &Error) -> bool {
    matches!(error.kind, Kind::BadGateway | Kind::Unavailable | Kind::GatewayTimeout)
}

/// Whether a node says that it has not got the job, or that it never will.
fn is_absent(error: &Error) -> bool {
    matches!(error.kind, Kind::NotFound | Kind::Gone)
}

/// The node that was given an attempt.
fn ask(root: &Root, attempt: &Attempt) -> Result<Box<dyn Questions>> {
    driver::ask(root, &addresses::holder(root, attempt)?)
}

/// What is in the work directories of a job's last attempt, or of all ranges of an array.
#[derive(Default)]
struct Files<'c> {
    /// Names, with the attempts that have a file of that name.
    names: BTreeMap<String, Vec<&'c Attempt>>,
    /// Nodes that did not answer.
    silent: BTreeSet<String>,
}

impl<'c> Files<'c> {
    /// Asks the nodes. An error where none of them answers.
    fn list(root: &Root, card: &'c Card, task: Option<u32>) -> Result<Files<'c>> {
        let most = if card.is_array() && task.is_none() { usize::MAX } else { 1 };
        let mut files = Files::default();
        let (mut heard, mut failed) = (false, None);
        for attempt in tasks::runs_of(card, task).take(most) {
            if files.silent.contains(&attempt.node) {
                continue;
            }
            match ask(root, attempt).and_then(|node| node.files(&attempt.nodejob)) {
                Ok(names) => {
                    heard = true;
                    names
                        .into_iter()
                        .for_each(|name| files.names.entry(name).or_default().push(attempt));
                }
                Err(e) if is_absent(&e) => heard = true,
                Err(e) => {
                    files.silent.insert(attempt.node.clone());
                    failed = Some(e);
                }
            }
        }
        match failed.filter(|_| !heard) {
            Some(error) => Err(error),
            None => Ok(files),
        }
    }
}

/// `GET jobs/N/files`: what is in the job's work directory, or was uploaded for it. Of an array what
/// any of its ranges has, or the one in which a task last ran.
pub fn files(call: &Call) -> Result<Response> {
    let card = Cards::new(call.root).find(number(call)?)?;
    let task = task(call, &card)?;
    let files = Files::list(call.root, &card, task)?;
    let mut names = uploads::names(call.root, card.job())?;
    names.extend(files.names.into_keys());
    names.sort_unstable();
    names.dedup();
    let mut answer = json!({ "files": names });
    if !files.silent.is_empty() {
        answer["silent"] = json!(files.silent);
    }
    Ok(Response::of(answer))
}

/// `GET jobs/N/files/NAME`. Where several ranges of an array have such a file, a task has to say
/// which is meant: 409.
pub fn file(call: &Call) -> Result<Response> {
    let card = Cards::new(call.root).find(number(call)?)?;
    let (job, name) = (card.job(), call.value(1));
    let task = task(call, &card)?;
    let mut files = Files::list(call.root, &card, task)?;
    let having = files.names.remove(name).unwrap_or_default();
    let found: Option<(Box<dyn Read>, u64)> = match having.as_slice() {
        [] => uploads::open(call.root, job, name)?
            .map(|(file, length)| (Box::new(file) as Box<dyn Read>, length)),
        [attempt] => Some(ask(call.root, attempt)?.file(&attempt.nodejob, name)?),
        several => {
            let tasks = several.iter().filter_map(|attempt| attempt.tasks.as_ref());
            let tasks: Vec<String> = tasks.take(NAMED).map(TaskSet::brief).collect();
            return Err(Error::conflict(format!(
                "{} ranges of job {job} have a file of this name: say which by task=K, of {}{}",
                several.len(),
                tasks.join(" or "),
                if several.len() > NAMED { " or others" } else { "" }
            )));
        }
    };
    let absent = || match files.silent.first() {
        Some(node) => Error::new(
            Kind::GatewayTimeout,
            format!("node {node} may have it, and does not answer"),
        ),
        None => Error::not_found(format!("job {job} has no such file; jobs/N/files lists them")),
    };
    let (file, length) = found.ok_or_else(absent)?;
    Ok(Response::reader(file, length))
}

/// The task that the request names, which the job must have.
fn task(call: &Call, card: &Card) -> Result<Option<u32>> {
    let task = call.request.task()?;
    task.map_or(Ok(()), |task| card.check_tasks(&TaskSet::one(task)))?;
    Ok(task)
}
