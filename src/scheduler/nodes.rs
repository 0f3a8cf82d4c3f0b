//! Registering nodes, and listing them.

use serde_json::{Map, Value, json};

use super::access;
use crate::auth;
use crate::board::cards::Cards;
use crate::board::lock::Lock;
use crate::board::nodes::{Damaged, Recorded};
use crate::board::root::Root;
use crate::board::runs::Runs;
use crate::board::{addresses, nodes, vault};
use crate::cgi::{Call, Response};
use crate::client::names::check_uri;
use crate::error::{Error, Result};
use crate::model::access::{Need, Whose};
use crate::model::card::{Attempt, Column};
use crate::model::ids::{self, NodejobId};
use crate::model::node::{Address, DriverKind, Node, NodeState};

/// Fields that a registration may have; the others of a record are the poller's.
const FIELDS: &[&str] = &[
    "name",
    "driver",
    "uri",
    "ca",
    "cert",
    "key",
    "ipv4",
    "hostname",
    "resources",
    "drain",
    "token",
];

/// Words that paths have where the name of a node may stand.
const RESERVED: &[&str] = &["list", "jobs", "job", "new"];

/// `GET nodes/list`; with `?job=N` only nodes that are large enough for it.
pub fn list(call: &Call) -> Result<Response> {
    let all = match call.request.param("job") {
        None => nodes::shown(call.root)?,
        Some(text) => {
            let job =
                ids::parse_number(text).ok_or_else(|| Error::bad("job must be a job's number"))?;
            let cards = Cards::new(call.root);
            let card = cards.find(job)?;
            if !access::sees(call, &cards, &card)? {
                auth::allow_to(call.who, Need::Read, Whose::Others)?; // they tell what it asks for
            }
            let asked = card.spec.resources;
            let mut all = nodes::list(call.root)?;
            all.retain(|node| !node.drain && node.resources.is_some_and(|has| asked.fits(&has)));
            all.iter().map(Node::shown).collect()
        }
    };
    Ok(Response::of(json!({ "nodes": all })))
}

/// `GET nodes/NAME`.
pub fn show(call: &Call) -> Result<Response> {
    Ok(Response::of(nodes::read(call.root, call.value(0))?.shown()))
}

/// `POST nodes/new`: registers a node. The same registration again changes nothing but the token
/// that is presented there, if one is given.
pub fn new(call: &Call) -> Result<Response> {
    let mut fields = fields(call)?;
    take_given_up(&mut fields)?; // a new one owes nothing
    let token = take_token(&mut fields)?;
    let mut node = checked(Value::Object(fields))?;
    if !ids::is_valid(&node.name) {
        return Err(Error::bad(
            "a node needs a name: 1 to 64 of A-Z a-z 0-9 . _ - beginning with a letter or digit",
        ));
    }
    if RESERVED.contains(&node.name.as_str()) {
        return Err(Error::bad(format!(
            "a node cannot be called {}: that is a word of the paths",
            node.name
        )));
    }
    // From the look to the write: two who register at once must not both find the name free.
    let lock = Cards::new(call.root).lock()?;
    let existing = nodes::find(call.root, &node.name)?;
    existing.as_ref().map_or(Ok(()), Node::for_use)?;
    let given = |node: &Node| registered(node) != registered(&Node::localhost());
    if let Some(old) = existing.as_ref().filter(|old| !given(old)) {
        check_idle(call.root, &old.name, Some(&old.address()), &old.given_up, Some(&node))?;
        node.given_up.clone_from(&old.given_up);
    }
    if let Some(old) = existing.filter(|old| given(old)) {
        if registered(&old) == registered(&node) {
            if let Some(token) = token {
                vault::set_node_token(call.root, &old.name, token.as_deref())?;
            }
            return Ok(Response::of(old));
        }
        return Err(Error::conflict(format!(
            "node {} is registered already: change it with nodes/{}/update",
            node.name, node.name
        )));
    }
    // One that a removal left behind which was cut off was not for this machine.
    save(call.root, &lock, &node, Some(token.flatten()))?;
    let path = format!("nodes/{}", node.name);
    Ok(Response::of(node).status(201, "Created").location(super::PROGRAM.name, &path))
}

