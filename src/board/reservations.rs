//! `state/scheduler/reservations`: what nodes are kept for, as the poller last said it. A hint for people, and
//! for the programs that tell them: nothing is decided by it, and a crash may leave an old one, or none.

use std::fs;

use serde::{Deserialize, Serialize};

use super::files;
use super::root::Root;
use crate::error::{At, Result};

const FILE: &str = "scheduler/reservations";

/// A node that is kept for a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// The job.
    pub job: u64,
    /// The node.
    pub node: String,
    /// When there will be room for it, if all that is there lasts as long as it may; where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// What was said last: nothing where there is none, or one that this program does not know.
pub fn read(root: &Root) -> Result<Vec<Reservation>> {
    let bytes = files::read(&root.state(FILE))?.unwrap_or_default();
    let lines = bytes.split(|byte| *byte == b'\n');
    Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).collect())
}

/// Says it, a line for each; there is no file where there is nothing.
pub fn write(root: &Root, all: &[Reservation]) -> Result<()> {
    root.for_change()?;
    let path = root.state(FILE);
    if all.is_empty() {
        return files::remove(&path);
    }
    let lines: Result<Vec<Vec<u8>>> = all.iter().map(files::json_line).collect();
    let prepared = root.state("scheduler/tmp").join(files::random_name()?);
    files::create(&prepared, &lines?.concat())?;
    let placed = fs::rename(&prepared, &path).at(&path);
    if placed.is_err() {
        let _ = files::remove(&prepared); // the first error is the one to report
    }
    placed
}
