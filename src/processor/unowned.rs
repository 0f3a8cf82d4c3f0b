//! Jobs that no one is responsible for: they neither wait, nor have ended, nor are named by a slot of
//! this boot.

use super::lost::lose;
use super::remains::{self, Remains};
use crate::board::feed;
use crate::board::files;
use crate::board::lock::Lock;
use crate::board::root::boot_id;
use crate::board::runs::{Runs, check_id};
use crate::board::slots;
use crate::board::sync_set::SyncSet;
use crate::error::{Error, Kind, Result};
use crate::model::outcome::Outcome;
use crate::model::run_status::RunState;

/// What is found of them.
#[derive(Debug, Default)]
pub(super) struct Unowned {
    /// Their ids.
    pub ids: Vec<String>,
    /// Of which others it is not known.
    pub failed: Vec<String>,
    /// Why.
    pub errors: Vec<Error>,
}

/// Jobs that no one is responsible for. Exact under the board's lock.
pub(super) fn find(runs: &Runs) -> Result<Unowned> {
    find_among(runs, files::names(&runs.jobs_dir())?)
}

/// The same of these.
pub(super) fn find_among(runs: &Runs, ids: Vec<String>) -> Result<Unowned> {
    let owned = Owned::read(runs)?;
    let mut found = Unowned::default();
    for id in ids {
        match is_unowned(runs, &id, &owned) {
            Ok(true) => found.ids.push(id),
            Ok(false) => {}
            Err(_) if is_none(runs, &id) => {}
            Err(error) => {
                found.failed.push(id);
                found.errors.push(error);
            }
        }
    }
    Ok(found)
}

/// Whether what lies there is no job: those are directories.
fn is_none(runs: &Runs, id: &str) -> bool {
    std::fs::symlink_metadata(runs.job_dir(id)).is_ok_and(|meta| !meta.is_dir())
}

/// The jobs that slots of this boot name.
struct Owned {
    jobs: Vec<String>,
    boot: String,
    /// What is wrong with a slot that may name others.
    unreadable: Option<Error>,
}

impl Owned {
    fn read(runs: &Runs) -> Result<Owned> {
        let boot = boot_id()?;
        let seen = slots::all(runs)?;
        let unreadable = seen.iter().find_map(|slot| slot.unreadable.clone());
        let records = seen.into_iter().filter_map(|slot| slot.record);
        let records = records.filter(|record| record.boot == boot || record.newer);
        Ok(Owned { jobs: records.flat_map(|record| record.jobs).collect(), boot, unreadable })
    }

    /// Whether no slot has this job. An error where one that cannot be read may: unless the job was
    /// started in another boot.
    fn lack(&self, runs: &Runs, id: &str) -> Result<bool> {
        let Some(error) = &self.unreadable else { return Ok(true) };
        let begun = runs.last_line(id)?.and_then(|line| line.boot);
        if begun.is_some_and(|begun| begun != self.boot) {
            return Ok(true);
        }
        let why = format!("{id}: whether a supervisor has it is not known: {}", error.message);
        Err(Error::new(error.kind, why))
    }
}

fn is_unowned(runs: &Runs, id: &str, owned: &Owned) -> Result<bool> {
    if check_id(id).is_err() || owned.jobs.iter().any(|job| job == id) || runs.is_queued(id)? {
        return Ok(false);
    }
    if runs.last_line(id)?.is_some_and(|line| line.state == RunState::Stopped) {
        return Ok(false);
    }
    match runs.request(id) {
        Err(e) if e.kind == Kind::Unavailable => Err(e),
        // Refused before it came, or removed by half. One whose request is damaged may have run: its
        // acceptance died before the sync.
        Err(e) if matches!(e.kind, Kind::Gone | Kind::NotFound) => Ok(false),
        Err(_) => owned.lack(runs, id),
        Ok(_) => Ok(runs.newer(id)?.is_none() && owned.lack(runs, id)?),
    }
}

/// Ends these jobs as lost. Returns how many, and why others could not be.
pub(super) fn end_all(
    runs: &Runs,
    held: &Lock,
    ids: &[String],
    why: &Outcome,
) -> Result<(usize, Vec<Error>)> {
    let mut lines = Vec::new();
    let mut failed = Vec::new();
    for id in ids {
        // One sync at the end serves all; their files are not kept open for it.
        match lose(runs, id, None, why, &mut SyncSet::new()) {
            Ok(line) => lines.push(line),
            Err(error) => failed.push(error),
        }
    }
    if !lines.is_empty() {
        runs.sync_all()?;
        feed::append(runs.root(), held, &lines)?;
    }
    Ok((lines.len(), failed))
}

/// Ends a job that somebody killed and no one is responsible for, with what is left of it.
pub(super) fn end_one(runs: &Runs, id: &str) -> Result<()> {
    let is_alone = |_held: &Lock| is_unowned(runs, id, &Owned::read(runs)?);
    if !is_alone(&runs.lock()?)? {
        return Ok(());
    }
    let lost = remains::end(runs, id, Remains::Unknown)?; // takes a while, without the lock
    let held = runs.lock()?;
    if is_alone(&held)? {
        let (_, failed) = end_all(runs, &held, &[id.to_string()], &lost)?;
        return failed.into_iter().next().map_or(Ok(()), Err);
    }
    Ok(())
}
