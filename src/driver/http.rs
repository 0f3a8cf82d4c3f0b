//! The processor of a root, asked by HTTP under the address that is registered, with what is presented to
//! it.

use std::io::{self, ErrorKind, Read};
use std::time::Duration;

use super::carrier::{Carrier, checked, nonsense, read};
use super::{Run, longest_passing, said};
use crate::board::root::Root;
use crate::board::{nodes, vault};
use crate::cgi::alarm;
use crate::client::form::Form;
use crate::client::knock::Knock;
use crate::client::names::{check_uri, programs_of};
use crate::client::papers::{Distrust, Papers, Unusable};
use crate::client::patience::Patience;
use crate::client::server::{Body, Fetched, Question, Reply, Server, Unread};
use crate::error::{Error, Kind, Result, is_shortage, reason};
use crate::wire::feed::{FeedPage, Since};
use crate::wire::node::{self, Info};
use crate::wire::run;

/// See the module.
pub struct Http {
    node: String,
    /// As it is registered.
    uri: String,
    server: Server,
    /// The path under which its programs lie.
    base: String,
    root: Root,
    patience: Duration,
}

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

    /// How long a request may take with which so many bytes are sent, or fetched.
    fn patience_for(&self, bytes: u64) -> Patience {
        let pause = self.patience();
        Patience { pause, whole: pause + longest_passing(bytes) }
    }

    /// The server, to be believed by what is registered now, as with the token.
    fn server(&self) -> Result<&Server> {
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

    fn ask(&self, path: &str, patience: Duration) -> Result<Reply> {
        let patience = Patience::of(patience);
        let ask = |server: &Server, question: Question| server.ask(question, patience);
        self.answered(self.put("GET", path, Body::None, None, ask)?)
    }

    fn answered(&self, sent: io::Result<Reply>) -> Result<Reply> {
        checked(&self.node, sent.map_err(|e| unanswered(&self.node, &e))?)
    }

    /// What is read while it is sent may take longer, as long as it goes on.
    fn send(&self, path: &str, content_type: &str, body: Body) -> Result<Reply> {
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
        self.answered(sent)
    }
}

impl Carrier for Http {
    fn node(&self) -> &str {
        &self.node
    }

    fn prepare(&self) {
        if let Ok(server) = self.server() {
            server.prepare();
        }
    }

    fn get(&self, path: &str) -> Result<Reply> {
        self.ask(path, self.patience())
    }

    fn fetch(&self, path: &str) -> Result<(Box<dyn Read>, u64)> {
        let patience = self.patience_for(u64::MAX);
        let fetched = self.put("GET", path, Body::None, None, |server, question| {
            server.fetch(&question, patience)
        })?;
        match fetched {
            Ok(Fetched::Content(_, content, Some(length))) => Ok((content, length)),
            Ok(Fetched::Content(_, _, None)) => {
                Err(nonsense(&self.node, "a file without its length"))
            }
            Ok(Fetched::Other(reply)) => {
                checked(&self.node, reply)?;
                Err(nonsense(&self.node, "no file"))
            }
            Err(error) => Err(unanswered(&self.node, &error)),
        }
    }

    fn post(&self, path: &str, json: &str, _runs: &[&str]) -> Result<Reply> {
        self.send(path, "application/json", Body::Bytes(json.as_bytes()))
    }

    fn send_with_files(&self, run: &Run) -> Result<Reply> {
        let mut form = Form::new(&run.request, &run.uploads)?;
        let (content_type, length) = (form.content_type().to_string(), form.length());
        self.send(run::PATH, &content_type, Body::Reader(&mut form, length))
    }

    fn feed(&self, since: &Since) -> Result<FeedPage> {
        let reply = self.ask(&since.path(), self.patience() + since.wait)?;
        read(&self.node, FeedPage::read(&reply.body))
    }

    fn info(&self) -> Result<Info> {
        let reply = self.get(node::INFO)?;
        read(&self.node, Info::read(&reply.body))
    }

    /// A request that this program answers itself comes to its end before its alarm.
    fn patience(&self) -> Duration {
        alarm::left().map_or(self.patience, |left| left.min(self.patience))
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
