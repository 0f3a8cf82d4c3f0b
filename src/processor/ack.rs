//! The head's word that it holds a result.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use crate::board::files;
use crate::board::root::Root;
use crate::board::runs::{Runs, run_id};
use crate::error::{At, Result};
use crate::model::ids::RunId;
use crate::model::run_status::RunState;

/// Mode of a story that is closed: ended, and the head holds the end.
pub(super) const CLOSED: u32 = 0o440;

/// Marks the results of these jobs as held by the head: their stories are closed, which `ls`
/// shows as read-only. Jobs that have not ended, are not here, or cannot be read are passed over.
/// Returns how many are marked now. Not synced: a mark that is lost keeps a result longer, no more.
pub fn acknowledge<'a>(root: &Root, ids: impl Iterator<Item = &'a str>) -> Result<usize> {
    let runs = Runs::new(root);
    let mut marked = 0;
    for id in ids {
        match run_id(id).and_then(|id| mark(&runs, &id)) {
            Ok(done) => marked += usize::from(done),
            Err(error) => eprintln!("processor: not acknowledged: {}", error.message),
        }
    }
    Ok(marked)
}

fn mark(runs: &Runs, id: &RunId) -> Result<bool> {
    if runs.last_line(id)?.is_none_or(|line| line.state != RunState::Stopped) {
        return Ok(false);
    }
    let path = runs.status_path(id);
    let done = fs::set_permissions(&path, Permissions::from_mode(CLOSED));
    Ok(files::gone_is_fine(done).at(&path)?.is_some())
}
