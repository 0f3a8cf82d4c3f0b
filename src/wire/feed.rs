//! What changed on a node: a head follows its feed, page by page.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::run_status::RunStatus;

/// The parameters of the question.
pub const SINCE: &str = "since";

/// How long something is waited for.
pub const WAIT: &str = "wait";

/// From where on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Since<'a> {
    /// The cursor of the page before. Without one nothing but the present one is said.
    pub cursor: Option<&'a str>,
    /// How long the node waits for something to happen.
    pub wait: Duration,
}

impl Since<'_> {
    /// As it is asked.
    pub fn path(&self) -> String {
        let since = self.cursor.map(|cursor| format!("{SINCE}={cursor}&")).unwrap_or_default();
        format!("events?{since}{WAIT}={}", self.wait.as_secs_f64())
    }
}

/// What changed. A cursor of another epoch has none: it is gone (410), and whoever had it asks about its
/// jobs instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FeedPage {
    /// Where to go on: `<epoch>.<offset>`, which only the node understands.
    pub cursor: String,
    /// What changed, in order; each names its job.
    pub events: Vec<RunStatus>,
}

impl FeedPage {
    /// Reads a page. A line of it that cannot be read keeps no other: what it is about is asked about
    /// with the rest.
    ///
    /// Errors: it is no page.
    pub fn read(body: &[u8]) -> serde_json::Result<FeedPage> {
        #[derive(Deserialize)]
        struct Page {
            cursor: String,
            events: Vec<Value>,
        }
        let Page { cursor, events } = serde_json::from_slice(body)?;
        let events = events.into_iter().filter_map(|line| serde_json::from_value(line).ok());
        Ok(FeedPage { cursor, events: events.collect() })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::outcome::Outcome;

    #[test]
    fn pages_are_read_as_they_were_written() {
        let events = [
            RunStatus::running(7, 9, "b").of("c-1.1"),
            RunStatus::stopped(&Outcome::signal("SIGSEGV")).of("c-1.1"),
            RunStatus::stopped(&Outcome::lost_unproven("é")).of("x"),
        ];
        for count in 0..=events.len() {
            let page = FeedPage { cursor: format!("e.{count}"), events: events[..count].to_vec() };
            let body = serde_json::to_vec(&page).unwrap();
            assert_eq!(FeedPage::read(&body).unwrap(), page);
        }
    }

    #[test]
    fn a_line_that_makes_no_sense_keeps_no_other() {
        let good =
            json!({"id": "c-1.1", "state": "queued", "status": "unknown", "at": "t", "x": 1});
        let bad = json!({"id": "c-2.1", "state": "dreaming", "status": "unknown", "at": "t"});
        let page = json!({"cursor": "e.1", "events": [bad, good, 7], "more": true}).to_string();
        assert_eq!(FeedPage::read(page.as_bytes()).unwrap().events.len(), 1);
        for none in ["", "{", "7", r#"{"cursor":"e.1"}"#, r#"{"cursor":1,"events":[]}"#] {
            assert!(FeedPage::read(none.as_bytes()).is_err(), "{none}");
        }
    }

    #[test]
    fn questions_are_written_as_they_always_were() {
        let path = |cursor, wait| Since { cursor, wait: Duration::from_millis(wait) }.path();
        assert_eq!(path(Some("a.7"), 25_000), "events?since=a.7&wait=25");
        assert_eq!(path(None, 1_500), "events?wait=1.5");
    }
}
