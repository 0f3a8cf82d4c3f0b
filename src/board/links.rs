//! The links of a node's processes, `pid/PID_START`, then `pid/PID_START_END`: each leads to the directory
//! of the job that it is a program of. They are for people and for who asks by a pid; of a job that has
//! removed its story they say that it was started. Not synced.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::files;
use super::runs::Runs;
use crate::clock;
use crate::error::Result;
use crate::model::ids::RunId;

/// A process that runs or ran here, as its link says.
#[derive(Debug, Clone)]
pub struct Linked {
    /// Its process id.
    pub pid: i32,
    /// When it was started, in Unix seconds.
    pub start: u64,
    /// Whether somebody has seen its end.
    pub has_ended: bool,
    /// The job of which it is a program.
    pub id: RunId,
}

/// Links a process that was started then.
pub fn begin(runs: &Runs, id: &str, pid: i32, started: SystemTime) -> io::Result<PathBuf> {
    let link = runs.pid_dir().join(format!("{pid}_{}", clock::unix_seconds(started)));
    symlink(format!("../job/{id}"), &link)?;
    Ok(link)
}

/// Adds to a link that its process has ended now.
pub fn end(link: &Path) -> io::Result<()> {
    let name = link.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let ended = clock::unix_seconds(SystemTime::now());
    fs::rename(link, files::parent(link).join(format!("{name}_{ended}")))
}

/// The processes that fit, where a pid or a start is wanted.
pub fn list(runs: &Runs, pid: Option<i32>, start: Option<u64>) -> Result<Vec<Linked>> {
    let (wanted_pid, wanted_start) = (pid, start);
    let dir = runs.pid_dir();
    let linked = |name: &String| {
        let mut parts = name.split('_');
        let (pid, start) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        if wanted_pid.is_some_and(|wanted| wanted != pid)
            || wanted_start.is_some_and(|wanted| wanted != start)
        {
            return None;
        }
        // One that was renamed meanwhile leads nowhere under this name.
        let target = fs::read_link(dir.join(name)).ok()?;
        let id = RunId::parse(target.file_name()?.to_str()?)?;
        Some(Linked { pid, start, has_ended: parts.next().is_some(), id })
    };
    Ok(files::names(&dir)?.iter().filter_map(linked).collect())
}

/// Those whose job is gone.
pub fn dangling(runs: &Runs) -> Result<Vec<PathBuf>> {
    let dir = runs.pid_dir();
    let links = files::names(&dir)?.into_iter().map(|name| dir.join(name));
    Ok(links.filter(|link| matches!(link.try_exists(), Ok(false))).collect())
}

/// Which jobs had programs started: read once, when it is first asked for.
#[derive(Debug, Default)]
pub struct Starts(OnceCell<HashMap<RunId, u64>>);

impl Starts {
    /// Whether a program of a job was started since it was accepted, as is known beside its story: a job
    /// may have removed that.
    pub fn has(&self, runs: &Runs, id: &str) -> Result<bool> {
        if runs.range(id)?.started.is_some() {
            return Ok(true); // tasks have no links
        }
        let newest = match self.0.get() {
            Some(newest) => newest,
            None => {
                let found = newest(runs)?;
                self.0.get_or_init(|| found)
            }
        };
        let Some(start) = newest.get(id) else { return Ok(false) };
        // An earlier job of this id may have left some.
        Ok(*start >= clock::unix_seconds(runs.accepted_at(id)?))
    }
}

/// When a program of each job was last started, in Unix seconds; of one whose end nobody has seen, later
/// than every time.
fn newest(runs: &Runs) -> Result<HashMap<RunId, u64>> {
    let mut newest: HashMap<RunId, u64> = HashMap::new();
    for Linked { start, has_ended, id, .. } in list(runs, None, None)? {
        let start = if has_ended { start } else { u64::MAX };
        let known = newest.entry(id).or_default();
        *known = start.max(*known);
    }
    Ok(newest)
}
