//! Changing jobs: kill, hold, release, priority; and asking the nodes now.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde_json::{Map, Value, json};

use super::jobs::{number, status_fields};
use super::{kills, tasks};
use crate::attempts::proofs::{Proofs, Worth};
use crate::attempts::{self, Said};
use crate::board::cards::Cards;
use crate::board::root::Root;
use crate::board::{addresses, files};
use crate::cgi::{Call, Key, Response};
use crate::driver::{self, Answer};
use crate::error::{Error, Result};
use crate::model::card::{Attempt, Card, State};
use crate::model::change::{self, Change};
use crate::model::ids::RunId;

/// What `update` takes.
pub const KEYS: &[Key] = &[
    Key::new("kill", "1", "end it"),
    Key::new("hold", "1", "keep it waiting until it is released"),
    Key::new("release", "1", "let it go on"),
    Key::new("priority", "P", "higher goes first"),
    Key::new("task", "3,5-9", "with kill=1: only these tasks of an array"),
];

/// `DELETE queue/N`: removes a job that still waits; it ends as killed.
pub fn queue_remove(call: &Call) -> Result<Response> {
    let change = Change::Remove { by: call.who.name.clone() };
    let card = make(call.root, number(call)?, &[change])?;
    Ok(Response::of(after_change(call.root, &card)?))
}

/// The answer to a change that is made: what fails now is no reason to say that nothing changed.
fn after_change(root: &Root, card: &Card) -> Result<Map<String, Value>> {
    status_fields(root, card).map_err(files::unknown)
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
    let by = call.who.name.clone();
    let wanted = [
        priority.map(|priority| Change::Priority { priority, by: by.clone() }),
        hold.then(|| Change::Hold { by: by.clone() }),
        release.then(|| Change::Release { by: by.clone() }),
        kill.then_some(Change::Kill { tasks, by }),
    ];
    let wanted: Vec<Change> = wanted.into_iter().flatten().collect();
    if wanted.is_empty() {
        let (card, silent) = refresh(call.root, job)?;
        let mut status = status_fields(call.root, &card)?;
        if !silent.is_empty() {
            status.insert("silent".into(), json!(silent));
        }
        return Ok(Response::of(status));
    }
    let card = make(call.root, job, &wanted)?;
    let card = if kill { kills::tell_local(call.root, card) } else { card };
    let response = Response::of(after_change(call.root, &card)?);
    let pending = card.state == State::Stopping || kill && tasks::are_being_killed(&card);
    Ok(if pending { response.status(202, "Accepted") } else { response })
}

/// Makes these changes of one card; durable when this returns.
fn make(root: &Root, job: u64, wanted: &[Change]) -> Result<Card> {
    let cards = Cards::new(root);
    let lock = cards.lock()?;
    let decide = |card: &Card| change::lines(wanted, card, SystemTime::now());
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
    let mut by_node: BTreeMap<(&str, Option<&str>), Vec<&Attempt>> = BTreeMap::new();
    for attempt in card.with_nodes() {
        by_node.entry((&attempt.node, attempt.uri.as_deref())).or_default().push(attempt);
    }
    let mut reports: Vec<Said> = Vec::new();
    let (mut silent, mut failed) = (Vec::new(), None);
    for ((node, _), attempts) in &by_node {
        let ask = || -> Result<Vec<Said>> {
            let mut record = None;
            for attempt in attempts {
                record = Some(addresses::holder(root, attempt)?);
            }
            let Some(record) = record else { return Ok(Vec::new()) };
            let ids: Vec<RunId> = attempts.iter().map(|a| a.nodejob.run().clone()).collect();
            let answers = driver::ask(root, &record)?.status(&ids)?;
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
    let applied = attempts::record(root, reports);
    match applied.errors.into_iter().next() {
        Some(error) => Err(error), // what was said is not on the card
        None => Ok((cards.find(job)?, silent)),
    }
}
