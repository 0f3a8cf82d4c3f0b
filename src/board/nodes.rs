//! Node records, `state/scheduler/nodes/NAME.json`: what an admin registered, and what the poller
//! last saw. Changed only under the board's lock, replaced whole.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::rc::Rc;

use serde_json::{Value, json};

use super::cards::Cards;
use super::files::{self, Version};
use super::lock::Lock;
use super::partitions;
use super::pause;
use super::root::Root;
use super::sync_set::SyncSet;
use crate::error::{At, Error, Kind, Result};
use crate::model::ids::{self, NodejobId};
use crate::model::node::Node;

/// Name of the node that every root has.
pub const LOCALHOST: &str = "localhost";

fn path(root: &Root, name: &str) -> Result<PathBuf> {
    if ids::is_valid(name) {
        return Ok(root.state("scheduler/nodes").join(format!("{name}.json")));
    }
    Err(Error::bad(
        "a node's name must be 1 to 64 of A-Z a-z 0-9 . _ - beginning with a letter or digit",
    ))
}

/// A node's record; 404 where there is none.
pub fn read(root: &Root, name: &str) -> Result<Node> {
    find(root, name)?.ok_or_else(|| none(name))
}

/// 404 for a node that is not there.
pub fn none(name: &str) -> Error {
    Error::not_found(format!("there is no node {name}"))
}

/// A node's record; `None` where there is none.
pub fn find(root: &Root, name: &str) -> Result<Option<Node>> {
    let bytes = files::read(&path(root, name)?)?;
    parse(root, name, bytes.as_deref())
}

fn parse(root: &Root, name: &str, bytes: Option<&[u8]>) -> Result<Option<Node>> {
    match recorded(root, name, bytes)? {
        Recorded::Absent => Ok(None),
        Recorded::Known(node) => Ok(Some(*node)),
        Recorded::Damaged(damaged) => Err(damaged.why),
    }
}

/// What lies where a node's record should.
#[derive(Debug)]
pub enum Recorded {
    /// Nothing, and every root has not got this node by itself.
    Absent,
    /// A record; perhaps a newer program's.
    Known(Box<Node>),
    /// What a crash, a disk or a hand has left of one: where the node is, nobody knows.
    Damaged(Damaged),
}

/// A record that cannot be read.
#[derive(Debug)]
pub struct Damaged {
    /// Why, for a person.
    pub why: Error,
    /// What of it is there.
    text: String,
}

