//! A line of a card as it is read: an event, what a newer program wrote, or damage.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::enforced::Enforced;
use super::event::{Event, What};
use super::ids::NodejobId;
use super::node::DriverKind;
use super::outcome::{Cause, Outcome, Status};
use super::report::{Ended, Report};
use super::tasks::TaskSet;
use super::usage::Usage;

/// What a line of a story is to this program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// Something that happened.
    Event(Event),
    /// A whole line that a newer program wrote and this one does not know: what of it, in words.
    Newer(String),
    /// Torn, or zeros.
    Damaged,
}

impl Line {
    /// Reads a line.
    #[inline]
    pub fn read(line: &[u8]) -> Line {
        serde_json::from_slice(line).map_or_else(|_| Line::not_known(line), Line::Event)
    }

    #[cold]
    fn not_known(line: &[u8]) -> Line {
        match serde_json::from_slice(line) {
            Ok(Value::Object(map)) => Line::Newer(unknown_in(&map)),
            _ => Line::Damaged,
        }
    }
}

/// What of a whole line is not known here: its event, one of its fields, or else a value.
fn unknown_in(map: &Map<String, Value>) -> String {
    let Some(event) = map.get("event").and_then(Value::as_str) else {
        return "a line without an event".into();
    };
    if serde_json::from_value::<Name>(Value::from(event)).is_err() {
        return format!("event {event:?}");
    }
    let fields = map.iter().filter(|(name, _)| !["at", "event"].contains(&name.as_str()));
    // Each for itself in a line that is else known: the first that is not is the one.
    for (name, value) in fields {
        let reads = |value: &Value| {
            serde_json::from_value::<Flat>(json!({"at": "", "event": "held", name: value})).is_ok()
        };
        if reads(value) {
            continue;
        }
        // One that is known may be absent, and so null.
        if value.is_string() && reads(&Value::Null) {
            return format!("{name} {value} of event {event:?}");
        }
        return format!("field {name:?} of event {event:?}");
    }
    format!("other fields of event {event:?}")
}

/// A line as it is read: the fields of all events side by side. Reading a tagged enum keeps each
/// value until the tag is known, which took most of the time of reading a card.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Flat {
    at: String,
    event: Name,
    by: Option<String>,
    priority: Option<i64>,
    attempt: Option<u32>,
    node: Option<String>,
    nodejob: Option<NodejobId>,
    driver: Option<DriverKind>,
    uri: Option<String>,
    tasks: Option<TaskSet>,
    pid: Option<i32>,
    started: Option<String>,
    enforced: Option<FlatEnforced>,
    not_before: Option<String>,
    status: Option<Status>,
    cause: Option<Cause>,
    code: Option<i32>,
    reason: Option<String>,
    unproven: Option<bool>,
    cpu_ms: Option<u64>,
    max_memory: Option<u64>,
    good: Option<TaskSet>,
    failed: Option<Vec<FlatEnded>>,
    retry: Option<Vec<FlatEnded>>,
    ended: Option<FlatOutcome>,
    #[serde(rename = "ref")]
    reference: Option<String>,
}

/// The fields of a line beside `at` and `event`, as a set.
mod field {
    pub const BY: u32 = 1 << 0;
    pub const PRIORITY: u32 = 1 << 1;
    pub const ATTEMPT: u32 = 1 << 2;
    pub const NODE: u32 = 1 << 3;
    pub const NODEJOB: u32 = 1 << 4;
    pub const DRIVER: u32 = 1 << 5;
    pub const URI: u32 = 1 << 6;
    pub const TASKS: u32 = 1 << 7;
    pub const PID: u32 = 1 << 8;
    pub const STARTED: u32 = 1 << 9;
    pub const NOT_BEFORE: u32 = 1 << 10;
    pub const STATUS: u32 = 1 << 11;
    pub const CAUSE: u32 = 1 << 12;
    pub const CODE: u32 = 1 << 13;
    pub const REASON: u32 = 1 << 14;
    pub const GOOD: u32 = 1 << 15;
    pub const FAILED: u32 = 1 << 16;
    pub const RETRY: u32 = 1 << 17;
    pub const ENDED: u32 = 1 << 18;
    pub const UNPROVEN: u32 = 1 << 19;
    pub const REF: u32 = 1 << 20;
    pub const USAGE: u32 = 1 << 21;
    pub const ENFORCED: u32 = 1 << 22;
    pub const OUTCOME: u32 = STATUS | CAUSE | CODE | REASON | BY | UNPROVEN;
}