/// `POST nodes/NAME/update`: changes the fields that are given; null takes one away.
pub fn update(call: &Call) -> Result<Response> {
    let mut fields = match call.request.param("drain") {
        None => fields(call)?, // before the lock: a body may come slowly
        Some(_) if call.request.body.is_none() => Map::new(),
        Some(_) => return Err(Error::bad("give drain= or a body, not both")),
    };
    if call.request.param("drain").is_some() {
        fields.insert("drain".into(), call.request.switch("drain")?.into());
    }
    let forget = take_given_up(&mut fields)?;
    // Before the record is read: what the poller or another admin writes must not be lost.
    let lock = Cards::new(call.root).lock()?;
    let name = call.value(0);
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
    let given_up = if forget { &[] } else { &*old.given_up };
    check_idle(call.root, name, Some(&old.address()), given_up, Some(&node))?;
    node.given_up = given_up.to_vec();
    if node.address() == old.address() {
        // What the poller knows of it still holds.
        let resources = if node.fixed || old.fixed { node.resources } else { old.resources };
        node = Node {
            resources,
            state: old.state,
            since: old.since,
            reason: old.reason,
            last_seen: old.last_seen,
            proves: old.proves,
            silence: old.silence,
            ..node
        };
    }
    save(call.root, &lock, &node, token)?;
    Ok(Response::of(node))
}

/// Writes a record anew in place of a damaged one: what is given is all of it, but for the token. Jobs
/// of the node are where their cards say; the registration has to lead there. What was given up there
/// is remembered as far as it can still be made out.
fn rewrite(
    root: &Root,
    lock: &Lock,
    name: &str,
    (mut fields, token, forget): (Map<String, Value>, Option<Option<String>>, bool),
    damaged: &Damaged,
) -> Result<Response> {
    fields.retain(|_, value| !value.is_null());
    fields.insert("name".into(), name.into());
    let whole = checked(Value::Object(fields))
        .map_err(|e| Error::new(e.kind, format!("{}: {}", damaged.why, e.message)))?;
    let given_up = if forget { Vec::new() } else { given_up_in(root, name, damaged)? };
    let proves = damaged.must_prove(&whole).then_some(true);
    let node = Node { given_up, proves, ..whole };
    check_idle(root, name, None, &node.given_up, Some(&node))?;
    save(root, lock, &node, token)?;
    Ok(Response::of(node))
}

/// What a damaged record still names of attempts that this node was given.
fn given_up_in(root: &Root, name: &str, damaged: &Damaged) -> Result<Vec<NodejobId>> {
    let mut found = Vec::new();
    for id in damaged.attempts() {
        if attempt_of(root, &id)?.is_some_and(|attempt| attempt.node == name) {
            found.push(id);
        }
    }
    Ok(found)
}

/// The attempt of this id, if its job's card is on the board. For who holds the board's lock.
fn attempt_of(root: &Root, id: &NodejobId) -> Result<Option<Attempt>> {
    for column in [Column::Done, Column::Running, Column::Queue] {
        if let Some(card) = Cards::new(root).read_in(column, id.job)? {
            return Ok(card.attempts.into_iter().find(|attempt| attempt.nodejob == *id));
        }
    }
    Ok(None)
}

/// `POST nodes/NAME/remove`: not while it has jobs.
pub fn remove(call: &Call) -> Result<Response> {
    let (root, name) = (call.root, call.value(0));
    let lock = Cards::new(root).lock()?;
    let (address, given_up, shown) = match nodes::look(root, name)? {
        Recorded::Known(node) => (Some(node.address()), node.given_up.clone(), json!(node)),
        Recorded::Absent => return Err(nodes::none(name)),
        Recorded::Damaged(damaged) => {
            let shown = json!({"name": name, "reason": damaged.why.message});
            (None, given_up_in(root, name, &damaged)?, shown)
        }
    };
    check_idle(root, name, address.as_ref(), &given_up, None)?;
    nodes::remove(root, &lock, name)?;
    vault::set_node_token(root, name, None)?;
    Ok(Response::of(shown))
}

/// Refuses with 409 to take a node from its address, to another or to none, while it has jobs, or
/// attempts that were given up: they are where their cards say, and nobody else may be asked about
/// them. What this very root has can be asked about wherever its server listens. Of a card that cannot
/// be read, or is a newer program's, nobody knows where it is: it may be there. `from` is `None` where
/// it is not known what the address was.
///
/// Reads every running card, 20 µs or so each, under the board's lock, under which jobs are placed,
/// too: none can come to it in between, and an address is changed seldom.
fn check_idle(
    root: &Root,
    name: &str,
    from: Option<&Address>,
    given_up: &[NodejobId],
    new: Option<&Node>,
) -> Result<()> {
    let to = new.map(Node::address);
    if to.is_some() && to.as_ref() == from {
        return Ok(());
    }
    let stays_here = new.map_or(Ok(false), |new| addresses::is_this_root(root, new))?;
    let runs = Runs::new(root);
    let hinders = |id: &NodejobId| !(stays_here && runs.is_here(id).is_ok_and(|here| here));
    let is_left = |address: Address| {
        from.is_none_or(|from| address == *from) && to.as_ref() != Some(&address)
    };
    let cards = Cards::new(root);
    let mut jobs = Vec::new();
    let mut unknown = Vec::new();
    for job in cards.numbers(Column::Running)? {
        let is_there = |a: &Attempt| a.node == *name && is_left(a.address()) && hinders(&a.nodejob);
        match cards.whole_in(Column::Running, job) {
            Ok(Some(card)) if card.with_nodes().any(is_there) => jobs.push(job),
            Ok(card) => unknown.extend(card.and_then(|c| Some((job, c.newer_reason()?)))),
            Err(error) => unknown.push((job, error.message)),
        }
    }
    let refuse = |what: String| Err(Error::conflict(format!("node {name} {what}")));
    if let Some(first) = jobs.iter().min() {
        let count = match jobs.len() {
            1 => format!("job {first}"),
            more => format!("{more} jobs, the first is job {first}"),
        };
        return refuse(format!(
            "has {count}: drain it with nodes/{name}/update and {{\"drain\": true}}, and wait until they have ended; or register the other address under another name"
        ));
    }
    if let Some((job, why)) = unknown.first() {
        return refuse(format!(
            "may have job {job}, of which nobody can tell where it is: {why}; see `scheduler check`"
        ));
    }
    let mut count = 0;
    for id in given_up.iter().filter(|id| hinders(id)) {
        // Where the address was is known, or the attempt's card says it.
        let left = from.is_some() || attempt_of(root, id)?.is_some_and(|a| is_left(a.address()));
        count += usize::from(left);
    }
    match count {
        0 => Ok(()),
        count => refuse(format!(
            "may still run {count} attempts that were given up, and is told to kill them when it answers; if that machine is gone for good: nodes/{name}/update with {{\"given_up\": null}}"
        )),
    }
}

