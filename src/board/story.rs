//! Stories: files of JSON lines that are only ever appended to.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::feed_file::{read_full, whole_lines};
use super::files::{self, MODE, gone_is_fine, is_plain, json_lines, open_by, parent};
use crate::error::{At, Error, Result};

/// How many bytes of a story are carried over where it is made anew: more than one has that nobody has
/// filled up.
const MOST_CARRIED: u64 = 64 << 20;

/// What the owner of a story must be able to do with it.
const READ: u32 = 0o400;
const CHANGE: u32 = 0o600;
const CHANGE_DIR: u32 = 0o700;

/// A story: a file of JSON lines that is only ever appended to.
#[derive(Debug)]
pub struct Story {
    file: File,
    path: PathBuf,
}

impl Story {
    /// Opens an existing story to read and append; `None` where there is none.
    pub fn open(path: PathBuf) -> Result<Option<Story>> {
        let opened = open_by(OpenOptions::new().read(true).append(true), &path);
        let file = gone_is_fine(opened).at(&path)?;
        Ok(file.map(|file| Story { file, path }))
    }

    /// Opens a story to append, making an empty one where there is none. One that was closed to its owner
    /// is opened to them.
    pub fn open_or_create(path: PathBuf) -> Result<Story> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(MODE);
        let opened = open_by(&mut options, &path).or_else(|error| {
            let is_closed = error.kind() == io::ErrorKind::PermissionDenied;
            if is_closed && fs::set_permissions(&path, Permissions::from_mode(MODE)).is_ok() {
                return open_by(&mut options, &path);
            }
            Err(error)
        });
        let file = opened.at(&path)?;
        Ok(Story { file, path })
    }

    /// Makes this story what lies under its path again, where somebody has removed it since it was opened,
    /// has put something else there, made it longer than is ever read, or closed it to its owner: a job
    /// may do all that to its own. What lies there instead is removed, and the lines so far are carried
    /// over. For the only one who appends; not synced. A crash leaves no story, or one that lacks them.
    ///
    /// Returns whether it is another file now. Errors: where the lines could not be carried over, what is
    /// appended from now on goes to the new story all the same; else to the old one.
    pub fn renew(&mut self) -> Result<bool> {
        if self.is_in_place().at(&self.path)? {
            return Ok(false);
        }
        let lines = self.first_lines().at(&self.path)?;
        make_way(&self.path)?;
        *self = Story::open_or_create(self.path.clone())?;
        if !lines.is_empty() {
            self.append_lines(&lines)?;
        }
        Ok(true)
    }

    /// Whether the open file is the one that others find, which is opened to its owner then.
    fn is_in_place(&self) -> io::Result<bool> {
        let own = self.file.metadata()?;
        let Some(there) = look(&self.path)? else { return Ok(false) };
        if (own.dev(), own.ino()) != (there.dev(), there.ino()) || !is_plain(&own) {
            return Ok(false);
        }
        if own.mode() & CHANGE != CHANGE {
            self.file.set_permissions(Permissions::from_mode(own.mode() | CHANGE))?;
        }
        Ok(true)
    }

    /// Its whole lines, of one that is far too long the first ones.
    fn first_lines(&self) -> io::Result<Vec<u8>> {
        let size = self.file.metadata()?.size().min(MOST_CARRIED) as usize; // 64 MiB at most
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(size + 1)?;
        bytes.resize(size, 0);
        let length = read_full(&self.file, &mut bytes, 0)?;
        bytes.truncate(whole_lines(&bytes[..length]));
        Ok(bytes)
    }

    /// All of it.
    pub fn read(&mut self) -> Result<Vec<u8>> {
        let size = self.file.metadata().at(&self.path)?.size();
        if size == 0 {
            return Ok(Vec::new()); // that of most jobs when it is opened
        }
        let mut bytes = Vec::new();
        let room = usize::try_from(size).ok().and_then(|size| size.checked_add(1));
        let had = room.is_some_and(|room| bytes.try_reserve_exact(room).is_ok());
        let Some(room) = room.filter(|_| had) else {
            return Err(Error::io(&self.path, &nix::Error::ENOMEM.into()));
        };
        bytes.resize(room, 0);
        let length = read_full(&self.file, &mut bytes, 0).at(&self.path)?;
        bytes.truncate(length);
        if length == room {
            // It grows meanwhile.
            io::Seek::seek(&mut self.file, io::SeekFrom::Start(size + 1)).at(&self.path)?;
            self.file.read_to_end(&mut bytes).at(&self.path)?;
        }
        Ok(bytes)
    }

    /// Appends lines by one write that starts and ends with a newline, so that a line torn by a
    /// crash cannot spoil its neighbours. If only a part could be written, that part is cut off
    /// again; the caller must be the only one who appends. Not synced.
    pub fn append<T: Serialize>(&mut self, lines: &[T]) -> Result<()> {
        self.append_lines(&json_lines(lines)?)
    }

    /// The same with lines as [`json_lines`] makes them.
    pub(super) fn append_lines(&mut self, bytes: &[u8]) -> Result<()> {
        let error = loop {
            match self.file.write(bytes) {
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

/// Removes what lies in the place of a story and is none that can be read, and opens one to its owner that
/// was closed to them: a job may have done that to its own. Whoever has that open finds it out by
/// [`Story::renew`]; of what nobody has open there is no story then, or one that can be read.
pub fn clear(path: &Path) -> Result<()> {
    match look(path).at(path)? {
        Some(there) if !is_plain(&there) => make_way(path),
        Some(there) if there.mode() & READ == 0 => {
            fs::set_permissions(path, Permissions::from_mode(MODE)).at(path)
        }
        Some(_) => Ok(()),
        // One is to be made there, unless all of it is gone.
        None => gone_is_fine(open_dir(parent(path))).map(|_| ()).at(path),
    }
}

/// What lies there, a link itself. A directory that was closed to its owner is opened to look.
fn look(path: &Path) -> io::Result<Option<Metadata>> {
    let look = || gone_is_fine(fs::symlink_metadata(path));
    match look() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_dir(parent(path))?;
            look()
        }
        looked => looked,
    }
}

/// Removes what lies where a story is to be, however deep it is.
fn make_way(path: &Path) -> Result<()> {
    open_dir(parent(path)).at(path)?;
    match look(path).at(path)? {
        Some(there) if there.is_dir() => files::remove_tree(path),
        Some(_) => files::remove(path),
        None => Ok(()),
    }
}

/// Lets its owner look into a directory and change it. What is none is left alone: behind a link there is
/// somebody else's.
fn open_dir(dir: &Path) -> io::Result<()> {
    let meta = fs::symlink_metadata(dir)?;
    if !meta.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    if meta.mode() & CHANGE_DIR == CHANGE_DIR {
        return Ok(());
    }
    fs::set_permissions(dir, Permissions::from_mode(meta.mode() | CHANGE_DIR))
}
