//! The routes of `processor`.

use serde_json::json;

use super::access::{seen, sees, whose_run};
use super::list::{self, Filter};
use super::submit;
use super::{ack, files as work, info, log, processes, progress, report, status, tasks};
use crate::auth;
use crate::board::runs::{Runs, run_id};
use crate::cgi::request::LONGEST_WAIT;
use crate::cgi::{Call, Key, Method, Response, Route, log as asked};
use crate::check;
use crate::error::{Error, Kind, Result};
use crate::model::access::{Need, Reach};
use crate::model::ids::RunId;
use crate::model::kill::Wish;
use crate::model::log::LogQuery;
use crate::model::request::hide_values;
use crate::model::run_status::{RunState, RunStatus};
use crate::tokens;
use crate::wire::ack::{self as acks, Ack, Acknowledged};
use crate::wire::feed::Since;
use crate::wire::kill::{self as kills, Kill};
use crate::wire::log::OFFSET;
use crate::wire::status::{Entry, IDS, Statuses};
use crate::wire::work::Names;
use crate::wire::{feed, list as lists, node, process, run as runs};

const fn get(
    pattern: &'static str,
    query: &'static [Key],
    help: &'static str,
    handler: fn(&Call) -> Result<Response>,
) -> Route {
    Route { method: Method::Get, pattern, need: Need::Look, query, body: false, help, handler }
}

/// One that shows what is its owner's.
const fn get_own(
    pattern: &'static str,
    query: &'static [Key],
    help: &'static str,
    handler: fn(&Call) -> Result<Response>,
) -> Route {
    Route { need: Need::Read, ..get(pattern, query, help, handler) }
}

/// One that is asked by a body.
const fn asked_by_post(
    pattern: &'static str,
    need: Need,
    help: &'static str,
    handler: fn(&Call) -> Result<Response>,
) -> Route {
    Route { method: Method::Post, pattern, need, query: &[], body: true, help, handler }
}

const TASK: Key = Key::new("task", "K", "of this task of a range");

const LOG_QUERY: &[Key] = &asked::keys_with_follow(TASK);

/// Most jobs in a list, unless `limit` says otherwise.
const LONGEST_LIST: usize = 1000;

/// All of them.
pub const ROUTES: &[Route] = &[
    Route {
        method: Method::Post,
        pattern: runs::PATH,
        need: Need::Run,
        query: &[Key::new(
            "wait",
            "SECONDS",
            "tell its start and its end, or what is known by then",
        )],
        body: true,
        help: "accept a job (JSON object), or an array of jobs",
        handler: submit::new,
    },
    get(
        "jobs",
        &[
            Key::new("state", "STATE", "queued, running or stopped"),
            Key::new("pid", "PID", "one of whose programs had this process id"),
            Key::new("start", "SECONDS", "one of whose programs was started in this Unix second"),
            Key::new("limit", "N", "at most so many; 1000 if absent"),
            Key::new("format", "json|table", "statuses instead of ids"),
        ],
        "ids of the jobs, newest first",
        all,
    ),
    get(
        "jobs/status",
        &[
            Key::new(IDS, "A,B,C", "whose; the newest if absent"),
            Key::new("limit", "N", "without ids: at most so many; 1000 if absent"),
        ],
        "statuses of several jobs",
        statuses,
    ),
    get_own("jobs/:id", &[], "the request and the status", record),
    get(
        "jobs/:id/status",
        &[Key::new("wait", "SECONDS", "answer when it has ended, or then"), TASK],
        "its status",
        one_status,
    ),
    Route {
        method: Method::Post,
        pattern: "jobs/:id/status",
        need: Need::Report,
        query: &[],
        body: true,
        help: "the job's own word on its progress: text, or JSON",
        handler: say,
    },
    get_own("jobs/:id/log", LOG_QUERY, "its output", output),
    get_own("jobs/:id/files", &[], "names of the files in its work directory", work_files),
    get_own("jobs/:id/files/:name", &[], "one of those files", work_file),
    Route {
        method: Method::Post,
        pattern: "jobs/:id/kill",
        need: Need::Tend,
        query: &[
            Key::new("grace", "SECONDS", "between SIGTERM and SIGKILL"),
            Key::new(kills::BY, "WHO", "on whose behalf; heads say so"),
            Key::new("task", "3,5-9", "only these tasks of a range"),
            Key::new("proof", "DIGEST", "only the run that shows this; heads say so"),
            Key::new("forbid", "1", "end nothing: only refuse an id that is unknown here"),
        ],
        body: false,
        help: "end it: SIGTERM, then SIGKILL; an unknown id will be refused",
        handler: kill_one,
    },
    Route {
        method: Method::Post,
        pattern: acks::PATH,
        need: Need::Tend,
        query: &[],
        body: true,
        help: "the results of {\"nodejobs\": [ID...]} are held by the head",
        handler: acknowledge,
    },
    get(node::INFO, &[], "what the node has, and has free", |call| {
        Ok(Response::of(info::info(call.root)?))
    }),
    get(
        "events",
        &[
            Key::new(feed::SINCE, "CURSOR", "what changed after it; without one, where it is now"),
            Key::new("wait", "SECONDS", "answer when something changes, or then"),
        ],
        "what changed, and the cursor to go on from",
        events,
    ),
    asked_by_post(
        process::START,
        Need::Run,
        "run a program: told when it runs, and when it ended",
        processes::start,
    ),
    asked_by_post(
        process::STOP,
        Need::Tend,
        "end a process, named by its id or by its name",
        processes::stop,
    ),
    asked_by_post(
        process::QUERY_ONE,
        Need::Read,
        "whether a process runs, and parts of its output",
        processes::query_one,
    ),
    get(process::QUERY_RUNNING, &[], "the processes that run", processes::query_running),
    Route {
        body: false,
        ..asked_by_post(process::QUERY_RUNNING, Need::Look, "the same", processes::query_running)
    },
    check::route(|call| check::answer(call, super::check::check)),
    tokens::LIST,
    tokens::NEW,
    tokens::REMOVE,
];

