//! Jobs on their way to a node, by HTTP: several in one request, or one with its files.

use serde_json::Value;

use super::Http;
use super::asking::Asking;
use crate::client::form::Form;
use crate::client::server::Body;
use crate::driver::{Run, Taken, said};
use crate::error::{Error, Result};
use crate::wire::run::{self, Entry, Many, Requests};

mod batches;

use batches::batches;

impl Http {
    /// Sends jobs; one result for each, in order.
    pub(super) fn send(&self, runs: Vec<Run>) -> Result<Vec<Result<Taken>>> {
        let mut results: Vec<Option<Result<Taken>>> = Vec::with_capacity(runs.len());
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

    /// Several jobs in one request.
    fn run_many(&self, requests: Vec<Value>) -> Result<Vec<Result<Taken>>> {
        let count = requests.len();
        let body = Requests::Many(requests).json().to_string();
        let answer =
            self.json(self.post(run::PATH, "application/json", Body::Bytes(body.as_bytes()))?)?;
        let results = Many::read(answer).nodejobs;
        if results.len() == count {
            Ok(results.into_iter().map(|one| self.one_result(one)).collect())
        } else {
            Err(self.nonsense(&format!("{} results for {count} jobs", results.len())))
        }
    }

    fn one_result(&self, one: Entry) -> Result<Taken> {
        match one {
            Entry::New(_) | Entry::Repeated(_) => Ok(Taken::default()),
            Entry::Refused(why) => {
                let (code, said) = (why.code(), said::bounded(&why.error));
                Err(Error::new(why.kind(), format!("node {} says {code}: {said}", self.node)))
            }
        }
    }

    /// One job with its files, as a form.
    fn run_with_files(&self, run: &Run) -> Result<Taken> {
        let mut form = Form::new(&run.request, &run.uploads)?;
        let (content_type, length) = (form.content_type().to_string(), form.length());
        let form = Body::Reader(&mut form, length);
        self.post(run::PATH, &content_type, form).map(|_| Taken::default())
    }
}
