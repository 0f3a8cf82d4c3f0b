//! The files of batches: how they are called, and which jobs those in the queue can restore.

use std::path::{Path, PathBuf};

use super::files;
use crate::error::Result;
use crate::model::ids;

/// A batch by the first and the last of its numbers.
pub type Range = (u64, u64);

/// How its file is called.
pub(super) fn name((first, last): Range) -> String {
    format!("{first}-{last}.batch")
}

fn parse_name(name: &str) -> Option<Range> {
    let (first, last) = name.strip_suffix(".batch")?.split_once('-')?;
    Some((ids::parse_number(first)?, ids::parse_number(last)?))
}

/// Where it lies in this queue once it is accepted.
pub(super) fn path(queue: &Path, range: Range) -> PathBuf {
    queue.join(name(range))
}

/// The batches that lie in this queue.
pub fn committed(queue: &Path) -> Result<Vec<Range>> {
    let names = files::names(queue)?;
    Ok(names.iter().filter_map(|name| parse_name(name)).collect())
}

/// Whether a file of the queue is called as a batch is.
pub(super) fn is_name(name: &str) -> bool {
    parse_name(name).is_some()
}

/// Whether a batch that lies in this queue can restore a job's card.
pub(super) fn covers(queue: &Path, job: u64) -> Result<bool> {
    Ok(committed(queue)?.iter().any(|(first, last)| (*first..=*last).contains(&job)))
}
