//! Looking at jobs, and changing them: lists, records, status, `update`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::kills;
use super::reason::reason;
use super::rounds::Rounds;
use super::tasks;
use crate::attempts::proofs::{Proofs, Worth};
use crate::attempts::{self, Said, ranges};
use crate::board::cards::Cards;
use crate::board::root::Root;
use crate::board::watch::Watch;
use crate::board::{files, nodes};
use crate::cgi::{Call, Response};
use crate::driver::{self, Answer};
use crate::error::{Error, Kind, Result};
use crate::model::card::{Attempt, Card, Column, State, What};
use crate::model::ids;
use crate::model::outcome::{Cause, Outcome, Status};
use crate::model::request::hide_values;

/// Most jobs in a list, unless `limit` asks for fewer.
const LONGEST_LIST: usize = 1000;

/// The number in a path.
pub fn number(call: &Call) -> Result<u64> {
    ids::parse_number(call.value(0))
        .ok_or_else(|| Error::not_found("there is no such job: a job's number is like 1 or 42"))
}

/// `GET jobs`.
pub fn list(call: &Call) -> Result<Response> {
    let limit: usize = call.request.number("limit")?.unwrap_or(LONGEST_LIST).min(100_000);
    let state = match call.request.param("state") {
        None => None,
        Some(word) => Some(State::parse(word).ok_or_else(|| {
            Error::bad("state must be held, queued, placed, running, stopping or stopped")
        })?),
    };
    let format = call.request.param("format");
    if !matches!(format, None | Some("json" | "text")) {
        return Err(Error::bad("format must be json or text"));
    }
    let cards = Cards::new(call.root);
    let (numbers, read) = match state {
        None => (cards.newest(limit)?, format == Some("json")),
        Some(state) => {
            let mut numbers = match state.column() {
                Column::Done => {
                    let mut done = cards.newest_done(limit)?;
                    done.extend(cards.put_aside()?);
                    done
                }
                column => cards.numbers(column)?,
            };
            numbers.sort_unstable_by(|a, b| b.cmp(a));
            (numbers, true)
        }
    };
    if !read {
        return Ok(Response::text(lines(&numbers)));
    }
    let mut found = Vec::new();
    for job in numbers {
        if found.len() >= limit {
            break;
        }
        match cards.find(job) {
            Ok(card) if state.is_none_or(|state| state == card.state) => {
                found.push((job, summary(call.root, &card)?));
            }
            Err(_) if state.is_none_or(|state| state == State::Stopped) => {
                if let Some(why) = cards.unreadable(job)? {
                    found.push((job, unreadable(job, &why)));
                }
            }
            _ => {} // in another state, or cleaned up meanwhile
        }
    }
    if format == Some("json") {
        let records: Vec<Value> = found.into_iter().map(|(_, map)| Value::Object(map)).collect();
        return Response::json(&records);
    }
    Ok(Response::text(lines(&found.iter().map(|(job, _)| *job).collect::<Vec<_>>())))
}

