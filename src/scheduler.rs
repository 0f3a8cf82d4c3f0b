//! The scheduler: jobs, queue, nodes and graph of the cluster, by URL and by command.
//!
//! - [`submit`]: accepting jobs; [`possible`]: whether any node could ever have them.
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
//! - `routes`: the program's face by URL and by command; [`command`]: commands of its own, such as `jobs new [OPTION...] -- CMD`.

use crate::cgi::Program;
use crate::tables;

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
mod routes;
pub mod submit;
pub mod tasks;
pub mod update;
pub mod work_files;
pub mod workers;

/// The program.
pub const PROGRAM: Program = Program {
    name: "scheduler",
    about: "jobs, queue, nodes and graph of the cluster",
    routes: routes::ROUTES,
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
