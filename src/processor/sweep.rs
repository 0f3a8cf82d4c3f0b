//! Recovery: what dead supervisors and other boots left is brought to one of its right ends.
//!
//! A slot that is free and names jobs was left by a crash. Whoever takes its lock recovers it, and
//! while they do its room stays in use. Decisions are made under the board's lock, against the
//! present records of the other slots; each can be repeated without harm.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::remains::{self, Remains};
use super::{kill, range, start, tree};
use crate::board::feed;
use crate::board::files;
use crate::board::incoming;
use crate::board::lock::{self, Lock};
use crate::board::root::{Root, boot_id};
use crate::board::runs::{Runs, check_id};
use crate::board::slots::{self, Record, Slot};
use crate::board::sync_set::SyncSet;
use crate::cgi::alarm::LONGEST_ARRIVAL;
use crate::error::{At, Error, Kind, Result};
use crate::model::outcome::Outcome;
use crate::model::request::RANGE_FIELD;
use crate::model::run_status::{RunState, RunStatus};

/// What lies in `tmp/` for so long belongs to nobody.
const LITTER_AGE: Duration = Duration::from_secs(24 * 3600);

// Longer than whoever prepares something there can live: a request, whose files take their time.
const _: () = assert!(LITTER_AGE.as_secs() > 10 * (LONGEST_ARRIVAL.as_secs() + 60));

/// Most errors that are remembered, so as to be told once.
const MOST_TOLD: usize = 100;

const REBOOTED: &str = "the machine was restarted";

/// What a sweep did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Swept {
    /// Jobs that ended as lost.
    pub lost: usize,
    /// Claimed jobs that wait again.
    pub requeued: usize,
    /// Whether a supervisor was started.
    pub started: bool,
}

/// Recovers what dead supervisors left, and starts one if a job waits and there is room.
/// Idempotent; with nothing to do it costs a look at each slot.
pub fn sweep(root: &Root) -> Result<Swept> {
    let mut swept = recover(root)?;
    swept.started = start::poke(root)?;
    Ok(swept)
}

/// [`sweep`] without starting anyone.
pub fn recover(root: &Root) -> Result<Swept> {
    tree::is_of_this_namespace()?;
    let runs = Runs::new(root);
    let mut swept = Swept::default();
    let held = runs.lock()?;
    at_boot(&runs, &held, &mut swept)?;
    let mut dead = Vec::new();
    // What cannot be recovered now keeps its names in its slot for the next sweep, and must not
    // keep the others from being recovered, nor a supervisor from starting.
    let passed_over = |slot: &Slot, error: Error| {
        tell_once(&format!("slot {} is not recovered", slot.number), &error);
    };
    let (found, unreadable) = Slot::take_dead(&runs, &held)?;
    for error in unreadable {
        tell_once("passed over", &error);
    }
    for (slot, record) in found {
        match decide(&runs, &held, &slot, record, &mut swept) {
            Ok(record) => dead.push((slot, record)),
            Err(error) => passed_over(&slot, error),
        }
    }
    drop(held);
    // Until it is let go, one that names nothing looks like that of a supervisor that lingers.
    dead.sort_by_key(|(_, record)| !record.jobs.is_empty());
    for (slot, record) in dead {
        if let Err(error) = finish(&runs, &slot, record, &mut swept) {
            passed_over(&slot, error);
        }
    }
    Ok(swept)
}

/// Says what every sweep finds anew as long as nobody mends it: once, and not each few seconds.
fn tell_once(what: &str, error: &Error) {
    static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    let line = format!("{what}: {}", error.message);
    if told.len() < MOST_TOLD && told.insert(line.clone()) {
        eprintln!("processor: {line}");
    }
}

