//! Locks: `flock(2)` on files that are never renamed or removed. The kernel frees a lock when its
//! owner dies, however it dies; nothing has to be cleaned up. One that is stopped keeps it: who waits in
//! vain is told which process that is.

use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use fs2::FileExt;
use nix::sys::stat::futimens;
use nix::sys::time::TimeSpec;

use super::files;
use crate::error::{At, Error, Kind, Result};

/// How long a lock that others hold for milliseconds is waited for.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How long who has waited in vain does so the next time.
const AGAIN: Duration = Duration::from_secs(1);

/// Longest time between two attempts of whoever waits for a lock.
const LONGEST_PAUSE: Duration = Duration::from_millis(2);

/// What remains to be waited for a lock where a thread has waited for long enough: its holder may let it go
/// in milliseconds.
const AN_INSTANT: Duration = Duration::from_millis(20);

/// How often the holder of a lock is looked for.
const LOOKS: usize = 10;

/// A lock that is held; let go when dropped. Close-on-exec, so no child keeps it.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock, waiting at most [`PATIENCE`]; 503 if it stays taken.
    pub fn take(path: &Path) -> Result<Lock> {
        let file = open(path)?;
        wait_for(&file, path)?;
        Ok(Lock { file })
    }

    /// The same, waiting no longer than so.
    pub fn take_within(path: &Path, patience: Duration) -> Result<Lock> {
        let file = open(path)?;
        wait_within(&file, path, patience)?;
        Ok(Lock { file })
    }

    /// Takes the lock if nobody has it.
    pub fn try_take(path: &Path) -> Result<Option<Lock>> {
        let file = open(path)?;
        Ok(try_lock(&file).at(path)?.then_some(Lock { file }))
    }

    /// Gives the locked file the present time: a sign to who looks at that alone.
    pub fn touch(&self, path: &Path) -> Result<()> {
        futimens(&self.file, &TimeSpec::UTIME_NOW, &TimeSpec::UTIME_NOW).at(path)
    }

    /// The locked file.
    pub fn file(&self) -> &File {
        &self.file
    }
}

thread_local! {
    /// For how long yet this thread waits, where it has a budget.
    static LEFT: Cell<Option<Duration>> = const { Cell::new(None) };
    /// Whether that was over the last time that it waited, and it has had no lock since.
    static IN_VAIN: Cell<bool> = const { Cell::new(false) };
}

/// From now on, and until this is called again, the calling thread waits in vain no longer than [`PATIENCE`]
/// for all locks together, and after that only an instant for each; only a second where it has waited in vain
/// before. A lock that it has got in the end takes nothing off: its holders let go. For whoever has much to
/// do that needs the same lock, and other things besides.
pub fn wait_once_for_all() {
    LEFT.set(Some(if IN_VAIN.get() { AGAIN } else { PATIENCE }));
}

/// Locks an open file exclusively, waiting at most [`PATIENCE`]; 503 if it stays taken.
pub fn wait_for(file: &File, path: &Path) -> Result<()> {
    let Some(left) = LEFT.get() else { return wait_within(file, path, PATIENCE) };
    let begun = Instant::now();
    let locked = wait_within(file, path, left.max(AN_INSTANT));
    let left = left.saturating_sub(begun.elapsed());
    if locked.is_err() {
        LEFT.set(Some(left));
    }
    IN_VAIN.set(locked.is_err() && left.is_zero());
    locked
}

