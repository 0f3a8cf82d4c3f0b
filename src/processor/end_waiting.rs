//! Ends of jobs that wait here: killed before they were started.

use super::wishes::asked;
use crate::board::feed;
use crate::board::files;
use crate::board::lock::Lock;
use crate::board::runs::Runs;
use crate::board::sync_set::SyncSet;
use crate::error::{Kind, Result};
use crate::model::outcome::Outcome;
use crate::model::run_status::RunStatus;

/// Writes the end of a job that waits, and takes it from the queue. The line first: a crash before
/// the link is gone leaves a job that has ended and still waits, which is seen when it is claimed, or
/// killed once more.
pub(super) fn end_in_queue(
    runs: &Runs,
    id: &str,
    line: &RunStatus,
    sync: &mut SyncSet,
) -> Result<()> {
    let mut story = runs.story(id)?;
    story.append(std::slice::from_ref(line))?;
    files::remove(&runs.queue_path(id)).map_err(files::unknown)?;
    let (file, path) = story.into_file();
    sync.file(file, path);
    sync.dir(&runs.job_dir(id));
    sync.dir(&runs.queue_dir());
    Ok(())
}

/// Says in the feed what is durable. A head that does not hear of it there asks.
pub(super) fn tell(runs: &Runs, held: &Lock, line: RunStatus) {
    if let Err(error) = feed::append(runs.root(), held, &[line]) {
        eprintln!("processor: {}", error.message);
    }
}

/// How a job ends that was killed before it has started, where that is all there is to tell.
pub(super) fn refused(id: &str, by: &str) -> RunStatus {
    RunStatus::stopped(&Outcome::killed(by)).of(id)
}

/// Ends a job that waits, if it has not `ended` before; `untouched`: it has no story.
pub(super) fn end_queued(
    runs: &Runs,
    held: &Lock,
    id: &str,
    by: &str,
    ended: Option<RunStatus>,
    untouched: bool,
) -> Result<RunStatus> {
    let mut sync = SyncSet::new();
    let line = match ended {
        Some(line) => {
            files::remove(&runs.queue_path(id)).map_err(files::unknown)?;
            sync = runs.sync_of_end(id)?;
            sync.dir(&runs.queue_dir());
            line
        }
        None => {
            // Of a range some tasks may have ended before.
            let report = Some(runs.range(id)?.report).filter(|report| !report.is_empty());
            let line = RunStatus { tasks: report, ..RunStatus::stopped(&Outcome::killed(by)) };
            match end_in_queue(runs, id, &line, &mut sync) {
                // A full disk, perhaps. It never starts, and nothing of it is to be told.
                Err(error)
                    if error.kind == Kind::Unavailable && untouched && line.tasks.is_none() =>
                {
                    let refused_there = runs.refuse_waiting(held, id, by);
                    refused_there.map_err(|e| if e.kind == error.kind { error } else { e })?;
                    return Ok(refused(id, by));
                }
                ended => ended?,
            }
            line
        }
    };
    sync.commit()?;
    let line = line.of(id);
    tell(runs, held, line.clone());
    Ok(line)
}

/// Ends a job that waits again if somebody has killed it since it was claimed: whoever did has told its
/// supervisor, and looks no more. Where that fails it ends when it is claimed.
pub(super) fn end_put_back(runs: &Runs, held: &Lock, id: &str) {
    let ended = asked(runs, id).and_then(|killed| match (killed, runs.last_line(id)?) {
        (Some(killed), None) => end_queued(runs, held, id, &killed.by, None, true).map(|_| ()),
        _ => Ok(()),
    });
    if let Err(error) = ended {
        eprintln!("processor: {id} is not ended: {}", error.message);
    }
}
