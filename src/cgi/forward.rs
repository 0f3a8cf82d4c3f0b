//! What a command asks of a root that is reached by HTTP: the same request as one here, in as many pieces as
//! a server lets a request last.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::body::Body;
use super::environment::Method;
use super::remote::{PATIENCE, Remote, patiently};
use super::request::{LONGEST_WAIT, Request};
use super::response::Response;
use crate::client::server;
use crate::error::Result;

mod follow;
mod stream;

/// A server's clock, and its rounding, may end a wait as much earlier than it was asked for.
const EARLY: Duration = Duration::from_secs(1);

/// Largest body that is sent, but for files.
const LARGEST_BODY: u64 = 64 << 20;

/// What a program there answers to a request. It may wait as long as one here.
pub fn answer(remote: &Rc<Remote>, program: &'static str, request: &Request) -> Result<Response> {
    let is_log = request.path.last().is_some_and(|word| word == "log");
    if is_log && request.switch("follow").unwrap_or_default() {
        return follow::answer(remote.clone(), program, request);
    }
    if request.wants_event_stream() {
        return stream::answer(remote.clone(), program, request);
    }
    let Some(wait) = request.wait()? else { return once(remote, program, request, None) };
    let end = Instant::now() + wait;
    let mut patience = Duration::ZERO;
    loop {
        let begun = Instant::now();
        let left = || end.saturating_duration_since(Instant::now());
        let answer = patiently(left().min(patience), || {
            once(remote, program, request, Some(left().min(LONGEST_WAIT)))
        })?;
        // It waited for all of that: what was waited for may not have come.
        let goes_on = begun.elapsed() + EARLY >= LONGEST_WAIT && !left().is_zero();
        if !goes_on || request.method != Method::Get {
            return Ok(answer);
        }
        patience = PATIENCE;
    }
}

fn once(
    remote: &Remote,
    program: &str,
    request: &Request,
    wait: Option<Duration>,
) -> Result<Response> {
    let seconds = wait.map(|wait| wait.as_secs_f64().to_string());
    let query = request.query.iter().map(|(key, value)| match (&seconds, key.as_str()) {
        (Some(seconds), "wait") => ("wait", seconds.as_str()),
        (_, key) => (key, value.as_str()),
    });
    let query: Vec<(&str, &str)> = query.collect();
    let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
    if request.method == Method::Get {
        return remote.get(program, &path, &query);
    }
    let bytes = match &request.body {
        Body::None => Vec::new(),
        body => body.bytes(LARGEST_BODY)?,
    };
    // Without a type, as here: some routes take text, too.
    let sent = (None, server::Body::Bytes(&bytes));
    remote.send(request.method.name(), program, &path, &query, sent)
}
