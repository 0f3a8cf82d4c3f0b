//! A stream of events that is read by HTTP: a request for each minute, which goes on after the last event
//! that came whole.

use std::io::{self, Write};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use super::follow::{pairs, words};
use crate::cgi::remote::{PATIENCE, PAUSE, Remote, patiently};
use crate::cgi::request::Request;
use crate::cgi::response::{Content, Response};
use crate::error::Result;

/// What ends an event, and what names it.
const END: &[u8] = b"\n\n";
const ID: &[u8] = b"id: ";

/// Longest event: a line of a card, which a request has made.
const LARGEST: usize = 64 << 20;

/// The answer to a request for a stream, which lasts as long as was asked for; without a time until its
/// reader leaves, as one of a root here.
pub(super) fn answer(
    remote: Rc<Remote>,
    program: &'static str,
    request: &Request,
) -> Result<Response> {
    let end = request.wait()?.map(|wait| Instant::now() + wait);
    let (path, query) = (request.path.clone(), request.query.clone());
    let mut events = Events { remote, program, path, query, end };
    let first = events.next(Duration::ZERO)?;
    let stream = move |out: &mut dyn Write| events.copy_all(first, out);
    Ok(Response::stream("text/event-stream", Box::new(stream)))
}

struct Events {
    remote: Rc<Remote>,
    program: &'static str,
    path: Vec<String>,
    query: Vec<(String, String)>,
    end: Option<Instant>,
}

impl Events {
    fn left(&self) -> Option<Duration> {
        self.end.map(|end| end.saturating_duration_since(Instant::now()))
    }

    /// Asks for what comes next. The server lets no request last longer than it likes.
    fn next(&self, patience: Duration) -> Result<Response> {
        let ask = || {
            let mut query = self.query.clone();
            if let Some(left) = self.left() {
                query.retain(|(key, _)| key != "wait");
                query.push(("wait".into(), left.as_secs_f64().to_string()));
            }
            self.remote.get(self.program, &words(&self.path), &pairs(&query))
        };
        patiently(self.left().map_or(patience, |left| left.min(patience)), ask)
    }

    /// Copies all that comes, until the time is over, or the reader has left.
    fn copy_all(&mut self, mut answer: Response, out: &mut dyn Write) -> Result<()> {
        loop {
            let begun = Instant::now();
            let mut whole =
                Whole { out: &mut *out, pending: Vec::new(), last: None, has_left: false };
            let copied = match answer.content {
                Content::Stream(stream) => stream(&mut whole),
                Content::Bytes(bytes) => whole.write_all(&bytes).map_err(|_| unwritten()),
                Content::Value(_) | Content::Reader(..) => Ok(()), // not from there
            };
            let Whole { last, has_left, .. } = whole;
            if has_left || self.left().is_some_and(|left| left.is_zero()) {
                return Ok(());
            }
            match last {
                Some(last) => {
                    self.query.retain(|(key, _)| key != "since");
                    self.query.push(("since".into(), last));
                }
                // Without a place to go on what comes meanwhile would be left out.
                None => copied?,
            }
            thread::sleep(PAUSE.saturating_sub(begun.elapsed()));
            answer = self.next(PATIENCE)?;
        }
    }
}

fn unwritten() -> crate::error::Error {
    crate::error::Error::new(crate::error::Kind::Unavailable, "the events cannot be written")
}

/// Passes on whole events, remembers the last one, and sees when nobody reads them any more.
struct Whole<'o> {
    out: &'o mut dyn Write,
    pending: Vec<u8>,
    last: Option<String>,
    has_left: bool,
}

impl Write for Whole<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // An end may have begun before.
        let from = self.pending.len().saturating_sub(END.len() - 1);
        self.pending.extend_from_slice(bytes);
        let Some(end) = self.pending[from..].windows(END.len()).rposition(|at| at == END) else {
            return match self.pending.len() < LARGEST {
                true => Ok(bytes.len()),
                false => Err(io::Error::other("an event that has no end")),
            };
        };
        let end = from + end;
        let whole: Vec<u8> = self.pending.drain(..end + END.len()).collect();
        self.out.write_all(&whole).inspect_err(|_| self.has_left = true)?;
        let mut ids = whole.split(|byte| *byte == b'\n').filter_map(|line| line.strip_prefix(ID));
        if let Some(id) = ids.next_back() {
            self.last = Some(String::from_utf8_lossy(id).trim().to_string());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush().inspect_err(|_| self.has_left = true)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_was_cut_is_not_passed_on() {
        let text = b"retry: 500\n\nid: a.1\ndata: {}\n\n:\nid: a.2\n\nid: a.3\ndata: {";
        for size in 1..text.len() {
            let mut out = Vec::new();
            let mut whole =
                Whole { out: &mut out, pending: Vec::new(), last: None, has_left: false };
            for piece in text.chunks(size) {
                whole.write_all(piece).unwrap();
            }
            assert_eq!(whole.last.as_deref(), Some("a.2"), "{size}");
            assert!(out.ends_with(b"id: a.2\n\n"), "{size}");
        }
    }
}
