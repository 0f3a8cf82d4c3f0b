//! What a newer program wrote and this one does not know. Whole JSON that is not understood in full
//! is no damage: passing over it could undo what it means.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Why this program leaves something alone of which it does not know this.
pub fn written_by_newer(what: &str) -> String {
    format!("written by a newer version of corkboard ({what})")
}

/// The first whole line of a story that is not known in full, in words; damaged lines are none.
pub fn in_story<T: Serialize + DeserializeOwned>(story: &[u8]) -> Option<String> {
    let lines = story.split(|b| *b == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
    lines
        .into_iter()
        .find_map(|(index, line)| Some(format!("{} in line {}", in_record::<T>(line)?, index + 1)))
}

/// What of a record is not known, in words. A known one is written as it was read, but for the
/// order of its fields and what is absent by default.
pub fn in_record<T: Serialize + DeserializeOwned>(record: &[u8]) -> Option<String> {
    let value = || serde_json::from_slice::<Value>(record).ok().filter(Value::is_object);
    let known = match serde_json::from_slice::<T>(record) {
        Ok(known) => known,
        Err(why) => return value().map(|_| what(&why)),
    };
    if serde_json::to_vec(&known).is_ok_and(|again| again == record.trim_ascii()) {
        return None;
    }
    missing(&value()?, &serde_json::to_value(known).ok()?)
}

/// What was wrong with a record, in few words.
pub fn what(why: &serde_json::Error) -> String {
    let why = why.to_string();
    why.split(", expected").next().unwrap_or_default().replace('`', "\"")
}

/// The first field that only one of them has.
fn missing(read: &Value, known: &Value) -> Option<String> {
    match (read, known) {
        (Value::Object(read), Value::Object(known)) => read
            .iter()
            .filter(|(_, value)| !value.is_null())
            .find_map(|(name, value)| match known.get(name) {
                Some(known) => missing(value, known),
                None if is_empty(value) => None,
                None => Some(format!("field {name:?}")),
            }),
        (Value::Array(read), Value::Array(known)) => {
            read.iter().zip(known).find_map(|(read, known)| missing(read, known))
        }
        _ => None,
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_str().is_some_and(str::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::outcome::Outcome;
    use crate::model::range::{Line, Step};
    use crate::model::run_status::RunStatus;

    #[test]
    fn what_is_written_is_known_and_what_is_more_is_named() {
        let status =
            RunStatus::stopped(&Outcome::exit(3)).begun(Some(&RunStatus::running(7, 1, "b")));
        let text = serde_json::to_string(&status).unwrap_or_default();
        assert_eq!(in_story::<RunStatus>(text.as_bytes()), None);
        let spaced = text.replace(':', ": ");
        assert_eq!(in_record::<RunStatus>(spaced.as_bytes()), None);
        let more = text.replacen('{', "{\"energy\":3,", 1);
        let found = in_story::<RunStatus>(format!("\n{text}\n{more}\n").as_bytes());
        assert_eq!(found.as_deref(), Some("field \"energy\" in line 3"));
        let other = text.replace("stopped", "paused");
        assert_eq!(
            in_record::<RunStatus>(other.as_bytes()).as_deref(),
            Some("unknown variant \"paused\"")
        );
        for damaged in ["\0\0\0", "{\"sta", ""] {
            assert_eq!(in_story::<RunStatus>(damaged.as_bytes()), None);
        }
        let tasks = || "0-3".parse().unwrap_or_default();
        let line =
            Line::now(Step::Stopped { tasks: tasks(), outcome: Outcome::exit(0), log: vec![] });
        let text = serde_json::to_string(&line).unwrap_or_default();
        assert_eq!(in_story::<Line>(text.as_bytes()), None);
        let more = text.replacen("\"tasks\"", "\"host\":\"a\",\"tasks\"", 1);
        assert_eq!(in_record::<Line>(more.as_bytes()).as_deref(), Some("field \"host\""));
    }
}
