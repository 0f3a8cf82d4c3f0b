//! The scheduler: jobs, queue, nodes and graph of the cluster, by URL and by command.
//!
//! - [`submit`]: accepting jobs.
//! - [`jobs`]: looking at a job; [`lists`]: at many.
//! - [`update`]: changing them.
//! - [`kills`]: what a kill does at once where no poller is at work.
//! - [`tasks`]: those of an array.
//! - [`outputs`]: their logs; [`work_files`]: their files.
//! - [`reason`]: why a job is where it is; [`explain`]: node by node.
//! - [`events`]: what is done to jobs, as it is done.
//! - [`rounds`]: what a command that waits does where no poller is at work.
//! - [`interrupt`]: what is said when a command that waits is interrupted.
//! - [`nodes`]: the nodes; [`node_room`]: what they have free; [`registration`]: what is registered of one; [`idle`]: whether one has jobs.
//! - [`claiming`]: a node asks for its orders; [`workers`]: those that do.
//! - [`partitions`]: the partitions; [`entry`]: into which one a job goes.
//! - [`joining`]: a machine registers itself. [`pausing`]: nothing is placed.
//! - [`graph`]: who submitted whom.
//! - [`audit`]: who changed what.
//! - [`access`]: whose a job or a node is, and what others see of a job.
//! - [`roles`]: the table of who may do what.
//! - [`check`]: the invariants of the board.
//! - [`command`]: commands of its own, such as `jobs new [OPTION...] -- CMD`.

use crate::cgi::Method::{Delete, Get, Post};
use crate::cgi::{Key, Program, Route, log};
use crate::check as words;
use crate::model::access::Need::{Admin, Control, Join, Look, Nodes, Read, Submit, Work};
use crate::{tables, tokens};

pub mod access;
pub mod audit;
pub mod check;
pub mod claiming;
pub mod command;
pub mod entry;
pub mod events;
pub mod explain;
pub mod graph;
pub mod idle;
pub mod interrupt;
pub mod jobs;
pub mod joining;
pub mod kills;
pub mod lists;
pub mod node_room;
pub mod nodes;
pub mod outputs;
pub mod partitions;
pub mod pausing;
pub mod possible;
pub mod reason;
pub mod registration;
pub mod roles;
pub mod rounds;
pub mod submit;
pub mod tasks;
pub mod update;
pub mod work_files;
pub mod workers;

const TASK: Key = Key::new("task", "K", "of this task of an array");

const NODES_FOR: &[Key] = &[
    Key::new("job", "N", "those that could have this job"),
    Key::new("json_data", "REQUEST", "those that could have a job with this request"),
];

