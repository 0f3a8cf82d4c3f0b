//! `processor check`: every invariant of the node's board, and mending what has one right answer.
//!
//! Looks under the board's lock, so that what is on its way is not taken for damage; at so many jobs
//! at a time, since a node has a hundred thousand and all of it waits for the lock meanwhile. What it
//! cannot tell from a change by hand that is allowed, it does not report.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::{cleanup, sweep, unowned};
use crate::board::files;
use crate::board::links;
use crate::board::lock::{self, Lock};
use crate::board::root::Root;
use crate::board::runs::{RUNS_PER_LOCK, Runs, check_id};
use crate::board::slots::{self, Seen};
use crate::board::steps;
use crate::board::walk;
use crate::check::Found;
use crate::error::{At, Kind, Result};
use crate::model::newer::written_by_newer;
use crate::model::outcome::Outcome;
use crate::model::run_status::{RunState, RunStatus};

/// Why a job is ended by a repair.
const FORGOTTEN: &str = "no supervisor and no queue had it";

/// What is found, and whether it is to be mended.
struct Findings {
    repair: bool,
    lines: Vec<String>,
    /// What is in order, and worth knowing.
    notes: Vec<String>,
}

impl Findings {
    /// Whether a newer program wrote of this job what this one does not know; then it is noted, and
    /// looked at no further.
    fn is_newer(&mut self, runs: &Runs, id: &str) -> Result<bool> {
        let Some(what) = runs.newer(id)? else { return Ok(false) };
        let dir = runs.job_dir(id);
        self.notes.push(format!("{}: {}", dir.display(), written_by_newer(&what)));
        Ok(true)
    }

    /// The value; what cannot be looked at, or mended, is a violation.
    fn told<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.lines.push(error.message)).ok()
    }

    /// Notes a violation; `true` if it is to be mended, which the line says.
    fn mend(&mut self, path: &Path, what: &str) -> bool {
        let mended = if self.repair { "; mended" } else { "" };
        self.lines.push(format!("{}: {what}{mended}", path.display()));
        self.repair
    }

    /// Notes a violation that a person has to judge.
    fn note(&mut self, path: &Path, what: &str) {
        self.lines.push(format!("{}: {what}", path.display()));
    }
}

/// Verifies the node's board: one line for each violation. With `repair`, what has one right
/// answer is mended, and the line says so; a second check then no longer finds it. After them what is
/// in order and worth knowing. What cannot be looked at is a violation, and the rest is checked all
/// the same.
pub fn check(root: &Root, repair: bool) -> Result<Found> {
    root.for_change()?; // even a look needs the board's lock
    let runs = Runs::new(root);
    let mut findings = Findings { repair, lines: Vec::new(), notes: Vec::new() };
    let tree = findings.told(walk::tree(root));
    findings.lines.extend(tree.into_iter().flatten());
    if repair {
        findings.told(sweep::recover(root));
    }
    for part in [queue, jobs, slots, pids] {
        let checked = part(&runs, &mut findings);
        findings.told(checked);
    }
    if let Some((now, _)) = findings.told(steps::present(root)) {
        let litter = findings.told(cleanup::litter(&runs, &now)).into_iter().flatten();
        for path in litter.filter(|path| cleanup::is_old(path, &now)) {
            findings.note(&path, "left behind more than a day ago; the clean-up removes it");
        }
        if repair {
            findings.told(cleanup::remove_litter(&runs, &now));
        }
    }
    Ok(Found { wrong: findings.lines, notes: findings.notes })
}

fn queue(runs: &Runs, findings: &mut Findings) -> Result<()> {
    for names in files::names(&runs.queue_dir())?.chunks(RUNS_PER_LOCK) {
        let held = runs.lock()?;
        for name in names {
            let checked = queue_entry(runs, &held, name, findings);
            findings.told(checked);
        }
        drop(held);
        lock::let_others();
    }
    Ok(())
}

fn queue_entry(runs: &Runs, held: &Lock, name: &str, findings: &mut Findings) -> Result<()> {
    let path = runs.queue_dir().join(name);
    if files::gone_is_fine(fs::symlink_metadata(&path)).at(&path)?.is_none() {
        return Ok(()); // claimed meanwhile
    }
    if check_id(name).is_err() {
        findings.note(&path, "its name is not an id; nothing will read it");
        return Ok(());
    }
    let inode = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    if !runs.is_here(name)? {
        if findings.mend(&path, "waits, but has no job: nobody was told that it was accepted") {
            files::remove(&path)?;
        }
    } else if inode(&path) != inode(&runs.request_path(name)) {
        if findings.mend(&path, "is not the request of the job of that name") {
            files::remove(&path)?;
            let may_have = |slot: &Seen| {
                slot.unreadable.is_some() || slot.jobs().iter().any(|job| job == name)
            };
            if !slots::all(runs)?.iter().any(may_have) && runs.last_line(name)?.is_none() {
                runs.put_back(held, name)?;
            }
        }
    } else if started(runs, name)? {
        if findings.mend(&path, "waits, but was started") {
            files::remove(&path)?;
        }
    } else if ended(runs, name)? && findings.mend(&path, "waits, but has ended") {
        files::remove(&path)?;
    }
    Ok(())
}

fn started(runs: &Runs, id: &str) -> Result<bool> {
    Ok(runs.last_line(id)?.is_some_and(|line| line.state == RunState::Running))
}

