//! The lines of a card: the request as accepted, and what can happen to a job after that.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::access;
use super::defaults;
use super::enforced::Enforced;
use super::ids::NodejobId;
use super::node::DriverKind;
use super::outcome::Outcome;
use super::report::{Ended, Report};
use super::tasks::TaskSet;
use super::usage::Usage;
use crate::clock;

/// The first line of a card: the request as accepted.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accepted {
    /// The job's number.
    pub job: u64,
    /// The client's name for the request, or one made for it.
    pub request_id: String,
    /// When.
    pub at: String,
    /// Who asked.
    pub by: String,
    /// The user whose job it is, where `by` does not say it: of a job that another job submitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The job that it belongs to: the one whose key was presented, or the one named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<u64>,
    /// First and last number of the request, where one request made several jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<(u64, u64)>,
    /// A digest of the names and contents of the files that came with it, if any did: they belong
    /// to the request, and the files themselves go when the job has stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<String>,
    /// Fields that the request did not say and was given, by the partition that it is for: of which it
    /// may be the name, too. The request with them is what counts.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub defaults: Map<String, Value>,
    /// The request, without `request_id`.
    pub request: Map<String, Value>,
}

impl Accepted {
    /// The user whose job it is; `None` where that is whoever owns its parent.
    pub fn user(&self) -> Option<String> {
        self.owner.clone().or_else(|| access::user_in(&self.by))
    }

    /// The request with what it was given.
    pub fn whole_request(&self) -> Cow<'_, Map<String, Value>> {
        defaults::filled(&self.request, &self.defaults)
    }

    /// Reads the line. A whole one in which a newer program wrote more than this one knows, or
    /// something else, is read without that, which is named. Any other that cannot be read is an
    /// error: it is damaged.
    pub fn read(line: &[u8]) -> Result<(Accepted, Option<String>), String> {
        let wrong = match serde_json::from_slice(line) {
            Ok(accepted) => return Ok((accepted, None)),
            Err(wrong) => wrong,
        };
        let Ok(Value::Object(mut map)) = serde_json::from_slice(line) else {
            return Err(wrong.to_string());
        };
        let mut newer = None;
        map.retain(|name, value| match Accepted::unknown_in(name, value) {
            None => true,
            Some((what, instead)) => {
                newer.get_or_insert(what);
                instead.map(|instead| *value = instead).is_some()
            }
        });
        let accepted = serde_json::from_value(Value::Object(map)).map_err(|e| e.to_string())?;
        Ok((accepted, newer))
    }

    /// What of a field is not known here, in words, and what is read instead, if anything. Whose card
    /// it is must be known.
    fn unknown_in(name: &str, value: &Value) -> Option<(String, Option<Value>)> {
        let (known, instead) = match name {
            "job" => return None,
            "request_id" | "at" | "by" => (value.is_string(), Some(Value::from(""))),
            "request" => (value.is_object(), Some(Map::new().into())),
            "defaults" => (value.is_object(), None),
            "parent" => (Option::<u64>::deserialize(value).is_ok(), None),
            "batch" => (Option::<(u64, u64)>::deserialize(value).is_ok(), None),
            "files" | "owner" => (Option::<String>::deserialize(value).is_ok(), None),
            _ => return Some((format!("field {name:?}"), None)),
        };
        (!known).then(|| (format!("value of {name:?}"), instead))
    }
}

