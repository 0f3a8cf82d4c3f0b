//! The partitions: made, shown, changed and removed. What jobs do with them: [`super::entry`].

use serde_json::{Map, Value, json};

use crate::attempts::allocated::{Allocated, MOST};
use crate::auth::Who;
use crate::board::cards::Cards;
use crate::board::nodes;
use crate::board::partitions::{self, Recorded};
use crate::board::root::Root;
use crate::cgi::{Call, Response};
use crate::error::{Error, Kind, Result};
use crate::model::defaults;
use crate::model::ids;
use crate::model::node::Node;
use crate::model::partition::{FIELDS, Partition};
use crate::model::request::hide_values;

/// Words that paths have where the name of a partition may stand.
const RESERVED: &[&str] = &["new"];

/// `GET partitions`: all of them; of one whose record cannot be gone by the name and the reason.
pub fn list(call: &Call) -> Result<Response> {
    let all = partitions::all(call.root)?;
    let beside = Beside::read(call.root, !all.is_empty())?;
    let shown = all.iter().filter_map(|(name, recorded)| beside.shown(call, name, recorded));
    Ok(Response::of(json!({ "partitions": shown.collect::<Vec<_>>() })))
}

/// `GET partitions/NAME`.
pub fn show(call: &Call) -> Result<Response> {
    let name = call.value(0);
    let recorded = partitions::look(call.root, name);
    if let Err(error) = &recorded
        && error.kind == Kind::BadRequest
    {
        return Err(error.clone());
    }
    let shown = Beside::read(call.root, true)?.shown(call, name, &recorded);
    Ok(Response::of(shown.ok_or_else(|| partitions::none(name))?))
}

/// `POST partitions/new`: makes one. The same again changes nothing.
pub fn new(call: &Call) -> Result<Response> {
    let fields = fields(call)?;
    let name = fields.get("name").and_then(Value::as_str).unwrap_or_default().to_string();
    if !ids::is_valid(&name) || RESERVED.contains(&name.as_str()) {
        return Err(Error::bad(
            "a partition needs a name other than new: 1 to 64 of A-Z a-z 0-9 . _ - beginning with a letter or digit",
        ));
    }
    let partition = checked(&name, fields)?;
    let lock = Cards::new(call.root).lock()?; // of two who make one at once one finds the other's
    match partitions::look(call.root, &name).map_err(partitions::not_now)? {
        Recorded::Absent => {}
        Recorded::Known(there) if *there == partition => return Ok(Response::of(partition)),
        Recorded::Known(_) => {
            let why = format!(
                "partition {name} is there already: change it with partitions/{name}/update"
            );
            return Err(Error::conflict(why));
        }
        Recorded::Newer(why) | Recorded::Damaged(why) => return Err(Error::conflict(why)),
    }
    partitions::write(call.root, &lock, &partition)?;
    let path = format!("partitions/{name}");
    Ok(Response::of(partition).status(201, "Created").location(super::PROGRAM.name, &path))
}

/// `POST partitions/NAME/update`: changes the fields that are given; null takes one away. In place of a
/// record that cannot be read they are all of it, with its name.
pub fn update(call: &Call) -> Result<Response> {
    let fields = fields(call)?; // before the lock: a body may come slowly
    let name = call.value(0);
    if fields.get("name").is_some_and(|given| given.as_str() != Some(name)) {
        return Err(Error::bad("a partition's name cannot be changed"));
    }
    let lock = Cards::new(call.root).lock()?;
    let mut merged = match partitions::look(call.root, name).map_err(partitions::not_now)? {
        Recorded::Known(old) => json!(*old).as_object().cloned().unwrap_or_default(),
        // Of one that an editor is writing just then nothing must get lost.
        Recorded::Damaged(why) if !fields.contains_key("name") => {
            return Err(Error::new(Kind::Unavailable, format!("{why}, its name among them")));
        }
        Recorded::Damaged(_) => Map::new(),
        Recorded::Absent => return Err(partitions::none(name)),
        Recorded::Newer(why) => return Err(Error::conflict(why)),
    };
    for (field, value) in fields {
        merged.shift_remove(&field);
        merged.insert(field, value);
    }
    let partition = checked(name, merged)?;
    partitions::write(call.root, &lock, &partition)?;
    Ok(Response::of(partition))
}

