//! Reaping: how a child ended, and what it had used.

use nix::errno::Errno;
use nix::libc;
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use crate::model::usage::Usage;

/// The next child that has ended, without waiting, with what it and what it waited for have used.
pub(super) fn next() -> nix::Result<(WaitStatus, Usage)> {
    let mut status = 0;
    // SAFETY: plain numbers, of which zeros are some; the kernel fills both in.
    let (pid, used) = unsafe {
        let mut used: libc::rusage = std::mem::zeroed();
        (libc::wait4(-1, &raw mut status, libc::WNOHANG, &raw mut used), used)
    };
    match pid {
        0 => Ok((WaitStatus::StillAlive, Usage::default())),
        1.. => Ok((WaitStatus::from_raw(Pid::from_raw(pid), status)?, usage(&used))),
        _ => Err(Errno::last()),
    }
}

fn usage(used: &libc::rusage) -> Usage {
    let number = |number: i64| u64::try_from(number).unwrap_or(0);
    let micros = |time: &libc::timeval| number(time.tv_sec) * 1_000_000 + number(time.tv_usec);
    Usage {
        cpu_ms: (micros(&used.ru_utime) + micros(&used.ru_stime)) / 1000,
        max_memory: number(used.ru_maxrss) << 10,
    }
}
