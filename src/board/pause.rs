//! `state/scheduler/paused`: while it is there nothing is placed. Whoever paused it, and why, stands in it; one
//! that somebody made by hand may be empty.

use std::io;

use serde::{Deserialize, Serialize};

use super::files;
use super::lock::Lock;
use super::root::Root;
use crate::error::{At, Result};

/// The file's name.
pub const NAME: &str = "paused";

/// Who paused placement, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// When.
    #[serde(default)]
    pub at: String,
    /// Who.
    #[serde(default)]
    pub by: String,
    /// Why, if they said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Pause {
    /// Why a job waits, for a person.
    pub fn human(&self) -> String {
        let by = if self.by.is_empty() { String::new() } else { format!(" by {}", self.by) };
        let why = self.reason.as_ref().map_or(String::new(), |why| format!(": {why}"));
        format!("placement is paused{by}{why} (scheduler resume)")
    }
}

/// Whether nothing is to be placed. What cannot be looked at is.
pub fn is_paused(root: &Root) -> bool {
    let found = root.state(&format!("scheduler/{NAME}")).symlink_metadata();
    found.map_or_else(|error| error.kind() != io::ErrorKind::NotFound, |_| true)
}

/// The pause, if there is one. What is in the file and cannot be read says nothing of who and why.
pub fn read(root: &Root) -> Result<Option<Pause>> {
    let path = root.state(&format!("scheduler/{NAME}"));
    if !is_paused(root) {
        return Ok(None);
    }
    let bytes = files::read(&path).unwrap_or_default().unwrap_or_default();
    Ok(Some(serde_json::from_slice(&bytes).unwrap_or_default()))
}

/// Pauses placement: durable when this returns, and from then on nothing is placed, since whatever is, is
/// under the board's lock. A crash leaves it as it was or as it is to be.
pub fn begin(root: &Root, _held: &Lock, pause: &Pause) -> Result<()> {
    let path = root.state(&format!("scheduler/{NAME}"));
    files::replace(&root.state("scheduler/tmp"), &path, &files::json_line(pause)?)?;
    files::sync_dir(files::parent(&path))
}

/// Ends a pause, if there is one; durable when this returns.
pub fn end(root: &Root, _held: &Lock) -> Result<()> {
    let path = root.state(&format!("scheduler/{NAME}"));
    match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => std::fs::remove_dir(&path).at(&path)?,
        _ => files::remove(&path)?,
    }
    files::sync_dir(files::parent(&path))
}
