//! Asking a server by HTTP(S): a node of ours, or another root that a command is meant for.
//!
//! - [`server`]: one request and its answer.
//! - [`form`]: a body of several files, read while they are sent.
//! - [`place`], [`names`]: where a server is, and what leads there.
//! - [`mod@line`]: the connection for a request, and its deadlines.
//! - [`tls`]: who is there; [`papers`]: the certificates by which that is known.
//! - [`knock`]: whether anybody is.
//! - [`said`]: what it says in words.
//! - [`patience`]: how long an answer is waited for.

pub mod form;
pub mod knock;
pub mod line;
pub mod names;
pub mod papers;
pub mod patience;
pub mod place;
pub mod said;
pub mod server;
pub mod tls;
