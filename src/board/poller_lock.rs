//! The poller's lock: one poller of a root is at work, others stand by. It saves work; that two
//! at once do no harm follows from the board's lock and from attempts being idempotent.

use std::fs::{self, OpenOptions};
use std::time::{Duration, Instant};

use super::files;
use super::lock::{self, Lock};
use super::root::{Root, boot_id};
use crate::error::{At, Result};

/// The variable in which who starts rounds for a job says which process it is.
pub const STARTED_BY: &str = "CORKBOARD_STARTED_BY";

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

/// The process that has the lock, as far as the kernel tells; `None` where no poller is at work, or
/// only in another container.
pub fn holder(root: &Root) -> Option<i32> {
    let is_poller = |pid| {
        let exe = fs::read_link(format!("/proc/{pid}/exe")).ok();
        let name = exe.as_deref().and_then(|path| path.file_name()?.to_str());
        name.is_some_and(|name| name.trim_end_matches(" (deleted)") == "poller")
    };
    lock::holder(&root.state(FILE), is_poller)
}

/// Whether no poller of this boot has looked for what the machine's last stop left; the file says in
/// which boot one last did. Asked and noted by who holds the lock.
pub fn is_first_of_boot(root: &Root) -> Result<bool> {
    let noted = files::read(&root.state(FILE))?.unwrap_or_default();
    Ok(noted.trim_ascii() != boot_id()?.as_bytes())
}

/// Notes that this is done for this boot. Not synced: to do it once more does no harm.
pub fn note_boot(root: &Root) -> Result<()> {
    let path = root.state(FILE);
    let file = OpenOptions::new().write(true).open(&path).at(&path)?;
    files::rewrite_line(&file, &boot_id()?).at(&path)
}