/// What can be said of a job whose card cannot be read: nobody will place it, or take in a result.
fn unreadable(job: u64, why: &str) -> Map<String, Value> {
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
fn or_unreadable(root: &Root, job: u64, found: Result<Card>) -> Result<Read> {
    match found {
        Ok(card) => Ok(Read::Card(Box::new(card))),
        Err(error) => match Cards::new(root).unreadable(job)? {
            Some(why) if error.kind == Kind::Gone => Ok(Read::Not(unreadable(job, &why))),
            _ => Err(error),
        },
    }
}

/// A card, or what is said where it cannot be read.
enum Read {
    Card(Box<Card>),
    Not(Map<String, Value>),
}

/// `GET queue`.
pub fn queue(call: &Call) -> Result<Response> {
    let limit: usize = call.request.number("limit")?.unwrap_or(LONGEST_LIST).min(100_000);
    let mut numbers = Cards::new(call.root).numbers(Column::Queue)?;
    numbers.sort_unstable();
    numbers.truncate(limit);
    Ok(Response::text(lines(&numbers)))
}

/// `GET queue/N`: whether the job still waits, and why.
pub fn queue_entry(call: &Call) -> Result<Response> {
    let card = Cards::new(call.root).find(number(call)?)?;
    let valid = card.column() == Column::Queue;
    let mut answer = Map::new();
    answer.insert("job".into(), card.job().into());
    answer.insert("valid".into(), valid.into());
    answer.extend(status_fields(call.root, &card)?);
    Response::json(&answer)
}

/// `DELETE queue/N`: removes a job that still waits; it ends as killed.
pub fn queue_remove(call: &Call) -> Result<Response> {
    let by = call.who.name.clone();
    let card = change(call.root, number(call)?, |card| match card.state {
        State::Held | State::Queued => {
            if card.array.is_some() {
                return Ok(ranges::kill(card, None, &by));
            }
            Ok(vec![What::Stopped { attempt: None, outcome: Outcome::killed(&by) }])
        }
        _ => Err(Error::conflict(format!(
            "job {} waits no more, it is {}; to end it: jobs/{}/update?kill=1",
            card.job(),
            card.state.word(),
            card.job()
        ))),
    })?;
    Response::json(&after_change(call.root, &card)?)
}

/// The answer to a change that is made: what fails now is no reason to say that nothing changed.
fn after_change(root: &Root, card: &Card) -> Result<Map<String, Value>> {
    status_fields(root, card).map_err(files::unknown)
}

fn lines(numbers: &[u64]) -> String {
    numbers.iter().map(|n| format!("{n}\n")).collect()
}

/// `GET jobs/N`.
pub fn record(call: &Call) -> Result<Response> {
    let cards = Cards::new(call.root);
    let job = number(call)?;
    let card = match or_unreadable(call.root, job, cards.find(job))? {
        Read::Card(card) => card,
        Read::Not(map) => return Response::json(&map),
    };
    let mut map = Map::new();
    map.insert("job".into(), card.job().into());
    map.insert("request_id".into(), card.accepted.request_id.clone().into());
    map.insert("by".into(), card.accepted.by.clone().into());
    if let Some(parent) = card.accepted.parent {
        map.insert("parent".into(), parent.into());
    }
    map.extend(status_fields(call.root, &card)?);
    map.insert("priority".into(), card.priority.into());
    let mut request = card.accepted.request.clone();
    if !call.who.sees_values() {
        hide_values(&mut request);
    }
    map.insert("request".into(), Value::Object(request));
    map.insert("attempts".into(), json!(card.attempts));
    if let Some(array) = &card.array {
        map.insert("failures".into(), json!(array.ended.failed));
    }
    map.insert("events".into(), json!(card.events));
    map.insert("children".into(), json!(cards.children(card.job())?));
    let tag = format!("\"{}-{}\"", card.job(), card.events.len());
    Ok(Response::json(&map)?.header("ETag", tag))
}

/// `GET jobs/N/status`, with `?wait=` until it ends; of one task with `?task=`.
pub fn status(call: &Call) -> Result<Response> {
    let job = number(call)?;
    let task = call.request.task()?;
    let over = |card: &Card| card.state == State::Stopped || tasks::has_ended(card, task);
    let found = match call.request.wait()? {
        None => Cards::new(call.root).find(job),
        Some(wait) => wait_with_rounds(call, job, wait, over),
    };
    let card = match or_unreadable(call.root, job, found)? {
        Read::Card(card) => card,
        Read::Not(mut map) => {
            map.remove("job");
            return Response::json(&map);
        }
    };
    match task {
        Some(task) => Response::json(&tasks::status_fields(call.root, &card, task)?),
        None => Response::json(&status_fields(call.root, &card)?),
    }
}

/// The card once it is as wanted, or as it is after this time; with rounds for it as
/// [`Rounds::for_request`] makes them.
fn wait_with_rounds(
    call: &Call,
    job: u64,
    wait: Duration,
    over: impl Fn(&Card) -> bool,
) -> Result<Card> {
    let rounds = Rounds::for_request(call.root, call.request, job)?;
    let card = wait_until(call.root, job, Instant::now() + wait, over)?;
    if let Some(rounds) = rounds.filter(|_| card.state == State::Stopped) {
        rounds.finish();
    }
    Ok(card)
}

/// The card once it stopped, or as it is at the deadline.
pub fn wait_for_end(root: &Root, job: u64, deadline: Instant) -> Result<Card> {
    wait_until(root, job, deadline, |card| card.state == State::Stopped)
}

/// The card once it is as wanted, or as it is at the deadline.
fn wait_until(
    root: &Root,
    job: u64,
    deadline: Instant,
    over: impl Fn(&Card) -> bool,
) -> Result<Card> {
    let cards = Cards::new(root);
    let watch = Watch::on_card(&cards, job)?;
    loop {
        let card = cards.find(job)?;
        if over(&card) || !watch.wait_until(deadline) {
            return Ok(card);
        }
    }
}

/// The fields of a status answer.
pub fn status_fields(root: &Root, card: &Card) -> Result<Map<String, Value>> {
    let last = card.attempts.last();
    let mut map = Map::new();
    map.insert("state".into(), card.state.word().into());
    map.insert("status".into(), json!(card.status()));
    // The ranges of an array may be on several nodes.
    let same = |a: &&Attempt| card.attempts.iter().all(|other| other.node == a.node);
    let node = last.filter(|a| card.array.is_none() || same(a)).map(|a| &a.node);
    map.insert("node".into(), json!(node));
    map.insert("created-at".into(), card.accepted.at.clone().into());
    let mut add = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            map.insert(name.into(), value);
        }
    };
    let started = match &card.array {
        None => last.and_then(|a| a.started_at.clone()),
        Some(_) => card.attempts.iter().find_map(|a| a.started_at.clone()),
    };
    add("started-at", started.map(Value::from));
    add("stopped-at", card.stopped_at.clone().map(Value::from));
    add("attempt", last.filter(|_| card.array.is_none()).map(|a| a.attempt.into()));
    add("cause", card.outcome.as_ref().map(|o| json!(o.cause)));
    add("code", card.outcome.as_ref().and_then(|o| o.code).map(Value::from));
    add("reason", reason(root, card)?.map(Value::from));
    add("tasks", card.array.as_ref().map(|array| Value::Object(tasks::counts(card, array))));
    Ok(map)
}

