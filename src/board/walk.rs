//! Walks the head's board for `scheduler check`: what lies where, and what should not.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::batch_files;
use super::batches;
use super::cards::Cards;
use super::claims::rejoin;
use super::feed_file::FeedFile;
use super::files;
use super::listing;
use super::nodes::{self, Recorded};
use super::root::{Root, TREE};
use super::sync_set::SyncSet;
use crate::error::Result;
use crate::model::card::{Card, Column};
use crate::model::ids;

/// Something in a column.
#[derive(Debug)]
pub enum Entry {
    /// A card by its name.
    Card {
        /// Where it lies.
        column: Column,
        /// Whose it is, by its name.
        job: u64,
        /// Its path.
        path: PathBuf,
    },
    /// Something else.
    Stray {
        /// Its path.
        path: PathBuf,
        /// Why it is wrong there.
        why: String,
    },
}

/// Checks the directories themselves: there, and closed to those who should not look; and that nothing else
/// lies where the feeds are.
pub fn tree(root: &Root) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for (name, mode) in TREE {
        let path = root.state(name);
        match fs::metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied && !root.is_own() => {} // as it must
            Err(e) => wrong.push(format!("{}: {}", path.display(), crate::error::reason(&e))),
            Ok(meta) if !meta.is_dir() => {
                wrong.push(format!("{}: not a directory", path.display()))
            }
            Ok(meta) if *mode == 0o700 && meta.permissions().mode() & 0o077 != 0 => {
                wrong.push(format!("{}: open to others than its owner", path.display()));
            }
            Ok(_) => {}
        }
    }
    for dir in ["tokens", "secrets", "secrets/nodes", "audit"] {
        let names = match files::names(&root.state(dir)) {
            Ok(names) => names,
            Err(error) => {
                // Closed to others, as it must be.
                wrong.extend(root.is_own().then_some(error.message));
                continue;
            }
        };
        for name in names {
            let path = root.state(dir).join(name);
            let open = fs::metadata(&path)
                .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o077 != 0);
            if open {
                wrong.push(format!("{}: open to others than its owner", path.display()));
            }
        }
    }
    for board in ["scheduler", "processor"] {
        let feed = FeedFile::of(root, board);
        if !feed.may_be_one() {
            let path = feed.path().display();
            wrong.push(format!(
                "{path}: no plain file, so nobody is told what happens; move it away"
            ));
        }
    }
    wrong.extend(owners(root));
    Ok(wrong)
}

/// What is another user's among the directories and what lies in them: the owner of the tree may be
/// unable to read it, or to remove it. What lies deeper is the jobs' own.
fn owners(root: &Root) -> Vec<String> {
    let owner = |path: &Path| fs::symlink_metadata(path).ok().map(|meta| meta.uid());
    let Some(whose) = owner(&root.state(TREE.last().map_or("", |(name, _)| name))) else {
        return Vec::new();
    };
    let mut wrong = Vec::new();
    for (name, _) in TREE {
        let dir = root.state(name);
        let secret = ["tokens", "secrets"].iter().any(|secret| name.starts_with(secret));
        let names = match files::names(&dir) {
            Ok(names) => names,
            Err(error) => {
                wrong.extend((!secret).then_some(error.message)); // else told above
                continue;
            }
        };
        for path in names.into_iter().map(|name| dir.join(name)) {
            if let Some(uid) = owner(&path).filter(|uid| *uid != whose) {
                let path = path.display();
                wrong.push(format!(
                    "{path}: belongs to uid {uid}, the tree to uid {whose}; give it back by chown"
                ));
            }
        }
    }
    wrong
}

/// Everything in `queue/`, `running/` and `done/`. Files that vanish meanwhile are not there.
pub fn cards(root: &Root) -> Vec<Entry> {
    let board = Cards::new(root);
    let mut entries = Vec::new();
    for column in [Column::Queue, Column::Running, Column::Done] {
        let dir = board.column_path(column);
        for found in WalkDir::new(&dir).min_depth(1) {
            let found = match found {
                Ok(found) => found,
                Err(error) => {
                    entries.extend(not_looked_at(&error));
                    continue;
                }
            };
            let path = found.path().to_path_buf();
            let name = found.file_name().to_string_lossy();
            let depth = if column == Column::Done { 2 } else { 1 };
            if column == Column::Queue && batch_files::is_name(&name) {
                continue;
            }
            match listing::card_number(&name) {
                _ if found.file_type().is_dir() && found.depth() < depth => {}
                Some(job) if found.depth() == depth && path == board.card_path(column, job) => {
                    entries.push(Entry::Card { column, job, path });
                }
                _ => entries.push(Entry::Stray { path, why: "not a card of this column".into() }),
            }
        }
    }
    entries
}

