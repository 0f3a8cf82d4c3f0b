//! The alarm that ends a CGI request which hangs, whatever it hangs on. One that takes in or gives
//! out what takes long is alive for as long as bytes come and go.

use std::sync::atomic::{AtomicBool, Ordering};

use nix::unistd::alarm;

/// Seconds without a sign of life after which a CGI request is ended by SIGALRM.
const SECONDS: u32 = 60;

/// Whether there is an alarm: commands have none.
static ARMED: AtomicBool = AtomicBool::new(false);

/// Sets the alarm of a CGI request.
pub(super) fn arm() {
    ARMED.store(true, Ordering::Relaxed);
    alarm::set(SECONDS);
}

/// The request is alive.
pub fn put_off() {
    if ARMED.load(Ordering::Relaxed) {
        alarm::set(SECONDS);
    }
}

/// The request is about to do something that may take so many seconds more.
pub fn put_off_for(more: u64) {
    if ARMED.load(Ordering::Relaxed) {
        alarm::set(SECONDS.saturating_add(u32::try_from(more).unwrap_or(u32::MAX)));
    }
}
