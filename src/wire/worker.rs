//! What travels between a head and a node that nobody reaches: the node asks. It *claims* its orders, which
//! are the requests that a head makes of any other node, and *reports* what came of them, and what happened.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::run_status::RunStatus;

/// The parameters of an answer that travels by itself: which order it is to, and its code.
pub const ORDER: &str = "order";
/// See [`ORDER`].
pub const STATUS: &str = "status";
/// Where to go on in a log, of an answer that is a piece of one.
pub const OFFSET: &str = "offset";

/// Longest answer that travels with others, in bytes.
pub const SMALL: usize = 64 << 10;

/// What a worker has to tell. It is sent again, as it was, until it is answered: lines may come twice.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct News {
    /// Which root it is, as in the `uri` of its node.
    pub root: String,
    /// Which process it is: another one has another.
    pub session: String,
    /// The boot of its machine.
    pub boot: String,
    /// Nothing that was told before leads to this: whoever follows its feed asks about everything.
    #[serde(default, skip_serializing_if = "is_false")]
    pub anew: bool,
    /// What changed, in order, as the node's own feed has it.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "events")]
    pub events: Vec<RunStatus>,
    /// What came of orders.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<Answer>,
    /// What it says of itself, as [`super::node::INFO`] does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<Value>,
    /// It asks no more: nobody is to wait until it is missed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub leaving: bool,
}

/// News, and the question for orders.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// What it has to tell.
    #[serde(flatten)]
    pub news: News,
    /// How long to wait for orders, in milliseconds; no longer than the head likes.
    #[serde(default)]
    pub wait_ms: u64,
    /// Orders that it has and has not answered. Any other that was handed out has not arrived, and is
    /// handed out again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub have: Vec<String>,
    /// Its version.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
}

/// What came of an order: the answer of the processor's route.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Which one.
    pub order: String,
    /// The code.
    pub status: u16,
    /// Headers that mean something.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The body, of one that is JSON.
    #[serde(default)]
    pub body: Value,
}

/// The answer to a claim.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Orders {
    /// To be carried out in this order, one after the other.
    #[serde(default)]
    pub orders: Vec<Order>,
    /// A later claim of this worker has come: this one gets nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub superseded: bool,
    /// Which head this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// After how many milliseconds it is to ask again.
    #[serde(default)]
    pub ping_ms: u64,
    /// After how many milliseconds in which it has not asked it counts as disconnected.
    #[serde(default)]
    pub silence_ms: u64,
    /// After how many milliseconds in which it has not heard of the head it drops what it has not started, and ends
    /// what runs.
    #[serde(default)]
    pub give_up_ms: u64,
}

/// A request of the head: of `processor`, below its name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// Its id.
    pub order: String,
    /// `GET` or `POST`.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// What is sent with it, of one that has JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
    /// The type of what is sent with it where that is fetched by itself: a form with files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetch: Option<String>,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// A line that cannot be read keeps no other, as in [`super::feed::FeedPage::read`].
fn events<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<RunStatus>, D::Error> {
    let lines = Vec::<Value>::deserialize(from)?.into_iter();
    Ok(lines.filter_map(|line| serde_json::from_value(line).ok()).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::outcome::Outcome;

    #[test]
    fn claims_are_read_as_they_were_written() {
        let news = News {
            root: "w-1".into(),
            session: "s".into(),
            boot: "b".into(),
            anew: true,
            events: vec![RunStatus::stopped(&Outcome::exit(3)).of("c-1.1")],
            answers: vec![Answer {
                order: "1-a".into(),
                status: 201,
                headers: BTreeMap::from([("X".to_string(), "7".to_string())]),
                body: json!({"a": [1]}),
            }],
            info: Some(json!({"resources": {}})),
            leaving: true,
        };
        for news in [news, News::default()] {
            let claim =
                Claim { news, wait_ms: 4500, have: vec!["1-b".into()], version: "1".into() };
            let text = serde_json::to_string(&claim).unwrap();
            assert_eq!(serde_json::from_str::<Claim>(&text).unwrap(), claim, "{text}");
        }
    }

    #[test]
    fn a_line_that_makes_no_sense_keeps_no_other() {
        let good = json!({"id": "c-1.1", "state": "queued", "status": "unknown", "at": "t"});
        let claim = json!({"root": "r", "session": "s", "boot": "b", "events": [7, good, {}]});
        let read: Claim = serde_json::from_value(claim).unwrap();
        assert_eq!(read.news.events.len(), 1);
        assert!(serde_json::from_value::<Claim>(json!({"root": "r"})).is_err());
    }

    #[test]
    fn orders_are_read_as_they_were_written() {
        let order = Order {
            order: "1-a".into(),
            method: "POST".into(),
            path: "jobs/new".into(),
            body: Some(json!([1])),
            fetch: None,
        };
        let fetched = Order {
            body: None,
            fetch: Some("multipart/form-data; boundary=x".into()),
            ..order.clone()
        };
        let cluster = Some("c".to_string());
        let orders =
            Orders { orders: vec![order, fetched], cluster, ping_ms: 5000, ..Orders::default() };
        let text = serde_json::to_string(&orders).unwrap();
        assert_eq!(serde_json::from_str::<Orders>(&text).unwrap(), orders, "{text}");
    }
}
