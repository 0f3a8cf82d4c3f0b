//! Primitives of the boards: publish, append, move, sync.
//!
//! All rest on two facts of a local file system with an ordered journal: a rename or link is
//! atomic, and after power loss directory changes are there in the order in which they were made,
//! up to some point. What must not vanish is synced before anyone is told of it ([`SyncSet`]).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, OFlag, RenameFlags, renameat2};
use serde::Serialize;

use crate::error::{At, Error, Kind, Result};

/// Files above this number are synced by one `syncfs`. Measured on ext4: a file costs 0.25 to
/// 0.5 ms, the whole file system 0.3 to 1 ms, but that waits for what others wrote, too.
const SYNC_EACH_UP_TO: usize = 4;

/// Stack of a thread that syncs a directory.
const SYNC_STACK: usize = 64 << 10;

/// Mode of files that the group may read, before the umask.
pub(super) const MODE: u32 = 0o640;

/// Mode of files for their owner alone.
const SECRET_MODE: u32 = 0o600;

/// A new name that nobody else uses, for `tmp/`.
pub fn random_name() -> Result<String> {
    random_hex::<8>()
}

/// `N` random bytes in hexadecimal.
pub fn random_hex<const N: usize>() -> Result<String> {
    let mut bytes = [0u8; N];
    getrandom::fill(&mut bytes)
        .map_err(|e| Error::new(Kind::Unavailable, format!("no random bytes: {e}")))?;
    Ok(base16ct::lower::encode_string(&bytes))
}

/// Makes a new file with this content; an existing one is an error. Not synced. On an error
/// nothing is left; a crash can leave a part, so the name must be one that nobody reads (`tmp/`).
pub fn create(path: &Path, bytes: &[u8]) -> Result<File> {
    create_with_mode(path, bytes, MODE)
}

/// [`create`], readable by the owner alone.
pub fn create_secret(path: &Path, bytes: &[u8]) -> Result<File> {
    create_with_mode(path, bytes, SECRET_MODE)
}

fn create_with_mode(path: &Path, bytes: &[u8], mode: u32) -> Result<File> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(path)
        .at(path)?;
    if let Err(error) = file.write_all(bytes) {
        let _ = fs::remove_file(path); // the first error is the one to report
        return Err(Error::io(path, &error));
    }
    Ok(file)
}

/// Syncs one file's content. After an error the file must not be trusted, nor synced again: the
/// kernel has marked its pages clean.
pub fn sync(file: &File, path: &Path) -> Result<()> {
    file.sync_all().at(path)
}

/// Makes the entries of a directory durable.
pub fn sync_dir(path: &Path) -> Result<()> {
    File::open(path).at(path)?.sync_all().at(path)
}

/// Renames without replacing: `false` if `to` exists already. Atomic; not synced.
pub fn rename_new(from: &Path, to: &Path) -> Result<bool> {
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
        Ok(()) => Ok(true),
        Err(nix::Error::EEXIST) => Ok(false),
        Err(error) => Err(error).at(to),
    }
}

/// Lets two names of one file system change places. Atomic; not synced.
pub fn exchange(one: &Path, other: &Path) -> Result<()> {
    renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE).at(other)
}

/// Gives a file a second name without replacing: `false` if `to` exists already.
pub fn link_new(from: &Path, to: &Path) -> Result<bool> {
    match fs::hard_link(from, to) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(e).at(to),
    }
}

/// Removes a file; one that is gone already is no error.
pub fn remove(path: &Path) -> Result<()> {
    gone_is_fine(fs::remove_file(path)).map(|_| ()).at(path)
}

/// Removes a tree; one that is gone already, or that vanishes meanwhile, is no error. Directories
/// that their owner made read-only are no obstacle, nor is one that is nested very deep. What
/// cannot be removed is the error, after everything else is gone.
pub fn remove_tree(path: &Path) -> Result<()> {
    match gone_is_fine(fs::remove_dir_all(path)) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(error).at(path),
        Err(_) => remove_stubborn(path),
    }
}

/// Opens each directory to its owner before it is emptied; its own directories are moved to the top
/// to be emptied in their turn, so that no path becomes too long.
fn remove_stubborn(top: &Path) -> Result<()> {
    let mut failed = Ok(());
    let mut note = |result: io::Result<()>, path: &Path| {
        if let Err(error) = gone_is_fine(result).at(path)
            && failed.is_ok()
        {
            failed = Err(error);
        }
    };
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o700));
    note(open(top), top);
    let mut dirs = vec![top.to_path_buf()];
    let mut emptied = Vec::new();
    while let Some(dir) = dirs.pop() {
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) => {
                note(Err(error), &dir);
                continue;
            }
        };
        for entry in entries.flatten() {
            let path = entry.path();
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                note(fs::remove_file(&path), &path);
                continue;
            }
            note(open(&path), &path); // a directory that is moved must be writable itself
            let beside = random_name().map(|name| top.join(name));
            dirs.push(match beside {
                Ok(beside) if dir != top && fs::rename(&path, &beside).is_ok() => beside,
                _ => path,
            });
        }
        emptied.push(dir);
    }
    // Those that could not be moved are emptied after what holds them.
    for dir in emptied.iter().rev() {
        note(fs::remove_dir(dir), dir);
    }
    failed
}