fn ended(runs: &Runs, id: &str) -> Result<bool> {
    Ok(runs.last_line(id)?.is_some_and(|line| line.state == RunState::Stopped))
}

fn jobs(runs: &Runs, findings: &mut Findings) -> Result<()> {
    for names in files::names(&runs.jobs_dir())?.chunks(RUNS_PER_LOCK) {
        let held = runs.lock()?;
        for name in names {
            let checked = job(runs, name, findings);
            findings.told(checked);
        }
        drop(held);
        lock::let_others();
    }
    // Of those that seem so under no lock few are left to be looked at under it.
    let seen = unowned::find(runs)?;
    let held = &runs.lock()?;
    let found = unowned::find_among(runs, [seen.ids, seen.failed].concat())?;
    findings.lines.extend(found.errors.iter().map(|error| error.message.clone()));
    for id in &found.ids {
        findings.mend(&runs.job_dir(id), "neither waits nor runs nor has ended");
    }
    if findings.repair {
        let lost = Outcome::lost_unproven(FORGOTTEN);
        let (_, failed) = unowned::end_all(runs, held, &found.ids, &lost)?;
        findings.lines.extend(failed.into_iter().map(|error| error.message));
    }
    Ok(())
}

fn job(runs: &Runs, name: &str, findings: &mut Findings) -> Result<()> {
    let dir = runs.job_dir(name);
    if check_id(name).is_err() {
        findings.note(&dir, "its name is not an id; nothing will read it");
        return Ok(());
    }
    if findings.is_newer(runs, name)? {
        return Ok(());
    }
    let request = runs.request_path(name);
    match runs.request(name) {
        Ok(_) => {}
        Err(e) if e.kind == Kind::Gone => {}
        Err(e) if e.kind == Kind::NotFound && !runs.is_here(name)? => return Ok(()), // cleaned up
        Err(e) if e.kind == Kind::NotFound => findings.note(&request, "is missing"),
        // What a power loss left of one that was not durable yet is kept, and ends as lost.
        Err(e) if e.kind == Kind::Internal && ended(runs, name)? => {}
        Err(e) => findings.lines.push(e.message),
    }
    let mode = fs::metadata(&request).map_or(0, |meta| meta.permissions().mode());
    if mode & 0o077 != 0 && findings.mend(&request, "is open to others; it may hold a key") {
        let _ = fs::set_permissions(&request, fs::Permissions::from_mode(0o600)); // found again
    }
    story(runs, name, findings)
}

/// Damaged lines are what a power loss may leave; a second end is not.
fn story(runs: &Runs, id: &str, findings: &mut Findings) -> Result<()> {
    let path = runs.status_path(id);
    let Some(bytes) = files::read(&path)? else { return Ok(()) };
    let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    let read: Vec<RunStatus> = lines.filter_map(|l| serde_json::from_slice(l).ok()).collect();
    let end = read.iter().position(|line| line.state == RunState::Stopped);
    if end.is_some_and(|end| end + 1 < read.len()) {
        findings.note(&path, "goes on after the end; the first end stands");
    }
    range(runs, id, end.map(|end| &read[end]), findings)
}

/// What must hold within the story of a range's tasks, and between it and the range's end.
fn range(runs: &Runs, id: &str, end: Option<&RunStatus>, findings: &mut Findings) -> Result<()> {
    let path = runs.tasks_path(id);
    let found = runs.range(id)?;
    for wrong in &found.wrong {
        findings.note(&path, wrong);
    }
    let Some(told) = end.and_then(|line| line.tasks.as_ref()) else { return Ok(()) };
    // A range that was killed as a whole has no line for what was not started.
    let missing = found.report.tasks().without(&told.tasks());
    if !missing.is_empty() {
        findings.note(&path, &format!("tasks {missing} have ended, which the end does not tell"));
    }
    if let Some(started) = &found.started {
        findings.note(&path, &format!("task {} has no end, the range has", started.task));
    }
    Ok(())
}

fn slots(runs: &Runs, findings: &mut Findings) -> Result<()> {
    let _held = runs.lock()?;
    let seen = slots::all(runs)?;
    for slot in &seen {
        let path = slots::path(runs, slot.number);
        if let Some(error) = &slot.unreadable {
            findings.lines.push(format!(
                "{}: passed over; whatever jobs it names, none of them is looked after",
                error.message
            ));
            continue;
        }
        if slot.record.as_ref().is_some_and(|record| record.newer) {
            findings.notes.push(format!("{}: {}", path.display(), written_by_newer("a field")));
            continue;
        }
        if !slot.live && !slot.jobs().is_empty() {
            findings.note(&path, "names jobs of a supervisor that died; a sweep recovers them");
        }
        for id in slot.jobs() {
            let twice = seen.iter().any(|s| s.number > slot.number && s.jobs().contains(id));
            let is_over = || Ok(ended(runs, id)? || runs.is_queued(id)?);
            if twice && findings.told(is_over()) == Some(false) {
                findings.note(&path, &format!("{id} is claimed by another slot, too"));
            }
        }
    }
    Ok(())
}

fn pids(runs: &Runs, findings: &mut Findings) -> Result<()> {
    for path in links::dangling(runs)? {
        if findings.mend(&path, "links to a job that is gone") {
            findings.told(files::remove(&path));
        }
    }
    Ok(())
}
