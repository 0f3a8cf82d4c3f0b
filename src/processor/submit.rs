//! Jobs come in by a request: one, or many at once.

use std::time::Duration;

use serde_json::{Value, json};

use super::accept::{NewRun, accept};
use super::status;
use crate::auth::Who;
use crate::board::files;
use crate::board::incoming::Place;
use crate::board::runs::run_id;
use crate::board::watch;
use crate::cgi::body::Parts;
use crate::cgi::{Call, Response};
use crate::error::{Error, Kind, Result};
use crate::model::access::{self, Rights, Role};
use crate::model::ids::RunId;
use crate::model::request::Spec;
use crate::model::run_status::{RunState, RunStatus};
use crate::wire::failure::NoAnswer;
use crate::wire::run::{Accepted, Entry, Many, Requests};

/// [`with_id`], of somebody who may have it.
pub(super) fn with_allowed_id(call: &Call, request: Value) -> Result<(RunId, Value)> {
    let (id, request) = with_id(request)?;
    call.who.check_run_id(&id)?;
    Ok((id, request))
}

/// Whose a run is to be: a user's who asks this node, or a head's, by the user of its token. One whose token
/// says no user, or any in open mode, may come with another next time: what these run is every head's. What the
/// machine's own people have run is no user's.
pub(super) fn by(who: &Who, id: &RunId) -> Option<String> {
    let is_ones = match who.rights {
        Rights::Role(Role::User | Role::Provider | Role::Head) => true,
        Rights::Role(Role::Admin) => id.is_a_heads(),
        _ => false,
    };
    let named = |user: &String| !id.is_a_heads() || access::is_user(user);
    who.user.clone().filter(|user| is_ones && named(user))
}

/// The body of a request for one job or many.
pub(super) fn with_id(request: Value) -> Result<(RunId, Value)> {
    let spec = Spec::for_node(&request)?;
    match (spec.request_id, request) {
        (Some(id), request) => Ok((run_id(&id)?, request)),
        (None, Value::Object(mut map)) => {
            let id = files::random_name()?;
            map.insert("request_id".into(), json!(id));
            Ok((run_id(&id)?, Value::Object(map)))
        }
        (None, _) => Err(Error::bad("a job's request must be a JSON object")),
    }
}

/// `POST jobs/new`.
pub(super) fn new(call: &Call) -> Result<Response> {
    let settings = &call.root.settings;
    let Parts { json, uploads } = call.request.body.parts(call.root, Place::Node)?;
    let wait = call.request.wait()?;
    let request = match Requests::read(json) {
        Requests::Many(requests) => {
            if wait.is_some() || uploads.is_some() {
                return Err(Error::bad("wait and files are for one job, not for an array"));
            }
            if requests.len() > settings.max_jobs_per_request {
                let most = settings.max_jobs_per_request;
                let why = format!("more than {most} jobs in one request");
                return Err(Error::new(Kind::TooLarge, why));
            }
            return many(call, requests);
        }
        Requests::One(request) => request,
    };
    let (id, request) = with_allowed_id(call, request)?;
    let answer = request.clone();
    let run = NewRun { id: id.clone(), request, uploads, by: by(call.who, &id) };
    let accepted = accept(call.root, vec![run])?
        .into_iter()
        .next()
        .unwrap_or_else(|| Err(Error::new(Kind::Internal, "no answer for the job")))?;
    let (code, phrase) = said(accepted.new).code();
    let response = match wait {
        None => Response::of(answer),
        Some(wait) => started_and_finished(call, id.clone(), wait),
    };
    Ok(response.status(code, phrase).location("processor", &format!("jobs/{id}")))
}

fn many(call: &Call, requests: Vec<Value>) -> Result<Response> {
    // Each job for itself: one that is not valid keeps none of the others from being accepted.
    let mut runs = Vec::with_capacity(requests.len());
    let checked: Vec<(Value, Result<RunId>)> = requests
        .into_iter()
        .map(|request| {
            let claimed = request.get("request_id").cloned().unwrap_or_default();
            match with_allowed_id(call, request) {
                Ok((id, request)) => {
                    runs.push(NewRun {
                        id: id.clone(),
                        request,
                        uploads: None,
                        by: by(call.who, &id),
                    });
                    (json!(&*id), Ok(id))
                }
                Err(error) => (claimed, Err(error)),
            }
        })
        .collect();
    let mut results = accept(call.root, runs)?.into_iter();
    let mut nodejobs = Vec::with_capacity(checked.len());
    for (named, valid) in checked {
        let outcome = valid.and_then(|id| {
            let result = results
                .next()
                .unwrap_or_else(|| Err(Error::new(Kind::Internal, "no answer for the job")));
            result.map(|accepted| (id, accepted.new))
        });
        let entry = match outcome {
            Ok((id, true)) => Ok(Entry::New(Some(id))),
            Ok((id, false)) => status::of(call.root, &id)
                .map(|status| Entry::Repeated(Box::new(status)))
                .map_err(files::unknown),
            Err(error) => Err(error),
        };
        nodejobs.push(entry.unwrap_or_else(|error| Entry::Refused(NoAnswer::of(named, &error))));
    }
    let (code, phrase) = said(nodejobs.iter().all(|one| matches!(one, Entry::New(_)))).code();
    Ok(Response::of(Many { nodejobs }).status(code, phrase))
}

fn said(new: bool) -> Accepted {
    if new { Accepted::New } else { Accepted::Repeated }
}

/// Two lines: the job has started, the job has ended; or what is known when the wait is over.
fn started_and_finished(call: &Call, id: RunId, wait: Duration) -> Response {
    let root = call.root.clone();
    Response::stream(
        "application/x-ndjson",
        Box::new(move |out| {
            let begun = std::time::Instant::now();
            let mut line = |status: &RunStatus| -> Result<bool> {
                let bytes = files::json_line(status)?;
                Ok(out.write_all(&bytes).and_then(|()| out.flush()).is_ok())
            };
            let started = status::wait(&root, &id, RunState::Running, wait)?;
            if !line(&started)? || started.state == RunState::Stopped {
                return Ok(());
            }
            if !watch::may_wait() {
                return Ok(());
            }
            let left = wait.saturating_sub(begun.elapsed());
            let ended = status::wait(&root, &id, RunState::Stopped, left)?;
            if ended.state == RunState::Stopped {
                line(&ended)?;
            }
            Ok(())
        }),
    )
}
