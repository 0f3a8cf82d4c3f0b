//! Job numbers, from 1, rising, never used twice; and the cluster's name.
//!
//! `seq` is one line, `next=18 limit=1024 boot=…`, rewritten in place by one write under its own
//! flock (a lock file is never replaced). Numbers below `limit` may be handed out without a sync:
//! `limit` is made durable first, a block ahead. Until it is, the line names no boot: whoever comes
//! after one that died, or failed, at the sync does not take it for durable. After a boot nobody
//! knows how many of them were used, so counting goes on at `limit`. The line is far shorter than
//! a disk sector, so a power loss leaves the old line or the new one; numbers go unused then, none
//! is used twice.

use std::fs::File;
use std::ops::RangeInclusive;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::files;
use super::lock::Lock;
use super::root::{Root, boot_id};
use crate::error::{At, Error, Kind, Result};
use crate::model::ids;

/// How many numbers one sync pays for.
const BLOCK: u64 = 1000;

/// In place of a boot in a line that may not be durable.
const NOT_SYNCED: &str = "-";

/// Longer than any line can be.
const LONGEST: usize = 256;

#[derive(Debug, PartialEq, Eq)]
struct Seq {
    next: u64,
    limit: u64,
    boot: String,
}

impl Seq {
    fn parse(text: &str) -> Option<Seq> {
        let mut words = text.split_whitespace();
        let mut field = |name: &str| words.next()?.strip_prefix(name)?.strip_prefix('=');
        let seq = Seq {
            next: field("next")?.parse().ok()?,
            limit: field("limit")?.parse().ok()?,
            boot: field("boot")?.to_string(),
        };
        (1 <= seq.next && seq.next <= seq.limit).then_some(seq)
    }

    fn line(&self) -> String {
        format!("next={} limit={} boot={}", self.next, self.limit, self.boot)
    }
}

/// Takes `count` numbers in a row. Durable in the sense that they are never handed out again.
pub fn reserve(root: &Root, count: u64) -> Result<RangeInclusive<u64>> {
    root.for_change()?;
    let path = root.state("scheduler/seq");
    let lock = Lock::take(&path)?;
    let boot = boot_id()?;
    let mut seq = match read(lock.file(), &path)? {
        Some(seq) => seq,
        None if has_cards(root)? => {
            return Err(Error::new(
                Kind::Internal,
                format!(
                    "{} is empty but the board has cards: write `next=N limit=N boot=x` to it, N above every number ever used",
                    path.display()
                ),
            ));
        }
        None => Seq { next: 1, limit: 1, boot: boot.clone() },
    };
    if seq.boot != boot {
        seq = Seq { next: seq.limit, limit: seq.limit, boot };
    }
    let first = seq.next;
    let next = first.checked_add(count).filter(|next| *next <= ids::HIGHEST_NUMBER);
    let next = next.ok_or_else(|| used_up(&path))?;
    if next > seq.limit {
        seq.limit = next + BLOCK;
        let boot = std::mem::replace(&mut seq.boot, NOT_SYNCED.into());
        write(&lock, &path, &seq)?;
        files::sync(lock.file(), &path)?;
        files::sync_dir(files::parent(&path))?;
        seq.boot = boot;
    }
    seq.next = next;
    write(&lock, &path, &seq)?;
    Ok(first..=next - 1)
}

fn used_up(path: &Path) -> Error {
    let why = "the job numbers are used up: no card of a higher one would be found";
    Error::new(Kind::Internal, format!("{}: {why}", path.display()))
}

fn write(lock: &Lock, path: &PathBuf, seq: &Seq) -> Result<()> {
    files::rewrite_line(lock.file(), &seq.line()).at(path)
}

