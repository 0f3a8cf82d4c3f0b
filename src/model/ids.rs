//! Ids and names: what may become part of a file's name.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};

pub use crate::names::is_name as is_valid;

/// The highest number that a job can have: [`parse_number`] reads no longer ones.
pub const HIGHEST_NUMBER: u64 = 999_999_999_999_999_999;

/// A job's number as a path or a file name spells it: decimal, no sign, no leading zero, not 0.
pub fn parse_number(text: &str) -> Option<u64> {
    let plain = (1..=18).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_digit())
        && !text.starts_with('0');
    if plain { text.parse().ok() } else { None }
}

/// Numbers of jobs as a request names many: `4,7,10-19`; in the order in which they stand there, at most
/// so many.
pub fn parse_numbers(text: &str, most: u64) -> std::result::Result<Vec<u64>, String> {
    let mut numbers = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let wrong =
            || format!("{part:?} is no number of a job such as 7, or a range such as 10-19");
        let first = parse_number(first).ok_or_else(wrong)?;
        let last = parse_number(last).filter(|last| *last >= first).ok_or_else(wrong)?;
        if last - first >= most.saturating_sub(numbers.len() as u64) {
            return Err(format!("they are more than {most}"));
        }
        numbers.extend(first..=last);
    }
    Ok(numbers)
}

/// The id under which attempt `attempt` of job `job` of cluster `cluster` runs on its node:
/// `cluster-job.attempt`, as in `lab-7f3k-2.1`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct NodejobId {
    run: RunId,
    /// The job's number at the head.
    pub job: u64,
    /// Which attempt, from 1.
    pub attempt: u32,
}

impl NodejobId {
    /// That of an attempt; `None` where the cluster's name is none, or too long for it.
    pub fn new(cluster: &str, job: u64, attempt: u32) -> Option<NodejobId> {
        NodejobId::parse(&format!("{cluster}-{job}.{attempt}"))
    }

    /// Reads the form that `Display` writes.
    pub fn parse(text: &str) -> Option<NodejobId> {
        let (job, attempt) = numbers_in(text)?;
        Some(NodejobId { run: RunId::parse(text)?, job, attempt })
    }

    /// The head's name for itself, made once.
    pub fn cluster(&self) -> &str {
        self.run.rsplit_once('-').map_or("", |(cluster, _)| cluster)
    }

    /// The same as it is on its node, among others.
    pub fn run(&self) -> &RunId {
        &self.run
    }
}

/// The numbers of the job and of the attempt, which stand behind the last dash.
fn numbers_in(text: &str) -> Option<(u64, u32)> {
    let (_, rest) = text.rsplit_once('-')?;
    let (job, attempt) = rest.split_once('.')?;
    Some((parse_number(job)?, u32::try_from(parse_number(attempt)?).ok()?))
}

impl From<NodejobId> for String {
    fn from(id: NodejobId) -> String {
        id.run.0
    }
}

impl TryFrom<String> for NodejobId {
    type Error = &'static str;

    fn try_from(text: String) -> std::result::Result<NodejobId, &'static str> {
        match numbers_in(&text).filter(|_| is_valid(&text)) {
            Some((job, attempt)) => Ok(NodejobId { run: RunId(text), job, attempt }),
            None => Err("not the id of an attempt"),
        }
    }
}

impl Deref for NodejobId {
    type Target = RunId;

    fn deref(&self) -> &RunId {
        &self.run
    }
}

/// The id under which something runs on a node: a text that [`is_valid`], known to be one since it was
/// parsed where it came in. Heads give their attempts those that are a [`NodejobId`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(String);

impl RunId {
    /// `None` for a text that cannot be one.
    pub fn parse(text: &str) -> Option<RunId> {
        is_valid(text).then(|| RunId(text.to_string()))
    }

    /// Whether a head gave it to one of its attempts.
    pub fn is_a_heads(&self) -> bool {
        self.nodejob().is_some()
    }

    /// The attempt to which a head gave it, if one did.
    pub fn nodejob(&self) -> Option<NodejobId> {
        NodejobId::parse(&self.0)
    }
}

impl Deref for RunId {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for RunId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Refuses with 403 an id of the form that heads give to their attempts.
pub fn check_not_a_heads(id: &str) -> Result<()> {
    if NodejobId::parse(id).is_none() {
        return Ok(());
    }
    let why = format!(
        "{id} has the form of a head's ids, which need a token with the role head or admin"
    );
    Err(Error::new(Kind::Forbidden, why))
}

impl fmt::Display for NodejobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.run.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        for good in ["a", "7", "lab-7f3k-2.1", "A.b_c-d"] {
            assert!(is_valid(good), "{good}");
        }
        for bad in ["", ".", "..", ".a", "-x", "a/b", "a b", "a\n", "é", &"x".repeat(65)] {
            assert!(!is_valid(bad) && RunId::parse(bad).is_none(), "{bad}");
        }
        for bad in ["", "0", "01", "+1", "-1", "1 ", "1e3", "9999999999999999999"] {
            assert_eq!(parse_number(bad), None, "{bad}");
        }
        assert_eq!(parse_number("42"), Some(42));
    }

    #[test]
    fn nodejob_ids() {
        assert_eq!(RunId::parse("lab-7f3k-2.1").map(|id| id.is_a_heads()), Some(true));
        assert_eq!(RunId::parse("lab-7f3k").map(|id| id.is_a_heads()), Some(false));
        let id = NodejobId::parse("lab-7f3k-2.1");
        assert_eq!(id.as_ref().map(ToString::to_string).as_deref(), Some("lab-7f3k-2.1"));
        assert_eq!(id, NodejobId::new("lab-7f3k", 2, 1));
        let parts = id.as_ref().map(|id| (id.cluster(), id.job, id.attempt));
        assert_eq!(parts, Some(("lab-7f3k", 2, 1)));
        assert_eq!(NodejobId::new(&"x".repeat(62), 2, 1), None, "it is too long");
        for bad in ["lab-2", "lab-2.0", "lab-x.1", "2.1", "-2.1", "lab-2.1.1"] {
            assert_eq!(NodejobId::parse(bad), None, "{bad}");
        }
    }
}
