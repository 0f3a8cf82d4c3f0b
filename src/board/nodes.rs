//! Node records, `state/scheduler/nodes/NAME.json`: what an admin registered, and what the poller
//! last saw. Changed only under the board's lock, replaced whole.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;

use super::cards::Cards;
use super::files;
use super::lock::Lock;
use super::root::Root;
use crate::error::{Error, Kind, Result};
use crate::model::ids;
use crate::model::node::{DriverKind, Node};

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
    find(root, name)?.ok_or_else(|| Error::not_found(format!("there is no node {name}")))
}

/// A node's record; `None` where there is none.
pub fn find(root: &Root, name: &str) -> Result<Option<Node>> {
    let path = path(root, name)?;
    let Some(bytes) = files::read(&path)? else {
        return Ok((name == LOCALHOST).then(Node::localhost));
    };
    let node = Node::parse(name, &bytes).map_err(|e| {
        Error::new(Kind::Internal, format!("{}: not a node's record: {e}", path.display()))
    })?;
    Ok(Some(node))
}

/// All nodes by name. One whose record cannot be read is left out; `scheduler check` names it.
pub fn list(root: &Root) -> Result<Vec<Node>> {
    Ok(all(root)?.into_iter().filter_map(|(_, read)| read.ok()).collect())
}

/// All nodes by name, or why one's record cannot be read: that one is registered all the same.
pub fn all(root: &Root) -> Result<Vec<(String, Result<Node>)>> {
    let mut names: Vec<String> = files::names(&root.state("scheduler/nodes"))?
        .iter()
        .filter_map(|name| name.strip_suffix(".json"))
        .map(str::to_string)
        .collect();
    if !names.iter().any(|name| name == LOCALHOST) {
        names.push(LOCALHOST.to_string());
    }
    names.sort_unstable();
    // One that is not found has just been removed.
    let read = |name: String| find(root, &name).transpose().map(|read| (name, read));
    Ok(names.into_iter().filter_map(read).collect())
}

/// Whether this registration leads to this very root: by its files, or to the address of its own
/// server.
pub fn is_this_root(root: &Root, node: &Node) -> Result<bool> {
    let programs = |uri: &str| uri.trim_end_matches('/').trim_end_matches("/cgi-bin").to_string();
    let Some(uri) = node.uri.as_deref() else { return Ok(node.driver == DriverKind::Local) };
    Ok(root.advertised()?.is_some_and(|own| programs(&own) == programs(uri)))
}

/// What is registered, for whoever holds the board's lock and acts on it before letting go: each
/// record is read once.
pub struct Registered<'r> {
    root: &'r Root,
    read: RefCell<HashMap<String, Result<Option<Rc<Node>>>>>,
}

impl Registered<'_> {
    /// Nothing is read yet.
    pub fn new(root: &Root) -> Registered<'_> {
        Registered { root, read: RefCell::default() }
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

/// Refuses to change a record that a newer program wrote. One that cannot be read may be replaced.
fn check_known(root: &Root, name: &str) -> Result<()> {
    find(root, name).ok().flatten().map_or(Ok(()), |node| node.for_use())
}

/// Writes a node's record, whole and durable.
pub fn write(root: &Root, _lock: &Lock, node: &Node) -> Result<()> {
    check_known(root, &node.name)?;
    let mut text = serde_json::to_string_pretty(node)
        .map_err(|e| Error::new(Kind::Internal, format!("cannot write JSON: {e}")))?;
    text.push('\n');
    files::replace(&root.state("scheduler/tmp"), &path(root, &node.name)?, text.as_bytes())
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
