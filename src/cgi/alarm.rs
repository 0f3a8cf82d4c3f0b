//! The alarm that ends a CGI request which hangs, whatever it hangs on. One that takes in or gives
//! out what takes long is alive as long as bytes come and go, up to a time.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::unistd::alarm;

/// Longest that a request's body may take to arrive. Whoever forgets what became of a job must
/// remember it for longer than a request for it can be under way.
pub const LONGEST_ARRIVAL: Duration = Duration::from_secs(20 * 60);

/// Seconds without a sign of life after which a CGI request is ended by SIGALRM.
pub(super) const SECONDS: u32 = 60;

/// An answer is on its way this long before that.
const TO_ANSWER: Duration = Duration::from_secs(5);

/// Since when there is an alarm: commands have none.
static BEGAN: OnceLock<Instant> = OnceLock::new();

/// Seconds for which it may be put off in all.
static MOST: AtomicU64 = AtomicU64::new(LONGEST_ARRIVAL.as_secs());

/// When it comes, in milliseconds after it was armed.
static AT: AtomicU64 = AtomicU64::new(0);

/// Sets the alarm of a CGI request.
pub(super) fn arm() {
    let _ = BEGAN.set(Instant::now()); // each request is a process
    put_off();
}

/// The request is alive.
pub fn put_off() {
    let Some(began) = BEGAN.get() else { return };
    if began.elapsed().as_secs() < MOST.load(Ordering::Relaxed) {
        set(began, SECONDS);
    }
}

/// The request is about to do something that may take so many seconds more.
pub fn put_off_for(more: u64) {
    let Some(began) = BEGAN.get() else { return };
    MOST.fetch_add(more, Ordering::Relaxed);
    set(began, SECONDS.saturating_add(u32::try_from(more).unwrap_or(u32::MAX)));
}

fn set(began: &Instant, seconds: u32) {
    let at = began.elapsed() + Duration::from_secs(seconds.into());
    AT.store(u64::try_from(at.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    alarm::set(seconds);
}

/// How long the request may wait for others and still answer; `None` for what has no alarm. Whoever
/// sent it is to be told something, however many nodes say nothing.
pub fn left() -> Option<Duration> {
    let began = BEGAN.get()?;
    let at = Duration::from_millis(AT.load(Ordering::Relaxed));
    Some(at.saturating_sub(began.elapsed() + TO_ANSWER))
}
