//! `nodes/join`: a machine registers itself as a node, by a token that is for this alone, and is given the
//! token of a worker of that name.
//!
//! What is done under the board's lock, each step durable before the next one:
//!
//! 1. the join token is marked as used for this node, and expires in [`REPEATABLE`] at the latest;
//! 2. the node is registered, as by `nodes/new`;
//! 3. the worker's token is put in its place. Its id follows from the join token's.
//!
//! So a join token registers one node at most, whatever is cut off: after a crash it is unused, or is for
//! that node alone. A worker's token that is bound to a node says by the same route where that is now. Whoever got no answer repeats the same request with the same token: what is missing is
//! done then, and the worker's token is another one. Of those that were shown the last counts alone.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::idle::check_idle;
use super::nodes;
use super::registration::{check_name, checked, fields, registered, take_given_up, take_token};
use crate::auth::{self, Meant};
use crate::board::cards::Cards;
use crate::board::lock::Lock;
use crate::board::nodes as records;
use crate::board::root::Root;
use crate::board::vault::{self, TokenRecord};
use crate::board::workers;
use crate::cgi::{Call, Response};
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::model::access::Role;
use crate::model::node::{DriverKind, Node};

/// How long whoever got no answer may ask again.
pub const REPEATABLE: Duration = Duration::from_secs(10 * 60);

/// `POST nodes/join`.
pub fn join(call: &Call) -> Result<Response> {
    let Some(id) = &call.who.token else {
        return Err(Error::bad(
            "nodes/join is for who has a token of the role join: here nodes new registers a node, and tokens new role=worker node=NAME makes its token",
        ));
    };
    let mut fields = fields(call)?; // before the lock: a body may come slowly
    take_given_up(&mut fields)?;
    let token = take_token(&mut fields)?.flatten();
    let node = checked(Value::Object(fields))?;
    check_name(&node.name)?;
    let lock = Cards::new(call.root).lock()?;
    let record = vault::token(call.root, id)?.filter(|record| {
        matches!(record.role, Role::Join | Role::Worker) && !auth::is_expired(record)
    });
    let record = record.ok_or_else(|| {
        Error::new(Kind::Unauthorized, "the token has expired or been revoked by now")
    })?;
    if record.role == Role::Worker {
        return moved(call.root, &lock, &record, node, token);
    }
    let node = Node { owner: record.user.clone(), ..node };
    check(call.root, &record, &node, token.as_deref())?;
    if record.used_at.is_none() {
        vault::replace_token(call.root, &used(record.clone(), &node.name))?;
    }
    let (node, fresh) = nodes::register(call.root, &lock, node, Some(token), true)?;
    let (worker, shown) = worker(&record, &node.name)?;
    vault::replace_token(call.root, &worker)?;
    let path = format!("nodes/{}", node.name);
    let response = Response::of(json!({"node": node, "id": worker.id, "token": shown}));
    Ok(match fresh {
        true => response.status(201, "Created").location(super::PROGRAM.name, &path),
        false => response,
    })
}

/// A node says where it is now, by the token that it was given when it joined: its address, names and what is
/// presented there, and nothing else. 409 while it has jobs where it was.
fn moved(
    root: &Root,
    lock: &Lock,
    record: &TokenRecord,
    said: Node,
    token: Option<String>,
) -> Result<Response> {
    if record.node.as_deref() != Some(said.name.as_str()) {
        let why = format!("this token is not bound to node {}", said.name);
        return Err(Error::new(Kind::Forbidden, why));
    }
    let old = records::read(root, &said.name)?;
    old.for_use()?;
    let Node { driver, uri, ipv4, hostname, .. } = said;
    let mut node = Node { uri, ipv4, hostname, ..old.clone() };
    if node.driver == DriverKind::Local {
        return Err(Error::conflict(format!("node {} is this machine itself", node.name)));
    }
    if node.driver != driver {
        let why = format!("node {} is registered with another driver", node.name);
        return Err(Error::conflict(why));
    }
    if node.address() != old.address() {
        check_idle(root, &old.name, Some(&old.address()), &old.given_up, Some(&node))?;
        workers::remove(root, &old.name)?; // orders to another root
        // What the poller knew of it was of another place.
        let fresh = registered(&node);
        node = Node { given_up: old.given_up.clone(), ..checked(Value::Object(fresh))? };
    }
    if let Some(token) = token {
        vault::set_node_token(root, &node.name, Some(&token))?;
    }
    if node != old {
        records::write(root, lock, &node)?;
    }
    Ok(Response::of(json!({"node": node, "id": record.id})))
}

/// Refuses what this token does not register: another node than it is for, or one that is there, unless
/// it is what this token has registered.
fn check(root: &Root, record: &TokenRecord, node: &Node, token: Option<&str>) -> Result<()> {
    if let Some(only) = record.node.as_ref().filter(|only| **only != node.name) {
        let how = if record.used_at.is_some() { "was used" } else { "is" };
        let why = format!("this token {how} for node {only} alone");
        return Err(Error::new(Kind::Forbidden, why));
    }
    if records::find(root, &node.name)?.is_none() {
        return Ok(());
    }
    let same = || Ok(vault::node_token(root, &node.name)?.as_deref() == token);
    if record.used_at.is_none() || !same()? {
        return Err(Error::conflict(format!("node {} is registered already", node.name)));
    }
    Ok(())
}

/// A join token's record from its use on.
fn used(record: TokenRecord, node: &str) -> TokenRecord {
    let now = SystemTime::now();
    let over = now.checked_add(REPEATABLE);
    let given = record.expires_at.as_deref().and_then(clock::parse_rfc3339);
    let expires = [given, over].into_iter().flatten().min().unwrap_or(now);
    TokenRecord {
        node: Some(node.to_string()),
        used_at: Some(clock::rfc3339(now)),
        expires_at: Some(clock::rfc3339(expires)),
        ..record
    }
}

/// The token of a worker of this node.
fn worker(join: &TokenRecord, node: &str) -> Result<(TokenRecord, String)> {
    let meant =
        Meant { role: Role::Worker, name: None, user: None, node: Some(node), read_only: false };
    auth::token_as(vault::id_of_worker(&join.id), &meant, None)
}
