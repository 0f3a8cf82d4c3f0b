//! `roles`: the table of who may do what.

use serde_json::{Map, Value, json};

use crate::cgi::{Call, Response};
use crate::error::Result;
use crate::model::access::{self, COLUMNS, NEEDS};

/// `GET roles`: for each need how far each role goes.
pub fn roles(_: &Call) -> Result<Response> {
    let rows =
        NEEDS.iter().map(|(need, word, what)| {
            let mut row = Map::from_iter([("need".to_string(), json!(word))]);
            row.extend(COLUMNS.iter().map(|(rights, role)| {
                (role.to_string(), json!(access::reach(*rights, *need).word()))
            }));
            row.insert("what".into(), json!(what));
            Value::Object(row)
        });
    Ok(Response::of(json!({ "roles": rows.collect::<Vec<_>>() })))
}
