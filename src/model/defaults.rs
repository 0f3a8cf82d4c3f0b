//! Fields of a request that a job is given where its own does not say: those of its partition, as they are
//! when the job is accepted.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::admission::check_retries;
use super::request::{Expires, Spec};
use super::requested;
use crate::error::{Error, Result};

/// What a job may be given: what it asks for and how it is treated, but not what it is, nor who may see it.
pub const FIELDS: &[&str] = &[
    "constraints",
    "environment",
    "exclude",
    "expires",
    "max_retry_count",
    "max_termination_time",
    "node",
    "output",
    "placement",
    "priority",
    "requested_resources",
    "retry_delay",
    "retry_lost",
    "strict",
    "timeout",
];

/// Fields of which a job is given those members that its own has not got.
const BY_MEMBER: &[&str] = &["constraints", "environment", "requested_resources"];

/// Refuses with 400 what no job can be given, or not for long.
pub fn check(defaults: &Map<String, Value>) -> Result<()> {
    check_fields(defaults)?;
    let mut request = defaults.clone();
    request.insert("command".into(), "true".into());
    let read = Spec::for_head(&Value::Object(request)).and_then(|spec| {
        check_retries(&spec)?;
        match spec.expires {
            Some(Expires::At(_)) => {
                Err(Error::bad("expires must be a duration: a time is over for later jobs"))
            }
            _ => Ok(()),
        }
    });
    read.map_err(|error| Error::new(error.kind, format!("defaults: {}", error.message)))
}

/// Refuses with 400 what is no field for which there can be a default.
pub fn check_fields(defaults: &Map<String, Value>) -> Result<()> {
    let Some(odd) = defaults.keys().find(|field| !FIELDS.contains(&field.as_str())) else {
        return Ok(());
    };
    Err(Error::bad(format!(
        "defaults: {odd:?} is no field for which there can be one; these are {}",
        FIELDS.join(", ")
    )))
}

/// What a request does not say of these. One that it says is null it says.
pub fn lacking(request: &Map<String, Value>, defaults: &Map<String, Value>) -> Map<String, Value> {
    let mut lacking = Map::new();
    for (field, value) in defaults {
        match (request.get(field), value) {
            (None, _) => _ = lacking.insert(field.clone(), value.clone()),
            (Some(Value::Object(said)), Value::Object(members))
                if BY_MEMBER.contains(&field.as_str()) =>
            {
                let meant: Vec<&str> = said.keys().map(|name| requested::meaning(name)).collect();
                let rest = members.iter().filter(|(name, _)| match field.as_str() {
                    "requested_resources" => !meant.contains(&requested::meaning(name)),
                    _ => !said.contains_key(*name),
                });
                let rest: Map<String, Value> =
                    rest.map(|(name, value)| (name.clone(), value.clone())).collect();
                if !rest.is_empty() {
                    lacking.insert(field.clone(), Value::Object(rest));
                }
            }
            (Some(_), _) => {}
        }
    }
    lacking
}

/// A request with what it lacked.
pub fn filled<'r>(
    request: &'r Map<String, Value>,
    lacked: &Map<String, Value>,
) -> Cow<'r, Map<String, Value>> {
    if lacked.is_empty() {
        return Cow::Borrowed(request);
    }
    let mut whole = request.clone();
    for (field, value) in lacked {
        match (whole.get_mut(field), value) {
            (Some(Value::Object(said)), Value::Object(members)) => {
                said.extend(members.iter().map(|(name, value)| (name.clone(), value.clone())));
            }
            _ => _ = whole.insert(field.clone(), value.clone()),
        }
    }
    Cow::Owned(whole)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_job_is_given_what_it_does_not_say() {
        let defaults = map(json!({"timeout": "1h", "priority": 2, "node": ["a", "b"],
            "requested_resources": {"cores": 2, "memory": "1 GiB", "gpus": 1},
            "environment": {"A": "1", "B": "2"}, "constraints": {"disk": "ssd", "zone": "a"}}));
        let request = map(json!({"command": ["true"], "timeout": null, "node": "c",
            "requested_resources": {"cores": 1, "gpu_count": 3}, "environment": {"A": "0"},
            "constraints": {"zone": {"not": "a"}}}));
        let lacked = lacking(&request, &defaults);
        let expected = json!({"priority": 2, "requested_resources": {"memory": "1 GiB"},
            "environment": {"B": "2"}, "constraints": {"disk": "ssd"}});
        assert_eq!(Value::Object(lacked.clone()), expected);
        let whole = filled(&request, &lacked).into_owned();
        let expected = json!({"command": ["true"], "timeout": null, "node": "c", "priority": 2,
            "requested_resources": {"cores": 1, "gpu_count": 3, "memory": "1 GiB"},
            "environment": {"A": "0", "B": "2"},
            "constraints": {"zone": {"not": "a"}, "disk": "ssd"}});
        assert_eq!(Value::Object(whole.clone()), expected);
        assert!(lacking(&whole, &defaults).is_empty(), "it lacks nothing any more");
        assert_eq!(*filled(&request, &Map::new()), request);
    }

    #[test]
    fn a_name_of_an_amount_means_the_same_by_any_name() {
        for (said, default) in [
            ("cpu_memory_bytes", "memory"),
            ("memory", "cpu_memory_bytes"),
            ("cpu_cores", "cores"),
            ("gpus", "gpu_count"),
            ("gpu_compute_capability_major", "gpu_compute_capability_minor"),
        ] {
            let request = map(json!({"requested_resources": {said: 1}}));
            let defaults = map(json!({"requested_resources": {default: 2}}));
            assert!(lacking(&request, &defaults).is_empty(), "{said}, {default}");
        }
    }

    #[test]
    fn what_nobody_can_be_given_is_refused() {
        check(&map(json!({"timeout": "1h", "strict": true, "exclude": "a"}))).unwrap();
        for (defaults, why) in [
            (json!({"command": ["true"]}), "\"command\" is no field"),
            (json!({"partition": "p"}), "\"partition\" is no field"),
            (json!({"share": "read"}), "\"share\" is no field"),
            (json!({"timeout": "soon"}), "not a duration"),
            (json!({"max_retry_count": 1001}), "at most 1000"),
            (json!({"expires": "2999-01-01T00:00:00Z"}), "must be a duration"),
            (json!({"requested_resources": {"cores": 0}}), "at least 1"),
            (json!({"environment": {"A=B": "1"}}), "cannot be a name"),
        ] {
            let said = check(&map(defaults.clone())).unwrap_err().message;
            assert!(said.starts_with("defaults: ") && said.contains(why), "{defaults}: {said}");
        }
    }
}
