//! Telling a supervisor that there is something to look at.

use std::path::Path;

use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::{start, tree};
use crate::board::lock;
use crate::board::runs::Runs;
use crate::board::slots;
use crate::error::{Error, Kind, Result};

/// The live supervisor that has the job: by the slots, or, where one of those cannot be read, by the
/// lock that it holds once it is about to start the job.
fn supervisor_of(runs: &Runs, id: &str) -> Result<Option<i32>> {
    let seen = slots::all(runs)?;
    let named = seen.iter().filter(|slot| slot.live).find_map(|slot| {
        let record = slot.record.as_ref().filter(|record| record.jobs.iter().any(|job| job == id));
        record.map(|record| record.pid)
    });
    if named.is_some() || seen.iter().all(|slot| slot.unreadable.is_none()) {
        return Ok(named);
    }
    Ok(lock::holder(&runs.request_path(id), start::is_supervisor))
}

/// Tells the job's supervisor to look. One that has not started the job yet looks by itself. `false`: it
/// has none that is known.
pub(super) fn wake(runs: &Runs, id: &str) -> Result<bool> {
    let Some(found) = supervisor_of(runs, id)? else { return Ok(false) };
    let process = match tree::open(found) {
        Ok(process) => process,
        // Whoever recovers its slot looks once it has ended what is left.
        Err(Errno::ESRCH) => return Ok(supervisor_of(runs, id)?.is_some()),
        Err(errno) => {
            let why = Error::io(Path::new("pidfd"), &errno.into()).message;
            let what = format!(
                "the kill of {id} is recorded, but its supervisor cannot be told ({why}): repeat it"
            );
            return Err(Error::new(Kind::Internal, what));
        }
    };
    let now = supervisor_of(runs, id)?;
    // A slot that is being recovered still names the dead one, whose pid may be anybody's by now.
    if now == Some(found) && start::is_supervisor(found) && !tree::has_ended(&process) {
        tree::send(&process, Signal::SIGUSR1);
    }
    Ok(now.is_some())
}