impl Damaged {
    /// What of it has the form of an attempt's id: it may have been given up.
    pub fn attempts(&self) -> Vec<NodejobId> {
        let mut found: Vec<NodejobId> = self.text.split('"').filter_map(NodejobId::parse).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Whose it is, as far as that can be made out.
    pub fn owner(&self) -> Option<String> {
        let owner = self.values("owner").find_map(|value| value.strip_prefix('"'))?;
        Some(owner.split_once('"')?.0.to_string())
    }

    /// What stands where this field has its value, and all behind it, in whatever form the record is.
    fn values(&self, field: &str) -> impl Iterator<Item = &str> {
        let key = format!("\"{field}\"");
        let found: Vec<usize> =
            self.text.match_indices(&key).map(|(at, _)| at + key.len()).collect();
        let after = found.into_iter().map(|at| self.text[at..].trim_start());
        after.filter_map(|after| after.strip_prefix(':')).map(str::trim_start)
    }

    /// Whether what of it is there says that a node at this address must prove its reports.
    pub fn must_prove(&self, node: &Node) -> bool {
        let same = node.uri.as_ref().is_some_and(|uri| self.text.contains(&format!("\"{uri}\"")));
        same && self.values("proves").any(|value| value.starts_with("true"))
    }
}

/// What lies where the record of this node should. An error where that cannot be looked at: then
/// nothing says that the record is damaged.
pub fn look(root: &Root, name: &str) -> Result<Recorded> {
    let bytes = files::read(&path(root, name)?)?;
    recorded(root, name, bytes.as_deref())
}

fn recorded(root: &Root, name: &str, bytes: Option<&[u8]>) -> Result<Recorded> {
    let Some(bytes) = bytes else {
        let own = (name == LOCALHOST).then(|| Recorded::Known(Node::localhost().into()));
        return Ok(own.unwrap_or(Recorded::Absent));
    };
    let why = match Node::parse(name, bytes) {
        Ok(node) => return Ok(Recorded::Known(node.into())),
        Err(why) => why,
    };
    let path = path(root, name)?;
    let why = Error::new(
        Kind::Internal,
        format!(
            "{}: not a node's record: {why}; `scheduler nodes {name} update` with all its fields writes it anew, `scheduler nodes {name} remove` removes it",
            path.display()
        ),
    );
    Ok(Recorded::Damaged(Damaged { why, text: String::from_utf8_lossy(bytes).into_owned() }))
}

/// All nodes by name. One whose record cannot be read is left out.
pub fn list(root: &Root) -> Result<Vec<Node>> {
    list_all(root).map(|(nodes, _)| nodes)
}

/// Names of nodes whose records cannot be read, and why.
pub type Unreadable = Vec<(String, Error)>;

/// All nodes by name; then those whose records cannot be read.
pub fn list_all(root: &Root) -> Result<(Vec<Node>, Unreadable)> {
    let (mut nodes, mut unreadable) = (Vec::new(), Vec::new());
    for name in names(root)? {
        match find(root, &name) {
            Ok(node) => nodes.extend(node),
            Err(error) => unreadable.push((name, error)),
        }
    }
    Ok((nodes, unreadable))
}

/// All nodes as they are shown; of one whose record cannot be read the name and the reason.
pub fn shown(root: &Root) -> Result<Vec<Value>> {
    let (nodes, unreadable) = list_all(root)?;
    let unreadable = unreadable.iter();
    let unread = unreadable.map(|(name, why)| json!({"name": name, "reason": why.message}));
    let mut all: Vec<Value> = nodes.iter().map(Node::shown).chain(unread).collect();
    all.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    Ok(all)
}

/// Names of all nodes, in order. What cannot be one is left out; the check names it.
pub fn names(root: &Root) -> Result<Vec<String>> {
    let mut names: Vec<String> = files::names(&root.state("scheduler/nodes"))?
        .iter()
        .filter_map(|name| name.strip_suffix(".json"))
        .filter(|name| ids::is_valid(name))
        .map(str::to_string)
        .collect();
    if !names.iter().any(|name| name == LOCALHOST) {
        names.push(LOCALHOST.to_string());
    }
    names.sort_unstable();
    Ok(names)
}

/// What is registered: each record is read once. For whoever only looks, or acts on it while it holds the
/// board's lock.
pub struct Registered<'r> {
    root: &'r Root,
    read: RefCell<HashMap<String, Result<Option<Rc<Node>>>>>,
    partitions: RefCell<HashMap<String, Option<Version>>>,
    paused: OnceCell<bool>,
}

impl Registered<'_> {
    /// Nothing is read yet.
    pub fn new(root: &Root) -> Registered<'_> {
        let (read, partitions) = (RefCell::default(), RefCell::default());
        Registered { root, read, partitions, paused: OnceCell::new() }
    }

    /// Which version of a partition's record is there; `None` also where that cannot be looked at.
    pub fn partition(&self, name: &str) -> Option<Version> {
        let known = self.partitions.borrow().get(name).copied();
        known.unwrap_or_else(|| {
            let found = partitions::version(self.root, name).unwrap_or(None);
            self.partitions.borrow_mut().insert(name.to_string(), found);
            found
        })
    }

    /// Whether nothing is to be placed anywhere.
    pub fn is_paused(&self) -> bool {
        *self.paused.get_or_init(|| pause::is_paused(self.root))
    }

    /// A node's record; `None` where there is none.
    pub fn find(&self, name: &str) -> Result<Option<Rc<Node>>> {
        let mut read = self.read.borrow_mut();
        match read.get(name) {
            Some(known) => known.clone(),
            None => {
                let found = find(self.root, name).map(|node| node.map(Rc::new));
                read.insert(name.to_string(), found.clone());
                found
            }
        }
    }
}

/// Refuses to change a record that a newer program wrote, or that cannot be looked at. A damaged one
/// may be replaced.
fn check_known(root: &Root, name: &str) -> Result<()> {
    match look(root, name)? {
        Recorded::Known(node) => node.for_use(),
        Recorded::Absent | Recorded::Damaged(_) => Ok(()),
    }
}

/// Writes a node's record, whole and durable.
pub fn write(root: &Root, _lock: &Lock, node: &Node) -> Result<()> {
    check_known(root, &node.name)?;
    files::replace(&root.state("scheduler/tmp"), &path(root, &node.name)?, text(node)?.as_bytes())
}

fn text(node: &Node) -> Result<String> {
    let text = serde_json::to_string_pretty(node)
        .map_err(|e| Error::new(Kind::Internal, format!("cannot write JSON: {e}")))?;
    Ok(text + "\n")
}

/// Removes a node's record. Durable when this returns.
pub fn remove(root: &Root, _lock: &Lock, name: &str) -> Result<()> {
    let path = path(root, name)?;
    check_known(root, name)?;
    files::remove(&path)?;
    files::sync_dir(files::parent(&path))
}

