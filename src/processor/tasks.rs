//! What is known of a range's tasks.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::status;
use crate::board::files;
use crate::board::root::Root;
use crate::board::runs::Runs;
use crate::board::watch::Watch;
use crate::error::{Error, Result};
use crate::model::ids::RunId;
use crate::model::outcome::Status;
use crate::model::range::{Line, Step, of_task};
use crate::model::request::Spec;
use crate::model::request_fields::Output;
use crate::model::run_status::RunState;
use crate::model::tasks::TaskSet;

/// The tasks of a range; 400 for a job that is none.
fn tasks_of(root: &Root, id: &RunId) -> Result<(TaskSet, Output)> {
    let spec = Spec::for_run(&Runs::new(root).request(id)?)?;
    let tasks =
        spec.tasks.ok_or_else(|| Error::bad(format!("{id} is one job: it has no tasks")))?;
    Ok((tasks, spec.output))
}

fn lines(root: &Root, id: &RunId, task: u32) -> Result<(Option<Line>, Option<Line>)> {
    let bytes = files::read(&Runs::new(root).tasks_path(id))?.unwrap_or_default();
    Ok(of_task(&bytes, task))
}

/// A task's status: `queued` also for one that the range gave back. What it says of an end is
/// durable. 404 for one that is not of this range.
pub fn status(root: &Root, id: &RunId, task: u32) -> Result<Map<String, Value>> {
    let found = look(root, id, task)?;
    settle(root, id, &found)?;
    Ok(found)
}

fn settle(root: &Root, id: &RunId, found: &Map<String, Value>) -> Result<()> {
    if found.get("state") != Some(&json!(RunState::Stopped)) {
        return Ok(());
    }
    Runs::new(root).sync_of_end(id)?.commit()
}

/// [`status()`] for whoever does not tell the end.
pub(super) fn look(root: &Root, id: &RunId, task: u32) -> Result<Map<String, Value>> {
    let (tasks, _) = tasks_of(root, id)?;
    if !tasks.contains(task) {
        return Err(Error::not_found(format!("{id} has no task {task}; it has {}", tasks.brief())));
    }
    let (start, end) = lines(root, id, task)?;
    let state = match (&start, &end) {
        (_, Some(_)) => RunState::Stopped,
        (Some(_), None) => RunState::Running,
        (None, None) => RunState::Queued,
    };
    let mut map = Map::new();
    map.insert("id".into(), (**id).into());
    map.insert("task".into(), task.into());
    map.insert("state".into(), json!(state));
    map.insert("status".into(), json!(Status::Unknown));
    if let Some(Line { at, what: Step::Started { pid, .. } }) = start {
        map.insert("started".into(), at.into());
        map.insert("pid".into(), pid.into());
    }
    if let Some(Line { at, what: Step::Stopped { outcome, .. } }) = end {
        map.insert("at".into(), at.into());
        if let Value::Object(fields) = json!(outcome) {
            map.extend(fields);
        }
    }
    Ok(map)
}

/// A task's status once it, or its range, has ended, or what it is after `wait`.
pub fn wait(root: &Root, id: &RunId, task: u32, wait: Duration) -> Result<Map<String, Value>> {
    let deadline = Instant::now() + wait;
    let watch = Watch::on(&[&Runs::new(root).job_dir(id)]);
    loop {
        let ended = has_ended(root, id, task)?;
        let found = look(root, id, task)?;
        if ended || wait.is_zero() || !watch.wait_until(deadline) {
            settle(root, id, &found)?;
            return Ok(found);
        }
    }
}

/// Whether nothing more can happen to this task here.
pub fn has_ended(root: &Root, id: &RunId, task: u32) -> Result<bool> {
    let over = status::look(root, id)?.state == RunState::Stopped;
    Ok(over || lines(root, id, task)?.1.is_some())
}

/// Which part of an output file, by its place among the streams, a task wrote: where it begins,
/// and where it ends if the task has ended. `None` if it has not started.
pub fn part_of_log(
    root: &Root,
    id: &RunId,
    task: u32,
    stream: usize,
) -> Result<Option<(u64, Option<u64>)>> {
    let place = |line: Option<Line>| match line?.what {
        Step::Started { log, .. } | Step::Stopped { log, .. } => log.get(stream).copied(),
        Step::Claimed { .. } => None,
    };
    let (start, end) = lines(root, id, task)?;
    Ok(place(start).map(|start| (start, place(end))))
}
