//! What somebody wants to end: as it lies on the board until it is done.
//!
//! A wish for all of a job is its `kill`, one for tasks of a range a line of its `kill-tasks`; where the
//! disk has no room for them they are noted in the slot of the supervisor that has the job.

use crate::board::files;
use crate::board::lock::Lock;
use crate::board::runs::Runs;
use crate::board::slots::{self, Kill, Slot};
use crate::board::story::Story;
use crate::board::sync_set::SyncSet;
use crate::error::{Error, Kind, Result};
use crate::model::kill::{Killed, KilledTasks, Kills};
use crate::model::run_status::RunState;
use crate::model::tasks::TaskSet;

/// Whether somebody wants all of this job to end. A record that cannot be read counts: only a kill is
/// ever written there.
pub(super) fn asked(runs: &Runs, id: &str) -> Result<Option<Killed>> {
    let Some(bytes) = files::read(&runs.kill_path(id))? else { return Ok(None) };
    Ok(Some(serde_json::from_slice(&bytes).unwrap_or_else(|_| Killed::now("somebody", None))))
}

/// All that somebody wants of a job that runs in this slot; `tasks`: it is a range.
pub(super) fn all(runs: &Runs, id: &str, slot: Option<&Slot>, tasks: bool) -> Result<Kills> {
    let mut kills = Kills { whole: asked(runs, id)?, tasks: Vec::new() };
    if tasks {
        let bytes = files::read(&runs.kill_tasks_path(id))?.unwrap_or_default();
        let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        kills.tasks.extend(lines.filter_map(|line| serde_json::from_slice(line).ok()));
    }
    for Kill { tasks, killed, .. } in
        slot.map_or(Ok(Vec::new()), Slot::kills)?.into_iter().filter(|kill| kill.id == id)
    {
        match tasks {
            Some(tasks) => kills.tasks.push(KilledTasks { tasks, killed }),
            None => kills.whole = Some(kills.whole.take().unwrap_or(killed)),
        }
    }
    Ok(kills)
}

/// Adds a line to `job/ID/kill-tasks`; durable when this returns.
pub(super) fn record_tasks(runs: &Runs, id: &str, kill: &KilledTasks) -> Result<()> {
    let mut story = Story::open_or_create(runs.kill_tasks_path(id))?;
    story.append(std::slice::from_ref(kill))?;
    let (file, path) = story.into_file();
    let mut sync = SyncSet::new();
    sync.file(file, path);
    sync.dir(&runs.job_dir(id));
    sync.commit()
}

/// Gives the directory of a job that is to wait again what was noted of it in the slot that it leaves.
/// Durable when this returns. On an error the slot has to go on naming it.
pub(super) fn keep_noted(runs: &Runs, id: &str, noted: &[Kill]) -> Result<()> {
    for Kill { tasks, killed, .. } in noted.iter().filter(|kill| kill.id == id) {
        let killed = killed.clone();
        match tasks {
            Some(tasks) => record_tasks(runs, id, &KilledTasks { tasks: tasks.clone(), killed })?,
            None => files::replace(
                &runs.tmp_dir(),
                &runs.kill_path(id),
                &files::json_line(&killed.again(asked(runs, id)?))?,
            )?,
        }
    }
    Ok(())
}

/// A full disk, which the job may have filled itself, is no reason not to end it: its supervisor's
/// slot has room for this.
pub(super) fn note(
    runs: &Runs,
    held: &Lock,
    id: &str,
    tasks: Option<TaskSet>,
    killed: Killed,
) -> Result<()> {
    // One that has not started yet looks at its own directory alone; a range at the slot, too.
    let heeds = tasks.is_some()
        || runs.last_line(id)?.is_some_and(|line| line.state == RunState::Running)
        || !runs.range(id)?.report.is_empty()
        || !runs.is_here(id)?; // somebody has removed all of it
    if heeds && slots::note_kill(runs, held, &Kill { id: id.to_string(), tasks, killed })? {
        return Ok(());
    }
    Err(Error::new(Kind::Unavailable, format!("{id} does not run here")))
}