fn summary(root: &Root, card: &Card) -> Result<Map<String, Value>> {
    let mut map = Map::new();
    map.insert("job".into(), card.job().into());
    if let Some(name) = &card.spec.name {
        map.insert("name".into(), name.clone().into());
    }
    map.insert("commands".into(), json!(card.spec.commands));
    map.insert("priority".into(), card.priority.into());
    map.extend(status_fields(root, card)?);
    if let Some(Value::Object(tasks)) = map.get_mut("tasks") {
        tasks.remove("failed_tasks"); // of one array a line, of a thousand megabytes
    }
    Ok(map)
}

/// `POST jobs/N/update`: kill, hold, release, priority; without any, asks the node now.
pub fn update(call: &Call) -> Result<Response> {
    let job = number(call)?;
    let request = call.request;
    let (kill, hold, release) =
        (request.switch("kill")?, request.switch("hold")?, request.switch("release")?);
    let priority: Option<i64> = request.number("priority")?;
    if hold && release {
        return Err(Error::bad("hold and release exclude each other"));
    }
    let tasks = request.tasks()?;
    if tasks.is_some() && (!kill || hold || release || priority.is_some()) {
        return Err(Error::bad("task goes with kill=1 alone"));
    }
    if !(kill || hold || release || priority.is_some()) {
        let (card, silent) = refresh(call.root, job)?;
        let mut status = status_fields(call.root, &card)?;
        if !silent.is_empty() {
            status.insert("silent".into(), json!(silent));
        }
        return Response::json(&status);
    }
    let by = &call.who.name;
    let card = change(call.root, job, |card| {
        if let Some(tasks) = &tasks {
            tasks::check(card, tasks)?;
        }
        let mut events = Vec::new();
        // What waits of an array can be held while nodes have the rest.
        let (waits, held) = match &card.array {
            Some(array) => (!matches!(card.state, State::Stopping | State::Stopped), array.held),
            None => (card.column() == Column::Queue, card.state == State::Held),
        };
        let refuse = |what: &str| {
            Err(Error::conflict(format!("job {job} is {} and cannot be {what}", card.state.word())))
        };
        match priority {
            Some(_) if card.state == State::Stopped => return refuse("given a priority"),
            Some(priority) if priority != card.priority => {
                events.push(What::Priority { priority, by: by.clone() });
            }
            _ => {}
        }
        if hold && !waits {
            return refuse("held");
        } else if hold && !held {
            events.push(What::Held { by: by.clone() });
        }
        if release && !waits {
            return refuse("released");
        } else if release && held {
            events.push(What::Released { by: by.clone() });
        }
        if kill && card.array.is_some() {
            events.extend(ranges::kill(card, tasks.as_ref(), by));
        } else if kill && waits {
            events.push(What::Stopped { attempt: None, outcome: Outcome::killed(by) });
        } else if kill && matches!(card.state, State::Placed | State::Running) {
            events.push(What::Stopping { by: by.clone(), tasks: None });
        }
        Ok(events)
    })?;
    let card = if kill { kills::tell_local(call.root, card) } else { card };
    let response = Response::json(&after_change(call.root, &card)?)?;
    let pending = card.state == State::Stopping || kill && tasks::are_being_killed(&card);
    Ok(if pending { response.status(202, "Accepted") } else { response })
}

