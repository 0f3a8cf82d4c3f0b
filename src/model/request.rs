//! What a job's request means. Its fields, as JSON has them: [`super::request_fields`]. What is refused of a new
//! one: [`super::admission`].
//!
//! One reader serves the head and the node; each has its own list of fields, since a node knows
//! nothing of priorities and retries. The card keeps the request as it was written; [`Spec`] is
//! what it means.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::access::Share;
use super::asked::Asked;
use super::partition::Partition;
use super::request_fields::{
    BY_FIELD, FirstState, HEAD_FIELDS, NODE_FIELDS, Output, RANGE_FIELD, Raw,
};
use super::resources::Resources;
use super::selector::Selector;
use super::tasks::{ArraySpec, TaskSet};
use crate::clock;
use crate::error::{Error, Result};
use crate::strategy::Strategy;

/// Replaces the values in a request's environment: its names can be shown to anybody who may look.
pub fn hide_values(request: &mut Map<String, Value>) {
    let environment = request.get_mut("environment").and_then(Value::as_object_mut);
    for (_, value) in environment.into_iter().flatten() {
        *value = Value::from("…");
    }
}

/// What a request means. Durations are as given; defaults that are settings are applied by the
/// node.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Programs with their arguments, run in order, stopping at the first failure; at least one.
    pub commands: Vec<Vec<String>>,
    /// For people.
    pub name: Option<String>,
    /// What the job's environment has beside the base.
    pub environment: BTreeMap<String, String>,
    /// Where it starts.
    pub dir: Option<String>,
    /// What it reads on standard input; nothing where absent.
    pub stdin: Option<String>,
    /// The client's name for this request.
    pub request_id: Option<String>,
    /// What it is given.
    pub resources: Resources,
    /// Which nodes may have it; nothing where all may.
    pub selector: Option<Arc<Selector>>,
    /// Which of those that have room it is given; the setting where absent.
    pub strategy: Option<Strategy>,
    /// The partition that it is for, where there is one.
    pub partition: Option<String>,
    /// Higher goes first; 0 where absent.
    pub priority: i64,
    /// Longest run of one attempt.
    pub timeout: Option<Duration>,
    /// Between SIGTERM and SIGKILL.
    pub grace: Option<Duration>,
    /// How often it may be tried again after a proven end that was not good.
    pub max_retry_count: u32,
    /// Whether an unproven loss may be tried again.
    pub retry_lost: bool,
    /// Least time between two attempts.
    pub retry_delay: Duration,
    /// When it ends as expired if it still waits: RFC 3339 in UTC, or how long after submission.
    pub expires: Option<Expires>,
    /// The job that it belongs to.
    pub parent: Option<u64>,
    /// Whether it waits until it is released.
    pub held: bool,
    /// Whether it is refused where no node could ever have it.
    pub strict: bool,
    /// One log or two.
    pub output: Output,
    /// What all users may do with it, beside its owner.
    pub share: Option<Share>,
    /// Many tasks in place of one: to the head.
    pub array: Option<ArraySpec>,
    /// The tasks to run here: to a node.
    pub tasks: Option<TaskSet>,
}

/// When a waiting job expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expires {
    /// At a time.
    At(std::time::SystemTime),
    /// So long after it was accepted.
    After(Duration),
}

impl Spec {
    /// What a request meant that the head has accepted before: nothing is refused any more. What a
    /// newer program let in and this one does not know is named; the rest of the request is as it
    /// can be understood without that.
    pub fn of_card(request: &Map<String, Value>) -> (Spec, Option<String>) {
        Spec::understand(request, &[NODE_FIELDS, HEAD_FIELDS])
    }

    /// The same of a request that a node has accepted.
    pub fn of_run(request: &Map<String, Value>) -> (Spec, Option<String>) {
        Spec::understand(request, &[NODE_FIELDS, &[RANGE_FIELD, BY_FIELD]])
    }

    fn understand(request: &Map<String, Value>, fields: &[&[&str]]) -> (Spec, Option<String>) {
        let unknown = request.keys().find(|key| !fields.iter().any(|f| f.contains(&&***key)));
        let newer = unknown.map(|field| format!("field {field:?} of the request"));
        let raw = Raw::deserialize(request).map_err(|e| e.to_string());
        match raw.and_then(|raw| Spec::of(raw).map_err(|e| e.message)) {
            Ok(spec) => (spec, newer),
            Err(why) => (Spec::nothing(), newer.or_else(|| Some(format!("the request: {why}")))),
        }
    }

