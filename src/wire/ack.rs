//! The head's word that results are safe with it.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::ids::RunId;

/// Where it is said.
pub const PATH: &str = "jobs/ack";

/// These results are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ack {
    /// The jobs' ids, as they are named.
    nodejobs: Vec<String>,
}

impl Ack {
    /// Of these.
    pub fn of(ids: &[RunId]) -> Ack {
        Ack { nodejobs: ids.iter().map(ToString::to_string).collect() }
    }

    /// Reads it.
    ///
    /// Errors: 400 for anything else, and for more than this.
    pub fn read(body: serde_json::Value) -> Result<Ack> {
        serde_json::from_value(body)
            .map_err(|e| Error::bad(format!("the body must be {{\"nodejobs\": [ID...]}}: {e}")))
    }

    /// The ids, each of which may be none.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.nodejobs.iter().map(String::as_str)
    }
}

/// So many results are known to be safe by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// How many.
    pub acknowledged: usize,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_acknowledgement_is_read_as_it_was_written() {
        let ids: Vec<RunId> = ["c-1.1", "x"].iter().filter_map(|id| RunId::parse(id)).collect();
        for count in 0..=ids.len() {
            let ack = Ack::of(&ids[..count]);
            assert_eq!(Ack::read(json!(ack)).unwrap(), ack);
            let answer = Acknowledged { acknowledged: count };
            assert_eq!(serde_json::from_value::<Acknowledged>(json!(answer)).unwrap(), answer);
        }
        assert_eq!(json!(Ack::of(&ids)).to_string(), r#"{"nodejobs":["c-1.1","x"]}"#);
        for wrong in
            [json!([]), json!({}), json!({"nodejobs": [1]}), json!({"nodejobs": [], "x": 1})]
        {
            assert!(Ack::read(wrong).is_err());
        }
    }
}
