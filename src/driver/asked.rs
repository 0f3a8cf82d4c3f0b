//! The questions for the processor of another root, and what its answers mean, whatever carries them.

use std::io::Read;

use serde_json::json;

use super::carrier::{Carrier, json, nonsense, read};
use super::{Answer, Driver, Questions, Run, Taken, said};
use crate::client::server::Reply;
use crate::error::{Error, Kind, Result};
use crate::model::ids::RunId;
use crate::model::kill::Wish;
use crate::model::log::{LogPiece, LogQuery};
use crate::model::run_status::{RunState, RunStatus};
use crate::wire::ack::{self, Ack};
use crate::wire::feed::{FeedPage, Since};
use crate::wire::kill::Kill;
use crate::wire::list::{self, List};
use crate::wire::node::Info;
use crate::wire::status::{Entry, Statuses};
use crate::wire::{log, work};

mod sending;

/// Ids asked about in one request: they travel in the query, and a line has 8191 bytes.
const IDS_PER_REQUEST: usize = 80;

/// Runs of tasks that are named in one request, likewise.
const RUNS_PER_REQUEST: usize = 200;

/// A node that is asked by this carrier.
pub(super) struct Asked<C>(pub C);

/// Several requests that belong together. One that is not answered is the last: each of the others
/// would be waited for as long.
#[derive(Default)]
struct Asking {
    silence: Option<Error>,
}

impl Asking {
    /// Makes the next request, if all before it were answered.
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

impl<C: Carrier> Asked<C> {
    fn node(&self) -> &str {
        self.0.node()
    }

    fn ids(&self, state: Option<RunState>) -> Result<Vec<RunId>> {
        Ok(list::read(&self.0.get(&List { state }.path())?.body))
    }

    fn run_status(&self, id: &RunId, reply: Reply) -> Result<RunStatus> {
        about(self.node(), id, json(self.node(), &reply).map(said::status)?)
    }

    /// What the node knows of as many jobs as one request can name.
    fn some_statuses(&self, ids: &[RunId]) -> Result<Vec<Result<Answer>>> {
        let all: Vec<serde_json::Value> =
            json(self.node(), &self.0.get(&Statuses::of(ids).path())?)?;
        if all.len() != ids.len() {
            return Err(nonsense(self.node(), "not one status for each id"));
        }
        let answer = |(id, one)| one_answer(self.node(), id, Entry::read(one));
        Ok(ids.iter().zip(all).map(answer).collect())
    }

    /// Ends the run that shows this, or whatever is under the id.
    fn kill_run(&self, wish: &Wish, proof: Option<&str>) -> Result<RunStatus> {
        let Wish { id, grace, by, tasks, .. } = wish;
        let (by, proof) = (Some(by.clone()), proof.map(str::to_string));
        let all = Kill { by, grace: *grace, tasks: None, proof, forbid: false };
        let ask = |kill: &Kill| self.run_status(id, self.post_kill(id, kill)?);
        let Some(tasks) = tasks else { return ask(&all) };
        let mut status = None;
        for piece in tasks.pieces(RUNS_PER_REQUEST) {
            status = Some(ask(&Kill { tasks: Some(piece), ..all.clone() })?);
        }
        status.ok_or_else(|| Error::bad("no task is named"))
    }

