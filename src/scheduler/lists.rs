//! Lists of jobs: all, those that wait, those that are named.

use serde_json::{Map, Value, json};

use super::access;
use super::jobs::{Read, fields, or_unreadable, unreadable};
use super::reason::Reasons;
use crate::board::cards::Cards;
use crate::board::owners;
use crate::cgi::{Call, Response};
use crate::error::{Error, Kind, Result};
use crate::model::card::{Card, Column, State};
use crate::model::ids;
use crate::wire::codes;

/// Most jobs in a list, unless `limit` asks for fewer.
const LONGEST_LIST: usize = 1000;

/// Most jobs in a list, whatever `limit` asks for, and most that one request can name.
const MOST_LISTED: usize = 100_000;

/// `GET jobs`.
pub fn list(call: &Call) -> Result<Response> {
    let limit = limit(call)?;
    let state = match call.request.param("state") {
        None => None,
        Some(word) => Some(State::parse(word).ok_or_else(|| {
            Error::bad("state must be held, queued, placed, running, stopping or stopped")
        })?),
    };
    let as_json = wants_json(call)?;
    let cards = Cards::new(call.root);
    let (numbers, read) = match state {
        None => (cards.newest(limit)?, as_json),
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
            numbers.dedup();
            (numbers, true)
        }
    };
    if !read {
        return Ok(Response::text(lines(&numbers)));
    }
    let found = summaries(call, &cards, numbers, state, limit)?;
    if as_json {
        let records: Vec<Value> = found.into_iter().map(|(_, map)| Value::Object(map)).collect();
        return Ok(Response::of(records));
    }
    Ok(Response::text(lines(&found.iter().map(|(job, _)| *job).collect::<Vec<_>>())))
}

/// `GET queue`.
pub fn queue(call: &Call) -> Result<Response> {
    let limit = limit(call)?;
    let mut numbers = Cards::new(call.root).numbers(Column::Queue)?;
    numbers.sort_unstable();
    numbers.truncate(limit);
    if wants_json(call)? {
        let found = summaries(call, &Cards::new(call.root), numbers, None, limit)?;
        let records: Vec<Value> = found.into_iter().map(|(_, map)| Value::Object(map)).collect();
        return Ok(Response::of(records));
    }
    Ok(Response::text(lines(&numbers)))
}

/// `GET jobs/status`: of many jobs at once, in the order in which they are named; without ids of the
/// newest. In place of one of which nothing can be said stands why.
pub fn statuses(call: &Call) -> Result<Response> {
    let cards = Cards::new(call.root);
    let jobs = match call.request.param("ids") {
        Some(ids) => ids::parse_numbers(ids, MOST_LISTED as u64)
            .map_err(|why| Error::bad(format!("ids: {why}")))?,
        None => cards.newest(limit(call)?)?,
    };
    let reasons = Reasons::new(call.root);
    let all = jobs.into_iter().map(|job| {
        let found = or_unreadable(call.root, job, cards.find(job)).and_then(|read| match read {
            Read::Card(card) => {
                let mut map = Map::from_iter([("job".to_string(), job.into())]);
                map.extend(match access::sees(call, &cards, &card)? {
                    true => fields(&reasons, &card)?,
                    false => access::outside(&cards, &card)?,
                });
                Ok(Value::Object(map))
            }
            Read::Not(map) => Ok(Value::Object(map)),
        });
        found.unwrap_or_else(
            |error| json!({"job": job, "error": error.message, "code": codes::of(error.kind).0}),
        )
    });
    Ok(Response::of(all.collect::<Vec<Value>>()))
}

/// How many a list is to have at most.
fn limit(call: &Call) -> Result<usize> {
    Ok(call.request.number("limit")?.unwrap_or(LONGEST_LIST).min(MOST_LISTED))
}

/// Whether records are asked for instead of numbers.
fn wants_json(call: &Call) -> Result<bool> {
    match call.request.param("format") {
        Some("json") => Ok(true),
        None | Some("text") => Ok(false),
        Some(_) => Err(Error::bad("format must be json or text")),
    }
}

fn lines(numbers: &[u64]) -> String {
    numbers.iter().map(|n| format!("{n}\n")).collect()
}

/// What a list says of these jobs, of those in this state, of the first so many.
fn summaries(
    call: &Call,
    cards: &Cards,
    jobs: Vec<u64>,
    state: Option<State>,
    limit: usize,
) -> Result<Vec<(u64, Map<String, Value>)>> {
    let (mut found, reasons) = (Vec::new(), Reasons::new(cards.root()));
    for job in jobs {
        if found.len() >= limit {
            break;
        }
        match cards.find(job) {
            Ok(card) if state.is_none_or(|state| state == card.state) => {
                let map = summary(call, &reasons, cards, &card);
                found.push((job, map.unwrap_or_else(|error| untold(job, &error))));
            }
            Ok(_) => {}
            Err(error) => {
                let map = not_read(cards, job, state, &error);
                found.extend(map.map(|map| (job, map)));
            }
        }
    }
    Ok(found)
}

fn summary(
    call: &Call,
    reasons: &Reasons,
    cards: &Cards,
    card: &Card,
) -> Result<Map<String, Value>> {
    let mut map = Map::new();
    map.insert("job".into(), card.job().into());
    if !access::sees(call, cards, card)? {
        map.extend(access::outside(cards, card)?);
        return Ok(map);
    }
    map.insert("owner".into(), json!(owners::of(cards, card)?));
    if let Some(name) = &card.spec.name {
        map.insert("name".into(), name.clone().into());
    }
    map.insert("commands".into(), json!(card.spec.commands));
    if let Some(partition) = &card.spec.partition {
        map.insert("partition".into(), partition.clone().into());
    }
    map.insert("priority".into(), card.priority.into());
    map.extend(fields(reasons, card)?);
    if let Some(Value::Object(tasks)) = map.get_mut("tasks") {
        tasks.remove("failed_tasks"); // of one array a line, of a thousand megabytes
    }
    Ok(map)
}

/// What a list of jobs in this state, or in any, says of one whose card was not read; `None` for one
/// that was cleaned up meanwhile. One that may be read the next time has no state, and keeps no other
/// from being listed.
fn not_read(
    cards: &Cards,
    job: u64,
    state: Option<State>,
    error: &Error,
) -> Option<Map<String, Value>> {
    let is_listed = state.is_none_or(|state| state == State::Stopped);
    match cards.unreadable(job) {
        Ok(None) => None,
        Ok(Some(why)) if error.kind == Kind::Gone => is_listed.then(|| unreadable(job, &why)),
        _ => state.is_none().then(|| untold(job, error)),
    }
}

/// What a list says of a job of which nothing can be told now.
fn untold(job: u64, error: &Error) -> Map<String, Value> {
    let why = error.message.clone().into();
    Map::from_iter([("job".to_string(), job.into()), ("reason".to_string(), why)])
}
