//! Primitives of the boards: publish, move, sync; to append see `story`, what to sync together
//! `sync_set`.
//!
//! All rest on two facts of a local file system with an ordered journal: a rename or link is
//! atomic, and after power loss directory changes are there in the order in which they were made,
//! up to some point. What must not vanish is synced before anyone is told of it ([`super::sync_set`]).

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, RenameFlags, renameat2};
use serde::Serialize;

use crate::clock::Present;
use crate::error::{At, Error, Kind, Result, is_shortage};

/// Mode of files that the group may read, before the umask.
pub(super) const MODE: u32 = 0o640;

/// Longest file that is read whole: far longer than any that these programs write.
const LONGEST: u64 = 1 << 30;

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

/// Makes this line all that a file holds, in place: whoever has it open or locked has it still. Not synced.
/// For who holds the file's lock; the line has to be far shorter than a disk sector. Who reads meanwhile,
/// or after a crash, may find the rest of a longer line behind it, and a power loss may leave the old line
/// with the new one's length.
pub fn rewrite_line(file: &File, line: &str) -> io::Result<()> {
    let line = format!("{line}\n");
    file.write_all_at(line.as_bytes(), 0)?;
    let length = line.len() as u64;
    if file.metadata()?.len() > length { file.set_len(length) } else { Ok(()) }
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

/// Opens a plain file to read; anything else is an error, and is not waited for: see [`open_by`].
pub fn open(path: &Path) -> io::Result<File> {
    open_by(OpenOptions::new().read(true), path)
}

/// Opens a plain file by these options, whose flags are set here. Anything else is an error: a job may
/// put what it likes in the place of its own files, and whoever opened a pipe would wait until somebody
/// opens its other end, with locks in hand on which the whole node waits.
pub fn open_by(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    open_plain(options, OFlag::empty(), path).map(|(file, _)| file)
}

/// The same of what is not followed where it is a link. `None` for anything but a plain file: for what a
/// job has there that need not be there, or has taken from its owner. An error for what this process lacks.
pub fn open_own(path: &Path) -> Result<Option<File>> {
    match open_plain(OpenOptions::new().read(true), OFlag::O_NOFOLLOW, path) {
        Ok((file, _)) => Ok(Some(file)),
        Err(error) if is_shortage(&error) => Err(error).at(path),
        Err(_) => Ok(None),
    }
}

/// A plain file and how long it is.
fn open_plain(options: &mut OpenOptions, flags: OFlag, path: &Path) -> io::Result<(File, u64)> {
    let not_plain = || io::Error::other("not a plain file");
    let opened = options.custom_flags((flags | OFlag::O_NONBLOCK).bits()).open(path);
    let file = opened.map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENXIO) => not_plain(), // a pipe that nobody reads, or a socket
        _ => error,
    })?;
    let meta = file.metadata()?;
    match (meta.is_file(), meta.is_dir()) {
        (true, _) => Ok((file, meta.len())),
        (_, true) => Err(Errno::EISDIR.into()),
        _ => Err(not_plain()),
    }
}

/// One version of a file: another one is another file, or has another time or length, or others may read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    file: u64,
    changed: (i64, i64),
    /// When anything of it last changed, its mode and its names, too.
    altered: (i64, i64),
    length: u64,
}

/// Which version of a file is there; `None` where there is none.
pub fn version(path: &Path) -> Result<Option<Version>> {
    let meta = gone_is_fine(fs::metadata(path)).at(path)?;
    Ok(meta.map(|meta| Version {
        file: meta.ino(),
        changed: (meta.mtime(), meta.mtime_nsec()),
        altered: (meta.ctime(), meta.ctime_nsec()),
        length: meta.len(),
    }))
}

/// Whether this is what [`read`] would read: a plain file of a length that these programs write.
pub fn is_plain(meta: &fs::Metadata) -> bool {
    meta.is_file() && meta.len() <= LONGEST
}

/// The content of a file; `None` where there is none.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    gone_is_fine(read_plain(path)).at(path)
}

fn read_plain(path: &Path) -> io::Result<Vec<u8>> {
    let (file, length) = open_plain(OpenOptions::new().read(true), OFlag::empty(), path)?;
    if length > LONGEST {
        return Err(io::Error::other(format!("longer than {LONGEST} bytes")));
    }
    let mut bytes = Vec::new();
    // So much more than it holds that its end is seen by one call.
    bytes.try_reserve_exact(length as usize + 32)?;
    file.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
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

/// Names in a directory, in no order, but for those that are no text. Empty where there is none; entries may
/// vanish at any time.
pub fn names(dir: &Path) -> Result<Vec<String>> {
    let all = all_names(dir)?.into_iter();
    Ok(all.filter_map(|name| name.into_string().ok()).collect())
}

/// The same with those.
pub fn all_names(dir: &Path) -> Result<Vec<OsString>> {
    let Some(entries) = gone_is_fine(fs::read_dir(dir)).at(dir)? else {
        return Ok(Vec::new());
    };
    entries.map(|entry| Ok(entry.at(dir)?.file_name())).collect()
}

/// Where a link leads, as it says itself; `None` for what is none, or is not there.
pub fn link(path: &Path) -> Result<Option<PathBuf>> {
    match fs::read_link(path) {
        Ok(leads) => Ok(Some(leads)),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(None),
        Err(error) => gone_is_fine(Err(error)).at(path),
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

/// Whether this was last changed longer ago than that; `false` for what is not there.
pub fn is_older(path: &Path, than: Duration, now: &Present) -> Result<bool> {
    let Some(meta) = gone_is_fine(fs::symlink_metadata(path)).at(path)? else {
        return Ok(false);
    };
    Ok(now.age(meta.modified().at(path)?) > than)
}
