//! Where jobs are: a head asks about several by their ids.

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::failure::NoAnswer;
use crate::model::ids::RunId;
use crate::model::run_status::RunStatus;

/// The parameter in which ids are named.
pub const IDS: &str = "ids";

/// Which jobs are asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statuses<'a> {
    /// As they are named: of whoever is no head anything may come.
    pub ids: Vec<&'a str>,
}

impl<'a> Statuses<'a> {
    /// These.
    pub fn of(ids: &'a [RunId]) -> Statuses<'a> {
        Statuses { ids: ids.iter().map(|id| &**id).collect() }
    }

    /// As it is asked.
    pub fn path(&self) -> String {
        format!("jobs/status?{IDS}={}", self.ids.join(","))
    }

    /// Reads the parameter.
    pub fn read(ids: &'a str) -> Statuses<'a> {
        Statuses { ids: ids.split(',').filter(|id| !id.is_empty()).collect() }
    }
}

/// What is said of one of them.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// Where it is.
    Status(Box<RunStatus>),
    /// Why that cannot be said: it is not known here, will never be started, or cannot be read now.
    None(NoAnswer),
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Entry::Status(status) => status.serialize(to),
            Entry::None(why) => why.serialize(to),
        }
    }
}

impl Entry {
    /// What is known of a job that was named so.
    pub fn of(id: impl Into<Value>, known: crate::error::Result<RunStatus>) -> Entry {
        match known {
            Ok(status) => Entry::Status(Box::new(status)),
            Err(error) => Entry::None(NoAnswer::of(id, &error)),
        }
    }

    /// Reads one.
    ///
    /// Errors: it is neither.
    pub fn read(entry: Value) -> serde_json::Result<Entry> {
        if let Some(why) = NoAnswer::read(&entry) {
            return Ok(Entry::None(why));
        }
        serde_json::from_value(entry).map(|status| Entry::Status(Box::new(status)))
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
    fn what_is_said_of_jobs_is_read_as_it_was_written() {
        let said = [
            Ok(RunStatus::queued("t".into()).of("c-1.1")),
            Ok(RunStatus::running(7, 9, "b").of("c-1.1")),
            Ok(RunStatus::stopped(&Outcome::exit(410)).of("c-1.1")),
            Ok(RunStatus::stopped(&Outcome::killed_unseen("ada", "é\n"))),
            Err(Error::not_found("no job c-1.1 here")),
            Err(Error::new(Kind::Gone, "cancelled")),
            Err(Error::new(Kind::Unavailable, "")),
        ];
        for known in said {
            let entry = Entry::of("c-1.1", known);
            let text = serde_json::to_string(&entry).unwrap();
            assert_eq!(Entry::read(serde_json::from_str(&text).unwrap()).unwrap(), entry, "{text}");
        }
        let newer =
            json!({"id": "c-1.1", "state": "queued", "status": "unknown", "at": "t", "x": 1});
        assert!(matches!(Entry::read(newer), Ok(Entry::Status(_))));
        for nonsense in [json!(7), json!({}), json!({"state": "dreaming"})] {
            assert!(Entry::read(nonsense).is_err());
        }
    }

    #[test]
    fn ids_are_read_as_they_were_written() {
        let ids: Vec<RunId> =
            ["c-1.1", "x", "A.b_c-d"].iter().filter_map(|id| RunId::parse(id)).collect();
        for count in 0..=ids.len() {
            let path = Statuses::of(&ids[..count]).path();
            let (_, named) = path.split_once('=').unwrap();
            assert_eq!(Statuses::read(named), Statuses::of(&ids[..count]), "{path}");
        }
        assert_eq!(Statuses::read(",é,,x y,").ids, ["é", "x y"]);
    }
}
