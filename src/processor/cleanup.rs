//! Removing what is old, so that nothing grows for ever.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use super::{ack, sweep};
use crate::board::files;
use crate::board::root::Root;
use crate::board::runs::{Runs, check_id};
use crate::error::{At, Result};
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
/// left in `tmp/`. Returns how many jobs are gone. A crash leaves parts in `tmp/` alone.
pub fn clean(root: &Root, now: SystemTime) -> Result<usize> {
    let runs = Runs::new(root);
    let settings = &root.settings;
    sweep::remove_litter(&runs)?;
    let mut ended = ended(&runs)?;
    ended.sort_by_key(|job| std::cmp::Reverse(job.at));
    let age = |at: SystemTime| now.duration_since(at).unwrap_or_default();
    let mut removed = 0;
    for (index, job) in ended.iter().enumerate() {
        let age = age(job.at);
        let surplus = index >= settings.keep_jobs_count;
        let limit = if job.awaited { settings.keep_unacknowledged } else { settings.keep_jobs };
        if age > KEEP_AT_LEAST && (age > limit || surplus && !job.awaited) {
            remove(&runs, &job.id)?;
            removed += 1;
        }
    }
    if removed > 0 {
        remove_dangling(&runs)?;
    }
    Ok(removed)
}

fn ended(runs: &Runs) -> Result<Vec<Ended>> {
    let mut found = Vec::new();
    for id in files::names(&runs.jobs_dir())? {
        if check_id(&id).is_err() || runs.is_queued(&id) {
            continue;
        }
        let story = files::gone_is_fine(fs::metadata(runs.status_path(&id))).at(&id)?;
        let Some(meta) = story else {
            // Refused before it came, or claimed and not started.
            if runs.request(&id).is_err() && runs.job_dir(&id).exists() {
                found.push(Ended { at: runs.accepted_at(&id)?, id, awaited: false });
            }
            continue;
        };
        let at = meta.modified().at(&id)?;
        if runs.last_line(&id)?.is_some_and(|line| line.state == RunState::Stopped) {
            let closed = meta.permissions().mode() & 0o777 == ack::CLOSED;
            let awaited = NodejobId::parse(&id).is_some() && !closed;
            found.push(Ended { at, id, awaited });
        }
    }
    Ok(found)
}

/// In one step out of `job/`, then piece by piece.
fn remove(runs: &Runs, id: &str) -> Result<()> {
    let aside = runs.tmp_dir().join(files::random_name()?);
    let job = runs.job_dir(id);
    if files::gone_is_fine(fs::rename(&job, &aside)).at(&job)?.is_some() {
        files::remove_tree(&aside)?;
    }
    Ok(())
}

/// Removes links by process id whose job is gone.
pub(super) fn remove_dangling(runs: &Runs) -> Result<()> {
    for name in dangling(runs)? {
        files::remove(&runs.pid_dir().join(name))?;
    }
    Ok(())
}

/// Links by process id whose job is gone.
pub(super) fn dangling(runs: &Runs) -> Result<Vec<String>> {
    let dir = runs.pid_dir();
    let names = files::names(&dir)?;
    Ok(names.into_iter().filter(|name| !dir.join(name).exists()).collect())
}
