//! A line of the audit: a change that somebody asked for, or a refusal.

use serde::{Deserialize, Serialize};

/// Longest value of a query, and of a segment of a path, in bytes: what is longer is cut.
const LONGEST: usize = 64;

/// Most segments of a path: nothing here has as many.
const DEEPEST: usize = 8;

/// How tokens and keys begin.
const SECRETS: [&str; 2] = ["cb_", super::proof::KEY_PREFIX];

/// Keys of a query that hold more than a word: a request, with what its environment has.
const BODIES: [&str; 1] = ["json_data"];

/// One line. Nothing in it is secret: bodies are not told, nor what begins as a token or a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When, in RFC 3339.
    pub at: String,
    /// Who, where somebody proved to be a user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// By which means: `token ID`, `key of RUN`, `shell`, `open`; `nothing` where none counted.
    pub by: String,
    /// The address that asked; absent at a shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The method and the path, as `POST scheduler/jobs/7/update?kill=1`.
    pub what: String,
    /// What came of it, as the HTTP code of the answer, also at a shell.
    pub outcome: u16,
    /// Where that is which was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<String>,
}

impl Entry {
    /// The entry that a line holds. What a crash, or a full disk, has left before it is passed over.
    pub fn read(line: &str) -> Option<Entry> {
        serde_json::from_str(&line[line.rfind("{\"at\":\"")?..]).ok()
    }
}

/// What was asked for, as an entry says it.
pub fn what(method: &str, program: &str, path: &[String], query: &[(String, String)]) -> String {
    let mut text = format!("{} {program}", plain(method));
    for segment in path.iter().take(DEEPEST) {
        text.push('/');
        text.push_str(&plain(segment));
    }
    for (index, (key, value)) in query.iter().enumerate() {
        let value = if BODIES.contains(&key.as_str()) { "…".into() } else { plain(value) };
        text.push_str(&format!("{}{}={value}", if index == 0 { '?' } else { '&' }, plain(key)));
    }
    text
}

/// A word that may be told, at a terminal, too: what would move its cursor is replaced.
fn plain(word: &str) -> String {
    let word = &word.replace(char::is_control, "�");
    if SECRETS.iter().any(|secret| word.contains(secret)) {
        return "…".into();
    }
    match word.char_indices().map(|(at, _)| at).find(|at| *at >= LONGEST) {
        Some(end) => format!("{}…", &word[..end]),
        None => word.into(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_or_secret_is_not_told() {
        let path = |text: &str| text.split('/').map(String::from).collect::<Vec<_>>();
        let query = |key: &str, value: &str| vec![(key.to_string(), value.to_string())];
        let kill = what("POST", "scheduler", &path("jobs/7/update"), &query("kill", "1"));
        assert_eq!(kill, "POST scheduler/jobs/7/update?kill=1");
        let body = what("POST", "nodemgr", &path("jobs/run"), &query("json_data", "{\"a\": 1}"));
        assert_eq!(body, "POST nodemgr/jobs/run?json_data=…");
        for secret in ["cb_12ab_34", "cbkey_x-1.1_00", "Bearer cb_1_2"] {
            assert_eq!(what("GET", "scheduler", &path(secret), &[]), "GET scheduler/…");
        }
        assert_eq!(what("GET\n", "x", &path("a\u{1b}[2J"), &[]), "GET� x/a�[2J");
        let long = what("GET", "scheduler", &path(&"ä".repeat(99)), &[]);
        assert_eq!(long, format!("GET scheduler/{}…", "ä".repeat(32)));
        assert_eq!(what("GET", "x", &path(&"a/".repeat(50)), &[]).len(), "GET x".len() + 16);
    }

    #[test]
    fn a_line_is_found_behind_what_a_crash_left() {
        let entry = Entry {
            at: "2026-01-02T03:04:05Z".into(),
            user: None,
            by: "nothing".into(),
            from: Some("127.0.0.1".into()),
            what: "GET scheduler/jobs".into(),
            outcome: 401,
            made: None,
        };
        let line = serde_json::to_string(&entry).unwrap();
        for left in ["", "\0\0\0", "{\"at\":\"2026-01-02T03:0"] {
            assert_eq!(Entry::read(&format!("{left}{line}")), Some(entry.clone()), "{left:?}");
        }
        assert_eq!(Entry::read("{\"at\":\"2026"), None);
        assert_eq!(Entry::read(""), None);
    }
}
