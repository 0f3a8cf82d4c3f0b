//! The routes of `processor`.

use serde::Deserialize;
use serde_json::{Value, json};

use super::list::{self, Filter};
use super::submit::{self, no_answer};
use super::{ack, files as work, info, log, progress, report, status, tasks};
use crate::auth;
use crate::board::runs::Runs;
use crate::cgi::request::LONGEST_WAIT;
use crate::cgi::{Call, Key, Method, Response, Route, log as asked};
use crate::check;
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::model::access::{Need, Reach, Whose};
use crate::model::ids::NodejobId;
use crate::model::kill::Wish;
use crate::model::log::LogQuery;
use crate::model::proof;
use crate::model::request::{BY_FIELD, hide_values};
use crate::model::run_status::{RunState, RunStatus};
use crate::tokens;

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

const TASK: Key = Key::new("task", "K", "of this task of a range");

const LOG_QUERY: &[Key] = &asked::keys_with_follow(TASK);

/// Most jobs in a list, unless `limit` says otherwise.
const LONGEST_LIST: usize = 1000;

/// All of them.
pub const ROUTES: &[Route] = &[
    Route {
        method: Method::Post,
        pattern: "jobs/new",
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
            Key::new("ids", "A,B,C", "whose; the newest if absent"),
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
            Key::new("by", "WHO", "on whose behalf; heads say so"),
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
        pattern: "jobs/ack",
        need: Need::Tend,
        query: &[],
        body: true,
        help: "the results of {\"nodejobs\": [ID...]} are held by the head",
        handler: acknowledge,
    },
    get("info", &[], "what the node has, and has free", |call| {
        Ok(Response::of(info::info(call.root)?))
    }),
    get(
        "events",
        &[
            Key::new("since", "CURSOR", "what changed after it; without one, where it is now"),
            Key::new("wait", "SECONDS", "answer when something changes, or then"),
        ],
        "what changed, and the cursor to go on from",
        events,
    ),
    check::route(|call| check::answer(call, super::check::check)),
    tokens::LIST,
    tokens::NEW,
    tokens::REMOVE,
];

/// Whose a run is: the heads' under ids of their form, else the user's who had it run here. Whoever has its
/// key speaks for it.
pub fn whose(call: &Call) -> Result<Whose> {
    whose_run(call, call.value(0))
}

fn whose_run(call: &Call, id: &str) -> Result<Whose> {
    if call.who.run.as_deref() == Some(id) {
        return Ok(Whose::Own);
    }
    if NodejobId::parse(id).is_some() {
        return Ok(if call.who.may_be_head { Whose::Own } else { Whose::Others });
    }
    match Runs::new(call.root).request(id) {
        Ok(request) => {
            let owner = request.get(BY_FIELD).and_then(Value::as_str);
            Ok(call.who.whose(owner, None))
        }
        Err(e) if matches!(e.kind, Kind::NotFound | Kind::Gone) => Ok(Whose::Own),
        Err(e) => Err(e),
    }
}

/// Most jobs in a list.
fn limit(call: &Call) -> Result<usize> {
    Ok(call.request.number("limit")?.unwrap_or(LONGEST_LIST))
}

fn all(call: &Call) -> Result<Response> {
    let state = call.request.param("state").map(|text| {
        serde_json::from_value(json!(text))
            .map_err(|_| Error::bad("state must be queued, running or stopped"))
    });
    let filter = Filter {
        state: state.transpose()?,
        pid: call.request.number("pid")?,
        start: call.request.number("start")?,
        limit: Some(limit(call)?),
    };
    let found = list::list(call.root, &filter)?;
    match call.request.param("format") {
        Some("json") => Ok(Response::of(found.into_iter().map(answer).collect::<Vec<_>>())),
        None | Some("text") => {
            let ids = found.into_iter().map(|(id, _)| id + "\n");
            Ok(Response::text(ids.collect::<String>()))
        }
        Some(_) => Err(Error::bad("format must be json or text")),
    }
}

fn statuses(call: &Call) -> Result<Response> {
    let Some(ids) = call.request.param("ids") else {
        let filter = Filter { limit: Some(limit(call)?), ..Filter::default() };
        let found = list::list(call.root, &filter)?;
        return Ok(Response::of(found.into_iter().map(answer).collect::<Vec<_>>()));
    };
    let ids: Vec<String> = ids.split(',').filter(|id| !id.is_empty()).map(str::to_string).collect();
    let found = report::statuses(call.root, &ids)?;
    Ok(Response::of(ids.into_iter().zip(found).map(answer).collect::<Vec<_>>()))
}