/// Changes one card; durable when this returns.
fn change(root: &Root, job: u64, decide: impl FnOnce(&Card) -> Result<Vec<What>>) -> Result<Card> {
    let cards = Cards::new(root);
    let lock = cards.lock()?;
    let mut changed = cards.change(&lock, job, decide)?;
    if changed.sync.is_empty() {
        changed.sync = cards.sync_of(job)?; // nothing was changed: an error says so
    }
    drop(lock);
    changed.sync.commit()?;
    Ok(changed.card)
}

/// Asks the nodes that have the job, and records what they say. Returns also which of them did not
/// answer; an error where none did.
fn refresh(root: &Root, job: u64) -> Result<(Card, Vec<String>)> {
    let cards = Cards::new(root);
    let card = cards.find(job)?;
    let mut by_node: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for attempt in card.with_nodes() {
        by_node.entry(&attempt.node).or_default().push(attempt.nodejob.clone());
    }
    let mut reports: Vec<Said> = Vec::new();
    let (mut silent, mut failed) = (Vec::new(), None);
    for (node, ids) in &by_node {
        let ask = || -> Result<Vec<Said>> {
            let record = nodes::read(root, node)?;
            let answers = driver::ask(root, &record)?.status(ids)?;
            let proofs = Proofs::read(root)?;
            let mut said = Vec::new();
            for (id, answer) in ids.iter().zip(answers) {
                if let Answer::Known(status) = answer
                    && let Worth::Counts(report) =
                        proofs.judge(node, record.must_prove(), status.of(id))?
                {
                    said.push(report);
                }
            }
            Ok(said)
        };
        match ask() {
            Ok(said) => reports.extend(said),
            Err(error) => {
                silent.push(node.to_string());
                failed = Some(error);
            }
        }
    }
    if let Some(error) = failed.filter(|_| silent.len() == by_node.len()) {
        return Err(error);
    }
    if reports.is_empty() {
        return Ok((card, silent));
    }
    attempts::record(root, reports)?;
    Ok((cards.find(job)?, silent))
}
