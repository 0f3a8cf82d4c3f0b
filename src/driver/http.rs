//! The processor of a root, by HTTP: the same questions, asked of `/processor/…`.

use std::io::{self, ErrorKind, Read};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::batches::batches;
use super::form::Form;
use super::knock::Knock;
use super::names::check_uri;
use super::server::{Body, Fetched, Patience, Question, Reply, Server, Unread};
use super::tls::Distrust;
use super::{Answer, Driver, Info, Questions, Run, longest_passing};
use crate::board::feed::FeedPage;
use crate::board::root::Root;
use crate::board::{nodes, vault};
use crate::error::{Error, Kind, Result, is_shortage, reason};
use crate::model::kill::Wish;
use crate::model::log::{LogPiece, LogQuery};
use crate::model::outcome::RunStatus;

/// Ids asked about in one request: they travel in the query, and a line has 8191 bytes.
const IDS_PER_REQUEST: usize = 80;

/// Runs of tasks that are named in one request, likewise.
const RUNS_PER_REQUEST: usize = 200;

/// See the module.
pub struct Http {
    node: String,
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
        let uri = uri.trim_end_matches('/');
        let host = uri.find("://").map_or(0, |scheme| scheme + "://".len());
        let (server, base) = match uri[host..].find('/') {
            Some(path) => uri.split_at(host + path),
            None => (uri, "/cgi-bin"),
        };
        let server = Server::new(server, root.settings.connect_timeout)
            .map_err(|error| Error::new(Kind::Internal, format!("node {node}: {uri}: {error}")))?;
        Ok(Http {
            node: node.to_string(),
            server,
            base: base.to_string(),
            root: root.clone(),
            patience: root.settings.request_timeout,
        })
    }

    /// Asks the node, with what is presented to it: that is read for every request, since it may
    /// have been replaced.
    fn ask(
        &self,
        method: &str,
        path: &str,
        content_type: Option<&str>,
        body: Body,
        patience: Patience,
    ) -> Result<io::Result<Reply>> {
        let path = format!("{}/processor/{path}", self.base);
        let authorization = self.authorization()?;
        let authorization = authorization.as_deref();
        let question = Question { method, path: &path, authorization, content_type, body };
        Ok(self.server()?.ask(question, patience))
    }

    /// Asks the node for what may be long.
    fn fetch(&self, path: &str) -> Result<(Box<dyn Read>, u64)> {
        let path = format!("{}/processor/{path}", self.base);
        let authorization = self.authorization()?;
        let authorization = authorization.as_deref();
        let question = Question {
            method: "GET",
            path: &path,
            authorization,
            content_type: None,
            body: Body::None,
        };
        let patience = self.patience_for(u64::MAX);
        match self.server()?.fetch(&question, patience) {
            Ok(Fetched::Content(content, length)) => Ok((content, length)),
            Ok(Fetched::Other(reply)) => {
                self.checked(Ok(reply))?;
                Err(self.nonsense("a file without its length"))
            }
            Err(error) => Err(unanswered(&self.node, &error)),
        }
    }

    /// How long a request may take with which so many bytes are sent, or fetched.
    fn patience_for(&self, bytes: u64) -> Patience {
        Patience { pause: self.patience, whole: self.patience + longest_passing(bytes) }
    }

    /// The server, to be believed by what is registered now, as with the token.
    fn server(&self) -> Result<&Server> {
        if self.server.is_secure() {
            let node = nodes::find(&self.root, &self.node).map_err(not_asked)?;
            self.server.trust(node.and_then(|node| node.ca).map(Into::into));
        }
        Ok(&self.server)
    }

    fn authorization(&self) -> Result<Option<String>> {
        let token = vault::node_token(&self.root, &self.node).map_err(not_asked)?;
        Ok(token.map(|token| format!("Bearer {token}")))
    }

    /// Begins to ask whether the node is there, see [`Knock`].
    pub(super) fn knock(&self) -> Result<Knock> {
        let path = format!("{}/processor/info", self.base);
        let authorization = self.authorization()?;
        let authorization = authorization.as_deref();
        let question = Question {
            method: "GET",
            path: &path,
            authorization,
            content_type: None,
            body: Body::None,
        };
        self.server()?.knock(&question, self.patience).map_err(|e| unanswered(&self.node, &e))
    }

    fn get(&self, path: &str, patience: Duration) -> Result<Reply> {
        self.checked(self.ask("GET", path, None, Body::None, Patience::of(patience))?)
    }

    /// What is read while it is sent may take longer, as long as it goes on.
    fn post(&self, path: &str, content_type: &str, body: Body) -> Result<Reply> {
        let patience = match body {
            Body::Reader(_, length) => self.patience_for(length),
            _ => Patience::of(self.patience),
        };
        let sent = self.ask("POST", path, Some(content_type), body, patience)?;
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
        let status = reply.status;
        if (200..300).contains(&status) {
            return Ok(reply);
        }
        if let (300..400, Some(to)) = (status, &reply.location) {
            let said = format!(
                "node {} says {status}: ask {to}, which is not done: register the uri that it means",
                self.node
            );
            return Err(Error::new(Kind::BadGateway, said));
        }
        let said = self
            .json::<Value>(reply)
            .ok()
            .and_then(|body| body.get("error")?.as_str().map(str::to_string))
            .unwrap_or_else(|| "no reason given".into());
        Err(Error::new(
            Kind::from_http(status),
            format!("node {} says {status}: {said}", self.node),
        ))
    }

    fn json<T: serde::de::DeserializeOwned>(&self, reply: Reply) -> Result<T> {
        serde_json::from_slice(&reply.body).map_err(|e| self.nonsense(&e.to_string()))
    }

    fn lines(&self, path: &str) -> Result<Vec<String>> {
        let text = self.get(path, self.patience)?.body;
        Ok(String::from_utf8_lossy(&text).lines().map(str::to_string).collect())
    }

    fn nonsense(&self, what: &str) -> Error {
        Error::new(Kind::BadGateway, format!("node {} answers nonsense: {what}", self.node))
    }

    /// What the node knows of as many jobs as one request can name.
    fn some_statuses(&self, ids: &[String]) -> Result<Vec<Result<Answer>>> {
        let path = format!("jobs/status?ids={}", ids.join(","));
        let all: Vec<Value> = self.json(self.get(&path, self.patience)?)?;
        if all.len() != ids.len() {
            return Err(self.nonsense("not one status for each id"));
        }
        Ok(all.into_iter().map(|one| one_answer(&self.node, one)).collect())
    }

    /// Several jobs in one request.
    fn run_many(&self, requests: Vec<Value>) -> Result<Vec<Result<()>>> {
        let count = requests.len();
        let body = Value::Array(requests).to_string();
        let answer: Value =
            self.json(self.post("jobs/new", "application/json", Body::Bytes(body.as_bytes()))?)?;
        let results: Vec<Result<()>> = answer
            .get("nodejobs")
            .and_then(Value::as_array)
            .map(|all| all.iter().map(|one| self.one_result(one)).collect())
            .unwrap_or_default();
        if results.len() == count {
            Ok(results)
        } else {
            Err(self.nonsense(&format!("{} results for {count} jobs", results.len())))
        }
    }

    fn one_result(&self, one: &Value) -> Result<()> {
        let Some(code) = one.get("code").and_then(Value::as_u64) else { return Ok(()) };
        let said = one.get("error").and_then(Value::as_str).unwrap_or("no reason given");
        Err(Error::new(
            Kind::from_http(u16::try_from(code).unwrap_or(500)),
            format!("node {} says {code}: {said}", self.node),
        ))
    }

    /// Ends the run that shows this, or whatever is under the id.
    fn kill_run(&self, wish: &Wish, proof: Option<&str>) -> Result<RunStatus> {
        let Wish { id, grace, by, tasks, .. } = wish;
        let by = form_urlencoded::byte_serialize(by.as_bytes()).collect::<String>();
        let mut path = format!("jobs/{id}/kill?by={by}");
        path.extend(grace.map(|grace| format!("&grace={}", grace.as_secs_f64())));
        path.extend(proof.map(|proof| format!("&proof={proof}")));
        let ask = |path: &str| self.json(self.post(path, "application/json", Body::Bytes(b""))?);
        let Some(tasks) = tasks else { return ask(&path) };
        let mut status = None;
        for piece in tasks.pieces(RUNS_PER_REQUEST) {
            status = Some(ask(&format!("{path}&task={piece}"))?);
        }
        status.ok_or_else(|| Error::bad("no task is named"))
    }

    /// One job with its files, as a form.
    fn run_with_files(&self, run: &Run) -> Result<()> {
        let mut form = Form::new(&run.request, &run.uploads)?;
        let (content_type, length) = (form.content_type().to_string(), form.length());
        let form = Body::Reader(&mut form, length);
        self.post("jobs/new", &content_type, form).map(|_| ())
    }
}

