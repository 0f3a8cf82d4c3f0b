//! A job's log, fetched from the node that has it.

use std::io::Write;
use std::time::{Duration, Instant};

use super::jobs::{number, wait_for_end};
use super::rounds::{Rounds, Waiting};
use super::{interrupt, tasks};
use crate::board::cards::Cards;
use crate::board::{addresses, root::Root, watch};
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
        if !request.command {
            can_be_told(&root, &card, first, &query)?;
        }
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

/// Asks for a log that is about to be followed, and is the error for which it could not be told: once the
/// answer has begun it can only end, and a log that nobody could fetch would be an empty one. The attempts
/// are asked whose silence would end it, the first and the last.
fn can_be_told(root: &Root, card: &Card, first: usize, query: &LogQuery) -> Result<()> {
    let nothing = LogQuery { limit: Some(0), ..query.clone() };
    let until = Instant::now() + PATIENCE;
    let runs = |index: &usize| tasks::may_have_run(&card.attempts[*index], query.task);
    let found = (first..card.attempts.len()).find(runs);
    let last = (first..card.attempts.len()).rfind(runs).filter(|last| Some(*last) != found);
    for index in found.into_iter().chain(last) {
        let attempt = &card.attempts[index];
        let standing = Standing::of(card, index, query.task);
        while let Err(e) = ask(root, attempt).and_then(|node| node.log(&attempt.nodejob, &nothing))
        {
            match standing.without(attempt, &e) {
                Without::Later | Without::GoOn => break,
                Without::AskOn if Instant::now() < until => std::thread::sleep(FOLLOW_EVERY),
                Without::AskOn if !standing.is_final => break,
                Without::AskOn | Without::Tell => return Err(e),
            }
        }
    }
    Ok(())
}

/// Where an attempt stands among those whose logs are followed.
struct Standing {
    /// It writes no more.
    over: bool,
    /// Nor does any after it.
    is_final: bool,
}

/// What follows where its log cannot be had.
enum Without {
    /// It may come yet.
    Later,
    /// Its node may answer yet; if not, it is an error where the attempt is the final one.
    AskOn,
    /// Forgotten by its node, or never there; the job went on.
    GoOn,
    /// That is the answer.
    Tell,
}

impl Standing {
    fn of(card: &Card, index: usize, task: Option<u32>) -> Standing {
        let Some(attempt) = card.attempts.get(index) else {
            return Standing { over: false, is_final: false };
        };
        let over = card.with_nodes().all(|at| at.attempt != attempt.attempt)
            || task.is_some_and(|task| !attempt.left.contains(task));
        let later = card.attempts.get(index + 1..).unwrap_or_default();
        let is_last = !later.iter().any(|attempt| tasks::may_have_run(attempt, task));
        Standing { over, is_final: is_last && has_ended(card, task) }
    }

    fn without(&self, attempt: &Attempt, error: &Error) -> Without {
        match () {
            () if !self.over && error.kind == Kind::NotFound => Without::Later, // its node has not got it
            () if is_unreachable(error) && !self.over => Without::Later,
            () if is_unreachable(error) => Without::AskOn,
            () if is_absent(error) && !(self.is_final && attempt.started_at.is_some()) => {
                Without::GoOn
            }
            () => Without::Tell,
        }
    }
}

/// Whether the job, or the task of it that is meant, has ended.
fn has_ended(card: &Card, task: Option<u32>) -> bool {
    card.state == State::Stopped || tasks::has_ended(card, task)
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
        let ended = has_ended(&card, query.task);
        let mut waits = false;
        while let Some(attempt) = card.attempts.get(index) {
            let task = query.task;
            if !tasks::may_have_run(attempt, task) {
                index += 1;
                continue;
            }
            let standing = Standing::of(&card, index, task);
            let mut beyond = 0;
            match copy(root, attempt, &mut query, deadline, out) {
                Ok(Some(left)) => (beyond, give_up) = (left, None),
                Ok(None) => return Ok(false),
                Err(e) => match standing.without(attempt, &e) {
                    Without::Later | Without::GoOn => {}
                    Without::AskOn => {
                        let until = *give_up.get_or_insert_with(|| Instant::now() + PATIENCE);
                        waits = Instant::now() < until;
                        if !waits && standing.is_final {
                            return Err(e);
                        }
                    }
                    Without::Tell => return Err(e),
                },
            }
            if !standing.over || waits {
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
pub(super) fn is_absent(error: &Error) -> bool {
    matches!(error.kind, Kind::NotFound | Kind::Gone)
}

/// The node that was given an attempt.
pub(super) fn ask(root: &Root, attempt: &Attempt) -> Result<Box<dyn Questions>> {
    driver::ask(root, &addresses::holder(root, attempt)?)
}
