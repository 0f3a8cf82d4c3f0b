//! How a node's programs are asked, by HTTP: under the address that is registered, with what is presented
//! to it; and what its answers mean where they are no good ones.

use std::io::{self, ErrorKind, Read};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::Http;
use crate::board::root::Root;
use crate::board::{nodes, vault};
use crate::cgi::alarm;
use crate::client::knock::Knock;
use crate::client::names::{check_uri, programs_of};
use crate::client::papers::{Distrust, Papers, Unusable};
use crate::client::patience::Patience;
use crate::client::server::{Body, Fetched, Question, Reply, Server, Unread};
use crate::driver::{Driver, longest_passing, said};
use crate::error::{Error, Kind, Result, is_shortage, reason};
use crate::wire::failure::Failure;
use crate::wire::{codes, node};

impl Http {
    /// A node at a URI: `http://host:port`, or the URL under which its programs lie; or `https`.
    pub fn new(root: &Root, node: &str, uri: &str) -> Result<Http> {
        check_uri(uri)?;
        let (server, base) = programs_of(uri);
        let server = Server::new(server, root.settings.connect_timeout)
            .map_err(|error| Error::new(Kind::Internal, format!("node {node}: {uri}: {error}")))?;
        Ok(Http {
            node: node.to_string(),
            uri: uri.to_string(),
            server,
            base: base.to_string(),
            root: root.clone(),
            patience: root.settings.request_timeout,
        })
    }

    /// Puts a question to the node's server, with what is presented to it: that is read for every
    /// question, since it may have been replaced.
    ///
    /// Errors: it is not asked, for a reason of this root's, or of this request's.
    fn put<T>(
        &self,
        method: &str,
        path: &str,
        body: Body,
        content_type: Option<&str>,
        put: impl FnOnce(&Server, Question) -> io::Result<T>,
    ) -> Result<io::Result<T>> {
        if alarm::left().is_some_and(|left| left.is_zero()) {
            let said = format!("node {} is not asked: this request has no time left", self.node);
            return Err(Error::new(Kind::Shortage, said));
        }
        let path = format!("{}/processor/{path}", self.base);
        let authorization = self.authorization()?;
        let authorization = authorization.as_deref();
        let question = Question { method, path: &path, authorization, content_type, body };
        Ok(put(self.server()?, question))
    }

    /// Asks the node for what may be long.
    pub(super) fn fetch(&self, path: &str) -> Result<(Box<dyn Read>, u64)> {
        let patience = self.patience_for(u64::MAX);
        let fetched = self.put("GET", path, Body::None, None, |server, question| {
            server.fetch(&question, patience)
        })?;
        match fetched {
            Ok(Fetched::Content(_, content, Some(length))) => Ok((content, length)),
            Ok(Fetched::Content(_, _, None)) => Err(self.nonsense("a file without its length")),
            Ok(Fetched::Other(reply)) => {
                self.checked(Ok(reply))?;
                Err(self.nonsense("no file"))
            }
            Err(error) => Err(unanswered(&self.node, &error)),
        }
    }

    /// How long a request may take that brings and fetches nothing long: a request that this program
    /// answers itself comes to its end before its alarm.
    pub(super) fn patience(&self) -> Duration {
        alarm::left().map_or(self.patience, |left| left.min(self.patience))
    }

    /// How long a request may take with which so many bytes are sent, or fetched.
    fn patience_for(&self, bytes: u64) -> Patience {
        let pause = self.patience();
        Patience { pause, whole: pause + longest_passing(bytes) }
    }

    /// The server, to be believed by what is registered now, as with the token.
    pub(super) fn server(&self) -> Result<&Server> {
        if self.server.is_secure() {
            let node = nodes::find(&self.root, &self.node).map_err(not_asked)?;
            let papers = node.map(|node| Papers::new(node.ca, node.cert, node.key));
            self.server.trust(papers.unwrap_or_default());
        }
        Ok(&self.server)
    }

    /// What is presented there. The record is read after the token: whoever gives a node another uri and
    /// another token puts the token there last, so that what is read of it is never for another address than
    /// the record has by then. One that cannot be read is about to be written anew, and tells of no other.
    fn authorization(&self) -> Result<Option<String>> {
        let token = vault::node_token(&self.root, &self.node).map_err(not_asked)?;
        let Some(token) = token else { return Ok(None) };
        if let Ok(now) = nodes::find(&self.root, &self.node)
            && now.is_none_or(|node| node.uri.as_deref() != Some(&*self.uri))
        {
            let why = "it is not registered there any more";
            let said = format!("node {} is not asked at {}: {why}", self.node, self.uri);
            return Err(Error::new(Kind::Shortage, said));
        }
        Ok(Some(format!("Bearer {token}")))
    }

