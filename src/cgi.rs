//! One request, one answer: as a CGI program or as a command, by one route table.
//!
//! - [`request`]: what was asked, from the CGI environment or from words.
//! - [`body`]: the request's body: limits, JSON, uploads.
//! - `arrival`: a body as it comes, and how long it may take.
//! - `form`: a form with files, taken apart as it comes (`parameter`: of its headers).
//! - [`log`]: which piece of a log a query asks for.
//! - [`alarm`]: what ends a request that hangs.
//! - [`response`]: what is answered, and how it is written.
//! - [`route`]: the table of a program, and finding the route.
//! - [`program`]: runs a program: either interface in, exit code out.
//! - [`words`]: what the words of a command ask for: `split`, the `place` they lead to, its `help`.
//! - [`usage`]: what is wrong with words.

pub mod alarm;
mod arrival;
pub mod body;
mod form;
pub mod log;
mod parameter;
pub mod program;
pub mod request;
pub mod response;
pub mod route;
pub mod usage;
pub mod words;

pub use program::{Program, Special, run};
pub use request::{Method, Request};
pub use response::Response;
pub use route::{Call, Key, Need, Route};
pub use words::Given;