impl Flat {
    /// The fields that are there.
    fn fields(&self) -> u32 {
        use field::*;
        fn set<T>(field: &Option<T>, bit: u32) -> u32 {
            if field.is_some() { bit } else { 0 }
        }
        set(&self.by, BY)
            | set(&self.priority, PRIORITY)
            | set(&self.attempt, ATTEMPT)
            | set(&self.node, NODE)
            | set(&self.nodejob, NODEJOB)
            | set(&self.driver, DRIVER)
            | set(&self.uri, URI)
            | set(&self.tasks, TASKS)
            | set(&self.pid, PID)
            | set(&self.started, STARTED)
            | set(&self.not_before, NOT_BEFORE)
            | set(&self.status, STATUS)
            | set(&self.cause, CAUSE)
            | set(&self.code, CODE)
            | set(&self.reason, REASON)
            | set(&self.good, GOOD)
            | set(&self.failed, FAILED)
            | set(&self.retry, RETRY)
            | set(&self.ended, ENDED)
            | set(&self.unproven, UNPROVEN)
            | set(&self.reference, REF)
            | set(&self.cpu_ms, USAGE)
            | set(&self.enforced, ENFORCED)
            | set(&self.max_memory, USAGE)
    }

    /// Whether a field is there that is one of other events alone.
    fn has_more(&self) -> bool {
        use field::*;
        let known = match self.event {
            Name::Held => BY,
            Name::Released => BY,
            Name::Priority => PRIORITY | BY,
            Name::Placed => ATTEMPT | NODE | NODEJOB | DRIVER | URI | TASKS,
            Name::Running => ATTEMPT | PID | STARTED | ENFORCED,
            Name::Stopping => BY | TASKS,
            Name::Ref => ATTEMPT | REF,
            Name::Trouble => ATTEMPT | REASON,
            Name::Refused => ATTEMPT | REASON | NOT_BEFORE,
            Name::Retry => ATTEMPT | OUTCOME | NOT_BEFORE | USAGE,
            Name::Tasks => ATTEMPT | GOOD | FAILED | RETRY | NOT_BEFORE | ENDED | USAGE,
            Name::Late => ATTEMPT | OUTCOME,
            Name::Stopped => ATTEMPT | OUTCOME | USAGE,
        };
        self.fields() & !known != 0
    }
}

/// What a run is held to, within a line.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FlatEnforced {
    cpus: TaskSet,
    gpus: TaskSet,
    memory: String,
    processes: String,
}

impl From<FlatEnforced> for Enforced {
    fn from(FlatEnforced { cpus, gpus, memory, processes }: FlatEnforced) -> Enforced {
        Enforced { cpus, gpus, memory, processes }
    }
}

/// An outcome within a line: unlike one that comes from a node, it must be known in full.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FlatOutcome {
    status: Status,
    cause: Cause,
    code: Option<i32>,
    reason: Option<String>,
    by: Option<String>,
    #[serde(default)]
    unproven: bool,
}

impl From<FlatOutcome> for Outcome {
    fn from(flat: FlatOutcome) -> Outcome {
        let FlatOutcome { status, cause, code, reason, by, unproven } = flat;
        Outcome { status, cause, code, reason, by, unproven }
    }
}

/// The same of tasks.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FlatEnded {
    tasks: TaskSet,
    status: Status,
    cause: Cause,
    code: Option<i32>,
    reason: Option<String>,
    by: Option<String>,
    #[serde(default)]
    unproven: bool,
}

fn groups(flat: Option<Vec<FlatEnded>>) -> Vec<Ended> {
    let group = |FlatEnded { tasks, status, cause, code, reason, by, unproven }| Ended {
        tasks,
        outcome: Outcome { status, cause, code, reason, by, unproven },
    };
    flat.into_iter().flatten().map(group).collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Name {
    Held,
    Released,
    Priority,
    Placed,
    Running,
    Stopping,
    Ref,
    Trouble,
    Refused,
    Retry,
    Tasks,
    Late,
    Stopped,
}

/// A field that the event must have.
fn must<T>(field: Option<T>) -> Result<T, &'static str> {
    field.ok_or("a field is missing")
}

impl TryFrom<Flat> for Event {
    type Error = &'static str;

