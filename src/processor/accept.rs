//! Accepting jobs: any number in one sync, and a supervisor is woken.

use std::fs;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::info::Total;
use super::status::{self, Unfit};
use super::{gpus, start};
use crate::board::acceptance::{Entered, Prepared};
use crate::board::files;
use crate::board::incoming::{Arrived, Incoming};
use crate::board::root::Root;
use crate::board::runs::{RUNS_PER_LOCK, Runs};
use crate::board::sync_set::SyncSet;
use crate::error::{At, Error, Kind, Result};
use crate::model::ids::RunId;
use crate::model::request::Spec;
use crate::model::request_fields::BY_FIELD;

/// A job to be accepted.
#[derive(Debug)]
pub struct NewRun {
    /// Its id here.
    pub id: RunId,
    /// Its request, kept as it is.
    pub request: Value,
    /// Files for its `work/`; `None` where there are none.
    pub uploads: Option<Incoming>,
    /// The user whose it is, if it is one's.
    pub by: Option<String>,
}

/// A job that is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Its id.
    pub id: RunId,
    /// Whether it came just now; otherwise the same request was accepted before.
    pub new: bool,
}

/// Accepts jobs, each for itself: 400 for a request that is not valid, 422 for one that this node
/// could never run or that differs from an accepted one of the same id, 410 for an id that was
/// cancelled before it came, 503 if there is no space for it, or it is not known yet which GPUs there are. What is accepted is durable when
/// this returns; on an error of the whole nothing is known, and repeating it is safe.
pub fn accept(root: &Root, requests: Vec<NewRun>) -> Result<Vec<Result<Accepted>>> {
    let runs = Runs::new(root);
    let mut total = Total::known(root);
    let mut sync = SyncSet::new();
    let mut results = Vec::with_capacity(requests.len());
    // The queue is in the order of these times, so each is its own.
    let begun = SystemTime::now();
    let mut requests = requests.into_iter().enumerate().peekable();
    while requests.peek().is_some() {
        let prepared: Vec<(Wanted, Result<Prepared>)> = requests
            .by_ref()
            .take(RUNS_PER_LOCK)
            .map(|(index, new)| {
                let NewRun { id, mut request, uploads, by } = new;
                let files = uploads.as_ref().map(|uploads| uploads.files().to_vec());
                let valid = check(root, &request, &mut total);
                if let (Some(by), Some(map)) = (by, request.as_object_mut()) {
                    map.insert(BY_FIELD.into(), by.into());
                }
                let wanted = Wanted { id, request, files: files.unwrap_or_default() };
                let prepared = valid.and_then(|()| {
                    let at = begun + Duration::from_nanos(index as u64);
                    runs.prepare(&wanted.request, uploads, at)
                });
                (wanted, prepared)
            })
            .collect();
        let held = match runs.lock() {
            Ok(held) => held,
            // Those before have names already, and may run: the error is that of these alone.
            Err(error) => {
                for (new, prepared) in prepared {
                    if let Ok(prepared) = &prepared {
                        runs.discard(prepared);
                    }
                    results.push(Err(of_known(&runs, &new.id, error.clone())));
                }
                continue;
            }
        };
        for (new, prepared) in prepared {
            let entered = prepared
                .and_then(|prepared| runs.enter(&held, &new.id, prepared))
                .map_err(|error| of_known(&runs, &new.id, error));
            results.push(entered.and_then(|entered| match entered {
                Entered::New(set) => {
                    sync.merge(set);
                    Ok(Accepted { id: new.id, new: true })
                }
                Entered::Taken => {
                    compare(&runs, &new)?;
                    sync.merge(runs.sync_of(&new.id)?);
                    Ok(Accepted { id: new.id, new: false })
                }
            }));
        }
    }
    // A supervisor starts while this waits for the disk: what it claims is durable before it runs.
    let any = results.iter().any(|result| result.as_ref().is_ok_and(|accepted| accepted.new));
    let started = if any { start::begin(root) } else { Ok(None) };
    let synced = sync.commit();
    let reaped = started.and_then(|child| match child {
        Some(mut child) => child.wait().map(|_| ()).at("supervisor"),
        None => Ok(()),
    });
    // What is accepted is accepted; a supervisor that cannot be started now is by a sweep.
    if let Err(error) = reaped {
        eprintln!("processor: {}", error.message);
    }
    synced?;
    Ok(results)
}

/// A job to be accepted, whose files are where they belong by now, or gone.
struct Wanted {
    id: RunId,
    request: Value,
    files: Vec<Arrived>,
}

/// Whether a request may be accepted by a node with so much in all; that is found out where it has to be.
fn check(root: &Root, request: &Value, total: &mut Total) -> Result<()> {
    let spec = Spec::for_node(request)?;
    let mut against = status::unfit(&spec, None, total);
    if matches!(against, Some(Unfit::NotKnown(_))) {
        *total = Total::with(root, &gpus::told(root));
        against = status::unfit(&spec, None, total);
    }
    match against {
        None => Ok(()),
        Some(Unfit::Never(why)) => Err(Error::new(Kind::Unprocessable, why)),
        Some(Unfit::NotKnown(why)) => Err(Error::new(Kind::Unavailable, why)),
    }
}

/// Why a job cannot be accepted now, where it may have been before: then that is no word that it does not run.
fn of_known(runs: &Runs, id: &str, error: Error) -> Error {
    let refuses = matches!(error.kind, Kind::Unavailable | Kind::Unprocessable);
    match refuses && runs.is_here(id).unwrap_or(true) {
        true => files::unknown(Error { kind: Kind::Unavailable, ..error }),
        false => error,
    }
}

/// Whether the id belongs to the same request. Where the head can be reached may have changed
/// between two repeats of an attempt: its key alone says whose it is.
fn compare(runs: &Runs, new: &Wanted) -> Result<()> {
    let known = runs.request(&new.id)?;
    let mut request = new.request.clone();
    if let (None, Some(map)) = (known.get(BY_FIELD), request.as_object_mut()) {
        map.shift_remove(BY_FIELD); // accepted before runs said whose they are
    }
    let same =
        known == request || (keyed(&known) && without_address(known) == without_address(request));
    if same && (runs.last_line(&new.id)?.is_some() || same_uploads(runs, new)?) {
        return Ok(());
    }
    Err(Error::new(Kind::Unprocessable, format!("{} was accepted with another request", new.id)))
}

/// Whether a request carries the key of an attempt.
fn keyed(request: &Value) -> bool {
    request.pointer("/environment/CORKBOARD_TOKEN").is_some_and(Value::is_string)
}

fn without_address(mut request: Value) -> Value {
    if let Some(environment) = request.get_mut("environment").and_then(Value::as_object_mut) {
        environment.remove("CORKBOARD_URL");
        environment.remove("CORKBOARD_ROOT");
    }
    request
}

/// Whether the files are those that came first, by names and sizes. Only for a job that has not
/// started: then they are its own to change.
fn same_uploads(runs: &Runs, new: &Wanted) -> Result<bool> {
    let work = runs.work_dir(&new.id);
    let names = files::names(&work)?;
    let same = names.len() == new.files.len()
        && new.files.iter().all(|file| {
            let meta = fs::symlink_metadata(work.join(&file.name));
            meta.is_ok_and(|meta| meta.len() == file.size)
        });
    // It may have started while this looked.
    Ok(same || runs.last_line(&new.id)?.is_some())
}