/// The number below which all numbers may have been used; `None` if none was.
pub fn limit(root: &Root) -> Result<Option<u64>> {
    let path = root.state("scheduler/seq");
    let Some(file) = files::gone_is_fine(File::open(&path)).at(&path)? else { return Ok(None) };
    let Some(seq) = read(&file, &path)? else { return Ok(None) };
    Ok(Some(if seq.boot == boot_id()? { seq.next } else { seq.limit }))
}

/// `None` for an empty file. One that cannot be read is an error: guessing could repeat a number.
fn read(file: &File, path: &PathBuf) -> Result<Option<Seq>> {
    let mut bytes = [0u8; LONGEST];
    let length = file.read_at(&mut bytes, 0).at(path)?;
    let text = String::from_utf8_lossy(&bytes[..length]);
    if text.trim().is_empty() {
        return Ok(None);
    }
    Seq::parse(&text).map(Some).ok_or_else(|| {
        Error::new(
            Kind::Internal,
            format!("{}: not a line `next=N limit=N boot=ID`; mend it by hand", path.display()),
        )
    })
}

fn has_cards(root: &Root) -> Result<bool> {
    for dir in ["queue", "running", "done", "bad", "requests"] {
        if !files::names(&root.state("scheduler").join(dir))?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The cluster's name, made once: the host's name and a few random characters.
pub fn cluster(root: &Root) -> Result<String> {
    for _ in 0..2 {
        if let Some(name) = known_cluster(root)? {
            return Ok(name);
        }
        root.for_change()?;
        let name = format!("{}-{}\n", host_part(), files::random_hex::<2>()?);
        let path = cluster_path(root);
        files::publish(&root.state("scheduler/tmp"), &path, name.as_bytes(), false)?;
    }
    let path = cluster_path(root);
    Err(Error::new(Kind::Internal, format!("{}: it keeps vanishing", path.display())))
}

/// The cluster's name if it has been made. An error if it must have been: jobs are with nodes.
pub fn known_cluster(root: &Root) -> Result<Option<String>> {
    let path = cluster_path(root);
    if let Some(bytes) = files::read(&path)? {
        let name = String::from_utf8_lossy(&bytes).trim().to_string();
        if ids::is_valid(&name) && name.len() <= 24 {
            return Ok(Some(name));
        }
        return Err(Error::new(
            Kind::Internal,
            format!("{}: {name:?} is not a name; mend it by hand", path.display()),
        ));
    }
    if has_running(root)? {
        return Err(Error::new(
            Kind::Internal,
            format!(
                "{} is missing but jobs are with nodes: put it back (it is in their `nodejob`, before the last dash)",
                path.display()
            ),
        ));
    }
    Ok(None)
}

/// Whether the cluster has been given a name, which may be unreadable.
pub fn has_cluster(root: &Root) -> bool {
    !matches!(cluster_path(root).try_exists(), Ok(false))
}

fn cluster_path(root: &Root) -> PathBuf {
    root.state("scheduler/cluster")
}

/// Whether jobs are with nodes, as far as names can tell.
pub(super) fn has_running(root: &Root) -> Result<bool> {
    Ok(!files::names(&root.state("scheduler/running"))?.is_empty())
}

/// The first label of the host's name, as far as it may be part of an id.
fn host_part() -> String {
    let name = nix::unistd::gethostname().unwrap_or_default();
    let label: String = name
        .to_string_lossy()
        .chars()
        .take_while(|c| *c != '.')
        .filter(char::is_ascii_alphanumeric)
        .take(16)
        .collect();
    if label.is_empty() { "cork".into() } else { label.to_ascii_lowercase() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_one_form() {
        let seq = Seq { next: 18, limit: 1018, boot: "b-1".into() };
        assert!(seq.line().len() < LONGEST);
        assert_eq!(Seq::parse(&seq.line()), Some(seq));
        for bad in ["", "next=1", "next=0 limit=1 boot=b", "next=5 limit=2 boot=b", "1 2 3"] {
            assert_eq!(Seq::parse(bad), None, "{bad}");
        }
    }
}
