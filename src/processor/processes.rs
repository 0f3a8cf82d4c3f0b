//! What a job worker is asked: to start a process, to stop it, to ask about one, or which there are. A
//! process is a run of this machine, named by its id and by when it was started.

use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::accept::{NewRun, accept};
use super::access::sees;
use super::excerpt::{self, Excerpt};
use super::named::{Named, Process, names, running, second_of};
use super::{kill, status, submit, sweep, tree};
use crate::board::files;
use crate::board::root::Root;
use crate::board::runs::{Runs, Stream};
use crate::board::watch;
use crate::cgi::request::LONGEST_WAIT;
use crate::cgi::{Call, Response, alarm};
use crate::error::{Error, Kind, Result};
use crate::model::access::Need;
use crate::model::excerpt::Part;
use crate::model::ids::RunId;
use crate::model::kill::Wish;
use crate::model::request::Spec;
use crate::model::request_fields::{Output, RANGE_FIELD};
use crate::model::run_status::{RunState, RunStatus};
use crate::wire::process::{
    QueryOneRequest, QueryOneResponse, RunningProcess, RunningProcessResponse, StartRequest,
    StartResponse, StopRequest, StopResponse, time_stamp,
};

/// So often an empty line says that a process still runs: servers end an answer of which nothing comes for
/// minutes, and one that nobody reads any more is seen by it.
const BEAT: Duration = Duration::from_secs(30);

/// How long a program is waited for that its supervisor has let go.
const UNTIL_STARTED: Duration = Duration::from_secs(2);

/// Between two looks at it.
const PAUSE: Duration = Duration::from_millis(2);

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
    if Runs::new(call.root).request(&id)?.get(RANGE_FIELD).is_some() {
        return Err(Error::conflict(format!(
            "this process is one task of the range {id}, which would end whole: end the task at its head, by jobs N update kill=1 task=K"
        )));
    }
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
