//! Waiting for files to change: inotify as a hint, a look every second as the truth.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::os::fd::AsFd;

/// Longest time between two looks, whatever inotify says.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Watches files and directories. Where the kernel has no watch to give, every wait is a short
/// sleep: slower, and right all the same.
#[derive(Debug)]
pub struct Watch {
    inotify: Option<Inotify>,
}

impl Watch {
    /// Watches these from now on; those that do not exist are left out.
    pub fn new(paths: &[&Path]) -> Watch {
        let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
        let inotify = Inotify::init(flags).ok();
        let watch = Watch { inotify };
        for path in paths {
            watch.add(path);
        }
        watch
    }

    /// Watches one more.
    pub fn add(&self, path: &Path) {
        if let Some(inotify) = &self.inotify {
            let what = AddWatchFlags::IN_MODIFY
                | AddWatchFlags::IN_CREATE
                | AddWatchFlags::IN_MOVED_TO
                | AddWatchFlags::IN_MOVE_SELF;
            let _ = inotify.add_watch(path, what); // a hint only
        }
    }

    /// Waits until something may have changed, at most until `deadline`. `false` once that has
    /// passed.
    pub fn wait(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        match &self.inotify {
            Some(inotify) => {
                let pause = left.min(LOOK_EVERY).as_millis() as u16 + 1;
                let mut fds = [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)];
                let _ = poll(&mut fds, PollTimeout::from(pause)); // interrupted: look
                let _ = inotify.read_events(); // what it was does not matter
            }
            None => std::thread::sleep(left.min(Duration::from_millis(50))),
        }
        true
    }
}
