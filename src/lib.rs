//! Corkboard: a distributed job system that a person can read with `cat`.
//!
//! The code stands on floors; each module uses those of its own floor and of the floors below, which
//! `tests/floors.rs` holds it to. Lowest first:
//!
//! - `error`, `edge`, `clock`, `user`, `names`, `strategy`, `settings`, `startup`, `descriptors`, `held`: the ground.
//! - `model`: what requests, cards, reports and nodes mean. No files, no HTTP.
//! - `wire`: what travels between a head and a node. No files, no sockets.
//! - `placement`: which waiting job goes where. No files, no cards.
//! - `board`: both boards. Only it knows paths and renames.
//! - `client`: asks a server by HTTP.
//! - `cgi` and `auth`: one request, one answer, as CGI or by words; who asks.
//! - `check`, `tables` and `tokens`: what the programs have in common.
//! - `processor` and `driver`: runs jobs on this machine; reaches those on others.
//! - `attempts`: what is sent to a node, and what its reports do to a card.
//! - `scheduler`, `poller`, `nodemgr`, `worker`: the programs' own parts.
//! - `untrusted`: whatever reads what comes from elsewhere, by one name each, for tests that send anything.

/// In the place of the standard library's macro, which panics where standard error cannot be written: see
/// [`edge::say`].
macro_rules! eprintln {
    ($($line:tt)*) => { $crate::edge::say(format_args!($($line)*)) };
}

pub mod clock;
mod descriptors;
pub mod edge;
pub mod error;
mod held;
pub mod names;
pub mod settings;
#[cfg(all(target_os = "linux", target_env = "gnu", target_feature = "crt-static"))]
mod startup;
pub mod strategy;
pub mod user;

pub mod model;

pub mod wire;

pub mod placement;

pub mod board;

pub mod client;

pub mod auth;
pub mod cgi;

pub mod check;
pub mod tables;
pub mod tokens;

pub mod driver;
pub mod processor;

pub mod attempts;

pub mod nodemgr;
pub mod poller;
pub mod scheduler;
pub mod worker;

pub mod untrusted;
