//! The routes by which tokens are made, listed and revoked, the same in every program. All need a
//! shell of the machine: over HTTP nobody can make themselves a token. But an admin may let a node join,
//! at a scheduler.

use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::auth::{self, Meant, certificate};
use crate::board::audit::{self, Of};
use crate::board::cards::Cards;
use crate::board::root::Root;
use crate::board::vault;
use crate::cgi::view::FORMAT;
use crate::cgi::{Call, Given, Key, Method, Response, Route, Special, words};
use crate::clock;
use crate::error::{Error, Result};
use crate::model::access::{self, Need, Role};
use crate::model::ids;

/// `tokens`.
pub const LIST: Route = Route {
    method: Method::Get,
    pattern: "tokens",
    need: Need::Shell,
    query: &[],
    body: false,
    help: "tokens, without their secrets",
    handler: list,
};

/// Longest name of a token. With its id beside it a node must still take it as the `by` of a kill.
const LONGEST_NAME: usize = 64;

/// The roles that tokens have, in words.
const ROLES: &str = "admin, user, provider, viewer, head, worker or join";

/// How long a node may join where nobody says.
const JOINS_WITHIN: Duration = Duration::from_secs(24 * 60 * 60);

/// `tokens/new`.
pub const NEW: Route = Route {
    method: Method::Post,
    pattern: "tokens/new",
    need: Need::Shell,
    query: &[
        Key::new("role", "ROLE", ROLES),
        Key::new("user", "USER", "whose it is: jobs are their users'; its name if absent"),
        Key::new("name", "NAME", "what it is called, for people"),
        Key::new("node", "NAME", "of worker and join: the node for which alone it acts"),
        Key::new("scope", "all|read", "read: it only looks, whatever its role; all if absent"),
        Key::new("expires", "WHEN", "a time, or e.g. 90d; never if absent, of join 1d"),
        Key::new("certificate", "FILE", "the client certificate that is to do what a token does"),
    ],
    body: false,
    help: "make a token; it is shown this once. Or make a client certificate known",
    handler: new,
};

/// `tokens/new` of a scheduler, where admins let nodes join.
pub const NEW_OR_JOIN: Route = Route { need: Need::Admin, ..NEW };

/// `tokens/ID/remove`.
pub const REMOVE: Route = Route {
    method: Method::Post,
    pattern: "tokens/:id/remove",
    need: Need::Shell,
    query: &[],
    body: false,
    help: "revoke a token",
    handler: remove,
};

/// `tokens ls`.
pub const LS: Special = Special {
    query: &[FORMAT],
    ..Special::plain("tokens/ls", "the same as tokens", |given| {
        let format = given.query.iter().map(|(key, value)| format!("{key}={value}"));
        let words: Vec<String> = ["tokens".to_string()].into_iter().chain(format).collect();
        words::again(given.program, &words)
    })
};

/// `tokens rm ID`.
pub const RM_ID: Special =
    Special::plain("tokens/rm/:id", "the same as tokens ID remove", |given| {
        revoke(given, &given.values)
    });

/// `tokens rm id=ID`.
pub const RM: Special = Special {
    usage: "id=ID",
    query: &[Key::new("id", "ID", "the token's id")],
    ..Special::plain("tokens/rm", "the same as tokens ID remove", |given| {
        let ids: Vec<String> = given.query.iter().map(|(_, id)| id.clone()).collect();
        revoke(given, &ids)
    })
};

fn revoke(given: &Given, ids: &[String]) -> anyhow::Result<i32> {
    match ids {
        // What is no id might be an option there.
        [id] if !ids::is_valid(id) => Err(Error::bad(format!("{id:?} is no token's id")).into()),
        [id] => words::again(given.program, &["tokens".into(), id.clone(), "remove".into()]),
        _ => Err(Error::bad("one token is needed: tokens rm ID; tokens lists them").into()),
    }
}

