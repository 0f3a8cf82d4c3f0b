//! `GET workers`: the nodes that ask here for their orders.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::attempts::allocated::{Allocated, MOST};
use crate::board::{nodes, workers};
use crate::cgi::{Call, Response};
use crate::error::Result;
use crate::model::node::{DriverKind, Node};

/// See the module.
pub fn list(call: &Call) -> Result<Response> {
    let allocated = Allocated::read(call.root, MOST)?;
    let tasks = allocated.as_ref().map(Allocated::attempts_by_node);
    let all = nodes::list(call.root)?;
    let all = all.iter().filter(|node| node.newer.is_none() && node.driver == DriverKind::Worker);
    let shown: Result<Vec<Value>> = all.map(|node| shown(call, node, tasks.as_ref())).collect();
    Ok(Response::of(json!({ "workers": shown? })))
}

/// One of them. Whether it is connected is known without a poller.
fn shown(call: &Call, node: &Node, tasks: Option<&BTreeMap<&str, usize>>) -> Result<Value> {
    let place = workers::of(call.root, &node.name)?;
    let session = place.session()?;
    Ok(json!({
        "id": node.name,
        "address": session.as_ref().map(|session| &session.address),
        "state": if place.is_in_touch()? { "connected" } else { "disconnected" },
        "tasks": tasks.map(|tasks| tasks.get(node.name.as_str()).copied().unwrap_or(0)),
        "since": session.as_ref().map(|session| &session.since),
        "version": session.as_ref().map(|session| &session.version),
    }))
}
