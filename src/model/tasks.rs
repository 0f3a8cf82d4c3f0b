//! Tasks of a job array: sets of their indices.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Most tasks of one array.
pub const MOST_TASKS: u64 = 1_000_000;

/// The highest index of a task.
pub const HIGHEST_TASK: u32 = 999_999_999;

/// The index of the one task of a plain job. No line can name it: it is none that can be read, and is
/// never written.
pub const ALONE: u32 = HIGHEST_TASK + 1;

/// Most runs of indices that a sentence names.
const NAMED: usize = 100;

/// A set of indices, kept as its runs: first and last of each, rising, with gaps between them.
/// Written and read as `0-9,12,20-29`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskSet {
    runs: Vec<(u32, u32)>,
}

impl TaskSet {
    /// One index.
    pub fn one(task: u32) -> TaskSet {
        TaskSet { runs: vec![(task, task)] }
    }

    /// The one task of a plain job.
    pub fn alone() -> TaskSet {
        TaskSet::one(ALONE)
    }

    /// Whether there is nothing to be written: no task, or the one of a plain job.
    pub fn is_unwritten(&self) -> bool {
        self.first().is_none_or(|first| first == ALONE)
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.runs.iter().map(|(first, last)| u64::from(last - first) + 1).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The lowest.
    pub fn first(&self) -> Option<u32> {
        self.runs.first().map(|(first, _)| *first)
    }

    /// All of them, rising.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.runs.iter().flat_map(|(first, last)| *first..=*last)
    }

    /// Whether this index is in it.
    pub fn contains(&self, task: u32) -> bool {
        let after = self.runs.partition_point(|(first, _)| *first <= task);
        after.checked_sub(1).and_then(|at| self.runs.get(at)).is_some_and(|run| task <= run.1)
    }

    /// Whether any of the other's is in it.
    pub fn has_any_of(&self, other: &TaskSet) -> bool {
        other.runs.iter().any(|(first, last)| {
            let after = self.runs.partition_point(|run| run.1 < *first);
            self.runs.get(after).is_some_and(|run| run.0 <= *last)
        })
    }

    /// Whether all of the other's are in it.
    pub fn contains_all(&self, other: &TaskSet) -> bool {
        other.without(self).is_empty()
    }

    /// The lowest `count` of them.
    #[must_use]
    pub fn lowest(&self, count: u64) -> TaskSet {
        let mut left = count;
        let mut runs = Vec::new();
        for (first, last) in &self.runs {
            if left == 0 {
                break;
            }
            let end = u64::from(*first).saturating_add(left - 1);
            let last = u64::from(*last).min(end) as u32;
            left -= u64::from(last - first) + 1;
            runs.push((*first, last));
        }
        TaskSet { runs }
    }

    /// For a sentence: as written, but of many runs only the first.
    pub fn brief(&self) -> String {
        match self.pieces(NAMED).next() {
            Some(first) if self.runs.len() > NAMED => format!("{first},…"),
            _ => self.to_string(),
        }
    }

    /// The same in pieces of at most so many runs.
    pub fn pieces(&self, runs: usize) -> impl Iterator<Item = TaskSet> {
        self.runs.chunks(runs.max(1)).map(|runs| TaskSet { runs: runs.to_vec() })
    }

    /// Those of both.
    pub fn add(&mut self, other: &TaskSet) {
        let (Some(first), last) = (other.first(), self.runs.last_mut()) else { return };
        if last.is_none_or(|last| last.1 < first) {
            // The usual case: tasks are run, and end, in order.
            let mut others = other.runs.iter();
            if let Some(last) = self.runs.last_mut().filter(|last| last.1 + 1 == first) {
                last.1 = others.next().map_or(last.1, |run| run.1);
            }
            self.runs.extend(others);
            return;
        }
        // Ranges run side by side, so what is added comes close to the end: what lies before it
        // is not touched, or the ends of an array's tasks would cost the square of their number.
        let before = self.runs.partition_point(|run| run.1 + 1 < first);
        let mut rest = self.runs.split_off(before);
        rest.extend_from_slice(&other.runs);
        self.runs.append(&mut TaskSet::of_runs(rest).runs);
    }

    /// Those of all of these.
    pub fn union<'a>(sets: impl Iterator<Item = &'a TaskSet>) -> TaskSet {
        TaskSet::of_runs(sets.flat_map(|set| &set.runs).copied().collect())
    }

    /// Of runs in any order, which may overlap.
    fn of_runs(mut all: Vec<(u32, u32)>) -> TaskSet {
        all.sort(); // not the unstable one: what is given is mostly sets, each in order
        let mut runs: Vec<(u32, u32)> = Vec::with_capacity(all.len());
        for (first, last) in all {
            match runs.last_mut() {
                Some(run) if first <= run.1.saturating_add(1) => run.1 = run.1.max(last),
                _ => runs.push((first, last)),
            }
        }
        TaskSet { runs }
    }

    /// Those that are not in the other.
    #[must_use]
    pub fn without(&self, other: &TaskSet) -> TaskSet {
        let mut runs = Vec::new();
        let mut at = 0;
        for (first, last) in &self.runs {
            let mut from = *first;
            while other.runs.get(at).is_some_and(|run| run.1 < from) {
                at += 1;
            }
            let mut next = at;
            let mut open = true;
            while let Some((cut, end)) = other.runs.get(next).filter(|run| run.0 <= *last) {
                if *cut > from {
                    runs.push((from, cut - 1));
                }
                if *end >= *last {
                    open = false;
                    break;
                }
                from = end + 1;
                next += 1;
            }
            if open {
                runs.push((from, *last));
            }
        }
        TaskSet { runs }
    }

    /// Those that are in the other, too.
    #[must_use]
    pub fn within(&self, other: &TaskSet) -> TaskSet {
        self.without(&self.without(other))
    }
}