    /// Begins to ask whether the node is there, see [`Knock`].
    pub fn knock(&self) -> Result<Knock> {
        self.put("GET", node::INFO, Body::None, None, |server, question| {
            server.knock(&question, self.patience)
        })?
        .map_err(|error| unanswered(&self.node, &error))
    }

    pub(super) fn get(&self, path: &str, patience: Duration) -> Result<Reply> {
        let patience = Patience::of(patience);
        let ask = |server: &Server, question: Question| server.ask(question, patience);
        self.checked(self.put("GET", path, Body::None, None, ask)?)
    }

    /// What is read while it is sent may take longer, as long as it goes on.
    pub(super) fn post(&self, path: &str, content_type: &str, body: Body) -> Result<Reply> {
        let patience = match body {
            Body::Reader(_, length) => self.patience_for(length),
            _ => Patience::of(self.patience()),
        };
        let ask = |server: &Server, question: Question| server.ask(question, patience);
        let sent = self.put("POST", path, body, Some(content_type), ask)?;
        if let Err(error) = &sent
            && matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
            && self.info().is_ok()
        {
            // It refused this request before it had read all of it; it is there.
            let said = format!("node {} broke off the request", self.node);
            return Err(Error::new(Kind::BadGateway, said));
        }
        self.checked(sent)
    }

    /// An answer with a good status, or the error that it is.
    fn checked(&self, sent: io::Result<Reply>) -> Result<Reply> {
        let reply = sent.map_err(|e| unanswered(&self.node, &e))?;
        let status = reply.head.status;
        if codes::is_good(status) {
            return Ok(reply);
        }
        if let (true, Some(to)) = (codes::leads_elsewhere(status), reply.head.location()) {
            let said = format!(
                "node {} says {status}: ask {to}, which is not done: register the uri that it means",
                self.node
            );
            return Err(Error::new(Kind::BadGateway, said));
        }
        let failed = |why: &str| {
            Error::new(codes::kind(status), format!("node {} says {status}: {why}", self.node))
        };
        // Without a reason it may be what stands before a node that is not there.
        Err(match Failure::read(&reply.body) {
            Some(said) => failed(&said::bounded(&said.error)).said(),
            None => failed("no reason given"),
        })
    }

    pub(super) fn json<T: DeserializeOwned>(&self, reply: Reply) -> Result<T> {
        self.read(serde_json::from_slice(&reply.body))
    }

    /// What was read of an answer.
    pub(super) fn read<T>(&self, read: serde_json::Result<T>) -> Result<T> {
        read.map_err(|e| self.nonsense(&e.to_string()))
    }

    pub(super) fn nonsense(&self, what: &str) -> Error {
        nonsense(&self.node, what)
    }
}

/// An answer that is none. What is wrong with it may quote it.
pub(super) fn nonsense(node: &str, what: &str) -> Error {
    let what = said::bounded(what);
    Error::new(Kind::BadGateway, format!("node {node} answers nonsense: {what}"))
}

/// Several requests that belong together. One that is not answered is the last: each of the others
/// would be waited for as long.
#[derive(Default)]
pub(super) struct Asking {
    silence: Option<Error>,
}

impl Asking {
    /// Makes the next request, if all before it were answered.
    pub(super) fn ask<T>(&mut self, request: impl FnOnce() -> Result<T>) -> Result<T> {
        if let Some(silence) = &self.silence {
            return Err(silence.clone());
        }
        request().inspect_err(|error| {
            if matches!(error.kind, Kind::GatewayTimeout | Kind::Shortage) {
                self.silence = Some(error.clone());
            }
        })
    }
}

/// What this root cannot read of its own: nothing that the node has done.
fn not_asked(error: Error) -> Error {
    Error { kind: Kind::Shortage, ..error }
}

/// Why a node did not answer, or is not believed to be the one that is meant; or that it was not asked,
/// which is not its doing.
pub(in crate::driver) fn unanswered(node: &str, error: &io::Error) -> Error {
    if let Some(unread) = error.get_ref().and_then(|inner| inner.downcast_ref::<Unread>()) {
        let kind = if is_shortage(&unread.0) { Kind::Shortage } else { Kind::Internal };
        return Error::new(kind, format!("node {node} is not asked: {unread}"));
    }
    if is_shortage(error) {
        let why = reason(error);
        return Error::new(Kind::Shortage, format!("node {node} cannot be asked from here: {why}"));
    }
    let why = said::bounded(&error.to_string()); // it may have names of a certificate in it
    let failed = |how: &str| Error::new(Kind::GatewayTimeout, format!("node {node} {how}: {why}"));
    match error.get_ref() {
        // Who is asked to mend that are people here or there; it is no sign that the node is gone.
        Some(inner) if inner.is::<Distrust>() => failed("is not trusted").said(),
        Some(inner) if inner.is::<Unusable>() => failed("is not asked").said(),
        _ => failed("does not answer"),
    }
}