/// `None` for "no such file": a file that vanished is an answer, not a failure.
pub fn gone_is_fine<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// The content of a file; `None` where there is none.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    gone_is_fine(fs::read(path)).at(path)
}

/// Puts a file in place of another, whole and durable, or leaves the old one.
/// `tmp` is the directory to prepare it in, on the same file system.
pub fn replace(tmp: &Path, path: &Path, bytes: &[u8]) -> Result<()> {
    replace_with_mode(tmp, path, bytes, MODE)
}

/// [`replace`], readable by the owner alone.
pub fn replace_secret(tmp: &Path, path: &Path, bytes: &[u8]) -> Result<()> {
    replace_with_mode(tmp, path, bytes, SECRET_MODE)
}

fn replace_with_mode(tmp: &Path, path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let prepared = tmp.join(random_name()?);
    let file = create_with_mode(&prepared, bytes, mode)?;
    let placed = sync(&file, &prepared).and_then(|()| fs::rename(&prepared, path).at(path));
    if placed.is_err() {
        let _ = fs::remove_file(&prepared); // the first error is the one to report
    }
    placed?;
    sync_dir(parent(path)).map_err(unknown)
}

/// Makes a new file, whole and durable, or none; `false` if one is there already.
/// A crash can leave the prepared file in `tmp`.
pub fn publish(tmp: &Path, path: &Path, bytes: &[u8], secret: bool) -> Result<bool> {
    let prepared = tmp.join(random_name()?);
    let file = if secret { create_secret(&prepared, bytes)? } else { create(&prepared, bytes)? };
    let placed = sync(&file, &prepared).and_then(|()| rename_new(&prepared, path));
    if !matches!(placed, Ok(true)) {
        let _ = fs::remove_file(&prepared); // the first error is the one to report
    }
    let placed = placed?;
    sync_dir(parent(path)).map_err(unknown)?;
    Ok(placed)
}

/// An error after something was published or stamped: it is there, and whether it survives a
/// power loss is unknown. 500 in place of a 503, which would say that nothing changed.
pub fn unknown(error: Error) -> Error {
    if error.kind == Kind::Internal {
        return error;
    }
    let message = format!("{} (it may have been recorded; repeat with the same id)", error.message);
    Error::new(Kind::Internal, message)
}

