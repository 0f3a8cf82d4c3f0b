//! What a job has made of its own files, where that is none of them: it gives way, so that the job's end can be
//! written, and heard of, and brought about.

use std::fs;

use super::runs::Runs;
use super::{files, story};
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

/// The same of its request: an empty one stays in the place of what is none. Only of a job that nobody will
/// start: it is what says which one it is.
pub fn clear_request(runs: &Runs, id: &str) -> Result<()> {
    let path = runs.request_path(id);
    if fs::symlink_metadata(&path).is_ok_and(|there| !files::is_plain(&there)) {
        story::clear(&path)?;
        files::create_secret(&path, b"")?;
    }
    Ok(())
}
