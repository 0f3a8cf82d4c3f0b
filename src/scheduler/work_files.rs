//! The files that a job left behind, fetched from the nodes that have them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use serde_json::json;

use super::jobs::number;
use super::outputs::{ask, is_absent};
use super::tasks;
use crate::board::cards::Cards;
use crate::board::{root::Root, uploads};
use crate::cgi::{Call, Response};
use crate::error::{Error, Kind, Result};
use crate::model::card::{Attempt, Card};
use crate::model::tasks::TaskSet;

/// Most ranges that an error names.
const NAMED: usize = 10;

/// What is in the work directories of a job's last attempt, or of all ranges of an array.
#[derive(Default)]
struct Files<'c> {
    /// Names, with the attempts that have a file of that name.
    names: BTreeMap<String, Vec<&'c Attempt>>,
    /// Nodes that did not answer.
    silent: BTreeSet<String>,
}

impl<'c> Files<'c> {
    /// Asks the nodes. An error where none of them answers.
    fn list(root: &Root, card: &'c Card, task: Option<u32>) -> Result<Files<'c>> {
        let most = if card.is_array() && task.is_none() { usize::MAX } else { 1 };
        let mut files = Files::default();
        let (mut heard, mut failed) = (false, None);
        for attempt in tasks::runs_of(card, task).take(most) {
            if files.silent.contains(&attempt.node) {
                continue;
            }
            match ask(root, attempt).and_then(|node| node.files(&attempt.nodejob)) {
                Ok(names) => {
                    heard = true;
                    names
                        .into_iter()
                        .for_each(|name| files.names.entry(name).or_default().push(attempt));
                }
                Err(e) if is_absent(&e) => heard = true,
                Err(e) => {
                    files.silent.insert(attempt.node.clone());
                    failed = Some(e);
                }
            }
        }
        match failed.filter(|_| !heard) {
            Some(error) => Err(error),
            None => Ok(files),
        }
    }
}

/// `GET jobs/N/files`: what is in the job's work directory, or was uploaded for it. Of an array what
/// any of its ranges has, or the one in which a task last ran.
pub fn files(call: &Call) -> Result<Response> {
    let card = Cards::new(call.root).find(number(call)?)?;
    let task = task(call, &card)?;
    let files = Files::list(call.root, &card, task)?;
    let mut names = uploads::names(call.root, card.job())?;
    names.extend(files.names.into_keys());
    names.sort_unstable();
    names.dedup();
    let mut answer = json!({ "files": names });
    if !files.silent.is_empty() {
        answer["silent"] = json!(files.silent);
    }
    Ok(Response::of(answer))
}

/// `GET jobs/N/files/NAME`. Where several ranges of an array have such a file, a task has to say
/// which is meant: 409.
pub fn file(call: &Call) -> Result<Response> {
    let card = Cards::new(call.root).find(number(call)?)?;
    let (job, name) = (card.job(), call.value(1));
    let task = task(call, &card)?;
    let mut files = Files::list(call.root, &card, task)?;
    let having = files.names.remove(name).unwrap_or_default();
    let found: Option<(Box<dyn Read>, u64)> = match having.as_slice() {
        [] => uploads::open(call.root, job, name)?
            .map(|(file, length)| (Box::new(file) as Box<dyn Read>, length)),
        [attempt] => Some(ask(call.root, attempt)?.file(&attempt.nodejob, name)?),
        several => {
            let tasks = several.iter().filter_map(|attempt| attempt.tasks.as_ref());
            let tasks: Vec<String> = tasks.take(NAMED).map(TaskSet::brief).collect();
            return Err(Error::conflict(format!(
                "{} ranges of job {job} have a file of this name: say which by task=K, of {}{}",
                several.len(),
                tasks.join(" or "),
                if several.len() > NAMED { " or others" } else { "" }
            )));
        }
    };
    let absent = || match files.silent.first() {
        Some(node) => Error::new(
            Kind::GatewayTimeout,
            format!("node {node} may have it, and does not answer"),
        ),
        None => Error::not_found(format!("job {job} has no such file; jobs/N/files lists them")),
    };
    let (file, length) = found.ok_or_else(absent)?;
    Ok(Response::reader(file, length))
}

/// The task that the request names, which the job must have.
fn task(call: &Call, card: &Card) -> Result<Option<u32>> {
    let task = call.request.task()?;
    task.map_or(Ok(()), |task| card.check_tasks(&TaskSet::one(task)))?;
    Ok(task)
}
