//! Killing a job, wherever it is in its life.

use std::time::{Duration, Instant};

use super::end_waiting::{end_queued, end_waiting_tasks, refused};
use super::wake::wake;
use super::wishes::{asked, note, record_tasks};
use super::{start, status, sweep, unowned};
use crate::board::files;
use crate::board::root::Root;
use crate::board::runs::Runs;
use crate::board::slots;
use crate::board::spoilt;
use crate::error::{Error, Kind, Result};
use crate::model::ids::RunId;
use crate::model::kill::{Killed, KilledTasks, Wish};
use crate::model::proof;
use crate::model::request::Spec;
use crate::model::run_status::{RunState, RunStatus};
use crate::model::tasks::TaskSet;

/// How long a kill on a full disk waits for a job that is just being started.
const UNTIL_STARTED: Duration = Duration::from_secs(2);

/// Between two looks at it.
const PAUSE: Duration = Duration::from_millis(5);

/// Kills tasks of a range: those that were not started never are, the one that runs is ended as
/// [`kill`] does. Durable when this returns; tasks that have ended are left as they are. 404 for a
/// range that is not here: it may come. Answers with what is known of the range now, or of what is
/// in its place.
pub fn kill_tasks(root: &Root, wish: &Wish, tasks: &TaskSet) -> Result<RunStatus> {
    let Wish { id, grace, by, .. } = wish;
    let runs = Runs::new(root);
    let held = runs.lock()?;
    if !is_meant(&runs, wish)? {
        drop(held);
        return status::of(root, id);
    }
    spoilt::clear_stories(&runs, id)?;
    spoilt::clear_kills(&runs, id)?;
    runs.for_change(id)?;
    let spec = Spec::for_run(&runs.request(id)?)?;
    let Some(all) = spec.tasks else {
        return Err(Error::bad(format!("{id} is one job: it has no tasks")));
    };
    if let Some(unknown) = tasks.without(&all).first() {
        return Err(Error::not_found(format!(
            "{id} has no task {unknown}; it has {}",
            all.brief()
        )));
    }
    match runs.last_line(id)? {
        Some(end) if end.state == RunState::Stopped => {}
        _ if runs.is_queued(id)? => return end_waiting_tasks(&runs, &held, id, &all, tasks, by),
        _ => {
            let killed = Killed::now(by, *grace);
            let kill = KilledTasks { tasks: tasks.clone(), killed: killed.clone() };
            if let Err(error) = record_tasks(&runs, id, &kill) {
                note(&runs, &held, id, Some(tasks.clone()), killed).map_err(|_| error)?;
            }
        }
    }
    drop(held);
    let told = || -> Result<RunStatus> {
        if !wake(&runs, id)? {
            end_abandoned(&runs, id);
            start_others(&runs);
        }
        status::of(root, id)
    };
    told().map_err(files::unknown)
}

/// Whether it is the run under this id that is to be ended: it shows what it has to, or there is none.
/// One whose request cannot be read shows nothing, and is what its id says. Under the lock.
fn is_meant(runs: &Runs, wish: &Wish) -> Result<bool> {
    let Some(proof) = &wish.proof else { return Ok(true) };
    let request = files::read(&runs.request_path(&wish.id))?.unwrap_or_default();
    Ok(proof::of_request(&request).is_none_or(|shown| shown == *proof))
}

/// Forbids the start of a job that is not here: a late acceptance of it finds the name taken. One
/// that is here is left alone, and what is known of it is the answer; 410 for one that will never
/// be started here. Durable when this returns.
pub fn forbid(root: &Root, id: &RunId, by: &str) -> Result<RunStatus> {
    let runs = Runs::new(root);
    let held = runs.lock()?;
    match runs.request(id) {
        Err(e) if e.kind == Kind::NotFound => {
            runs.refuse(&held, id, by)?;
        }
        // Whoever published it may have died before the sync.
        Err(e) if e.kind == Kind::Gone => runs.sync_of(id)?.commit()?,
        Ok(_) | Err(_) => {}
    }
    drop(held);
    status::of(root, id)
}

/// Kills a job: one that waits ends at once, one that runs is asked to end and after `grace`
/// (else the request's, else the setting) made to, one that has not come yet will be refused. Of one
/// whose supervisor died, what is left is ended now. Durable when this returns; an ended job is left
/// as it is, and so is one that is not meant. Answers with what is known now.
pub fn kill(root: &Root, wish: &Wish) -> Result<RunStatus> {
    let Wish { id, grace, by, .. } = wish;
    let runs = Runs::new(root);
    if let Some(known) = end_at_once(&runs, wish)? {
        return Ok(known);
    }
    let killed = Killed::now(by, *grace).again(asked(&runs, id)?);
    let record = files::json_line(&killed)?;
    if let Err(error) = files::replace(&runs.tmp_dir(), &runs.kill_path(id), &record)
        && let Some(end) = kill_without_space(&runs, wish, &killed, &error)?
    {
        return Ok(end);
    }
    let told = || -> Result<RunStatus> {
        if !wake(&runs, id)? {
            end_abandoned(&runs, id);
            let end = end_at_once(&runs, wish); // it had not started, and waited again
            start_others(&runs);
            if let Some(end) = end? {
                return Ok(end);
            }
        } else if runs.is_queued(id)?
            && let Some(end) = end_at_once(&runs, wish)?
        {
            return Ok(end); // it was put back meanwhile
        }
        status::of(root, id)
    };
    told().map_err(files::unknown)
}