/// Most jobs in a list.
fn limit(call: &Call) -> Result<usize> {
    Ok(call.request.number("limit")?.unwrap_or(LONGEST_LIST))
}

fn all(call: &Call) -> Result<Response> {
    let state = call.request.param("state").map(|text| {
        lists::state(text).ok_or_else(|| Error::bad("state must be queued, running or stopped"))
    });
    let filter = Filter {
        state: state.transpose()?,
        pid: call.request.number("pid")?,
        start: call.request.number("start")?,
        limit: Some(limit(call)?),
    };
    let found = list::list(call.root, &filter)?;
    match call.request.param("format") {
        Some("json") => Ok(entries(call, found)),
        None | Some("text") => Ok(Response::text(lists::lines(found.iter().map(|(id, _)| id)))),
        Some(_) => Err(Error::bad("format must be json or text")),
    }
}

fn statuses(call: &Call) -> Result<Response> {
    let Some(named) = call.request.param(IDS) else {
        let filter = Filter { limit: Some(limit(call)?), ..Filter::default() };
        return Ok(entries(call, list::list(call.root, &filter)?));
    };
    let named = Statuses::read(named).ids;
    let ids: Vec<Result<RunId>> = named.iter().map(|id| run_id(id)).collect();
    let known: Vec<RunId> = ids.iter().flatten().cloned().collect();
    let mut found = report::statuses(call.root, &known)?.into_iter();
    let missing = || Err(Error::new(Kind::Internal, "no status of the job"));
    let statuses = ids.into_iter().map(|id| id.and_then(|_| found.next().unwrap_or_else(missing)));
    let of = |status: Result<RunStatus>| status.map(|status| seen(call, status));
    let all = named.iter().zip(statuses).map(|(id, status)| Entry::of(*id, of(status)));
    Ok(Response::of(all.collect::<Vec<_>>()))
}

/// What is said of the jobs of a list.
fn entries(call: &Call, found: Vec<(RunId, Result<RunStatus>)>) -> Response {
    let entry = |(id, known): (RunId, Result<RunStatus>)| {
        Entry::of(&*id, known.map(|status| seen(call, status)))
    };
    Response::of(found.into_iter().map(entry).collect::<Vec<_>>())
}

/// The job that the path names; 404 for what cannot be an id.
fn id_of(call: &Call) -> Result<RunId> {
    run_id(call.value(0))
}

