//! Removing what is old, so that nothing grows for ever.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::ack;
use crate::board::attic::Tally;
use crate::board::files;
use crate::board::incoming;
use crate::board::links;
use crate::board::root::Root;
use crate::board::runs::{Runs, check_id};
use crate::board::slots;
use crate::cgi::alarm::LONGEST_ARRIVAL;
use crate::clock::Present;
use crate::error::{At, Kind, Result};
use crate::model::ids::NodejobId;
use crate::model::run_status::RunState;

/// What ended, or was refused, later than this is kept whatever the limits say: for so long at
/// least an id that comes once more is known, and is not started again. A request that is under
/// way, and a head that repeats one, are long over by then; whoever sends the request of a
/// removed job after that, sends a new job.
const KEEP_AT_LEAST: Duration = Duration::from_secs(3600);

// A request with files may be under way for as long as they may take to arrive, and to be accepted.
const _: () = assert!(KEEP_AT_LEAST.as_secs() > 2 * (LONGEST_ARRIVAL.as_secs() + 60));

/// What lies in `tmp/` for so long belongs to nobody.
const LITTER_AGE: Duration = Duration::from_secs(24 * 3600);

// Longer than whoever prepares something there can live: a request, whose files take their time.
const _: () = assert!(LITTER_AGE.as_secs() > 10 * (LONGEST_ARRIVAL.as_secs() + 60));

/// A job with the time of its last line.
struct Seen {
    at: SystemTime,
    id: String,
}

/// Removes jobs that ended long ago, or are more than are to be kept, with their links; never one
/// that waits, runs, or (for longer) whose head has not fetched the result. Also what crashes
/// left in `tmp/`. Returns how many jobs are gone, and what could not be removed, or looked at: it
/// keeps no other. A crash leaves parts in `tmp/` alone.
pub fn clean(root: &Root, now: &Present) -> Tally {
    let runs = Runs::new(root);
    let settings = &root.settings;
    let mut tally = Tally::default();
    for path in tally.told(litter(&runs, now)).unwrap_or_default() {
        let _ = tally.told(files::remove_tree(&path).or_else(|_| files::remove(&path)));
    }
    let mut seen = Vec::new();
    for id in tally.names(&runs.jobs_dir()) {
        let looked = tally.told(last_told(&runs, &id)).flatten();
        seen.extend(looked.map(|at| Seen { at, id }));
    }
    seen.sort_by_key(|job| std::cmp::Reverse(job.at));
    let shortest = settings.keep_jobs.min(settings.keep_unacknowledged);
    for (index, job) in seen.iter().enumerate() {
        let age = now.age(job.at);
        let surplus = index >= settings.keep_jobs_count;
        if age <= KEEP_AT_LEAST || !surplus && age <= shortest {
            continue; // what is to be kept in any case need not be read
        }
        let Some(awaited) = tally.told(has_ended(&runs, &job.id)).flatten() else { continue };
        let limit = if awaited { settings.keep_unacknowledged } else { settings.keep_jobs };
        if age > limit || surplus && !awaited {
            remove(&runs, &job.id, &mut tally);
        }
    }
    if tally.removed > 0 {
        for link in tally.told(links::dangling(&runs)).unwrap_or_default() {
            let _ = tally.told(files::remove(&link));
        }
    }
    tally
}

/// When a job of `job/` was last told of; `None` for what is no job, or has only been accepted.
fn last_told(runs: &Runs, id: &str) -> Result<Option<SystemTime>> {
    let path = runs.status_path(id);
    let meta = match fs::metadata(&path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == ErrorKind::NotADirectory => return Ok(None),
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e).at(&path),
        Err(_) => match runs.request(id) {
            Ok(_) => return Ok(None), // waits, or claimed and not started
            Err(e) if e.kind == Kind::Gone => return runs.accepted_at(id).map(Some),
            // A job comes with its request: whoever removed this one did not come to the end.
            Err(e) if e.kind == Kind::NotFound => {
                let dir = runs.job_dir(id);
                let Some(meta) = files::gone_is_fine(fs::metadata(&dir)).at(&dir)? else {
                    return Ok(None);
                };
                meta
            }
            Err(error) => return Err(error),
        },
    };
    meta.modified().at(&path).map(Some)
}

