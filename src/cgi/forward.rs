//! What a command asks of a root that is reached by HTTP: the same request as one here, in as many pieces as
//! a server lets a request last.

use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use super::body::Body;
use super::environment::Method;
use super::remote::Remote;
use super::request::{LONGEST_WAIT, Request};
use super::response::Response;
use crate::client::server;
use crate::error::{Error, Kind, Result};

mod follow;

/// How long a root that has answered is asked again when it does not: its server may be started anew.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Between two requests of which the first brought nothing.
pub(crate) const PAUSE: Duration = Duration::from_millis(500);

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

/// Asks, and again for so long while nobody answers, or is only about to.
pub(crate) fn patiently<T>(patience: Duration, ask: impl Fn() -> Result<T>) -> Result<T> {
    let end = Instant::now() + patience;
    loop {
        let answer = ask();
        let passes = |e: &Error| {
            matches!(e.kind, Kind::GatewayTimeout | Kind::BadGateway | Kind::Unavailable)
        };
        if !answer.as_ref().is_err_and(passes) || Instant::now() >= end {
            return answer;
        }
        thread::sleep(PAUSE);
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
    let sent = ("application/json", server::Body::Bytes(&bytes));
    remote.send(request.method.name(), program, &path, &query, sent)
}
