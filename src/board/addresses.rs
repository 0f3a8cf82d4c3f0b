//! Where nodes are, and what that means: whether a registration leads to this very root, and which node an
//! attempt was given to.

use super::nodes::read;
use super::root::Root;
use super::runs::Runs;
use crate::error::{Error, Kind, Result};
use crate::model::attempt::Attempt;
use crate::model::node::{DriverKind, Node};

/// Whether this registration leads to this very root: by its files, or to the address of its own
/// server.
pub fn is_this_root(root: &Root, node: &Node) -> Result<bool> {
    let Some(uri) = node.uri.as_deref() else { return Ok(node.driver == DriverKind::Local) };
    Ok(root.advertised()?.is_some_and(|own| is_same_server(&own, uri)))
}

/// Whether these two lead to the same programs: with `/cgi-bin` at their end, or without.
pub fn is_same_server(one: &str, other: &str) -> bool {
    let programs =
        |uri: &'_ str| uri.trim_end_matches('/').trim_end_matches("/cgi-bin").to_string();
    programs(one) == programs(other)
}

/// The node that was given an attempt, as it is registered. 503 where its name leads elsewhere by now:
/// no other machine knows anything of the attempt, whatever it says.
pub fn holder(root: &Root, attempt: &Attempt) -> Result<Node> {
    let node = read(root, &attempt.node)?;
    if node.newer.is_some() || node.address() == attempt.address() {
        return Ok(node);
    }
    if is_this_root(root, &node)? && Runs::new(root).is_here(&attempt.nodejob)? {
        return Ok(node);
    }
    let (name, id) = (&attempt.node, &attempt.nodejob);
    let why =
        format!("node {name} is registered at another address than the one {id} was placed at");
    Err(Error::new(Kind::Unavailable, why))
}
