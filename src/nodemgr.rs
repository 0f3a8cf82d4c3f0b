//! The node manager: the four operations on any node by its name, through its driver.

use serde_json::{Value, json};

use crate::attempts::allocated::{self, Allocated, MOST};
use crate::auth::{self, ownership};
use crate::board::incoming::{Incoming, Place};
use crate::board::{files, nodes, numbers, root::Root, runs::run_id, uploads};
use crate::cgi::Method::{Get, Post};
use crate::cgi::{Call, Key, Program, Response, Route, alarm, log as asked};
use crate::clock;
use crate::driver::{self, Answer, Driver, Run};
use crate::error::{Error, Kind, Result};
use crate::model::access::Need::{Admin, Control, Look, Read};
use crate::model::access::{Reach, Whose};
use crate::model::ids::{self, NodejobId, RunId};
use crate::model::kill::Wish;
use crate::model::node::Node;
use crate::model::request::Spec;
use crate::tables;
use crate::wire::codes::CREATED;
use crate::wire::list::lines;
use crate::wire::log::OFFSET;

mod placing;

const ROUTES: &[Route] = &[
    Route {
        method: Get,
        pattern: "",
        need: Look,
        query: &[],
        body: false,
        help: "the nodes",
        handler: list,
    },
    Route {
        method: Get,
        pattern: "list",
        need: Look,
        query: &[],
        body: false,
        help: "the nodes",
        handler: list,
    },
    Route {
        method: Post,
        pattern: "jobs/run",
        need: Control,
        query: &[
            Key::new("job-number", "N", "this job of the board, where no request is given"),
            Key::new("json_data", "REQUEST", "the request, where it is not given by -d"),
            Key::new("node", "NAME", "where it runs; the best one if absent"),
        ],
        body: false,
        help: "run a request (json_data= or -d); without one, place job N now",
        handler: run,
    },
    Route {
        method: Get,
        pattern: ":name",
        need: Look,
        query: &[],
        body: false,
        help: "what a node says of itself",
        handler: info,
    },
    Route {
        method: Get,
        pattern: ":name/jobs",
        need: Look,
        query: &[],
        body: false,
        help: "ids of the jobs on a node",
        handler: jobs,
    },
    Route {
        method: Post,
        pattern: ":name/jobs/new",
        need: Admin,
        query: &[],
        body: true,
        help: "run a request on a node",
        handler: new,
    },
    Route {
        method: Get,
        pattern: ":name/jobs/:id/status",
        need: Look,
        query: &[],
        body: false,
        help: "the status of a job on a node",
        handler: status,
    },
    Route {
        method: Get,
        pattern: ":name/jobs/:id/log",
        need: Read,
        query: &asked::keys(Key::new("task", "K", "of this task of a range")),
        body: false,
        help: "the log of a job on a node",
        handler: log,
    },
    Route {
        method: Post,
        pattern: ":name/jobs/:id/kill",
        need: Control,
        query: &[Key::new("grace", "SECONDS", "between SIGTERM and SIGKILL")],
        body: false,
        help: "kill a job on a node",
        handler: kill,
    },
];

/// The program.
pub const PROGRAM: Program = Program {
    name: "nodemgr",
    about: "list, run, status and kill on any node, by its name",
    routes: ROUTES,
    whose,
    stays: &[],
    specials: &[],
    aliases: &[],
    views: tables::NODEMGR,
    briefs: tables::NODEMGR_BRIEFS,
    sections: &[("Nodes", &[""]), ("Jobs", &["jobs", ":name/jobs"])],
};

fn open(call: &Call) -> Result<(Node, Box<dyn Driver>)> {
    let node = nodes::read(call.root, call.value(0))?;
    let driver = driver::open(call.root, &node)?;
    Ok((node, driver))
}

/// The job's id in the path, checked before any node hears of it.
fn id(call: &Call) -> Result<RunId> {
    RunId::parse(call.value(1)).ok_or_else(|| Error::not_found("there is no such job"))
}

/// Of what a node runs, the attempts of the head's jobs are their owners'; the rest is the admins'.
fn whose(call: &Call) -> Result<Whose> {
    let job = match call.request.path.first().map(String::as_str) {
        Some("jobs" | "job") => call.request.param("job-number").and_then(ids::parse_number),
        _ => {
            let own = numbers::known_cluster(call.root)?;
            let attempt = NodejobId::parse(call.value(1));
            let own = |attempt: &NodejobId| own.as_deref() == Some(attempt.cluster());
            attempt.filter(own).map(|attempt| attempt.job)
        }
    };
    match job.map(|job| ownership::of_job(call.root, call.who, job)) {
        None => Ok(Whose::Others),
        Some(Err(e)) if matches!(e.kind, Kind::NotFound | Kind::Gone) => Ok(Whose::Others),
        Some(whose) => whose,
    }
}

fn list(call: &Call) -> Result<Response> {
    Ok(Response::of(json!({ "nodes": nodes::shown(call.root)? })))
}

fn info(call: &Call) -> Result<Response> {
    let (_, driver) = open(call)?;
    Ok(Response::of(driver.info()?))
}

fn jobs(call: &Call) -> Result<Response> {
    let (_, driver) = open(call)?;
    Ok(Response::text(lines(driver.list()?.iter())))
}

fn status(call: &Call) -> Result<Response> {
    let (node, driver) = open(call)?;
    let id = id(call)?;
    match driver.status(std::slice::from_ref(&id))?.into_iter().next() {
        Some(Answer::Known(status)) => {
            let status = status.of(&id);
            let sees = call.who.reach(Read) == Reach::All || call.who.may(Read, whose(call)?);
            Ok(Response::of(if sees { status } else { status.outside() }))
        }
        Some(Answer::Cancelled(why)) => {
            Err(Error::new(Kind::Gone, format!("node {}: {why}", node.name)))
        }
        _ => Err(Error::not_found(format!("node {} has no job {id}", node.name))),
    }
}

