//! A log that is followed by HTTP: a request for each minute, which goes on where the one before it ended.

use std::io::{self, Write};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cgi::remote::{ATTEMPT, OFFSET, PATIENCE, PAUSE, Remote, patiently};
use crate::cgi::request::Request;
use crate::cgi::response::{Content, Response};
use crate::error::{Error, Kind, Result, reason};

/// Where a log is gone on with: so many bytes behind the beginning of that attempt's, over as many
/// attempts as it takes.
struct Position {
    attempt: Option<u64>,
    offset: u64,
}

/// How often a piece that was to be the last one may break off in a row.
const BREAKS: u32 = 20;

/// A log to be followed.
struct Followed {
    remote: Rc<Remote>,
    program: &'static str,
    path: Vec<String>,
    query: Vec<(String, String)>,
    /// Once the first piece has begun.
    position: Option<Position>,
}

/// The answer to a request for a log that is followed until its job has ended.
pub(super) fn answer(
    remote: Rc<Remote>,
    program: &'static str,
    request: &Request,
) -> Result<Response> {
    let (path, query) = (request.path.clone(), request.query.clone());
    let mut followed = Followed { remote, program, path, query, position: None };
    let first = followed.next()?;
    let stream = move |out: &mut dyn Write| followed.copy_all(first, out);
    Ok(Response::stream("text/plain; charset=utf-8", Box::new(stream)))
}

impl Followed {
    /// Asks for what comes next; whoever has answered before is asked again when nobody does.
    fn next(&mut self) -> Result<Response> {
        let patience = self.position.as_ref().map_or(Duration::ZERO, |_| PATIENCE);
        let mut query = self.query.clone();
        if let Some(Position { attempt, offset }) = &self.position {
            query.retain(|(key, _)| !["attempt", "offset", "tail"].contains(&key.as_str()));
            query.push(("offset".into(), offset.to_string()));
            query.extend(attempt.map(|attempt| ("attempt".into(), attempt.to_string())));
        }
        let ask = || self.remote.get(self.program, &words(&self.path), &pairs(&query));
        let answer = patiently(patience, ask)?;
        if self.position.is_none() {
            let number = |name: &str| {
                let found = answer.headers.iter().find(|(known, _)| *known == name);
                found.and_then(|(_, value)| value.parse::<u64>().ok())
            };
            let asked = query.iter().rev().find(|(key, _)| key == "offset");
            let asked = asked.and_then(|(_, offset)| offset.parse().ok());
            self.position = Some(Position {
                attempt: number(ATTEMPT),
                offset: number(OFFSET).or(asked).unwrap_or(0),
            });
        }
        Ok(answer)
    }

    /// Copies all pieces, until the job has ended, or the reader has left.
    fn copy_all(mut self, mut answer: Response, out: &mut dyn Write) -> Result<()> {
        // A piece is the last one if the job had ended before it was asked for.
        let mut is_last = false;
        let mut breaks = 0;
        loop {
            let begun = Instant::now();
            let mut counted = Counted { out: &mut *out, count: 0, has_left: false };
            let copied = match answer.content {
                Content::Stream(stream) => stream(&mut counted),
                Content::Bytes(bytes) => counted.write_all(&bytes).map_err(|e| broken(&e)),
                Content::Value(_) | Content::Reader(..) => Ok(()), // not from there
            };
            let Counted { count, has_left, .. } = counted;
            // A server may end one that was cut off as if that were all: it is, where nothing comes behind it.
            let is_whole = copied.is_ok() && count == 0;
            if has_left || (is_last && is_whole) {
                return Ok(());
            }
            if let Some(position) = &mut self.position {
                position.offset += count;
            }
            // What a connection brought that broke off is gone on with, but not for ever: nothing more is
            // written, so something on the way cuts it.
            breaks = if is_last && copied.is_err() { breaks + 1 } else { 0 };
            if let Some(error) = copied.err().filter(|_| breaks == BREAKS) {
                let offset = self.position.as_ref().map_or(0, |position| position.offset);
                let why = format!(
                    "the end of the log broke off {BREAKS} times in a row ({error}); what is missing begins at offset={offset}"
                );
                return Err(Error::new(error.kind, why));
            }
            if count == 0 {
                thread::sleep(PAUSE.saturating_sub(begun.elapsed()));
            }
            is_last = self.has_ended()?;
            answer = self.next()?;
        }
    }

    /// Whether the job, or the task, has ended.
    fn has_ended(&self) -> Result<bool> {
        let mut path = words(&self.path);
        path.pop();
        path.push("status");
        let task: Vec<_> = self.query.iter().filter(|(key, _)| key == "task").cloned().collect();
        let ask = || self.remote.get(self.program, &path, &pairs(&task));
        let answer = patiently(PATIENCE, ask)?;
        let Content::Bytes(bytes) = answer.content else { return Ok(false) };
        let status: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        // What cannot be read any more tells no more.
        Ok(status["state"] == "stopped" || status["error"].is_string())
    }
}

fn broken(error: &io::Error) -> Error {
    Error::new(Kind::GatewayTimeout, reason(error))
}

pub(super) fn words(path: &[String]) -> Vec<&str> {
    path.iter().map(String::as_str).collect()
}

pub(super) fn pairs(query: &[(String, String)]) -> Vec<(&str, &str)> {
    query.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

/// Passes on what is written, counts it, and sees when nobody reads it any more.
struct Counted<'o> {
    out: &'o mut dyn Write,
    count: u64,
    has_left: bool,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes).inspect_err(|_| self.has_left = true)?;
        self.count += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush().inspect_err(|_| self.has_left = true)
    }
}
