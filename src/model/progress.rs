//! A job's own word on its progress: text or JSON, of which the last few are kept. Pure.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock;

/// So many of the last words of a run, or of a job, are kept.
pub const MOST: usize = 10;

/// Most bytes of one, as it is sent and as JSON.
pub const LONGEST: usize = 1024;

/// How deep the JSON of one may be nested: it travels within other JSON, all of which has to be read.
const DEEPEST: usize = 16;

/// Longest that a time is.
const LONGEST_TIME: usize = 40;

/// One word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word {
    /// When it was said, by the node's clock.
    pub at: String,
    /// Which attempt said it; known at the head alone, to which a node says it of its run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodejob: Option<String>,
    /// What was said.
    pub said: Value,
}

impl Word {
    /// Said just now.
    pub fn now(said: Value) -> Word {
        Word { at: clock::now(), nodejob: None, said }
    }

    /// Whether it is one that a node would have taken. A job may write what it likes into its own files,
    /// and a node may say what it likes.
    pub fn is_fit(&self) -> bool {
        let is_time = self.at.len() <= LONGEST_TIME && clock::parse_rfc3339(&self.at).is_some();
        is_time && is_short(&self.said) && is_shallow(&self.said)
    }

    /// The same of an attempt, as a head keeps it.
    #[must_use]
    pub fn of(&self, nodejob: &str) -> Word {
        Word { nodejob: Some(nodejob.to_string()), ..self.clone() }
    }
}

/// Whether it is no longer as JSON than one may be.
pub fn is_short(said: &Value) -> bool {
    serde_json::to_vec(said).is_ok_and(|bytes| bytes.len() <= LONGEST)
}

/// Whether it is nested no deeper than one may be.
pub fn is_shallow(said: &Value) -> bool {
    is_flat(said, DEEPEST)
}

fn is_flat(said: &Value, left: usize) -> bool {
    match said {
        Value::Array(parts) => left > 0 && parts.iter().all(|part| is_flat(part, left - 1)),
        Value::Object(parts) => left > 0 && parts.values().all(|part| is_flat(part, left - 1)),
        _ => true,
    }
}

/// Adds a word to those that are kept; `false` if it is one of them.
pub fn keep(words: &mut Vec<Word>, word: Word) -> bool {
    if words.contains(&word) {
        return false;
    }
    words.push(word);
    words.drain(..words.len().saturating_sub(MOST));
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_last_ones_are_kept_and_none_twice() {
        let mut words = Vec::new();
        let word = |n: usize| Word { at: format!("t{n}"), nodejob: None, said: json!(n) };
        assert!((0..25).all(|n| keep(&mut words, word(n))));
        assert_eq!(words, (15..25).map(word).collect::<Vec<_>>());
        assert!(!keep(&mut words, word(20)));
        assert_eq!(words.len(), MOST);
    }

    #[test]
    fn a_head_keeps_what_is_short_shallow_and_has_a_time() {
        let nested = |depth| (0..depth).fold(json!(1), |inner, _| json!([inner]));
        let word = |said| Word { nodejob: Some("x".into()), ..Word::now(said) };
        assert_eq!(word(json!(5)).of("c-1.1").nodejob.as_deref(), Some("c-1.1"));
        assert!(word(nested(DEEPEST)).is_fit());
        assert!(!word(nested(DEEPEST + 1)).is_fit());
        assert!(word(json!("x".repeat(LONGEST - 2))).is_fit());
        assert!(!word(json!("x".repeat(LONGEST - 1))).is_fit());
        assert!(!Word { at: "soon".into(), ..word(json!(1)) }.is_fit());
    }
}
