//! What a job worker is asked: to start a process, to stop it, to ask about one, or which there are. A
//! process is a run of this machine, named by its id and by when it was started.

use std::fs;
use std::io::Write;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::accept::{NewRun, accept};
use super::access::{sees, whose_run};
use super::excerpt::{self, Excerpt};
use super::list::{self, Filter};
use super::{kill, status, submit, sweep, tree};
use crate::auth;
use crate::board::files;
use crate::board::root::Root;
use crate::board::runs::{Runs, Stream};
use crate::board::watch;
use crate::cgi::request::LONGEST_WAIT;
use crate::cgi::{Call, Response, alarm};
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::model::access::{Need, Reach, Whose};
use crate::model::excerpt::Part;
use crate::model::ids::RunId;
use crate::model::kill::Wish;
use crate::model::request::{Output, Spec};
use crate::model::run_status::{RunState, RunStatus};
use crate::wire::process::{
    QueryOneRequest, QueryOneResponse, RunningProcess, RunningProcessResponse, StartRequest,
    StartResponse, StopRequest, StopResponse, second, time_stamp,
};

/// So often an empty line says that a process still runs: servers end an answer of which nothing comes for
/// minutes, and one that nobody reads any more is seen by it.
const BEAT: Duration = Duration::from_secs(30);

/// How long a program is waited for that its supervisor has let go.
const UNTIL_STARTED: Duration = Duration::from_secs(2);

/// Between two looks at it.
const PAUSE: Duration = Duration::from_millis(2);

/// Most processes that have ended among which one is looked for by its name.
const MOST_BY_NAME: usize = 1000;

/// Most that an error names.
const NAMED: usize = 5;

/// The body of a request.
fn body<T: DeserializeOwned>(call: &Call) -> Result<T> {
    let json = call.request.body.json(call.root)?;
    serde_json::from_value(json).map_err(|e| Error::bad(format!("the request: {e}")))
}

/// `POST start`.
pub(super) fn start(call: &Call) -> Result<Response> {
    let (id, request) = submit::with_allowed_id(call, run_of(body(call)?)?)?;
    let by = submit::by(call.who, &id);
    let run = NewRun { id: id.clone(), request, uploads: None, by };
    accept(call.root, vec![run])?
        .into_iter()
        .next()
        .unwrap_or_else(|| Err(Error::new(Kind::Internal, "no answer for the job")))?;
    let (root, place) = (call.root.clone(), format!("jobs/{id}"));
    let stream = move |out: &mut dyn Write| two_answers(&root, &id, out);
    let response = Response::stream("application/x-ndjson", Box::new(stream));
    Ok(response.location("processor", &place))
}

/// The request of the run that is to be made.
fn run_of(asked: StartRequest) -> Result<Value> {
    let StartRequest { command, args, env, dir, request_id } = asked;
    if command.is_empty() {
        return Err(Error::bad("command must name a program"));
    }
    let mut environment = Map::new();
    for pair in env {
        let (name, value) = pair.split_once('=').ok_or_else(|| {
            let name: String = pair.chars().take(40).collect();
            Error::bad(format!("env: {name:?} is not NAME=VALUE"))
        })?;
        environment.insert(name.into(), value.into());
    }
    let argv: Vec<String> = [command].into_iter().chain(args).collect();
    let mut request = json!({"command": argv, "environment": environment, "output": "split"});
    for (field, value) in [("dir", dir), ("request_id", request_id)] {
        if !value.is_empty() {
            request[field] = value.into();
        }
    }
    Ok(request)
}

/// Two lines: the process runs, the process has ended; one where it could not be started.
fn two_answers(root: &Root, id: &RunId, out: &mut dyn Write) -> Result<()> {
    let Some(begun) = reach(root, id, RunState::Running, out)? else { return Ok(()) };
    let begun =
        if begun.state == RunState::Running { past_its_gate(root, id, begun)? } else { begun };
    let outcome = begun.outcome();
    let is_failed = outcome.as_ref().is_some_and(|outcome| outcome.is_not_started());
    let Some(process) = Process::of(id.clone(), &begun).filter(|_| !is_failed) else {
        let why = outcome.and_then(|outcome| outcome.reason).unwrap_or_default();
        let failed = StartResponse {
            error_output: why,
            finished: true,
            time_stamp: time_stamp(second_of(&begun.at)),
            ..StartResponse::default()
        };
        say(&failed, out)?;
        return Ok(());
    };
    let started = StartResponse {
        pid: process.pid,
        time_stamp: time_stamp(process.start),
        ..StartResponse::default()
    };
    if !say(&started, out)? {
        return Ok(());
    }
    let Some(end) = reach(root, id, RunState::Stopped, out)? else { return Ok(()) };
    let (output, error_output) = last_lines(root, id)?;
    let finished = StartResponse {
        pid: process.pid,
        output,
        error_output,
        finished: true,
        time_stamp: time_stamp(second_of(&end.at)),
    };
    say(&finished, out).map(|_| ())
}

