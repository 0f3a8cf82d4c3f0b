//! `state/scheduler/unheard`: attempts of which nobody gives word, as rounds from cron have found
//! them, one after the other. None of those processes lives long enough to know it by itself.

use std::collections::BTreeMap;

use super::files;
use super::root::Root;
use crate::error::Result;
use crate::model::node::RecordedSilence;

/// By the attempts' ids.
pub type Unheard = BTreeMap<String, RecordedSilence>;

const FILE: &str = "scheduler/unheard";

/// What earlier rounds have noted. What is not known to this program was not noted: it begins anew.
pub fn read(root: &Root) -> Result<Unheard> {
    let bytes = files::read(&root.state(FILE))?.unwrap_or_default();
    Ok(serde_json::from_slice(&bytes).unwrap_or_default())
}

/// Notes it for the next round; with none the file goes. A crash leaves the old one or the new one.
pub fn write(root: &Root, unheard: &Unheard) -> Result<()> {
    root.for_change()?;
    let path = root.state(FILE);
    if unheard.is_empty() {
        return files::remove(&path);
    }
    files::replace(&root.state("scheduler/tmp"), &path, &files::json_line(unheard)?)
}