const LOG_QUERY: &[Key] = &log::keys_of_attempts(TASK);

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
        need: Look,
        query: &[
            Key::new("limit", "N", "at most so many; 1000 if absent"),
            Key::new("state", "STATE", "held, queued, placed, running, stopping or stopped"),
            Key::new("format", "json|table", "records instead of numbers"),
        ],
        body: false,
        help: "numbers of the jobs, newest first",
        handler: lists::list,
    },
    Route {
        method: Get,
        pattern: "jobs/status",
        need: Look,
        query: &[
            Key::new("ids", "4,7,10-19", "whose; the newest if absent"),
            Key::new("limit", "N", "without ids: at most so many; 1000 if absent"),
        ],
        body: false,
        help: "states of several jobs",
        handler: lists::statuses,
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
        need: Look,
        query: &[Key::new("wait", "SECONDS", "answer when it has ended, or then"), TASK],
        body: false,
        help: "its state; exit code of one that waited: the job's, 75 if it goes on",
        handler: jobs::status,
    },
    Route {
        method: Post,
        pattern: "jobs/:number/update",
        need: Control,
        query: update::KEYS,
        body: false,
        help: "change it by kill=, hold=, release= or priority=; else ask the node",
        handler: update::update,
    },
    Route {
        method: Get,
        pattern: "jobs/:number/log",
        need: Read,
        query: LOG_QUERY,
        body: false,
        help: "its output",
        handler: outputs::log,
    },
    Route {
        method: Get,
        pattern: "jobs/:number/files",
        need: Read,
        query: &[TASK],
        body: false,
        help: "names of its files; of an array those of all ranges, or of one task",
        handler: work_files::files,
    },
    Route {
        method: Get,
        pattern: "jobs/:number/files/:name",
        need: Read,
        query: &[TASK],
        body: false,
        help: "one of its files; of several of one name that of task=K",
        handler: work_files::file,
    },
    Route {
        method: Get,
        pattern: "jobs/:number/graph",
        need: Look,
        query: &[Key::new("format", "json|dot|mermaid", "how it is drawn; json if absent")],
        body: false,
        help: "the jobs that submitted each other",
        handler: graph::graph,
    },
    Route {
        method: Get,
        pattern: "jobs/:number/explain",
        need: Read,
        query: &[],
        body: false,
        help: "why it waits: what each node lacks",
        handler: explain::explain,
    },
    Route {
        method: Get,
        pattern: "queue",
        need: Look,
        query: &[
            Key::new("limit", "N", "at most so many; 1000 if absent"),
            Key::new("format", "json|table", "records instead of numbers"),
        ],
        body: false,
        help: "numbers of the jobs that wait, oldest first",
        handler: lists::queue,
    },
    Route {
        method: Get,
        pattern: "queue/:number",
        need: Look,
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
        pattern: "events",
        need: Look,
        query: events::KEYS,
        body: false,
        help: "what was done to jobs, and the cursor to go on from",
        handler: events::events,
    },
    Route {
        method: Get,
        pattern: "nodes/list",
        need: Look,
        query: NODES_FOR,
        body: false,
        help: "the nodes; or those that could have a job, and whether they could now",
        handler: nodes::list,
    },
    Route {
        method: Post,
        pattern: "nodes/list",
        need: Look,
        query: &[],
        body: true,
        help: "the nodes that could have a job with this request",
        handler: nodes::list,
    },
    Route {
        method: Post,
        pattern: "nodes/new",
        need: Nodes,
        query: &[],
        body: true,
        help: "register a node: {\"name\": ..., \"uri\": \"http://host:port\", \"token\": ...}",
        handler: nodes::new,
    },
    Route {
        method: Post,
        pattern: "nodes/join",
        need: Join,
        query: &[],
        body: true,
        help: "register the node that the token is for, once; the answer has its token",
        handler: joining::join,
    },
    Route {
        method: Get,
        pattern: "nodes/:name",
        need: Look,
        query: &[],
        body: false,
        help: "one node",
        handler: nodes::show,
    },
    Route {
        method: Post,
        pattern: "nodes/:name/update",
        need: Nodes,
        query: &[
            Key::new("drain", "1", "it gets no new jobs; 0: it gets some again").in_place_of_body(),
            Key::new("pause", "TEXT", "the same, and why; empty: it goes on").in_place_of_body(),
        ],
        body: true,
        help: "change a node, e.g. {\"drain\": true}; null takes a field away",
        handler: nodes::update,
    },
    Route {
        method: Post,
        pattern: "nodes/:name/remove",
        need: Nodes,
        query: &[],
        body: false,
        help: "remove a node that has no jobs",
        handler: nodes::remove,
    },
    Route {
        method: Post,
        pattern: "nodes/:name/claim",
        need: Work,
        query: &[],
        body: true,
        help: "of a worker: what happened, and what it is to do",
        handler: claiming::claim,
    },
    Route {
        method: Get,
        pattern: "nodes/:name/claim",
        need: Work,
        query: &[Key::new("order", "ID", "which one")],
        body: false,
        help: "of a worker: what is sent with an order, such as files",
        handler: claiming::fetch,
    },
    Route {
        method: Post,
        pattern: "nodes/:name/report",
        need: Work,
        query: &[
            Key::new("order", "ID", "the answer to this one, by itself"),
            Key::new("status", "CODE", "its code; 200 if absent"),
            Key::new("offset", "N", "where to go on, of a piece of a log"),
        ],
        body: true,
        help: "of a worker: what happened, and what it answers",
        handler: claiming::report,
    },
    Route {
        method: Get,
        pattern: "workers",
        need: Look,
        query: &[],
        body: false,
        help: "the nodes that ask here for their orders",
        handler: workers::list,
    },
    Route {
        method: Get,
        pattern: "partitions",
        need: Look,
        query: &[],
        body: false,
        help: "the partitions, and what is in use of each",
        handler: partitions::list,
    },
    Route {
        method: Post,
        pattern: "partitions/new",
        need: Admin,
        query: &[],
        body: true,
        help: "make a partition: {\"name\": ..., \"constraints\": ..., \"max_cores\": ...}",
        handler: partitions::new,
    },
    Route {
        method: Get,
        pattern: "partitions/:name",
        need: Look,
        query: &[],
        body: false,
        help: "one partition",
        handler: partitions::show,
    },
    Route {
        method: Post,
        pattern: "partitions/:name/update",
        need: Admin,
        query: &[],
        body: true,
        help: "change a partition, e.g. {\"max_jobs\": 4}; null takes a field away",
        handler: partitions::update,
    },
    Route {
        method: Post,
        pattern: "partitions/:name/remove",
        need: Admin,
        query: &[],
        body: false,
        help: "remove a partition; its jobs wait until it is there again",
        handler: partitions::remove,
    },
    Route {
        method: Post,
        pattern: "pause",
        need: Admin,
        query: &[Key::new("reason", "TEXT", "why, for whoever waits")],
        body: false,
        help: "place nothing until resume; what runs goes on",
        handler: pausing::pause,
    },
    Route {
        method: Post,
        pattern: "resume",
        need: Admin,
        query: &[],
        body: false,
        help: "place jobs again",
        handler: pausing::resume,
    },
    tokens::LIST,
    tokens::NEW_OR_JOIN,
    tokens::REMOVE,
    Route {
        method: Get,
        pattern: "roles",
        need: Look,
        query: &[],
        body: false,
        help: "who may do what",
        handler: roles::roles,
    },
    Route {
        method: Get,
        pattern: "audit",
        need: Read,
        query: audit::KEYS,
        body: false,
        help: "who changed what, and who was refused: of one's own, of all for admins",
        handler: audit::show,
    },
    words::route(|call| words::answer(call, check::check)),
];

/// The program.
pub const PROGRAM: Program = Program {
    name: "scheduler",
    about: "jobs, queue, nodes and graph of the cluster",
    routes: ROUTES,
    whose: access::whose,
    stays: &["nodes/:name/claim"],
    specials: command::SPECIALS,
    aliases: &[("new/job", "jobs/new")],
    views: tables::SCHEDULER,
    briefs: tables::SCHEDULER_BRIEFS,
    sections: &[
        ("Jobs", &["jobs", "queue", "events"]),
        ("Nodes", &["nodes", "workers", "partitions", "pause", "resume"]),
        ("Tokens, roles, audit", &["tokens", "roles", "audit"]),
        ("Check and repair", &["check"]),
    ],
};
