//! How fast nodes finish short jobs: so many may be sent ahead of their room, so that one follows
//! the other without a round trip.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::model::resources::Resources;
use crate::model::run_status::{RunState, RunStatus};

/// The last few round trips.
const WINDOW: Duration = Duration::from_millis(250);

/// A job that runs longer is not short: nothing is sent ahead for its like.
const SHORT: Duration = Duration::from_secs(1);

/// Most jobs that wait on a node beyond its room.
const MOST_AHEAD: u64 = 1024;

/// What the nodes finished lately.
#[derive(Debug, Default)]
pub struct Paces {
    nodes: HashMap<String, Pace>,
}

#[derive(Debug, Default)]
struct Pace {
    started: HashMap<String, Instant>,
    finished: VecDeque<(Instant, Resources)>,
}

impl Paces {
    /// Takes in a piece of a node's feed: each with what the job was given.
    pub fn note<'a>(
        &mut self,
        node: &str,
        events: impl Iterator<Item = (&'a RunStatus, &'a Resources)>,
    ) {
        let now = Instant::now();
        let pace = self.nodes.entry(node.to_string()).or_default();
        for (event, job) in events {
            let Some(id) = &event.id else { continue };
            match event.state {
                RunState::Queued => {}
                RunState::Running => {
                    pace.started.entry(id.clone()).or_insert(now);
                }
                RunState::Stopped => {
                    // Of a job that ends at once, the start is not told before the end.
                    if pace.started.remove(id).is_none_or(|start| now - start < SHORT) {
                        pace.finished.push_back((now, job.clone()));
                    }
                }
            }
        }
    }

    /// Forgets attempts that no node has any more, and whose end was told otherwise.
    pub fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        for pace in self.nodes.values_mut() {
            pace.started.retain(|id, _| is_there(id));
        }
    }

    /// How many jobs each node may be sent beyond its room, and how large: no larger than any that it finished. A
    /// larger one would wait there for others than these, which may be long.
    pub fn ahead<'a>(
        &mut self,
        nodes: impl Iterator<Item = &'a String>,
    ) -> Vec<(String, u64, Resources)> {
        let now = Instant::now();
        nodes
            .map(|node| {
                let mut like = Resources::NONE;
                let finished = self.nodes.get_mut(node).map_or(0, |pace| {
                    while pace.finished.front().is_some_and(|(time, _)| now - *time > WINDOW) {
                        pace.finished.pop_front();
                    }
                    for (_, job) in &pace.finished {
                        like.cores = like.cores.max(job.cores);
                        like.memory = like.memory.max(job.memory);
                    }
                    pace.finished.len() as u64
                });
                (node.clone(), rounded(finished.min(MOST_AHEAD)), like)
            })
            .collect()
    }
}

/// Down to a number of two binary digits and zeros: nodes that may be sent as much ahead are
/// placed on together, so there should be few such numbers.
fn rounded(count: u64) -> u64 {
    let zeros = (count.checked_ilog2().unwrap_or(0)).saturating_sub(1);
    count >> zeros << zeros
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_numbers() {
        let of = [0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 1000, 1024];
        let to = [0, 1, 2, 3, 4, 4, 6, 6, 8, 8, 12, 768, 1024];
        assert_eq!(of.map(rounded), to);
    }
}
