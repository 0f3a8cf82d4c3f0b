//! Registering nodes, and listing them.

use serde_json::{Map, Value, json};

use super::idle::{check_idle, given_up_in};
use super::node_room::with_room;
use super::reason::Reasons;
use super::registration::{
    check_name, checked, fields, is_limited, registered, take_given_up, take_token,
};
use super::{access, explain};
use crate::attempts::allocated::{Allocated, MOST};
use crate::auth;
use crate::board::cards::Cards;
use crate::board::lock::Lock;
use crate::board::nodes::{Damaged, Recorded};
use crate::board::root::Root;
use crate::board::{nodes, vault, workers};
use crate::cgi::{Call, Response};
use crate::error::{Error, Kind, Result};
use crate::model::access::Need;
use crate::model::node::Node;

/// `GET nodes/list`: all, or those that could have a job.
pub fn list(call: &Call) -> Result<Response> {
    let reasons = Reasons::with(call.root, Allocated::read(call.root, MOST)?);
    let all = match explain::filter(call, &reasons)? {
        Some(fit) => fit,
        None => nodes::shown(call.root)?,
    };
    Ok(Response::of(json!({ "nodes": with_room(reasons.allocated(), all) })))
}

/// `GET nodes/NAME`.
pub fn show(call: &Call) -> Result<Response> {
    let shown = vec![nodes::read(call.root, call.value(0))?.shown()];
    let allocated = Allocated::read(call.root, MOST)?;
    Ok(Response::of(with_room(allocated.as_ref(), shown).pop().unwrap_or_default()))
}

/// `POST nodes/new`: registers a node. The same registration again changes nothing but the token
/// that is presented there, if one is given.
pub fn new(call: &Call) -> Result<Response> {
    let mut fields = fields(call)?;
    take_given_up(&mut fields)?; // a new one owes nothing
    let token = take_token(&mut fields)?;
    let mut node = checked(Value::Object(fields))?;
    check_name(&node.name)?;
    if is_limited(call.who) {
        node.owner = Some(call.who.user.clone().unwrap_or_default()); // who is limited is a user
    }
    // From the look to the write: two who register at once must not both find the name free.
    let lock = Cards::new(call.root).lock()?;
    let (node, fresh) = register(call.root, &lock, node, token, is_limited(call.who))?;
    let path = format!("nodes/{}", node.name);
    let response = Response::of(node);
    Ok(match fresh {
        true => response.status(201, "Created").location(super::PROGRAM.name, &path),
        false => response,
    })
}

/// Registers a node; as it is registered, and whether it was not before. 409 where another one has its
/// name: for whoever is limited to what is theirs so has the node that every root has.
pub fn register(
    root: &Root,
    lock: &Lock,
    mut node: Node,
    token: Option<Option<String>>,
    limited: bool,
) -> Result<(Node, bool)> {
    let existing = nodes::find(root, &node.name)?;
    existing.as_ref().map_or(Ok(()), Node::for_use)?;
    let given = |node: &Node| limited || registered(node) != registered(&Node::localhost());
    if let Some(old) = existing.as_ref().filter(|old| !given(old)) {
        check_idle(root, &old.name, Some(&old.address()), &old.given_up, Some(&node))?;
        node.given_up.clone_from(&old.given_up);
    }
    if let Some(old) = existing.filter(|old| given(old)) {
        if registered(&old) == registered(&node) {
            if let Some(token) = token {
                vault::set_node_token(root, &old.name, token.as_deref())?;
            }
            return Ok((old, false));
        }
        return Err(Error::conflict(format!(
            "node {} is registered already: change it with nodes/{}/update",
            node.name, node.name
        )));
    }
    // What a removal left behind which was cut off was not for this machine. There is nobody yet to be
    // asked with this token.
    workers::remove(root, &node.name)?;
    save(root, lock, &node, Some(token.flatten()), false)?;
    Ok((node, true))
}

