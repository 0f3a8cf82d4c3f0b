//! Files that come with a request, on the disk as they arrive: in a directory of their own in a
//! board's `tmp/`, which becomes the job's. No more of them than a piece is ever in memory.
//!
//! The directory is locked (`flock`) for as long as somebody writes in it; what a crash leaves is
//! not, and clean-up removes it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::fcntl::OFlag;
use sha2::{Digest, Sha256};

use super::files;
use super::lock;
use super::root::Root;
use super::sync_set::SyncSet;
use crate::clock::Present;
use crate::error::{At, Error, Kind, Result};

/// What the names of such directories begin with.
const PREFIX: &str = "upload-";

/// One that nobody holds is litter from this age on: whoever makes one locks it at once.
const ABANDONED: Duration = Duration::from_secs(60);

/// Most files of one request.
pub const MOST_FILES: usize = 10_000;

/// So many bytes are written, of however many files, before they are synced: the last sync, for which
/// whoever sends them waits, has no more than that to do, and little of the machine's memory is kept busy.
const SYNC_EVERY: u64 = 32 << 20;

/// Which board the files come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The head's, where they are told from others by what they hold.
    Head,
    /// The node's.
    Node,
}

/// A file that has arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrived {
    /// Its name.
    pub name: String,
    /// How long it is.
    pub size: u64,
    /// The hash of what it holds; at the head only.
    pub(super) hash: Option<Vec<u8>>,
}

/// Files that arrive. They are removed when this is dropped, unless they have become a job's.
#[derive(Debug)]
pub struct Incoming {
    dir: PathBuf,
    /// Locked while this is there.
    alive: File,
    place: Place,
    /// How many bytes more there may be.
    left: u64,
    most: u64,
    files: Vec<Arrived>,
    /// How many bytes of these are not synced.
    unsynced: u64,
    sync: SyncSet,
    is_placed: bool,
}

impl Incoming {
    /// Makes an empty directory for files of at most the setting `max_upload` in all.
    pub fn new(root: &Root, place: Place) -> Result<Incoming> {
        root.for_change()?;
        let tmp = root.state(match place {
            Place::Head => "scheduler/tmp",
            Place::Node => "processor/tmp",
        });
        let dir = tmp.join(format!("{PREFIX}{}", files::random_name()?));
        DirBuilder::new().mode(0o750).create(&dir).at(&dir)?;
        let alive = File::open(&dir).at(&dir).and_then(|file| {
            lock::try_lock(&file).at(&dir)?;
            Ok(file)
        });
        if alive.is_err() {
            let _ = files::remove_tree(&dir); // the first error is the one to report
        }
        let most = root.settings.max_upload;
        Ok(Incoming {
            dir,
            alive: alive?,
            place,
            left: most,
            most,
            files: Vec::new(),
            unsynced: 0,
            sync: SyncSet::new(),
            is_placed: false,
        })
    }

