//! Submission: one job, or an array of jobs, accepted whole or not at all.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::entry::{Entered, check_in_time, enter, with_given};
use super::possible::Possible;
use crate::attempts::allocated;
use crate::auth::{self, Who, ownership};
use crate::board::cards::Cards;
use crate::board::incoming::{Incoming, Place};
use crate::board::partitions::Partitions;
use crate::board::submission::Submitted;
use crate::board::waiting::{self, Waiting};
use crate::board::{batches, files, numbers, root::Root, uploads};
use crate::cgi::{Call, Response};
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::model::access::Need;
use crate::model::admission::check_retries;
use crate::model::card::{Accepted, Card, State};
use crate::model::request::{Spec, split_request_id};

/// `POST jobs/new`.
pub fn new(call: &Call) -> Result<Response> {
    let parts = call.request.body.parts(call.root, Place::Head)?;
    match parts.json {
        Value::Array(requests) => {
            if parts.uploads.is_some() {
                return Err(Error::bad("files can be sent with one job, not with an array"));
            }
            let (accepted, fresh) = submit_array(call.root, call.who, requests)?;
            let possible = Possible::new(call.root);
            let told = |accepted: Accepted| {
                let warning = if fresh { possible.warning(&accepted) } else { None };
                answer(accepted, warning)
            };
            let answers: Vec<Value> = accepted.into_iter().map(told).collect();
            let response = Response::of(answers);
            Ok(if fresh { response.status(201, "Created") } else { response })
        }
        request => {
            let (accepted, fresh) = submit(call.root, call.who, request, parts.uploads)?;
            let job = accepted.job;
            let warning = if fresh { Possible::new(call.root).warning(&accepted) } else { None };
            let response = Response::of(answer(accepted, warning))
                .location(super::PROGRAM.name, &format!("jobs/{job}"));
            Ok(if fresh { response.status(201, "Created") } else { response })
        }
    }
}

/// Accepts one job; durable when this returns. With a request id that this client has used: the
/// same job and `false`, or 422 if that was another request.
pub fn submit(
    root: &Root,
    who: &Who,
    request: Value,
    files: Option<Incoming>,
) -> Result<(Accepted, bool)> {
    let (mut accepted, spec) = understand(who, &request)?;
    accepted.files = files.as_ref().and_then(|files| uploads::digest(files.files()));
    let cards = Cards::new(root);
    let chosen = !accepted.request_id.is_empty();
    let earlier = Earlier::look(&cards, who, &accepted)?;
    if let Some(card) = earlier.card {
        same_request(root, &accepted, &card)?;
        return Ok((card.accepted, false));
    }
    let refused = |refusal| earlier.unsure.clone().unwrap_or(refusal);
    let entered = enter(root, who, &Partitions::new(root), &accepted.request, spec);
    let entered = entered.map_err(refused)?;
    accepted.defaults = entered.defaults.clone();
    admit(&Possible::new(root), who, &accepted, &entered).map_err(refused)?;
    let bytes = files.as_ref().map_or(0, |files| files.files().iter().map(|file| file.size).sum());
    let account = account(&cards, who, std::slice::from_ref(&accepted), bytes)?;
    if !chosen {
        accepted.request_id = files::random_name()?;
    }
    accepted.job = *numbers::reserve(root, 1)?.start();
    if let Some(files) = files {
        uploads::store(root, accepted.job, files)?;
    }
    let submitted = cards.submit(&accepted, chosen.then_some(who.name.as_str()));
    match submitted {
        Ok(Submitted::New) => {
            note(account, std::slice::from_ref(&accepted));
            Ok((accepted, true))
        }
        // The same request, at the same time.
        Ok(Submitted::Existing(card)) => {
            uploads::remove(root, accepted.job)?;
            same_request(root, &accepted, &card)?;
            Ok((card.accepted, false))
        }
        Err(error) => {
            if error.kind == Kind::Unavailable {
                uploads::remove(root, accepted.job)?;
            }
            Err(error)
        }
    }
}