/// Puts back what never ran and drops what is no longer this slot's; what stays in the record
/// has a story.
fn decide(
    runs: &Runs,
    held: &Lock,
    slot: &Slot,
    mut record: Record,
    swept: &mut Swept,
) -> Result<Record> {
    let others = slots::all(runs)?;
    let mut kept = Vec::new();
    for id in std::mem::take(&mut record.jobs) {
        let elsewhere =
            others.iter().any(|other| other.number != slot.number && other.jobs().contains(&id));
        let fate = if elsewhere { Ok(Fate::Dropped) } else { fate(runs, held, &record, &id) };
        match fate {
            Ok(Fate::Dropped) => {}
            Ok(Fate::Waits) => swept.requeued += 1,
            Ok(Fate::Kept) => kept.push(id),
            // It is tried again later, and keeps no other from it.
            Err(error) => {
                tell_once(&format!("{id} does not wait again"), &error);
                kept.push(id);
            }
        }
    }
    record.jobs = kept;
    slot.write(&record)?;
    Ok(record)
}

/// What becomes of a job that a dead supervisor's slot names.
enum Fate {
    /// It is no longer the slot's.
    Dropped,
    /// It has a story.
    Kept,
    /// It waits again.
    Waits,
}

fn fate(runs: &Runs, held: &Lock, record: &Record, id: &str) -> Result<Fate> {
    if runs.is_queued(id)? || !runs.is_here(id)? {
        return Ok(Fate::Dropped);
    }
    // One whose story cannot be read may have run: it is not put back, and tried again later.
    match runs.for_change(id).and_then(|()| runs.last_line(id)) {
        // Its supervisor has given it back, or somebody has removed it by half.
        Ok(None) if is_over(runs, id) => Ok(Fate::Dropped),
        Ok(None) => {
            kill::keep_noted(runs, id, &record.kills)?;
            runs.put_back(held, id).map(|()| Fate::Waits)
        }
        Ok(Some(_)) | Err(_) => Ok(Fate::Kept),
    }
}

/// Whether a job was refused, or removed by half: no one will ever start it.
fn is_over(runs: &Runs, id: &str) -> bool {
    runs.request(id).is_err_and(|e| matches!(e.kind, Kind::Gone | Kind::NotFound))
}

/// Ends what ran and has no end, and reports all. What is left of its processes is killed first,
/// so that an end is an end.
fn finish(runs: &Runs, slot: &Slot, mut record: Record, swept: &mut Swept) -> Result<()> {
    let mut sync = SyncSet::new();
    let mut lines = Vec::new();
    let mut kept = Vec::new();
    let jobs = std::mem::take(&mut record.jobs);
    let remains = remains::end_group(runs, slot, &record);
    for id in jobs {
        match finish_one(runs, slot, &id, remains, &mut sync, swept) {
            Ok(line) => lines.push(line),
            Err(error) => {
                tell_once(&format!("{id} is not recovered"), &error);
                kept.push(id);
            }
        }
    }
    sync.commit()?;
    if kept.is_empty() && remains == Remains::None {
        remains::remove_group(runs, slot, &record);
    }
    let held = runs.lock()?;
    feed::append(runs.root(), &held, &lines)?;
    record.jobs = kept;
    slot.write(&record)
}

/// The end of one of those jobs, as the feed is to have it.
fn finish_one(
    runs: &Runs,
    slot: &Slot,
    id: &str,
    remains: Remains,
    sync: &mut SyncSet,
    swept: &mut Swept,
) -> Result<RunStatus> {
    runs.for_change(id)?;
    let line =
        runs.last_line(id)?.ok_or_else(|| Error::conflict(format!("{id} is to wait again")))?;
    if line.state == RunState::Stopped {
        sync.merge(runs.sync_of_end(id)?);
        return Ok(line.of(id));
    }
    // Another one may have it by now, whose slot does not show that.
    let hidden = slots::all(runs)?.iter().any(|seen| seen.unreadable.is_some());
    if hidden && lock::is_locked(&runs.request_path(id))? {
        return Err(Error::conflict("another supervisor runs it"));
    }
    let lost = end_remains(runs, id, remains)?;
    let line = lose(runs, id, Some(slot), &lost, sync)?;
    swept.lost += 1;
    Ok(line)
}

