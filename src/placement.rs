//! Which waiting job goes to which node. Pure policy: no clock, no files.
//!
//! Higher priority first, then the lower number; of the nodes that have room, one on which the job
//! has not failed yet, then the one that is least loaded, then, of those with as many cores in use,
//! the one with the least memory in use, then the first by name.
//!
//! Jobs are kept by what they ask for. Only the first of each kind is looked at, and a kind for
//! which no node has room is not looked at again before a room has grown that would do. Nodes are
//! kept by what they have in all and what is in use ([`rooms`]). So a decision costs neither the
//! number of jobs nor the number of nodes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::model::node::Node;
use crate::model::resources::Resources;

pub mod ranges;
pub mod rooms;

pub use rooms::{Room, Rooms};

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
    /// Of an array: how many more ranges of it may be placed.
    pub more: u64,
}

/// The order in which jobs are placed: higher priority, then lower number.
type Turn = (Reverse<i64>, u64);

/// Jobs that may be placed now, by what they ask for.
#[derive(Debug, Default)]
pub struct Ready {
    candidates: HashMap<u64, Candidate>,
    kinds: BTreeMap<Resources, BTreeSet<Turn>>,
    /// The first of each kind that some node may have room for.
    heads: BTreeSet<(Turn, Resources)>,
    /// Kinds that no node has room for, unless a room has grown since.
    blocked: BTreeSet<Resources>,
}

impl Ready {
    /// Adds a job, or replaces what is known of it.
    pub fn insert(&mut self, candidate: Candidate) {
        self.remove(candidate.job);
        let resources = candidate.resources;
        self.unhead(&resources);
        self.kinds
            .entry(resources)
            .or_default()
            .insert((Reverse(candidate.priority), candidate.job));
        self.candidates.insert(candidate.job, candidate);
        self.head(&resources);
    }

    /// Takes a job out; `None` if it was not there.
    pub fn remove(&mut self, job: u64) -> Option<Candidate> {
        let candidate = self.candidates.remove(&job)?;
        let resources = candidate.resources;
        self.unhead(&resources);
        if let Some(kind) = self.kinds.get_mut(&resources) {
            kind.remove(&(Reverse(candidate.priority), job));
            if kind.is_empty() {
                self.kinds.remove(&resources);
            }
        }
        self.head(&resources);
        Some(candidate)
    }

    fn head(&mut self, kind: &Resources) {
        if let Some(first) = self.kinds.get(kind).and_then(BTreeSet::first)
            && !self.blocked.contains(kind)
        {
            self.heads.insert((*first, *kind));
        }
    }

    fn unhead(&mut self, kind: &Resources) {
        if let Some(first) = self.kinds.get(kind).and_then(BTreeSet::first) {
            self.heads.remove(&(*first, *kind));
        }
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
        let grown = rooms.take_grown();
        if !grown.is_empty() {
            let fits = |kind: &Resources| grown.iter().any(|room| room.takes(kind));
            let open: Vec<Resources> = self.blocked.extract_if(.., fits).collect();
            open.iter().for_each(|kind| self.head(kind));
        }
        while let Some(((_, job), kind)) = self.heads.first().copied() {
            let avoid = self.candidates.get(&job).map(|c| c.avoid.as_slice()).unwrap_or_default();
            if let Some(node) = rooms.choose(&kind, avoid) {
                let candidate = self.remove(job)?;
                rooms.take(&node, &candidate.resources);
                return Some((candidate, node));
            }
            self.unhead(&kind);
            self.blocked.insert(kind);
        }
        None
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
    if draining.len() == fit.len() && unknown > 0 {
        return format!(
            "nodes with {} take no new jobs (drain): {}; other nodes did not answer yet",
            job.human(),
            names(&fit)
        );
    }
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
        Candidate { job, priority, resources, avoid: Vec::new(), more: 0 }
    }

    fn rooms(nodes: &[(&str, u64)]) -> Rooms {
        let mut rooms = Rooms::default();
        for (name, cores) in nodes {
            let total = Resources { cores: *cores, memory: 0 };
            rooms.set(name, Room { open: true, total, used: Resources::NONE, ahead: 0 });
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
        rooms.set_ahead("a", 3);
        assert_eq!(place_all(&mut ready, &mut rooms).len(), 5);
    }

    /// The rule in words, slowly: for comparison.
    fn choose_slowly(rooms: &BTreeMap<String, Room>, job: &Resources, avoid: &[String]) -> String {
        let best = |avoided: bool| {
            let fit = rooms
                .iter()
                .filter(|(name, room)| avoid.contains(name) == avoided && room.takes(job));
            // Every class's best among those with as many cores in use, then the best of these.
            let mut firsts: BTreeMap<_, (u64, u64, &String)> = BTreeMap::new();
            for (name, room) in fit {
                let key = (room.total, room.ahead, room.used.cores);
                let own = (room.used.memory, room.load(), name);
                firsts.entry(key).and_modify(|first| *first = own.min(*first)).or_insert(own);
            }
            firsts.into_values().map(|(_, load, name)| (load, name.clone())).min()
        };
        best(false).or_else(|| best(true)).map(|(_, name)| name).unwrap_or_default()
    }

    #[test]
    fn the_fast_choice_is_the_slow_one() {
        let mut seed = 1u64;
        let mut below = |limit: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % limit
        };
        let (mut all, mut rooms) = (BTreeMap::new(), Rooms::default());
        let mut chosen = 0;
        for _ in 0..5000 {
            let name = format!("n{}", below(12));
            let total = Resources { cores: 2 + 2 * below(3), memory: 8 * below(2) };
            let used = Resources { cores: below(9), memory: below(10) };
            let room = Room { open: below(8) > 0, total, used, ahead: below(2) * 2 };
            rooms.set(&name, room);
            all.insert(name, room);
            let job = Resources { cores: 1 + below(4), memory: below(5) };
            let avoid: Vec<String> = (0..below(3)).map(|_| format!("n{}", below(12))).collect();
            let fast = rooms.choose(&job, &avoid).unwrap_or_default();
            chosen += usize::from(!fast.is_empty());
            assert_eq!(fast, choose_slowly(&all, &job, &avoid), "{job:?} avoiding {avoid:?}");
        }
        assert!(chosen > 1000, "{chosen}");
    }

    #[test]
    fn a_blocked_kind_waits_for_room_that_would_do() {
        let mut ready = Ready::default();
        ready.insert(candidate(1, 0, 4));
        let mut rooms = rooms(&[("a", 4), ("b", 2)]);
        let one = Resources { cores: 1, memory: 0 };
        (0..2).for_each(|_| rooms.take("a", &one));
        assert_eq!(ready.place_next(&mut rooms), None);
        rooms.give_back("a", &one);
        assert_eq!(ready.place_next(&mut rooms), None);
        rooms.give_back("a", &one);
        assert_eq!(ready.place_next(&mut rooms).unwrap().1, "a");
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
