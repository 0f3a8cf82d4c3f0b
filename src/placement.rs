//! Which waiting job goes to which node. Pure policy: no clock, no files.
//!
//! Higher priority first, then the lower number; of the nodes that have room, one on which the job
//! has not failed yet, then the one that is least loaded, then the first by name. Jobs are kept by
//! what they ask for, so that a decision looks at one job of each kind and never at those behind it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::model::node::Node;
use crate::model::resources::Resources;

/// A job that may be placed now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its number.
    pub job: u64,
    /// Higher goes first.
    pub priority: i64,
    /// What it asks for.
    pub resources: Resources,
    /// Nodes on which an attempt of it failed or was refused.
    pub avoid: Vec<String>,
}

/// Jobs that may be placed now, by what they ask for.
#[derive(Debug, Default)]
pub struct Ready {
    shapes: BTreeMap<Resources, BTreeSet<(Reverse<i64>, u64)>>,
    candidates: HashMap<u64, Candidate>,
}

impl Ready {
    /// Adds a job, or replaces what is known of it.
    pub fn insert(&mut self, candidate: Candidate) {
        self.remove(candidate.job);
        self.shapes
            .entry(candidate.resources)
            .or_default()
            .insert((Reverse(candidate.priority), candidate.job));
        self.candidates.insert(candidate.job, candidate);
    }

    /// Takes a job out; `None` if it was not there.
    pub fn remove(&mut self, job: u64) -> Option<Candidate> {
        let candidate = self.candidates.remove(&job)?;
        if let Some(shape) = self.shapes.get_mut(&candidate.resources) {
            shape.remove(&(Reverse(candidate.priority), job));
            if shape.is_empty() {
                self.shapes.remove(&candidate.resources);
            }
        }
        Some(candidate)
    }

    /// How many jobs may be placed.
    pub fn len(&self) -> usize {
        self.candidates.len()
    }

    /// Whether none may.
    pub fn is_empty(&self) -> bool {
        self.candidates.is_empty()
    }

    /// The next placement, if there is one: the job is taken out, the node's room is used up.
    pub fn place_next(&mut self, rooms: &mut Rooms) -> Option<(Candidate, String)> {
        let (_, job, node) = self
            .shapes
            .iter()
            .filter(|(resources, _)| rooms.any_takes(resources))
            .filter_map(|(_, jobs)| jobs.first())
            .min()
            .and_then(|(priority, job)| {
                let candidate = self.candidates.get(job)?;
                let node = rooms.choose(&candidate.resources, &candidate.avoid)?;
                Some((*priority, *job, node))
            })?;
        let candidate = self.remove(job)?;
        rooms.take(&node, &candidate.resources);
        Some((candidate, node))
    }
}

/// What a node has, what is in use, and how much may wait there beyond its room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// Whether new jobs may be placed on it.
    pub open: bool,
    /// What it gives in all.
    pub total: Resources,
    /// What the jobs sent to it ask for in all.
    pub used: Resources,
    /// How many jobs beyond its room may be sent ahead, so that short ones follow each other
    /// without a round trip.
    pub ahead: u64,
}

impl Room {
    fn takes(&self, job: &Resources) -> bool {
        let ahead = |amount: u64| amount.saturating_mul(self.ahead);
        self.open
            && job.fits(&self.total)
            && self.used.cores + job.cores <= self.total.cores.saturating_add(ahead(job.cores))
            && self.used.memory.saturating_add(job.memory)
                <= self.total.memory.saturating_add(ahead(job.memory))
    }

    /// Load in thousandths: the fuller of cores and memory.
    fn load(&self) -> u64 {
        let share = |used: u64, total: u64| used.saturating_mul(1000) / total.max(1);
        share(self.used.cores, self.total.cores).max(share(self.used.memory, self.total.memory))
    }
}

/// The rooms of all nodes, by name.
#[derive(Debug, Default)]
pub struct Rooms {
    rooms: BTreeMap<String, Room>,
}

impl Rooms {
    /// A node's room, made closed and empty where the node is new.
    pub fn room(&mut self, node: &str) -> &mut Room {
        self.rooms.entry(node.to_string()).or_insert(Room {
            open: false,
            total: Resources::NONE,
            used: Resources::NONE,
            ahead: 0,
        })
    }

    /// Takes in what a node's record says.
    pub fn update(&mut self, node: &Node) {
        let room = self.room(&node.name);
        room.open = node.takes_jobs();
        room.total = node.resources.unwrap_or(Resources::NONE);
    }

    /// Forgets nodes that are not registered any more.
    pub fn retain(&mut self, known: impl Fn(&str) -> bool) {
        self.rooms.retain(|name, _| known(name));
    }

    /// A job was sent there.
    pub fn take(&mut self, node: &str, job: &Resources) {
        let room = self.room(node);
        room.used = room.used.plus(job);
    }

    /// A job is there no more.
    pub fn give_back(&mut self, node: &str, job: &Resources) {
        let room = self.room(node);
        room.used = room.used.minus(job);
    }

