//! Slots: what each supervisor of the node has claimed, and the room that it uses.
//!
//! `slot/K` is a small file that is never removed. Its supervisor holds its flock for life, so a
//! locked slot is a live supervisor and its resources are in use; a free one that names jobs was
//! left by a crash. Room and recovery cost O(slots), however many jobs there are. Slots are taken
//! and written under the board's lock.
//!
//! The record is one line of fixed length, rewritten in place by one write: whole for every
//! reader of this boot. A power loss may tear it; what happens at the first start of a boot does
//! not rely on it.
//!
//! A slot that cannot be opened or read is passed over by everybody: nothing is known of it, so it
//! takes no room, keeps nothing from running, and proves of no job that nobody has it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::files;
use super::lock::{self, Lock};
use super::runs::Runs;
use crate::error::{At, Error, Kind, Result, is_shortage};
use crate::model::ids;
use crate::model::kill::Killed;
use crate::model::resources::Resources;
use crate::model::tasks::TaskSet;

/// Length of a record: room for two claims, each of [`MOST_CLAIMS`] ids of 64 characters, of jobs that ask
/// for cores and memory, or for fewer that ask for much else; and one page, which the kernel writes whole
/// whatever happens to the writer.
const LINE: usize = 4096;

/// How the field of a record begins that few have.
const KILLS: &[u8] = b"\"kills\":";

/// Most jobs that a supervisor claims at a time.
pub const MOST_CLAIMS: usize = 24;

/// Longest path of a group.
pub const LONGEST_GROUP: usize = 400;

const _: () = assert!(2 * MOST_CLAIMS * 67 + LONGEST_GROUP + 256 < LINE);

/// What a slot's file says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The supervisor.
    pub pid: i32,
    /// The boot during which it was written.
    pub boot: String,
    /// What its jobs are given; they run one after another.
    pub resources: Resources,
    /// Claimed, and not yet reported in the feed.
    pub jobs: Vec<String>,
    /// The group that all their processes are in; `None` where there is none, as before there were
    /// any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// The processor cores that they alone have; none where cores are shared.
    #[serde(default, skip_serializing_if = "TaskSet::is_empty")]
    pub cpus: TaskSet,
    /// The GPUs that they alone have.
    #[serde(default, skip_serializing_if = "TaskSet::is_empty")]
    pub gpus: TaskSet,
    /// Which of them somebody wants to end; only what a full disk kept from the job's directory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kills: Vec<Kill>,
    /// Whether a newer program wrote it, and more in it than this one knows: then it, and its jobs,
    /// are left to that.
    #[serde(skip)]
    pub newer: bool,
}

/// A kill that is noted in a slot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Kill {
    /// The job.
    pub id: String,
    /// Of a range: which tasks, if not all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<TaskSet>,
    /// By whom.
    #[serde(flatten)]
    pub killed: Killed,
}

impl Record {
    /// Reads the line. Of one that is whole and not known what is known; what takes no room by that
    /// is counted with none. `None` for a torn or empty one.
    fn parse(line: &[u8]) -> Option<Record> {
        if let Ok(record) = serde_json::from_slice(line) {
            return Some(record);
        }
        let Ok(Value::Object(map)) = serde_json::from_slice(line) else { return None };
        let field = |name: &str| map.get(name).cloned().unwrap_or_default();
        Some(Record {
            pid: serde_json::from_value(field("pid")).unwrap_or(0),
            boot: serde_json::from_value(field("boot")).unwrap_or_default(),
            resources: serde_json::from_value(field("resources")).unwrap_or(Resources::NONE),
            jobs: serde_json::from_value(field("jobs")).unwrap_or_default(),
            kills: Vec::new(),
            cgroup: serde_json::from_value(field("cgroup")).unwrap_or_default(),
            cpus: serde_json::from_value(field("cpus")).unwrap_or_default(),
            gpus: serde_json::from_value(field("gpus")).unwrap_or_default(),
            newer: true,
        })
    }

    /// Whether the slot has room for it.
    pub fn fits(&self) -> bool {
        self.line().is_ok_and(|line| line.is_some())
    }

    fn is_free(&self) -> bool {
        self.jobs.is_empty() && !self.newer
    }

    /// Takes over what others have noted meanwhile, of the jobs that it names.
    fn keep_kills(&mut self, noted: Vec<Kill>) {
        self.kills = noted.into_iter().filter(|kill| self.jobs.contains(&kill.id)).collect();
    }

