//! Killing a job, wherever it is in its life.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use super::{status, tree};
use crate::board::feed;
use crate::board::files::{self, Story, SyncSet};
use crate::board::root::Root;
use crate::board::runs::{Runs, check_id};
use crate::board::slots;
use crate::clock;
use crate::error::{At, Error, Kind, Result};
use crate::model::outcome::{Outcome, RunState, RunStatus};
use crate::model::request::Spec;
use crate::model::tasks::TaskSet;

/// `job/ID/kill`: somebody wants the job to end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Killed {
    at: String,
    by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grace: Option<f64>,
}

impl Killed {
    fn now(by: &str, grace: Option<Duration>) -> Killed {
        let grace = grace.map(|grace| grace.as_secs_f64());
        Killed { at: clock::now(), by: by.to_string(), grace }
    }

    /// What the job ends as.
    pub fn outcome(&self) -> Outcome {
        Outcome::killed(&self.by)
    }

    /// Between SIGTERM and SIGKILL, where the killer said.
    pub fn grace(&self) -> Option<Duration> {
        self.grace.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    }
}

/// Whether somebody wants this job to end. A record that cannot be read counts: only a kill is
/// ever written there.
pub(super) fn asked(runs: &Runs, id: &str) -> Result<Option<Killed>> {
    let Some(bytes) = files::read(&runs.kill_path(id))? else { return Ok(None) };
    Ok(Some(serde_json::from_slice(&bytes).unwrap_or_else(|_| Killed {
        at: clock::now(),
        by: "somebody".into(),
        grace: None,
    })))
}

/// Which tasks of a range somebody wants to end.
pub(super) fn asked_tasks(runs: &Runs, id: &str) -> Result<Vec<(TaskSet, Killed)>> {
    let bytes = files::read(&runs.kill_tasks_path(id))?.unwrap_or_default();
    let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    let kills = lines.filter_map(|line| serde_json::from_slice::<KilledTasks>(line).ok());
    Ok(kills.map(|kill| (kill.tasks, kill.killed)).collect())
}

/// A line of `job/ID/kill-tasks`.
#[derive(Serialize, Deserialize)]
struct KilledTasks {
    tasks: TaskSet,
    #[serde(flatten)]
    killed: Killed,
}

/// Kills tasks of a range: those that were not started never are, the one that runs is ended as
/// [`kill`] does. Durable when this returns; tasks that have ended are left as they are. 404 for a
/// range that is not here: it may come. Answers with what is known of the range now.
pub fn kill_tasks(
    root: &Root,
    id: &str,
    tasks: &TaskSet,
    grace: Option<Duration>,
    by: &str,
) -> Result<RunStatus> {
    let runs = Runs::new(root);
    let held = runs.lock()?;
    runs.for_change(id)?;
    let spec = Spec::for_node(&runs.request(id)?)?;
    let Some(all) = spec.tasks else {
        return Err(Error::bad(format!("{id} is one job: it has no tasks")));
    };
    if let Some(unknown) = tasks.without(&all).first() {
        return Err(Error::not_found(format!(
            "{id} has no task {unknown}; it has {}",
            all.brief()
        )));
    }
    if runs.last_line(id)?.is_none_or(|line| line.state != RunState::Stopped) {
        let killed = KilledTasks { tasks: tasks.clone(), killed: Killed::now(by, grace) };
        let mut story = Story::open_or_create(runs.kill_tasks_path(id))?;
        story.append(&[killed])?;
        let (file, path) = story.into_file();
        let mut sync = SyncSet::new();
        sync.file(file, path);
        sync.dir(&runs.job_dir(id));
        sync.commit()?;
    }
    drop(held);
    wake(&runs, id).and_then(|()| status::of(root, id)).map_err(files::unknown)
}

/// Kills a job: one that waits ends at once, one that runs is asked to end and after `grace`
/// (else the request's, else the setting) made to, one that has not come yet will be refused.
/// Durable when this returns; an ended job is left as it is. Answers with what is known now.
pub fn kill(root: &Root, id: &str, grace: Option<Duration>, by: &str) -> Result<RunStatus> {
    check_id(id)?;
    let runs = Runs::new(root);
    let refused = || RunStatus::stopped(&Outcome::killed(by)).of(id);
    let held = runs.lock()?;
    match runs.request(id) {
        Ok(_) => runs.for_change(id)?,
        Err(e) if e.kind == Kind::Gone => return Ok(refused()),
        Err(e) if e.kind == Kind::NotFound => {
            runs.refuse(&held, id, by)?;
            return Ok(refused());
        }
        Err(e) => return Err(e),
    }
    let before = runs.last_line(id)?;
    let ended = before.filter(|line| line.state == RunState::Stopped);
    if runs.is_queued(id) {
        // The line first: a crash before the link is gone leaves a job that has ended and still
        // waits, which is seen when it is claimed, or killed once more.
        let mut story = runs.story(id)?;
        let line = match ended {
            Some(line) => line,
            None => {
                let line = RunStatus::stopped(&Outcome::killed(by));
                story.append(std::slice::from_ref(&line))?;
                line
            }
        };
        files::remove(&runs.queue_path(id)).map_err(files::unknown)?;
        let mut sync = SyncSet::new();
        let (file, path) = story.into_file();
        sync.file(file, path);
        sync.dir(&runs.job_dir(id));
        sync.dir(&runs.queue_dir());
        sync.commit()?;
        let line = line.of(id);
        // It is killed; a head that does not hear of it by the feed asks.
        if let Err(error) = feed::append(root, &held, std::slice::from_ref(&line)) {
            eprintln!("processor: {}", error.message);
        }
        return Ok(line);
    }
    if let Some(end) = ended {
        // Whoever wrote it may have died before its sync.
        let path = runs.status_path(id);
        files::sync(&std::fs::File::open(&path).at(&path)?, &path)?;
        return Ok(end.of(id));
    }
    drop(held);
    let killed = Killed::now(by, grace);
    files::replace(&runs.tmp_dir(), &runs.kill_path(id), &files::json_line(&killed)?)?;
    wake(&runs, id).and_then(|()| status::of(root, id)).map_err(files::unknown)
}

/// Tells the job's supervisor to look. One that has not started the job yet looks by itself.
fn wake(runs: &Runs, id: &str) -> Result<()> {
    let pid_of = |number: Option<u64>| -> Result<Option<(u64, i32)>> {
        Ok(slots::all(runs)?.into_iter().find_map(|slot| {
            let wanted = slot.live && number.is_none_or(|number| number == slot.number);
            let record =
                slot.record.filter(|record| wanted && record.jobs.iter().any(|j| j == id))?;
            Some((slot.number, record.pid))
        }))
    };
    let Some((number, pid)) = pid_of(None)? else { return Ok(()) };
    let Some(process) = tree::open(pid) else { return Ok(()) };
    // The slot is still held by that pid, so the process in our hands is the supervisor.
    if pid_of(Some(number))? == Some((number, pid)) && !tree::has_ended(&process) {
        tree::send(&process, Signal::SIGUSR1);
    }
    Ok(())
}
