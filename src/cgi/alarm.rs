//! The alarm that ends a CGI request which hangs, whatever it hangs on. One that takes in or gives
//! out what takes long is alive as long as bytes come and go, up to a time.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use nix::unistd::alarm;

use super::body::LONGEST_ARRIVAL;

/// Seconds without a sign of life after which a CGI request is ended by SIGALRM.
const SECONDS: u32 = 60;

/// Since when there is an alarm: commands have none.
static BEGAN: OnceLock<Instant> = OnceLock::new();

/// Seconds for which it may be put off in all.
static MOST: AtomicU64 = AtomicU64::new(LONGEST_ARRIVAL.as_secs());

/// Sets the alarm of a CGI request.
pub(super) fn arm() {
    let _ = BEGAN.set(Instant::now()); // each request is a process
    alarm::set(SECONDS);
}

/// The request is alive.
pub fn put_off() {
    let Some(began) = BEGAN.get() else { return };
    if began.elapsed().as_secs() < MOST.load(Ordering::Relaxed) {
        alarm::set(SECONDS);
    }
}

/// The request is about to do something that may take so many seconds more.
pub fn put_off_for(more: u64) {
    if BEGAN.get().is_some() {
        MOST.fetch_add(more, Ordering::Relaxed);
        alarm::set(SECONDS.saturating_add(u32::try_from(more).unwrap_or(u32::MAX)));
    }
}
