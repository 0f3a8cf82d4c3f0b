//! A root that is reached by HTTP: where, and what came of a request. What is presented to it:
//! [`super::presented`].

use std::env;
use std::io::{self, BufRead, BufReader, Cursor, ErrorKind, Read};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use form_urlencoded::byte_serialize;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::presented::{Access, TOKEN};
use super::response::{Content, EXIT_CODE, JSON, JSON_LINES, Response, is_value, unwritable};
use crate::client::names::{check_uri, programs_of};
use crate::client::papers::{Distrust, Papers, Refused, Unusable};
use crate::client::patience::Patience;
use crate::client::said;
use crate::client::server::{self, Fetched, Head, Question, Reply, Server, Unread};
use crate::error::{Error, Kind, Result, exit, is_shortage, reason};
use crate::wire::codes;
use crate::wire::failure::Failure;

/// Headers that say where in which attempt's log to go on.
pub(super) const ATTEMPT: &str = "X-Corkboard-Attempt";
pub(super) const OFFSET: &str = "X-Corkboard-Offset";

/// How long a connection to it may take.
const CONNECT: Duration = Duration::from_secs(10);

/// How long it may say nothing: a request with a wait is answered within a minute.
const SILENT: Duration = Duration::from_secs(70);

/// Longest that an answer may take to arrive, or a request to be sent.
const WHOLE: Duration = Duration::from_secs(60 * 60);

/// Longest that a process may run of which the end is told.
const FOR_EVER: Duration = Duration::from_secs(10 * 366 * 86400);

/// How long a root that has answered is asked again when it does not: its server may be started anew.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Between two requests of which the first brought nothing.
pub(crate) const PAUSE: Duration = Duration::from_millis(500);

/// As much as may have been sent whole before a server that will not have it closes the connection.
const IN_ONE_GO: u64 = 256 << 10;

/// Most of a value that is held, to be shown otherwise than as it travels.
const LARGEST_VALUE: u64 = 64 << 20;

/// A root that is reached by HTTP.
pub struct Remote {
    server: Server,
    /// The path under which its programs lie.
    base: String,
    authorization: Option<String>,
    /// As it was named.
    url: String,
    /// How long it may say nothing.
    silent: Duration,
}

/// The lines of an answer, as they come: see [`Remote::lines`].
pub struct Lines {
    body: BufReader<Box<dyn Read>>,
    url: String,
}

impl Iterator for Lines {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Result<String>> {
        let mut line = String::new();
        match self.body.by_ref().take(LARGEST_VALUE).read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => {
                line.truncate(line.trim_end_matches('\n').len());
                Some(Ok(line))
            }
            Err(error) => Some(Err(unanswered(&self.url, &error))),
        }
    }
}

/// A type, where it is said, and a body.
type Sent<'q> = (Option<&'q str>, server::Body<'q>);

impl Remote {
    /// The root that a command is meant for, if that is not one on this machine: the one named by this
    /// option, else by the environment, unless that names a root here (`CORKBOARD_ROOT`). Asks nobody.
    pub fn named(option: Option<&str>) -> Result<Option<Rc<Remote>>> {
        let is_here = || env::var_os("CORKBOARD_ROOT").is_some_and(|root| !root.is_empty());
        let url = match option {
            Some(url) => Some(url.to_string()),
            None if is_here() => None,
            None => Access::url_from_env()?,
        };
        url.map(|url| Ok(Rc::new(Remote::at(&url)?))).transpose()
    }

    fn at(url: &str) -> Result<Remote> {
        Remote::to(url, Access::from_env()?)
    }

    /// The root at this address. Asks nobody. Errors: it is none.
    pub fn to(url: &str, access: Access) -> Result<Remote> {
        let wrong = |why: &str| Error::bad(format!("{url:?} is no address of a root: {why}"));
        check_uri(url).map_err(|_| wrong("it is like http://head:8080 or https://head"))?;
        let (server, base) = programs_of(url);
        let server = Server::new(server, CONNECT).map_err(|e| wrong(&e.to_string()))?;
        if server.is_secure() {
            server.trust(Papers::new(access.ca, access.cert, access.key));
        }
        let authorization = access.token.map(|token| format!("Bearer {token}"));
        Ok(Remote { server, base: base.into(), authorization, url: url.into(), silent: SILENT })
    }

