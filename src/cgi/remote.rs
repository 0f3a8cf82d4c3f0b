//! A root that is reached by HTTP: where, by what it is believed, what is presented to it, and what came of
//! a request.

use std::env;
use std::io::{self, Read, Write};
use std::rc::Rc;
use std::time::Duration;

use form_urlencoded::byte_serialize;
use serde_json::Value;

use super::response::{Content, EXIT_CODE, JSON, Response};
use crate::client::names::{check_uri, programs_of};
use crate::client::patience::Patience;
use crate::client::said;
use crate::client::server::{self, Fetched, Head, Question, Reply, Server};
use crate::client::tls::Distrust;
use crate::error::{Error, Kind, Result, reason};

/// Where a root is reached, such as `http://head:8080`.
pub const URL: &str = "CORKBOARD_URL";

/// What is presented to it.
pub const TOKEN: &str = "CORKBOARD_TOKEN";

/// The file of the certificates by one of which it is believed; those of this machine if absent.
pub const CA: &str = "CORKBOARD_CA";

/// Headers that say where in which attempt's log to go on.
pub(super) const ATTEMPT: &str = "X-Corkboard-Attempt";
pub(super) const OFFSET: &str = "X-Corkboard-Offset";

/// How long a connection to it may take.
const CONNECT: Duration = Duration::from_secs(10);

/// How long it may say nothing: a request with a wait is answered within a minute.
const SILENT: Duration = Duration::from_secs(70);

/// Longest that an answer may take to arrive, or a request to be sent.
const WHOLE: Duration = Duration::from_secs(60 * 60);

/// A root that is reached by HTTP.
pub struct Remote {
    server: Server,
    /// The path under which its programs lie.
    base: String,
    authorization: Option<String>,
    /// As it was named.
    url: String,
}

/// A type and a body.
type Sent<'q> = (&'q str, server::Body<'q>);

impl Remote {
    /// The root that a command is meant for, if that is not one on this machine: the one named by this
    /// option, else by the environment, unless that names a root here (`CORKBOARD_ROOT`). Asks nobody.
    pub fn named(option: Option<&str>) -> Result<Option<Rc<Remote>>> {
        let is_here = || env::var_os("CORKBOARD_ROOT").is_some_and(|root| !root.is_empty());
        let url = match option {
            Some(url) => Some(url.to_string()),
            None if is_here() => None,
            None => given(URL)?,
        };
        url.map(|url| Ok(Rc::new(Remote::at(&url)?))).transpose()
    }

    fn at(url: &str) -> Result<Remote> {
        let wrong = |why: &str| Error::bad(format!("{url:?} is no address of a root: {why}"));
        check_uri(url).map_err(|_| wrong("it is like http://head:8080 or https://head"))?;
        let (server, base) = programs_of(url);
        let server = Server::new(server, CONNECT).map_err(|e| wrong(&e.to_string()))?;
        if server.is_secure() {
            server.trust(given(CA)?.map(Into::into));
        }
        let authorization = given(TOKEN)?.map(|token| format!("Bearer {token}"));
        Ok(Remote { server, base: base.into(), authorization, url: url.into() })
    }