/// Changes what the poller knows of a node, if the node is still there and anything changes. 409
/// for a record that a newer program wrote.
pub fn observe(root: &Root, name: &str, change: impl FnOnce(&mut Node)) -> Result<()> {
    let lock = Cards::new(root).lock()?;
    let Some(old) = find(root, name)? else { return Ok(()) };
    old.for_use()?;
    let mut new = old.clone();
    change(&mut new);
    if new == old { Ok(()) } else { write(root, &lock, &new) }
}

/// Which version of a node's record is there; `None` where there is none.
pub fn version(root: &Root, name: &str) -> Result<Option<Version>> {
    files::version(&path(root, name)?)
}

/// Most records that are put in place under one hold of the board's lock.
const RECORDS_PER_LOCK: usize = 100;

/// How often it is begun anew with records that others changed meanwhile.
const TRIES: usize = 5;

/// What is to become of the record of a node of this name.
pub type Change<'c> = (&'c str, Box<dyn Fn(&mut Node) + 'c>);

/// [`observe`] for several nodes, durable with one sync for all, for which the board's lock is not
/// held. The nodes whose records could not be changed, with the reason.
pub fn observe_all(root: &Root, changes: &[Change]) -> Vec<(String, Error)> {
    let mut left: Vec<&Change> = changes.iter().collect();
    let mut failed = Vec::new();
    for _ in 0..TRIES {
        if left.is_empty() {
            return failed;
        }
        match try_all(root, &left, &mut failed) {
            Ok(changed_meanwhile) => left = changed_meanwhile,
            Err(error) => {
                failed.extend(left.iter().map(|(name, _)| (name.to_string(), error.clone())));
                return failed;
            }
        }
    }
    let busy =
        |name| Error::new(Kind::Unavailable, format!("node {name}: its record keeps changing"));
    failed.extend(left.iter().map(|(name, _)| (name.to_string(), busy(name))));
    failed
}

/// Writes down what was seen of these nodes; those for which that failed, with the reason.
pub fn save_observed(root: &Root, seen: &[Node]) -> Vec<(String, Error)> {
    let mut changes: Vec<Change> = Vec::new();
    for seen in seen {
        changes.push((&seen.name, Box::new(|record: &mut Node| record.take_observed(seen))));
    }
    observe_all(root, &changes)
}

/// A record that is to be put in place of what was there.
struct Prepared<'a, 'c> {
    change: &'a Change<'c>,
    before: Option<Vec<u8>>,
    prepared: PathBuf,
}

impl Drop for Prepared<'_, '_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.prepared); // it may be in its place
    }
}

/// One try; the changes of records that have become others meanwhile.
fn try_all<'a, 'c>(
    root: &Root,
    changes: &[&'a Change<'c>],
    failed: &mut Vec<(String, Error)>,
) -> Result<Vec<&'a Change<'c>>> {
    root.for_change()?;
    let mut sync = SyncSet::new();
    let mut all = Vec::new();
    for change in changes {
        match prepare(root, change, &mut sync) {
            Ok(prepared) => all.extend(prepared),
            Err(error) => failed.push((change.0.to_string(), error)),
        }
    }
    if all.is_empty() {
        return Ok(Vec::new());
    }
    sync.commit()?;
    let mut changed_meanwhile = Vec::new();
    for some in all.chunks(RECORDS_PER_LOCK) {
        let _lock = Cards::new(root).lock()?;
        for Prepared { change, before, prepared } in some {
            let path = path(root, change.0)?;
            if files::read(&path)? == *before {
                fs::rename(prepared, &path).at(&path)?;
            } else {
                changed_meanwhile.push(*change);
            }
        }
    }
    files::sync_dir(&root.state("scheduler/nodes"))?;
    Ok(changed_meanwhile)
}

/// The record as it is to be, unless there is none or nothing changes.
fn prepare<'a, 'c>(
    root: &Root,
    change: &'a Change<'c>,
    sync: &mut SyncSet,
) -> Result<Option<Prepared<'a, 'c>>> {
    let (name, apply) = change;
    let before = files::read(&path(root, name)?)?;
    let Some(old) = parse(root, name, before.as_deref())? else { return Ok(None) };
    old.for_use()?;
    let mut new = old.clone();
    apply(&mut new);
    if new == old {
        return Ok(None);
    }
    let prepared = root.state("scheduler/tmp").join(files::random_name()?);
    let file = files::create(&prepared, text(&new)?.as_bytes())?;
    sync.file(file, prepared.clone());
    Ok(Some(Prepared { change, before, prepared }))
}