fn log(call: &Call) -> Result<Response> {
    let (_, driver) = open(call)?;
    let query = asked::query(call.request)?;
    let piece = driver.log(&id(call)?, &query)?;
    Ok(Response::text(piece.bytes).header(OFFSET, piece.next.to_string()))
}

fn kill(call: &Call) -> Result<Response> {
    let (_, driver) = open(call)?;
    let grace = call
        .request
        .param("grace")
        .map(|text| {
            clock::parse_duration(text).ok_or_else(|| Error::bad("grace must be a duration"))
        })
        .transpose()?;
    let id = id(call)?;
    let wish = Wish {
        id,
        proof: None, // whoever names it means what is there
        grace,
        by: call.who.name.clone(),
        tasks: None,
    };
    Ok(Response::of(driver.kill(&wish)?.of(&wish.id)))
}

fn new(call: &Call) -> Result<Response> {
    let node = nodes::read(call.root, call.value(0))?;
    let parts = call.request.body.parts(call.root, Place::Node)?;
    start(call.root, &node, parts.json, parts.uploads, None)
}

/// `POST jobs/run?job-number=2`, as in the original walkthrough.
fn run(call: &Call) -> Result<Response> {
    let number = call.request.param("job-number");
    if number.is_some_and(|text| ids::parse_number(text).is_none()) {
        return Err(Error::bad("job-number must be a job's number"));
    }
    let given = call.request.param("json_data").is_some() || !call.request.body.is_none();
    if let Some(job) = number.and_then(ids::parse_number).filter(|_| !given) {
        if call.request.param("node").is_some() {
            return Err(Error::bad(
                "node= goes with a request: a job of the board is placed by its rules",
            ));
        }
        let (nodejobs, new) = placing::place(call.root, job)?;
        let response = Response::of(json!({ "nodejobs": nodejobs }));
        return Ok(if new { response.status(CREATED.0, CREATED.1) } else { response });
    }
    auth::allow(call.who, Admin)?; // it runs beside the board
    let (request, uploads) = match call.request.param("json_data") {
        Some(text) => (
            serde_json::from_str(text)
                .map_err(|e| Error::bad(format!("json_data is not JSON: {e}")))?,
            None,
        ),
        None => {
            let parts = call.request.body.parts(call.root, Place::Node)?;
            (parts.json, parts.uploads)
        }
    };
    let spec = Spec::for_node(&request)?;
    let node = match call.request.param("node") {
        Some(name) => nodes::read(call.root, name)?,
        None => best(call.root, &spec)?,
    };
    start(call.root, &node, request, uploads, number)
}

/// The node that placement would choose, going by the running cards: none that takes one user's jobs
/// alone, since what runs beside the board is nobody's.
fn best(root: &Root, spec: &Spec) -> Result<Node> {
    let mut all = nodes::list(root)?;
    let asked = spec.asked(None, None);
    if !all.iter().any(|node| asked.might_go_to(node)) {
        let why = format!("no node has {}: register one that has", asked.human());
        return Err(Error::new(Kind::Unprocessable, why));
    }
    let not_now =
        |why: String| Error::new(Kind::Unavailable, format!("{why}; name one with node="));
    let allocated = Allocated::read(root, MOST)?;
    let allocated = allocated.ok_or_else(|| not_now(allocated::not_known()))?;
    let best = allocated.rooms(root, &all)?.choose_for(spec);
    let found = best.and_then(|name| all.iter().position(|node| node.name == *name));
    let full = || not_now(format!("no node has room for {} now", asked.human()));
    found.map(|index| all.swap_remove(index)).ok_or_else(full)
}

fn start(
    root: &Root,
    node: &Node,
    mut request: Value,
    incoming: Option<Incoming>,
    number: Option<&str>,
) -> Result<Response> {
    let spec = Spec::for_node(&request)?;
    let id = match spec.request_id {
        Some(id) => {
            ids::check_not_a_heads(&id)?;
            run_id(&id)?
        }
        None => run_id(&format!("nodemgr-{}", files::random_name()?))?,
    };
    if let Some(map) = request.as_object_mut() {
        map.insert("request_id".into(), id.to_string().into());
    }
    let uploads = incoming.as_ref().map(uploads::of_arrived).unwrap_or_default();
    alarm::put_off_for(driver::longest_sending(&uploads).as_secs());
    let run = Run { id: id.clone(), request, uploads };
    let ran = driver::open(root, node)?.run(vec![run]);
    let none = || Err(Error::new(Kind::BadGateway, "the node did not answer for the job"));
    ran.and_then(|results| results.into_iter().next().unwrap_or_else(none)).map_err(|error| {
        // Whoever asked could not find it otherwise, nor ask again without running it twice.
        match error.kind {
            Kind::GatewayTimeout | Kind::BadGateway | Kind::Internal => Error {
                message: format!(
                    "{} (it may have come there, as {id}: see {}/jobs/{id}/status, or repeat it with that request_id)",
                    error.message, node.name
                ),
                ..error
            },
            _ => error,
        }
    })?;
    let nodejob = json!({
        "nodejob-idx": *id,
        "schedulerjob-idx": number,
        "node": node.name,
        "hostname": node.hostname,
        "ipv4": node.ipv4,
    });
    Ok(Response::of(json!({ "nodejobs": [nodejob] }))
        .status(CREATED.0, CREATED.1)
        .location(PROGRAM.name, &format!("{}/jobs/{id}/status", node.name)))
}