fn list(call: &Call) -> Result<Response> {
    let (records, unreadable) = vault::tokens(call.root)?;
    let mut shown: Vec<_> = records
        .into_iter()
        .map(|record| {
            json!({
                "id": record.id,
                "kind": if record.certificate.is_some() { "certificate" } else { "token" },
                "role": record.role,
                "user": record.user(),
                "node": record.node,
                "scope": if record.read_only { "read" } else { "all" },
                "name": record.name,
                "certificate": record.certificate,
                "created_at": record.created_at,
                "expires_at": record.expires_at,
                "used_at": record.used_at,
                "last_used_at": vault::last_use(call.root, &record.id).map(clock::rfc3339),
                "expired": auth::is_expired(&record),
            })
        })
        .collect();
    shown.extend(
        unreadable.into_iter().map(|(id, error)| json!({"id": id, "error": error.message})),
    );
    Ok(Response::of(json!({"tokens": shown, "refused": refused(call.root)?})))
}

/// How often those were refused whom no token let in, and when last: as far as the audit goes back.
fn refused(root: &Root) -> Result<Value> {
    let (mut count, mut last) = (0, None);
    audit::each(root, Of::Strangers, |entry| {
        count += 1;
        last = Some(entry);
    })?;
    let last = last.map(|entry| json!({"at": entry.at, "from": entry.from, "by": entry.by}));
    Ok(json!({"count": count, "last": last}))
}

fn new(call: &Call) -> Result<Response> {
    let role = call.request.param("role").and_then(Role::parse);
    let role = role.ok_or_else(|| Error::bad(format!("role must be {ROLES}")))?;
    if role != Role::Join {
        auth::allow(call.who, Need::Shell)?;
    }
    let read_only = match call.request.param("scope") {
        Some("read") if role == Role::Join => {
            return Err(Error::bad("who only looks registers no node"));
        }
        None | Some("all") => false,
        Some("read") => true,
        Some(_) => return Err(Error::bad("scope must be all or read")),
    };
    let user = call.request.param("user");
    if user.is_some_and(|user| !access::is_user(user)) {
        return Err(Error::bad(
            "user must be 1 to 64 of A-Z a-z 0-9 . _ - beginning with a letter or digit, and not open",
        ));
    }
    let expires = call.request.param("expires").map(|text| {
        clock::parse_rfc3339(text)
            .or_else(|| SystemTime::now().checked_add(clock::parse_duration(text)?))
            .ok_or_else(|| Error::bad("expires must be a time or a duration such as 90d"))
    });
    let name = call.request.param("name");
    if name.is_some_and(|name| name.len() > LONGEST_NAME || name.chars().any(char::is_control)) {
        return Err(Error::bad(format!("name must be at most {LONGEST_NAME} bytes of plain text")));
    }
    let node = call.request.param("node");
    if node.is_some() && !matches!(role, Role::Worker | Role::Join) {
        return Err(Error::bad("node is for tokens of the roles worker and join"));
    }
    if node.is_some_and(|node| !ids::is_valid(node)) {
        return Err(Error::bad(
            "node must be a node's name: 1 to 64 of A-Z a-z 0-9 . _ - beginning with a letter or digit",
        ));
    }
    let meant = Meant { role, name, user, node, read_only };
    let in_a_day = || SystemTime::now().checked_add(JOINS_WITHIN).filter(|_| role == Role::Join);
    let expires = expires.transpose()?.or_else(in_a_day);
    let (record, token) = match call.request.param("certificate") {
        None => auth::new_token(&meant, expires).map(|(record, token)| (record, Some(token)))?,
        // Others than who is at a shell make tokens of that role alone, and have no files here.
        Some(_) if role == Role::Join => {
            return Err(Error::bad("a certificate is not for joining"));
        }
        Some(file) => (certificate::record(Path::new(file), &meant, expires)?, None),
    };
    vault::add_token(call.root, &record)?;
    let (what, shown) = match &token {
        Some(token) => ("token", Some(token)),
        None => ("certificate", record.certificate.as_ref()),
    };
    let answer = json!({
        "id": record.id,
        what: shown,
        "role": record.role,
        "user": record.user(),
        "node": record.node,
        "expires_at": record.expires_at,
    });
    Ok(Response::of(answer).status(201, "Created"))
}

fn remove(call: &Call) -> Result<Response> {
    let id = call.value(0);
    // A node that joins writes its token's record under this lock: it must not come back.
    let _lock = Cards::new(call.root).lock()?;
    if !vault::revoke(call.root, id)? {
        return Err(Error::not_found(format!("no token {id}")));
    }
    Ok(Response::of(json!({"removed": id})))
}