fn is_range(runs: &Runs, id: &str) -> Result<bool> {
    match runs.request(id) {
        Ok(request) => Ok(request.get(RANGE_FIELD).is_some()),
        Err(error) if error.kind == Kind::Unavailable => Err(error), // it is read another time
        Err(_) => Ok(false),
    }
}

/// Kills what is left of a job whose supervisor died; how it ends if nobody had killed it.
pub(super) fn end_remains(runs: &Runs, id: &str, remains: Remains) -> Result<Outcome> {
    let started = if is_range(runs, id)? {
        range::started(runs, id)?
    } else {
        runs.last_line(id)?.and_then(|line| line.pid.zip(line.ticks))
    };
    Ok(remains::end(runs.root(), id, started, remains))
}

/// Stamps the end of a job of which nothing more can be known: it is `lost`, unless somebody had
/// killed it, who is named then.
fn lose(
    runs: &Runs,
    id: &str,
    slot: Option<&Slot>,
    lost: &Outcome,
    sync: &mut SyncSet,
) -> Result<RunStatus> {
    let begun = runs.last_line(id)?;
    let is_range = is_range(runs, id)?;
    let kills = kill::all_asked(runs, id, slot, is_range)?;
    let line = if is_range {
        let line = range::end_abandoned(runs, id, begun.as_ref(), lost, &kills)?;
        range::sync_of(runs, id, sync)?;
        line
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

/// Once in every boot, before anything is claimed in it: what was claimed in another boot and has
/// no result is lost. Looks at every job, since after a power loss no slot can be relied on. The
/// board's lock file holds the boot for which this is done.
fn at_boot(runs: &Runs, held: &Lock, swept: &mut Swept) -> Result<()> {
    let boot = boot_id()?;
    let mut bytes = [0u8; 128];
    let length = held.file().read_at(&mut bytes, 0).at("lock")?;
    if bytes[..length].trim_ascii() == boot.as_bytes() {
        return Ok(());
    }
    let unowned = unowned(runs)?;
    let (ended, failed) = end_unowned(runs, held, &unowned.ids, &Outcome::lost(REBOOTED))?;
    swept.lost += ended;
    for error in unowned.errors.iter().chain(&failed) {
        tell_once("not recovered after a restart", error);
    }
    // One that cannot be read keeps no other from running, and is looked at again.
    if unowned.errors.is_empty() && failed.is_empty() {
        files::rewrite_line(held.file(), &boot).at("lock")?;
    }
    Ok(())
}

/// Ends these jobs as lost. Returns how many, and why others could not be.
pub(super) fn end_unowned(
    runs: &Runs,
    held: &Lock,
    ids: &[String],
    why: &Outcome,
) -> Result<(usize, Vec<Error>)> {
    let mut lines = Vec::new();
    let mut failed = Vec::new();
    for id in ids {
        // One sync at the end serves all; their files are not kept open for it.
        match lose(runs, id, None, why, &mut SyncSet::new()) {
            Ok(line) => lines.push(line),
            Err(error) => failed.push(error),
        }
    }
    if !lines.is_empty() {
        runs.sync_all()?;
        feed::append(runs.root(), held, &lines)?;
    }
    Ok((lines.len(), failed))
}

/// Ends a job that somebody killed and no one is responsible for, with what is left of it.
pub(super) fn end_if_unowned(runs: &Runs, id: &str) -> Result<()> {
    let is_alone = |_held: &Lock| is_unowned(runs, &id.to_string(), &Owned::read(runs)?);
    if !is_alone(&runs.lock()?)? {
        return Ok(());
    }
    let lost = end_remains(runs, id, Remains::Unknown)?; // takes a while, without the lock
    let held = runs.lock()?;
    if is_alone(&held)? {
        let (_, failed) = end_unowned(runs, &held, &[id.to_string()], &lost)?;
        return failed.into_iter().next().map_or(Ok(()), Err);
    }
    Ok(())
}

/// Jobs that neither wait, nor have ended, nor are named by a slot of this boot.
#[derive(Debug, Default)]
pub(super) struct Unowned {
    /// Their ids.
    pub ids: Vec<String>,
    /// Why it is not known of others.
    pub errors: Vec<Error>,
}

/// Jobs that no one is responsible for. Exact under the board's lock.
pub(super) fn unowned(runs: &Runs) -> Result<Unowned> {
    let owned = Owned::read(runs)?;
    let mut found = Unowned::default();
    for id in files::names(&runs.jobs_dir())? {
        match is_unowned(runs, &id, &owned) {
            Ok(true) => found.ids.push(id),
            Ok(false) => {}
            Err(_) if is_none(runs, &id) => {}
            Err(error) => found.errors.push(error),
        }
    }
    Ok(found)
}

/// Whether what lies there is no job: those are directories.
fn is_none(runs: &Runs, id: &str) -> bool {
    std::fs::symlink_metadata(runs.job_dir(id)).is_ok_and(|meta| !meta.is_dir())
}

/// The jobs that slots of this boot name.
struct Owned {
    jobs: Vec<String>,
    boot: String,
    /// What is wrong with a slot that may name others.
    unreadable: Option<Error>,
}

impl Owned {
    fn read(runs: &Runs) -> Result<Owned> {
        let boot = boot_id()?;
        let seen = slots::all(runs)?;
        let unreadable = seen.iter().find_map(|slot| slot.unreadable.clone());
        let records = seen.into_iter().filter_map(|slot| slot.record);
        let records = records.filter(|record| record.boot == boot || record.newer);
        Ok(Owned { jobs: records.flat_map(|record| record.jobs).collect(), boot, unreadable })
    }

    /// Whether no slot has this job. An error where one that cannot be read may: unless the job was
    /// started in another boot.
    fn lack(&self, runs: &Runs, id: &str) -> Result<bool> {
        let Some(error) = &self.unreadable else { return Ok(true) };
        let begun = runs.last_line(id)?.and_then(|line| line.boot);
        if begun.is_some_and(|begun| begun != self.boot) {
            return Ok(true);
        }
        let why = format!("{id}: whether a supervisor has it is not known: {}", error.message);
        Err(Error::new(error.kind, why))
    }
}

fn is_unowned(runs: &Runs, id: &String, owned: &Owned) -> Result<bool> {
    if check_id(id).is_err() || owned.jobs.contains(id) || runs.is_queued(id)? {
        return Ok(false);
    }
    if runs.last_line(id)?.is_some_and(|line| line.state == RunState::Stopped) {
        return Ok(false);
    }
    match runs.request(id) {
        Err(e) if e.kind == Kind::Unavailable => Err(e),
        // Refused before it came, or removed by half. One whose request is damaged may have run: its
        // acceptance died before the sync.
        Err(e) if matches!(e.kind, Kind::Gone | Kind::NotFound) => Ok(false),
        Err(_) => owned.lack(runs, id),
        Ok(_) => Ok(runs.newer(id)?.is_none() && owned.lack(runs, id)?),
    }
}

/// Removes what nobody prepares any more in `tmp/`.
pub(super) fn remove_litter(runs: &Runs) -> Result<usize> {
    let mut removed = 0;
    for path in litter(runs)? {
        files::remove_tree(&path).or_else(|_| files::remove(&path))?;
        removed += 1;
    }
    Ok(removed)
}

/// What lies in `tmp/` for too long; files that were arriving as soon as nobody holds them.
pub(super) fn litter(runs: &Runs) -> Result<Vec<std::path::PathBuf>> {
    let dir = runs.tmp_dir();
    let is_litter = |path: &std::path::PathBuf| match incoming::is_one(path) {
        true => incoming::is_abandoned(path, &SystemTime::now().into()).is_ok_and(|is| is),
        false => is_old(path),
    };
    Ok(files::names(&dir)?.into_iter().map(|name| dir.join(name)).filter(is_litter).collect())
}

/// Whether something lies there for so long that no clean-up has seen it.
pub(super) fn is_old(path: &std::path::Path) -> bool {
    let modified = std::fs::symlink_metadata(path).and_then(|meta| meta.modified());
    modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > LITTER_AGE))
}
