//! The scheduler: jobs, queue, nodes and graph of the cluster, by URL and by command.
//!
//! - [`submit`]: accepting jobs.
//! - [`jobs`]: looking at jobs.
//! - [`update`]: changing them.
//! - [`kills`]: what a kill does at once where no poller is at work.
//! - [`tasks`]: those of an array.
//! - [`outputs`]: their logs and files.
//! - [`reason`]: why a job is where it is.
//! - [`rounds`]: what a command that waits does where no poller is at work.
//! - [`nodes`]: registering nodes.
//! - [`graph`]: who submitted whom.
//! - [`check`]: the invariants of the board.
//! - [`command`]: `jobs new [options] -- CMD`.

use crate::cgi::Method::{Delete, Get, Post};
use crate::cgi::Need::{Admin, Control, Read, Shell, Submit};
use crate::cgi::{Call, Program, Response, Route};
use crate::error::Result;
use crate::tokens;

pub mod check;
pub mod command;
pub mod graph;
pub mod jobs;
pub mod kills;
pub mod nodes;
pub mod outputs;
pub mod reason;
pub mod rounds;
pub mod submit;
pub mod tasks;
pub mod update;

const LOG_QUERY: &[&str] = &["stream", "offset", "limit", "tail", "follow", "task"];

const ROUTES: &[Route] = &[
    Route {
        method: Post,
        pattern: "jobs/new",
        need: Submit,
        query: &[],
        body: true,
        help: "submit one job (JSON object), or an array of jobs, all or none",
        handler: submit::new,
    },
    Route {
        method: Get,
        pattern: "jobs",
        need: Read,
        query: &["limit", "state", "format"],
        body: false,
        help: "numbers of the jobs, newest first; format=json for more",
        handler: jobs::list,
    },
    Route {
        method: Get,
        pattern: "jobs/:number",
        need: Read,
        query: &[],
        body: false,
        help: "all that is known of a job",
        handler: jobs::record,
    },
    Route {
        method: Get,
        pattern: "jobs/:number/status",
        need: Read,
        query: &["wait", "task"],
        body: false,
        help: "its state; with wait=SECONDS when it has ended, or then; task=K of an array",
        handler: jobs::status,
    },
    Route {
        method: Post,
        pattern: "jobs/:number/update",
        need: Control,
        query: &["kill", "hold", "release", "priority", "task"],
        body: false,
        help: "kill=1 (task=3,5-9 of an array), hold=1, release=1, priority=P; else ask the node",
        handler: update::update,
    },
    Route {
        method: Get,
        pattern: "jobs/:number/log",
        need: Read,
        query: LOG_QUERY,
        body: false,
        help: "its output; tail=LINES, offset=, limit=, stream=stderr, follow=1, task=K",
        handler: outputs::log,
    },
    Route {
        method: Get,
        pattern: "jobs/:number/files",
        need: Read,
        query: &["task"],
        body: false,
        help: "names of its files; of an array those of all ranges, or with task=K of one",
        handler: outputs::files,
    },
    Route {
        method: Get,
        pattern: "jobs/:number/files/:name",
        need: Read,
        query: &["task"],
        body: false,
        help: "one of its files; of several of one name in an array that of task=K",
        handler: outputs::file,
    },
    Route {
        method: Get,
        pattern: "jobs/:number/graph",
        need: Read,
        query: &["format"],
        body: false,
        help: "the jobs that submitted each other; format=json, dot or mermaid",
        handler: graph::graph,
    },
    Route {
        method: Get,
        pattern: "queue",
        need: Read,
        query: &["limit"],
        body: false,
        help: "numbers of the jobs that wait, oldest first",
        handler: jobs::queue,
    },
    Route {
        method: Get,
        pattern: "queue/:number",
        need: Read,
        query: &[],
        body: false,
        help: "whether a job still waits, and why",
        handler: jobs::queue_entry,
    },
    Route {
        method: Delete,
        pattern: "queue/:number",
        need: Control,
        query: &[],
        body: false,
        help: "end a job that still waits",
        handler: update::queue_remove,
    },
    Route {
        method: Get,
        pattern: "nodes/list",
        need: Read,
        query: &["job"],
        body: false,
        help: "the nodes; with job=N those that are large enough for it",
        handler: nodes::list,
    },
    Route {
        method: Post,
        pattern: "nodes/new",
        need: Admin,
        query: &[],
        body: true,
        help: "register a node: {\"name\": ..., \"uri\": \"http://host:port\", \"token\": ...}",
        handler: nodes::new,
    },
    Route {
        method: Get,
        pattern: "nodes/:name",
        need: Read,
        query: &[],
        body: false,
        help: "one node",
        handler: nodes::show,
    },
    Route {
        method: Post,
        pattern: "nodes/:name/update",
        need: Admin,
        query: &[],
        body: true,
        help: "change a node, e.g. {\"drain\": true}; null takes a field away",
        handler: nodes::update,
    },
    Route {
        method: Post,
        pattern: "nodes/:name/remove",
        need: Admin,
        query: &[],
        body: false,
        help: "remove a node that has no jobs",
        handler: nodes::remove,
    },
    tokens::LIST,
    tokens::NEW,
    tokens::REMOVE,
    Route {
        method: Get,
        pattern: "check",
        need: Shell,
        query: &["repair"],
        body: false,
        help: "check every invariant of the board; exit code 1 if one is violated",
        handler: run_check,
    },
];

/// The program.
pub const PROGRAM: Program = Program {
    name: "scheduler",
    about: "jobs, queue, nodes and graph of the cluster",
    routes: ROUTES,
    words: command::words,
    own_help: &[&["jobs", "new"]],
    words_help: command::HELP,
};

fn run_check(call: &Call) -> Result<Response> {
    let repair = call.request.switch("repair")?;
    if repair {
        call.root.for_change()?;
    }
    let check::Found { wrong, notes } = check::check(call.root, repair)?;
    let mut text: String = wrong.iter().map(|line| format!("{line}\n")).collect();
    text.extend(notes.iter().map(|line| format!("note: {line}\n")));
    let code = if wrong.is_empty() { 0 } else { crate::error::exit::REFUSED };
    Ok(Response::text(text).exit_code(code))
}