/// Accepts all of these jobs or none, with numbers in a row; durable when this returns. `false`:
/// they all had been accepted before.
fn submit_array(root: &Root, who: &Who, requests: Vec<Value>) -> Result<(Vec<Accepted>, bool)> {
    let of = |index: usize, e: Error| {
        Error::new(e.kind, format!("job {} of the array: {}", index + 1, e.message))
    };
    let most = root.settings.max_jobs_per_request;
    let count = requests.len();
    let mut all = Vec::with_capacity(count);
    let mut specs = Vec::with_capacity(count);
    for (index, request) in requests.into_iter().enumerate() {
        let (accepted, spec) = understand(who, &request).map_err(|e| of(index, e))?;
        all.push(accepted);
        specs.push(spec);
    }
    let chosen = all.iter().filter(|a| !a.request_id.is_empty()).count();
    if chosen != 0 && chosen != all.len() {
        return Err(Error::bad("give every job of the array a request_id, or none"));
    }
    let mut ids = HashSet::with_capacity(chosen);
    if let Some(twice) = all.iter().take(chosen).find(|a| !ids.insert(&a.request_id)) {
        return Err(Error::bad(format!(
            "request_id {} is given to two jobs of the array",
            twice.request_id
        )));
    }
    drop(ids);
    let cards = Cards::new(root);
    let first = all.first().map(|first| Earlier::look(&cards, who, first));
    let earlier = first.transpose()?.unwrap_or_default();
    if earlier.card.is_some() {
        return Ok((all_earlier(root, who, &all)?, false));
    }
    let refused =
        |index: usize, refusal: Error| earlier.unsure.clone().unwrap_or_else(|| of(index, refusal));
    if count == 0 || count > most {
        return Err(Error::bad(format!(
            "an array must have 1 to {most} jobs (setting max_jobs_per_request)"
        )));
    }
    let (partitions, possible) = (Partitions::new(root), Possible::new(root));
    for (index, (accepted, spec)) in all.iter_mut().zip(specs).enumerate() {
        let entered = enter(root, who, &partitions, &accepted.request, spec);
        let entered = entered.map_err(|e| refused(index, e))?;
        accepted.defaults = entered.defaults.clone();
        admit(&possible, who, accepted, &entered).map_err(|e| refused(index, e))?;
    }
    let account = account(&cards, who, &all, 0)?;
    let numbers = numbers::reserve(root, all.len() as u64)?;
    let batch = (*numbers.start(), *numbers.end());
    for (accepted, job) in all.iter_mut().zip(numbers) {
        accepted.job = job;
        accepted.batch = Some(batch);
        if chosen == 0 {
            accepted.request_id = format!("{}-{job}", accepted.at.replace([':', '-'], ""));
        }
    }
    let claimant = (chosen > 0).then_some(who.name.as_str());
    match batches::submit(&cards, &all, claimant)? {
        None => {
            note(account, &all);
            Ok((all, true))
        }
        Some(_) => Ok((all_earlier(root, who, &all)?, false)),
    }
}

/// What of a user's jobs waits, where that is bounded, and the bytes of these; 503 if they would be too many.
fn account<'c, 'r>(
    cards: &'c Cards<'r>,
    who: &Who,
    all: &[Accepted],
    files: u64,
) -> Result<Option<(Waiting<'c, 'r>, Vec<u64>)>> {
    let Some(user) = who.counted() else { return Ok(None) };
    let Some(mut waiting) = Waiting::of(cards, user)? else { return Ok(None) };
    let bytes: Vec<u64> =
        all.iter().map(|one| waiting::bytes(one, files)).collect::<Result<_>>()?;
    waiting.admit(all.len(), bytes.iter().sum())?;
    Ok(Some((waiting, bytes)))
}

/// Notes jobs that were accepted. They are, whether this can be noted or not.
fn note(account: Option<(Waiting, Vec<u64>)>, all: &[Accepted]) {
    let Some((waiting, bytes)) = account else { return };
    if let Err(error) = waiting.note(all.iter().map(|one| one.job).zip(bytes)) {
        eprintln!("scheduler: {}", error.message);
    }
}

/// What came of an earlier request of this client with the same id.
#[derive(Default)]
struct Earlier {
    /// The card that it made.
    card: Option<Card>,
    /// That cannot be told yet: it is being made, or was abandoned, and is met again when the id is claimed. Where
    /// a new request would be refused this is to be said instead, for the job may be there in a moment.
    unsure: Option<Error>,
}

impl Earlier {
    fn look(cards: &Cards, who: &Who, accepted: &Accepted) -> Result<Earlier> {
        if accepted.request_id.is_empty() {
            return Ok(Earlier::default());
        }
        match claimed(cards, who, &accepted.request_id) {
            Err(error) if error.kind == Kind::Unavailable => {
                Ok(Earlier { unsure: Some(error), ..Earlier::default() })
            }
            found => Ok(Earlier { card: found?, ..Earlier::default() }),
        }
    }
}

/// The card that this client has made under a request id, by what they are called now or were before
/// there were users.
fn claimed(cards: &Cards, who: &Who, request_id: &str) -> Result<Option<Card>> {
    for name in std::iter::once(&who.name).chain(&who.former) {
        if let Some(card) = cards.claimed(name, request_id)? {
            return Ok(Some(card));
        }
    }
    Ok(None)
}

