//! `state/processor/gpus`: which GPUs this machine has, as it was found out in this boot, or that it could not be.

use serde::{Deserialize, Serialize};

use super::files;
use super::root::{Root, boot_id};
use crate::error::Result;
use crate::model::about::Gpu;

/// The file: one line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The boot in which it was looked.
    pub boot: String,
    /// When, in seconds of this boot's clock.
    pub seconds: u64,
    /// Which there are.
    pub gpus: Vec<Gpu>,
    /// Why that is not known, where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When to look again, in seconds of the same clock, where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again: Option<u64>,
}

/// What was found in this boot; `None` where nobody has looked, or it cannot be read.
pub fn read(root: &Root) -> Option<Found> {
    let bytes = files::read(&root.state("processor/gpus")).ok()??;
    let found: Found = serde_json::from_slice(&bytes).ok()?;
    (found.boot == boot_id().ok()?).then_some(found)
}

/// Notes what was found. After a crash it is found out anew, at worst.
pub fn write(root: &Root, found: &Found) -> Result<()> {
    root.for_change()?;
    let path = root.state("processor/gpus");
    files::replace(&root.state("processor/tmp"), &path, &files::json_line(found)?)
}
