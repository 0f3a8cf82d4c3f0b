//! Jobs on their way to a node, by HTTP: several in one request, or one with its files.

use serde_json::Value;

use super::Http;
use super::asking::Asking;
use crate::client::form::Form;
use crate::client::server::Body;
use crate::driver::{Run, Taken, said};
use crate::error::{Error, Kind, Result};

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
        let body = Value::Array(requests).to_string();
        let answer: Value =
            self.json(self.post("jobs/new", "application/json", Body::Bytes(body.as_bytes()))?)?;
        let results: Vec<Result<Taken>> = answer
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

    fn one_result(&self, one: &Value) -> Result<Taken> {
        // What is there and has ended has a code, too: the program's.
        let Some(said) = one.get("error").and_then(Value::as_str) else {
            return Ok(Taken::default());
        };
        let (code, said) = (one.get("code").and_then(Value::as_u64), said::bounded(said));
        let code = code.unwrap_or(500);
        Err(Error::new(
            Kind::from_http(u16::try_from(code).unwrap_or(500)),
            format!("node {} says {code}: {said}", self.node),
        ))
    }

    /// One job with its files, as a form.
    fn run_with_files(&self, run: &Run) -> Result<Taken> {
        let mut form = Form::new(&run.request, &run.uploads)?;
        let (content_type, length) = (form.content_type().to_string(), form.length());
        let form = Body::Reader(&mut form, length);
        self.post("jobs/new", &content_type, form).map(|_| Taken::default())
    }
}
