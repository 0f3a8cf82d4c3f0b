//! Waiting for a change. Wake-ups are hints: whoever waits looks again, woken or not.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use std::os::fd::{AsFd, BorrowedFd};

use crate::error::{At, Result};
use crate::held;

/// Longest time between two looks, whatever inotify says.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where the kernel gives no watches, the first pause until the next look; each is twice as long as the
/// one before...
const FIRST_PAUSE: Duration = Duration::from_millis(2);

/// ...up to this.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Asked once a second by whoever waits, whether they may go on.
type Admission = Box<dyn Fn() -> bool + Send + Sync>;

/// Of the one request that this process answers; a command has none.
static ADMISSION: OnceLock<Admission> = OnceLock::new();

/// When it was asked last; `None` once it was refused.
static ADMITTED_AT: Mutex<Option<Instant>> = Mutex::new(None);

/// From now on waits of this process end when this says `false`: whoever waits has lost the right
/// to it.
pub fn wait_while(admitted: impl Fn() -> bool + Send + Sync + 'static) {
    *ADMITTED_AT.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    let _ = ADMISSION.set(Box::new(admitted)); // a process answers one request
}

/// Whether whoever waits may go on waiting. Not where this process is to end as soon as it may.
pub fn may_wait() -> bool {
    if held::is_ended() {
        return false;
    }
    let Some(admitted) = ADMISSION.get() else { return true };
    let mut admitted_at = ADMITTED_AT.lock().unwrap_or_else(PoisonError::into_inner);
    if admitted_at.is_some_and(|at| at.elapsed() >= LOOK_EVERY) {
        *admitted_at = admitted().then(Instant::now);
    }
    admitted_at.is_some()
}

/// inotify watches. Without any (the kernel's limits are reached: an account has 128 instances) it pauses
/// for some milliseconds, and whoever waits looks again: nobody waits longer for lack of them.
#[derive(Debug)]
pub struct Watch {
    inotify: Option<Inotify>,
    watches: RefCell<Vec<WatchDescriptor>>,
    /// Something could not be watched.
    deaf: Cell<bool>,
    pause: Cell<Duration>,
}

/// Instances that nobody uses now. They are used again and never closed: to close one the kernel
/// waits until no processor can still see its watches, which takes 8 to 24 ms, as long as all else
/// that a short job waits for. At most as many as were ever used at a time.
static IDLE: Mutex<Vec<Inotify>> = Mutex::new(Vec::new());

fn idle() -> MutexGuard<'static, Vec<Inotify>> {
    IDLE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Some(inotify) = self.inotify.take() else { return };
        for watch in self.watches.take() {
            let _ = inotify.rm_watch(watch); // what it watched may be gone, and the watch with it
        }
        idle().push(inotify);
    }
}

impl Watch {
    /// Watches nothing yet.
    pub fn new() -> Watch {
        let used = idle().pop();
        let inotify = match used {
            Some(inotify) => {
                while inotify.read_events().is_ok() {} // meant for whoever had it before
                Some(inotify)
            }
            None => Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok(),
        };
        let deaf = Cell::new(inotify.is_none());
        Watch { inotify, watches: RefCell::default(), deaf, pause: Cell::new(FIRST_PAUSE) }
    }

    /// Watches files, and directories with what lies in them.
    pub fn on(paths: &[&Path]) -> Watch {
        let watch = Watch::new();
        for path in paths {
            watch.add(
                path,
                AddWatchFlags::IN_MODIFY
                    | AddWatchFlags::IN_CREATE
                    | AddWatchFlags::IN_MOVED_TO
                    | AddWatchFlags::IN_MOVE_SELF,
            );
        }
        watch
    }

    /// Waits until something may have changed, for a second at most and not past the
    /// deadline. `false` once that has passed, or whoever waits may not any more.
    pub fn wait_until(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        // An error of the hint leaves the look.
        !left.is_zero() && self.wait(left.min(LOOK_EVERY)).is_ok() && may_wait()
    }

    /// Watches a path; `false` if that is not possible. Where the kernel gives no more watches, none is
    /// waited for from now on.
    pub fn add(&self, path: &Path, flags: AddWatchFlags) -> bool {
        let added = match self.inotify.as_ref().map(|inotify| inotify.add_watch(path, flags)) {
            Some(Ok(added)) => Some(added),
            Some(Err(nix::Error::ENOSPC | nix::Error::ENOMEM)) => {
                self.deaf.set(true);
                None
            }
            Some(Err(_)) | None => None,
        };
        let mut watches = self.watches.borrow_mut();
        let fresh = added.filter(|added| !watches.contains(added));
        watches.extend(fresh);
        added.is_some()
    }

    /// Whether the kernel wakes nobody here: whoever waits looks again and again.
    pub fn is_deaf(&self) -> bool {
        self.deaf.get() || self.watches.borrow().is_empty()
    }

    /// Something has happened: more may, so that the next looks follow soon.
    pub fn quicken(&self) {
        self.pause.set(FIRST_PAUSE);
    }

    /// Waits for anything, at most so long, and forgets what it was.
    pub fn wait(&self, at_most: Duration) -> Result<()> {
        self.events(at_most).map(|_| ())
    }

    /// Waits for anything, here or on another descriptor, at most so long, and forgets what it was.
    /// An error without inotify: there is nothing to be woken by.
    pub fn wait_beside(&self, other: BorrowedFd, at_most: Duration) -> Result<()> {
        let Some(inotify) = &self.inotify else { return Err(nix::Error::EMFILE).at("inotify") };
        wait_for(&[inotify.as_fd(), other], at_most)?;
        while inotify.read_events().is_ok() {}
        Ok(())
    }

    /// Waits for events, at most so long. Empty: nothing came.
    pub fn events(&self, at_most: Duration) -> Result<Vec<InotifyEvent>> {
        let Some(inotify) = self.inotify.as_ref().filter(|_| !self.is_deaf()) else {
            let pause = self.pause.get();
            self.pause.set((pause * 2).min(LONGEST_PAUSE));
            std::thread::sleep(at_most.min(pause));
            return Ok(Vec::new());
        };
        if !wait_for(&[inotify.as_fd()], at_most)? {
            return Ok(Vec::new());
        }
        match inotify.read_events() {
            Ok(events) => Ok(events),
            Err(nix::Error::EAGAIN) => Ok(Vec::new()),
            Err(e) => Err(e).at("inotify"),
        }
    }
}

/// Whether one of them was ready within this time, or this process is to end.
fn wait_for(fds: &[BorrowedFd], at_most: Duration) -> Result<bool> {
    let fds = fds.iter().copied().chain(held::ended());
    let mut fds: Vec<PollFd> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    let millis = u16::try_from(at_most.as_millis()).unwrap_or(u16::MAX).max(1);
    match poll(&mut fds, PollTimeout::from(millis)) {
        Ok(ready) => Ok(ready > 0),
        Err(nix::Error::EINTR) => Ok(false),
        Err(e) => Err(e).at("inotify"),
    }
}

impl Default for Watch {
    fn default() -> Watch {
        Watch::new()
    }
}
