//! The routes by which tokens are made, listed and revoked, the same in every program. All need a
//! shell of the machine: over HTTP nobody can make themselves a token.

use std::time::SystemTime;

use serde_json::json;

use crate::auth;
use crate::board::vault::{self, Role};
use crate::cgi::{Call, Method, Need, Response, Route};
use crate::clock;
use crate::error::{Error, Result};

/// `tokens`.
pub const LIST: Route = Route {
    method: Method::Get,
    pattern: "tokens",
    need: Need::Shell,
    query: &[],
    body: false,
    help: "tokens, without their secrets (also: tokens ls)",
    handler: list,
};

/// Longest name of a token. With its id beside it a node must still take it as the `by` of a kill.
const LONGEST_NAME: usize = 64;

/// `tokens/new`.
pub const NEW: Route = Route {
    method: Method::Post,
    pattern: "tokens/new",
    need: Need::Shell,
    query: &["role", "name", "expires"],
    body: false,
    help: "make a token: role=admin|user|head|worker, expires= a time or a duration; shown once",
    handler: new,
};

/// `tokens/ID/remove`.
pub const REMOVE: Route = Route {
    method: Method::Post,
    pattern: "tokens/:id/remove",
    need: Need::Shell,
    query: &[],
    body: false,
    help: "revoke a token (also: tokens rm id=ID)",
    handler: remove,
};

/// `tokens ls` and `tokens rm id=ID` as the words of the routes.
pub fn words(args: &[String]) -> Option<Vec<String>> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["tokens", "ls", rest @ ..] => {
            Some(["tokens"].iter().chain(rest).map(|w| (*w).to_string()).collect())
        }
        ["tokens", "rm", id] => {
            let id = id.strip_prefix("id=").unwrap_or(id);
            Some(vec!["tokens".into(), id.into(), "remove".into()])
        }
        _ => None,
    }
}

fn list(call: &Call) -> Result<Response> {
    let (records, unreadable) = vault::tokens(call.root)?;
    let mut shown: Vec<_> = records
        .into_iter()
        .map(|record| {
            json!({
                "id": record.id,
                "role": record.role,
                "name": record.name,
                "created_at": record.created_at,
                "expires_at": record.expires_at,
                "expired": auth::is_expired(&record),
            })
        })
        .collect();
    shown.extend(
        unreadable.into_iter().map(|(id, error)| json!({"id": id, "error": error.message})),
    );
    Response::json(&json!({"tokens": shown}))
}

fn new(call: &Call) -> Result<Response> {
    let role: Role = match call.request.param("role") {
        Some("admin") => Role::Admin,
        Some("user") => Role::User,
        Some("head") => Role::Head,
        Some("worker") => Role::Worker,
        _ => return Err(Error::bad("role must be admin, user, head or worker")),
    };
    let expires = call.request.param("expires").map(|text| {
        clock::parse_rfc3339(text)
            .or_else(|| SystemTime::now().checked_add(clock::parse_duration(text)?))
            .ok_or_else(|| Error::bad("expires must be a time or a duration such as 90d"))
    });
    let name = call.request.param("name");
    if name.is_some_and(|name| name.len() > LONGEST_NAME || name.chars().any(char::is_control)) {
        return Err(Error::bad(format!("name must be at most {LONGEST_NAME} bytes of plain text")));
    }
    let (record, token) = auth::new_token(role, name, expires.transpose()?)?;
    vault::add_token(call.root, &record)?;
    let answer = json!({
        "id": record.id,
        "token": token,
        "role": record.role,
        "expires_at": record.expires_at,
    });
    Ok(Response::json(&answer)?.status(201, "Created").brief(token))
}

fn remove(call: &Call) -> Result<Response> {
    let id = call.value(0);
    if !vault::remove_token(call.root, id)? {
        return Err(Error::not_found(format!("no token {id}")));
    }
    Response::json(&json!({"removed": id}))
}