/// A line of an answer; `false` where nobody reads it any more.
fn say(answer: &impl Serialize, out: &mut dyn Write) -> Result<bool> {
    let line = files::json_line(answer)?;
    Ok(out.write_all(&line).and_then(|()| out.flush()).is_ok())
}

/// The status once the run is at least there, however long that takes, and an empty line now and then
/// meanwhile. `None` once nobody reads that any more, or may.
fn reach(
    root: &Root,
    id: &RunId,
    state: RunState,
    out: &mut dyn Write,
) -> Result<Option<RunStatus>> {
    loop {
        alarm::put_off_for(BEAT.as_secs());
        let seen = status::wait(root, id, state, BEAT)?;
        if seen.state == state || seen.state == RunState::Stopped {
            return Ok(Some(seen));
        }
        if !watch::may_wait() || out.write_all(b"\n").and_then(|()| out.flush()).is_err() {
            return Ok(None);
        }
        // Its supervisor may have died.
        if let Err(error) = sweep::sweep(root) {
            eprintln!("processor: {}", error.message);
        }
    }
}

/// What is known of a run once its program was called, or could not be: it is said to run a little before.
fn past_its_gate(root: &Root, id: &RunId, mut seen: RunStatus) -> Result<RunStatus> {
    let until = Instant::now() + UNTIL_STARTED;
    while seen.state == RunState::Running
        && !seen.pid.is_some_and(is_a_program)
        && Instant::now() < until
    {
        std::thread::sleep(PAUSE);
        seen = status::look(root, id)?;
    }
    if seen.state == RunState::Stopped { status::of(root, id) } else { Ok(seen) }
}

/// Whether this process is another program than the supervisor whose child it is.
fn is_a_program(pid: i32) -> bool {
    let program = |pid: i32| fs::read_link(format!("/proc/{pid}/exe")).ok();
    let supervisor = tree::look(pid).and_then(|process| program(process.parent));
    program(pid).is_some_and(|own| supervisor.is_some_and(|supervisor| own != supervisor))
}

/// The last lines of both outputs: the second is empty where both go to one log.
fn last_lines(root: &Root, id: &RunId) -> Result<(String, String)> {
    let last = Part::Tail(root.settings.batch_size);
    let [output, error] = excerpts(root, id, [last, last], false)?;
    Ok((output.text, error.text))
}

/// Parts of both outputs.
fn excerpts(root: &Root, id: &RunId, parts: [Part; 2], grows: bool) -> Result<[Excerpt; 2]> {
    let streams = match Spec::for_run(&Runs::new(root).request(id)?)?.output {
        Output::Combined => [Some(Stream::Log), None],
        Output::Split => [Some(Stream::Stdout), Some(Stream::Stderr)],
    };
    let wanted = parts.iter().zip(streams);
    let wanted = wanted.filter(|(part, stream)| **part != Part::None && stream.is_some()).count();
    let most = root.settings.max_answer / wanted.max(1) as u64;
    let read = |stream: Option<Stream>, part: &Part| match stream {
        Some(stream) => excerpt::read(root, id, stream, part, most, grows),
        None => Ok(Excerpt::default()),
    };
    Ok([read(streams[0], &parts[0])?, read(streams[1], &parts[1])?])
}

