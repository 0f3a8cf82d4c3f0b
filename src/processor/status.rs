//! What is known about a job.

use std::time::{Duration, Instant};

use crate::board::root::Root;
use crate::board::runs::{Runs, check_id, written_by_newer};
use crate::board::watch::Watch;
use crate::clock;
use crate::error::Result;
use crate::model::outcome::{RunState, RunStatus};

/// A job's status, naming it; of a range with the ends of all tasks so far. 404 for an id that is not here, 410 for one that was refused.
pub fn of(root: &Root, id: &str) -> Result<RunStatus> {
    check_id(id)?;
    let runs = Runs::new(root);
    let newer = runs.newer(id)?.map(|what| written_by_newer(&what));
    let told = |status: RunStatus| RunStatus { reason: newer.clone().or(status.reason), ..status };
    if let Some(mut line) = runs.last_line(id)?.map(told) {
        if line.state == RunState::Running && line.tasks.is_some() {
            line.tasks = Some(runs.range(id)?.report);
        }
        return Ok(line.of(id));
    }
    runs.request(id)?;
    Ok(told(RunStatus::queued(clock::rfc3339(runs.accepted_at(id)?))).of(id))
}

/// A job's status as soon as it is at least `state`, or what it is after `wait`.
pub fn wait(root: &Root, id: &str, state: RunState, wait: Duration) -> Result<RunStatus> {
    let reached = |status: &RunStatus| rank(status.state) >= rank(state);
    let mut status = of(root, id)?;
    if reached(&status) || wait.is_zero() {
        return Ok(status);
    }
    let deadline = Instant::now() + wait;
    let watch = Watch::on(&[&Runs::new(root).job_dir(id)]);
    loop {
        status = of(root, id)?;
        if reached(&status) || !watch.wait_until(deadline) {
            return Ok(status);
        }
    }
}

fn rank(state: RunState) -> u8 {
    match state {
        RunState::Queued => 0,
        RunState::Running => 1,
        RunState::Stopped => 2,
    }
}