/// Several requests that belong together. One that is not answered is the last: each of the others
/// would be waited for as long.
#[derive(Default)]
struct Asking {
    silence: Option<Error>,
}

impl Asking {
    fn ask<T>(&mut self, request: impl FnOnce() -> Result<T>) -> Result<T> {
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

/// Why a node did not answer, or is not believed to be the one that is meant; or that it was not asked, which is not its doing.
pub(super) fn unanswered(node: &str, error: &io::Error) -> Error {
    if let Some(unread) = error.get_ref().and_then(|inner| inner.downcast_ref::<Unread>()) {
        let kind = if is_shortage(&unread.0) { Kind::Shortage } else { Kind::Internal };
        return Error::new(kind, format!("node {node} is not asked: {unread}"));
    }
    if is_shortage(error) {
        let why = reason(error);
        return Error::new(Kind::Shortage, format!("node {node} cannot be asked from here: {why}"));
    }
    let said = match error.get_ref().is_some_and(|inner| inner.is::<Distrust>()) {
        true => format!("node {node} is not trusted: {error}"),
        false => format!("node {node} does not answer: {error}"),
    };
    Error::new(Kind::GatewayTimeout, said)
}

impl Questions for Http {
    fn statuses(&self, ids: &[String]) -> Result<Vec<Result<Answer>>> {
        let mut answers = Vec::with_capacity(ids.len());
        let mut asking = Asking::default();
        for ids in ids.chunks(IDS_PER_REQUEST) {
            match asking.ask(|| self.some_statuses(ids)) {
                Ok(some) => answers.extend(some),
                Err(error) if answers.is_empty() => return Err(error),
                // What was said of those before counts.
                Err(error) => answers.extend(ids.iter().map(|_| Err(error.clone()))),
            }
        }
        Ok(answers)
    }

    fn log(&self, id: &str, query: &LogQuery) -> Result<LogPiece> {
        let mut path = format!("jobs/{id}/log?offset={}", query.offset);
        if let Some(stream) = &query.stream {
            path.push_str(&format!("&stream={stream}"));
        }
        if let Some(limit) = query.limit {
            path.push_str(&format!("&limit={limit}"));
        }
        if let Some(tail) = query.tail {
            path.push_str(&format!("&tail={tail}"));
        }
        if let Some(task) = query.task {
            path.push_str(&format!("&task={task}"));
        }
        let Reply { offset, body: bytes, .. } = self.get(&path, self.patience)?;
        let next = offset.unwrap_or(query.offset + bytes.len() as u64);
        Ok(LogPiece { bytes, next })
    }

    fn files(&self, id: &str) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Names {
            files: Vec<String>,
        }
        let answer: Names = self.json(self.get(&format!("jobs/{id}/files"), self.patience)?)?;
        Ok(answer.files)
    }

    fn file(&self, id: &str, name: &str) -> Result<(Box<dyn Read>, u64)> {
        let name: String = name.bytes().fold(String::new(), |mut path, byte| {
            if byte.is_ascii_alphanumeric() || b"._-".contains(&byte) {
                path.push(byte as char);
            } else {
                path.push_str(&format!("%{byte:02X}"));
            }
            path
        });
        self.fetch(&format!("jobs/{id}/files/{name}"))
    }
}

impl Driver for Http {
    fn prepare(&self) {
        if let Ok(server) = self.server() {
            server.prepare();
        }
    }

