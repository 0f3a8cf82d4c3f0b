//! Records of partitions, `state/scheduler/partitions/NAME.json`: what an admin said of them, by a route or
//! with an editor. The programs change them only under the board's lock, and replace them whole. The
//! directory is made with the first.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use super::files::{self, Version};
use super::lock::Lock;
use super::root::Root;
use crate::error::{At, Error, Kind, Result};
use crate::model::defaults;
use crate::model::ids;
use crate::model::partition::{Partition, Unread};

/// The directory's name in `state/scheduler/`.
pub const DIR: &str = "partitions";

/// The directory; it may not be there yet.
pub fn dir(root: &Root) -> PathBuf {
    root.state("scheduler").join(DIR)
}

fn path(root: &Root, name: &str) -> Result<PathBuf> {
    if ids::is_valid(name) {
        return Ok(dir(root).join(format!("{name}.json")));
    }
    Err(Error::bad(
        "a partition's name must be 1 to 64 of A-Z a-z 0-9 . _ - beginning with a letter or digit",
    ))
}

/// What lies where a partition's record should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    /// Nothing: there is no such partition.
    Absent,
    /// A record.
    Known(Arc<Partition>),
    /// One that a newer program wrote: why it is left alone, for a person.
    Newer(String),
    /// One that cannot be read, or has a wrong value: why, for a person.
    Damaged(String),
}

impl Recorded {
    /// Why jobs of this partition wait, for a person, where its record does not let them go on.
    pub fn objection(&self, name: &str) -> Option<String> {
        match self {
            Recorded::Known(_) => None,
            Recorded::Absent => Some(format!("partition {name} does not exist any more")),
            Recorded::Newer(why) | Recorded::Damaged(why) => Some(why.clone()),
        }
    }

    /// The partition, if one can go by its record.
    pub fn known(self) -> Option<Arc<Partition>> {
        match self {
            Recorded::Known(partition) => Some(partition),
            Recorded::Absent | Recorded::Newer(_) | Recorded::Damaged(_) => None,
        }
    }

    /// The partition, to be used.
    ///
    /// Errors: 404 where there is none, 409 for a newer program's record, 503 for one that cannot be read:
    /// whoever mends it has not lost what was asked for meanwhile.
    pub fn for_use(self, name: &str) -> Result<Arc<Partition>> {
        match self {
            Recorded::Known(partition) => Ok(partition),
            Recorded::Absent => Err(none(name)),
            Recorded::Newer(why) => Err(Error::conflict(why)),
            Recorded::Damaged(why) => Err(Error::new(Kind::Unavailable, why)),
        }
    }
}

/// 404 for a partition that is not there.
pub fn none(name: &str) -> Error {
    Error::not_found(format!("there is no partition {name}"))
}

/// What lies where the record of this partition should. An error where that cannot be looked at.
pub fn look(root: &Root, name: &str) -> Result<Recorded> {
    let path = path(root, name)?;
    let Some(bytes) = files::read(&path)? else { return Ok(Recorded::Absent) };
    Ok(match Partition::parse(name, &bytes) {
        Ok(partition) => Recorded::Known(partition.into()),
        Err(Unread::Newer(what)) => Recorded::Newer(format!(
            "partition {name}: its record was written by a newer version of corkboard ({what})"
        )),
        Err(Unread::Damaged(why)) => Recorded::Damaged(format!(
            "{}: not a partition's record: {why}; mend it, or `scheduler partitions {name} update` with all its fields writes it anew",
            path.display()
        )),
    })
}

/// Names of all partitions, in order. What cannot be one is left out; the check names it.
pub fn names(root: &Root) -> Result<Vec<String>> {
    let mut names: Vec<String> = files::names(&dir(root))?
        .iter()
        .filter_map(|name| name.strip_suffix(".json"))
        .filter(|name| ids::is_valid(name))
        .map(str::to_string)
        .collect();
    names.sort_unstable();
    Ok(names)
}

/// All partitions by name, in whatever state their records are; of one that cannot be looked at the error.
pub fn all(root: &Root) -> Result<Vec<(String, Result<Recorded>)>> {
    let names = names(root)?.into_iter();
    Ok(names.map(|name| (name.clone(), look(root, &name))).collect())
}

/// Why nothing was done with a partition whose record cannot be looked at: 503, for nothing was recorded, and
/// whoever mends that has not lost what was asked for meanwhile.
pub fn not_now(error: Error) -> Error {
    let kind = if error.kind == Kind::Internal { Kind::Unavailable } else { error.kind };
    Error { kind, ..error }
}

