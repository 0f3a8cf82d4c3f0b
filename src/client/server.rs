//! One HTTP request to a server, and its answer, by `ureq`, over a connection of its own (`place`, `line`).
//!
//! Whatever a server answers is an answer: what its status means is the caller's to say, and an
//! answer that leads elsewhere is not followed. Never by a proxy: `HTTP_PROXY` in a CGI environment
//! is set by the client ("httpoxy").

use std::cell::OnceCell;
use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ureq::http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use ureq::http::{HeaderMap, HeaderValue, Request, Response, Uri, request};
use ureq::{Agent, AsSendBody, SendBody};

use super::knock::Knock;
use super::line;
use super::papers::Papers;
use super::patience::Patience;
use super::place::{Finder, Opener, Place};

/// Largest answer that is read.
const LARGEST_ANSWER: u64 = 64 << 20;

/// Most bytes of what stands before it.
const LARGEST_HEAD: usize = 64 << 10;

/// Longest place that is named, where an answer leads elsewhere.
const LONGEST_LOCATION: usize = 500;

/// A server, and where it was found when it last answered.
pub(crate) struct Server {
    uri: Uri,
    place: Arc<Place>,
    agent: OnceCell<Agent>,
}

/// What is sent with a request.
pub(crate) enum Body<'q> {
    /// Nothing: the request has no body.
    None,
    /// These bytes.
    Bytes(&'q [u8]),
    /// What is read here while it is sent: exactly so many bytes. If there are fewer, or they cannot
    /// be read, the request breaks off, which no server takes for a whole one: see [`Unread`].
    Reader(&'q mut dyn Read, u64),
}

/// What was to be sent could not be read: no fault of the server, which was asked nothing whole.
#[derive(Debug)]
pub(crate) struct Unread(pub io::Error);

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "what is sent cannot be read: {}", self.0)
    }
}

impl std::error::Error for Unread {}

/// A request.
pub(crate) struct Question<'q, 'b> {
    pub method: &'q str,
    /// Path and query, as they are sent.
    pub path: &'q str,
    /// Values of `Authorization` and `Content-Type`, where they are sent.
    pub authorization: Option<&'q str>,
    pub content_type: Option<&'q str>,
    pub body: Body<'b>,
}

/// An answer of which the body may be long.
pub(crate) enum Fetched {
    /// It is good: its body, to be read within the same time, and how long it is, if it says so.
    Content(Head, Box<dyn Read>, Option<u64>),
    /// Another one.
    Other(Reply),
}

/// What stands before the body of an answer.
pub(crate) struct Head {
    pub status: u16,
    headers: HeaderMap,
}

impl Head {
    /// One that came otherwise than by HTTP. What can be no header is left out.
    pub(crate) fn of<'h>(status: u16, said: impl Iterator<Item = (&'h str, &'h str)>) -> Head {
        let read = |(name, value)| {
            let name = HeaderName::try_from(name).ok()?;
            Some((name, HeaderValue::try_from(value).ok()?))
        };
        Head { status, headers: said.filter_map(read).collect() }
    }

    /// A header's text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// A header that is a number.
    pub(crate) fn number<T: FromStr>(&self, name: &str) -> Option<T> {
        self.text(name)?.parse().ok()
    }

    /// Where it sends who asks.
    pub(crate) fn location(&self) -> Option<&str> {
        self.text("location").filter(|to| to.len() <= LONGEST_LOCATION)
    }
}

/// What a server answered.
pub(crate) struct Reply {
    pub head: Head,
    pub body: Vec<u8>,
}

impl Server {
    /// The server at a URI without a path. Asks nobody.
    ///
    /// Errors: it is no such URI.
    pub(crate) fn new(uri: &str, connect_timeout: Duration) -> io::Result<Server> {
        let uri = Uri::try_from(uri).map_err(not_sendable)?;
        let place = Arc::new(Place::new(&uri, connect_timeout)?);
        Ok(Server { uri, place, agent: OnceCell::new() })
    }

    /// Whether it is asked over TLS.
    pub(crate) fn is_secure(&self) -> bool {
        self.place.is_secure()
    }

    /// Over TLS it has to prove itself by these, and is shown what they name.
    pub(crate) fn trust(&self, papers: Papers) {
        self.place.trust(papers);
    }

    /// Opens the connection of a question that is about to be asked: the server's process for it is
    /// there then. Whatever goes wrong is told when that question is asked.
    pub(crate) fn prepare(&self) {
        self.place.prepare();
    }