impl FromIterator<u32> for TaskSet {
    fn from_iter<I: IntoIterator<Item = u32>>(tasks: I) -> TaskSet {
        TaskSet::of_runs(tasks.into_iter().map(|task| (task, task)).collect())
    }
}

impl fmt::Display for TaskSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.runs.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for TaskSet {
    type Err = String;

    fn from_str(text: &str) -> Result<TaskSet, String> {
        let mut runs = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let wrong = || format!("{part:?} is not an index such as 7 or a range such as 0-99");
            let (first, last) = (index(first).ok_or_else(wrong)?, index(last).ok_or_else(wrong)?);
            if first > last {
                return Err(format!("{part:?} ends before it begins"));
            }
            runs.push((first, last));
        }
        Ok(TaskSet::of_runs(runs))
    }
}

fn index(text: &str) -> Option<u32> {
    let plain = (1..=9).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

impl Serialize for TaskSet {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TaskSet {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<TaskSet, D::Error> {
        let text = String::deserialize(from)?;
        if text.is_empty() {
            Ok(TaskSet::default())
        } else {
            text.parse().map_err(D::Error::custom)
        }
    }
}

/// The tasks of an array, and how many of them may be with nodes at a time: `0-9999`, `1,3,5-7`,
/// `0-99%8`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArraySpec {
    /// Their indices.
    pub tasks: TaskSet,
    /// At most so many run at a time.
    pub at_once: Option<u64>,
}

impl FromStr for ArraySpec {
    type Err = String;

    fn from_str(text: &str) -> Result<ArraySpec, String> {
        let (tasks, at_once) = match text.split_once('%') {
            None => (text, None),
            Some((tasks, count)) => {
                let count = index(count).filter(|count| *count > 0);
                let wrong = || "after % must stand how many tasks may run at a time".to_string();
                (tasks, Some(u64::from(count.ok_or_else(wrong)?)))
            }
        };
        let tasks: TaskSet = tasks.parse()?;
        if tasks.len() > MOST_TASKS {
            return Err(format!("at most {MOST_TASKS} tasks are one array"));
        }
        Ok(ArraySpec { tasks, at_once })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn set(text: &str) -> TaskSet {
        text.parse().unwrap()
    }

    #[test]
    fn written_as_read() {
        for text in ["0", "0-9", "1,3,5-7", "0-999999999"] {
            assert_eq!(set(text).to_string(), text);
        }
        assert_eq!(set("7,3-4,5,1").to_string(), "1,3-5,7");
        for wrong in ["", "-", "3-1", "1,", "a", "-1", "1-", "1 2", "+1", "1234567890"] {
            assert!(wrong.parse::<TaskSet>().is_err(), "{wrong:?}");
        }
        let spec: ArraySpec = "0-99%8".parse().unwrap();
        assert_eq!((spec.tasks.len(), spec.at_once), (100, Some(8)));
        assert!("0-99%0".parse::<ArraySpec>().is_err());
        assert!("0-1000000".parse::<ArraySpec>().is_err());
    }

    #[test]
    fn as_sets_do() {
        let mut seed = 7u64;
        let mut below = |limit: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % limit
        };
        for _ in 0..2000 {
            let mut random = || (0..below(20)).map(|_| below(30) as u32).collect::<BTreeSet<u32>>();
            let (a, b) = (random(), random());
            let (x, y): (TaskSet, TaskSet) =
                (a.iter().copied().collect(), b.iter().copied().collect());
            let as_set = |set: &TaskSet| set.iter().collect::<BTreeSet<u32>>();
            let mut both = x.clone();
            both.add(&y);
            assert_eq!(as_set(&both), &a | &b);
            assert_eq!(as_set(&x.without(&y)), &a - &b);
            assert_eq!(as_set(&x.within(&y)), &a & &b);
            assert_eq!(x.contains_all(&y), b.is_subset(&a));
            assert_eq!(x.has_any_of(&y), !a.is_disjoint(&b));
            assert_eq!(x.len() as usize, a.len());
            assert_eq!(as_set(&x.lowest(3)), a.iter().copied().take(3).collect());
            assert!((0..30).all(|task| x.contains(task) == a.contains(&task)));
            let canonical: TaskSet = both.iter().collect();
            assert_eq!(canonical, both);
            assert_eq!(TaskSet::union([&x, &y].into_iter()), both);
        }
    }
}