/// `POST nodes/NAME/update`: changes the fields that are given; null takes one away.
pub fn update(call: &Call) -> Result<Response> {
    let duty = ["drain", "pause"].into_iter().find(|name| call.request.param(name).is_some());
    let mut fields = match duty {
        None => fields(call)?, // before the lock: a body may come slowly
        Some(_) if call.request.body.is_none() => Map::new(),
        Some(name) => return Err(Error::bad(format!("give {name}= or a body, not both"))),
    };
    if let Some(why) = call.request.param("pause") {
        let why = (!why.is_empty()).then_some(why);
        fields.insert("pause".into(), why.into());
    }
    if call.request.param("drain").is_some() {
        fields.insert("drain".into(), call.request.switch("drain")?.into());
    }
    let forget = take_given_up(&mut fields)?;
    // Before the record is read: what the poller or another admin writes must not be lost.
    let lock = Cards::new(call.root).lock()?;
    let name = call.value(0);
    check_own(call, name)?;
    if fields.get("name").is_some_and(|given| given.as_str() != Some(name)) {
        return Err(Error::bad("a node's name cannot be changed"));
    }
    let token = take_token(&mut fields)?;
    let old = match nodes::look(call.root, name)? {
        Recorded::Known(old) => *old,
        Recorded::Absent => return Err(nodes::none(name)),
        Recorded::Damaged(damaged) => {
            return rewrite(call.root, &lock, name, (fields, token, forget), &damaged);
        }
    };
    old.for_use()?;
    let mut merged = registered(&old);
    for (field, value) in fields {
        if value.is_null() {
            merged.remove(&field);
        } else {
            merged.insert(field, value);
        }
    }
    let mut node = checked(Value::Object(merged))?;
    let has_moved = node.address() != old.address();
    if is_limited(call.who)
        && has_moved
        && token.is_none()
        && vault::node_token(call.root, name)?.is_some()
    {
        // Whoever gave the token meant it for the machine that was there.
        return Err(Error::bad("give the token for the new uri, too; null for none"));
    }
    let given_up = if forget { &[] } else { &*old.given_up };
    check_idle(call.root, name, Some(&old.address()), given_up, Some(&node))?;
    node.given_up = given_up.to_vec();
    if !has_moved {
        // What the poller knows of it still holds.
        let resources = if node.fixed || old.fixed { node.resources } else { old.resources };
        node = Node {
            resources,
            labels: old.labels,
            about: old.about,
            live: old.live,
            state: old.state,
            since: old.since,
            reason: old.reason,
            last_seen: old.last_seen,
            proves: old.proves,
            silence: old.silence,
            ..node
        };
    }
    save(call.root, &lock, &node, token, has_moved)?;
    Ok(Response::of(node))
}

/// Refuses with 403 what is not theirs, for who holds the board's lock: it may have become another's since
/// that was asked.
fn check_own(call: &Call, name: &str) -> Result<()> {
    if is_limited(call.who) {
        auth::allow_to(call.who, Need::Nodes, access::whose_node(call, name)?)?;
    }
    Ok(())
}

/// Writes a record anew in place of a damaged one: what is given is all of it, but for the token. Jobs
/// of the node are where their cards say; the registration has to lead there. What was given up there
/// is remembered as far as it can still be made out, and so is whose it is: others' jobs are not to go
/// there for want of a word.
fn rewrite(
    root: &Root,
    lock: &Lock,
    name: &str,
    (mut fields, token, forget): (Map<String, Value>, Option<Option<String>>, bool),
    damaged: &Damaged,
) -> Result<Response> {
    if let (false, Some(owner)) = (fields.contains_key("owner"), damaged.owner()) {
        fields.insert("owner".into(), owner.into());
    }
    fields.retain(|_, value| !value.is_null());
    fields.insert("name".into(), name.into());
    let whole = checked(Value::Object(fields))
        .map_err(|e| Error::new(e.kind, format!("{}: {}", damaged.why, e.message)))?;
    let given_up = if forget { Vec::new() } else { given_up_in(root, name, damaged)? };
    let proves = damaged.must_prove(&whole).then_some(true);
    let node = Node { given_up, proves, ..whole };
    check_idle(root, name, None, &node.given_up, Some(&node))?;
    save(root, lock, &node, token, true)?;
    Ok(Response::of(node))
}

/// `POST nodes/NAME/remove`: not while it has jobs.
pub fn remove(call: &Call) -> Result<Response> {
    let (root, name) = (call.root, call.value(0));
    let lock = Cards::new(root).lock()?;
    check_own(call, name)?;
    let (address, given_up, shown) = match nodes::look(root, name)? {
        Recorded::Known(node) => (Some(node.address()), node.given_up.clone(), json!(node)),
        Recorded::Absent => return Err(nodes::none(name)),
        Recorded::Damaged(damaged) => {
            let shown = json!({"name": name, "reason": damaged.why.message});
            (None, given_up_in(root, name, &damaged)?, shown)
        }
    };
    check_idle(root, name, address.as_ref(), &given_up, None)?;
    vault::revoke_of_node(root, name)?; // first: another machine may be registered under this name then
    vault::set_node_token(root, name, None)?; // while the node is there: what was broken off is repeated
    workers::remove(root, name)?;
    nodes::remove(root, &lock, name)?;
    Ok(Response::of(shown))
}

/// Writes a record and, where one is given, the token that is presented to the node; `None` takes it away. Of a
/// node that `moves` the old token is gone before the new address is there, and that before the new token: none
/// is ever presented to an address that it is not for. A crash leaves a node without a token, at the one
/// address or the other, to which nothing is presented then: the same request does the rest.
fn save(
    root: &Root,
    lock: &Lock,
    node: &Node,
    token: Option<Option<String>>,
    moves: bool,
) -> Result<()> {
    if moves {
        workers::remove(root, &node.name)?; // its orders were to another root
    }
    let Some(token) = token else { return nodes::write(root, lock, node) };
    if !moves {
        vault::set_node_token(root, &node.name, token.as_deref())?;
        return nodes::write(root, lock, node);
    }
    let before = vault::node_token(root, &node.name).unwrap_or_default();
    vault::set_node_token(root, &node.name, None)?;
    if let Err(error) = nodes::write(root, lock, node) {
        if error.kind == Kind::Unavailable {
            // It has not moved: a full disk, perhaps.
            let _ = vault::set_node_token(root, &node.name, before.as_deref());
        }
        return Err(error);
    }
    token.map_or(Ok(()), |token| vault::set_node_token(root, &node.name, Some(&token)))
}
