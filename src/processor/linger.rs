//! Lingering: a supervisor with nothing to do stays for a little, since jobs often follow each
//! other, and starting the next one's supervisor would cost as much as a short job.
//!
//! While it lingers (setting `linger`) it holds a slot that names nothing, which takes no room. Whoever accepts a job
//! and then sees such a slot starts no supervisor, and can rely on that: a slot is let go, or gets
//! its first claim, under the board's lock, and the queue is looked at under the same hold of it.
//! Only a sweep does not rely on it, so a job waits no longer for one that is stopped or stuck.

use std::os::fd::AsFd;
use std::time::Instant;

use nix::sys::inotify::AddWatchFlags;

use super::cgroup::Place;
use super::supervisor::{Kept, Supervisor};
use crate::board::watch::Watch;
use crate::error::Result;

impl Supervisor<'_> {
    /// Waits for jobs. Returns where groups may be made, and its slot with its group once there are
    /// some, `None` if it is time to end.
    pub(super) fn linger(mut self) -> Result<(Option<Place>, Option<Kept>)> {
        let Some(slot) = self.slot.take().filter(|_| self.lingers) else {
            return Ok((None, None));
        };
        let begun = Instant::now();
        let patience = self.runs.root().settings.linger;
        let queue = self.runs.queue_dir();
        let watch = Watch::new();
        let watched = watch.add(&queue, AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE_SELF);
        loop {
            // Watched before the look, so that nothing falls between look and wait.
            if queue.is_dir() && self.others_wait()? {
                return Ok((self.place, Some(Kept { slot, group: self.group })));
            }
            let left = patience.saturating_sub(begun.elapsed());
            let told = self.told_to_end();
            let over = told || left.is_zero() || !watched || !queue.is_dir();
            if over || watch.wait_beside(self.signals.as_fd(), left).is_err() {
                let held = self.runs.lock()?;
                let waits = !told && self.others_wait()?;
                if !waits {
                    self.limits.remove(self.runs.root().dir(), slot.number);
                    self.remove_group();
                }
                let kept = waits.then_some(Kept { slot, group: self.group });
                drop(held);
                return Ok((self.place, kept));
            }
        }
    }

    /// Takes note of signals: whether one of them was to end it.
    fn told_to_end(&mut self) -> bool {
        let told = self.hear().stop;
        let _ = self.is_alone(); // reaps another supervisor that it had started
        told
    }
}
