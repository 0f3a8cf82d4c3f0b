//! One request, one answer: as a CGI program or as a command, by one route table.
//!
//! - [`environment`]: the method, and what a server says of a request.
//! - [`request`]: what was asked, from the CGI environment or from words.
//! - [`body`]: the request's body: limits, JSON, uploads.
//! - `arrival`: a body as it comes, and how long it may take.
//! - `form`: a form with files, taken apart as it comes (`parameter`: of its headers).
//! - [`log`]: which piece of a log a query asks for.
//! - [`alarm`]: what ends a request that hangs.
//! - [`response`]: what is answered, and how it is written.
//! - [`route`]: the table of a program, and finding the route.
//! - `dispatch`: from a request to its answer, however it came.
//! - `audit`: what is told of who asked.
//! - [`program`]: what a program is.
//! - `gateway`: runs it as CGI.
//! - [`remote`]: a root that is reached by HTTP; [`presented`]: what is presented to it; [`forward`]: what a command asks of it.
//! - [`output`]: the answer of a command.
//! - [`view`]: the table of an answer, for a person.
//! - [`words`]: what the words of a command ask for: `split`, the `place` they lead to, its `help`.
//! - [`usage`]: what is wrong with words.
//! - [`untrusted`]: what is taken apart of a request, for tests that send anything.

pub mod alarm;
mod arrival;
pub mod audit;
pub mod body;
mod dispatch;
pub mod environment;
mod form;
pub mod forward;
mod gateway;
pub mod log;
pub mod output;
mod parameter;
pub mod presented;
pub mod program;
pub mod remote;
pub mod request;
pub mod response;
pub mod route;
pub mod untrusted;
pub mod usage;
pub mod view;
pub mod words;

pub use environment::Method;
pub use program::{Given, Program, Special};
pub use request::Request;
pub use response::Response;
pub use route::{Call, Key, Route};

use std::env;

use crate::auth::Who;
use crate::board::root::Root;
use crate::edge;
use crate::error::Result;

/// Answers a request of somebody who is known: in this process, as it would be over HTTP.
pub fn answer(
    program: &'static Program,
    root: &Root,
    request: &Request,
    who: &Who,
) -> Result<Response> {
    dispatch::admit(program, root, request, who).map_err(dispatch::Refusal::error)?.answer()
}

/// Runs a program: as CGI where `GATEWAY_INTERFACE` is set, else as a command. Returns its exit code.
pub fn run(program: &'static Program) -> i32 {
    edge::outlast_limits();
    if env::var_os("GATEWAY_INTERFACE").is_some() {
        gateway::run(program);
        return 0;
    }
    words::run(program)
}