    fn post_kill(&self, id: &RunId, kill: &Kill) -> Result<Reply> {
        self.0.post(&kill.path(id), "", &[])
    }
}

impl<C: Carrier> Questions for Asked<C> {
    fn statuses(&self, ids: &[RunId]) -> Result<Vec<Result<Answer>>> {
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

    fn log(&self, id: &RunId, query: &LogQuery) -> Result<LogPiece> {
        let path = log::path(id, query);
        let Reply { head, body: bytes } = self.0.get(&path)?;
        let offset = head.number(log::OFFSET);
        let end = query.offset.saturating_add(bytes.len() as u64);
        let next = offset.unwrap_or(end);
        if next < end && !bytes.is_empty() {
            return Err(nonsense(self.node(), "a log that goes back")); // who follows it would for ever
        }
        Ok(LogPiece { bytes, next })
    }

    fn files(&self, id: &RunId) -> Result<Vec<String>> {
        let reply = self.0.get(&work::names_path(id))?;
        Ok(read(self.node(), work::Names::read(&reply.body))?.files)
    }

    fn file(&self, id: &RunId, name: &str) -> Result<(Box<dyn Read>, u64)> {
        self.0.fetch(&work::file_path(id, name))
    }
}

impl<C: Carrier> Driver for Asked<C> {
    fn prepare(&self) {
        self.0.prepare();
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

    fn forbid(&self, id: &RunId, by: &str) -> Result<Answer> {
        let kill = Kill { by: Some(by.to_string()), forbid: true, ..Kill::default() };
        match self.post_kill(id, &kill) {
            Ok(reply) => Ok(Answer::Known(Box::new(self.run_status(id, reply)?))),
            Err(e) if e.kind == Kind::Gone => Ok(Answer::Cancelled(e.message)),
            Err(e) => Err(e),
        }
    }

    fn list(&self) -> Result<Vec<RunId>> {
        self.ids(None)
    }

    fn unfinished(&self) -> Result<Vec<RunId>> {
        let mut ids = self.ids(Some(RunState::Queued))?;
        ids.extend(self.ids(Some(RunState::Running))?);
        Ok(ids)
    }

    fn feed(&self, since: &Since) -> Result<FeedPage> {
        let FeedPage { cursor, events } = self.0.feed(since)?;
        Ok(FeedPage { cursor, events: events.into_iter().map(said::status).collect() })
    }

    fn acknowledge(&self, ids: &[RunId]) -> Result<()> {
        let body = json!(Ack::of(ids)).to_string();
        self.0.post(ack::PATH, &body, &[]).map(|_| ())
    }

    fn info(&self) -> Result<Info> {
        self.0.info()
    }
}

/// What a node says of one job. One that makes no sense is no answer about that job alone, nor is what it
/// says of another.
fn one_answer(node: &str, id: &RunId, one: serde_json::Result<Entry>) -> Result<Answer> {
    match one {
        Ok(Entry::Status(status)) => {
            about(node, id, said::status(*status)).map(|status| Answer::Known(Box::new(status)))
        }
        Ok(Entry::None(why)) => {
            let cannot = |why: Error| format!("node {node} cannot say: {}", why.message);
            let why = Error::new(why.kind(), said::bounded(&why.error));
            Answer::of(Err(why)).map_err(|why| Error::new(Kind::BadGateway, cannot(why)))
        }
        Err(error) => Err(nonsense(node, &error.to_string())),
    }
}

/// A status, if it is that of the job that was asked about, or does not say of which.
fn about(node: &str, id: &RunId, status: RunStatus) -> Result<RunStatus> {
    match &status.id {
        Some(other) if *other != **id => {
            Err(nonsense(node, &format!("asked about {id}, it tells of {other}")))
        }
        _ => Ok(status),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn one_that_makes_no_sense_is_told_as_such() {
        let good = json!({"id": "c-1.1", "state": "queued", "status": "unknown", "at": "t"});
        let bad = json!({"id": "c-2.1", "state": "dreaming", "status": "unknown", "at": "t"});
        let answer = |id, one: &serde_json::Value| {
            one_answer("n", &RunId::parse(id).unwrap(), Entry::read(one.clone()))
        };
        let is_nonsense =
            |answer: Result<Answer>| answer.is_err_and(|e| e.kind == Kind::BadGateway);
        assert!(matches!(answer("c-1.1", &good), Ok(Answer::Known(_))));
        assert!(is_nonsense(answer("c-3.1", &good)), "it is another job's");
        assert!(is_nonsense(answer("c-2.1", &bad)));
        let failed = |code: u16| json!({"id": "c-1.1", "error": "why\n", "code": code});
        assert!(matches!(answer("c-1.1", &failed(404)), Ok(Answer::Unknown)));
        assert!(
            matches!(answer("c-1.1", &failed(410)), Ok(Answer::Cancelled(why)) if why == "why ")
        );
        let cannot = answer("c-1.1", &failed(503)).map_err(|e| (e.kind, e.message));
        assert!(
            matches!(&cannot, Err((Kind::BadGateway, why)) if why == "node n cannot say: why "),
            "{cannot:?}"
        );
    }
}
