//! What a job has made of its own files, where that is none of them: it gives way, so that the job's end can be
//! written, and heard of, and brought about.

use super::runs::Runs;
use super::story;
use crate::error::Result;

/// Removes what lies in the place of a job's stories and is none, and opens to their owner what was closed.
/// A live supervisor has them open, and makes them anew; with a dead one what was started is known beside them.
pub fn clear_stories(runs: &Runs, id: &str) -> Result<()> {
    story::clear(&runs.status_path(id))?;
    story::clear(&runs.tasks_path(id))
}

/// The same where kills of it are noted: nothing but those is ever written there.
pub fn clear_kills(runs: &Runs, id: &str) -> Result<()> {
    story::clear(&runs.kill_path(id))?;
    story::clear(&runs.kill_tasks_path(id))
}
