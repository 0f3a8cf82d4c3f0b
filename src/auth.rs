//! Who asks, and what they may do.
//!
//! Over HTTP: closed unless opened. A bearer token decides; without one a certificate that is known
//! here, and without that only open mode admits, and only what cannot come from elsewhere. As a
//! command: the rights of the user on the files,
//! which the kernel has checked already. The key of a running attempt speaks for its job both
//! ways, over HTTP as the bearer token, in a shell as `CORKBOARD_TOKEN`.

use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::board::cards::Cards;
use crate::board::files::random_hex;
use crate::board::numbers;
use crate::board::owners;
use crate::board::root::Root;
use crate::board::runs::Runs;
use crate::board::vault::{self, TokenRecord};
use crate::cgi::environment::var;
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::model::access::{self, Rights, Role};
use crate::model::ids::NodejobId;
use crate::model::proof::{KEY_PREFIX, KEY_VARIABLE};
use crate::model::run_status::RunState;
use crate::user;

pub mod certificate;
pub mod ownership;
mod place;
mod who;

use place::Place;
pub use who::{Who, allow, allow_to};

const TOKEN_PREFIX: &str = "cb_";

/// Most characters of a wrong Host in the log.
const LONGEST_HOST: usize = 200;

/// Who sent the request in the CGI environment.
pub fn from_cgi(root: &Root) -> Result<Who> {
    let host = var("HTTP_HOST").unwrap_or_default();
    if let Some(header) = var("HTTP_AUTHORIZATION") {
        if !is_admitted(root, &host)? {
            let why = "this server does not answer to that Host (setting allowed_hosts)";
            return Err(misdirected(&host, why));
        }
        if header.split_once(' ').is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("basic")) {
            refuse_other_sites(&host)?; // a browser that has it sends it for whatever page asks
        }
        return from_header(root, &header);
    }
    let shown = certificate::shown();
    if let Some(record) = shown.known(root)? {
        if !is_admitted(root, &host)? {
            let why = "this server does not answer to that Host (setting allowed_hosts)";
            return Err(misdirected(&host, why));
        }
        refuse_other_sites(&host)?; // a browser shows it for whatever page asks
        return Ok(holder(&record));
    }
    if vault::is_open(root)? {
        return open_mode(&host);
    }
    if !vault::has_tokens(root)? {
        return Err(Error::new(
            Kind::Forbidden,
            "closed: make a token with `scheduler tokens new role=admin` on this machine and send it as `Authorization: Bearer TOKEN`, or start with `scripts/up --open`",
        ));
    }
    Err(Error::new(Kind::Unauthorized, shown.advice()))
}

/// Whether this server answers to a Host: to loopback ones, to those of the setting, and to its own
/// address, under which its own head asks it.
fn is_admitted(root: &Root, host: &str) -> Result<bool> {
    let allowed = &root.settings.allowed_hosts;
    if allowed.is_empty() || allowed.iter().any(|known| known == "*") {
        return Ok(true);
    }
    let Some(host) = Place::parse(host) else { return Ok(false) };
    let admits = |known: &str| Place::parse(known).is_some_and(|known| host.is_admitted_by(&known));
    if host.is_loopback() || allowed.iter().any(|known| admits(known)) {
        return Ok(true);
    }
    let own = root.advertised()?;
    let place = own.as_deref().and_then(|url| url.split_once("://")?.1.split('/').next());
    Ok(place.is_some_and(admits))
}

/// 421, and in the server's log the Host that was seen: who set up the server has to know it.
fn misdirected(host: &str, why: &str) -> Error {
    let seen: String = host.chars().take(LONGEST_HOST).collect();
    eprintln!("corkboard: 421: Host {seen:?}: {why}");
    Error::new(Kind::Misdirected, why)
}

/// Who runs the command.
pub fn from_command(root: &Root) -> Result<Who> {
    if let Some(token) = var(KEY_VARIABLE).filter(|t| t.starts_with(KEY_PREFIX)) {
        match check_key(root, &token) {
            // The key of another root's attempt, or of one that has ended.
            Err(e) if e.kind == Kind::Unauthorized => {}
            known => return known,
        }
    }
    let name = user::own().map_or_else(|uid| format!("uid {uid}"), |user| user.name);
    Ok(Who::of_user(name, Rights::Shell, "shell"))
}

