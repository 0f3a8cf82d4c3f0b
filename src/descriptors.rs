//! How many files a process may have open. A poller needs one for each node; what it starts, and
//! the jobs in the end, get what was given to the poller: some programs count on few.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::OnceLock;

use nix::libc::rlim_t;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// What this process was given, if it was raised.
static GIVEN: OnceLock<(rlim_t, rlim_t)> = OnceLock::new();

/// Raises the limit of this process as far as it may. Where that is refused it stays as it is.
pub fn raise() {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() {
        let _ = GIVEN.set((soft, hard)); // by an earlier call, which found what was given
    }
}

/// How many files this process may have open.
pub fn most() -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// What is started by this command gets what was given to this process.
pub fn as_given(command: &mut Command) {
    let Some((soft, hard)) = GIVEN.get().copied() else { return };
    let restore = move || setrlimit(Resource::RLIMIT_NOFILE, soft, hard).map_err(Into::into);
    // SAFETY: between fork and exec the closure makes one system call on two integers that it owns;
    // it allocates nothing, takes no lock, and its error is an errno.
    unsafe {
        command.pre_exec(restore);
    }
}
