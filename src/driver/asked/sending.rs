//! Jobs on their way to a node: several in one request, or one with its files.

use serde_json::Value;

use super::{Asked, Asking};
use crate::driver::carrier::{Carrier, json, nonsense};
use crate::driver::{Run, Taken, said};
use crate::error::{Error, Result};
use crate::wire::run::{self, Entry, Many, Requests};

mod batches;

use batches::batches;

impl<C: Carrier> Asked<C> {
    /// Sends jobs; one result for each, in order.
    pub(super) fn send(&self, runs: Vec<Run>) -> Result<Vec<Result<Taken>>> {
        let mut results: Vec<Option<Result<Taken>>> = Vec::with_capacity(runs.len());
        let mut plain = Vec::new();
        for run in runs {
            if run.uploads.is_empty() {
                plain.push(run.request);
                results.push(None);
            } else {
                results.push(Some(self.0.send_with_files(&run).map(|_| Taken::default())));
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
            .map(|own| {
                own.or_else(|| answers.next()).ok_or_else(|| nonsense(self.node(), "too few"))
            })
            .collect()
    }

    /// Several jobs in one request.
    fn run_many(&self, requests: Vec<Value>) -> Result<Vec<Result<Taken>>> {
        let count = requests.len();
        let ids: Vec<String> = requests.iter().map(id_of).collect();
        let runs: Vec<&str> = ids.iter().map(String::as_str).collect();
        let body = Requests::Many(requests).json().to_string();
        let reply = self.0.post(run::PATH, &body, &runs)?;
        let answer = json(self.node(), &reply)?;
        let results = Many::read(answer).nodejobs;
        if results.len() == count {
            Ok(results.into_iter().map(|one| self.one_result(one)).collect())
        } else {
            Err(nonsense(self.node(), &format!("{} results for {count} jobs", results.len())))
        }
    }

    fn one_result(&self, one: Entry) -> Result<Taken> {
        match one {
            Entry::New(_) | Entry::Repeated(_) => Ok(Taken::default()),
            Entry::Refused(why) => {
                let (code, said) = (why.code(), said::bounded(&why.error));
                Err(Error::new(why.kind(), format!("node {} says {code}: {said}", self.node())))
            }
        }
    }
}

/// The id under which a request is to run.
fn id_of(request: &Value) -> String {
    request.get("request_id").and_then(Value::as_str).unwrap_or_default().to_string()
}