/// A job in an array: its status, or why there is none.
fn answer((id, one): (String, Result<RunStatus>)) -> Value {
    one.map_or_else(|error| no_answer(&json!(id), &error), |status| json!(status))
}

fn record(call: &Call) -> Result<Response> {
    let id = call.value(0);
    let mut request = Runs::new(call.root).request(id)?;
    if let Some(token) = request.pointer_mut("/environment/CORKBOARD_TOKEN") {
        *token = json!("(not shown)");
    }
    if let Some(request) = request.as_object_mut().filter(|_| !call.who.sees_values()) {
        hide_values(request);
    }
    let status = progress::shown(call.root, status::of(call.root, id)?)?;
    Ok(Response::of(json!({"id": id, "request": request, "status": status})))
}

fn one_status(call: &Call) -> Result<Response> {
    let wait = call.request.wait()?.unwrap_or_default();
    if let Some(task) = call.request.task()? {
        return Ok(Response::of(tasks::wait(call.root, call.value(0), task, wait)?));
    }
    let found = status::wait(call.root, call.value(0), RunState::Stopped, wait)?;
    let found = progress::shown(call.root, found)?;
    Ok(Response::of(found))
}

fn say(call: &Call) -> Result<Response> {
    let id = call.value(0);
    call.who.check_speaks_for(id)?;
    Ok(Response::of(progress::say(call.root, id, call.request.body.word()?)?))
}

fn output(call: &Call) -> Result<Response> {
    let id = call.value(0);
    let query = asked::query(call.request)?;
    let follow = asked::is_followed(call.request, &query)?;
    // Also where it is followed: what is wrong with the request is said before the stream.
    let piece = log::read(call.root, id, &query)?;
    let offset = if follow { piece.next - piece.bytes.len() as u64 } else { piece.next };
    let response = if follow {
        let (root, id, command) = (call.root.clone(), id.to_string(), call.request.command);
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
    Ok(response.header("X-Corkboard-Offset", offset.to_string()))
}

fn work_files(call: &Call) -> Result<Response> {
    let names = work::names(call.root, call.value(0))?;
    Ok(Response::of(json!({"files": names})))
}

fn work_file(call: &Call) -> Result<Response> {
    let (file, length) = work::open(call.root, call.value(0), call.value(1))?;
    Ok(Response::reader(Box::new(file), length))
}

fn kill_one(call: &Call) -> Result<Response> {
    let grace = call.request.param("grace").map(|text| {
        clock::parse_duration(text).ok_or_else(|| Error::bad("grace must be a number of seconds"))
    });
    call.who.check_run_id(call.value(0))?;
    // A head says on whose behalf it asks; the token says which head.
    let by = match call.request.param("by") {
        Some(_) if !call.who.may_be_head => {
            return Err(Error::new(Kind::Forbidden, "only a head says on whose behalf it asks"));
        }
        Some(by) if by.len() > 100 || by.chars().any(char::is_control) => {
            return Err(Error::bad("by must be at most 100 bytes of plain text"));
        }
        Some(by) => by,
        None => &call.who.name,
    };
    let (id, grace) = (call.value(0), grace.transpose()?);
    let tasks = call.request.tasks()?;
    let proof = call.request.param("proof").map(str::to_string);
    if proof.as_deref().is_some_and(|proof| !proof::is_one(proof)) {
        return Err(Error::bad("proof must be 32 hexadecimal digits in lower case, or none"));
    }
    if call.request.switch("forbid")? {
        if tasks.is_some() || grace.is_some() || proof.is_some() {
            return Err(Error::bad("forbid ends nothing: it goes with by alone"));
        }
        return Ok(Response::of(super::kill::forbid(call.root, id, by)?));
    }
    let (id, by) = (id.to_string(), by.to_string());
    Ok(Response::of(report::kill(call.root, &Wish { id, proof, grace, by, tasks })?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ack {
    nodejobs: Vec<String>,
}

fn acknowledge(call: &Call) -> Result<Response> {
    let body = call.request.body.json(call.root)?;
    let ack: Ack = serde_json::from_value(body)
        .map_err(|e| Error::bad(format!("the body must be {{\"nodejobs\": [ID...]}}: {e}")))?;
    for id in &ack.nodejobs {
        call.who.check_run_id(id)?;
        if call.who.reach(Need::Tend) != Reach::All {
            auth::allow_to(call.who, Need::Tend, whose_run(call, id)?)?;
        }
    }
    let count = ack::acknowledge(call.root, &ack.nodejobs)?;
    Ok(Response::of(json!({"acknowledged": count})))
}

fn events(call: &Call) -> Result<Response> {
    let wait = call.request.wait()?.unwrap_or_default();
    Ok(Response::of(report::feed(call.root, call.request.param("since"), wait)?))
}