/// Something that happened to a job, with its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "super::line::Flat")]
pub struct Event {
    /// When it was written.
    pub at: String,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

impl Event {
    /// Something that happens now.
    pub fn now(what: What) -> Event {
        Event { at: clock::now(), what }
    }
}

/// What can happen to a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum What {
    /// It shall wait until it is released.
    Held {
        /// Who asked.
        by: String,
    },
    /// It may be placed again.
    Released {
        /// Who asked.
        by: String,
    },
    /// Its priority was changed.
    Priority {
        /// The new priority.
        priority: i64,
        /// Who asked.
        by: String,
    },
    /// A node was chosen. On disk before the node hears of it.
    Placed {
        /// Which attempt, from 1.
        attempt: u32,
        /// The node's name.
        node: String,
        /// The attempt's id on the node.
        nodejob: NodejobId,
        /// How the node was reached then.
        driver: DriverKind,
        /// Where the node was then.
        #[serde(skip_serializing_if = "Option::is_none")]
        uri: Option<String>,
        /// Of an array: which tasks.
        #[serde(skip_serializing_if = "Option::is_none")]
        tasks: Option<TaskSet>,
    },
    /// The node says that it runs.
    Running {
        /// Which attempt.
        attempt: u32,
        /// Process id on the node.
        #[serde(skip_serializing_if = "Option::is_none")]
        pid: Option<i32>,
        /// When it started, by the node's clock.
        #[serde(skip_serializing_if = "Option::is_none")]
        started: Option<String>,
        /// What it is held to there.
        #[serde(skip_serializing_if = "Option::is_none")]
        enforced: Option<Enforced>,
    },
    /// Somebody killed it; its node is being told.
    Stopping {
        /// Who asked.
        by: String,
        /// Of an array: only these tasks, which a node has.
        #[serde(skip_serializing_if = "Option::is_none")]
        tasks: Option<TaskSet>,
    },
    /// What the system behind its node calls the attempt: a batch system's number, a cloud's name. Nodes
    /// that know it by its id alone have none.
    Ref {
        /// Which attempt.
        attempt: u32,
        /// What it is called there, for people and for the driver.
        #[serde(rename = "ref")]
        reference: String,
    },
    /// Nobody can tell whether its node has it, or it cannot be ended there: told once, and again
    /// when there is something else to tell. Changes nothing.
    Trouble {
        /// Which attempt.
        attempt: u32,
        /// What is wrong, for a person.
        reason: String,
    },
    /// The node would not have it. Nothing ran; this does not count as a retry.
    Refused {
        /// Which attempt.
        attempt: u32,
        /// What the node said.
        reason: String,
        /// Not placed again before.
        not_before: String,
    },
    /// The attempt ended, and another will be made.
    Retry {
        /// The attempt that ended.
        attempt: u32,
        /// How it ended.
        #[serde(flatten)]
        outcome: Outcome,
        /// Not placed again before.
        #[serde(skip_serializing_if = "Option::is_none")]
        not_before: Option<String>,
        /// What the attempt has used, where that is known.
        #[serde(flatten, skip_serializing_if = "Option::is_none")]
        usage: Option<Usage>,
    },
    /// Of an array: tasks ended.
    Tasks {
        /// The attempt whose tasks they were; absent for tasks that waited.
        #[serde(skip_serializing_if = "Option::is_none")]
        attempt: Option<u32>,
        /// Those that ended for good.
        #[serde(flatten)]
        report: Report,
        /// Those that failed and wait again.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        retry: Vec<Ended>,
        /// Those are not placed again before.
        #[serde(skip_serializing_if = "Option::is_none")]
        not_before: Option<String>,
        /// How the attempt itself ended, if it did: the rest of its tasks waits again.
        #[serde(skip_serializing_if = "Option::is_none")]
        ended: Option<Outcome>,
        /// What the attempt has used, where that is known.
        #[serde(flatten, skip_serializing_if = "Option::is_none")]
        usage: Option<Usage>,
    },
    /// A report that changes nothing, kept because it was made.
    Late {
        /// The attempt it was about.
        attempt: u32,
        /// What was reported.
        #[serde(flatten)]
        outcome: Outcome,
    },
    /// The end. The first one stands.
    Stopped {
        /// The last attempt; absent where it never was placed.
        #[serde(skip_serializing_if = "Option::is_none")]
        attempt: Option<u32>,
        /// How it ended.
        #[serde(flatten)]
        outcome: Outcome,
        /// What the attempt has used, where that is known.
        #[serde(flatten, skip_serializing_if = "Option::is_none")]
        usage: Option<Usage>,
    },
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn read_as_written() {
        let by = || "ada".to_string();
        let outcome = Outcome::exit(3);
        let mut report = Report::default();
        report.add(&"0-3".parse().unwrap(), &Outcome::exit(0));
        report.add(&"4".parse().unwrap(), &outcome);
        report.add(&"6".parse().unwrap(), &Outcome::lost_unproven("gone"));
        let ended = Ended { tasks: "5".parse().unwrap(), outcome: outcome.clone() };
        let at = Some("2026-01-01T00:00:00.000Z".to_string());
        let all = [
            What::Held { by: by() },
            What::Released { by: by() },
            What::Priority { priority: -1, by: by() },
            What::Placed {
                attempt: 1,
                node: "n".into(),
                nodejob: NodejobId::parse("c-1.1").unwrap(),
                driver: DriverKind::Http,
                uri: Some("http://n".into()),
                tasks: Some("0-9".parse().unwrap()),
            },
            What::Running {
                attempt: 1,
                pid: Some(7),
                started: at.clone(),
                enforced: Some(Enforced { memory: "cgroup2".into(), ..Enforced::default() }),
            },
            What::Stopping { by: by(), tasks: Some("3".parse().unwrap()) },
            What::Ref { attempt: 1, reference: "slurm 4711".into() },
            What::Trouble { attempt: 1, reason: "silent".into() },
            What::Refused { attempt: 1, reason: "full".into(), not_before: "t".into() },
            What::Retry {
                attempt: 1,
                outcome: outcome.clone(),
                not_before: at.clone(),
                usage: Some(Usage { cpu_ms: 7, max_memory: 8 }),
            },
            What::Tasks {
                attempt: Some(2),
                report,
                retry: vec![ended],
                not_before: at,
                ended: Some(Outcome::lost("gone")),
                usage: None,
            },
            What::Late { attempt: 1, outcome: Outcome::lost_unproven("gone") },
            What::Stopped { attempt: None, outcome, usage: None },
            What::Stopped {
                attempt: Some(3),
                outcome: Outcome::killed_unseen("ada", "gone"),
                usage: Some(Usage { cpu_ms: 0, max_memory: 1 << 40 }),
            },
        ];
        for what in all {
            let event = Event::now(what);
            let line = serde_json::to_string(&event).unwrap();
            assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event, "{line}");
        }
        for wrong in [
            r#"{"at":"t","event":"held"}"#,
            r#"{"at":"t","event":"magic","by":"ada"}"#,
            r#"{"event":"held","by":"ada"}"#,
            r#"{"at":"t","event":"stopped","status":"good"}"#,
        ] {
            assert!(serde_json::from_str::<Event>(wrong).is_err(), "{wrong}");
        }
    }
}
