//! What is registered of a node: which fields, what they may be, and who may set them.

use serde_json::{Map, Value};

use crate::auth::Who;
use crate::cgi::Call;
use crate::client::names::check_uri;
use crate::error::{Error, Kind, Result};
use crate::model::about::About;
use crate::model::access::{self, Need, Reach};
use crate::model::ids;
use crate::model::node::{DriverKind, Node, NodeState};
use crate::model::selector::Labels;

/// Fields that a registration may have; the others of a record are the poller's.
const FIELDS: &[&str] = &[
    "name",
    "owner",
    "driver",
    "uri",
    "ca",
    "cert",
    "key",
    "ipv4",
    "hostname",
    "resources",
    "drain",
    "pause",
    "token",
];

/// Those of them that are an admin's to set: they are about this machine, or about other users.
const FOR_ADMINS: &[&str] = &["owner", "ca", "cert", "key"];

/// Words that paths have where the name of a node may stand.
const RESERVED: &[&str] = &["list", "jobs", "job", "new", "join"];

/// Whether what was given up there is to be forgotten: nobody asks that machine any more.
pub fn take_given_up(fields: &mut Map<String, Value>) -> Result<bool> {
    match fields.shift_remove("given_up") {
        None => Ok(false),
        Some(Value::Null) => Ok(true),
        Some(_) => Err(Error::bad("given_up can only be taken away, with null")),
    }
}

/// What a request says of a node. 400 for what a node has not got; 403 for what whoever asks may not say.
pub fn fields(call: &Call) -> Result<Map<String, Value>> {
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
    if is_limited(call.who) {
        let local =
            fields.get("driver").is_some_and(|driver| *driver == "local").then_some("driver");
        let set = FOR_ADMINS.iter().copied().find(|field| fields.contains_key(*field));
        if let Some(field) = set.or(local) {
            let why = format!("{} may not do that: {field} is set by admins", call.who.name);
            return Err(Error::new(Kind::Forbidden, why));
        }
    }
    Ok(fields)
}

/// Whether somebody changes nodes of theirs alone.
pub fn is_limited(who: &Who) -> bool {
    who.reach(Need::Nodes) != Reach::All
}

/// Refuses what no new node may be called.
pub fn check_name(name: &str) -> Result<()> {
    if !ids::is_valid(name) {
        return Err(Error::bad(
            "a node needs a name: 1 to 64 of A-Z a-z 0-9 . _ - beginning with a letter or digit",
        ));
    }
    if RESERVED.contains(&name) {
        let why = format!("a node cannot be called {name}: that is a word of the paths");
        return Err(Error::bad(why));
    }
    Ok(())
}

/// The token to present to the node: kept apart, never in its record.
pub fn take_token(fields: &mut Map<String, Value>) -> Result<Option<Option<String>>> {
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

/// Whether this names the root of a worker.
fn is_workers(uri: &str) -> bool {
    uri.strip_prefix("worker:").is_some_and(ids::is_valid)
}

/// A node that may be as it is registered.
pub fn checked(value: Value) -> Result<Node> {
    let mut node: Node = serde_json::from_value(value)
        .map_err(|e| Error::bad(format!("the node has a wrong value: {e}")))?;
    match (node.driver, &node.uri) {
        (DriverKind::Http, Some(uri)) => check_uri(uri)?,
        (DriverKind::Http, None) => {
            return Err(Error::bad("an http node needs a uri such as http://node01.example:8080"));
        }
        (DriverKind::Worker, Some(uri)) if is_workers(uri) => {}
        (DriverKind::Worker, _) => {
            return Err(Error::bad("a worker's uri is worker:ID, which its program says"));
        }
        (DriverKind::Local, Some(_)) => return Err(Error::bad("a local node has no uri")),
        (DriverKind::Local, None) => {}
    }
    if node.owner.as_deref().is_some_and(|name| !access::may_be_owner(name)) {
        return Err(Error::bad(format!(
            "owner must be a user's name, of at most {} bytes, or null",
            access::LONGEST_OWNER
        )));
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
    super::pausing::check(node.pause.as_deref())?;
    node.fixed = node.resources.is_some();
    Ok(node)
}

/// The part of a record that was registered, not observed.
pub fn registered(node: &Node) -> Map<String, Value> {
    let bare = Node {
        resources: node.resources.clone().filter(|_| node.fixed),
        labels: Labels::new(),
        about: About::default(),
        live: None,
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