fn from_header(root: &Root, header: &str) -> Result<Who> {
    let refused = || {
        Error::new(
            Kind::Unauthorized,
            "the token is not known here, or has expired or been revoked",
        )
    };
    let (scheme, rest) = header.split_once(' ').unwrap_or((header, ""));
    let basic;
    let token = if scheme.eq_ignore_ascii_case("bearer") {
        rest.trim()
    } else if scheme.eq_ignore_ascii_case("basic") {
        basic = basic_user(rest.trim()).ok_or_else(refused)?;
        &basic
    } else {
        return Err(Error::new(
            Kind::Unauthorized,
            "send a token as `Authorization: Bearer TOKEN`",
        ));
    };
    if token.starts_with(KEY_PREFIX) {
        return match check_key(root, token) {
            Err(e) if e.kind == Kind::Unauthorized => check_run_key(root, token)?.ok_or(e),
            known => known,
        };
    }
    let (id, secret) = token
        .strip_prefix(TOKEN_PREFIX)
        .and_then(|rest| rest.split_once('_'))
        .ok_or_else(refused)?;
    let record = vault::token(root, id)?;
    let known = record.as_ref().map_or("", |record| record.hash.as_str());
    let equal: bool = hash(secret).as_bytes().ct_eq(known.as_bytes()).into();
    match record {
        Some(record) if equal && record.certificate.is_none() && !is_expired(&record) => {
            Ok(holder(&record))
        }
        _ => Err(refused()),
    }
}

/// Who has what a record is of.
fn holder(record: &TokenRecord) -> Who {
    let kind = if record.certificate.is_some() { "certificate" } else { "token" };
    Who {
        former: Some(match &record.name {
            Some(name) => format!("token {name} ({})", record.id),
            None => format!("token {}", record.id),
        }),
        read_only: record.read_only,
        may_be_head: match record.role {
            Role::Admin | Role::Head => true,
            Role::User => record.head.is_none(),
            Role::Provider | Role::Viewer | Role::Worker | Role::Join => false,
        },
        token: Some(record.id.clone()),
        node: record.node.clone(),
        ..Who::of_user(record.user(), Rights::Role(record.role), format!("{kind} {}", record.id))
    }
}

/// The token of this root, or the certificate, that a request which was refused had the id of. The id is
/// no secret.
pub fn claimed(root: &Root) -> Option<String> {
    let Some(header) = var("HTTP_AUTHORIZATION") else { return certificate::shown().claimed(root) };
    let (scheme, rest) = header.split_once(' ')?;
    let token = match scheme.eq_ignore_ascii_case("basic") {
        true => basic_user(rest.trim())?,
        false => rest.trim().to_string(),
    };
    let (id, _) = token.strip_prefix(TOKEN_PREFIX)?.split_once('_')?;
    vault::has_token(root, id).then(|| id.to_string())
}

/// The user name of HTTP Basic, which is the token where the server passes the header on (lighttpd
/// does, busybox does not). The password says nothing more.
fn basic_user(credentials: &str) -> Option<String> {
    let text = String::from_utf8(STANDARD.decode(credentials).ok()?).ok()?;
    text.split_once(':').map(|(user, _)| user.to_string())
}

/// Whether a token's time is over. One whose expiry cannot be read is over.
pub fn is_expired(record: &TokenRecord) -> bool {
    record.expires_at.as_deref().is_some_and(|text| {
        clock::parse_rfc3339(text).is_none_or(|expiry| SystemTime::now() >= expiry)
    })
}

/// Open mode: only a peer on this machine, who meant this machine, and no web page.
fn open_mode(host: &str) -> Result<Who> {
    let peer = var("REMOTE_ADDR").unwrap_or_default();
    if !place::is_loopback_peer(&peer) {
        return Err(Error::new(
            Kind::Forbidden,
            "open mode admits only this machine: from elsewhere send a token as `Authorization: Bearer TOKEN`",
        ));
    }
    if place::is_forwarded() {
        return Err(Error::new(
            Kind::Forbidden,
            "open mode admits nobody through a proxy: send a token as `Authorization: Bearer TOKEN`",
        ));
    }
    if !Place::parse(host).is_some_and(|place| place.is_loopback()) {
        let why = "open mode answers only to a loopback Host such as localhost or 127.0.0.1";
        return Err(misdirected(host, why));
    }
    refuse_other_sites(host)?;
    Ok(Who::of_user(access::OPEN.into(), Rights::Role(Role::Admin), "open"))
}

/// Refuses with 403 what a page of another web site has a browser send.
fn refuse_other_sites(host: &str) -> Result<()> {
    let own_origin = |origin: String| {
        origin.eq_ignore_ascii_case(&format!("http://{host}"))
            || origin.eq_ignore_ascii_case(&format!("https://{host}"))
    };
    let foreign = var("HTTP_ORIGIN").is_some_and(|origin| !own_origin(origin))
        || var("HTTP_SEC_FETCH_SITE").is_some_and(|site| site != "none" && site != "same-origin");
    if foreign {
        return Err(Error::new(
            Kind::Forbidden,
            "a page of another web site may not use this server",
        ));
    }
    Ok(())
}

