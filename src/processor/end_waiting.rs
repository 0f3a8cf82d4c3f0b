//! Ends of jobs that wait here: killed before they were started.

use super::wishes::{self, asked};
use crate::board::feed;
use crate::board::files;
use crate::board::lock::Lock;
use crate::board::runs::Runs;
use crate::board::story::Story;
use crate::board::sync_set::SyncSet;
use crate::clock;
use crate::error::{Kind, Result};
use crate::model::ids::RunId;
use crate::model::kill::KilledTasks;
use crate::model::outcome::Outcome;
use crate::model::range::{self, Line, Range, Step};
use crate::model::report::Report;
use crate::model::request::Spec;
use crate::model::run_status::{RunState, RunStatus};
use crate::model::tasks::TaskSet;

/// Writes the end of a job that waits, and takes it from the queue. The line first: a crash before
/// the link is gone leaves a job that has ended and still waits, which is seen when it is claimed, or
/// killed once more.
pub(super) fn end_in_queue(
    runs: &Runs,
    id: &str,
    line: &RunStatus,
    sync: &mut SyncSet,
) -> Result<()> {
    let mut story = runs.story(id)?;
    story.append(std::slice::from_ref(line))?;
    files::remove(&runs.queue_path(id)).map_err(files::unknown)?;
    let (file, path) = story.into_file();
    sync.file(file, path);
    sync.dir(&runs.job_dir(id));
    sync.dir(&runs.queue_dir());
    Ok(())
}

/// Says in the feed what is durable. A head that does not hear of it there asks.
pub(super) fn tell(runs: &Runs, held: &Lock, line: RunStatus) {
    if let Err(error) = feed::append(runs.root(), held, &[line]) {
        eprintln!("processor: {}", error.message);
    }
}

/// How a job ends that was killed before it has started, where that is all there is to tell.
pub(super) fn refused(id: &str, by: &str) -> RunStatus {
    RunStatus::stopped(&Outcome::killed(by)).of(id)
}

/// Ends a job that waits, if it has not `ended` before; `untouched`: it has no story.
pub(super) fn end_queued(
    runs: &Runs,
    held: &Lock,
    id: &str,
    by: &str,
    ended: Option<RunStatus>,
    untouched: bool,
) -> Result<RunStatus> {
    let mut sync = SyncSet::new();
    let line = match ended {
        Some(line) => {
            files::remove(&runs.queue_path(id)).map_err(files::unknown)?;
            sync = runs.sync_of_end(id)?;
            sync.dir(&runs.queue_dir());
            line
        }
        None => {
            // Of a range some tasks may have ended before.
            let report = Some(runs.range(id)?.report).filter(|report| !report.is_empty());
            let line = RunStatus { tasks: report, ..RunStatus::stopped(&Outcome::killed(by)) };
            match end_in_queue(runs, id, &line, &mut sync) {
                // A full disk, perhaps. It never starts, and nothing of it is to be told.
                Err(error)
                    if error.kind == Kind::Unavailable && untouched && line.tasks.is_none() =>
                {
                    let refused_there = runs.refuse_waiting(held, id, by);
                    refused_there.map_err(|e| if e.kind == error.kind { error } else { e })?;
                    return Ok(refused(id, by));
                }
                ended => ended?,
            }
            line
        }
    };
    sync.commit()?;
    let line = line.of(id);
    tell(runs, held, line.clone());
    Ok(line)
}

/// Ends tasks of a range that waits, and the range if none is left. While it has its link, whoever
/// holds the lock is the only one who writes its stories.
pub(super) fn end_waiting_tasks(
    runs: &Runs,
    held: &Lock,
    id: &RunId,
    all: &TaskSet,
    tasks: &TaskSet,
    by: &str,
) -> Result<RunStatus> {
    let mut story = Story::open_or_create(runs.tasks_path(id))?;
    let mut report = Range::parse(&story.read()?).report;
    let tasks = tasks.without(&report.tasks());
    let outcome = Outcome::killed(by);
    let mut fresh = Report::default();
    fresh.add(&tasks, &outcome);
    if !tasks.is_empty() {
        let step =
            Step::Stopped { tasks: tasks.clone(), outcome: outcome.clone(), log: Vec::new() };
        story.append(&[Line::now(step)])?;
        report.add(&tasks, &outcome);
    }
    let mut sync = SyncSet::new();
    let (file, path) = story.into_file();
    sync.file(file, path);
    sync.dir(&runs.job_dir(id));
    let mut line = RunStatus::queued(clock::rfc3339(runs.accepted_at(id)?)).of(id);
    let is_over = all.without(&report.tasks()).is_empty();
    if is_over {
        let end = RunStatus::stopped(&range::outcome(all, &report));
        line = RunStatus { tasks: Some(report.clone()), ..end };
        end_in_queue(runs, id, &line, &mut sync)?;
        line = line.of(id);
    }
    sync.commit()?;
    let told =
        RunStatus { tasks: Some(if is_over { report.clone() } else { fresh }), ..line.clone() };
    tell(runs, held, told);
    Ok(RunStatus { tasks: Some(report), ..line })
}

/// Ends a job that waits again, or tasks of it, if somebody has killed them since it was claimed: whoever did
/// has told its supervisor, and looks no more. Where that fails they end when it is claimed.
pub(super) fn end_put_back(runs: &Runs, held: &Lock, id: &str) {
    let ended = asked(runs, id).and_then(|killed| match (killed, runs.last_line(id)?) {
        (Some(killed), None) => end_queued(runs, held, id, &killed.by, None, true).map(|_| ()),
        (None, None) => RunId::parse(id).map_or(Ok(()), |id| end_killed_tasks(runs, held, &id)),
        _ => Ok(()),
    });
    if let Err(error) = ended {
        eprintln!("processor: {id} is not ended: {}", error.message);
    }
}

/// Each task under the name of who killed it first.
fn end_killed_tasks(runs: &Runs, held: &Lock, id: &RunId) -> Result<()> {
    let kills = wishes::all(runs, id, None, true)?.tasks;
    if kills.is_empty() {
        return Ok(());
    }
    let Some(all) = Spec::for_run(&runs.request(id)?)?.tasks else { return Ok(()) };
    for KilledTasks { tasks, killed } in kills {
        let told = end_waiting_tasks(runs, held, id, &all, &tasks.within(&all), &killed.by)?;
        if told.state == RunState::Stopped {
            break;
        }
    }
    Ok(())
}
