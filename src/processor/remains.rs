//! What is left of jobs whose supervisor died: found and killed, so that an end is an end.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::cgroup::Group;
use super::pace::AGAIN;
use super::{limits, start, tree};
use crate::board::root::{Root, boot_id};
use crate::board::runs::Runs;
use crate::board::slots::{Record, Slot};
use crate::error::{Kind, Result, reason};
use crate::model::outcome::Outcome;
use crate::model::request_fields::RANGE_FIELD;

/// How long a dead supervisor's processes are waited for after SIGKILL. A program that has become
/// another user's cannot be signalled, and waiting for it again in every sweep would keep all other
/// jobs from running.
const UNTIL_KILLED: Duration = Duration::from_secs(5);

/// Why a job is lost whose supervisor is gone.
const DIED: &str = "its supervisor died";

/// What is known of the processes of a dead supervisor's jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remains {
    /// All were in one group, and that is empty.
    None,
    /// Some in the group do not end.
    Some,
    /// There was no group: they have to be looked for.
    Unknown,
}

/// Kills all that is left in the group of a slot whose lock this process has.
pub(super) fn end_group(runs: &Runs, slot: &Slot, record: &Record) -> Remains {
    let Some(group) = group_of(runs, slot, record) else { return Remains::Unknown };
    if group.end(UNTIL_KILLED) { Remains::None } else { Remains::Some }
}

/// Removes that group once nothing needs it.
pub(super) fn remove_group(runs: &Runs, slot: &Slot, record: &Record) {
    if let Some(mut group) = group_of(runs, slot, record) {
        group.remove();
    }
    limits::remove_of(runs.root().dir(), slot.number);
}

fn group_of(runs: &Runs, slot: &Slot, record: &Record) -> Option<Group> {
    // Another boot's is gone, or is another's of the same name.
    let this_boot = boot_id().is_ok_and(|boot| boot == record.boot);
    let path = record.cgroup.as_deref().filter(|_| this_boot)?;
    Group::recorded(runs.root().dir(), slot.number, path)
}

/// Kills what is left of a job whose supervisor died, by what was stamped when its program was started:
/// pid and ticks; how it ends if nobody had killed it. Where there was a group, that finds what has been
/// moved out of it: a job that may do so can have put itself, or a part of it, under somebody else's
/// (`systemd-run`, `cgexec`).
pub(super) fn end(runs: &Runs, id: &str, remains: Remains) -> Result<Outcome> {
    let started = if is_range(runs, id)? {
        runs.range(id)?.started.map(|task| (task.pid, task.ticks))
    } else {
        runs.last_line(id)?.and_then(|line| line.pid.zip(line.ticks))
    };
    let left = started.and_then(|(pid, ticks)| kill_found(runs.root(), id, pid, ticks));
    let why = match (left, remains) {
        (Some(why), _) => why,
        (None, Remains::None) => return Ok(Outcome::lost(DIED)),
        (None, Remains::Some) => "processes of it could not be killed".to_string(),
        (None, Remains::Unknown) => {
            "without a cgroup, processes of it may be left unseen".to_string()
        }
    };
    Ok(Outcome::lost_unproven(&format!("{DIED}; {why}")))
}

/// Whether a job is a range of tasks, as far as its request can be read.
pub(super) fn is_range(runs: &Runs, id: &str) -> Result<bool> {
    match runs.request(id) {
        Ok(request) => Ok(request.get(RANGE_FIELD).is_some()),
        Err(error) if error.kind == Kind::Unavailable => Err(error), // it is read another time
        Err(_) => Ok(false),
    }
}

/// Kills what can be found of a job's processes, and waits until it is gone. Returns why that is not
/// known, where it is not: one does not end, or this process lacks what it takes to look.
fn kill_found(root: &Root, id: &str, pid: i32, ticks: u64) -> Option<String> {
    let own = tree::look(std::process::id() as i32);
    let own: Vec<i32> = own.iter().flat_map(tree::line).map(|process| process.pid).collect();
    let deadline = Instant::now() + UNTIL_KILLED;
    let mut empty = 0;
    // One look may miss what makes children and ends.
    while empty < 2 {
        let is_over = Instant::now() >= deadline;
        let mut remains = match tree::remains(id, pid, ticks) {
            Ok(remains) => remains,
            Err(error) if is_over => {
                let why = reason(&error);
                return Some(format!("what is left of it could not be looked for: {why}"));
            }
            Err(_) => {
                std::thread::sleep(AGAIN);
                continue;
            }
        };
        remains.retain(|process| !is_elsewhere(root, process, &own));
        let Some(first) = remains.first() else {
            empty += 1;
            continue;
        };
        empty = 0;
        if is_over {
            return Some(format!("process {} could not be killed", first.pid));
        }
        for process in &remains {
            tree::signal(process, Signal::SIGSTOP);
        }
        for process in &remains {
            tree::signal(process, Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(2)); // nothing to wait on: not our children
    }
    None
}

/// Whether a process is of a job of another root, which may have the same id: its nearest supervisor
/// is that root's, and none that `own` process descends from itself.
fn is_elsewhere(root: &Root, process: &tree::Process, own: &[i32]) -> bool {
    let supervisor = tree::line(process).find(|process| start::is_supervisor(process.pid));
    supervisor.filter(|supervisor| !own.contains(&supervisor.pid)).is_some_and(|supervisor| {
        let its = tree::variable(supervisor.pid, start::ROOT);
        its.is_some_and(|its| its != root.dir().as_os_str().as_encoded_bytes())
    })
}
