//! Signals by which somebody ends a program, held back while it is at what must not be left half done: a
//! change, durable, of which nothing is told yet. A web server ends a program so whose client has left,
//! and a person presses Ctrl-C.
//!
//! What waits meanwhile asks [`is_ended`], or lets them come: [`apart`], [`mask`].

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Those that are held back. SIGALRM is not: it ends what hangs.
const ENDS: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];

/// Whether they are held back now. One thread of a program does so, and those that it starts meanwhile
/// do as it does.
static IS_HELD: AtomicBool = AtomicBool::new(false);

/// What was blocked before.
static BEFORE: Mutex<Option<SigSet>> = Mutex::new(None);

fn ends() -> SigSet {
    ENDS.into_iter().collect()
}

/// What was blocked before; `None` where nothing is held back.
fn before() -> Option<SigSet> {
    if !IS_HELD.load(Ordering::Relaxed) {
        return None;
    }
    *BEFORE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// While it is there they are held back; one that came meanwhile ends the program when it goes.
#[must_use]
#[derive(Debug)]
pub struct Held(());

impl Held {
    /// From now on. One at a time: a second one would end with the first.
    pub fn back() -> Held {
        let mut before = SigSet::empty();
        // It fails for no signal that there is.
        if pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&ends()), Some(&mut before)).is_ok() {
            *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
            IS_HELD.store(true, Ordering::Relaxed);
        }
        Held(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(before) = before() else { return };
        IS_HELD.store(false, Ordering::Relaxed);
        let _ = before.thread_set_mask(); // as above
    }
}

/// What is to be blocked while something is waited for that a signal is to end: for `ppoll`. `None`: what
/// is blocked anyway.
pub fn mask() -> Option<SigSet> {
    before()
}

/// Does what may take as long as somebody likes, and changes nothing: they end the program meanwhile.
pub fn apart<T>(wait: impl FnOnce() -> T) -> T {
    let Some(before) = before() else { return wait() };
    let _ = before.thread_set_mask();
    let done = wait();
    let _ = ends().thread_block();
    done
}

/// What is started by this command gets what was blocked before: it would inherit the rest.
pub fn as_before(command: &mut Command) {
    let Some(before) = before() else { return };
    let restore = move || before.thread_set_mask().map_err(Into::into);
    // SAFETY: between fork and exec the closure makes one system call on a set that it owns; it
    // allocates nothing, takes no lock, and its error is an errno.
    unsafe {
        command.pre_exec(restore);
    }
}

/// Ready to be read once one of them has come. Nobody reads it: what has come is to end the program yet.
/// `None` where nothing is held back, or there is no descriptor left.
pub fn ended() -> Option<BorrowedFd<'static>> {
    static COME: OnceLock<Option<SignalFd>> = OnceLock::new();
    before()?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    COME.get_or_init(|| SignalFd::with_flags(&ends(), flags).ok()).as_ref().map(AsFd::as_fd)
}

/// Whether one has come that will end the program: who waits for something is to wait no longer.
pub fn is_ended() -> bool {
    let Some(come) = ended() else { return false };
    let has_come = || {
        let mut fds = [PollFd::new(come, PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    };
    // What is ignored, as by `nohup`, comes all the same while it is held back, and is not meant.
    has_come() && ENDS.into_iter().any(|signal| is_pending(signal) && !forget_ignored(signal))
}

/// Whether this signal has come and waits.
fn is_pending(signal: Signal) -> bool {
    let mut pending = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the kernel's answer fills the set, which is read only where it has succeeded.
    unsafe {
        libc::sigpending(pending.as_mut_ptr()) == 0
            && libc::sigismember(pending.as_ptr(), signal as libc::c_int) == 1
    }
}

/// Takes a signal that has come, and does nothing to this process, as if it had not; whether it was one.
fn forget_ignored(signal: Signal) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: no handler is set; the structure is read only where the call has filled it.
    let is_ignored = unsafe {
        libc::sigaction(signal as libc::c_int, std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init_ref().sa_sigaction == libc::SIG_IGN
    };
    // It has come: this does not wait.
    is_ignored && [signal].into_iter().collect::<SigSet>().wait().is_ok()
}