/// The directory of a path.
pub fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// Names in a directory, in no order. Empty where there is none; entries may vanish at any time.
pub fn names(dir: &Path) -> Result<Vec<String>> {
    let Some(entries) = gone_is_fine(fs::read_dir(dir)).at(dir)? else {
        return Ok(Vec::new());
    };
    let mut names = Vec::new();
    for entry in entries {
        if let Ok(name) = entry.at(dir)?.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}

/// A story: a file of JSON lines that is only ever appended to.
#[derive(Debug)]
pub struct Story {
    file: File,
    path: PathBuf,
}

impl Story {
    /// Opens an existing story to read and append; `None` where there is none.
    pub fn open(path: PathBuf) -> Result<Option<Story>> {
        let opened = OpenOptions::new().read(true).append(true).open(&path);
        let file = gone_is_fine(opened).at(&path)?;
        Ok(file.map(|file| Story { file, path }))
    }

    /// Opens a story to append, making an empty one where there is none.
    pub fn open_or_create(path: PathBuf) -> Result<Story> {
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(MODE)
            .open(&path)
            .at(&path)?;
        Ok(Story { file, path })
    }

    /// All of it.
    pub fn read(&mut self) -> Result<Vec<u8>> {
        let size = self.file.metadata().at(&self.path)?.size();
        if size == 0 {
            return Ok(Vec::new()); // that of most jobs when it is opened
        }
        let mut bytes = Vec::with_capacity(size as usize + 1);
        io::Seek::rewind(&mut self.file).at(&self.path)?;
        self.file.read_to_end(&mut bytes).at(&self.path)?;
        Ok(bytes)
    }

    /// Appends lines by one write that starts and ends with a newline, so that a line torn by a
    /// crash cannot spoil its neighbours. If only a part could be written, that part is cut off
    /// again; the caller must be the only one who appends. Not synced.
    pub fn append<T: Serialize>(&mut self, lines: &[T]) -> Result<()> {
        let bytes = json_lines(lines)?;
        let error = loop {
            match self.file.write(&bytes) {
                Ok(written) if written == bytes.len() => return Ok(()),
                Ok(written) => {
                    if let Ok(meta) = self.file.metadata() {
                        let _ = self.file.set_len(meta.size().saturating_sub(written as u64));
                    }
                    break io::Error::from(nix::Error::ENOSPC);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break error,
            }
        };
        Err(Error::io(&self.path, &error))
    }

    /// The open file, to lock or to sync.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Its path when it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file away, to be synced.
    pub fn into_file(self) -> (File, PathBuf) {
        (self.file, self.path)
    }
}

/// Lines of JSON, with a newline before the first and after each.
pub fn json_lines<T: Serialize>(lines: &[T]) -> Result<Vec<u8>> {
    let mut bytes = vec![b'\n'];
    for line in lines {
        serde_json::to_writer(&mut bytes, line).map_err(json_failed)?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}

/// One line of JSON with its newline.
pub fn json_line<T: Serialize>(line: &T) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(line).map_err(json_failed)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn json_failed(error: serde_json::Error) -> Error {
    Error::new(Kind::Internal, format!("cannot write JSON: {error}"))
}

/// What must be durable before anyone is told of it. Collected over a round, then made durable
/// by [`SyncSet::commit`] in one go.
#[derive(Debug, Default)]
#[must_use = "nothing is durable before commit"]
pub struct SyncSet {
    /// The first few; more are not kept open, since one `syncfs` does for all.
    files: Vec<(File, PathBuf)>,
    dirs: Vec<PathBuf>,
    /// How many files are not kept.
    others: usize,
}

impl SyncSet {
    /// Nothing yet.
    pub fn new() -> SyncSet {
        SyncSet::default()
    }

    /// This file's content.
    pub fn file(&mut self, file: File, path: PathBuf) {
        if self.files.len() <= SYNC_EACH_UP_TO {
            self.files.push((file, path));
        } else {
            self.others += 1;
        }
    }

    /// This directory's entries.
    pub fn dir(&mut self, path: &Path) {
        if !self.dirs.iter().any(|dir| dir == path) {
            self.dirs.push(path.to_path_buf());
        }
    }

    /// All that is on the file system of what else is here: for files that are better not opened.
    pub fn everything(&mut self) {
        self.others += SYNC_EACH_UP_TO + 1;
    }

    /// Everything that another one has.
    pub fn merge(&mut self, other: SyncSet) {
        for (file, path) in other.files {
            self.file(file, path);
        }
        self.others += other.others;
        for dir in other.dirs {
            self.dir(&dir);
        }
    }

    /// How many files and directories are to be synced.
    pub fn len(&self) -> usize {
        self.files.len() + self.dirs.len() + self.others
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes all of it durable. After an error the outcome is unknown (the lines are written,
    /// and may or may not survive a power loss): 500, and the caller says to repeat.
    pub fn commit(self) -> Result<()> {
        if self.len() > SYNC_EACH_UP_TO {
            let (dir, path) = match (self.files.into_iter().next(), self.dirs.into_iter().next()) {
                (Some((file, path)), _) => (file, path),
                (None, Some(dir)) => (File::open(&dir).at(&dir).map_err(unknown)?, dir),
                (None, None) => return Ok(()),
            };
            return nix::unistd::syncfs(&dir).at(&path).map_err(unknown);
        }
        for (file, path) in &self.files {
            sync(file, path).map_err(unknown)?;
        }
        for dir in &self.dirs {
            sync_dir(dir).map_err(unknown)?;
        }
        Ok(())
    }

    /// [`SyncSet::commit`] with the directories synced beside the files, each by a thread: one
    /// commit of the file system's journal serves all who ask for it at a time. For a process that
    /// has threads anyway; one that cannot be started is no error.
    pub fn commit_beside(mut self) -> Result<()> {
        if self.len() > SYNC_EACH_UP_TO {
            return self.commit();
        }
        let dirs = std::mem::take(&mut self.dirs);
        std::thread::scope(|scope| {
            let beside: Vec<_> = dirs
                .iter()
                .map(|dir| {
                    let thread = std::thread::Builder::new().stack_size(SYNC_STACK);
                    (dir, thread.spawn_scoped(scope, || sync_dir(dir)))
                })
                .collect();
            let mut synced = self.commit();
            for (dir, thread) in beside {
                let done = thread.ok().and_then(|thread| thread.join().ok());
                let done = done.unwrap_or_else(|| sync_dir(dir));
                synced = synced.and(done.map_err(unknown));
            }
            synced
        })
    }
}
