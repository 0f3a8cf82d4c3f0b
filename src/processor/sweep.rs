//! Recovery: what dead supervisors and other boots left is brought to one of its right ends.
//!
//! A slot that is free and names jobs was left by a crash. Whoever takes its lock recovers it, and
//! while they do its room stays in use. Decisions are made under the board's lock, against the
//! present records of the other slots; each can be repeated without harm.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use super::lost::lose;
use super::remains::{self, Remains};
use super::{end_waiting, start, tree, unowned, wishes};
use crate::board::feed;
use crate::board::files;
use crate::board::links::Starts;
use crate::board::lock::{self, Lock};
use crate::board::root::{Root, boot_id};
use crate::board::runs::Runs;
use crate::board::slots::{self, DeadSlot, Record, Slot};
use crate::board::spoilt;
use crate::board::sync_set::SyncSet;
use crate::error::{At, Error, Kind, Result};
use crate::model::outcome::Outcome;
use crate::model::run_status::{RunState, RunStatus};

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
    recover_all(root).map(|(swept, _)| swept)
}

/// The same; also the slots in which something is left that cannot be recovered now.
pub(super) fn recover_all(root: &Root) -> Result<(Swept, Vec<DeadSlot>)> {
    tree::is_of_this_namespace()?;
    let runs = Runs::new(root);
    let mut swept = Swept::default();
    let held = runs.lock()?;
    at_boot(&runs, &held, &mut swept)?;
    let mut dead = Vec::new();
    // What cannot be recovered now keeps its names in its slot for the next sweep, and must not
    // keep the others from being recovered, nor a supervisor from starting.
    let mut left = Vec::new();
    let mut passed_over = |slot: &Slot, pid: i32, kept: Result<usize>| match kept {
        Ok(0) => {}
        Ok(_) => left.push((slot.number, pid)),
        Err(error) => {
            tell_once(&format!("slot {} is not recovered", slot.number), &error);
            left.push((slot.number, pid));
        }
    };
    let (found, unreadable) = Slot::take_dead(&runs, &held)?;
    for error in unreadable {
        tell_once("passed over", &error);
    }
    let starts = Starts::default();
    for (slot, record) in found {
        let pid = record.pid;
        match decide(&runs, &held, &slot, record, &starts, &mut swept) {
            Ok(record) => dead.push((slot, record)),
            Err(error) => passed_over(&slot, pid, Err(error)),
        }
    }
    drop(held);
    // Until it is let go, one that names nothing looks like that of a supervisor that lingers.
    dead.sort_by_key(|(_, record)| !record.jobs.is_empty());
    for (slot, record) in dead {
        let pid = record.pid;
        let finished = finish(&runs, &slot, record, &starts, &mut swept);
        passed_over(&slot, pid, finished);
    }
    Ok((swept, left))
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
    starts: &Starts,
    swept: &mut Swept,
) -> Result<Record> {
    let others = slots::all(runs)?;
    let mut kept = Vec::new();
    for id in std::mem::take(&mut record.jobs) {
        let elsewhere =
            others.iter().any(|other| other.number != slot.number && other.jobs().contains(&id));
        let fate =
            if elsewhere { Ok(Fate::Dropped) } else { fate(runs, held, &record, starts, &id) };
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

fn fate(runs: &Runs, held: &Lock, record: &Record, starts: &Starts, id: &str) -> Result<Fate> {
    if runs.is_queued(id)? || !runs.is_here(id)? {
        return Ok(Fate::Dropped);
    }
    // One whose story cannot be read may have run: it is not put back, and tried again later.
    match runs.for_change(id).and_then(|()| runs.last_line(id)) {
        // Its supervisor has given it back, or somebody has removed it by half.
        Ok(None) if is_over(runs, id) => Ok(Fate::Dropped),
        // It has removed its story. What was started never is again.
        Ok(None) if starts.has(runs, id)? => Ok(Fate::Kept),
        Ok(None) => {
            wishes::keep_noted(runs, id, &record.kills)?;
            runs.put_back(held, id)?;
            end_waiting::end_put_back(runs, held, id);
            Ok(Fate::Waits)
        }
        Ok(Some(_)) | Err(_) => Ok(Fate::Kept),
    }
}

/// Whether a job was refused, or removed by half: no one will ever start it.
fn is_over(runs: &Runs, id: &str) -> bool {
    runs.request(id).is_err_and(|e| matches!(e.kind, Kind::Gone | Kind::NotFound))
}

/// Ends what ran and has no end, and reports all; returns of how many that cannot be done now. What is left of its
/// processes is killed first, so that an end is an end.
fn finish(
    runs: &Runs,
    slot: &Slot,
    mut record: Record,
    starts: &Starts,
    swept: &mut Swept,
) -> Result<usize> {
    let mut sync = SyncSet::new();
    let mut lines = Vec::new();
    let mut kept = Vec::new();
    let jobs = std::mem::take(&mut record.jobs);
    let remains = remains::end_group(runs, slot, &record);
    for id in jobs {
        match finish_one(runs, slot, &id, (remains, starts), &mut sync, swept) {
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
    slot.write(&record)?;
    Ok(record.jobs.len())
}

/// The end of one of those jobs, as the feed is to have it.
fn finish_one(
    runs: &Runs,
    slot: &Slot,
    id: &str,
    (remains, starts): (Remains, &Starts),
    sync: &mut SyncSet,
    swept: &mut Swept,
) -> Result<RunStatus> {
    spoilt::clear_stories(runs, id)?;
    spoilt::clear_request(runs, id)?;
    runs.for_change(id)?;
    match runs.last_line(id)? {
        Some(line) if line.state == RunState::Stopped => {
            sync.merge(runs.sync_of_end(id)?);
            return Ok(line.of(id));
        }
        None if !starts.has(runs, id)? => {
            return Err(Error::conflict(format!("{id} is to wait again")));
        }
        _ => {}
    }
    // Another one may have it by now, whose slot does not show that.
    let hidden = slots::all(runs)?.iter().any(|seen| seen.unreadable.is_some());
    if hidden && lock::is_locked(&runs.request_path(id))? {
        return Err(Error::conflict("another supervisor runs it"));
    }
    let lost = remains::end(runs, id, remains)?;
    let line = lose(runs, id, Some(slot), &lost, sync)?;
    swept.lost += 1;
    Ok(line)
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
    let mut found = unowned::find(runs)?;
    if !found.failed.is_empty() {
        // Nobody has claimed any of them in this boot.
        for id in &found.failed {
            let cleared = spoilt::clear_stories(runs, id);
            if let Err(error) = cleared.and_then(|()| spoilt::clear_request(runs, id)) {
                tell_once("not recovered after a restart", &error);
            }
        }
        found = unowned::find(runs)?;
    }
    let (ended, failed) = unowned::end_all(runs, held, &found.ids, &Outcome::lost(REBOOTED))?;
    swept.lost += ended;
    for error in found.errors.iter().chain(&failed) {
        tell_once("not recovered after a restart", error);
    }
    // One that cannot be read keeps no other from running, and is looked at again.
    if found.errors.is_empty() && failed.is_empty() {
        files::rewrite_line(held.file(), &boot).at("lock")?;
    }
    Ok(())
}