    fn run(&self, runs: Vec<Run>) -> Result<Vec<Result<()>>> {
        let mut results: Vec<Option<Result<()>>> = Vec::with_capacity(runs.len());
        let mut plain = Vec::new();
        for run in runs {
            if run.uploads.is_empty() {
                plain.push(run.request);
                results.push(None);
            } else {
                results.push(Some(self.run_with_files(&run)));
            }
        }
        let mut answers = Vec::with_capacity(plain.len());
        let mut asking = Asking::default();
        for batch in batches(plain) {
            let count = batch.len();
            // What went wrong with one request says nothing of the others.
            let many = asking.ask(|| self.run_many(batch));
            answers.extend(many.unwrap_or_else(|error| vec![Err(error); count]));
        }
        let mut answers = answers.into_iter();
        results
            .into_iter()
            .map(|own| own.or_else(|| answers.next()).ok_or_else(|| self.nonsense("too few")))
            .collect()
    }

    fn kill(&self, wish: &Wish) -> Result<RunStatus> {
        match self.kill_run(wish, wish.proof.as_deref()) {
            // So say the programs of 0.1, which know of no proofs.
            Err(e) if e.kind == Kind::BadRequest && wish.proof.is_some() => {
                self.kill_run(wish, None)
            }
            killed => killed,
        }
    }