    fn try_from(flat: Flat) -> Result<Event, &'static str> {
        if flat.has_more() {
            return Err("a field is not one of this event");
        }
        let Flat { at, by, attempt, not_before, tasks, reason, .. } = flat;
        let usage = flat.cpu_ms.zip(flat.max_memory);
        let usage = usage.map(|(cpu_ms, max_memory)| Usage { cpu_ms, max_memory });
        let outcome = |reason, by| {
            let (status, cause) = (must(flat.status)?, must(flat.cause)?);
            let (code, unproven) = (flat.code, flat.unproven.unwrap_or_default());
            Ok::<_, &'static str>(Outcome { status, cause, code, reason, by, unproven })
        };
        let what = match flat.event {
            Name::Held => What::Held { by: must(by)? },
            Name::Released => What::Released { by: must(by)? },
            Name::Priority => What::Priority { priority: must(flat.priority)?, by: must(by)? },
            Name::Placed => What::Placed {
                attempt: must(attempt)?,
                node: must(flat.node)?,
                nodejob: must(flat.nodejob)?,
                driver: must(flat.driver)?,
                uri: flat.uri,
                tasks,
            },
            Name::Running => What::Running {
                attempt: must(attempt)?,
                pid: flat.pid,
                started: flat.started,
                enforced: flat.enforced.map(Enforced::from),
            },
            Name::Stopping => What::Stopping { by: must(by)?, tasks },
            Name::Ref => What::Ref { attempt: must(attempt)?, reference: must(flat.reference)? },
            Name::Trouble => What::Trouble { attempt: must(attempt)?, reason: must(reason)? },
            Name::Refused => What::Refused {
                attempt: must(attempt)?,
                reason: must(reason)?,
                not_before: must(not_before)?,
            },
            Name::Retry => {
                let (attempt, outcome) = (must(attempt)?, outcome(reason, by)?);
                What::Retry { attempt, outcome, not_before, usage }
            }
            Name::Tasks => What::Tasks {
                attempt,
                report: Report { good: flat.good.unwrap_or_default(), failed: groups(flat.failed) },
                retry: groups(flat.retry),
                not_before,
                ended: flat.ended.map(Outcome::from),
                usage,
            },
            Name::Late => What::Late { attempt: must(attempt)?, outcome: outcome(reason, by)? },
            Name::Stopped => What::Stopped { attempt, outcome: outcome(reason, by)?, usage },
        };
        Ok(Event { at, what })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::model::event::Accepted;

    #[test]
    fn what_a_newer_program_wrote_is_named_and_is_no_damage() {
        let newer = |line: &str| match Line::read(line.as_bytes()) {
            Line::Newer(what) => what,
            other => panic!("{line}: {other:?}"),
        };
        let magic = r#"{"at":"t","event":"magic","by":"ada"}"#;
        assert_eq!(newer(magic), r#"event "magic""#);
        let field = r#"{"at":"t","event":"held","by":"ada","until":"noon"}"#;
        assert_eq!(newer(field), r#"field "until" of event "held""#);
        let of_another = r#"{"at":"t","event":"held","by":"ada","tasks":"1-3"}"#;
        assert_eq!(newer(of_another), r#"other fields of event "held""#);
        let driver = r#"{"at":"t","event":"placed","attempt":1,"node":"n","nodejob":"c-1.1","driver":"batch"}"#;
        assert_eq!(newer(driver), r#"driver "batch" of event "placed""#);
        let nested = r#"{"at":"t","event":"tasks","attempt":1,"ended":{"status":"good","cause":"exit","code":0,"usage":1}}"#;
        assert_eq!(newer(nested), r#"field "ended" of event "tasks""#);
        for damaged in ["\0\0\0", r#"{"at":"t","event":"he"#, "12", "[]", ""] {
            assert_eq!(Line::read(damaged.as_bytes()), Line::Damaged, "{damaged}");
        }
        let first = r#"{"job":1,"request_id":"r","at":"t","by":"a","queue":"q","request":{}}"#;
        let (accepted, what) = Accepted::read(first.as_bytes()).unwrap();
        assert_eq!((accepted.job, what.as_deref()), (1, Some(r#"field "queue""#)));
        for (name, value) in [
            ("by", json!({"user": "ada"})),
            ("at", json!(7)),
            ("request", json!(["true"])),
            ("parent", json!([1, 2])),
            ("batch", json!([1, 2, 3])),
            ("files", json!({"a": "b"})),
        ] {
            let mut line =
                json!({"job": 1, "request_id": "r", "at": "t", "by": "a", "request": {}});
            line[name] = value;
            let (accepted, what) = Accepted::read(line.to_string().as_bytes()).unwrap();
            assert_eq!((accepted.job, what), (1, Some(format!("value of {name:?}"))));
        }
        assert!(Accepted::read(&first.as_bytes()[..40]).is_err());
        assert!(
            Accepted::read(br#"{"job":"1","request_id":"r","at":"t","by":"a","request":{}}"#)
                .is_err()
        );
        assert!(Accepted::read(br#"{"request":{}}"#).is_err());
    }
}
