//! `state/places`: how many requests stay at a time, in all and of each user.
//!
//! Each request that stays has one byte of the file locked, of those that there are for all, and one of its
//! user's. The kernel frees them when the process ends, however it ends: nothing is counted, and nothing
//! can be counted wrongly. The file is empty.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::process;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use sha2::{Digest, Sha256};

use super::root::Root;
use crate::error::{At, Error, Kind, Result};

/// Where the places of users begin: behind all that there can be for all.
const USERS: u64 = 1 << 32;

/// What lies between the places of two users. Two whose names have the same 30 bits of a digest share them.
const ROOM: u64 = 1 << 32;

/// A place, until this is dropped.
#[derive(Debug)]
pub struct Taken {
    _file: File,
}

/// Takes a place for a user. 503 where all are taken, or all of this user's.
pub fn take(root: &Root, user: &str) -> Result<Taken> {
    let path = root.state("places");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(&path).at(&path)?;
    let full = |whose: &str, most: u32, setting: &str| {
        let why = format!(
            "{whose} {most} requests that wait or send much, as many as may (setting {setting}): try again when one has ended"
        );
        Error::new(Kind::Unavailable, why)
    };
    let settings = &root.settings;
    let own = u64::from_le_bytes(Sha256::digest(user)[..8].try_into().unwrap_or_default()) >> 34;
    let (of_user, of_all) = (settings.max_waits_per_user, settings.max_waits);
    if !take_one(&file, USERS + own * ROOM, of_user).at(&path)? {
        return Err(full(&format!("{user} has"), of_user, "max_waits_per_user"));
    }
    if !take_one(&file, 0, of_all).at(&path)? {
        return Err(full("there are", of_all, "max_waits"));
    }
    Ok(Taken { _file: file })
}

/// Locks one of so many bytes from there on; `false` where all are locked. Each begins to look elsewhere.
fn take_one(file: &File, from: u64, count: u32) -> nix::Result<bool> {
    let first = process::id();
    for at in (0..count).map(|index| u64::from(first.wrapping_add(index) % count)) {
        let lock = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: (from + at) as libc::off_t,
            l_len: 1,
            l_pid: 0,
        };
        match fcntl(file, FcntlArg::F_OFD_SETLK(&lock)) {
            Ok(_) => return Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}
