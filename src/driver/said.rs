//! What a node says in words: of any length there, and with anything in it. Here it goes onto cards, which
//! every reader reads whole, into records, to terminals and logs; so it is made short and plain where it
//! comes in.

use crate::client::said::LONGEST;
pub(super) use crate::client::said::bounded;
use crate::model::run_status::RunStatus;

/// Most characters of what a node's system calls an attempt.
const LONGEST_NAME: usize = 200;

/// What a node's system calls an attempt, in one short line.
pub(super) fn name(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(LONGEST_NAME).map(plain).collect()
}

/// What a node says of a job, with its words.
pub(super) fn status(mut said: RunStatus) -> RunStatus {
    let tasks = said.tasks.iter_mut().flat_map(|report| &mut report.failed);
    let of_tasks = tasks.flat_map(|ended| [&mut ended.outcome.reason, &mut ended.outcome.by]);
    let words = of_tasks.chain([&mut said.reason, &mut said.by, &mut said.started, &mut said.boot]);
    words.flatten().chain([&mut said.at]).for_each(|text| {
        if text.len() > LONGEST || text.chars().any(char::is_control) {
            *text = bounded(text);
        }
    });
    said
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn words_are_short_and_plain_wherever_they_stand() {
        assert_eq!(name("arn:\u{1b}x"), "arn: x");
        assert_eq!(name(&"é".repeat(5000)), "é".repeat(LONGEST_NAME));
        assert_eq!(bounded("no room: é"), "no room: é");
        assert_eq!(bounded("a\r\n\u{1b}[2Jb"), "a   [2Jb");
        let (long, kept) = ("é".repeat(LONGEST), "é".repeat(LONGEST));
        assert_eq!(bounded(&long), kept);
        assert_eq!(bounded(&format!("{long}x")), format!("{kept}…"));
        let said = json!({
            "state": "stopped", "status": "error", "cause": "exit", "code": 1, "at": "t",
            "reason": "x".repeat(5000),
            "tasks": {"failed": [
                {"tasks": "1", "status": "error", "cause": "lost", "reason": "y".repeat(5000)},
                {"tasks": "2", "status": "error", "cause": "lost", "reason": "short"},
            ]},
        });
        let said = status(serde_json::from_value(said).unwrap());
        let length = |reason: &Option<String>| reason.as_ref().unwrap().chars().count();
        assert_eq!(length(&said.reason), LONGEST + 1);
        let failed = said.tasks.unwrap().failed;
        assert_eq!(length(&failed[0].outcome.reason), LONGEST + 1);
        assert_eq!(failed[1].outcome.reason.as_deref(), Some("short"));
    }
}
