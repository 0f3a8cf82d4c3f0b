//! What nobody else does on a machine without a poller: sweeps, clean-up; and what this machine has is told.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::outbox::Outbox;
use crate::board::root::Root;
use crate::board::steps;
use crate::error::{Error, Result};
use crate::processor::{cleanup, info, sweep};

/// How often it is looked whether what this machine has is another thing.
const INFO_EVERY: Duration = Duration::from_secs(5);

/// How often it is told in any case: how busy it is.
const LIVE_EVERY: Duration = Duration::from_secs(60);

/// How often old jobs are looked for.
const CLEAN_EVERY: Duration = Duration::from_secs(600);

/// Never ends.
pub(super) fn run(root: &Root, outbox: &Outbox) {
    let mut told = BTreeSet::new();
    let mut tell = |what: &str, error: Error| {
        if told.insert(error.message.clone()) {
            eprintln!("worker: {what}: {}", error.message);
        }
    };
    let (mut known, mut live_at, mut info_at, mut cleaned) = (Value::Null, None, None, None);
    loop {
        // With the settings as they are now; wrong ones are told, and the last right ones hold.
        let now = Root::open(root.dir()).map_err(|error| tell("settings", error));
        let root = now.as_ref().unwrap_or(root);
        if let Err(error) = sweep::sweep(root) {
            tell("sweep", error);
        }
        if is_due(&mut info_at, INFO_EVERY) {
            match said(root) {
                Ok((info, steady)) => {
                    if steady != known || is_due(&mut live_at, LIVE_EVERY) {
                        outbox.tell_info(info);
                    }
                    known = steady;
                }
                Err(error) => tell("what this machine has is not known", error),
            }
        }
        if is_due(&mut cleaned, CLEAN_EVERY) {
            match steps::present(root) {
                Ok((now, _)) => {
                    cleanup::clean(root, &now)
                        .trouble
                        .into_iter()
                        .for_each(|e| tell("clean-up", e));
                }
                Err(error) => tell("clean-up", error),
            }
        }
        thread::sleep(root.settings.scan_every.min(INFO_EVERY));
    }
}

/// Whether it was last done so long ago; then it is done now.
fn is_due(done: &mut Option<Instant>, every: Duration) -> bool {
    let is_due = done.is_none_or(|done| done.elapsed() >= every);
    if is_due {
        *done = Some(Instant::now());
    }
    is_due
}

/// What this machine says of itself, and what of that does not change with every job.
fn said(root: &Root) -> Result<(Value, Value)> {
    let info = json!(info::info(root)?);
    let mut steady = info.clone();
    if let Some(fields) = steady.as_object_mut() {
        ["live", "free", "running", "queued"].iter().for_each(|name| {
            fields.shift_remove(*name);
        });
    }
    Ok((info, steady))
}
