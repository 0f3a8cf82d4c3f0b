//! What heads are told: statuses, kills, the feed; each with what shows a head that it is about
//! its attempt.

use super::{kill, progress, status};
use crate::board::feed;
use crate::board::files;
use crate::board::root::Root;
use crate::board::runs::Runs;
use crate::error::Result;
use crate::model::ids::{NodejobId, RunId};
use crate::model::kill::Wish;
use crate::model::proof;
use crate::model::run_status::RunStatus;
use crate::wire::feed::{FeedPage, Since};

/// A job's status, as [`status::of`], with the last that it has said of its progress.
pub fn status(root: &Root, id: &RunId) -> Result<RunStatus> {
    proven(root, progress::last(root, status::of(root, id)?)?)
}

/// The same of several, as [`status::of_all`].
pub fn statuses(root: &Root, ids: &[RunId]) -> Result<Vec<Result<RunStatus>>> {
    let with_word = |status| proven(root, progress::last(root, status)?);
    let found = status::of_all(root, ids)?.into_iter();
    Ok(found.map(|one| one.and_then(with_word)).collect())
}

/// Kills a job, or some tasks of a range, as [`kill::kill`] and [`kill::kill_tasks`].
pub fn kill(root: &Root, wish: &Wish) -> Result<RunStatus> {
    let status = match &wish.tasks {
        None => kill::kill(root, wish)?,
        Some(tasks) => kill::kill_tasks(root, wish, tasks)?,
    };
    proven(root, status.of(&wish.id)).map_err(files::unknown)
}

/// What changed, as [`feed::read`]. Lines of supervisors and recovery that do not prove themselves
/// are completed here; one for which that fails is left as it is, and its head asks.
pub fn feed(root: &Root, since: &Since) -> Result<FeedPage> {
    let mut page = feed::read(root, since.cursor, since.wait)?;
    for event in page.events.iter_mut().filter(|event| event.proof.is_none()) {
        if let Ok(complete) = proven(root, event.clone()) {
            *event = complete;
        }
    }
    Ok(page)
}

/// A status with the proof of its run, where the id has a head's form. A refusal, and a run whose
/// request is damaged, have none.
fn proven(root: &Root, status: RunStatus) -> Result<RunStatus> {
    if status.proof.is_some() {
        return Ok(status);
    }
    let Some(id) = status.id.as_deref().filter(|id| NodejobId::parse(id).is_some()) else {
        return Ok(status);
    };
    let request = files::read(&Runs::new(root).request_path(id))?;
    Ok(RunStatus { proof: request.and_then(|bytes| proof::of_request(&bytes)), ..status })
}
