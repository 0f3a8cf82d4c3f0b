//! `state/scheduler/shares`: what users have had, as the poller last wrote it down. A minute of it may be
//! missing after a crash.

use super::files;
use super::root::Root;
use crate::error::Result;
use crate::model::shares::Shares;

const FILE: &str = "scheduler/shares";

/// What was written down last. Where there is none, or none that this program knows, nobody has had anything.
pub fn read(root: &Root) -> Result<Shares> {
    let bytes = files::read(&root.state(FILE))?.unwrap_or_default();
    Ok(serde_json::from_slice(&bytes).unwrap_or_default())
}

/// Writes it down. A crash leaves the old one or the new one.
pub fn write(root: &Root, shares: &Shares) -> Result<()> {
    root.for_change()?;
    files::replace(&root.state("scheduler/tmp"), &root.state(FILE), &files::json_line(shares)?)
}
