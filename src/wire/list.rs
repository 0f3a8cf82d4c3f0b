//! Which jobs a node has: their ids, a line each.

use serde_json::json;

use crate::model::ids::RunId;
use crate::model::run_status::RunState;

/// Most ids that a head asks for: more than a node has, where it would name a thousand else.
const ALL: u32 = 1_000_000_000;

/// Which are asked for; all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct List {
    /// Only those in this state.
    pub state: Option<RunState>,
}

impl List {
    /// As it is asked.
    pub fn path(&self) -> String {
        let state = self.state.map(|state| json!(state));
        let state = state.as_ref().and_then(|state| state.as_str());
        let state = state.map(|state| format!("state={state}&")).unwrap_or_default();
        format!("jobs?{state}limit={ALL}")
    }
}

/// A state as it is named in a question.
pub fn state(text: &str) -> Option<RunState> {
    serde_json::from_value(json!(text)).ok()
}

/// Ids as they travel.
pub fn lines<'a>(ids: impl Iterator<Item = &'a RunId>) -> String {
    ids.fold(String::new(), |mut text, id| {
        text.push_str(id);
        text.push('\n');
        text
    })
}

/// Reads ids. A line that can be none is passed over.
pub fn read(text: &[u8]) -> Vec<RunId> {
    String::from_utf8_lossy(text).lines().filter_map(RunId::parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_were_written() {
        let ids: Vec<RunId> =
            ["c-1.1", "x", "A.b_c-d"].iter().filter_map(|id| RunId::parse(id)).collect();
        for count in 0..=ids.len() {
            assert_eq!(read(lines(ids[..count].iter()).as_bytes()), ids[..count]);
        }
        assert_eq!(lines(ids.iter()), "c-1.1\nx\nA.b_c-d\n");
        assert_eq!(read(b"<html>\nx\n\xff\n\nno job\n"), ids[1..2]);
    }

    #[test]
    fn states_are_read_as_they_were_written() {
        for wanted in [RunState::Queued, RunState::Running, RunState::Stopped] {
            let path = List { state: Some(wanted) }.path();
            let named = path.split(['=', '&']).nth(1).and_then(state);
            assert_eq!(named, Some(wanted), "{path}");
        }
        let queued = List { state: Some(RunState::Queued) };
        assert_eq!(queued.path(), "jobs?state=queued&limit=1000000000");
        assert_eq!(List { state: None }.path(), "jobs?limit=1000000000");
        assert_eq!(state("dreaming"), None);
    }
}