/// `POST partitions/NAME/remove`. Its jobs that wait go on waiting, until there is one of that name again;
/// what runs goes on.
pub fn remove(call: &Call) -> Result<Response> {
    let name = call.value(0);
    let lock = Cards::new(call.root).lock()?;
    let recorded = partitions::look(call.root, name).map_err(partitions::not_now)?;
    let shown = match &recorded {
        Recorded::Known(partition) => json!(**partition),
        Recorded::Absent => return Err(partitions::none(name)),
        Recorded::Newer(why) | Recorded::Damaged(why) => json!({"name": name, "reason": why}),
    };
    partitions::remove(call.root, &lock, name)?;
    Ok(Response::of(shown))
}

/// What a request says of a partition. 400 for what none has.
fn fields(call: &Call) -> Result<Map<String, Value>> {
    let Value::Object(fields) = call.request.body.json(call.root)? else {
        return Err(Error::bad("a partition must be a JSON object"));
    };
    if let Some(unknown) = fields.keys().find(|field| !FIELDS.contains(&field.as_str())) {
        return Err(Error::bad(format!(
            "unknown field {unknown:?} of a partition; known are {}",
            FIELDS.join(", ")
        )));
    }
    Ok(fields)
}

/// A partition that may be as these fields say, of which null is none.
fn checked(name: &str, mut fields: Map<String, Value>) -> Result<Partition> {
    fields.retain(|_, value| !value.is_null());
    let partition = Partition::of(name, fields)
        .map_err(|why| Error::bad(format!("the partition has a wrong value: {why}")))?;
    defaults::check(&partition.defaults)?;
    Ok(partition)
}

/// What is shown with a partition: read once for all of them.
struct Beside {
    nodes: Vec<Node>,
    allocated: Option<Allocated>,
}

impl Beside {
    /// Reads it if it is needed.
    fn read(root: &Root, is_needed: bool) -> Result<Beside> {
        Ok(match is_needed {
            true => Beside { nodes: nodes::list(root)?, allocated: Allocated::read(root, MOST)? },
            false => Beside { nodes: Vec::new(), allocated: None },
        })
    }

    /// A partition as it is shown, with what is in use, where that can be told at little cost, and the names of its
    /// nodes; `None` for one that is not there.
    fn shown(&self, call: &Call, name: &str, recorded: &Result<Recorded>) -> Option<Value> {
        let mut shown = match recorded {
            Ok(Recorded::Absent) => return None,
            Ok(Recorded::Newer(why) | Recorded::Damaged(why)) => {
                json!({"name": name, "reason": why})
            }
            Err(error) => json!({"name": name, "reason": error.message}),
            Ok(Recorded::Known(partition)) => {
                let mut shown = json!(**partition);
                if !sees_values(call.who, partition)
                    && let Some(given) = shown["defaults"].as_object_mut()
                {
                    hide_values(given);
                }
                let own = self.nodes.iter().filter(|node| partition.has(node));
                shown["nodes"] = own.map(|node| node.name.as_str()).collect();
                shown
            }
        };
        if let Some(allocated) = &self.allocated {
            let used = allocated.of_partition(name);
            let cores = u64::try_from(used.cores).unwrap_or(u64::MAX);
            shown["in_use"] = json!({"jobs": used.jobs, "cores": cores});
        }
        if call.root.settings.partition.as_deref() == Some(name) {
            shown["default"] = true.into();
        }
        Some(shown)
    }
}

/// Whether the values in the environment that its jobs are given are shown to somebody: as those of a job that
/// they might submit.
fn sees_values(who: &Who, partition: &Partition) -> bool {
    who.sees_values() && super::entry::check_may(who, partition).is_ok()
}
