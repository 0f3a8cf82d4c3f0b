//! Time as the state files write it: RFC 3339 in UTC with milliseconds, and
//! durations as people write them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The present, as every `at` in the state files is written.
pub fn now() -> String {
    rfc3339(SystemTime::now())
}

/// A time as `2026-01-31T12:00:00.250Z`.
pub fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

/// Reads an RFC 3339 time in UTC.
pub fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339_weak(text).ok()
}

/// Reads a duration: a number of seconds ("30", "0.5") or "30s", "5m", "1h 30m". At most ten years.
pub fn parse_duration(text: &str) -> Option<Duration> {
    const TEN_YEARS: Duration = Duration::from_secs(3652 * 86_400);
    let text = text.trim();
    let duration = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok()?,
        Err(_) => humantime::parse_duration(text).ok()?,
    };
    (duration <= TEN_YEARS).then_some(duration)
}

/// A duration as a person reads it: "30s", "1m 30s".
pub fn human(duration: Duration) -> String {
    humantime::format_duration(Duration::from_millis(duration.as_millis() as u64)).to_string()
}

/// Whole seconds since 1970 of a time; 0 before it.
pub fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