/// The jobs that the same array made before; 422 if it was not the same.
fn all_earlier(root: &Root, who: &Who, all: &[Accepted]) -> Result<Vec<Accepted>> {
    let cards = Cards::new(root);
    let mut earlier = Vec::with_capacity(all.len());
    for accepted in all {
        let card = claimed(&cards, who, &accepted.request_id)?.ok_or_else(|| {
            Error::new(
                Kind::Unprocessable,
                format!(
                    "some request ids of the array are in use, but {} is not: nothing was submitted",
                    accepted.request_id
                ),
            )
        })?;
        same_request(root, accepted, &card)?;
        earlier.push(card.accepted);
    }
    Ok(earlier)
}

/// What a request says, by itself: the same whenever it is repeated. The number, and an id where
/// the client chose none, are still missing.
fn understand(who: &Who, request: &Value) -> Result<(Accepted, Spec)> {
    let spec = Spec::for_head(request)?;
    if let (Some(parent), Some(own)) = (spec.parent, who.job())
        && parent != own
    {
        return Err(Error::new(
            Kind::Forbidden,
            format!("job {own} submits its own children: parent cannot be {parent}"),
        ));
    }
    let (request_id, request) = split_request_id(request);
    let accepted = Accepted {
        job: 0,
        request_id: request_id.unwrap_or_default(),
        at: clock::now(),
        by: who.name.clone(),
        owner: who.user.clone().filter(|user| *user != who.name),
        parent: spec.parent.or(who.job()),
        batch: None,
        files: None,
        defaults: Map::new(),
        request,
    };
    Ok((accepted, spec))
}

/// Whether a request may be accepted now, which may change: asked of new ones alone.
fn admit(possible: &Possible, who: &Who, accepted: &Accepted, entered: &Entered) -> Result<()> {
    let root = possible.root();
    let Entered { spec, partition, .. } = entered;
    check_in_time(spec)?;
    check_retries(spec)?;
    if let Some(parent) = spec.parent.filter(|parent| Some(*parent) != who.job()) {
        let cards = Cards::new(root);
        let of = |e: Error| format!("parent: {}", e.message);
        let card = cards.find(parent).map_err(|e| Error::bad(of(e)))?;
        let whose = ownership::of_card(&cards, who, &card)?;
        auth::allow_to(who, Need::Control, whose).map_err(|e| Error::new(e.kind, of(e)))?;
    }
    if spec.strict {
        let user = accepted.user();
        let asked = spec.asked(user.as_deref(), partition.as_deref());
        let never = allocated::never(root, &asked).or_else(|| possible.none_has(&asked));
        if let Some(why) = never {
            return Err(Error::bad(format!("{why}, and the request is strict")));
        }
    }
    check_size(root, &accepted.whole_request()).map_err(|error| match partition {
        Some(partition) if check_size(root, &accepted.request).is_ok() => {
            with_given(partition, error)
        }
        _ => error,
    })
}

/// Refuses with 413 what would not fit into the request to a node that accepts as much as this
/// root does: there the job's environment is added. Its files were counted when they came.
fn check_size(root: &Root, request: &Map<String, Value>) -> Result<()> {
    const HEADROOM: u64 = 64 << 10;
    let limit = root.settings.max_body;
    let most = limit - HEADROOM.min(limit / 4);
    let size = files::json_line(request)?.len() as u64;
    if size <= most {
        return Ok(());
    }
    let why = format!(
        "the job's request has {size} bytes, of which a node takes {most} at most (setting max_body)"
    );
    Err(Error::new(Kind::TooLarge, why))
}

fn same_request(root: &Root, accepted: &Accepted, card: &Card) -> Result<()> {
    let other =
        if accepted.request != card.accepted.request || accepted.parent != card.accepted.parent {
            "another request"
        } else if accepted.files != files_of(root, card)? {
            "other files"
        } else {
            return Ok(());
        };
    Err(Error::new(
        Kind::Unprocessable,
        format!("request_id {} was used for job {} with {other}", accepted.request_id, card.job()),
    ))
}

/// The digest of a job's files. Cards of 0.1 do not have it: they are asked for what is still there.
fn files_of(root: &Root, card: &Card) -> Result<Option<String>> {
    if card.accepted.files.is_some() || card.state == State::Stopped {
        return Ok(card.accepted.files.clone());
    }
    uploads::digest_of(root, card.job())
}

/// The request as accepted, with its number and id, and what there is to be warned of.
pub fn answer(accepted: Accepted, warning: Option<String>) -> Value {
    let mut map = Map::new();
    map.insert("job".into(), accepted.job.into());
    map.insert("request_id".into(), accepted.request_id.into());
    map.extend(accepted.request);
    if !accepted.defaults.is_empty() {
        map.insert("defaults".into(), Value::Object(accepted.defaults));
    }
    if let Some(parent) = accepted.parent {
        map.insert("parent".into(), parent.into());
    }
    if let Some(warning) = warning {
        map.insert("warning".into(), warning.into());
    }
    Value::Object(map)
}