/// What is wrong with what lies there, a line for each; then what is to be noted. Of what an editor leaves
/// beside a file nothing is said.
pub fn check(root: &Root) -> Result<(Vec<String>, Vec<String>)> {
    let (mut wrong, mut notes) = (Vec::new(), Vec::new());
    for entry in files::all_names(&dir(root))? {
        let path = dir(root).join(&entry);
        let name = entry.to_string_lossy();
        let is_autosave = name.starts_with('#') && name.ends_with('#');
        if name.starts_with('.') || name.ends_with('~') || is_autosave {
            continue;
        }
        let Some(partition) = name.strip_suffix(".json").filter(|name| ids::is_valid(name)) else {
            wrong.push(format!("{}: not a partition's record", path.display()));
            continue;
        };
        match look(root, partition) {
            Ok(Recorded::Damaged(why)) => wrong.push(why),
            Ok(Recorded::Newer(why)) => notes.push(why),
            Ok(Recorded::Known(known)) => {
                let given = defaults::check(&known.defaults).err();
                wrong.extend(given.map(|why| format!("partition {partition}: {}", why.message)));
                let said = files::read(&path).ok().flatten().and_then(|bytes| said_name(&bytes));
                if let Some(said) = said.filter(|said| said != partition) {
                    let path = path.display();
                    notes.push(format!(
                        "{path}: it is partition {partition}, though the name in it is {said:?}"
                    ));
                }
            }
            Ok(Recorded::Absent) => {}
            Err(error) => wrong.push(error.message),
        }
    }
    Ok((wrong, notes))
}

/// The name that a record says.
fn said_name(record: &[u8]) -> Option<String> {
    let record: Value = serde_json::from_slice(record).ok()?;
    record["name"].as_str().map(str::to_string)
}

/// Which version of a partition's record is there; `None` where there is none.
pub fn version(root: &Root, name: &str) -> Result<Option<Version>> {
    files::version(&path(root, name)?)
}

/// Which versions of all partitions' records are there; of what cannot be looked at `None`.
pub fn versions(root: &Root) -> Vec<(String, Option<Version>)> {
    let names = names(root).unwrap_or_default().into_iter();
    let known = |name: String| {
        let version = version(root, &name).unwrap_or(None);
        (name, version)
    };
    names.map(known).collect()
}

/// Refuses with 409 to change what a newer program wrote. A damaged record may be replaced, or removed.
fn check_known(root: &Root, name: &str) -> Result<()> {
    match look(root, name)? {
        Recorded::Newer(why) => Err(Error::conflict(why)),
        Recorded::Absent | Recorded::Known(_) | Recorded::Damaged(_) => Ok(()),
    }
}

/// Writes a partition's record, whole and durable. A crash leaves the old one or the new one. 409 where it is a
/// link: what it leads to would not count any more.
pub fn write(root: &Root, _lock: &Lock, partition: &Partition) -> Result<()> {
    let path = path(root, &partition.name)?;
    check_known(root, &partition.name)?;
    if let Some(leads) = files::link(&path)? {
        let (path, leads) = (path.display(), leads.display());
        return Err(Error::conflict(format!("{path} is a link: change {leads}, where it leads")));
    }
    let text = serde_json::to_string_pretty(partition)
        .map_err(|e| Error::new(Kind::Internal, format!("cannot write JSON: {e}")))?;
    let dir = dir(root);
    if !dir.is_dir() {
        DirBuilder::new().mode(0o750).create(&dir).at(&dir)?;
        files::sync_dir(files::parent(&dir))?;
    }
    files::replace(&root.state("scheduler/tmp"), &path, format!("{text}\n").as_bytes())
}

/// Removes a partition's record. Durable when this returns.
pub fn remove(root: &Root, _lock: &Lock, name: &str) -> Result<()> {
    let path = path(root, name)?;
    check_known(root, name)?;
    files::remove(&path)?;
    files::sync_dir(files::parent(&path))
}

/// Records of partitions, each read once: for whoever only looks, or answers one request.
pub struct Partitions<'r> {
    root: &'r Root,
    read: RefCell<HashMap<String, Result<Recorded>>>,
}

impl Partitions<'_> {
    /// Nothing is read yet.
    pub fn new(root: &Root) -> Partitions<'_> {
        Partitions { root, read: RefCell::default() }
    }

    /// See [`look`].
    pub fn look(&self, name: &str) -> Result<Recorded> {
        let known = self.read.borrow().get(name).cloned();
        known.unwrap_or_else(|| {
            let found = look(self.root, name);
            self.read.borrow_mut().insert(name.to_string(), found.clone());
            found
        })
    }
}
