//! The head's word that it holds a result.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use crate::board::files;
use crate::board::root::Root;
use crate::board::runs::{Runs, check_id};
use crate::error::{At, Result};
use crate::model::outcome::RunState;

/// Mode of a story that is closed: ended, and the head holds the end.
pub(super) const CLOSED: u32 = 0o440;

/// Marks the results of these jobs as held by the head: their stories are closed, which `ls`
/// shows as read-only. Jobs that have not ended, or are not here, are passed over. Returns how
/// many are marked now. Not synced: a mark that is lost keeps a result longer, no more.
pub fn acknowledge(root: &Root, ids: &[String]) -> Result<usize> {
    let runs = Runs::new(root);
    let mut marked = 0;
    for id in ids {
        check_id(id)?;
        let ended = runs.last_line(id)?.is_some_and(|line| line.state == RunState::Stopped);
        if ended {
            let path = runs.status_path(id);
            let done = fs::set_permissions(&path, Permissions::from_mode(CLOSED));
            marked += usize::from(files::gone_is_fine(done).at(&path)?.is_some());
        }
    }
    Ok(marked)
}
