//! The poller's lock: one poller of a root is at work, others stand by. It saves work; that two
//! at once do no harm follows from the board's lock and from attempts being idempotent.

use std::time::{Duration, Instant};

use super::lock::{self, Lock};
use super::root::Root;
use crate::error::Result;

const FILE: &str = "scheduler/poller.lock";

/// Takes the lock if no poller has it. A probe by [`is_held`] holds it for an instant, so one
/// refusal proves nothing: it is tried for 50 ms.
pub fn try_take(root: &Root) -> Result<Option<Lock>> {
    root.for_change()?;
    let path = root.state(FILE);
    let deadline = Instant::now() + Duration::from_millis(50);
    loop {
        match Lock::try_take(&path)? {
            None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            taken => return Ok(taken),
        }
    }
}

/// Whether a poller is at work.
pub fn is_held(root: &Root) -> Result<bool> {
    lock::is_locked(&root.state(FILE))
}
