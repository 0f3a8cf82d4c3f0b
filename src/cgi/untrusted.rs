//! What of a request is taken apart before anybody is known: for tests that send anything.

use super::environment::Method;
use super::form::{Form, Part, Source};
use super::request::{self, Request};
use super::route::{Route, candidates};
use super::{audit, body::Body};
use crate::error::Result;

/// A body that comes in pieces of this length.
struct Pieces<'b> {
    body: &'b [u8],
    length: usize,
}

impl Source for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let read = self.length.min(buffer.len()).min(self.body.len());
        buffer[..read].copy_from_slice(&self.body[..read]);
        self.body = &self.body[read..];
        Ok(read)
    }
}

/// The parts of a form, with what they hold. Errors: it is none.
fn parts(content_type: &str, body: &[u8], length: usize) -> Result<Vec<(Part, Vec<u8>)>> {
    let mut form = Form::new(content_type, Pieces { body, length })?;
    let mut parts = Vec::new();
    while let Some(part) = form.next()? {
        let mut content = Vec::new();
        while let Some(piece) = form.chunk()? {
            content.extend_from_slice(piece);
        }
        parts.push((part, content));
    }
    Ok(parts)
}

/// Reads a form, whatever it is.
///
/// # Panics
/// What it holds depends on the pieces in which it comes, or is more than came.
pub fn form(content_type: &str, body: &[u8]) {
    let whole = parts(content_type, body, usize::MAX).ok();
    for length in [1, 7] {
        assert_eq!(whole, parts(content_type, body, length).ok(), "in pieces of {length}");
    }
    let held: usize = whole.iter().flatten().map(|(_, content)| content.len()).sum();
    assert!(held <= body.len(), "{held} bytes of {}", body.len());
}

/// Looks for the route of a request, and at what its query asks for; the names of what fits.
pub fn request(
    routes: &'static [Route],
    method: &str,
    path: &str,
    query: &str,
) -> Vec<&'static str> {
    let Some(method) = Method::parse(method) else { return Vec::new() };
    let Ok(path) = request::segments(path) else { return Vec::new() };
    let request = Request {
        method,
        path,
        query: request::parse_query(query),
        body: Body::None,
        command: false,
        head: false,
    };
    let keys: Vec<String> = request.query.iter().map(|(key, _)| key.clone()).collect();
    for key in keys {
        let _ = (request.switch(&key), request.number::<u64>(&key)); // wrong ones are refused
    }
    let _ = (request.tasks(), request.task(), request.wait());
    let told = audit::said(&request, "scheduler");
    assert!(!told.contains('\n'), "{told:?} is more than a line");
    candidates(routes, &request.path).map(|(route, _)| route.pattern).collect()
}
