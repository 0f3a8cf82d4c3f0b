//! To run jobs: a head sends the requests of attempts, and hears of each for itself.

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::codes::{self, Code};
use super::failure::NoAnswer;
use crate::model::ids::RunId;
use crate::model::run_status::{RunState, RunStatus};

/// Where jobs are sent to.
pub const PATH: &str = "jobs/new";

/// What is sent: the requests, each under its own `request_id`, as their users and their head wrote them.
#[derive(Debug, Clone, PartialEq)]
pub enum Requests {
    /// One; perhaps with files.
    One(Value),
    /// Any number.
    Many(Vec<Value>),
}

impl Requests {
    /// As it came.
    pub fn read(json: Value) -> Requests {
        match json {
            Value::Array(requests) => Requests::Many(requests),
            request => Requests::One(request),
        }
    }

    /// As it travels.
    pub fn json(self) -> Value {
        match self {
            Requests::One(request) => request,
            Requests::Many(requests) => Value::Array(requests),
        }
    }
}

/// What became of a request for a job that was not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// It came just now.
    New,
    /// The same request was accepted before.
    Repeated,
}

impl Accepted {
    /// The code by which that travels; of many at once it is the first only if it is that of all.
    pub fn code(self) -> Code {
        match self {
            Accepted::New => codes::CREATED,
            Accepted::Repeated => codes::OK,
        }
    }

    /// The same read: `None` for a code that does not say that it was accepted. Nodes may say so by
    /// any good one.
    pub fn read(code: u16) -> Option<Accepted> {
        match code {
            code if code == codes::CREATED.0 => Some(Accepted::New),
            code => codes::is_good(code).then_some(Accepted::Repeated),
        }
    }
}

/// What became of one of several requests.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// It was accepted just now, under this id, as far as that is said.
    New(Option<RunId>),
    /// It was accepted before: where it is.
    Repeated(Box<RunStatus>),
    /// It was refused, or could not be accepted now.
    Refused(NoAnswer),
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct New<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            id: Option<&'a str>,
            state: RunState,
        }
        match self {
            Entry::New(id) => New { id: id.as_deref(), state: RunState::Queued }.serialize(to),
            Entry::Repeated(status) => status.serialize(to),
            Entry::Refused(why) => why.serialize(to),
        }
    }
}

impl Entry {
    /// Reads one. What gives no reason against it was accepted, whatever else it says.
    pub fn read(entry: Value) -> Entry {
        if let Some(refused) = NoAnswer::read(&entry) {
            return Entry::Refused(refused);
        }
        let id = entry.get("id").and_then(Value::as_str).and_then(RunId::parse);
        serde_json::from_value(entry)
            .map_or(Entry::New(id), |status| Entry::Repeated(Box::new(status)))
    }
}

/// What became of several requests, in their order.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Many {
    /// One for each.
    pub nodejobs: Vec<Entry>,
}

impl Many {
    /// Reads it; empty where it is no list of any.
    pub fn read(mut answer: Value) -> Many {
        let entries = match answer.get_mut("nodejobs").map(Value::take) {
            Some(Value::Array(entries)) => entries,
            _ => Vec::new(),
        };
        Many { nodejobs: entries.into_iter().map(Entry::read).collect() }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::{Error, Kind};
    use crate::model::outcome::Outcome;

    #[test]
    fn what_became_of_requests_is_read_as_it_was_written() {
        let id = RunId::parse("c-1.1").unwrap();
        let entries = [
            Entry::New(Some(id.clone())),
            Entry::Repeated(RunStatus::queued("t".into()).of("c-1.2").into()),
            Entry::Repeated(RunStatus::running(7, 9, "b").of("c-1.3").into()),
            Entry::Repeated(RunStatus::stopped(&Outcome::exit(404)).of("c-1.4").into()),
            Entry::Refused(NoAnswer::of("c-1.5", &Error::new(Kind::Gone, "given back"))),
            Entry::Refused(NoAnswer::of(json!({"a": 1}), &Error::bad("no id"))),
        ];
        for count in 0..=entries.len() {
            let many = Many { nodejobs: entries[..count].to_vec() };
            let text = serde_json::to_string(&many).unwrap();
            assert_eq!(Many::read(serde_json::from_str(&text).unwrap()), many, "{text}");
        }
        assert_eq!(json!(entries[0]).to_string(), r#"{"id":"c-1.1","state":"queued"}"#);
    }

    #[test]
    fn what_another_program_says_of_them_is_read_as_far_as_it_goes() {
        let newer = json!({"id": "c-1.1", "state": "queued", "place": 3});
        assert_eq!(Entry::read(newer), Entry::New(RunId::parse("c-1.1")));
        for odd in [json!(7), json!(null), json!({}), json!({"error": 7, "state": "dreaming"})] {
            assert_eq!(Entry::read(odd), Entry::New(None));
        }
        for none in [json!([1]), json!({}), json!({"nodejobs": {}}), json!("x")] {
            assert!(Many::read(none).nodejobs.is_empty());
        }
    }

    #[test]
    fn requests_and_codes_are_read_as_they_were_written() {
        for requests in [
            Requests::One(json!({"command": "x"})),
            Requests::Many(Vec::new()),
            Requests::Many(vec![json!({"command": "x"}), json!(7)]),
        ] {
            assert_eq!(Requests::read(requests.clone().json()), requests);
        }
        for accepted in [Accepted::New, Accepted::Repeated] {
            assert_eq!(Accepted::read(accepted.code().0), Some(accepted));
        }
        for code in [100, 199, 300, 404, 500] {
            assert_eq!(Accepted::read(code), None, "{code}");
        }
    }
}
