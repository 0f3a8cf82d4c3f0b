//! Tasks of an array: counts, the status of one, and which ones a request names.

use serde_json::{Map, Value, json};

use super::reason::{self, told_reason};
use crate::board::root::Root;
use crate::error::Result;
use crate::model::card::{Attempt, Card, State};
use crate::model::job_tasks::Tasks;
use crate::model::outcome::{Cause, Status};
use crate::model::tasks::TaskSet;

/// Whether nodes have been, or are to be, told to kill some of its tasks.
pub fn are_being_killed(card: &Card) -> bool {
    card.with_nodes().any(|attempt| attempt.left.has_any_of(&card.tasks.unwanted))
}

/// Whether this task has ended.
pub fn has_ended(card: &Card, task: Option<u32>) -> bool {
    task.is_some_and(|task| card.tasks.outcome_of(task).is_some())
}

/// How many tasks there are, wait, run, and ended how. A range runs one task at a time.
pub fn counts(card: &Card, array: &Tasks) -> Map<String, Value> {
    let (total, good, failed) = (array.spec.tasks.len(), array.ended.good.len(), array.failed());
    let runs = |attempt: &&Attempt| attempt.started_at.is_some() && !attempt.left.is_empty();
    let running = card.with_nodes().filter(runs).count() as u64;
    let mut map = Map::new();
    map.insert("total".into(), total.into());
    map.insert("waiting".into(), (total - good - failed.len() - running).into());
    map.insert("running".into(), running.into());
    map.insert("good".into(), good.into());
    map.insert("failed".into(), failed.len().into());
    if !failed.is_empty() {
        map.insert("failed_tasks".into(), failed.to_string().into());
    }
    map
}

/// The attempts in which the job may have run, or a task of an array, the last one first: not those
/// that a node would not have, nor ranges that gave the task back.
pub fn runs_of(card: &Card, task: Option<u32>) -> impl Iterator<Item = &Attempt> {
    card.attempts.iter().rev().filter(move |attempt| may_have_run(attempt, task))
}

/// Whether the job, or the task, may have run in this attempt.
pub fn may_have_run(attempt: &Attempt, task: Option<u32>) -> bool {
    let has = |task: u32| attempt.tasks.as_ref().is_some_and(|tasks| tasks.contains(task));
    attempt.refused.is_none()
        && task.is_none_or(|task| has(task) && !attempt.returned.contains(task))
}

/// Whether it did for certain: its end says so, or it is the one of its range that runs.
pub fn has_run(card: &Card, attempt: &Attempt, task: u32) -> bool {
    if attempt.left.contains(task) {
        return attempt.started_at.is_some() && attempt.left.first() == Some(task);
    }
    let end = card.tasks.outcome_of(task);
    end.is_some_and(|end| matches!(end.cause, Cause::Exit | Cause::Signal | Cause::Timeout))
}

/// The state of a task, and the range that has it. The first of a range whose end is not known is
/// the one that runs; it may have ended a moment ago.
fn state_of(card: &Card, task: u32) -> (State, Option<&Attempt>) {
    let tasks = &card.tasks;
    let out = card.with_nodes().find(|attempt| attempt.left.contains(task));
    let killed = card.stopping_by.is_some() || tasks.unwanted.contains(task);
    let state = match out {
        _ if tasks.outcome_of(task).is_some() => State::Stopped,
        Some(_) if killed => State::Stopping,
        Some(out) if out.started_at.is_some() && out.left.first() == Some(task) => State::Running,
        Some(_) => State::Placed,
        None if tasks.held => State::Held,
        None => State::Queued,
    };
    (state, out)
}

/// Why the job, or a task of it, is where it is: see [`reason::reason`].
pub fn reason_of(root: &Root, card: &Card, task: Option<u32>) -> Result<Option<String>> {
    let Some(task) = task.filter(|_| card.is_array()) else { return reason::reason(root, card) };
    match state_of(card, task) {
        (State::Stopped, _) => Ok(card.tasks.outcome_of(task).and_then(|outcome| outcome.reason)),
        (state, Some(range)) => reason::of_task_on_node(root, range, state),
        (_, None) => reason::of_waiting_task(root, card, task).map(Some),
    }
}

/// The fields of a status answer about one task.
pub fn status_fields(root: &Root, card: &Card, task: u32) -> Result<Map<String, Value>> {
    card.check_tasks(&TaskSet::one(task))?;
    let outcome = card.tasks.outcome_of(task);
    let (state, out) = state_of(card, task);
    let last = || runs_of(card, Some(task)).next().filter(|_| outcome.is_some());
    let attempt = out.or_else(last);
    let mut map = Map::new();
    map.insert("task".into(), task.into());
    map.insert("state".into(), state.word().into());
    map.insert("status".into(), json!(outcome.as_ref().map_or(Status::Unknown, |o| o.status)));
    map.insert("node".into(), json!(attempt.map(|a| &a.node)));
    map.insert("attempt".into(), json!(attempt.map(|a| a.attempt)));
    let reference = attempt.and_then(|a| a.reference.clone());
    reference.map(|reference| map.insert("ref".into(), reference.into()));
    map.insert("retries".into(), card.tasks.retries_of(task).into());
    if let Some(outcome) = outcome {
        map.insert("cause".into(), json!(outcome.cause));
        outcome.code.map(|code| map.insert("code".into(), code.into()));
    }
    let reason = told_reason(reason_of(root, card, Some(task)));
    reason.map(|reason| map.insert("reason".into(), reason.into()));
    Ok(map)
}
