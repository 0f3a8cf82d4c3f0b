//! `state/worker/contact`: when the worker of this root last heard of its head, and for how long it may hear nothing.
//! Its supervisors keep that deadline, whether the worker is there or not. One line of always the same length, made
//! anew in place and not synced: of another boot, it is over.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::files;
use super::root::{Root, boot_id};
use super::workers::steady_ms;
use crate::error::{At, Error, Kind, Result};

const FILE: &str = "worker/contact";

/// What is left where it cannot be read: it is being written.
const TORN: Duration = Duration::from_secs(1);

#[derive(Debug, Serialize, Deserialize)]
struct Written {
    /// Which head it is.
    cluster: String,
    /// Milliseconds, in twelve digits.
    give_up_ms: String,
    boot: String,
    /// Milliseconds since this machine was started, in fifteen digits.
    at: String,
}

/// How long what a head has here may go on without a word of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// From now on.
    pub left: Duration,
    /// From its last word on.
    pub in_all: Duration,
}

/// The head of this cluster has answered what was sent to it at this time, in milliseconds since this machine was
/// started: it was heard of at least then.
pub fn note(root: &Root, cluster: &str, give_up: Duration, sent_at: u64) -> Result<()> {
    let written = Written {
        cluster: cluster.to_string(),
        give_up_ms: format!("{:012}", give_up.as_millis()),
        boot: boot_id()?,
        at: format!("{sent_at:015}"),
    };
    let line = serde_json::to_string(&written)
        .map_err(|e| Error::new(Kind::Internal, format!("cannot write JSON: {e}")))?;
    let path = root.state(FILE);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = files::open_by(&mut options, &path).at(&path)?;
    files::rewrite_line(&file, &line).at(&path)
}

/// The cluster of a head that was not heard of for too long.
pub fn overdue(root: &Root) -> Option<String> {
    let bytes = files::read(&root.state(FILE)).ok()??;
    let Written { cluster, .. } = serde_json::from_slice(&bytes).ok()?;
    left(root, &cluster).is_some_and(|contact| contact.left.is_zero()).then_some(cluster)
}

/// How long runs of this cluster's head may go on; `None`: for ever, as those of any head that reaches this
/// root itself.
pub fn left(root: &Root, cluster: &str) -> Option<Left> {
    let path = root.state(FILE);
    let bytes = files::read(&path).ok()??;
    let parsed = serde_json::from_slice::<Written>(&bytes).ok();
    let Some(written) = parsed else { return Some(Left { left: TORN, in_all: TORN }) };
    if written.cluster != cluster {
        return None;
    }
    let millis = |text: &str| text.parse().map(Duration::from_millis).unwrap_or_default();
    let (in_all, at) = (millis(&written.give_up_ms), millis(&written.at));
    let is_now = boot_id().is_ok_and(|boot| boot == written.boot);
    let since = Duration::from_millis(steady_ms().ok()?).saturating_sub(at);
    let left = if is_now { in_all.saturating_sub(since) } else { Duration::ZERO };
    Some(Left { left, in_all })
}