    fn any_takes(&self, job: &Resources) -> bool {
        self.rooms.values().any(|room| room.takes(job))
    }

    /// The node for a job that asks for this; `None` if none has room.
    pub fn choose(&self, job: &Resources, avoid: &[String]) -> Option<String> {
        self.rooms
            .iter()
            .filter(|(_, room)| room.takes(job))
            .min_by_key(|(name, room)| (avoid.contains(*name), room.load(), *name))
            .map(|(name, _)| name.clone())
    }
}

/// Why a job that asks for this waits, going by the nodes' records alone.
pub fn why_waiting(job: &Resources, nodes: &[Node]) -> String {
    let large = |node: &&Node| node.resources.is_some_and(|total| job.fits(&total));
    let unknown = nodes.iter().filter(|node| node.resources.is_none()).count();
    let fit: Vec<&Node> = nodes.iter().filter(large).collect();
    if fit.is_empty() && unknown == 0 {
        return format!("no node has {}", job.human());
    }
    if fit.is_empty() {
        return format!("no node is known to have {}; some did not answer yet", job.human());
    }
    let names = |nodes: &[&Node]| {
        let mut names: Vec<&str> = nodes.iter().take(3).map(|node| node.name.as_str()).collect();
        if nodes.len() > 3 {
            names.push("others");
        }
        names.join(", ")
    };
    let open: Vec<&Node> = fit.iter().copied().filter(|node| node.takes_jobs()).collect();
    if !open.is_empty() {
        return format!("waiting for room on {}", names(&open));
    }
    let draining: Vec<&Node> = fit.iter().copied().filter(|node| node.drain).collect();
    if draining.len() == fit.len() {
        return format!("nodes with {} take no new jobs (drain): {}", job.human(), names(&fit));
    }
    format!("nodes with {} do not answer: {}", job.human(), names(&fit))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn candidate(job: u64, priority: i64, cores: u64) -> Candidate {
        let resources = Resources { cores, memory: 0 };
        Candidate { job, priority, resources, avoid: Vec::new() }
    }

    fn rooms(nodes: &[(&str, u64)]) -> Rooms {
        let mut rooms = Rooms::default();
        for (name, cores) in nodes {
            let total = Resources { cores: *cores, memory: 0 };
            *rooms.room(name) = Room { open: true, total, used: Resources::NONE, ahead: 0 };
        }
        rooms
    }

    fn place_all(ready: &mut Ready, rooms: &mut Rooms) -> Vec<(u64, String)> {
        std::iter::from_fn(|| ready.place_next(rooms).map(|(c, node)| (c.job, node))).collect()
    }

    #[test]
    fn priority_then_number_and_small_jobs_fill_the_rest() {
        let mut ready = Ready::default();
        for c in [candidate(1, 0, 1), candidate(2, 5, 4), candidate(3, 0, 1), candidate(4, 5, 1)] {
            ready.insert(c);
        }
        let placed = place_all(&mut ready, &mut rooms(&[("a", 2)]));
        assert_eq!(placed, [(4, "a".into()), (1, "a".into())]);
        assert_eq!(ready.len(), 2);
    }

    #[test]
    fn the_least_loaded_node_and_another_after_a_failure() {
        let mut ready = Ready::default();
        ready.insert(candidate(1, 0, 1));
        ready.insert(candidate(2, 0, 1));
        let mut all = rooms(&[("a", 4), ("b", 4)]);
        assert_eq!(place_all(&mut ready, &mut all), [(1, "a".into()), (2, "b".into())]);
        ready.insert(Candidate { avoid: vec!["a".into()], ..candidate(3, 0, 1) });
        assert_eq!(place_all(&mut ready, &mut all), [(3, "b".into())]);
        ready.insert(Candidate { avoid: vec!["a".into()], ..candidate(4, 0, 3) });
        assert_eq!(place_all(&mut ready, &mut all), [(4, "a".into())], "better there than never");
    }

    #[test]
    fn jobs_ahead_are_bounded() {
        let mut ready = Ready::default();
        (1..=10).for_each(|job| ready.insert(candidate(job, 0, 1)));
        let mut rooms = rooms(&[("a", 2)]);
        rooms.room("a").ahead = 3;
        assert_eq!(place_all(&mut ready, &mut rooms).len(), 5);
    }

    #[test]
    fn reasons() {
        let mut node = Node::localhost();
        let four = Resources { cores: 4, memory: 0 };
        node.resources = Some(Resources { cores: 2, memory: 0 });
        assert_eq!(why_waiting(&four, std::slice::from_ref(&node)), "no node has 4 cores");
        node.resources = Some(four);
        assert!(why_waiting(&four, std::slice::from_ref(&node)).contains("do not answer"));
        node.state = crate::model::node::NodeState::Connected;
        assert_eq!(
            why_waiting(&four, std::slice::from_ref(&node)),
            "waiting for room on localhost"
        );
        node.drain = true;
        assert!(why_waiting(&four, &[node]).contains("drain"));
    }
}
