//! What was asked, from the CGI environment or from the words of a command.

use std::env;
use std::time::Duration;

use super::body::Body;
use super::environment::{Method, var};
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::model::tasks::TaskSet;

/// Longest wait that a request may ask for: it must end within 60 s, whoever stands between.
pub const LONGEST_WAIT: Duration = Duration::from_secs(50);

/// What was asked. Nothing in it is trusted.
#[derive(Debug)]
pub struct Request {
    /// The method, after any `X-HTTP-Method-Override`.
    pub method: Method,
    /// The path below the program, in its segments.
    pub path: Vec<String>,
    /// The query, decoded, in order.
    pub query: Vec<(String, String)>,
    /// The body, not read yet.
    pub body: Body,
    /// Whether it came as a command, not over HTTP.
    pub command: bool,
    /// Whether only the headers are wanted (HEAD).
    pub head: bool,
}

impl Request {
    /// The request in a CGI environment (RFC 3875).
    pub fn from_cgi() -> Result<Request> {
        if var("HTTP_TRANSFER_ENCODING").is_some() {
            return Err(Error::new(
                Kind::NotImplemented,
                "Transfer-Encoding is not supported: send the body with its Content-Length",
            ));
        }
        let name = var("REQUEST_METHOD").unwrap_or_default();
        let mut method = Method::parse(&name).ok_or_else(|| {
            Error::new(Kind::MethodNotAllowed, "only GET, HEAD, POST, PATCH and DELETE are known")
        })?;
        let body = Body::from_cgi(method)?;
        if method == Method::Post
            && let Some(other) = var("HTTP_X_HTTP_METHOD_OVERRIDE")
        {
            method = Method::parse(&other).filter(|m| *m != Method::Get).ok_or_else(|| {
                Error::bad("X-HTTP-Method-Override must be POST, PATCH or DELETE")
            })?;
        }
        let path = env::var_os("PATH_INFO").unwrap_or_default();
        let path = path.into_string().map_err(|_| Error::bad("the path is not UTF-8"))?;
        Ok(Request {
            method,
            path: segments(&path)?,
            query: parse_query(&var("QUERY_STRING").unwrap_or_default()),
            body,
            command: false,
            head: name.eq_ignore_ascii_case("HEAD"),
        })
    }

    /// A request made from words.
    pub fn from_words(
        method: Method,
        path: Vec<String>,
        query: Vec<(String, String)>,
        body: Body,
    ) -> Request {
        Request { method, path, query, body, command: true, head: false }
    }

    /// A query parameter; the last one where it is repeated.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether a switch such as `?kill=1` is on.
    pub fn switch(&self, name: &str) -> Result<bool> {
        match self.param(name) {
            None | Some("0" | "false") => Ok(false),
            Some("" | "1" | "true") => Ok(true),
            Some(_) => Err(Error::bad(format!("{name} must be 1 or 0"))),
        }
    }

    /// Whether a stream of server-sent events is asked for where there is one.
    pub fn wants_event_stream(&self) -> bool {
        match self.param("format") {
            Some(format) => format == "event-stream",
            None if self.command => false,
            None => var("HTTP_ACCEPT").is_some_and(|types| {
                let mut types = types.split(',').filter_map(|one| one.split(';').next());
                types.any(|one| one.trim().eq_ignore_ascii_case("text/event-stream"))
            }),
        }
    }

    /// The last event that a client has got of a stream which it asks for again.
    pub fn last_event_id(&self) -> Option<String> {
        if self.command { None } else { var("HTTP_LAST_EVENT_ID") }
    }

    /// A whole number.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>> {
        self.param(name)
            .map(|text| {
                text.parse()
                    .map_err(|_| Error::bad(format!("{name} must be a whole number in range")))
            })
            .transpose()
    }

    /// The tasks that `task=` names: `7`, or `3,10-19`.
    pub fn tasks(&self) -> Result<Option<TaskSet>> {
        let wrong = |why| Error::bad(format!("task: {why}"));
        self.param("task").map(|text| text.parse().map_err(wrong)).transpose()
    }

    /// The one task that `task=` names.
    pub fn task(&self) -> Result<Option<u32>> {
        let Some(tasks) = self.tasks()? else { return Ok(None) };
        if tasks.len() != 1 {
            return Err(Error::bad("task must be one index here"));
        }
        Ok(tasks.first())
    }

    /// `?wait=`: how long to wait at most; `None` where it was not asked. Over HTTP it is cut to
    /// [`LONGEST_WAIT`]; as a command there is nobody in between who would give up.
    pub fn wait(&self) -> Result<Option<Duration>> {
        self.param("wait")
            .map(|text| {
                clock::parse_duration(text)
                    .map(|wait| if self.command { wait } else { wait.min(LONGEST_WAIT) })
                    .ok_or_else(|| Error::bad("wait must be a number of seconds"))
            })
            .transpose()
    }
}

/// Segments of a path. Empty ones and ones that could not be a name are refused here, so that no
/// handler ever sees them.
pub(super) fn segments(path: &str) -> Result<Vec<String>> {
    let path = path.strip_prefix('/').unwrap_or(path);
    if path.is_empty() {
        return Ok(Vec::new());
    }
    let segments: Vec<String> = path.split('/').map(str::to_string).collect();
    let sane = |s: &String| {
        !s.is_empty() && s.len() <= 255 && s != "." && s != ".." && !s.chars().any(char::is_control)
    };
    if !segments.iter().all(sane) {
        return Err(Error::not_found("no such path"));
    }
    Ok(segments)
}

/// The pairs of a query string.
pub fn parse_query(text: &str) -> Vec<(String, String)> {
    form_urlencoded::parse(text.as_bytes())
        .map(|(key, value)| (key.into_owned(), value.into_owned()))
        .collect()
}