/// `POST stop`.
pub(super) fn stop(call: &Call) -> Result<Response> {
    let StopRequest { pid, starting_time_stamp, process_name } = body(call)?;
    let named = Named::of(pid, &starting_time_stamp, process_name)?;
    let Process { id, .. } = named.running(call, Need::Tend)?;
    let by = call.who.name.clone();
    let wish = Wish { id: id.clone(), proof: None, grace: None, by, tasks: None };
    kill::kill(call.root, &wish)?;
    let end = status::wait(call.root, &id, RunState::Stopped, LONGEST_WAIT)?;
    let (output, error_output) = last_lines(call.root, &id)?;
    let response = Response::of(StopResponse { output, error_output });
    Ok(match end.state {
        RunState::Stopped => response,
        _ => response.status(202, "Accepted"), // it is told to end, and takes its time
    })
}

/// `POST query_one`.
pub(super) fn query_one(call: &Call) -> Result<Response> {
    let asked: QueryOneRequest = body(call)?;
    let part = |field: &str, text: &str| match text {
        "" => Ok(Part::Tail(call.root.settings.batch_size)),
        text => text.parse().map_err(|why| Error::bad(format!("{field}: {why}"))),
    };
    let parts = [part("outputLog", &asked.output_log)?, part("errorLog", &asked.error_log)?];
    let named = Named::of(asked.pid, &asked.starting_time_stamp, asked.process_name)?;
    let id = named.any(call, Need::Read)?;
    // Before its output: what is written before the end is read after it.
    let known = status::of(call.root, &id)?;
    let running = known.state == RunState::Running;
    let [output, error] = excerpts(call.root, &id, parts, running)?;
    let outcome = known.outcome();
    let next = |excerpt: &Excerpt| excerpt.next.map(|next| next.to_string());
    let (next_output_log, next_error_log) = (next(&output), next(&error));
    Ok(Response::of(QueryOneResponse {
        output: output.text,
        error_output: error.text,
        running,
        exit_code: outcome.as_ref().map(|outcome| outcome.exit_code()),
        reason: outcome.and_then(|outcome| outcome.reason),
        next_output_log,
        next_error_log,
    }))
}

/// `GET query_running`.
pub(super) fn query_running(call: &Call) -> Result<Response> {
    let mut data_table = Vec::new();
    for process in running(call.root)?.into_iter().filter(|process| sees(call, &process.id)) {
        data_table.push(RunningProcess {
            pid: process.pid,
            starting_time_stamp: time_stamp(process.start),
            process_name: names(call.root, &process.id).into_iter().next().unwrap_or_default(),
        });
    }
    Ok(Response::of(RunningProcessResponse { data_table }))
}

/// A process that runs or ran here.
struct Process {
    pid: i32,
    /// When it was started, in Unix seconds.
    start: u64,
    id: RunId,
}

impl Process {
    /// That of a run; `None` where none was started.
    fn of(id: RunId, status: &RunStatus) -> Option<Process> {
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

fn second_of(at: &str) -> u64 {
    clock::unix_seconds(clock::parse_rfc3339(at).unwrap_or(SystemTime::UNIX_EPOCH))
}

/// Those that run, the newest first. One of a range is a task's, and has no name of its own here.
fn running(root: &Root) -> Result<Vec<Process>> {
    let filter = Filter { state: Some(RunState::Running), ..Filter::default() };
    let found = list::list(root, &filter)?.into_iter();
    Ok(found.filter_map(|(id, known)| Process::of(id, &known.ok()?)).collect())
}

/// What a run's process is called, as people see it first: by the job's name, by its program, by that
/// without the path. None where its request cannot be read.
fn names(root: &Root, id: &RunId) -> Vec<String> {
    let spec = Runs::new(root).request(id).and_then(|request| Spec::for_run(&request));
    let Ok(spec) = spec else { return Vec::new() };
    let program = spec.commands.into_iter().next().and_then(|argv| argv.into_iter().next());
    let base = program.as_ref().and_then(|path| path.rsplit('/').next()).map(str::to_string);
    spec.name.into_iter().chain(program).chain(base).collect()
}

/// Which process is meant.
struct Named {
    pid: Option<i32>,
    start: Option<u64>,
    name: Option<String>,
}

impl Named {
    fn of(pid: i32, start: &str, name: String) -> Result<Named> {
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
    fn running(&self, call: &Call, need: Need) -> Result<Process> {
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
    fn any(&self, call: &Call, need: Need) -> Result<RunId> {
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
        let mut linked = list::processes(&Runs::new(call.root), self.pid, self.start)?;
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
