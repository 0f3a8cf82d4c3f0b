//! What is known about a job.
//!
//! An end is told only once it is durable: its supervisor appends it, and syncs it with others a
//! little later. Whoever reads it in between makes the sync themselves.

use std::cell::OnceCell;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use super::ack;
use super::info::Total;
use crate::board::files;
use crate::board::root::Root;
use crate::board::runs::Runs;
use crate::board::sync_set::SyncSet;
use crate::board::watch::Watch;
use crate::clock;
use crate::error::{At, Result};
use crate::model::ids::RunId;
use crate::model::newer::written_by_newer;
use crate::model::report::Report;
use crate::model::request::Spec;
use crate::model::request_fields::RANGE_FIELD;
use crate::model::resources::GPUS;
use crate::model::run_status::{RunState, RunStatus};

/// More ends than so many are made durable all at once.
const SETTLE_EACH_UP_TO: usize = 2;

/// A job's status, naming it; of a range with the ends of all tasks so far. What it says of ends is
/// durable. 404 for an id that is not here, 410 for one that was refused.
pub fn of(root: &Root, id: &RunId) -> Result<RunStatus> {
    settled(root, look(root, id)?)
}

/// [`of`] for several jobs, in order, with one sync.
pub fn of_all(root: &Root, ids: &[RunId]) -> Result<Vec<Result<RunStatus>>> {
    let total = OnceCell::new();
    let mut found: Vec<Result<RunStatus>> =
        ids.iter().map(|id| look_in(root, id, &total)).collect();
    settle(root, &mut found)?;
    Ok(found)
}

/// What stands against a job on this node, whoever else is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unfit {
    /// It can never run here; why.
    Never(String),
    /// Whether it can is not known yet; why.
    NotKnown(String),
}

impl Unfit {
    /// Why.
    pub fn why(self) -> String {
        let (Unfit::Never(why) | Unfit::NotKnown(why)) = self;
        why
    }
}

/// What stands against a job on this node, with so much in all. Of one that it has accepted its settings have
/// changed since, or it has an older program now.
pub(super) fn unfit(spec: &Spec, newer: Option<String>, total: &Total) -> Option<Unfit> {
    if let Some(what) = newer {
        return Some(Unfit::Never(written_by_newer(&what)));
    }
    let (needed, total, unsure) = (&spec.resources, &total.resources, &total.unsure);
    if needed.fits(total) {
        return None;
    }
    let gpus = needed.others.get(GPUS);
    Some(match unsure {
        Some(why) if gpus > 0 && needed.fits(&total.clone().and(GPUS, gpus)) => {
            Unfit::NotKnown(format!("which GPUs this node has is not known yet: {why}"))
        }
        _ => Unfit::Never(format!(
            "the job needs {}, this node has {} in all",
            needed.human(),
            total.human()
        )),
    })
}

/// [`of`] for whoever does not tell the end: it may not be durable yet.
pub(super) fn look(root: &Root, id: &RunId) -> Result<RunStatus> {
    look_in(root, id, &OnceCell::new())
}

/// The same of a node with so much in all, which is found out where it is needed.
fn look_in(root: &Root, id: &RunId, total: &OnceCell<Total>) -> Result<RunStatus> {
    let runs = Runs::new(root);
    let last = runs.last_line(id)?;
    // Of one that has ended nothing is to be done any more, and its end says what there is to say.
    let over = last.as_ref().is_some_and(|line| line.state == RunState::Stopped);
    let newer = if over { None } else { runs.newer(id)?.map(|what| written_by_newer(&what)) };
    let told = |status: RunStatus| RunStatus { reason: newer.clone().or(status.reason), ..status };
    if let Some(mut line) = last.map(told) {
        if line.state == RunState::Running && line.tasks.is_some() {
            line.tasks = Some(runs.range(id)?.report);
        }
        return Ok(line.of(id));
    }
    let request = runs.request(id)?;
    let mut status = RunStatus::queued(clock::rfc3339(runs.accepted_at(id)?)).of(id);
    if let Some(map) = request.as_object() {
        let (spec, newer) = Spec::of_run(map);
        let total = total.get_or_init(|| Total::known(root));
        status.reason = unfit(&spec, newer, total).map(Unfit::why);
        status = told(status);
    }
    if request.get(RANGE_FIELD).is_some() {
        // Tasks may have been killed before the range has begun.
        status.tasks = Some(runs.range(id)?.report).filter(|report| !report.is_empty());
    }
    Ok(status)
}

/// Makes the ends durable that these tell; one of which that fails says why instead. One whose head holds
/// it, which is marked, is durable.
pub(super) fn settle<'a>(
    root: &Root,
    found: impl IntoIterator<Item = &'a mut Result<RunStatus>>,
) -> Result<()> {
    let runs = Runs::new(root);
    let mut open = Vec::new();
    for one in found {
        let Ok(status) = &one else { continue };
        let tells = status.state == RunState::Stopped
            || status.tasks.as_ref().is_some_and(|report: &Report| !report.is_empty());
        let Some(id) = status.id.clone().filter(|_| tells) else { continue };
        match is_closed(&runs, &id) {
            Ok(true) => {}
            Ok(false) => open.push((id, one)),
            Err(error) => *one = Err(error),
        }
    }
    if open.len() > SETTLE_EACH_UP_TO {
        return runs.sync_all();
    }
    for (id, one) in open {
        if let Err(error) = runs.sync_of_end(&id).and_then(SyncSet::commit) {
            *one = Err(error);
        }
    }
    Ok(())
}

/// The same of one.
fn settled(root: &Root, status: RunStatus) -> Result<RunStatus> {
    let mut one = Ok(status);
    settle(root, [&mut one])?;
    one
}

fn is_closed(runs: &Runs, id: &str) -> Result<bool> {
    let path = runs.status_path(id);
    let meta = files::gone_is_fine(fs::metadata(&path)).at(&path)?;
    Ok(meta.is_some_and(|meta| meta.permissions().mode() & 0o777 == ack::CLOSED))
}

/// A job's status as soon as it is at least `state`, or what it is after `wait`.
pub fn wait(root: &Root, id: &RunId, state: RunState, wait: Duration) -> Result<RunStatus> {
    let reached = |status: &RunStatus| rank(status.state) >= rank(state);
    let mut status = look(root, id)?;
    if !reached(&status) && !wait.is_zero() {
        let deadline = Instant::now() + wait;
        let watch = Watch::on(&[&Runs::new(root).job_dir(id)]);
        loop {
            status = look(root, id)?;
            if reached(&status) || !watch.wait_until(deadline) {
                break;
            }
        }
    }
    settled(root, status)
}

fn rank(state: RunState) -> u8 {
    match state {
        RunState::Queued => 0,
        RunState::Running => 1,
        RunState::Stopped => 2,
    }
}