/// What a walk could not look at; `None` for what has vanished.
fn not_looked_at(error: &walkdir::Error) -> Option<Entry> {
    let path = error.path().unwrap_or(Path::new("")).to_path_buf();
    let why = match error.io_error() {
        Some(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Some(error) => crate::error::reason(error),
        None => error.to_string(),
    };
    Some(Entry::Stray { path, why })
}

/// Parent and child, of these jobs that have a parent.
pub fn parents(root: &Root, jobs: impl Iterator<Item = u64>) -> Vec<(u64, u64)> {
    let cards = Cards::new(root);
    let mut pairs = Vec::new();
    for job in jobs {
        if let Ok(card) = cards.find(job)
            && let Some(parent) = card.accepted.parent
        {
            pairs.push((parent, job));
        }
    }
    pairs
}

/// Adds a child that its parent's list lacks.
pub fn mend_child(root: &Root, parent: u64, child: u64) -> Result<()> {
    let mut sync = SyncSet::new();
    Cards::new(root).add_child(parent, &[child], &mut sync)?;
    sync.commit()
}

/// What was put aside and waits for a person.
pub fn put_aside(root: &Root) -> Result<Vec<String>> {
    let dir = root.state("scheduler/bad");
    let mut names = files::names(&dir)?;
    names.sort_unstable();
    let line = |name: String| {
        format!(
            "{}: a card that cannot be read; mend its first line and move it to queue/, or remove it",
            dir.join(name).display()
        )
    };
    Ok(names.into_iter().map(line).collect())
}

/// What is wrong with requests for many jobs that are not finished.
pub fn damaged_batches(root: &Root) -> Result<Vec<String>> {
    batches::damaged(&Cards::new(root))
}

/// Checks that node records and token records can be read.
pub fn records(root: &Root) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let dir = root.state("scheduler/nodes");
    for name in files::names(&dir)? {
        let Some(node) = name.strip_suffix(".json").filter(|node| ids::is_valid(node)) else {
            wrong.push(format!("{}: not a node's record", dir.join(&name).display()));
            continue;
        };
        match nodes::look(root, node) {
            Ok(Recorded::Damaged(damaged)) => wrong.push(damaged.why.message),
            Ok(Recorded::Absent | Recorded::Known(_)) => {}
            Err(error) => wrong.push(error.message),
        }
    }
    let closed = !root.is_own(); // to others, as it must be
    let tokens = if closed { Vec::new() } else { files::names(&root.state("tokens"))? };
    for id in tokens {
        let revoked = |path: PathBuf| matches!(path.try_exists(), Ok(false));
        if !matches!(super::vault::token(root, &id), Ok(Some(_)))
            && !revoked(root.state("tokens").join(&id))
        {
            wrong
                .push(format!("{}: not a token's record", root.state("tokens").join(id).display()));
        }
    }
    Ok(wrong)
}

/// Checks that a claimed request id and the card in its column are one file. With `repair` they are
/// made one again: a copy of the board that does not keep hard links splits them.
pub fn claims(root: &Root, places: &HashMap<u64, Column>, repair: bool) -> Result<Vec<String>> {
    let board = Cards::new(root);
    let dir = root.state("scheduler/requests");
    let mut wrong = Vec::new();
    for name in files::names(&dir)? {
        let path = dir.join(&name);
        let bytes = match files::read(&path) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => continue,
            Err(error) => {
                wrong.push(error.message);
                continue;
            }
        };
        let Ok(card) = Card::parse(&bytes) else {
            wrong.push(format!("{}: not a card", path.display()));
            continue;
        };
        let Some(column) = places.get(&card.job()) else { continue };
        let same = |a: &Path, b: &Path| match (fs::metadata(a), fs::metadata(b)) {
            (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
            _ => true, // moved meanwhile
        };
        if !same(&path, &board.card_path(*column, card.job())) {
            match repair.then(|| rejoin(&board, &path, card.job())) {
                Some(Ok(true)) => {
                    eprintln!(
                        "repaired: {} is the card of job {} again",
                        path.display(),
                        card.job()
                    );
                    continue;
                }
                Some(Err(error)) => wrong.push(error.message),
                Some(Ok(false)) | None => {}
            }
            wrong.push(format!("{}: is not the card of job {}", path.display(), card.job()));
        }
    }
    Ok(wrong)
}
