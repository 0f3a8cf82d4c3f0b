//! The end of a job whose supervisor is dead, as it is written: nobody can know what became of what
//! ran, and what somebody had killed ends as that.

use super::remains::is_range;
use super::wishes;
use crate::board::root::boot_id;
use crate::board::runs::Runs;
use crate::board::slots::Slot;
use crate::board::spoilt;
use crate::board::story::Story;
use crate::board::sync_set::SyncSet;
use crate::error::Result;
use crate::model::kill::Kills;
use crate::model::outcome::Outcome;
use crate::model::range::{Line, Range, Step};
use crate::model::report::{Ended, Report};
use crate::model::run_status::RunStatus;
use crate::model::tasks::TaskSet;

/// Stamps the end of a job of which nothing more can be known: it is `lost`, unless somebody had
/// killed it, who is named then.
pub(super) fn lose(
    runs: &Runs,
    id: &str,
    slot: Option<&Slot>,
    lost: &Outcome,
    sync: &mut SyncSet,
) -> Result<RunStatus> {
    spoilt::clear_kills(runs, id)?;
    let begun = runs.last_line(id)?;
    let is_range = is_range(runs, id)?;
    let kills = wishes::all(runs, id, slot, is_range)?;
    let line = if is_range {
        range_end(runs, id, begun.as_ref(), lost, &kills, sync)?
    } else {
        RunStatus::stopped(&kills.unseen(None, lost))
    };
    let mut story = runs.story(id)?;
    story.append(std::slice::from_ref(&line))?;
    let (file, path) = story.into_file();
    sync.file(file, path);
    runs.sync_dir(id, sync)?;
    Ok(line.of(id))
}

/// Ends a range whose supervisor is dead, `lost` and why: nobody can know what became of the task that
/// ran, the rest was never started. What somebody had killed ends as that. Returns the end of the
/// range; `sync` makes those of its tasks durable.
pub(super) fn range_end(
    runs: &Runs,
    id: &str,
    status: Option<&RunStatus>,
    lost: &Outcome,
    kills: &Kills,
    sync: &mut SyncSet,
) -> Result<RunStatus> {
    let mut story = Story::open_or_create(runs.tasks_path(id))?;
    let found = Range::parse(&story.read()?);
    let boot = boot_id()?;
    let rebooted = status.and_then(|line| line.boot.as_deref()) != Some(&*boot);
    let mut fresh = Report::default();
    for task in found.lost(rebooted).iter() {
        fresh.add(&TaskSet::one(task), &kills.unseen(Some(task), lost));
    }
    let mut report = found.report;
    for Ended { tasks, outcome } in fresh.failed {
        report.add(&tasks, &outcome);
        story.append(&[Line::now(Step::Stopped { tasks, outcome, log: Vec::new() })])?;
    }
    let (file, path) = story.into_file();
    sync.file(file, path);
    let end = RunStatus::stopped(&kills.unseen(None, lost));
    Ok(RunStatus { tasks: Some(report), ..end }.begun(status))
}