    /// As it was named.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The answer to a GET. A long one is read while it is printed.
    pub(super) fn get(
        &self,
        program: &str,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<Response> {
        let path = self.path(program, path, query);
        let question = self.question("GET", &path, None);
        let patience = Patience { pause: SILENT, whole: WHOLE };
        match self.server.fetch(&question, patience).map_err(|e| self.unanswered(&e))? {
            Fetched::Other(reply) => self.refused(&reply),
            Fetched::Content(head, mut body, Some(length)) => Ok(match type_of(&head) {
                JSON => {
                    let mut bytes = Vec::new();
                    body.read_to_end(&mut bytes).map_err(|e| self.unanswered(&e))?;
                    response(&head, Content::Bytes(bytes))
                }
                _ => response(&head, Content::Reader(body, length)),
            }),
            Fetched::Content(head, mut body, None) => {
                let copy = move |out: &mut dyn Write| match io::copy(&mut body, out) {
                    Ok(_) => out.flush().map_err(|e| Error::new(Kind::Internal, e.to_string())),
                    Err(e) => Err(Error::new(Kind::GatewayTimeout, reason(&e).to_string())),
                };
                Ok(response(&head, Content::Stream(Box::new(copy))))
            }
        }
    }

    /// The answer to what changes something.
    pub(crate) fn send(
        &self,
        method: &str,
        program: &str,
        path: &[&str],
        query: &[(&str, &str)],
        (content_type, body): Sent,
    ) -> Result<Response> {
        let path = self.path(program, path, query);
        let question = Question { body, ..self.question(method, &path, Some(content_type)) };
        let patience = Patience { pause: SILENT, whole: WHOLE };
        let reply = self.server.ask(question, patience).map_err(|e| self.unanswered(&e))?;
        match reply.head.status {
            200..300 => Ok(response(&reply.head, Content::Bytes(reply.body))),
            _ => self.refused(&reply),
        }
    }

    fn question<'q>(
        &'q self,
        method: &'q str,
        path: &'q str,
        content_type: Option<&'q str>,
    ) -> Question<'q, 'q> {
        let authorization = self.authorization.as_deref();
        Question { method, path, authorization, content_type, body: server::Body::None }
    }

    fn path(&self, program: &str, path: &[&str], query: &[(&str, &str)]) -> String {
        let mut text = format!("{}/{program}", self.base);
        for segment in path {
            text.push('/');
            // In a path a blank is no plus.
            text.push_str(
                &byte_serialize(segment.as_bytes()).collect::<String>().replace('+', "%20"),
            );
        }
        for (index, (key, value)) in query.iter().enumerate() {
            text.push(if index == 0 { '?' } else { '&' });
            text.extend(byte_serialize(key.as_bytes()));
            text.push('=');
            text.extend(byte_serialize(value.as_bytes()));
        }
        text
    }

    /// Why it does not do what was asked, in its own words.
    fn refused(&self, reply: &Reply) -> Result<Response> {
        let status = reply.head.status;
        let said = serde_json::from_slice::<Value>(&reply.body).ok();
        let said = said.as_ref().and_then(|body| body.get("error")?.as_str()).map(said::bounded);
        let said = match (said, reply.head.location()) {
            (Some(said), _) => said,
            (None, Some(to)) => format!("{} says {status}: ask {to}", self.url),
            (None, None) => {
                format!("{} says {status}, and is no root's server, or not there", self.url)
            }
        };
        let said = match status {
            401 => format!("{said} ({TOKEN} is what is presented)"),
            _ => said,
        };
        Err(Error::new(Kind::from_http(status), said))
    }

    fn unanswered(&self, error: &io::Error) -> Error {
        let how = match error.get_ref().is_some_and(|inner| inner.is::<Distrust>()) {
            true => "is not trusted",
            false => "does not answer",
        };
        let why = said::bounded(&reason(error).to_string());
        Error::new(Kind::GatewayTimeout, format!("{} {how}: {why}", self.url))
    }
}

/// What was answered, as if it had been here.
fn response(head: &Head, content: Content) -> Response {
    let response = Response::new(type_of(head), content);
    let response =
        [ATTEMPT, OFFSET].into_iter().fold(response, |response, name| match head.text(name) {
            Some(value) => response.header(name, value),
            None => response,
        });
    response.exit_code(head.number(EXIT_CODE).unwrap_or(0))
}

fn type_of(head: &Head) -> &'static str {
    let is_value = head.text("content-type").is_some_and(|given| given.starts_with(JSON));
    if is_value { JSON } else { "application/octet-stream" }
}

/// A variable, if it is there and has something in it.
fn given(name: &str) -> Result<Option<String>> {
    let Some(value) = env::var_os(name).filter(|value| !value.is_empty()) else { return Ok(None) };
    let text = value.into_string().map_err(|_| Error::bad(format!("{name} is not UTF-8")))?;
    Ok(Some(text))
}