/// Whether what was given up there is to be forgotten: nobody asks that machine any more.
fn take_given_up(fields: &mut Map<String, Value>) -> Result<bool> {
    match fields.shift_remove("given_up") {
        None => Ok(false),
        Some(Value::Null) => Ok(true),
        Some(_) => Err(Error::bad("given_up can only be taken away, with null")),
    }
}

fn fields(call: &Call) -> Result<Map<String, Value>> {
    let Value::Object(fields) = call.request.body.json(call.root)? else {
        return Err(Error::bad("a node must be a JSON object"));
    };
    let known = |key: &str| FIELDS.contains(&key) || key == "given_up" && fields[key].is_null();
    if let Some(unknown) = fields.keys().find(|key| !known(key)) {
        return Err(Error::bad(format!(
            "unknown field {unknown:?} of a node; known are {}",
            FIELDS.join(", ")
        )));
    }
    Ok(fields)
}

/// The token to present to the node: kept apart, never in its record.
fn take_token(fields: &mut Map<String, Value>) -> Result<Option<Option<String>>> {
    match fields.shift_remove("token") {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(None)),
        Some(Value::String(token))
            if !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()) =>
        {
            Ok(Some(Some(token)))
        }
        Some(_) => Err(Error::bad("token must be printable text without blanks, or null")),
    }
}

fn checked(value: Value) -> Result<Node> {
    let mut node: Node = serde_json::from_value(value)
        .map_err(|e| Error::bad(format!("the node has a wrong value: {e}")))?;
    match (node.driver, &node.uri) {
        (DriverKind::Http, Some(uri)) => check_uri(uri)?,
        (DriverKind::Http, None) => {
            return Err(Error::bad("an http node needs a uri such as http://node01.example:8080"));
        }
        (DriverKind::Local, Some(_)) => return Err(Error::bad("a local node has no uri")),
        (DriverKind::Local, None) => {}
    }
    let files = [
        ("ca", &node.ca, "certificates"),
        ("cert", &node.cert, "a certificate"),
        ("key", &node.key, "a key"),
    ];
    for (field, file, what) in files {
        let Some(file) = file else { continue };
        if !node.uri.as_deref().is_some_and(|uri| uri.starts_with("https://")) {
            return Err(Error::bad(format!("{field} is for nodes whose uri begins with https://")));
        }
        if !file.starts_with('/') {
            let why = format!("{field} must be the absolute path of a file of {what} here");
            return Err(Error::bad(why));
        }
    }
    if node.key.is_some() && node.cert.is_none() {
        return Err(Error::bad("key is for a certificate: name that in cert, too"));
    }
    node.fixed = node.resources.is_some();
    Ok(node)
}

/// The part of a record that was registered, not observed.
fn registered(node: &Node) -> Map<String, Value> {
    let bare = Node {
        resources: node.resources.filter(|_| node.fixed),
        fixed: false,
        state: NodeState::Unknown,
        since: None,
        reason: None,
        last_seen: None,
        proves: None,
        silence: None,
        given_up: Vec::new(),
        ..node.clone()
    };
    let mut map = match serde_json::to_value(bare) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    map.shift_remove("state");
    map
}

fn save(root: &Root, lock: &Lock, node: &Node, token: Option<Option<String>>) -> Result<()> {
    if let Some(token) = token {
        vault::set_node_token(root, &node.name, token.as_deref())?;
    }
    nodes::write(root, lock, node)
}
