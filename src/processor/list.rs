//! Finding jobs.

use std::time::SystemTime;

use super::status;
use crate::board::files;
use crate::board::links;
use crate::board::root::Root;
use crate::board::runs::Runs;
use crate::board::slots;
use crate::error::{Kind, Result};
use crate::model::ids::RunId;
use crate::model::run_status::{RunState, RunStatus};

/// Which jobs to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// In this state.
    pub state: Option<RunState>,
    /// One of whose programs had this process id.
    pub pid: Option<i32>,
    /// One of whose programs was started at this time, in Unix seconds.
    pub start: Option<u64>,
    /// At most so many, the newest first.
    pub limit: Option<usize>,
}

/// Jobs, the newest first, each with its id; refused ids are none. One that cannot be read may be in any
/// state, and keeps no other from being listed.
pub fn list(root: &Root, filter: &Filter) -> Result<Vec<(RunId, Result<RunStatus>)>> {
    let runs = Runs::new(root);
    let limit = filter.limit.unwrap_or(usize::MAX);
    let mut found = Vec::new();
    for id in candidates(&runs, filter)? {
        if found.len() >= limit {
            break;
        }
        match status::look(root, &id) {
            Ok(status) if filter.state.is_some_and(|state| state != status.state) => {}
            Err(e) if matches!(e.kind, Kind::NotFound | Kind::Gone) => {}
            looked => found.push((id, looked)),
        }
    }
    status::settle(root, found.iter_mut().map(|(_, looked)| looked))?;
    Ok(found)
}

/// Ids of all jobs, the newest first, refused ones too.
pub fn ids(root: &Root) -> Result<Vec<RunId>> {
    candidates(&Runs::new(root), &Filter::default())
}

/// Ids of the jobs that have not ended. From queued to running first: none is missed on its way.
pub fn unfinished(root: &Root) -> Result<Vec<RunId>> {
    let mut ids = Vec::new();
    for state in [RunState::Queued, RunState::Running] {
        let filter = Filter { state: Some(state), ..Filter::default() };
        ids.extend(list(root, &filter)?.into_iter().map(|(id, _)| id));
    }
    Ok(ids)
}

/// Ids to look at, the newest first.
fn candidates(runs: &Runs, filter: &Filter) -> Result<Vec<RunId>> {
    let names = if filter.pid.is_some() || filter.start.is_some() {
        by_process(runs, filter)?
    } else if filter.state == Some(RunState::Queued) {
        files::names(&runs.queue_dir())?
    } else if filter.state == Some(RunState::Running) {
        // What runs is named in a slot, so that nobody reads through all that ended.
        slots::all(runs)?.iter().flat_map(|seen| seen.jobs().to_vec()).collect()
    } else {
        files::names(&runs.jobs_dir())?
    };
    let mut dated: Vec<(SystemTime, RunId)> = names
        .into_iter()
        .filter_map(|id| {
            let id = RunId::parse(&id)?;
            match runs.accepted_at(&id) {
                Ok(at) => Some((at, id)),
                Err(e) if e.kind == Kind::NotFound => None,
                Err(_) => Some((SystemTime::UNIX_EPOCH, id)), // whoever looks at it says why
            }
        })
        .collect();
    dated.sort_by(|a, b| b.cmp(a));
    Ok(dated.into_iter().map(|(_, id)| id).collect())
}

/// Ids of the jobs of the links that fit.
fn by_process(runs: &Runs, filter: &Filter) -> Result<Vec<String>> {
    let mut ids: Vec<String> = Vec::new();
    for found in links::list(runs, filter.pid, filter.start)? {
        if !ids.iter().any(|known| *known == *found.id) {
            ids.push(found.id.to_string());
        }
    }
    Ok(ids)
}