/// Kills a job that is claimed where its directory has no room for it, by what needs none: what runs is
/// noted in its slot, what has not started never will be, and that is returned. One that is just being
/// started is waited for. `error` is why there is no room.
fn kill_without_space(
    runs: &Runs,
    wish: &Wish,
    killed: &Killed,
    error: &Error,
) -> Result<Option<RunStatus>> {
    let Wish { id, by, .. } = wish;
    let deadline = Instant::now() + UNTIL_STARTED;
    loop {
        let held = runs.lock()?;
        let state = runs.last_line(id)?.map(|line| line.state);
        if state == Some(RunState::Stopped) {
            return Ok(None);
        }
        let waits = runs.is_queued(id)?;
        // Of a range some tasks may have ended before, which a refusal would not tell.
        let has_ends = !waits && !runs.range(id)?.report.is_empty();
        if state == Some(RunState::Running) || has_ends || !runs.is_here(id)? {
            note(runs, &held, id, None, killed.clone()).map_err(|_| error.clone())?;
            return Ok(None);
        }
        if !waits && runs.refuse_unstarted(&held, id, by)? {
            return Ok(Some(refused(id, by)));
        }
        drop(held);
        if waits && let Some(end) = end_at_once(runs, wish)? {
            return Ok(Some(end));
        }
        if Instant::now() >= deadline {
            return Err(error.clone());
        }
        std::thread::sleep(PAUSE);
    }
}

/// The end of a job that can be ended at once, or has ended, or never will be started here; what is
/// known of one that is not meant. `None` for one that is claimed.
fn end_at_once(runs: &Runs, wish: &Wish) -> Result<Option<RunStatus>> {
    let Wish { id, by, .. } = wish;
    let held = runs.lock()?;
    if !is_meant(runs, wish)? {
        drop(held);
        return status::of(runs.root(), id).map(Some);
    }
    spoilt::clear_stories(runs, id)?;
    spoilt::clear_kills(runs, id)?;
    let before = runs.last_line(id)?;
    let untouched = before.is_none();
    let ended = before.filter(|line| line.state == RunState::Stopped);
    match runs.request(id) {
        Ok(_) => runs.for_change(id)?,
        Err(_) if ended.is_some() => {} // a power loss may have left it empty
        Err(e) if e.kind == Kind::Gone => {
            runs.finish_refusal(id)?; // whoever published it may have died before
            return Ok(Some(refused(id, by)));
        }
        // Its files were removed, and it may run for all that: whoever has it is told.
        Err(e) if e.kind == Kind::NotFound && may_be_claimed(runs, id)? => {}
        Err(e) if e.kind == Kind::NotFound => {
            runs.refuse(&held, id, by)?;
            return Ok(Some(refused(id, by)));
        }
        Err(e) => return Err(e),
    }
    if runs.is_queued(id)? {
        return end_queued(runs, &held, id, by, ended, untouched).map(Some);
    }
    drop(held);
    if ended.is_some() {
        return status::of(runs.root(), id).map(Some).map_err(files::unknown);
    }
    Ok(None)
}

/// Whether a slot names a job, or, of one that is here, one that cannot be read may.
fn may_be_claimed(runs: &Runs, id: &str) -> Result<bool> {
    let seen = slots::all(runs)?;
    let hidden = seen.iter().any(|slot| slot.unreadable.is_some()) && runs.is_here(id)?;
    Ok(hidden || seen.iter().any(|slot| slot.jobs().iter().any(|job| job == id)))
}

/// Ends what a dead supervisor left behind of a job. Where that cannot be done now, the next sweep
/// does it, and nobody is told more than what is known.
fn end_abandoned(runs: &Runs, id: &RunId) {
    let ended = sweep::recover(runs.root()).and_then(|_| unowned::end_one(runs, id));
    if let Err(error) = ended {
        eprintln!("processor: {id} is not ended: {}", error.message);
    }
}

/// What a dead supervisor had claimed beside that waits again by now. A later sweep does it, too.
fn start_others(runs: &Runs) {
    if let Err(error) = start::poke(runs.root()) {
        eprintln!("processor: {}", error.message);
    }
}
