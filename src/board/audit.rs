//! `state/audit`: who changed what, and who was refused, a line each.
//!
//! What strangers are refused lies in a file of its own: however much they ask, they cannot push out what
//! users did. Each file is put aside, as the one before it, once it has its size, so that both together
//! are never more than four times the setting `max_audit`.
//!
//! A line is one write, and is not synced: a power loss may take the last ones, or damage one. What was
//! changed is on the card, durable, with who did it; this is where to look for it.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use fs2::FileExt;
use nix::fcntl::OFlag;

use super::files::gone_is_fine;
use super::root::Root;
use crate::error::{At, Result};
use crate::model::audit::Entry;

/// Whose doings they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// Whoever proved to be somebody.
    Users,
    /// Whoever did not.
    Strangers,
}

impl Of {
    fn file(self, root: &Root) -> PathBuf {
        root.state("audit").join(match self {
            Of::Users => "users",
            Of::Strangers => "strangers",
        })
    }
}

/// The file that was begun before this one.
fn former(path: &Path) -> PathBuf {
    path.with_extension("1")
}

/// Appends an entry. Nothing is synced.
pub fn append(root: &Root, of: Of, entry: &Entry) -> Result<()> {
    let path = of.file(root);
    let mut line = serde_json::to_vec(entry).map_err(io::Error::from).at(&path)?;
    line.push(b'\n');
    let mut file = match open(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let dir = root.state("audit");
            DirBuilder::new().recursive(true).mode(0o700).create(&dir).at(&dir)?;
            open(&path)
        }
        opened => opened,
    }
    .at(&path)?;
    file.write_all(&line).at(&path)?;
    if file.metadata().at(&path)?.len() >= root.settings.max_audit {
        put_aside(&file, &path).at(&path)?;
    }
    Ok(())
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600);
    options.custom_flags(OFlag::O_NOFOLLOW.bits()).open(path)
}

/// Makes this file the former one. Whoever still has it open appends to it there. Of several at once one
/// does it: the file is their lock, and who gets it later finds that it is not the present one any more.
fn put_aside(file: &File, path: &Path) -> io::Result<()> {
    if file.try_lock_exclusive().is_err() {
        return Ok(());
    }
    let present = gone_is_fine(fs::metadata(path))?;
    if present.is_some_and(|present| file.metadata().is_ok_and(|own| own.ino() == present.ino())) {
        gone_is_fine(fs::rename(path, former(path)))?;
    }
    Ok(())
}

/// The newest entries for which `is_meant`, at most so many, the oldest first.
pub fn newest(
    root: &Root,
    of: Of,
    most: usize,
    is_meant: impl Fn(&Entry) -> bool,
) -> Result<VecDeque<Entry>> {
    let mut found = VecDeque::new();
    each(root, of, |entry| {
        if is_meant(&entry) {
            found.push_back(entry);
            if found.len() > most {
                found.pop_front();
            }
        }
    })?;
    Ok(found)
}

/// Every entry, the oldest first.
pub fn each(root: &Root, of: Of, mut take: impl FnMut(Entry)) -> Result<()> {
    let path = of.file(root);
    // Both are opened first: what is put aside meanwhile is read once, and not missed.
    let present = gone_is_fine(File::open(&path)).at(&path)?;
    let before = gone_is_fine(File::open(former(&path))).at(&path)?;
    let inode = |file: &File| file.metadata().map(|meta| meta.ino()).ok();
    let before = before.filter(|before| present.as_ref().and_then(inode) != inode(before));
    for file in [before, present].into_iter().flatten() {
        let mut lines = BufReader::with_capacity(64 << 10, file);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).at(&path)? > 0 {
            if let Some(entry) = Entry::read(&String::from_utf8_lossy(&line)) {
                take(entry);
            }
            line.clear();
        }
    }
    Ok(())
}