    fn forbid(&self, id: &str, by: &str) -> Result<Answer> {
        let by = form_urlencoded::byte_serialize(by.as_bytes()).collect::<String>();
        let path = format!("jobs/{id}/kill?by={by}&forbid=1");
        match self.post(&path, "application/json", Body::Bytes(b"")) {
            Ok(reply) => Ok(Answer::Known(self.json(reply)?)),
            Err(e) if e.kind == Kind::Gone => Ok(Answer::Cancelled(e.message)),
            Err(e) => Err(e),
        }
    }

    fn list(&self) -> Result<Vec<String>> {
        self.lines("jobs")
    }

    fn unfinished(&self) -> Result<Vec<String>> {
        let mut ids = self.lines("jobs?state=queued")?;
        ids.extend(self.lines("jobs?state=running")?);
        Ok(ids)
    }

    fn feed(&self, since: Option<&str>, wait: Duration) -> Result<FeedPage> {
        let since = since.map(|since| format!("since={since}&")).unwrap_or_default();
        let path = format!("events?{since}wait={}", wait.as_secs_f64());
        #[derive(Deserialize)]
        struct Page {
            cursor: String,
            events: Vec<Value>,
        }
        let Page { cursor, events } = self.json(self.get(&path, self.patience + wait)?)?;
        Ok(FeedPage { cursor, events: readable(events) })
    }

    fn acknowledge(&self, ids: &[String]) -> Result<()> {
        let body = json!({ "nodejobs": ids }).to_string();
        self.post("jobs/ack", "application/json", Body::Bytes(body.as_bytes())).map(|_| ())
    }

    fn info(&self) -> Result<Info> {
        self.json(self.get("info", self.patience)?)
    }
}

/// What a node says of one job. One that makes no sense is no answer about that job alone.
fn one_answer(node: &str, one: Value) -> Result<Answer> {
    // The line about an end has a code, too: the program's.
    let error = one.get("error").and_then(Value::as_str);
    match (error, one.get("code").and_then(Value::as_u64)) {
        (Some(_), Some(404)) => Ok(Answer::Unknown),
        (Some(why), Some(410)) => Ok(Answer::Cancelled(why.to_string())),
        (Some(error), _) => {
            Err(Error::new(Kind::BadGateway, format!("node {node} cannot say: {error}")))
        }
        (None, _) => serde_json::from_value(one).map(Answer::Known).map_err(|e| {
            Error::new(Kind::BadGateway, format!("node {node} answers nonsense: {e}"))
        }),
    }
}

/// The lines of a feed that can be read. One that cannot keeps no other: what it is about is asked
/// about with the rest.
fn readable(events: Vec<Value>) -> Vec<RunStatus> {
    events.into_iter().filter_map(|one| serde_json::from_value(one).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_makes_no_sense_keeps_no_other() {
        let good = json!({"id": "c-1.1", "state": "queued", "status": "unknown", "at": "t"});
        let bad = json!({"id": "c-2.1", "state": "dreaming", "status": "unknown", "at": "t"});
        assert!(matches!(one_answer("n", good.clone()), Ok(Answer::Known(_))));
        assert!(one_answer("n", bad.clone()).is_err_and(|e| e.kind == Kind::BadGateway));
        assert_eq!(readable(vec![bad, good]).len(), 1);
    }
}