/// What a token, or a certificate, is to be.
#[derive(Debug)]
pub struct Meant<'a> {
    /// What its holder may do.
    pub role: Role,
    /// For people.
    pub name: Option<&'a str>,
    /// Whose it is; whoever the name names if absent.
    pub user: Option<&'a str>,
    /// The node for which alone it acts.
    pub node: Option<&'a str>,
    /// Whether it only looks.
    pub read_only: bool,
}

/// A new token: its record to store, and the token itself, to be shown once.
pub fn new_token(meant: &Meant, expires: Option<SystemTime>) -> Result<(TokenRecord, String)> {
    token_as(random_hex::<4>()?, meant, expires)
}

/// The same with an id that is given: it is to take the place of another one.
pub fn token_as(
    id: String,
    meant: &Meant,
    expires: Option<SystemTime>,
) -> Result<(TokenRecord, String)> {
    let secret = random_hex::<32>()?;
    let record = TokenRecord { hash: hash(&secret), ..record_of(id.clone(), meant, expires) };
    Ok((record, format!("{TOKEN_PREFIX}{id}_{secret}")))
}

/// The record of nothing yet.
fn record_of(id: String, meant: &Meant, expires: Option<SystemTime>) -> TokenRecord {
    let &Meant { role, name, user, node, read_only } = meant;
    TokenRecord {
        id,
        role,
        hash: String::new(),
        certificate: None,
        head: (role == Role::User).then_some(false),
        name: name.map(str::to_string),
        user: user.map(str::to_string),
        node: node.map(str::to_string),
        read_only,
        used_at: None,
        created_at: clock::now(),
        expires_at: expires.map(clock::rfc3339),
    }
}

fn hash(secret: &str) -> String {
    base16ct::lower::encode_string(&Sha256::digest(secret.as_bytes()))
}

/// The key of an attempt: an HMAC of its id under the board's secret, so that nothing has to be
/// stored, and a repeated request to the node carries the same.
pub fn attempt_key(secret: &[u8], attempt: &NodejobId) -> Result<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret)
        .map_err(|e| Error::new(Kind::Internal, format!("the secret cannot be used: {e}")))?;
    mac.update(attempt.to_string().as_bytes());
    Ok(format!(
        "{KEY_PREFIX}{attempt}_{}",
        base16ct::lower::encode_string(&mac.finalize().into_bytes())
    ))
}

/// Whose key this is. It counts while that attempt is the one that a node has. Makes nothing.
fn check_key(root: &Root, key: &str) -> Result<Who> {
    let refused =
        || Error::new(Kind::Unauthorized, "the key belongs to no attempt that is running here");
    let attempt = id_in(key).and_then(NodejobId::parse).ok_or_else(refused)?;
    if numbers::known_cluster(root)?.as_deref() != Some(attempt.cluster()) {
        return Err(refused());
    }
    let secret = vault::known_attempt_secret(root)?.ok_or_else(refused)?;
    let equal: bool = attempt_key(&secret, &attempt)?.as_bytes().ct_eq(key.as_bytes()).into();
    if !equal {
        return Err(refused());
    }
    let cards = Cards::new(root);
    let card = match cards.find(attempt.job) {
        Ok(card) if card.is_current(&attempt) => card,
        Ok(_) => return Err(refused()),
        Err(e) if matches!(e.kind, Kind::NotFound | Kind::Gone) => return Err(refused()),
        Err(e) => return Err(e),
    };
    let (name, rights) = (format!("job {}", attempt.job), Rights::Job(attempt.job));
    Ok(Who::of_run(name, owners::of(&cards, &card)?, rights, attempt.to_string()))
}

/// Who has the key of a run that another root's head has sent here. It counts while that run has not
/// ended.
fn check_run_key(root: &Root, key: &str) -> Result<Option<Who>> {
    let (Some(id), own) = (id_in(key), numbers::known_cluster(root)?) else { return Ok(None) };
    if NodejobId::parse(id).is_none_or(|id| Some(id.cluster()) == own.as_deref()) {
        return Ok(None); // of this root's own attempts its cards decide
    }
    let runs = Runs::new(root);
    let request = match runs.request(id) {
        Err(e) if matches!(e.kind, Kind::NotFound | Kind::Gone) => return Ok(None),
        request => request?,
    };
    let its = request.pointer("/environment").and_then(|all| all.get(KEY_VARIABLE));
    let its = its.and_then(Value::as_str).unwrap_or_default();
    let equal: bool = its.as_bytes().ct_eq(key.as_bytes()).into();
    if !equal || runs.last_line(id)?.is_some_and(|line| line.state == RunState::Stopped) {
        return Ok(None);
    }
    Ok(Some(Who::of_run(format!("run {id}"), None, Rights::Run, id.to_string())))
}

/// The id of the attempt whose key this is.
fn id_in(key: &str) -> Option<&str> {
    Some(key.strip_prefix(KEY_PREFIX)?.rsplit_once('_')?.0)
}