/// Whether a job has ended, was refused before it came, or was removed by half; and then whether
/// its head has yet to say that it holds the result.
fn has_ended(runs: &Runs, id: &str) -> Result<Option<bool>> {
    if check_id(id).is_err() || runs.is_queued(id)? {
        return Ok(None);
    }
    let path = runs.status_path(id);
    let Some(meta) = files::gone_is_fine(fs::metadata(&path)).at(&path)? else {
        return match runs.request(id).err().map(|error| error.kind) {
            Some(Kind::Gone) => Ok(Some(false)),
            // Removed by half; or by the job itself, which may run.
            Some(Kind::NotFound) => Ok((!is_claimed(runs, id)?).then_some(false)),
            _ => Ok(None),
        };
    };
    if files::is_plain(&meta) {
        let ended = runs.last_line(id)?.is_some_and(|line| line.state == RunState::Stopped);
        if !ended || runs.newer(id)?.is_some() {
            return Ok(None);
        }
    } else if is_claimed(runs, id)? {
        return Ok(None);
    }
    let closed = meta.permissions().mode() & 0o777 == ack::CLOSED;
    Ok(Some(NodejobId::parse(id).is_some() && !closed))
}

/// Whether a supervisor has a job that has removed its story, or put something else in its place: of its end
/// nothing else tells. An error where a slot that cannot be read may name it.
fn is_claimed(runs: &Runs, id: &str) -> Result<bool> {
    let seen = slots::all(runs)?;
    if let Some(error) = seen.iter().find_map(|slot| slot.unreadable.clone()) {
        return Err(error);
    }
    Ok(seen.iter().any(|slot| slot.jobs().iter().any(|job| job == id)))
}

/// In one step out of `job/`, then piece by piece.
fn remove(runs: &Runs, id: &str, tally: &mut Tally) {
    let job = runs.job_dir(id);
    let Some(aside) = tally.told(files::random_name()).map(|name| runs.tmp_dir().join(name)) else {
        return;
    };
    let moved = fs::rename(&job, &aside).or_else(|_| {
        // A directory that is moved must be writable itself.
        fs::set_permissions(&job, fs::Permissions::from_mode(0o700))?;
        fs::rename(&job, &aside)
    });
    match files::gone_is_fine(moved).at(&job) {
        Ok(Some(())) => {
            tally.note(Ok(true));
            let _ = tally.told(files::remove_tree(&aside));
        }
        Ok(None) => {}
        Err(error) => tally.note(Err(error)),
    }
}

/// Removes what nobody prepares any more in `tmp/`.
pub(super) fn remove_litter(runs: &Runs, now: &Present) -> Result<usize> {
    let mut removed = 0;
    for path in litter(runs, now)? {
        files::remove_tree(&path).or_else(|_| files::remove(&path))?;
        removed += 1;
    }
    Ok(removed)
}

/// What lies in `tmp/` for too long; files that were arriving as soon as nobody holds them.
pub(super) fn litter(runs: &Runs, now: &Present) -> Result<Vec<PathBuf>> {
    let dir = runs.tmp_dir();
    let is_litter = |path: &PathBuf| match incoming::is_one(path) {
        true => incoming::is_abandoned(path, now).is_ok_and(|is| is),
        false => is_old(path, now),
    };
    Ok(files::names(&dir)?.into_iter().map(|name| dir.join(name)).filter(is_litter).collect())
}

/// Whether something lies there for so long that no clean-up has seen it.
pub(super) fn is_old(path: &Path, now: &Present) -> bool {
    let modified = fs::symlink_metadata(path).and_then(|meta| meta.modified());
    modified.is_ok_and(|at| now.age(at) > LITTER_AGE)
}
