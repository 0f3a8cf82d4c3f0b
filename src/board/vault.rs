//! What lies in `state/` for the owner alone: the mark of open mode, token records, secrets.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::files;
use super::numbers;
use super::root::Root;
use crate::clock;
use crate::error::{At, Error, Kind, Result};
use crate::model::access::{self, Role};
use crate::model::ids;

/// In seconds: that is how exactly a token's last use is known.
const MINUTE: u64 = 60;

/// A token as stored: never the token itself.
///
/// One with a field that is not known is no token here: it may say what its holder must not do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRecord {
    /// Its id, the public part of the token; also the file's name.
    pub id: String,
    /// What its holder may do.
    pub role: Role,
    /// SHA-256 of the secret part, in hexadecimal. The secret has 256 random bits, so a fast hash
    /// is enough. Empty for a certificate, which has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hash: String,
    /// SHA-256 of the client certificate that stands for a token, in hexadecimal; its id is the
    /// first half of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// False for a user's token: it is no head's. Those of 0.1, where heads had the role user, say
    /// nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<bool>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whose it is. Where it is not said, whoever its name names: see
    /// [`crate::model::access::user_of_token`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The node for which alone its holder acts, of those that act for nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// True for one that only looks, whatever its role.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// When a node joined with it, of a token that is for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_at: Option<String>,
    /// When it was made.
    pub created_at: String,
    /// From when on it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

impl TokenRecord {
    /// The user that its holder is.
    pub fn user(&self) -> String {
        self.user.clone().unwrap_or_else(|| access::user_of_token(&self.id, self.name.as_deref()))
    }
}

/// Whether the root is in open mode: `state/open` exists.
pub fn is_open(root: &Root) -> Result<bool> {
    let path = root.state("open");
    path.try_exists().at(&path)
}

/// Stores a new token's record. Durable when this returns.
pub fn add_token(root: &Root, record: &TokenRecord) -> Result<()> {
    root.for_change()?;
    let path = token_path(root, &record.id)?;
    let fresh = files::publish(&tmp(root), &path, &files::json_line(record)?, true)?;
    if fresh {
        return Ok(());
    }
    let (id, is) = (&record.id, token(root, &record.id)?);
    let whose = is.map_or(String::new(), |is| format!(": it is user {}'s", is.user()));
    Err(Error::conflict(format!("token {id} exists already{whose}")))
}

/// Puts a token's record in place of what was there, if anything was. Durable when this returns.
pub fn replace_token(root: &Root, record: &TokenRecord) -> Result<()> {
    root.for_change()?;
    files::replace_secret(&tmp(root), &token_path(root, &record.id)?, &files::json_line(record)?)
}

/// A token's record; `None` where there is none, or where the id could not be one.
pub fn token(root: &Root, id: &str) -> Result<Option<TokenRecord>> {
    if !ids::is_valid(id) {
        return Ok(None);
    }
    let path = root.state("tokens").join(id);
    let Some(bytes) = files::read(&path)? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|e| {
        Error::new(Kind::Internal, format!("{}: not a token's record: {e}", path.display()))
    })
}

/// Whether there is a token with this id; it may be unreadable.
pub fn has_token(root: &Root, id: &str) -> bool {
    ids::is_valid(id) && root.state("tokens").join(id).exists()
}

/// Notes that a token is used: its file's time becomes the present minute. Nothing is written more than
/// once a minute, and nothing is synced. For when the answer is out; what fails is no harm.
pub fn note_use(root: &Root, id: &str) {
    if !ids::is_valid(id) || !root.is_own() {
        return;
    }
    let Ok(file) = File::open(root.state("tokens").join(id)) else { return };
    let minute = Duration::from_secs(clock::unix_seconds(SystemTime::now()) / MINUTE * MINUTE);
    let now = UNIX_EPOCH + minute;
    if file.metadata().and_then(|meta| meta.modified()).is_ok_and(|noted| noted != now) {
        let _ = file.set_modified(now);
    }
}

/// The minute in which a token was last used. A file that was made or changed otherwise has a time that
/// is no whole minute.
pub fn last_use(root: &Root, id: &str) -> Option<SystemTime> {
    let noted =
        fs::metadata(root.state("tokens").join(id)).and_then(|meta| meta.modified()).ok()?;
    let since = noted.duration_since(UNIX_EPOCH).ok()?;
    (since.as_secs() % MINUTE == 0 && since.subsec_nanos() == 0).then_some(noted)
}

/// Ids of tokens whose records cannot be read, and why.
pub type Unreadable = Vec<(String, Error)>;

/// All records, the oldest first; then those that cannot be read.
pub fn tokens(root: &Root) -> Result<(Vec<TokenRecord>, Unreadable)> {
    let (mut records, mut unreadable) = (Vec::new(), Vec::new());
    for id in files::names(&root.state("tokens"))? {
        match token(root, &id) {
            Ok(record) => records.extend(record),
            Err(error) => unreadable.push((id, error)),
        }
    }
    records.sort_by(|a, b| (&a.created_at, &a.id).cmp(&(&b.created_at, &b.id)));
    Ok((records, unreadable))
}

/// Whether there is any token.
pub fn has_tokens(root: &Root) -> Result<bool> {
    Ok(!files::names(&root.state("tokens"))?.is_empty())
}

