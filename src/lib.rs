//! Corkboard: a distributed job system that a person can read with `cat`.
//!
//! Modules, lowest first; each uses only those above it.

pub mod error;

pub mod edge;

pub mod clock;

pub mod user;

#[cfg(all(target_os = "linux", target_env = "gnu", target_feature = "crt-static"))]
mod startup;

pub mod settings;

mod descriptors;

pub mod model;

pub mod board;

pub mod cgi;

pub mod auth;

pub mod tokens;

pub mod check;

pub mod processor;

pub mod driver;

pub mod placement;

pub mod attempts;

pub mod poller;

pub mod scheduler;

pub mod nodemgr;
