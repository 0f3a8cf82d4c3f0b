//! The node: accepts jobs, runs them, and tells what became of them.
//!
//! - [`accept`], `submit`: jobs come in.
//! - [`status`], [`tasks`], [`list`], [`log`], [`files`], [`info`] (`labels`, `gpus`, `live`): what is known.
//! - [`kill`] (`end_waiting`: of what has not started), [`ack`]: what others want of a job; [`report`]: what heads are told of it.
//! - `supervise`: runs jobs. What it knows: `supervisor`, `running` (one job), `phase` (what may happen to it, and
//!   what follows), `running_range` (an array's tasks), `pace` (how long it waits for what). What it does: `next` (what waits first), `claim` and `tell` (what is durable when), `linger`, `run`
//!   (one job), `range` (one task after another), `heed`, `ending`, `surroundings`, `inherited` (what it must not
//!   have from its starter), `child` (fork and exec), `contain` (where it is born), `limits` and `units` (what it is held to), `reap` (how it ended), `capture` (output), `small`
//!   (memory).
//! - `processes`: what a job worker is asked of processes by their ids; `named`: which is meant; `excerpt`: parts of
//!   what they wrote.
//! - `tree`, [`cgroup`]: processes, and what holds them together.
//! - [`start`]: starts supervisors.
//! - `wishes`, `wake`: what somebody wants of a job, and telling its supervisor.
//! - [`sweep`], with `unowned`, `lost` and `remains`: what crashes leave is found, ended, and its end written.
//!   [`cleanup`], [`check`]: what is old, what is wrong.
//! - `access`: whose a run is, and what others see of it.
//! - `routes`, `words`: the program's two faces.

pub mod accept;
mod access;
pub mod ack;
mod capture;
pub mod cgroup;
pub mod check;
mod child;
mod claim;
pub mod cleanup;
mod contact;
mod contain;
mod end_waiting;
mod ending;
mod excerpt;
pub mod files;
mod gpus;
mod heed;
pub mod info;
mod inherited;
pub mod kill;
mod labels;
mod limits;
mod linger;
pub mod list;
mod live;
pub mod log;
mod lost;
mod named;
mod next;
mod pace;
mod phase;
mod processes;
pub mod progress;
mod range;
mod reap;
mod remains;
pub mod report;
mod routes;
mod run;
mod running;
mod running_range;
mod small;
pub mod start;
pub mod status;
mod submit;
mod supervise;
mod supervisor;
mod surroundings;
pub mod sweep;
pub mod tasks;
mod tell;
mod tree;
mod units;
mod unowned;
mod wake;
mod wishes;
mod words;

use std::env;

use crate::cgi::{self, Program};
use crate::edge;
use crate::tables;
use crate::wire::process;

/// The program.
pub const PROGRAM: Program = Program {
    name: "processor",
    about: "runs jobs on this machine, records their status and their output",
    routes: routes::ROUTES,
    whose: access::whose,
    stays: &[process::START, process::STOP],
    specials: words::SPECIALS,
    aliases: &[],
    views: tables::PROCESSOR,
    briefs: tables::PROCESSOR_BRIEFS,
    sections: &[
        ("Jobs", &["jobs"]),
        ("Processes", &["start", "stop", "query_one", "query_running"]),
        ("This machine", &["info", "events"]),
        ("Tokens", &["tokens"]),
        ("Check and repair", &["check", "sweep", "supervise"]),
    ],
};

/// The program; returns its exit code.
pub fn main() -> i32 {
    let is_request = env::var_os("GATEWAY_INTERFACE").is_some();
    match if is_request { None } else { words::supervisor(env::args_os().skip(1)) } {
        Some(Ok(code)) => code,
        Some(Err(error)) => edge::complain(PROGRAM.name, &error),
        None => cgi::run(&PROGRAM),
    }
}
