//! Which process a job worker is asked about: by its pid, by when it was started, or by its name.

use std::time::SystemTime;

use super::access::whose_run;
use super::list::{self, Filter};
use super::status;
use crate::auth;
use crate::board::links;
use crate::board::root::Root;
use crate::board::runs::Runs;
use crate::cgi::Call;
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::model::access::{Need, Reach, Whose};
use crate::model::ids::RunId;
use crate::model::request::Spec;
use crate::model::run_status::{RunState, RunStatus};
use crate::wire::process::second;

/// Most processes that have ended among which one is looked for by its name.
const MOST_BY_NAME: usize = 1000;

/// Most that an error names.
const NAMED: usize = 5;

/// A process that runs or ran here.
pub(super) struct Process {
    /// Its pid.
    pub(super) pid: i32,
    /// When it was started, in Unix seconds.
    pub(super) start: u64,
    /// The run whose process it is.
    pub(super) id: RunId,
}

impl Process {
    /// That of a run; `None` where none was started.
    pub(super) fn of(id: RunId, status: &RunStatus) -> Option<Process> {
        let start = match status.state {
            RunState::Running => &status.at,
            _ => status.started.as_ref()?,
        };
        Some(Process { pid: status.pid?, start: second_of(start), id })
    }

    fn words(&self) -> String {
        format!("{} (started at {})", self.pid, self.start)
    }
}

/// When that was, in Unix seconds.
pub(super) fn second_of(at: &str) -> u64 {
    clock::unix_seconds(clock::parse_rfc3339(at).unwrap_or(SystemTime::UNIX_EPOCH))
}

/// Those that run, the newest first. One of a range is a task's, and has no name of its own here.
pub(super) fn running(root: &Root) -> Result<Vec<Process>> {
    let filter = Filter { state: Some(RunState::Running), ..Filter::default() };
    let found = list::list(root, &filter)?.into_iter();
    Ok(found.filter_map(|(id, known)| Process::of(id, &known.ok()?)).collect())
}

/// What a run's process is called, as people see it first: by the job's name, by its program, by that
/// without the path. None where its request cannot be read.
pub(super) fn names(root: &Root, id: &RunId) -> Vec<String> {
    let spec = Runs::new(root).request(id).and_then(|request| Spec::for_run(&request));
    let Ok(spec) = spec else { return Vec::new() };
    let program = spec.commands.into_iter().next().and_then(|argv| argv.into_iter().next());
    let base = program.as_ref().and_then(|path| path.rsplit('/').next()).map(str::to_string);
    spec.name.into_iter().chain(program).chain(base).collect()
}

/// Which process is meant.
pub(super) struct Named {
    pid: Option<i32>,
    start: Option<u64>,
    name: Option<String>,
}

impl Named {
    /// What a request says of it.
    pub(super) fn of(pid: i32, start: &str, name: String) -> Result<Named> {
        let name = Some(name).filter(|name| !name.is_empty());
        let pid = Some(pid).filter(|pid| *pid != 0);
        if pid.is_none() && name.is_none() {
            return Err(Error::bad("say which process: by its pid, or by its processName"));
        }
        Ok(Named { pid, start: second(start)?, name })
    }

    fn fits(&self, root: &Root, process: &Process) -> bool {
        self.pid.is_none_or(|pid| pid == process.pid)
            && self.start.is_none_or(|start| start == process.start)
            && self.name.as_ref().is_none_or(|name| names(root, &process.id).contains(name))
    }

    fn words(&self) -> String {
        let name = self.name.iter().map(|name| format!(" {name:?}"));
        let pid = self.pid.iter().map(|pid| format!(" {pid}"));
        let start = self.start.iter().map(|start| format!(" started at {start}"));
        name.chain(pid).chain(start).collect()
    }

    /// The one that runs. 404 where there is none; 409 where it has ended, or several fit; 403 where it is
    /// another user's: by a name alone those are not found.
    pub(super) fn running(&self, call: &Call, need: Need) -> Result<Process> {
        let fitting = running(call.root)?.into_iter();
        let fitting = fitting.filter(|process| self.fits(call.root, process));
        if let Some(process) = self.one(call, need, fitting.collect())? {
            return Ok(process);
        }
        if let Some(ended) = self.ended(call, need)? {
            let reason = status::of(call.root, &ended.id)?.outcome();
            let reason = reason.and_then(|end| end.reason).unwrap_or_else(|| "exit 0".into());
            let why = format!("process {} does not run any more: {reason}", ended.words());
            return Err(Error::conflict(why));
        }
        Err(Error::not_found(format!("no process{} runs here, or ran", self.words())))
    }

    /// The run of the one that runs, or else of the last one that ran.
    pub(super) fn any(&self, call: &Call, need: Need) -> Result<RunId> {
        let fitting = running(call.root)?.into_iter();
        let fitting = fitting.filter(|process| self.fits(call.root, process));
        if let Some(process) = self.one(call, need, fitting.collect())? {
            return Ok(process.id);
        }
        let ended = self.ended(call, need)?;
        let absent = || Error::not_found(format!("no process{} runs here, or ran", self.words()));
        ended.map(|ended| ended.id).ok_or_else(absent)
    }

    /// The one of these that may be meant.
    fn one(&self, call: &Call, need: Need, fitting: Vec<Process>) -> Result<Option<Process>> {
        let mut theirs = self.allowed(call, need, fitting.into_iter())?;
        let first = theirs.next();
        let Some(second) = theirs.next() else { return Ok(first) };
        let all = first.iter().chain([&second]).chain(theirs.as_slice());
        let words: Vec<String> = all.take(NAMED).map(Process::words).collect();
        let why = format!(
            "several processes are called so: say which by its pid, {}",
            words.join(" or ")
        );
        Err(Error::conflict(why))
    }

    /// Those to which whoever asks may do that. One that is named by its id is refused, and not passed over.
    fn allowed(
        &self,
        call: &Call,
        need: Need,
        found: impl Iterator<Item = Process>,
    ) -> Result<std::vec::IntoIter<Process>> {
        let mut theirs = Vec::new();
        for process in found {
            let whose = match call.who.reach(need) {
                Reach::All => Whose::Own,
                _ => match whose_run(call, &process.id) {
                    Err(e) if matches!(e.kind, Kind::NotFound | Kind::Gone) => continue,
                    whose => whose?,
                },
            };
            match self.pid {
                Some(_) => auth::allow_to(call.who, need, whose)?,
                None if !call.who.may(need, whose) => continue,
                None => {}
            }
            theirs.push(process);
        }
        Ok(theirs.into_iter())
    }

    /// The last one that ended.
    fn ended(&self, call: &Call, need: Need) -> Result<Option<Process>> {
        let mut linked = links::list(&Runs::new(call.root), self.pid, self.start)?;
        linked.sort_by_key(|process| std::cmp::Reverse(process.start));
        let processes = linked
            .into_iter()
            .map(|linked| Process { pid: linked.pid, start: linked.start, id: linked.id })
            .take(if self.pid.is_some() { usize::MAX } else { MOST_BY_NAME });
        let mut fitting = processes.filter(|process| self.fits(call.root, process));
        match self.pid {
            Some(_) => Ok(self.allowed(call, need, fitting.next().into_iter())?.next()),
            None => Ok(self.allowed(call, need, fitting)?.next()),
        }
    }
}