/// Revokes a token: its next use is refused. Durable when this returns; `false` if it was gone.
pub fn remove_token(root: &Root, id: &str) -> Result<bool> {
    root.for_change()?;
    let path = token_path(root, id)?;
    let removed = files::gone_is_fine(fs::remove_file(&path)).at(&path)?.is_some();
    files::sync_dir(files::parent(&path))?;
    Ok(removed)
}

/// The id of the token that a worker is given by one for joining.
pub fn id_of_worker(join: &str) -> String {
    format!("{join}w")
}

/// Revokes a token, as [`remove_token`], and that by which its holder joined: with it they would be given
/// another one. For who holds the board's lock. A crash leaves both, or the token.
pub fn revoke(root: &Root, id: &str) -> Result<bool> {
    if let Some(join) = id.strip_suffix('w')
        && has_token(root, id)
        && token(root, join)?.is_some_and(|record| record.used_at.is_some())
    {
        remove_token(root, join)?;
    }
    remove_token(root, id)
}

/// Revokes what a node's removal ends: tokens of workers that are bound to its name, and those by which it
/// joined. One by which a node of this name may join yet stays. For who holds the board's lock.
///
/// Errors: of a token nobody can tell whether it is bound to that name. 409 where its record is damaged, or a
/// newer program's that says so. Then none is revoked.
pub fn revoke_of_node(root: &Root, node: &str) -> Result<()> {
    let (records, unreadable) = tokens(root)?;
    for (id, why) in unreadable {
        may_be_bound(root, &id, node).and_then(|may| match may {
            false => Ok(()),
            true => Err(Error::conflict(format!(
                "{}; it may be bound to node {node}: revoke it by `scheduler tokens rm id={id}`, then remove the node",
                why.message
            ))),
        })?;
    }
    let bound = records.iter().filter(|record| record.node.as_deref() == Some(node));
    for record in bound.filter(|record| record.role == Role::Worker || record.used_at.is_some()) {
        remove_token(root, &record.id)?;
    }
    Ok(())
}

/// Whether a token whose record is not known here is for a node of this name, or may be. A newer program's is
/// whole, and says its node.
fn may_be_bound(root: &Root, id: &str, node: &str) -> Result<bool> {
    let bytes = files::read(&root.state("tokens").join(id))?.unwrap_or_default();
    Ok(match serde_json::from_slice::<serde_json::Value>(&bytes) {
        Ok(serde_json::Value::Object(record)) => {
            record.get("node").is_some_and(|bound| bound.as_str().is_none_or(|bound| bound == node))
        }
        Ok(_) | Err(_) => true,
    })
}

fn token_path(root: &Root, id: &str) -> Result<PathBuf> {
    if ids::is_valid(id) {
        Ok(root.state("tokens").join(id))
    } else {
        Err(Error::bad("not a token's id"))
    }
}

/// The secret under which the keys of attempts are made; made at first use.
pub fn attempt_secret(root: &Root) -> Result<Vec<u8>> {
    let path = root.state("secrets/attempts");
    for _ in 0..2 {
        if let Some(secret) = known_attempt_secret(root)? {
            return Ok(secret);
        }
        root.for_change()?;
        let secret = format!("{}\n", files::random_hex::<32>()?);
        files::publish(&tmp(root), &path, secret.as_bytes(), true)?;
    }
    Err(Error::new(Kind::Internal, format!("{}: it keeps vanishing", path.display())))
}

/// The same if it has been made. An error if it must have been: jobs are with nodes, and by another
/// one their reports would be strangers'.
pub fn known_attempt_secret(root: &Root) -> Result<Option<Vec<u8>>> {
    let path = root.state("secrets/attempts");
    let wrong = |why| Err(Error::new(Kind::Internal, format!("{}{why}", path.display())));
    match files::read(&path)? {
        Some(bytes) if bytes.trim_ascii().len() >= 64 => Ok(Some(bytes.trim_ascii().to_vec())),
        Some(_) => wrong(": too short for a secret; put the right one back"),
        None if numbers::has_running(root)? => wrong(
            " is missing but jobs are with nodes, and only it tells their reports from forged ones: put it back",
        ),
        None => Ok(None),
    }
}

/// Whether that secret has been made; it may be unreadable.
pub fn has_attempt_secret(root: &Root) -> bool {
    !matches!(root.state("secrets/attempts").try_exists(), Ok(false))
}

/// The token that this root presents to a node; `None` where it has none.
pub fn node_token(root: &Root, node: &str) -> Result<Option<String>> {
    if !ids::is_valid(node) {
        return Ok(None);
    }
    let bytes = files::read(&root.state("secrets/nodes").join(node))?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_string()))
}

/// Keeps, replaces or (with `None`) forgets the token presented to a node. Durable.
pub fn set_node_token(root: &Root, node: &str, token: Option<&str>) -> Result<()> {
    if !ids::is_valid(node) {
        return Err(Error::bad("not a node's name"));
    }
    root.for_change()?;
    let dir = root.state("secrets/nodes");
    let path = dir.join(node);
    match token {
        Some(token) => files::replace_secret(&tmp(root), &path, format!("{token}\n").as_bytes()),
        None => {
            files::remove(&path)?;
            files::sync_dir(&dir)
        }
    }
}

/// Where secrets are prepared: not in their own directories, where every name counts.
fn tmp(root: &Root) -> PathBuf {
    root.state("scheduler/tmp")
}
