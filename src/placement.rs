//! Which waiting job goes to which node. Pure policy: no clock, no files.
//!
//! Higher priority first, then the lower number; of the nodes that have room, one on which the job
//! has not failed yet, then one that has room now before one that is about to have it or takes jobs
//! ahead, then as the job's strategy says: the one that is least loaded, and of those with as many cores in
//! use the one with the least memory in use, and then the first by name ([`Strategy`]).
//!
//! A node that is a user's takes that user's jobs alone, and is to them as any other. What a job asks of
//! nodes by labels and names is looked at once for all jobs that ask the same ([`sites`]).
//!
//! Jobs are kept by what they ask for ([`ready`]), nodes by what they have room for ([`rooms`]).
//! Both lie in index trees (`kdtree`): a room that has grown finds the first job that fits, a job
//! finds the least loaded room, and a decision costs neither the number of jobs and of kinds of
//! need, nor the number of nodes.
//!
//! Nothing is reserved: a job that needs much waits for as long as smaller ones keep taking the
//! room that it would need, whatever its priority.

use std::sync::Arc;

use crate::model::resources::Resources;
use crate::model::selector::Selector;
use crate::model::strategy::Strategy;

mod ask;
mod kdtree;
pub mod ranges;
pub mod ready;
mod room;
pub mod rooms;
mod sites;
pub mod why;

pub use ready::Ready;
pub use rooms::{Room, Rooms};