    /// Adds a kill; one that was asked for before is that one once more. One of other tasks by who was
    /// the last to ask for some of the job, as patiently, is one with that: there is little room.
    fn add_kill(&mut self, Kill { id, tasks, killed }: &Kill) {
        let same = |known: &Kill| known.id == *id && known.tasks == *tasks;
        let is_like = |known: &Kill| {
            let both = known.tasks.is_some() && tasks.is_some();
            both && known.killed.by == killed.by && known.killed.grace() == killed.grace()
        };
        let last = || self.kills.iter().rposition(|known| known.id == *id);
        let at = self.kills.iter().position(same);
        let at = at.or_else(|| last().filter(|at| self.kills.get(*at).is_some_and(is_like)));
        match at.and_then(|at| self.kills.get_mut(at)) {
            Some(known) => {
                known.killed = killed.clone().again(Some(known.killed.clone()));
                if let (Some(all), Some(more)) = (&mut known.tasks, tasks) {
                    all.add(more);
                }
            }
            None => self.kills.push(Kill {
                id: id.clone(),
                tasks: tasks.clone(),
                killed: killed.clone(),
            }),
        }
    }

    /// The line, if it has room.
    fn line(&self) -> Result<Option<Vec<u8>>> {
        let mut line = files::json_line(self)?;
        line.pop();
        let fits = line.len() < LINE;
        line.resize(LINE - 1, b' ');
        line.push(b'\n');
        Ok(fits.then_some(line))
    }
}

/// A slot that is held. Let go when dropped.
#[derive(Debug)]
pub struct Slot {
    file: File,
    path: PathBuf,
    /// Its number.
    pub number: u64,
}

/// A slot in which a dead supervisor left claims, and what it says of them.
pub type Dead = (Slot, Record);

/// A slot as others see it.
#[derive(Debug)]
pub struct Seen {
    /// Its number.
    pub number: u64,
    /// Whether its supervisor lives.
    pub live: bool,
    /// `None` where nothing that is whole was written yet.
    pub record: Option<Record>,
    /// Why nothing is known of it, where that is so.
    pub unreadable: Option<Error>,
}

impl Seen {
    /// Whether its supervisor has nothing to do and waits for more. Without the board's lock also
    /// true for one that is just making its first claim: it looks at the queue after that.
    pub fn lingers(&self) -> bool {
        self.live && self.record.as_ref().is_some_and(Record::is_free)
    }

    /// The claims of a live supervisor, or those that a dead one left.
    pub fn jobs(&self) -> &[String] {
        self.record.as_ref().map_or(&[], |record| &record.jobs)
    }
}

impl Slot {
    fn open(runs: &Runs, number: u64) -> io::Result<Slot> {
        let path = path(runs, number);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o640)
            .open(&path)?;
        Ok(Slot { file, path, number })
    }

    /// Takes the first free slot that no crash left claims in. The caller holds the board's lock.
    pub fn take(runs: &Runs, _held: &Lock) -> Result<Slot> {
        for number in 1.. {
            match Slot::try_take(runs, number) {
                Ok(Some(slot)) => return Ok(slot),
                Ok(None) => {}
                // Of one that is there nothing can be known; one that cannot be made is the end.
                Err(error) => {
                    let path = path(runs, number);
                    if is_shortage(&error) || fs::symlink_metadata(&path).is_err() {
                        return Err(error).at(&path);
                    }
                }
            }
        }
        Err(Error::new(Kind::Unavailable, "no slot is free"))
    }

    fn try_take(runs: &Runs, number: u64) -> io::Result<Option<Slot>> {
        let slot = Slot::open(runs, number)?;
        let is_ours =
            lock::try_lock(&slot.file)? && slot.try_read()?.is_none_or(|record| record.is_free());
        Ok(is_ours.then_some(slot))
    }

    /// Takes every slot in which a dead supervisor left claims; also the errors of those that cannot
    /// be looked at. The caller holds the board's lock and may let it go afterwards: whoever holds
    /// the slot is the one who recovers it.
    pub fn take_dead(runs: &Runs, _held: &Lock) -> Result<(Vec<Dead>, Vec<Error>)> {
        let (mut dead, mut failed) = (Vec::new(), Vec::new());
        for number in numbers(runs)? {
            match Slot::try_take_dead(runs, number) {
                Ok(taken) => dead.extend(taken),
                Err(error) => failed.push(Error::io(&path(runs, number), &error)),
            }
        }
        Ok((dead, failed))
    }

    fn try_take_dead(runs: &Runs, number: u64) -> io::Result<Option<Dead>> {
        let slot = Slot::open(runs, number)?;
        let named = slot.try_read()?.filter(|record| !record.jobs.is_empty() && !record.newer);
        let Some(record) = named else { return Ok(None) };
        Ok(lock::try_lock(&slot.file)?.then_some((slot, record)))
    }

    /// What the slot says.
    pub fn read(&self) -> Result<Option<Record>> {
        self.try_read().at(&self.path)
    }

    fn try_read(&self) -> io::Result<Option<Record>> {
        let mut bytes = [0u8; LINE];
        let length = self.file.read_at(&mut bytes, 0)?;
        Ok(Record::parse(bytes[..length].trim_ascii()))
    }

    /// Writes the record, with the kills that others have noted of its jobs. The caller holds the
    /// board's lock. Not synced.
    pub fn write(&self, record: &Record) -> Result<()> {
        let noted = self.kills()?;
        if !noted.is_empty() {
            let mut record = record.clone();
            record.keep_kills(noted);
            if let Some(line) = record.line()? {
                return self.file.write_all_at(&line, 0).at(&self.path);
            }
        }
        let full = || Error::new(Kind::Internal, "too many claims for one slot");
        self.file.write_all_at(&record.line()?.ok_or_else(full)?, 0).at(&self.path)
    }

    /// The kills that are noted here. With none, which is usual, nothing is parsed.
    pub fn kills(&self) -> Result<Vec<Kill>> {
        let mut bytes = [0u8; LINE];
        let length = self.file.read_at(&mut bytes, 0).at(&self.path)?;
        let text = bytes[..length].trim_ascii();
        if !text.windows(KILLS.len()).any(|part| part == KILLS) {
            return Ok(Vec::new());
        }
        Ok(serde_json::from_slice::<Record>(text).map(|record| record.kills).unwrap_or_default())
    }

    /// The open file, to be synced.
    pub fn file(&self) -> Result<(File, PathBuf)> {
        Ok((self.file.try_clone().at(&self.path)?, self.path.clone()))
    }
}