    /// One that may say nothing for no longer than so.
    #[must_use]
    pub fn patient(self, silent: Duration) -> Remote {
        Remote { silent, ..self }
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
        let path = self.path(program, path, query)?;
        let question = self.question("GET", &path, None);
        let patience = Patience { pause: self.silent, whole: WHOLE };
        match self.server.fetch(&question, patience).map_err(|e| self.unanswered(&e))? {
            Fetched::Other(reply) => self.refused(&reply),
            Fetched::Content(head, mut body, _) if is_value(type_of(&head)) => {
                let mut bytes = Vec::new();
                let read = body.by_ref().take(LARGEST_VALUE).read_to_end(&mut bytes);
                read.map_err(|e| self.unanswered(&e))?;
                if (bytes.len() as u64) < LARGEST_VALUE {
                    return Ok(response(&head, Content::Bytes(bytes)));
                }
                // Too much to be held, and to be shown otherwise than as it travels.
                Ok(response(&head, self.stream(Cursor::new(bytes).chain(body))))
            }
            Fetched::Content(head, body, _) => Ok(response(&head, self.stream(body))),
        }
    }

    /// What a program there answers to JSON that is sent to it by POST. Errors: what was refused, with the
    /// kind and in the words of that root; nobody answers ([`Kind::GatewayTimeout`]), and what came of it is
    /// unknown; the answer is none ([`Kind::BadGateway`]).
    pub fn post<T: DeserializeOwned>(
        &self,
        program: &str,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<T> {
        let bytes = json(body)?;
        let sent = (Some(JSON), server::Body::Bytes(&bytes));
        let answer = self.send("POST", program, path, &[], sent)?.json()?;
        serde_json::from_value(answer).map_err(|e| {
            let why = format!("{} answers what makes no sense: {e}", self.url);
            Error::new(Kind::BadGateway, why)
        })
    }

    /// The same of an answer in lines, which may take any time as long as now and then one comes. Errors as
    /// of [`Remote::post`]; a line may be one, too, where the connection broke.
    pub fn lines(&self, program: &str, path: &[&str], body: &impl Serialize) -> Result<Lines> {
        let bytes = json(body)?;
        let path = self.path(program, path, &[])?;
        let body = server::Body::Bytes(&bytes);
        let question = Question { body, ..self.question("POST", &path, Some(JSON)) };
        let patience = Patience { pause: self.silent, whole: FOR_EVER };
        match self.server.fetch(&question, patience).map_err(|e| self.unanswered(&e))? {
            Fetched::Content(_, body, _) => {
                Ok(Lines { body: BufReader::new(body), url: self.url.clone() })
            }
            Fetched::Other(reply) => match self.refused(&reply) {
                Err(error) => Err(error),
                Ok(_) => Err(Error::new(Kind::BadGateway, "no lines were answered")),
            },
        }
    }

    /// What is passed on while it comes, to its end. One that ends before its length has come is an error.
    fn stream(&self, mut body: impl Read + 'static) -> Content {
        let url = self.url.clone();
        Content::Stream(Box::new(move |out| {
            // Whether it was the writing that failed is seen by whoever gave the writer.
            let copied = io::copy(&mut body, out).and_then(|_| out.flush());
            copied.map_err(|e| unanswered(&url, &e))
        }))
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
        let path = self.path(program, path, query)?;
        let question = Question { body, ..self.question(method, &path, content_type) };
        let patience = Patience { pause: self.silent, whole: WHOLE };
        let length = match &question.body {
            server::Body::None => 0,
            server::Body::Bytes(bytes) => bytes.len() as u64,
            server::Body::Reader(_, length) => *length,
        };
        let reply =
            self.server.ask(question, patience).map_err(|e| self.unsent(&e, program, length))?;
        match reply.head.status {
            200..300 => Ok(response(&reply.head, Content::Bytes(reply.body))),
            _ => self.refused(&reply),
        }
    }

    /// What may be long, and how long it is, if that is said. Errors as of [`Remote::post`].
    pub(crate) fn fetch(
        &self,
        program: &str,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<(Box<dyn Read>, Option<u64>)> {
        let path = self.path(program, path, query)?;
        let patience = Patience { pause: self.silent, whole: WHOLE };
        let fetched = self.server.fetch(&self.question("GET", &path, None), patience);
        match fetched.map_err(|e| self.unanswered(&e))? {
            Fetched::Content(_, content, length) => Ok((content, length)),
            Fetched::Other(reply) => match self.refused(&reply) {
                Err(error) => Err(error),
                Ok(_) => Err(Error::new(Kind::BadGateway, "nothing was answered")),
            },
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

    fn path(&self, program: &str, path: &[&str], query: &[(&str, &str)]) -> Result<String> {
        let mut text = format!("{}/{program}", self.base);
        for segment in path {
            // On its way, and by a server, it would be taken for a step of the path.
            if matches!(*segment, "." | "..") {
                return Err(Error::bad(format!("{segment:?} is no name that can be asked for")));
            }
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
        Ok(text)
    }

    /// Why it does not do what was asked, in its own words.
    fn refused(&self, reply: &Reply) -> Result<Response> {
        let status = reply.head.status;
        let said = Failure::read(&reply.body).map(|said| said::bounded(&said.error));
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
        Err(Error::new(codes::kind(status), said))
    }

    /// Why there is no answer to what was sent. A server that will not have it all closes the connection
    /// while it is sent, and what it says is lost then. Of a few bytes it had all by then, and may have done
    /// what was asked.
    fn unsent(&self, error: &io::Error, program: &str, length: u64) -> Error {
        let is_cut = matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset);
        if is_cut
            && length > IN_ONE_GO
            && !matches!(self.get(program, &[], &[]), Err(e) if e.kind == Kind::GatewayTimeout)
        {
            let why = "broke off the request: most likely it is more than that root takes (its settings max_upload and max_body)";
            return Error::new(Kind::TooLarge, format!("{} {why}", self.url));
        }
        self.unanswered(error)
    }

    fn unanswered(&self, error: &io::Error) -> Error {
        unanswered(&self.url, error)
    }
}

/// Why there is no answer, or why nothing was asked.
fn unanswered(url: &str, error: &io::Error) -> Error {
    let inner = error.get_ref();
    if let Some(unread) = inner.and_then(|inner| inner.downcast_ref::<Unread>()) {
        let kind = if is_shortage(&unread.0) { Kind::Shortage } else { Kind::BadRequest };
        return Error::new(kind, format!("{url} is not asked: {unread}"));
    }
    if error.kind() == ErrorKind::InvalidInput {
        let why = format!("{TOKEN}, or what is asked, is too long, or has");
        return Error::bad(format!("{url} is not asked: {why} {}", reason(error)));
    }
    let how = match inner {
        Some(inner) if inner.is::<Distrust>() => "is not trusted",
        Some(inner) if inner.is::<Unusable>() => "is not asked",
        Some(inner) if inner.is::<Refused>() => "does not let this command in",
        _ => "does not answer",
    };
    // Nothing was asked then, and nobody who asks again is better off.
    let kind = if how == "does not answer" { Kind::GatewayTimeout } else { Kind::Misdirected };
    let why = said::bounded(&reason(error).to_string());
    Error::new(kind, format!("{url} {how}: {why}"))
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

fn json(body: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(body).map_err(unwritable)
}

/// What was answered, as if it had been here.
fn response(head: &Head, content: Content) -> Response {
    let response = Response::new(type_of(head), content);
    let response =
        [ATTEMPT, OFFSET].into_iter().fold(response, |response, name| match head.text(name) {
            Some(value) => response.header(name, value),
            None => response,
        });
    // A code that no process can end with must not become another: 256 would be 0.
    let code = head.text(EXIT_CODE).map(|text| text.parse::<u8>().map_or(exit::REFUSED, i32::from));
    response.exit_code(code.unwrap_or(0))
}

fn type_of(head: &Head) -> &'static str {
    let given = head.text("content-type").unwrap_or_default();
    let known = [JSON, JSON_LINES].into_iter().find(|known| given.starts_with(known));
    known.unwrap_or("application/octet-stream")
}