/// A job that may be placed now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its number.
    pub job: u64,
    /// Higher goes first.
    pub priority: i64,
    /// The user whose job it is, where that is known.
    pub owner: Option<Arc<str>>,
    /// What it asks for.
    pub resources: Resources,
    /// Which nodes will do, where not all will.
    pub selector: Option<Arc<Selector>>,
    /// Which of those that have room it is given.
    pub strategy: Strategy,
    /// Nodes on which an attempt of it failed or was refused.
    pub avoid: Vec<String>,
    /// Of an array: how many more ranges of it may be placed.
    pub more: u64,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::rooms::Provider;
    use super::*;
    use std::cmp::Reverse;
    use std::collections::BTreeMap;

    fn candidate(job: u64, priority: i64, cores: u64) -> Candidate {
        let resources = Resources { cores, memory: 0 };
        Candidate { job, priority, owner: None, resources, avoid: Vec::new(), more: 0 }
    }

    fn rooms(nodes: &[(&str, u64)]) -> Rooms {
        let mut rooms = Rooms::default();
        for (name, cores) in nodes {
            let total = Resources { cores: *cores, memory: 0 };
            rooms.set(name, Room::of(true, total));
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
    fn room_that_is_there_before_room_that_will_be() {
        let two = Resources { cores: 2, memory: 0 };
        let mut all = rooms(&[("a", 4), ("b", 40)]);
        all.take("a", &two);
        (0..19).for_each(|_| all.take("b", &two));
        all.leave("a", &two);
        let three = Resources { cores: 3, memory: 0 };
        assert_eq!(all.choose(&three, None, &[]), Some("a".into()), "there alone it will fit");
        assert_eq!(
            all.choose(&two, None, &[]),
            Some("a".into()),
            "it fits on both: the less loaded"
        );
        all.take("a", &two);
        assert_eq!(all.choose(&two, None, &[]), Some("b".into()), "the other one is full as yet");
        all.take("b", &two);
        assert_eq!(all.choose(&two, None, &[]), Some("a".into()), "it is about to be free");
        all.stay("a", &two);
        assert_eq!(all.choose(&two, None, &[]), None);
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
    fn choose_slowly(
        rooms: &BTreeMap<String, Room>,
        job: &Resources,
        user: Option<Provider>,
        avoid: &[String],
    ) -> String {
        let best = |(avoided, free): (bool, bool)| {
            let takes = |room: &Room| if free { room.free().takes(job) } else { room.takes(job) };
            let is_for = |room: &Room| room.owner.is_none_or(|owner| user == Some(owner));
            let fit = rooms.iter().filter(|(name, room)| {
                avoid.contains(name) == avoided && is_for(room) && takes(room)
            });
            // Every class's best among those with as many cores in use, then the best of these.
            let mut firsts: BTreeMap<_, (u64, u64, &String)> = BTreeMap::new();
            for (name, room) in fit {
                let key = (room.total, room.ahead, room.leaving, room.used.cores, room.owner);
                let own = (room.used.memory, room.load(), name);
                firsts.entry(key).and_modify(|first| *first = own.min(*first)).or_insert(own);
            }
            firsts.into_values().map(|(_, load, name)| (load, name.clone())).min()
        };
        let turns = [(false, true), (false, false), (true, true), (true, false)];
        turns.into_iter().find_map(best).map(|(_, name)| name).unwrap_or_default()
    }

    #[test]
    fn the_fast_choice_is_the_slow_one() {
        let mut below = kdtree::dice(1);
        let (mut all, mut rooms) = (BTreeMap::new(), Rooms::default());
        let users = [None, None, Some(rooms.provider("ada")), Some(rooms.provider("ben"))];
        let (mut chosen, mut own) = (0, 0);
        for _ in 0..8000 {
            let owner = users[below(4) as usize];
            let name = format!("n{}", below(12));
            let total = Resources { cores: 2 + 2 * below(3), memory: 8 * below(2) };
            let used = Resources { cores: below(9), memory: below(10) };
            let leaving = Resources { cores: below(2) * below(3), memory: below(2) * below(4) };
            let open = below(8) > 0;
            let room = Room { used, leaving, ahead: below(2) * 2, owner, ..Room::of(open, total) };
            rooms.set(&name, room);
            all.insert(name, room);
            let job = Resources { cores: 1 + below(4), memory: below(5) };
            let avoid: Vec<String> = (0..below(3)).map(|_| format!("n{}", below(12))).collect();
            let user = users[below(4) as usize];
            let fast = rooms.choose(&job, user, &avoid).unwrap_or_default();
            chosen += usize::from(!fast.is_empty());
            own += usize::from(all.get(&fast).is_some_and(|room| room.owner.is_some()));
            let slow = choose_slowly(&all, &job, user, &avoid);
            assert_eq!(fast, slow, "{job:?} of {user:?} avoiding {avoid:?}");
        }
        assert!(chosen > 1000 && own > 200, "{chosen} chosen, {own} of them owned");
    }

    #[test]
    fn what_is_placed_next_is_the_first_that_fits_anywhere() {
        let mut below = kdtree::dice(2);
        let (mut ready, mut rooms) = (Ready::default(), Rooms::default());
        let (mut waiting, mut all) = (BTreeMap::new(), BTreeMap::new());
        let mut running: Vec<(String, Resources)> = Vec::new();
        let (mut placed, mut stuck, mut own) = (0, 0, 0);
        for job in 1..8000 {
            // Nobody has nodes of their own for a while, then more and more users have.
            let users = ["", "ada", "ben", "cleo"].into_iter().take(1 + job as usize / 2000);
            let users: Vec<&str> = users.collect();
            // Few kinds of need for a while, then nearly as many as jobs.
            let limit = if (job / 1000) % 2 == 0 { 4 } else { 1000 };
            let resources = Resources { cores: 1 + below(6), memory: below(limit) };
            let avoid = (0..below(3)).map(|_| format!("n{}", below(6))).collect();
            // At times an older job comes again, with other needs.
            let job = if below(10) == 0 { 1 + below(job) } else { job };
            let owner = Some(["ada", "ben", "cleo", "dan"][below(4) as usize].into());
            let new =
                Candidate { job, priority: below(4) as i64, owner, resources, avoid, more: 0 };
            waiting.retain(|_, other: &mut Candidate| other.job != job);
            waiting.insert((Reverse(new.priority), job), new.clone());
            ready.insert(new);
            if below(20) == 0 {
                let job = 1 + below(job);
                waiting.retain(|_, other| other.job != job);
                ready.remove(job);
            }
            if below(4) == 0 {
                let name = format!("n{}", below(6));
                let room = rooms.get(&name).copied().unwrap_or(Room::CLOSED);
                let total = Resources { cores: 2 + 2 * below(3), memory: 1000 * below(2) };
                let leaving = Resources { cores: below(3), memory: below(2) };
                let open = below(8) > 0;
                let owner = users[below(users.len() as u64) as usize];
                let owner = (!owner.is_empty()).then(|| rooms.provider(owner));
                rooms.set(&name, Room { open, total, leaving, ahead: below(4), owner, ..room });
            }
            for _ in 0..below(4) {
                if !running.is_empty() {
                    let (node, used) = running.swap_remove(below(running.len() as u64) as usize);
                    rooms.give_back(&node, &used);
                }
            }
            for _ in 0..below(4) {
                all.clear();
                for name in (0..6).map(|n| format!("n{n}")) {
                    all.extend(rooms.get(&name).copied().map(|room| (name, room)));
                }
                let first = waiting.iter().find_map(|(turn, candidate)| {
                    let user = rooms.providers().get(candidate.owner.as_ref()?).copied();
                    let node = choose_slowly(&all, &candidate.resources, user, &candidate.avoid);
                    (!node.is_empty()).then_some((*turn, node))
                });
                let slow = first.and_then(|(turn, node)| Some((waiting.remove(&turn)?, node)));
                let fast = ready.place_next(&mut rooms);
                assert_eq!(fast, slow);
                let Some((candidate, node)) = fast else {
                    stuck += usize::from(!ready.is_empty());
                    continue;
                };
                placed += 1;
                own += usize::from(all[&node].owner.is_some());
                running.push((node, candidate.resources));
            }
            assert_eq!(ready.len(), waiting.len());
        }
        let counted = format!("{placed} placed, {own} on their owner's, {stuck} times none fits");
        assert!(placed > 2000 && own > 200 && stuck > 500, "{counted}");
    }

    #[test]
    fn a_window_is_what_a_room_takes() {
        let mut below = kdtree::dice(4);
        let mut taken = 0;
        for _ in 0..50_000 {
            let mut some = |limit| Resources { cores: below(limit), memory: below(limit) };
            let (total, used, job) = (some(9), some(30), some(12));
            let leaving = Resources { cores: below(4), memory: below(4) };
            let open = below(8) > 0;
            let room = Room { used, leaving, ahead: below(6), ..Room::of(open, total) };
            let within = room.window().is_some_and(|window| window.holds(&[job.cores, job.memory]));
            assert_eq!(within, room.takes(&job), "{room:?} {job:?}");
            taken += usize::from(within);
        }
        assert!(taken > 1000, "{taken}");
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
        let of = |node: &Node| why_waiting(&four, Some("ada"), std::slice::from_ref(node), None);
        assert_eq!(of(&node), "no node has 4 cores");
        node.resources = Some(four);
        assert!(of(&node).contains("do not answer"));
        node.state = crate::model::node::NodeState::Connected;
        assert_eq!(of(&node), "waiting for room on localhost");
        let own = Node { owner: Some("ada".into()), name: "two".into(), ..node.clone() };
        assert_eq!(of(&own), "waiting for room on two");
        let other = Node { owner: Some("ben".into()), ..own };
        assert_eq!(of(&other), "no node has 4 cores; node two takes only ben's jobs");
        assert_eq!(
            why_waiting(&four, None, std::slice::from_ref(&other), None),
            "no node has 4 cores; node two takes only ben's jobs"
        );
        let drained = Node { drain: true, ..node.clone() };
        assert_eq!(
            why_waiting(&four, Some("ada"), &[drained, other], None),
            "nodes with 4 cores take no new jobs (drain): localhost; node two takes only ben's jobs"
        );
        let mut used = Rooms::default();
        used.update(&node);
        let nodes = std::slice::from_ref(&node);
        let why = |used: &Rooms| why_waiting(&four, None, nodes, Some(used));
        assert_eq!(why(&used), "about to be placed on localhost");
        used.take("localhost", &four);
        assert_eq!(why(&used), "waiting for room on localhost");
        node.drain = true;
        assert!(of(&node).contains("drain"));
    }
}
