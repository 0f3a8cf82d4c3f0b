//! Looking at one job: its record, its status.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::reason::{Reasons, told_reason};
use super::rounds::Rounds;
use super::{access, interrupt, tasks};
use crate::board::card_tail::Tail;
use crate::board::cards::Cards;
use crate::board::root::Root;
use crate::board::{owners, progress};
use crate::cgi::{Call, Response};
use crate::error::{Error, Kind, Result, exit};
use crate::model::card::{Attempt, Card, Column, State};
use crate::model::ids;
use crate::model::outcome::{Cause, Status};
use crate::model::request::hide_values;

/// So long a command waits at a time for a job, then again.
const LONGEST_LOOK: Duration = Duration::from_secs(60);

/// The number in a path.
pub fn number(call: &Call) -> Result<u64> {
    ids::parse_number(call.value(0))
        .ok_or_else(|| Error::not_found("there is no such job: a job's number is like 1 or 42"))
}

/// What can be said of a job whose card cannot be read: nobody will place it, or take in a result.
pub(super) fn unreadable(job: u64, why: &str) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("job".into(), job.into());
    map.insert("state".into(), State::Stopped.word().into());
    map.insert("status".into(), json!(Status::Error));
    map.insert("node".into(), Value::Null);
    map.insert("cause".into(), json!(Cause::Lost));
    map.insert("reason".into(), why.into());
    map
}

/// The answer for a job whose card cannot be read, in place of the error.
pub(super) fn or_unreadable(root: &Root, job: u64, found: Result<Card>) -> Result<Read> {
    match found {
        Ok(card) => Ok(Read::Card(Box::new(card))),
        Err(error) => match Cards::new(root).unreadable(job)? {
            Some(why) if error.kind == Kind::Gone => Ok(Read::Not(unreadable(job, &why))),
            _ => Err(error),
        },
    }
}

/// A card, or what is said where it cannot be read.
pub(super) enum Read {
    Card(Box<Card>),
    Not(Map<String, Value>),
}

/// `GET queue/N`: whether the job still waits, and why.
pub fn queue_entry(call: &Call) -> Result<Response> {
    let cards = Cards::new(call.root);
    let card = cards.find(number(call)?)?;
    let valid = card.column() == Column::Queue;
    let mut answer = Map::new();
    answer.insert("job".into(), card.job().into());
    answer.insert("valid".into(), valid.into());
    answer.extend(match access::sees(call, &cards, &card)? {
        true => status_fields(call.root, &card)?,
        false => access::outside(&cards, &card)?,
    });
    Ok(Response::of(answer))
}

/// `GET jobs/N`.
pub fn record(call: &Call) -> Result<Response> {
    let cards = Cards::new(call.root);
    let job = number(call)?;
    let card = match or_unreadable(call.root, job, cards.find(job))? {
        Read::Card(card) => card,
        Read::Not(map) => return Ok(Response::of(map)),
    };
    let mut map = Map::new();
    map.insert("job".into(), card.job().into());
    map.insert("request_id".into(), card.accepted.request_id.clone().into());
    map.insert("by".into(), card.accepted.by.clone().into());
    map.insert("owner".into(), json!(owners::of(&cards, &card)?));
    if let Some(parent) = card.accepted.parent {
        map.insert("parent".into(), parent.into());
    }
    map.extend(fields(&Reasons::new(call.root), &card)?);
    add_progress(call.root, &card, &mut map);
    map.insert("priority".into(), card.priority.into());
    let mut request = card.accepted.request.clone();
    let mut defaults = card.accepted.defaults.clone();
    if !access::sees_values(call, &cards, &card)? {
        hide_values(&mut request);
        hide_values(&mut defaults);
    }
    map.insert("request".into(), Value::Object(request));
    if !defaults.is_empty() {
        map.insert("defaults".into(), Value::Object(defaults));
    }
    map.insert("attempts".into(), json!(card.attempts));
    if let Some(array) = card.array() {
        map.insert("failures".into(), json!(array.ended.failed));
    }
    map.insert("events".into(), json!(card.events));
    match cards.children(card.job()) {
        Ok(children) => drop(map.insert("children".into(), json!(children))),
        // That says nothing against what else is known.
        Err(error) => eprintln!("scheduler: job {}: its children: {}", card.job(), error.message),
    }
    let tag = format!("\"{}-{}\"", card.job(), card.events.len());
    Ok(Response::of(map).header("ETag", tag))
}

/// `GET jobs/N/status`, with `?wait=` until it ends; of one task with `?task=`.
pub fn status(call: &Call) -> Result<Response> {
    let job = number(call)?;
    // When a task of another user's has ended is not to be seen by how long this takes.
    let task = call.request.task()?.filter(|_| access::sees_job(call, job));
    let over = |card: &Card| card.state == State::Stopped || tasks::has_ended(card, task);
    let mut rounds = None;
    let wait = call.request.wait()?;
    let found = match wait {
        None => Cards::new(call.root).find(job),
        Some(wait) => {
            interrupt::of_request(call.request, job)?;
            rounds = Rounds::for_request(call.root, call.request, job)?;
            wait_until(call.root, job, Instant::now() + wait, rounds.as_mut(), over)
        }
    };
    let card = match or_unreadable(call.root, job, found)? {
        Read::Card(card) => card,
        Read::Not(mut map) => {
            map.remove("job");
            return Ok(Response::of(map).exit_code(wait.map_or(0, |_| exit::REFUSED)));
        }
    };
    if !access::sees(call, &Cards::new(call.root), &card)? {
        let outside = access::outside(&Cards::new(call.root), &card)?;
        let code = match card.status() {
            Status::Good => 0,
            Status::Error => exit::REFUSED,
            Status::Unknown => exit::TRY_LATER,
        };
        return Ok(Response::of(outside).exit_code(wait.map_or(0, |_| code)));
    }
    // While they are made: without them the job would wait for nothing but a poller.
    let fields = match task {
        Some(task) => tasks::status_fields(call.root, &card, task)?,
        None => status_fields(call.root, &card)?,
    };
    if let Some(rounds) = rounds.filter(|_| card.state == State::Stopped) {
        rounds.finish();
    }
    // Whoever did not wait asked how it is, not how it ends.
    let code = wait.map_or(0, |_| end_code(&card, task));
    Ok(Response::of(fields).exit_code(code))
}

