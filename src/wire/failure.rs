//! What was refused or has failed, in words: the body of an answer that is an error, and what stands in a
//! list in the place of the one thing that cannot be said.

use serde::Serialize;
use serde_json::Value;

use super::codes;
use crate::error::{Error, Kind};

/// The body of an answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Why.
    pub error: String,
}

impl Failure {
    /// Of an error of ours.
    pub fn of(error: &Error) -> Failure {
        Failure { error: error.message.clone() }
    }

    /// Reads a body; `None` where it gives no reason.
    pub fn read(body: &[u8]) -> Option<Failure> {
        said(&serde_json::from_slice(body).ok()?)
    }
}

fn said(body: &Value) -> Option<Failure> {
    Some(Failure { error: body.get("error")?.as_str()?.to_string() })
}

/// What stands in a list for a job of which there is nothing better to say.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NoAnswer {
    /// What was named: an id, or whatever stood in its place.
    pub id: Value,
    /// Why.
    pub error: String,
    /// The code by which the error would travel by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u64>,
}

impl NoAnswer {
    /// Of an error of ours about what is named so.
    pub fn of(id: impl Into<Value>, error: &Error) -> NoAnswer {
        let code = Some(codes::of(error.kind).0.into());
        NoAnswer { id: id.into(), error: error.message.clone(), code }
    }

    /// Reads an entry of a list, if it is one of these. A code alone makes none: a line about an end
    /// has one, too, the program's.
    pub fn read(entry: &Value) -> Option<NoAnswer> {
        let Failure { error } = said(entry)?;
        let id = entry.get("id").cloned().unwrap_or_default();
        Some(NoAnswer { id, error, code: entry.get("code").and_then(Value::as_u64) })
    }

    /// The code, as far as it can be one.
    pub fn code(&self) -> u64 {
        self.code.unwrap_or_else(|| codes::of(Kind::Internal).0.into())
    }

    /// What kind of error it is.
    pub fn kind(&self) -> Kind {
        u16::try_from(self.code()).map_or(Kind::Internal, codes::kind)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_error_travels_with_its_words_and_its_kind() {
        let kinds = [Kind::NotFound, Kind::Gone, Kind::Unprocessable, Kind::Unavailable];
        for (kind, words) in kinds.into_iter().zip(["", "no room: é", "a \"b\"\n", "x"]) {
            let error = Error::new(kind, words);
            let body = serde_json::to_vec(&Failure::of(&error)).unwrap();
            assert_eq!(Failure::read(&body), Some(Failure::of(&error)));
            let entry = NoAnswer::of("c-1.1", &error);
            let read = NoAnswer::read(&json!(entry)).unwrap();
            assert_eq!((read.kind(), &read), (kind, &entry));
        }
        let entry = NoAnswer::of(json!([7]), &Error::bad("no id"));
        assert_eq!(json!(entry).to_string(), r#"{"id":[7],"error":"no id","code":400}"#);
    }

    #[test]
    fn what_gives_no_reason_is_none() {
        for none in ["", "{", "[]", r#"{"error":7}"#, r#"{"code":404}"#] {
            assert_eq!(Failure::read(none.as_bytes()), None, "{none}");
        }
        let of = |code: Value| NoAnswer::read(&json!({"error": "x", "code": code})).unwrap();
        assert_eq!((of(Value::Null).code(), of(Value::Null).kind()), (500, Kind::Internal));
        assert_eq!((of(json!(70_404)).code(), of(json!(70_404)).kind()), (70_404, Kind::Internal));
        assert_eq!(of(json!(404)).kind(), Kind::NotFound);
    }
}
