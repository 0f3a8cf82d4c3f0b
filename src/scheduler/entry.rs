//! Into which partition a job goes, and what it is given there: decided when it is accepted, and kept on its
//! card. What its record says of nodes, caps and priority counts as it is when the job is placed.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Map, Value};

use crate::auth::Who;
use crate::board::partitions::{Partitions, Recorded, not_now};
use crate::board::root::Root;
use crate::error::{Error, Kind, Result};
use crate::model::access::{Need, Reach};
use crate::model::admission::check_retries;
use crate::model::defaults;
use crate::model::partition::Partition;
use crate::model::request::{Expires, Spec};

/// A request as it is meant.
pub struct Entered {
    /// With what it was given.
    pub spec: Spec,
    /// The partition, if it goes into one.
    pub partition: Option<Arc<Partition>>,
    /// What it was given: as [`crate::model::event::Accepted::defaults`].
    pub defaults: Map<String, Value>,
}

/// Finds a request's partition, the one that it names or the setting's, and gives it what it lacks. Without
/// either it is as it was, and nothing is read.
///
/// Errors: 400 for a partition that is not there, 403 for one that is other users', 409 for one whose record is a
/// newer program's, 503 where it cannot be gone by, where the setting names one that is not there, or where the
/// request is refused for what it is given alone: then the same request will do later.
pub fn enter(
    root: &Root,
    who: &Who,
    partitions: &Partitions,
    request: &Map<String, Value>,
    spec: Spec,
) -> Result<Entered> {
    let by_setting = root.settings.partition.as_ref().filter(|_| spec.partition.is_none());
    let Some(name) = spec.partition.as_ref().or(by_setting) else {
        return Ok(Entered { spec, partition: None, defaults: Map::new() });
    };
    let partition = match (partitions.look(name).map_err(not_now)?, by_setting) {
        (Recorded::Absent, None) => {
            return Err(Error::bad(format!("there is no partition {name}")));
        }
        (Recorded::Absent, Some(_)) => {
            let why = format!(
                "there is no partition {name}, into which jobs go that name none (setting partition)"
            );
            return Err(Error::new(Kind::Unavailable, why));
        }
        (recorded, _) => recorded.for_use(name)?,
    };
    check_may(who, &partition)?; // nobody else is told more of it
    let wrong = |error: Error| {
        Error::new(Kind::Unavailable, format!("partition {name}: {}", error.message))
    };
    defaults::check_fields(&partition.defaults).map_err(wrong)?;
    let mut given = Map::new();
    if by_setting.is_some() {
        given.insert("partition".into(), name.clone().into());
    }
    given.extend(defaults::lacking(request, &partition.defaults));
    if given.is_empty() {
        return Ok(Entered { spec, partition: Some(partition), defaults: given });
    }
    let whole = defaults::filled(request, &given).into_owned();
    let spec = Spec::for_head(&Value::Object(whole)).and_then(|spec| {
        // Of what it says itself this is asked where it is admitted.
        if given.contains_key("max_retry_count") {
            check_retries(&spec)?;
        }
        if given.contains_key("expires") {
            check_in_time(&spec)?;
        }
        Ok(spec)
    });
    let spec = spec.map_err(|error| with_given(&partition, error))?;
    Ok(Entered { spec, partition: Some(partition), defaults: given })
}

/// Refuses what has expired before it begins.
pub fn check_in_time(spec: &Spec) -> Result<()> {
    match spec.expires {
        Some(Expires::At(time)) if time <= SystemTime::now() => {
            Err(Error::bad("expires lies in the past"))
        }
        _ => Ok(()),
    }
}

/// Why a request, of which nothing is wrong by itself, cannot be accepted with what it is given: 503, for it is
/// not who asks that has to change something.
pub fn with_given(partition: &Partition, error: Error) -> Error {
    let name = &partition.name;
    let why = format!("with what partition {name} gives the request: {}", error.message);
    Error::new(Kind::Unavailable, why)
}

/// Refuses with 403 whoever may not submit to this partition: the user whose job it is to be has to be one
/// of its own. Whoever may change it may, too.
pub fn check_may(who: &Who, partition: &Partition) -> Result<()> {
    if partition.admits(who.user.as_deref()) || who.reach(Need::Admin) == Reach::All {
        return Ok(());
    }
    let user = who.user.as_ref().unwrap_or(&who.name);
    let why = format!("{user} may not use partition {}: it is for other users", partition.name);
    Err(Error::new(Kind::Forbidden, why))
}