    /// What it asks of nodes, for this user, within its partition.
    pub fn asked<'a>(
        &'a self,
        user: Option<&'a str>,
        partition: Option<&'a Partition>,
    ) -> Asked<'a> {
        let selector = self.selector.as_deref();
        Asked { resources: &self.resources, selector, user, partition }
    }

    /// Stands for a request of which nothing is understood.
    fn nothing() -> Spec {
        Spec {
            commands: Vec::new(),
            name: None,
            environment: BTreeMap::new(),
            dir: None,
            stdin: None,
            request_id: None,
            resources: Resources::default(),
            selector: None,
            strategy: None,
            partition: None,
            priority: 0,
            timeout: None,
            grace: None,
            max_retry_count: 0,
            retry_lost: false,
            retry_delay: Duration::ZERO,
            expires: None,
            parent: None,
            held: false,
            strict: false,
            output: Output::default(),
            share: None,
            array: None,
            tasks: None,
        }
    }

    /// What the fields mean.
    pub(super) fn of(raw: Raw) -> Result<Spec> {
        let commands: Vec<Vec<String>> = match (raw.command, raw.commands) {
            (Some(command), None) => vec![command.argv()],
            (None, Some(commands)) => commands.into_iter().map(|c| c.exec.argv()).collect(),
            (Some(_), Some(_)) => {
                return Err(Error::bad("give command or commands, not both"));
            }
            (None, None) => {
                return Err(Error::bad(
                    "the request needs a command, e.g. {\"command\": [\"echo\", \"hello\"]}",
                ));
            }
        };
        let mut selector = raw.requested_resources.selector;
        let said = |why: String| Error::bad(format!("the request has a wrong value: {why}"));
        if let Some(tests) = &raw.constraints {
            selector.and(&Selector::of_labels(tests).map_err(said)?);
        }
        for (names, add) in [
            (&raw.node, Selector::only as fn(&mut Selector, &Value) -> _),
            (&raw.exclude, Selector::except),
        ] {
            names.as_ref().map_or(Ok(()), |names| add(&mut selector, names)).map_err(said)?;
        }
        Ok(Spec {
            selector: (!selector.is_any()).then(|| Arc::new(selector)),
            strategy: raw.placement,
            partition: raw.partition,
            commands,
            name: raw.name,
            environment: raw.environment,
            dir: raw.dir,
            stdin: raw.stdin,
            request_id: raw.request_id,
            resources: raw.requested_resources.resources,
            priority: raw.priority,
            timeout: raw.timeout,
            grace: raw.max_termination_time,
            max_retry_count: raw.max_retry_count,
            retry_lost: raw.retry_lost,
            retry_delay: raw.retry_delay.unwrap_or_default(),
            expires: raw.expires.map(|value| expires(&value)).transpose()?,
            parent: raw.parent,
            held: matches!(raw.state, Some(FirstState::Held)),
            strict: raw.strict,
            output: raw.output,
            share: raw.share,
            array: raw.array.map(|text| tasks("array", &text)).transpose()?,
            tasks: raw.tasks.map(|text| tasks(RANGE_FIELD, &text)).transpose()?,
        })
    }
}

/// Takes `request_id` out of a request: the id (given, or new), and the rest.
pub fn split_request_id(request: &Value) -> (Option<String>, Map<String, Value>) {
    let mut map = request.as_object().cloned().unwrap_or_default();
    let id = map.shift_remove("request_id").and_then(|v| v.as_str().map(str::to_string));
    (id, map)
}

fn tasks<T: FromStr<Err = String>>(field: &str, text: &str) -> Result<T> {
    text.parse().map_err(|why| Error::bad(format!("{field}: {why}")))
}

fn expires(value: &Value) -> Result<Expires> {
    let wrong = || {
        Error::bad(format!(
            "expires must be a time such as \"2030-01-31T12:00:00Z\" or a duration such as \"2h\", not {value}"
        ))
    };
    match value {
        Value::Number(seconds) => clock::parse_duration(&seconds.to_string()).map(Expires::After),
        Value::String(text) => clock::parse_rfc3339(text)
            .map(Expires::At)
            .or_else(|| clock::parse_duration(text).map(Expires::After)),
        _ => None,
    }
    .ok_or_else(wrong)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_the_original_requests() {
        let head = json!({"action": "add_job", "command": ["curl", "https://example.org/"]});
        assert_eq!(Spec::for_head(&head).unwrap().commands[0][0], "curl");
        let node = json!({"commands": [{"exec": ["true"]}, {"exec": "echo a; echo b"}],
                          "environment": {}, "request_id": "123456789"});
        let spec = Spec::for_node(&node).unwrap();
        assert_eq!(spec.commands[1], ["sh", "-c", "echo a; echo b"]);
        assert_eq!(spec.request_id.as_deref(), Some("123456789"));
    }

    #[test]
    fn durations_and_sizes() {
        let spec = Spec::for_head(&json!({"command": "x", "timeout": 1.5, "retry_delay": "2m",
            "requested_resources": {"cores": 2, "memory": "1 GiB"}, "expires": "2h"}))
        .unwrap();
        assert_eq!(spec.timeout, Some(Duration::from_millis(1500)));
        assert_eq!(spec.retry_delay, Duration::from_secs(120));
        assert_eq!(spec.resources, Resources::of(2, 1 << 30));
        assert_eq!(spec.expires, Some(Expires::After(Duration::from_secs(7200))));
    }
}
