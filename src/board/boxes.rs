//! The boxes of workers as a check and a clean-up see them: what lies there and should not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use super::attic::Tally;
use super::files;
use super::nodes::{self, Recorded};
use super::root::Root;
use super::workers::{self, PARTS};
use crate::clock::Present;
use crate::error::{Error, Result};
use crate::model::ids;
use crate::model::node::DriverKind;

/// From this age on nobody waits at a pipe.
const ABANDONED: Duration = Duration::from_secs(3600);

/// Files of a box, beside its directories.
const FILES: [&str; 7] = ["lock", "session", "contact", "info", "events", "bell", "news"];

/// Names what is wrong with boxes. With `repair` those of nodes that are no workers are removed.
pub fn strays(root: &Root, repair: bool) -> Result<Vec<String>> {
    if !root.is_own() {
        return Ok(Vec::new()); // closed to others, as it must be
    }
    let mut wrong = Vec::new();
    for name in workers::names(root)? {
        let dir = root.state(workers::DIR).join(&name);
        let is_workers = match nodes::look(root, &name) {
            Ok(Recorded::Known(node)) => node.newer.is_some() || node.driver == DriverKind::Worker,
            Ok(Recorded::Absent) => false,
            Err(_) if !ids::is_valid(&name) => false,
            Ok(Recorded::Damaged(_)) | Err(_) => true, // told where records are looked at
        };
        if is_workers {
            wrong.extend(in_box(&dir));
        } else if repair {
            match files::remove_tree(&dir) {
                Ok(()) => eprintln!("repaired: {}: removed, no worker has it", dir.display()),
                Err(error) => wrong.push(error.message),
            }
        } else {
            let dir = dir.display();
            wrong.push(format!("{dir}: the box of no worker; `--repair` removes it"));
        }
    }
    Ok(wrong)
}

fn in_box(dir: &Path) -> Vec<String> {
    let mut wrong = Vec::new();
    let open = fs::metadata(dir).is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0);
    if open {
        wrong.push(format!("{}: open to others than its owner", dir.display()));
    }
    let mut names = |dir: &Path| match files::names(dir) {
        Ok(names) => names,
        Err(Error { message, .. }) => {
            wrong.push(message);
            Vec::new()
        }
    };
    let strange = names(dir)
        .into_iter()
        .filter(|name| !FILES.contains(&name.as_str()) && !PARTS.contains(&name.as_str()));
    let mut strange: Vec<_> = strange.map(|name| dir.join(name)).collect();
    for place in ["ask", "got"] {
        let place = dir.join(place);
        let orders = names(&place).into_iter().map(|name| place.join(name));
        strange.extend(orders.filter(|path| !super::mail::is_order(path)));
    }
    let line = |path: &Path| format!("{}: nothing of a worker's box; remove it", path.display());
    wrong.extend(strange.iter().map(|path| line(path)));
    wrong
}

/// Removes pipes at which nobody waits any more: who did was killed.
pub fn remove_litter(root: &Root, now: &Present, tally: &mut Tally) {
    for name in tally.told(workers::names(root)).unwrap_or_default() {
        let dir = root.state(workers::DIR).join(name).join("say");
        for name in tally.names(&dir) {
            let path = dir.join(name);
            let removed = files::is_older(&path, ABANDONED, now)
                .and_then(|old| if old { files::remove(&path).map(|()| true) } else { Ok(false) });
            tally.note(removed);
        }
    }
}
