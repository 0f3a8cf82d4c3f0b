//! The processor of this very root: its files are right here, no server is needed.

use std::io::Read;

use serde_json::Value;

use super::{Answer, Driver, Questions, Run, Taken};
use crate::board::incoming::{Incoming, Place};
use crate::board::root::Root;
use crate::board::uploads::Upload;
use crate::error::{Error, Kind, Result};
use crate::model::ids::RunId;
use crate::model::kill::Wish;
use crate::model::log::{LogPiece, LogQuery};
use crate::model::run_status::RunStatus;
use crate::processor;
use crate::processor::accept::NewRun;
use crate::wire::feed::{FeedPage, Since};
use crate::wire::node::Info;

/// See the module.
pub struct Local {
    root: Root,
}

impl Local {
    /// The processor of this root.
    pub fn new(root: Root) -> Local {
        Local { root }
    }
}

impl Local {
    /// The same root with its settings as they are now: they may have been changed since this process
    /// began. Settings that are wrong now are told by [`Driver::info`].
    fn as_set_now(&self) -> Root {
        Root::open(self.root.dir()).unwrap_or_else(|_| self.root.clone())
    }

    /// Copies of files for a job's own directory.
    fn take_over(&self, uploads: &[Upload]) -> Result<Option<Incoming>> {
        if uploads.is_empty() {
            return Ok(None);
        }
        let mut incoming = Incoming::new(&self.root, Place::Node)?;
        for Upload { name, path, size } in uploads {
            incoming.copy(name, path, *size)?;
        }
        Ok(Some(incoming))
    }
}

impl Questions for Local {
    fn statuses(&self, ids: &[RunId]) -> Result<Vec<Result<Answer>>> {
        let found = processor::report::statuses(&self.root, ids).map_err(own)?;
        Ok(found.into_iter().map(|known| Answer::of(known).map_err(own)).collect())
    }

    fn log(&self, id: &RunId, query: &LogQuery) -> Result<LogPiece> {
        processor::log::read(&self.root, id, query)
    }

    fn files(&self, id: &RunId) -> Result<Vec<String>> {
        processor::files::names(&self.root, id)
    }

    fn file(&self, id: &RunId, name: &str) -> Result<(Box<dyn Read>, u64)> {
        let (file, length) = processor::files::open(&self.root, id, name)?;
        Ok((Box::new(file), length))
    }
}

impl Driver for Local {
    fn run(&self, runs: Vec<Run>) -> Result<Vec<Result<Taken>>> {
        let root = self.root.dir().display().to_string();
        let mut taken = Vec::with_capacity(runs.len());
        // What cannot be taken over keeps none of the others from being accepted.
        let errors: Vec<Option<Error>> = runs
            .into_iter()
            .map(|mut run| {
                // Board and job are on one machine: the job may use the programs as commands.
                if let Some(environment) =
                    run.request.get_mut("environment").and_then(Value::as_object_mut)
                {
                    environment.insert("CORKBOARD_ROOT".into(), Value::String(root.clone()));
                }
                let uploads = match self.take_over(&run.uploads) {
                    Ok(uploads) => uploads,
                    Err(error) => return Some(own(error)),
                };
                taken.push(NewRun { id: run.id, request: run.request, uploads, by: None });
                None
            })
            .collect();
        let mut accepted =
            processor::accept::accept(&self.as_set_now(), taken).map_err(own)?.into_iter();
        let mut next = || {
            let missing = || Err(Error::new(Kind::Internal, "no answer for the job"));
            accepted.next().unwrap_or_else(missing).map(|_| Taken::default())
        };
        Ok(errors.into_iter().map(|error| error.map_or_else(&mut next, Err)).collect())
    }

    fn kill(&self, wish: &Wish) -> Result<RunStatus> {
        processor::report::kill(&self.root, wish).map_err(own)
    }

    fn forbid(&self, id: &RunId, by: &str) -> Result<Answer> {
        match processor::kill::forbid(&self.root, id, by) {
            Ok(status) => Ok(Answer::Known(Box::new(status))),
            Err(e) if e.kind == Kind::Gone => Ok(Answer::Cancelled(e.message)),
            Err(e) => Err(own(e)),
        }
    }

    fn list(&self) -> Result<Vec<RunId>> {
        processor::list::ids(&self.root)
    }

    fn unfinished(&self) -> Result<Vec<RunId>> {
        processor::list::unfinished(&self.root).map_err(own)
    }

    fn feed(&self, since: &Since) -> Result<FeedPage> {
        processor::report::feed(&self.root, since).map_err(own)
    }

    fn acknowledge(&self, ids: &[RunId]) -> Result<()> {
        processor::ack::acknowledge(&self.root, ids.iter().map(|id| &**id)).map(|_| ()).map_err(own)
    }

    fn info(&self) -> Result<Info> {
        // With the settings as they are now.
        let root = Root::open(self.root.dir()).map_err(own)?;
        processor::info::told(&root).map_err(own)
    }
}

/// A node that is this very process cannot but answer: what it lacks is lacked here, and whatever else is
/// wrong it says itself.
fn own(error: Error) -> Error {
    match error.kind {
        Kind::Unavailable => Error { kind: Kind::Shortage, ..error },
        _ => error.said(),
    }
}
