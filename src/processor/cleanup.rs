//! Removing what is old, so that nothing grows for ever.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use super::{ack, sweep};
use crate::board::attic::Tally;
use crate::board::files;
use crate::board::root::Root;
use crate::board::runs::{Runs, check_id};
use crate::error::{At, Kind, Result};
use crate::model::ids::NodejobId;
use crate::model::outcome::RunState;

/// What ended, or was refused, later than this is kept whatever the limits say: for so long at
/// least an id that comes once more is known, and is not started again. A request that is under
/// way, and a head that repeats one, are long over by then; whoever sends the request of a
/// removed job after that, sends a new job.
const KEEP_AT_LEAST: Duration = Duration::from_secs(3600);

/// Longest that a request is under way.
const LONGEST_REQUEST: Duration = Duration::from_secs(60);

const _: () = assert!(KEEP_AT_LEAST.as_secs() > 10 * LONGEST_REQUEST.as_secs());

/// A job that may be removed.
struct Ended {
    at: SystemTime,
    id: String,
    /// Its head has not said yet that it holds the result.
    awaited: bool,
}

/// Removes jobs that ended long ago, or are more than are to be kept, with their links; never one
/// that waits, runs, or (for longer) whose head has not fetched the result. Also what crashes
/// left in `tmp/`. Returns how many jobs are gone, and what could not be removed, or looked at: it
/// keeps no other. A crash leaves parts in `tmp/` alone.
pub fn clean(root: &Root, now: SystemTime) -> Tally {
    let runs = Runs::new(root);
    let settings = &root.settings;
    let mut tally = Tally::default();
    for path in tally.told(sweep::litter(&runs)).unwrap_or_default() {
        let _ = tally.told(files::remove_tree(&path).or_else(|_| files::remove(&path)));
    }
    let mut ended = Vec::new();
    for id in tally.names(&runs.jobs_dir()) {
        ended.extend(tally.told(if_ended(&runs, &id)).flatten());
    }
    ended.sort_by_key(|job| std::cmp::Reverse(job.at));
    let age = |at: SystemTime| now.duration_since(at).unwrap_or_default();
    for (index, job) in ended.iter().enumerate() {
        let age = age(job.at);
        let surplus = index >= settings.keep_jobs_count;
        let limit = if job.awaited { settings.keep_unacknowledged } else { settings.keep_jobs };
        if age > KEEP_AT_LEAST && (age > limit || surplus && !job.awaited) {
            remove(&runs, &job.id, &mut tally);
        }
    }
    if tally.removed > 0 {
        for name in tally.told(dangling(&runs)).unwrap_or_default() {
            let _ = tally.told(files::remove(&runs.pid_dir().join(name)));
        }
    }
    tally
}

/// A job of `job/` if it has ended, was refused before it came, or was removed by half.
fn if_ended(runs: &Runs, id: &str) -> Result<Option<Ended>> {
    let dir = runs.job_dir(id);
    if check_id(id).is_err() || !dir.is_dir() || runs.is_queued(id)? {
        return Ok(None);
    }
    let path = runs.status_path(id);
    let Some(meta) = files::gone_is_fine(fs::metadata(&path)).at(&path)? else {
        let at = match runs.request(id) {
            Ok(_) => return Ok(None), // claimed and not started
            Err(e) if e.kind == Kind::Gone => runs.accepted_at(id)?,
            // A job comes with its request: whoever removed this one did not come to the end.
            Err(e) if e.kind == Kind::NotFound => match files::gone_is_fine(fs::metadata(&dir)) {
                Ok(Some(meta)) => meta.modified().at(&dir)?,
                Ok(None) => return Ok(None),
                Err(error) => return Err(error).at(&dir),
            },
            Err(error) => return Err(error),
        };
        return Ok(Some(Ended { at, id: id.to_string(), awaited: false }));
    };
    let ended = runs.last_line(id)?.is_some_and(|line| line.state == RunState::Stopped);
    if !ended || runs.newer(id)?.is_some() {
        return Ok(None);
    }
    let closed = meta.permissions().mode() & 0o777 == ack::CLOSED;
    let awaited = NodejobId::parse(id).is_some() && !closed;
    Ok(Some(Ended { at: meta.modified().at(&path)?, id: id.to_string(), awaited }))
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

/// Links by process id whose job is gone.
pub(super) fn dangling(runs: &Runs) -> Result<Vec<String>> {
    let dir = runs.pid_dir();
    let names = files::names(&dir)?;
    let is_gone = |name: &String| matches!(dir.join(name).try_exists(), Ok(false));
    Ok(names.into_iter().filter(is_gone).collect())
}
