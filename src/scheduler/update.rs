//! Changing jobs: kill, hold, release, priority; and asking the nodes now.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::jobs::{number, status_fields};
use super::{kills, tasks};
use crate::attempts::proofs::{Proofs, Worth};
use crate::attempts::{self, Said, ranges};
use crate::board::cards::Cards;
use crate::board::root::Root;
use crate::board::{addresses, files};
use crate::cgi::{Call, Response};
use crate::driver::{self, Answer};
use crate::error::{Error, Result};
use crate::model::card::{Attempt, Card, Column, State, What};
use crate::model::outcome::Outcome;

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
            let ids: Vec<String> = attempts.iter().map(|a| a.nodejob.clone()).collect();
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
    let applied = attempts::record(root, reports)?;
    match applied.errors.into_iter().next() {
        Some(error) => Err(error), // what was said is not on the card
        None => Ok((cards.find(job)?, silent)),
    }
}
