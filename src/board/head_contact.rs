//! `state/worker/contact`: when the worker of this root last heard of its head, and for how long it may hear nothing.
//! Its supervisors keep that deadline, whether the worker is there or not. One line of always the same length, made
//! anew in place and not synced: of another boot, it is over.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
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
    /// Likewise: since when it was heard of without a break of `give_up_ms`.
    #[serde(default)]
    since: String,
}

impl Written {
    fn millis(text: &str) -> u64 {
        text.parse().unwrap_or_default()
    }

    /// How long its runs may go on yet.
    fn left(&self) -> Result<Duration> {
        if self.boot != boot_id()? {
            return Ok(Duration::ZERO);
        }
        let until = Self::millis(&self.at).saturating_add(Self::millis(&self.give_up_ms));
        Ok(Duration::from_millis(until.saturating_sub(steady_ms()?)))
    }
}

/// How long what a head has here may go on without a word of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// From now on.
    pub left: Duration,
    /// From its last word on.
    pub in_all: Duration,
    /// Since when it was heard of without a break that was as long. Where that is another time than it was, there was
    /// one, though nobody may have seen it. `None`: it cannot be read.
    pub since: Option<u64>,
}

/// The head of this cluster has answered what was sent to it at this time, in milliseconds since this machine was
/// started: it was heard of at least then.
pub fn note(root: &Root, cluster: &str, give_up: Duration, sent_at: u64) -> Result<()> {
    let path = root.state(FILE);
    let before = read(&path)?.filter(|before| before.cluster == cluster);
    let since = match before {
        Some(before) if !before.left()?.is_zero() => Written::millis(&before.since),
        _ => steady_ms()?,
    };
    let written = Written {
        cluster: cluster.to_string(),
        give_up_ms: format!("{:012}", give_up.as_millis()),
        boot: boot_id()?,
        at: format!("{sent_at:015}"),
        since: format!("{since:015}"),
    };
    let line = serde_json::to_string(&written)
        .map_err(|e| Error::new(Kind::Internal, format!("cannot write JSON: {e}")))?;
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = files::open_by(&mut options, &path).at(&path)?;
    files::rewrite_line(&file, &line).at(&path)
}

/// The cluster of a head that was not heard of for too long.
pub fn overdue(root: &Root) -> Option<String> {
    let written = read(&root.state(FILE)).ok()??;
    written.left().is_ok_and(|left| left.is_zero()).then_some(written.cluster)
}

/// How long runs of this cluster's head may go on; `None`: for ever, as those of any head that reaches this
/// root itself. An error where that cannot be found out.
pub fn left(root: &Root, cluster: &str) -> Result<Option<Left>> {
    let Some(bytes) = files::read(&root.state(FILE))? else { return Ok(None) };
    let Ok(written) = serde_json::from_slice::<Written>(&bytes) else {
        return Ok(Some(Left { left: TORN, in_all: TORN, since: None }));
    };
    if written.cluster != cluster {
        return Ok(None);
    }
    let in_all = Duration::from_millis(Written::millis(&written.give_up_ms));
    let since = Some(Written::millis(&written.since));
    Ok(Some(Left { left: written.left()?, in_all, since }))
}

fn read(path: &Path) -> Result<Option<Written>> {
    let bytes = files::read(path)?;
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}
