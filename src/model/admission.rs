//! What is refused of a new request: fields that nobody knows, and values that could be understood and
//! are not accepted. Of one that was accepted before nothing is refused any more.

use serde::Deserialize;
use serde_json::Value;

use super::ids;
use super::request::Spec;
use super::request_fields::{BY_FIELD, HEAD_FIELDS, NODE_FIELDS, RANGE_FIELD, Raw};
use crate::error::{Error, Result};

/// Most attempts after the first: each is a line that every reader of the card reads.
const MOST_RETRIES: u32 = 1000;

/// Refuses more attempts than a job may have. Asked of new requests to the head alone, after they were read.
pub fn check_retries(spec: &Spec) -> Result<()> {
    if spec.max_retry_count <= MOST_RETRIES {
        return Ok(());
    }
    Err(Error::bad(format!("max_retry_count must be at most {MOST_RETRIES}")))
}

impl Spec {
    /// Reads a request to the head.
    pub fn for_head(request: &Value) -> Result<Spec> {
        Spec::read(request, &[NODE_FIELDS, HEAD_FIELDS])
    }

    /// Reads a request to a node.
    pub fn for_node(request: &Value) -> Result<Spec> {
        Spec::read(request, &[NODE_FIELDS, &[RANGE_FIELD]])
    }

    /// Reads a request that a node has accepted, which may say whose it is.
    pub fn for_run(request: &Value) -> Result<Spec> {
        Spec::read(request, &[NODE_FIELDS, &[RANGE_FIELD, BY_FIELD]])
    }

    fn read(request: &Value, fields: &[&[&str]]) -> Result<Spec> {
        let Value::Object(map) = request else {
            return Err(Error::bad("a job's request must be a JSON object"));
        };
        if let Some(unknown) = map.keys().find(|key| !fields.iter().any(|f| f.contains(&&***key))) {
            let known: Vec<&str> = fields.concat();
            return Err(Error::bad(format!(
                "unknown field {unknown:?} in the request; known are {}",
                known.join(", ")
            )));
        }
        if map.get("partition").is_some_and(Value::is_null) {
            // As if absent it would be another one than none.
            return Err(Error::bad("partition must be the name of a partition; leave it out"));
        }
        let raw = Raw::deserialize(request)
            .map_err(|e| Error::bad(format!("the request has a wrong value: {e}")))?;
        Spec::admit(&raw)?;
        let spec = Spec::of(raw)?;
        if spec.commands.is_empty() {
            return Err(Error::bad("commands must not be empty"));
        }
        for argv in &spec.commands {
            if argv.first().is_none_or(String::is_empty) {
                return Err(Error::bad("a command must name a program"));
            }
            for word in argv {
                no_nul("command", word)?;
            }
        }
        Ok(spec)
    }

    /// What is refused of a new request though it could be understood.
    fn admit(raw: &Raw) -> Result<()> {
        if raw.action.as_deref().is_some_and(|action| action != "add_job") {
            return Err(Error::bad("action must be \"add_job\""));
        }
        for (name, value) in &raw.environment {
            if name.is_empty() || name.contains('=') {
                return Err(Error::bad(format!("environment: {name:?} cannot be a name")));
            }
            no_nul("environment", name)?;
            no_nul("environment", value)?;
        }
        if let Some(dir) = &raw.dir {
            no_nul("dir", dir)?;
            if !dir.starts_with('/') {
                return Err(Error::bad(format!("dir must be an absolute path, not {dir:?}")));
            }
        }
        if let Some(id) = &raw.request_id {
            check_request_id(id)?;
        }
        if raw.partition.as_ref().is_some_and(|name| !ids::is_valid(name)) {
            return Err(Error::bad("partition must be the name of a partition"));
        }
        if raw.requested_resources.resources.cores == 0 {
            return Err(Error::bad("requested_resources: cores must be at least 1"));
        }
        if raw.timeout.is_some_and(|t| t.is_zero()) {
            return Err(Error::bad("timeout must be longer than 0"));
        }
        if raw.name.as_ref().is_some_and(|name| name.chars().count() > 200) {
            return Err(Error::bad("name must have at most 200 characters"));
        }
        Ok(())
    }
}

/// Refuses a request id that cannot be one.
fn check_request_id(id: &str) -> Result<()> {
    if ids::is_valid(id) {
        return Ok(());
    }
    let shown: String = id.chars().take(80).collect();
    Err(Error::bad(format!(
        "request_id {shown:?} is not an id: 1 to 64 of A-Z a-z 0-9 . _ - beginning with a letter or digit"
    )))
}

fn no_nul(field: &str, text: &str) -> Result<()> {
    if text.contains('\0') {
        return Err(Error::bad(format!("{field} must not contain a NUL byte")));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn refuses_what_it_does_not_know() {
        let refused = |value: Value| Spec::for_head(&value).unwrap_err().message;
        assert!(
            refused(json!({"command": ["x"], "comand": 1})).contains("unknown field \"comand\"")
        );
        assert!(refused(json!({"command": []})).contains("must name a program"));
        assert!(refused(json!({"command": ["a\u{0}b"]})).contains("NUL"));
        assert!(refused(json!({"command": ["a"], "timeout": "soon"})).contains("not a duration"));
        assert!(refused(json!({"command": ["a"], "request_id": "../x"})).contains("is not an id"));
        assert!(refused(json!({"command": 3})).contains("wrong value"));
        assert!(refused(json!([])).contains("JSON object"));
        assert!(Spec::for_node(&json!({"command": ["a"], "priority": 1})).is_err());
    }
}
