//! Time as the state files write it: RFC 3339 in UTC with milliseconds, and
//! durations as people write them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The present, as every `at` in the state files is written.
pub fn now() -> String {
    rfc3339(SystemTime::now())
}

/// A time as `2026-01-31T12:00:00.250Z`. One that has no such form, as files may have (`touch -d`), is
/// the nearest that has: of the years 1970 to 9999.
pub fn rfc3339(time: SystemTime) -> String {
    const LAST: Duration = Duration::from_millis(253_402_300_799_999);
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default().min(LAST);
    humantime::format_rfc3339_millis(UNIX_EPOCH + since).to_string()
}

/// Reads an RFC 3339 time in UTC.
pub fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339_weak(text).ok()
}

/// A wait until some time, as it was written down at another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wait {
    until: SystemTime,
    longest: Duration,
}

impl Wait {
    /// A wait that was written down at `at`, both as in the state files. `None` if one of them is no
    /// time.
    pub fn read(at: &str, until: &str) -> Option<Wait> {
        let (at, until) = (parse_rfc3339(at)?, parse_rfc3339(until)?);
        Some(Wait { until, longest: until.duration_since(at).unwrap_or_default() })
    }

    /// Until when it goes on, if it does. One that would be far longer now than it was when it was
    /// written down is over: the clock has been set back since.
    pub fn goes_on(self, now: SystemTime) -> Option<SystemTime> {
        const SET_BACK: Duration = Duration::from_secs(60); // more than clocks are put right by
        let left = self.until.duration_since(now).ok().filter(|left| !left.is_zero())?;
        (left <= self.longest + SET_BACK).then_some(self.until)
    }
}

/// The present, by which ages are counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    now: SystemTime,
    steps: Vec<Step>,
    set_back: Vec<SetBack>,
}

/// A clock was put forward.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What it would have said without that: earlier times are from before. Milliseconds since 1970.
    pub before: i64,
    /// By so many milliseconds.
    pub by: i64,
}

/// A clock was set back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetBack {
    /// What it would have said without that: no later time is from before. Milliseconds since 1970.
    pub until: i64,
    /// By so many milliseconds.
    pub by: i64,
}

impl Present {
    /// As the clock says, which was put forward like this.
    pub fn of(now: SystemTime, steps: Vec<Step>) -> Present {
        Present { now, steps, set_back: Vec::new() }
    }

    /// The same of one that was set back, too, the last time last.
    #[must_use]
    pub fn and_set_back(self, set_back: Vec<SetBack>) -> Present {
        Present { set_back, ..self }
    }

    /// This one with the clock at another time, if nobody has set it in between.
    #[must_use]
    pub fn at(&self, now: SystemTime) -> Present {
        Present { now, ..self.clone() }
    }

    /// What the clock says.
    pub fn time(&self) -> SystemTime {
        self.now
    }

    /// How long ago that was: none for a time that is yet to come. A step of the clock is no time that
    /// has passed.
    pub fn age(&self, time: SystemTime) -> Duration {
        let since = self.now.duration_since(time).unwrap_or_default();
        since.saturating_sub(self.put_forward_since(time))
    }

    /// When so much time will have passed since `time`, by the clock as it is now. A time that is yet to
    /// come is from before the clock was set back; of one that may be from before or from after that it is
    /// taken to be from after: nothing is over too early. `None` if no clock says it.
    pub fn passed_since(&self, time: SystemTime, duration: Duration) -> Option<SystemTime> {
        let mut from = time.checked_add(self.put_forward_since(time))?;
        let mut later = &self.set_back[..]; // than those that are counted
        while from > self.now
            && let Some(last) = later.iter().rposition(|step| millis(from) <= step.until)
        {
            from = from.checked_sub(Duration::from_millis(later[last].by.unsigned_abs()))?;
            later = &later[last + 1..];
        }
        from.checked_add(duration)
    }

    fn put_forward_since(&self, time: SystemTime) -> Duration {
        let written = millis(time);
        let steps = self.steps.iter().filter(|step| written < step.before);
        let put: i64 = steps.map(|step| step.by).sum();
        Duration::from_millis(put.max(0) as u64)
    }
}

/// Milliseconds since 1970 of a time; 0 before it.
pub fn millis(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64
}

impl From<SystemTime> for Present {
    /// By a clock that nobody has set.
    fn from(now: SystemTime) -> Present {
        Present::of(now, Vec::new())
    }
}

/// Reads a duration: a number of seconds ("30", "0.5") or "30s", "5m", "1h 30m". At most ten years.
pub fn parse_duration(text: &str) -> Option<Duration> {
    const TEN_YEARS: Duration = Duration::from_secs(3652 * 86_400);
    let text = text.trim();
    let duration = seconds(text).or_else(|| humantime::parse_duration(text).ok())?;
    (duration <= TEN_YEARS).then_some(duration)
}

/// A number of seconds, to the nanosecond. By whole numbers: a program that reads a float anywhere
/// carries the tables for it.
fn seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let plain = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !plain(whole) || !plain(fraction) {
        return None;
    }
    let nanos: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    Some(Duration::new(whole.parse().ok()?, nanos.parse().ok()?))
}

/// A duration as a person reads it: "30s", "1m 30s".
pub fn human(duration: Duration) -> String {
    humantime::format_duration(Duration::from_millis(duration.as_millis() as u64)).to_string()
}

/// Whole seconds since 1970 of a time; 0 before it.
pub fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_no_longer_than_when_it_began() {
        let at = |text: &str| parse_rfc3339(text).unwrap();
        let wait = Wait::read("2027-01-01T00:00:00Z", "2027-01-01T00:01:00Z").unwrap();
        let until = at("2027-01-01T00:01:00Z");
        assert_eq!(wait.goes_on(at("2027-01-01T00:00:00Z")), Some(until));
        assert_eq!(wait.goes_on(at("2027-01-01T00:00:59Z")), Some(until));
        assert_eq!(wait.goes_on(until), None);
        assert_eq!(wait.goes_on(at("2026-01-01T00:00:00Z")), None, "set back by a year");
        assert_eq!(Wait::read("t", "2027-01-01T00:01:00Z"), None);
    }

    #[test]
    fn every_time_has_a_form() {
        let hour = Duration::from_secs(3600);
        assert_eq!(rfc3339(UNIX_EPOCH - hour), "1970-01-01T00:00:00.000Z");
        let far = UNIX_EPOCH + Duration::from_secs(253_402_300_800);
        for time in [far, far + hour] {
            assert_eq!(rfc3339(time), "9999-12-31T23:59:59.999Z");
        }
        assert_eq!(rfc3339(far - hour), "9999-12-31T23:00:00.000Z");
    }

    #[test]
    fn durations() {
        let millis = |text: &str| parse_duration(text).map(|duration| duration.as_millis());
        let right = ["30", "0.5", "1.0", "0", " 2 ", "30s", "1h 30m", "1.0000000019"];
        let wanted = [30_000, 500, 1000, 0, 2000, 30_000, 5_400_000, 1000];
        assert_eq!(right.map(millis), wanted.map(Some));
        for wrong in ["", ".5", "-1", "+1", "1.5.5", "1e3", "x", "inf", "NaN", "400000000"] {
            assert_eq!(parse_duration(wrong), None, "{wrong:?}");
        }
    }
}