/// The exit code that tells how a job, or a task of it, has ended: its own; 75 for one that goes on.
fn end_code(card: &Card, task: Option<u32>) -> i32 {
    let outcome = match task {
        Some(task) if card.is_array() => card.tasks.outcome_of(task),
        _ => card.outcome.clone(),
    };
    outcome.map_or(exit::TRY_LATER, |outcome| outcome.exit_code())
}

/// The card once it stopped, or as it is at the deadline.
pub fn wait_for_end(root: &Root, job: u64, deadline: Instant) -> Result<Card> {
    wait_until(root, job, deadline, None, |card| card.state == State::Stopped)
}

/// Waits until the job has stopped, however long, and looks after its rounds.
pub fn wait_beside(root: &Root, job: u64, rounds: &mut Rounds) -> Result<()> {
    let stopped = |card: &Card| card.state == State::Stopped;
    loop {
        let deadline = Instant::now() + LONGEST_LOOK;
        if stopped(&wait_until(root, job, deadline, Some(&mut *rounds), stopped)?) {
            return Ok(());
        }
    }
}

/// The card once it is as wanted, or as it is at the deadline. Looks after the rounds that are made
/// meanwhile.
fn wait_until(
    root: &Root,
    job: u64,
    deadline: Instant,
    mut rounds: Option<&mut Rounds>,
    over: impl Fn(&Card) -> bool,
) -> Result<Card> {
    let cards = Cards::new(root);
    let mut tail = Tail::begin(root); // before the look: what is done after it is told there
    loop {
        let card = cards.find(job)?;
        if over(&card) || !tail.wait_for(job, deadline) {
            return Ok(card);
        }
        rounds.as_mut().map_or(Ok(()), |rounds| rounds.look())?;
    }
}

/// The fields of a status answer; while a node has the job, also what it has said of its progress.
pub fn status_fields(root: &Root, card: &Card) -> Result<Map<String, Value>> {
    let mut map = fields(&Reasons::new(root), card)?;
    if card.column() == Column::Running {
        add_progress(root, card, &mut map);
    }
    Ok(map)
}

fn add_progress(root: &Root, card: &Card, map: &mut Map<String, Value>) {
    match progress::of_job(root, card.job()) {
        Ok(words) if words.is_empty() => {}
        Ok(words) => drop(map.insert("progress".into(), json!(words))),
        // That says nothing against what else is known.
        Err(error) => eprintln!("scheduler: job {}: its progress: {}", card.job(), error.message),
    }
}

pub(super) fn fields(reasons: &Reasons, card: &Card) -> Result<Map<String, Value>> {
    let last = card.attempts.last();
    let mut map = Map::new();
    map.insert("state".into(), card.state.word().into());
    map.insert("status".into(), json!(card.status()));
    let array = card.is_array();
    // The ranges of an array may be on several nodes.
    let same = |a: &&Attempt| card.attempts.iter().all(|other| other.node == a.node);
    let node = last.filter(|a| !array || same(a)).map(|a| &a.node);
    map.insert("node".into(), json!(node));
    map.insert("created-at".into(), card.accepted.at.clone().into());
    let mut add = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            map.insert(name.into(), value);
        }
    };
    let started = match array {
        false => last.and_then(|a| a.started_at.clone()),
        true => card.attempts.iter().find_map(|a| a.started_at.clone()),
    };
    add("started-at", started.map(Value::from));
    add("stopped-at", card.stopped_at.clone().map(Value::from));
    add("attempt", last.filter(|_| !array).map(|a| a.attempt.into()));
    let reference = last.filter(|_| !array).and_then(|a| a.reference.clone());
    add("ref", reference.map(Value::from));
    let usage = last.filter(|_| !array).and_then(|a| a.usage);
    let enforced = last.filter(|_| !array).and_then(|a| a.enforced.as_ref());
    add("enforced", enforced.map(|enforced| json!(enforced)));
    add("cpu_ms", usage.map(|usage| usage.cpu_ms.into()));
    add("max_memory", usage.map(|usage| usage.max_memory.into()));
    add("cause", card.outcome.as_ref().map(|o| json!(o.cause)));
    add("code", card.outcome.as_ref().and_then(|o| o.code).map(Value::from));
    add("reason", told_reason(reasons.of(card)).map(Value::from));
    add("expected_start", reasons.expected_start(card).map(Value::from));
    add("tasks", card.array().map(|tasks| Value::Object(tasks::counts(card, tasks))));
    Ok(map)
}