/// Where a slot lies, for a person.
pub fn path(runs: &Runs, number: u64) -> PathBuf {
    runs.path("slot").join(number.to_string())
}

fn numbers(runs: &Runs) -> Result<Vec<u64>> {
    let mut numbers: Vec<u64> =
        files::names(&runs.path("slot"))?.iter().filter_map(|n| ids::parse_number(n)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// All slots, those too of which nothing is known. A snapshot: exact under the board's lock.
///
/// Errors: what this process lacks says nothing of a slot.
pub fn all(runs: &Runs) -> Result<Vec<Seen>> {
    let mut seen = Vec::new();
    for number in numbers(runs)? {
        match look(runs, number) {
            Ok(found) => seen.extend(found),
            Err(error) if is_shortage(&error) => return Err(error).at(path(runs, number)),
            Err(error) => {
                let unreadable = Some(Error::io(&path(runs, number), &error));
                seen.push(Seen { number, live: false, record: None, unreadable });
            }
        }
    }
    Ok(seen)
}

/// A slot, opened to read alone: the group may look. `None` where there is none.
fn look(runs: &Runs, number: u64) -> io::Result<Option<Seen>> {
    let path = path(runs, number);
    let Some(file) = files::gone_is_fine(files::open(&path))? else { return Ok(None) };
    let slot = Slot { file, path, number };
    let live = !lock::is_free(&slot.file)?;
    Ok(Some(Seen { number, live, record: slot.try_read()?, unreadable: None }))
}

/// Notes a kill in the record of the live supervisor that has the job: in place, so that it needs no
/// space on a full disk. Durable when this returns; `false` if none has it, or its record has no room
/// left. The caller holds the board's lock.
pub fn note_kill(runs: &Runs, _held: &Lock, kill: &Kill) -> Result<bool> {
    for seen in all(runs)?.into_iter().filter(|seen| seen.live && seen.jobs().contains(&kill.id)) {
        let slot = Slot::open(runs, seen.number).at(path(runs, seen.number))?;
        let Some(mut record) = seen.record else { continue };
        record.add_kill(kill);
        let Some(line) = record.line()? else { return Ok(false) };
        slot.file.write_all_at(&line, 0).at(&slot.path)?;
        files::sync(&slot.file, &slot.path)?;
        return Ok(true);
    }
    Ok(false)
}

/// A slot in which a dead supervisor left claims: its number, and that supervisor.
pub type DeadSlot = (u64, i32);

/// All of those. Until they are recovered, what is left of their jobs uses what those were given.
pub fn dead(seen: &[Seen]) -> impl Iterator<Item = DeadSlot> {
    let left = seen.iter().filter(|slot| !slot.live && !slot.jobs().is_empty());
    let records = left.filter_map(|slot| Some((slot.number, slot.record.as_ref()?)));
    records.filter(|(_, record)| !record.newer).map(|(number, record)| (number, record.pid))
}

/// The cores and the GPUs that live supervisors' jobs have for themselves, `except` left out.
pub fn units(seen: &[Seen], except: Option<u64>) -> (TaskSet, TaskSet) {
    let others = || seen.iter().filter(|slot| slot.live && Some(slot.number) != except);
    let records =
        || others().filter_map(|slot| slot.record.as_ref()).filter(|r| !r.jobs.is_empty());
    (
        TaskSet::union(records().map(|record| &record.cpus)),
        TaskSet::union(records().map(|record| &record.gpus)),
    )
}

/// What the live supervisors use, `except` left out.
pub fn used(seen: &[Seen], except: Option<u64>) -> Resources {
    seen.iter()
        .filter(|slot| slot.live && Some(slot.number) != except)
        .filter_map(|slot| slot.record.as_ref().filter(|record| !record.jobs.is_empty()))
        .fold(Resources::NONE, |sum, record| sum.plus(&record.resources))
}
