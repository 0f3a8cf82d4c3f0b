//! The processor of a root, by HTTP: the same questions, asked of `/processor/…`.

use std::io::Read;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Driver, Info, Questions, Run, Taken, said};
use crate::board::feed::FeedPage;
use crate::board::root::Root;
use crate::client::server::{Body, Reply, Server};
use crate::error::{Error, Kind, Result};
use crate::model::kill::Wish;
use crate::model::log::{LogPiece, LogQuery};
use crate::model::run_status::RunStatus;

mod asking;
mod sending;

pub(super) use asking::unanswered;
use asking::{Asking, nonsense};

/// Ids asked about in one request: they travel in the query, and a line has 8191 bytes.
const IDS_PER_REQUEST: usize = 80;

/// Runs of tasks that are named in one request, likewise.
const RUNS_PER_REQUEST: usize = 200;

/// Most ids that a node is asked to list: more than it has, where it would name a thousand else.
const ALL: u32 = 1_000_000_000;

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
    fn lines(&self, path: &str) -> Result<Vec<String>> {
        let text = self.get(path, self.patience())?.body;
        Ok(String::from_utf8_lossy(&text).lines().map(str::to_string).collect())
    }

    fn run_status(&self, id: &str, reply: Reply) -> Result<RunStatus> {
        about(&self.node, id, self.json(reply).map(said::status)?)
    }

    /// What the node knows of as many jobs as one request can name.
    fn some_statuses(&self, ids: &[String]) -> Result<Vec<Result<Answer>>> {
        let path = format!("jobs/status?ids={}", ids.join(","));
        let all: Vec<Value> = self.json(self.get(&path, self.patience())?)?;
        if all.len() != ids.len() {
            return Err(self.nonsense("not one status for each id"));
        }
        Ok(ids.iter().zip(all).map(|(id, one)| one_answer(&self.node, id, one)).collect())
    }

    /// Ends the run that shows this, or whatever is under the id.
    fn kill_run(&self, wish: &Wish, proof: Option<&str>) -> Result<RunStatus> {
        let Wish { id, grace, by, tasks, .. } = wish;
        let by = form_urlencoded::byte_serialize(by.as_bytes()).collect::<String>();
        let mut path = format!("jobs/{id}/kill?by={by}");
        path.extend(grace.map(|grace| format!("&grace={}", grace.as_secs_f64())));
        path.extend(proof.map(|proof| format!("&proof={proof}")));
        let ask = |path: &str| {
            self.run_status(id, self.post(path, "application/json", Body::Bytes(b""))?)
        };
        let Some(tasks) = tasks else { return ask(&path) };
        let mut status = None;
        for piece in tasks.pieces(RUNS_PER_REQUEST) {
            status = Some(ask(&format!("{path}&task={piece}"))?);
        }
        status.ok_or_else(|| Error::bad("no task is named"))
    }
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
        let Reply { head, body: bytes } = self.get(&path, self.patience())?;
        let offset = head.number("x-corkboard-offset");
        let end = query.offset.saturating_add(bytes.len() as u64);
        let next = offset.unwrap_or(end);
        if next < end && !bytes.is_empty() {
            return Err(self.nonsense("a log that goes back")); // who follows it would for ever
        }
        Ok(LogPiece { bytes, next })
    }

    fn files(&self, id: &str) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Names {
            files: Vec<String>,
        }
        let answer: Names = self.json(self.get(&format!("jobs/{id}/files"), self.patience())?)?;
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

    fn run(&self, runs: Vec<Run>) -> Result<Vec<Result<Taken>>> {
        self.send(runs)
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
            Ok(reply) => Ok(Answer::Known(Box::new(self.run_status(id, reply)?))),
            Err(e) if e.kind == Kind::Gone => Ok(Answer::Cancelled(e.message)),
            Err(e) => Err(e),
        }
    }

    fn list(&self) -> Result<Vec<String>> {
        self.lines(&format!("jobs?limit={ALL}"))
    }

    fn unfinished(&self) -> Result<Vec<String>> {
        let mut ids = self.lines(&format!("jobs?state=queued&limit={ALL}"))?;
        ids.extend(self.lines(&format!("jobs?state=running&limit={ALL}"))?);
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
        let Page { cursor, events } = self.json(self.get(&path, self.patience() + wait)?)?;
        Ok(FeedPage { cursor, events: readable(events) })
    }

    fn acknowledge(&self, ids: &[String]) -> Result<()> {
        let body = json!({ "nodejobs": ids }).to_string();
        self.post("jobs/ack", "application/json", Body::Bytes(body.as_bytes())).map(|_| ())
    }

    fn info(&self) -> Result<Info> {
        self.json(self.get("info", self.patience())?)
    }
}

/// What a node says of one job. One that makes no sense is no answer about that job alone, nor is what it
/// says of another.
fn one_answer(node: &str, id: &str, one: Value) -> Result<Answer> {
    // The line about an end has a code, too: the program's.
    let error = one.get("error").and_then(Value::as_str);
    match (error, one.get("code").and_then(Value::as_u64)) {
        (Some(_), Some(404)) => Ok(Answer::Unknown),
        (Some(why), Some(410)) => Ok(Answer::Cancelled(said::bounded(why))),
        (Some(error), _) => {
            let error = said::bounded(error);
            Err(Error::new(Kind::BadGateway, format!("node {node} cannot say: {error}")))
        }
        (None, _) => match serde_json::from_value(one) {
            Ok(status) => {
                about(node, id, said::status(status)).map(|status| Answer::Known(Box::new(status)))
            }
            Err(error) => Err(nonsense(node, &error.to_string())),
        },
    }
}

/// A status, if it is that of the job that was asked about, or does not say of which.
fn about(node: &str, id: &str, status: RunStatus) -> Result<RunStatus> {
    match &status.id {
        Some(other) if other != id => {
            Err(nonsense(node, &format!("asked about {id}, it tells of {other}")))
        }
        _ => Ok(status),
    }
}

/// The lines of a feed that can be read. One that cannot keeps no other: what it is about is asked
/// about with the rest.
fn readable(events: Vec<Value>) -> Vec<RunStatus> {
    let read = |one| serde_json::from_value(one).ok().map(said::status);
    events.into_iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_makes_no_sense_keeps_no_other() {
        let good = json!({"id": "c-1.1", "state": "queued", "status": "unknown", "at": "t"});
        let bad = json!({"id": "c-2.1", "state": "dreaming", "status": "unknown", "at": "t"});
        let is_nonsense =
            |answer: Result<Answer>| answer.is_err_and(|e| e.kind == Kind::BadGateway);
        assert!(matches!(one_answer("n", "c-1.1", good.clone()), Ok(Answer::Known(_))));
        assert!(is_nonsense(one_answer("n", "c-3.1", good.clone())), "it is another job's");
        assert!(is_nonsense(one_answer("n", "c-2.1", bad.clone())));
        assert_eq!(readable(vec![bad, good]).len(), 1);
    }
}
