//! Starting supervisors.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::{env, path::Path};

use super::info::Total;
use super::tree;
use crate::board::root::Root;
use crate::board::runs::Runs;
use crate::board::slots::Seen;
use crate::board::{files, slots};
use crate::descriptors;
use crate::error::{At, Result};
use crate::model::resources::Resources;

/// The program whose `supervise` is a supervisor.
const PROGRAM: &str = "processor";

/// The word by which this program is a supervisor, and is known as one.
pub(super) const SUPERVISE: &str = "supervise";

/// The variable in the environment of all that a job starts.
const NODEJOB: &str = "CORKBOARD_NODEJOB";

/// With it the supervisor stays the child of who starts it.
pub(super) const STAY: &str = "--stay";

/// With it it runs nothing: it finds out which GPUs there are.
pub(super) const FIND_GPUS: &str = "--gpus";

/// The variable in a supervisor's environment that says whose it is.
pub(super) const ROOT: &str = "CORKBOARD_ROOT";

/// Whether a process is a supervisor, of whatever root. It is known by what it executes, wherever that
/// lies: it may not have taken a slot yet, and may be of another version. It was started with a root that is
/// there and with nothing of a job's ([`command`]), unlike what a job starts that is merely called so.
pub(super) fn is_supervisor(pid: i32) -> bool {
    tree::runs(pid, PROGRAM, SUPERVISE)
        && tree::variable(pid, ROOT).is_some_and(|root| has_root(pid, root))
        && tree::variable(pid, NODEJOB).is_none()
}

/// Whether there is a root in this directory, as the process sees it: it may have been started in a container.
fn has_root(pid: i32, dir: Vec<u8>) -> bool {
    let dir = PathBuf::from(OsString::from_vec(dir));
    let Ok(below) = dir.strip_prefix("/") else { return false }; // a supervisor's is given in full
    Root::is_in(&Path::new(&format!("/proc/{pid}/root")).join(below))
}

/// Starts a supervisor if a job waits and there is room for one. A hint: whether the job fits is
/// decided by the supervisor, under the lock. Never leaves a zombie, nor a descriptor.
pub fn poke(root: &Root) -> Result<bool> {
    let runs = Runs::new(root);
    // A node that gives no cores at all gives back what waits.
    let has_room = || Ok(free(root)?.cores > 0 || Total::known(root).resources.cores == 0);
    if files::names(&runs.queue_dir())?.is_empty() || !has_room()? {
        return Ok(false);
    }
    detached(root)?;
    Ok(true)
}

/// [`poke`] for jobs that have just got their names, where none of those that linger takes them:
/// one that lingers now does, since it was seen after the names were there, and looks at the queue
/// before it claims something else or leaves. What is returned has to be waited for.
pub(super) fn begin(root: &Root) -> Result<Option<Child>> {
    let runs = Runs::new(root);
    if files::names(&runs.queue_dir())?.is_empty() {
        return Ok(None);
    }
    let seen = slots::all(&runs)?;
    let free = Total::known(root).resources.minus(&slots::used(&seen, None));
    if free.cores == 0 || seen.iter().any(Seen::lingers) {
        return Ok(None);
    }
    let program = program(root);
    command(root, &program, &[SUPERVISE]).spawn().at(&program).map(Some)
}

/// Room that no supervisor uses.
pub fn free(root: &Root) -> Result<Resources> {
    let seen = slots::all(&Runs::new(root))?;
    Ok(Total::known(root).resources.minus(&slots::used(&seen, None)))
}

/// Starts a supervisor that is nobody's child: what is started here forks once more and ends.
pub(super) fn detached(root: &Root) -> Result<()> {
    let program = program(root);
    let mut child = command(root, &program, &[SUPERVISE]).spawn().at(&program)?;
    child.wait().at(&program)?;
    Ok(())
}

/// Starts a process that finds out which GPUs there are, and has what waits started then; it is nobody's child.
/// Like a supervisor it is of no job.
pub(super) fn gpu_finder(root: &Root) -> Result<()> {
    let program = program(root);
    let mut child = command(root, &program, &[SUPERVISE, FIND_GPUS]).spawn().at(&program)?;
    child.wait().at(&program)?;
    Ok(())
}

/// Starts a supervisor as a child of this process, which has to wait for it.
pub(super) fn child(root: &Root) -> Result<Child> {
    let program = program(root);
    command(root, &program, &[SUPERVISE, STAY]).spawn().at(&program)
}

fn program(root: &Root) -> PathBuf {
    let own = env::current_exe().ok();
    own.filter(|path| path.file_name().is_some_and(|name| name == PROGRAM))
        .unwrap_or_else(|| root.program(PROGRAM))
}

/// Nothing of this process's environment reaches a job, be it a web server's or another job's. Only where
/// programs are is passed on, for who looks for GPUs; jobs do not get it.
fn command(root: &Root, program: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .args(words)
        .env_clear()
        .env(ROOT, root.dir())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    descriptors::as_given(&mut command);
    for name in ["PATH", "CORKBOARD_BOOT_ID"] {
        if let Some(value) = env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}