fn wait_within(file: &File, path: &Path, patience: Duration) -> Result<()> {
    let begun = Instant::now();
    let mut pause = Duration::from_micros(50);
    while !try_lock(file).at(path)? {
        if begun.elapsed() >= patience {
            // The same each time: whoever waits over and over tells it once.
            let (path, by) = (path.display(), who_holds(path));
            let why = format!("{path}: held by {by}; try again later");
            return Err(Error::new(Kind::Unavailable, why));
        }
        // A blocking flock cannot have a deadline without a signal; holders let go within
        // milliseconds, so short pauses cost less than that.
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Ok(())
}

/// For whoever has let a lock go and is to take it again at once, over and over: others come between.
/// The kernel knows nothing of who waits.
pub fn let_others() {
    std::thread::sleep(LONGEST_PAUSE * 2);
}

/// Locks an open file exclusively if nobody has it locked.
pub fn try_lock(file: &File) -> io::Result<bool> {
    is_had(|| FileExt::try_lock_exclusive(file))
}

/// Whether nobody has an open file locked exclusively. The probe is shared and let go with the
/// file, so that probes do not see each other.
pub fn is_free(file: &File) -> io::Result<bool> {
    is_had(|| FileExt::try_lock_shared(file))
}

fn is_had(attempt: impl Fn() -> io::Result<()>) -> io::Result<bool> {
    loop {
        match attempt() {
            Ok(()) => return Ok(true),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Whether somebody holds this file's lock. `false` where there is no such file.
pub fn is_locked(path: &Path) -> Result<bool> {
    let file = match files::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e).at(path),
    };
    is_free(&file).map(|free| !free).at(path)
}

/// The process that has a file locked exclusively and is one of those that are meant, as far as the
/// kernel tells: `None` where nobody has it, or only somebody in another container.
pub fn holder(path: &Path, is_meant: impl Fn(i32) -> bool) -> Option<i32> {
    for _ in 0..LOOKS {
        let found = seen_holder(path, &is_meant);
        if found.is_some() || !matches!(is_locked(path), Ok(true)) {
            return found;
        }
    }
    None
}

/// Who has a file locked, for a person.
fn who_holds(path: &Path) -> String {
    let Some(pid) = holder(path, |_| true) else { return "another process".to_string() };
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // "4711 (name) T ...": the name may hold anything, parentheses too.
    let parts = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(") "));
    match parts {
        Some((name, rest)) if rest.starts_with(['T', 't']) => {
            format!("process {pid} ({name}), which is stopped (`kill -CONT {pid}`),")
        }
        Some((name, _)) => format!("process {pid} ({name})"),
        None => format!("process {pid}"),
    }
}

/// The same by one look. The kernel lists all locks of the machine, a page at a time: one may be passed
/// over when those before it are let go meanwhile.
fn seen_holder(path: &Path, is_meant: impl Fn(i32) -> bool) -> Option<i32> {
    let inode = fs::metadata(path).ok()?.ino();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        // "7: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF"; one that waits has "->" after the number.
        let mut fields = line.split_whitespace().skip(1);
        let is_held = fields.next()? == "FLOCK" && fields.nth(1)? == "WRITE";
        let pid = fields.next()?.parse().ok().filter(|_| is_held)?;
        let file: u64 = fields.next()?.rsplit(':').next()?.parse().ok()?;
        // The number of an inode alone is that of others, too, on other file systems.
        (file == inode && is_meant(pid)).then_some(pid)
    })
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o640)
        .open(path)
        .at(path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn whoever_waits_in_vain_is_told_for_whom_and_does_so_once() {
        let path = std::env::temp_dir().join(format!("corkboard-held-{}", std::process::id()));
        let _lock = Lock::take(&path).unwrap();
        let patience = Duration::from_millis(30);
        let error = Lock::take_within(&path, patience).unwrap_err();
        let own = format!("held by process {} (", std::process::id());
        assert!(error.message.contains(&own), "{}", error.message);
        let again = Lock::take_within(&path, patience * 2).unwrap_err();
        assert_eq!(again.message, error.message, "so that it is told once");
        LEFT.set(Some(patience));
        let begun = Instant::now();
        for _ in 0..2 {
            assert!(Lock::take(&path).is_err());
        }
        std::fs::remove_file(&path).unwrap();
        assert!(LEFT.get().unwrap().is_zero() && begun.elapsed() < PATIENCE / 10);
        for _ in 0..2 {
            wait_once_for_all();
            assert_eq!(LEFT.get(), Some(AGAIN), "it has waited in vain");
        }
        let other = path.with_extension("other");
        drop(Lock::take(&other).unwrap());
        std::fs::remove_file(&other).unwrap();
        wait_once_for_all();
        assert_eq!(LEFT.get(), Some(PATIENCE), "it has had one");
        LEFT.set(None);
    }

    /// Programs of other versions, `scripts/` and `/proc/locks` know these locks as flock(2).
    #[test]
    fn a_lock_is_one_of_flock() {
        let path = std::env::temp_dir().join(format!("corkboard-lock-{}", std::process::id()));
        let lock = Lock::take(&path).unwrap();
        let inode = lock.file().metadata().unwrap().ino();
        let locks = std::fs::read_to_string("/proc/locks").unwrap();
        std::fs::remove_file(&path).unwrap();
        let ours = format!(":{inode} ");
        let found: Vec<&str> = locks.lines().filter(|line| line.contains(&ours)).collect();
        let as_flock = |line: &&str| line.split_whitespace().nth(1) == Some("FLOCK");
        assert!(found.iter().any(as_flock), "inode {inode} in {locks}");
    }
}