    /// Sends a request, and reads the answer, within this time.
    ///
    /// Errors: no connection, none that lasted until the whole answer was there, or an answer that
    /// is not HTTP or too large. What the server did is unknown then. Or [`Unread`].
    pub(crate) fn ask(&self, question: Question, patience: Patience) -> io::Result<Reply> {
        self.place.begin(patience);
        let request = self.request(&question)?;
        match question.body {
            Body::None => self.run(request, ()),
            Body::Bytes(bytes) => self.run(request, bytes),
            Body::Reader(source, length) => {
                let request = request.header(CONTENT_LENGTH, length);
                self.run(request, SendBody::from_reader(&mut Exactly { source, left: length }))
            }
        }
    }

    /// Sends a request, with a body of bytes or without one, and begins to read the answer. Errors as of
    /// [`Server::ask`].
    pub(crate) fn fetch(&self, question: &Question, patience: Patience) -> io::Result<Fetched> {
        self.place.begin(patience);
        let request = self.request(question)?;
        let response = match &question.body {
            Body::Bytes(bytes) => self.send(request, *bytes)?,
            Body::None | Body::Reader(..) => self.send(request, ())?,
        };
        if response.status().as_u16() != 200 {
            return reply(response).map(Fetched::Other).map_err(line::io_error);
        }
        let length = response.body().content_length();
        let (head, body) = response.into_parts();
        let head = Head { status: head.status.as_u16(), headers: head.headers };
        Ok(Fetched::Content(head, Box::new(body.into_reader()), length))
    }

    /// Begins to ask a question without a body, of which only the beginning of the answer counts. The
    /// name of the server may have to be looked up for it, within the time for a connection.
    pub(crate) fn knock(&self, question: &Question, patience: Duration) -> io::Result<Knock> {
        let request = self.request(question)?.body(()).map_err(not_sendable)?;
        let mut text = format!(
            "{} {} HTTP/1.0\r\n",
            request.method(),
            request.uri().path_and_query().map_or("/", |path| path.as_str())
        )
        .into_bytes();
        let host = HeaderValue::try_from(self.place.host()).map_err(not_sendable)?;
        let mut headers = request.headers().clone();
        headers.insert(ureq::http::header::HOST, host);
        for (name, value) in &headers {
            text.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        text.extend(b"\r\n");
        self.place.knock(text, patience)
    }

    /// A request without its body.
    fn request(&self, question: &Question) -> io::Result<request::Builder> {
        let mut uri = self.uri.clone().into_parts();
        uri.path_and_query = Some(question.path.parse().map_err(not_sendable)?);
        let uri = Uri::from_parts(uri).map_err(not_sendable)?;
        let mut request = Request::builder().method(question.method).uri(uri);
        request = request.header(CONNECTION, HeaderValue::from_static("close"));
        if let Some(authorization) = question.authorization {
            let mut value = HeaderValue::try_from(authorization).map_err(not_sendable)?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        if let Some(content_type) = question.content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        Ok(request)
    }

    fn run(&self, request: request::Builder, body: impl AsSendBody) -> io::Result<Reply> {
        reply(self.send(request, body)?).map_err(line::io_error)
    }

    fn send(
        &self,
        request: request::Builder,
        body: impl AsSendBody,
    ) -> io::Result<Response<ureq::Body>> {
        let request = request.body(body).map_err(not_sendable)?;
        let agent = self.agent.get_or_init(|| agent(&self.place));
        agent.run(request).map_err(line::io_error)
    }
}

/// An agent that asks only there. Deadlines are the connection's: see `line`.
fn agent(place: &Arc<Place>) -> Agent {
    let config = Agent::config_builder()
        .proxy(None)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_idle_connections(0)
        .max_response_header_size(LARGEST_HEAD)
        // Nobody asked for them.
        .user_agent("")
        .accept("")
        .accept_encoding("")
        .build();
    Agent::with_parts(config, Opener(place.clone()), Finder(place.clone()))
}

fn reply(mut response: Response<ureq::Body>) -> Result<Reply, ureq::Error> {
    let body = response.body_mut().with_config().limit(LARGEST_ANSWER).read_to_vec()?;
    let (head, _) = response.into_parts();
    Ok(Reply { head: Head { status: head.status.as_u16(), headers: head.headers }, body })
}

/// Without the text itself: it may be a token.
fn not_sendable(_: impl Into<ureq::http::Error>) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, "characters that cannot be sent")
}

/// So many bytes of a source, or [`Unread`].
struct Exactly<'q> {
    source: &'q mut dyn Read,
    left: u64,
}

impl Read for Exactly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let unread = |error| io::Error::other(Unread(error));
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        loop {
            match self.source.read(&mut buffer[..most]) {
                Ok(0) if most > 0 => return Err(unread(ErrorKind::UnexpectedEof.into())),
                Ok(read) => {
                    self.left -= read as u64;
                    return Ok(read);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(unread(error)),
            }
        }
    }
}