    /// Begins a file. 400 for what cannot be a file's name here, or is another's already.
    pub fn begin(&mut self, name: &str) -> Result<Arriving<'_>> {
        let (path, file) = self.create(name)?;
        let hash = (self.place == Place::Head).then(Sha256::new);
        Ok(Arriving { incoming: self, name: name.into(), path, file, hash, size: 0, unsynced: 0 })
    }

    /// A copy of a file, which must have this size. What it holds does not come by here: the kernel
    /// copies it, or lets both have the same blocks. A second name of it would not do: jobs may
    /// write to their files, and who has it still needs it as it is.
    pub fn copy(&mut self, name: &str, from: &Path, size: u64) -> Result<()> {
        let mut source = File::open(from).at(from)?;
        let (path, mut file) = self.create(name)?;
        self.count(size)?;
        let copied = io::copy(&mut source, &mut file).at(&path)?;
        if copied != size {
            let why = format!("{}: has {copied} bytes, not {size} any more", from.display());
            return Err(Error::new(Kind::Internal, why));
        }
        self.sync.file(file, path);
        self.files.push(Arrived { name: name.into(), size, hash: None });
        Ok(())
    }

    /// What has arrived.
    pub fn files(&self) -> &[Arrived] {
        &self.files
    }

    /// Where a file lies, until it is a job's.
    pub fn path(&self, file: &Arrived) -> PathBuf {
        self.dir.join(&file.name)
    }

    fn create(&self, name: &str) -> Result<(PathBuf, File)> {
        check_name(name)?;
        if self.files.len() >= MOST_FILES {
            let why = format!("more than {MOST_FILES} files in one request");
            return Err(Error::new(Kind::TooLarge, why));
        }
        let path = self.dir.join(name);
        let made = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(files::MODE)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(&path);
        match made {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                Err(Error::bad(format!("two files are named {name:?}")))
            }
            made => Ok((path.clone(), made.at(path)?)),
        }
    }

    fn count(&mut self, bytes: u64) -> Result<()> {
        let most = self.most;
        self.left = self.left.checked_sub(bytes).ok_or_else(|| {
            let why = format!("the files have more than {most} bytes (setting max_upload)");
            Error::new(Kind::TooLarge, why)
        })?;
        Ok(())
    }

    /// Gives the directory its name, on the same file system. Not durable before the set, the
    /// directory and the one that holds its name are synced. An error where something has that name.
    pub(super) fn become_dir(mut self, to: &Path) -> Result<SyncSet> {
        // Its age there counts from now on: the last of its files may have taken long to arrive.
        self.alive.set_modified(SystemTime::now()).at(&self.dir)?;
        if !files::rename_new(&self.dir, to)? {
            return Err(Error::new(Kind::Internal, format!("{} is there already", to.display())));
        }
        self.is_placed = true;
        Ok(std::mem::take(&mut self.sync))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.is_placed {
            let _ = files::remove_tree(&self.dir); // clean-up removes what is left
        }
    }
}

/// A file that is arriving. One that is dropped before its end goes with all the others.
pub struct Arriving<'i> {
    incoming: &'i mut Incoming,
    name: String,
    path: PathBuf,
    file: File,
    hash: Option<Sha256>,
    size: u64,
    unsynced: u64,
}

impl Arriving<'_> {
    /// Writes the next piece. 413 once there is more than the setting `max_upload` allows.
    pub fn write(&mut self, piece: &[u8]) -> Result<()> {
        let length = piece.len() as u64;
        self.incoming.count(length)?;
        self.file.write_all(piece).at(&self.path)?;
        if let Some(hash) = &mut self.hash {
            hash.update(piece);
        }
        self.size += length;
        self.unsynced += length;
        if self.unsynced + self.incoming.unsynced >= SYNC_EVERY {
            match self.incoming.unsynced {
                0 => self.file.sync_data().at(&self.path)?,
                // Those before it are closed: all of the file system has to be.
                _ => nix::unistd::syncfs(&self.file).at(&self.path)?,
            }
            (self.unsynced, self.incoming.unsynced) = (0, 0);
        }
        Ok(())
    }

    /// That was all of it.
    pub fn end(self) {
        let hash = self.hash.map(|hash| hash.finalize().to_vec());
        self.incoming.unsynced += self.unsynced;
        self.incoming.sync.file(self.file, self.path);
        self.incoming.files.push(Arrived { name: self.name, size: self.size, hash });
    }
}

/// Refuses what cannot be the name under which a file is stored: anything but a plain file name.
fn check_name(name: &str) -> Result<()> {
    let is_plain = !name.is_empty()
        && name.len() <= 255
        && !name.starts_with(['.', '-'])
        && !name.chars().any(|c| c == '/' || c.is_control());
    if is_plain {
        return Ok(());
    }
    let shown: String = name.chars().take(80).collect();
    Err(Error::bad(format!(
        "{shown:?} cannot be a file's name here: no slash, no control character, no leading dot or dash"
    )))
}

/// Whether this is where files arrive, or did.
pub fn is_one(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(PREFIX))
}

/// Whether nobody writes there any more. `false` for one that is gone.
pub fn is_abandoned(path: &Path, now: &Present) -> Result<bool> {
    if !files::is_older(path, ABANDONED, now)? {
        return Ok(false);
    }
    let Some(dir) = files::gone_is_fine(File::open(path)).at(path)? else { return Ok(false) };
    lock::is_free(&dir).at(path)
}
