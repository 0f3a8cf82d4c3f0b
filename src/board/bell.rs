//! A bell between processes: a pipe with a name (FIFO). Whoever waits has it open; whoever rings puts a byte
//! into it, and does nothing where nobody waits. It costs no inotify instance, of which an account has 128.
//!
//! A hint like every other: who waits looks before, after, and now and then without being woken.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::files;
use crate::error::{At, Result};

const FLAGS: OFlag = OFlag::O_NONBLOCK.union(OFlag::O_NOFOLLOW);

/// Where somebody waits.
#[derive(Debug)]
pub struct Bell {
    pipe: File,
}

impl Bell {
    /// The bell of this name, which is made where there is none. From now on nothing is missed.
    pub fn at(path: &Path) -> Result<Bell> {
        make(path)?;
        // Open to write, too: it does not end when a ringer leaves.
        let mut options = OpenOptions::new();
        Ok(Bell { pipe: open(options.read(true).write(true), path).at(path)? })
    }

    /// Waits until it is rung, at most so long; whether it was.
    pub fn wait(&self, at_most: Duration) -> bool {
        let rung = is_ready(&self.pipe, PollFlags::POLLIN, at_most);
        let mut bytes = [0; 512];
        while (&self.pipe).read(&mut bytes).is_ok_and(|read| read == bytes.len()) {}
        rung
    }
}

/// Rings a bell. Where nobody waits nothing happens.
pub fn ring(path: &Path) {
    if let Ok(mut pipe) = open(OpenOptions::new().write(true), path) {
        let _ = pipe.write(b"\n"); // a full one has been rung
    }
}

/// Makes a pipe, unless one is there; what else lies there is removed.
pub(super) fn make(path: &Path) -> Result<()> {
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    loop {
        match mkfifo(path, mode) {
            Err(Errno::EEXIST) => {}
            made => return made.at(path),
        }
        match files::gone_is_fine(path.symlink_metadata()).at(path)? {
            Some(there) if there.file_type().is_fifo() => return Ok(()),
            Some(_) => files::remove(path)?,
            None => {}
        }
    }
}

/// Opens a pipe by these options, without waiting for its other end. Anything else is an error, and so is
/// a pipe to write to that nobody reads.
pub(super) fn open(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let file = options.custom_flags(FLAGS.bits()).open(path)?;
    match file.metadata()?.file_type().is_fifo() {
        true => Ok(file),
        false => Err(io::Error::other("not a pipe")),
    }
}

/// Whether something can be done with a file within this time.
pub(super) fn is_ready(file: &File, what: PollFlags, at_most: Duration) -> bool {
    let millis = at_most.as_millis().min(i32::MAX as u128) as i32;
    // Rounded up: what is due then is due.
    let timeout = PollTimeout::try_from(millis.saturating_add(1)).unwrap_or(PollTimeout::MAX);
    let mut fds = [PollFd::new(file.as_fd(), what)];
    poll(&mut fds, timeout).is_ok_and(|ready| ready > 0)
}

/// Whether it is to be tried again.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