fn record(call: &Call) -> Result<Response> {
    let id = &id_of(call)?;
    let mut request = Runs::new(call.root).request(id)?;
    if let Some(token) = request.pointer_mut("/environment/CORKBOARD_TOKEN") {
        *token = json!("(not shown)");
    }
    if let Some(request) = request.as_object_mut().filter(|_| !call.who.sees_values()) {
        hide_values(request);
    }
    let status = progress::shown(call.root, status::of(call.root, id)?)?;
    Ok(Response::of(json!({"id": **id, "request": request, "status": status})))
}

fn one_status(call: &Call) -> Result<Response> {
    let wait = call.request.wait()?.unwrap_or_default();
    if let Some(task) = call.request.task()?.filter(|_| sees(call, call.value(0))) {
        return Ok(Response::of(tasks::wait(call.root, &id_of(call)?, task, wait)?));
    }
    let found = status::wait(call.root, &id_of(call)?, RunState::Stopped, wait)?;
    let found = progress::shown(call.root, found)?;
    Ok(Response::of(seen(call, found)))
}

fn say(call: &Call) -> Result<Response> {
    call.who.check_speaks_for(call.value(0))?;
    let word = call.request.body.word()?;
    Ok(Response::of(progress::say(call.root, &id_of(call)?, word)?))
}

fn output(call: &Call) -> Result<Response> {
    let query = asked::query(call.request)?;
    let follow = asked::is_followed(call.request, &query)?;
    let id = &id_of(call)?;
    // Also where it is followed: what is wrong with the request is said before the stream.
    let piece = log::read(call.root, id, &query)?;
    let offset = if follow { piece.next - piece.bytes.len() as u64 } else { piece.next };
    let response = if follow {
        let (root, id, command) = (call.root.clone(), id.clone(), call.request.command);
        let query = LogQuery { offset, tail: None, ..query };
        Response::stream(
            "text/plain; charset=utf-8",
            Box::new(move |out| match command {
                true => log::follow_on(&root, &id, query, out),
                false => log::follow(&root, &id, query, LONGEST_WAIT, out).map(|_| ()),
            }),
        )
    } else {
        Response::text(piece.bytes)
    };
    Ok(response.header(OFFSET, offset.to_string()))
}

fn work_files(call: &Call) -> Result<Response> {
    Ok(Response::of(Names { files: work::names(call.root, &id_of(call)?)? }))
}

fn work_file(call: &Call) -> Result<Response> {
    let (file, length) = work::open(call.root, &id_of(call)?, call.value(1))?;
    Ok(Response::reader(Box::new(file), length))
}

fn kill_one(call: &Call) -> Result<Response> {
    call.who.check_run_id(call.value(0))?;
    // A head says on whose behalf it asks; the token says which head.
    if call.request.param(kills::BY).is_some() && !call.who.may_be_head {
        return Err(Error::new(Kind::Forbidden, "only a head says on whose behalf it asks"));
    }
    let Kill { by, grace, tasks, proof, forbid } = Kill::read(|name| call.request.param(name))?;
    let (id, by) = (id_of(call)?, by.unwrap_or_else(|| call.who.name.clone()));
    if forbid {
        return Ok(Response::of(super::kill::forbid(call.root, &id, &by)?));
    }
    Ok(Response::of(report::kill(call.root, &Wish { id, proof, grace, by, tasks })?))
}

fn acknowledge(call: &Call) -> Result<Response> {
    let ack = Ack::read(call.request.body.json(call.root)?)?;
    let mut theirs = Vec::new();
    for id in ack.ids() {
        call.who.check_run_id(id)?;
        if call.who.reach(Need::Tend) != Reach::All {
            match whose_run(call, id) {
                Err(e) if matches!(e.kind, Kind::NotFound | Kind::Gone) => continue,
                whose => auth::allow_to(call.who, Need::Tend, whose?)?,
            }
        }
        theirs.push(id);
    }
    let acknowledged = ack::acknowledge(call.root, theirs.into_iter())?;
    Ok(Response::of(Acknowledged { acknowledged }))
}

fn events(call: &Call) -> Result<Response> {
    let wait = call.request.wait()?.unwrap_or_default();
    let since = Since { cursor: call.request.param(feed::SINCE), wait };
    let mut page = report::feed(call.root, &since)?;
    page.events = page.events.into_iter().map(|status| seen(call, status)).collect();
    Ok(Response::of(page))
}
