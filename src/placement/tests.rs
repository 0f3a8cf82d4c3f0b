//! The fast policy against the rule in words, looked at one by one.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::ends::NEVER;
use super::kdtree::dice;
use super::*;
use crate::model::resources::Others;
use crate::model::selector::Labels;

mod grouping;
mod reserving;

fn candidate(job: u64, priority: i64, cores: u64) -> Candidate {
    Candidate {
        job,
        priority,
        owner: None,
        partition: None,
        resources: Resources::of(cores, 0),
        lasts: NEVER,
        selector: None,
        strategy: Strategy::Spread,
        avoid: Vec::new(),
        more: 0,
    }
}

fn rooms(nodes: &[(&str, u64)]) -> Rooms {
    let mut rooms = Rooms::default();
    for (name, cores) in nodes {
        rooms.set(name, Room::of(true, Resources::of(*cores, 0)));
    }
    rooms
}

fn ready(rooms: &mut Rooms, candidates: impl IntoIterator<Item = Candidate>) -> Ready {
    let mut ready = Ready::default();
    candidates.into_iter().for_each(|candidate| ready.insert(rooms, candidate));
    ready
}

fn place_all(ready: &mut Ready, rooms: &mut Rooms) -> Vec<(u64, String)> {
    std::iter::from_fn(|| ready.place_next(rooms).map(|placed| (placed.candidate.job, placed.node)))
        .collect()
}

fn places(all: &[(u64, &str)]) -> Vec<(u64, String)> {
    all.iter().map(|(job, node)| (*job, node.to_string())).collect()
}

#[test]
fn priority_then_number_and_small_jobs_fill_the_rest() {
    let mut rooms = rooms(&[("a", 2)]);
    let all = [candidate(1, 0, 1), candidate(2, 5, 4), candidate(3, 0, 1), candidate(4, 5, 1)];
    let mut ready = ready(&mut rooms, all);
    assert_eq!(place_all(&mut ready, &mut rooms), places(&[(4, "a"), (1, "a")]));
    assert_eq!(ready.len(), 2);
}

#[test]
fn the_least_loaded_node_and_another_after_a_failure() {
    let mut rooms = rooms(&[("a", 4), ("b", 4)]);
    let mut ready = ready(&mut rooms, [candidate(1, 0, 1), candidate(2, 0, 1)]);
    assert_eq!(place_all(&mut ready, &mut rooms), places(&[(1, "a"), (2, "b")]));
    ready.insert(&mut rooms, Candidate { avoid: vec!["a".into()], ..candidate(3, 0, 1) });
    assert_eq!(place_all(&mut ready, &mut rooms), places(&[(3, "b")]));
    ready.insert(&mut rooms, Candidate { avoid: vec!["a".into()], ..candidate(4, 0, 3) });
    assert_eq!(place_all(&mut ready, &mut rooms), places(&[(4, "a")]), "better there than never");
}

#[test]
fn room_that_is_there_before_room_that_will_be() {
    let mut rooms = rooms(&[("a", 4), ("b", 40)]);
    let mut next = 0;
    let mut choose = |rooms: &mut Rooms, cores: u64| {
        next += 1;
        let mut ready = ready(rooms, [candidate(next, 0, cores)]);
        let Placed { candidate, node, until } = ready.place_next(rooms)?;
        rooms.give_back(&node, &candidate.resources, until);
        Some(node)
    };
    let two = Resources::of(2, 0);
    rooms.take("a", &two, NEVER);
    (0..19).for_each(|_| rooms.take("b", &two, NEVER));
    rooms.leave("a", &two);
    assert_eq!(choose(&mut rooms, 3), Some("a".into()), "there alone it will fit");
    assert_eq!(choose(&mut rooms, 2), Some("a".into()), "it fits on both: the less loaded");
    rooms.take("a", &two, NEVER);
    assert_eq!(choose(&mut rooms, 2), Some("b".into()), "the other one is full as yet");
    rooms.take("b", &two, NEVER);
    assert_eq!(choose(&mut rooms, 2), Some("a".into()), "it is about to be free");
    rooms.stay("a", &two);
    assert_eq!(choose(&mut rooms, 2), None);
}

#[test]
fn jobs_ahead_are_bounded() {
    let mut rooms = rooms(&[("a", 2)]);
    let mut ready = ready(&mut rooms, (1..=10).map(|job| candidate(job, 0, 1)));
    rooms.set_ahead("a", 3);
    assert_eq!(place_all(&mut ready, &mut rooms).len(), 5);
}

#[test]
fn a_strategy_says_which_of_those_that_have_room() {
    let of = |strategy: Strategy, jobs: std::ops::RangeInclusive<u64>| {
        jobs.map(move |job| Candidate { strategy, ..candidate(job, 0, 1) })
    };
    let nodes = [("a", 4), ("b", 4), ("c", 8)];
    let mut spread = rooms(&nodes);
    let mut all = ready(&mut spread, of(Strategy::Spread, 1..=4));
    let expected = places(&[(1, "a"), (2, "b"), (3, "c"), (4, "c")]);
    assert_eq!(place_all(&mut all, &mut spread), expected);
    let mut pack = rooms(&nodes);
    let mut all = ready(&mut pack, of(Strategy::Pack, 1..=5));
    let expected = places(&[(1, "a"), (2, "a"), (3, "a"), (4, "a"), (5, "b")]);
    assert_eq!(place_all(&mut all, &mut pack), expected);
    let mut turns = rooms(&nodes);
    let mut all = ready(&mut turns, of(Strategy::RoundRobin, 1..=5));
    let expected = places(&[(1, "a"), (2, "b"), (3, "c"), (4, "a"), (5, "b")]);
    assert_eq!(place_all(&mut all, &mut turns), expected);
    // Of many jobs, one at a time, each node gets some; and the same again.
    let random = || {
        let mut random = rooms(&nodes);
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for candidate in of(Strategy::Random, 1..=300) {
            let mut ready = ready(&mut random, [candidate]);
            let Placed { candidate, node, until } = ready.place_next(&mut random).unwrap();
            random.give_back(&node, &candidate.resources, until);
            *counts.entry(node).or_default() += 1;
        }
        counts
    };
    let counts = random();
    assert!(counts.len() == 3 && counts.values().all(|count| *count > 15), "{counts:?}");
    assert_eq!(random(), counts);
}

/// What has room among those that the rule in words leaves, for a job of this number.
fn choose_slowly(
    rooms: &BTreeMap<String, Room>,
    owners: &[Arc<str>],
    job: &Candidate,
) -> Option<String> {
    let user = job.owner.as_ref().filter(|owner| owners.contains(*owner));
    let best = |(avoided, free): (bool, bool)| {
        let fit = rooms.iter().filter(|(name, room)| {
            let takes =
                if free { room.has_room(&job.resources) } else { room.takes(&job.resources) };
            job.avoid.contains(name) == avoided
                && (room.owner.is_none() || room.owner.as_ref() == user)
                && job.selector.as_ref().is_none_or(|by| by.takes(name, &room.labels))
                && takes
        });
        match job.strategy {
            Strategy::Pack => fit.map(|(name, room)| (u64::MAX - room.load(), 0, name)).min(),
            _ => fit.map(|(name, room)| (room.load(), room.used.memory, name)).min(),
        }
        .map(|(_, _, name)| name)
    };
    let turns = [(false, true), (false, false), (true, true), (true, false)];
    turns.into_iter().find_map(best).cloned()
}

/// What is asked of nodes in these tests.
fn selectors() -> Vec<Option<Arc<Selector>>> {
    let labels = [
        json!({"disk": "ssd"}),
        json!({"disk": {"not": "hdd"}, "zone": {"in": ["a", "b"]}}),
        json!({"fast": {"exists": true}}),
        json!({"zone": {"not": "a"}}),
        json!({"disk": "none has it"}),
    ];
    let mut all: Vec<Selector> =
        labels.iter().map(|of| Selector::of_labels(of.as_object().unwrap()).unwrap()).collect();
    let mut named = Selector::default();
    named.only(&json!(["n1", "n3"])).unwrap();
    all.push(named);
    let mut excluded = Selector::default();
    excluded.except(&json!("n2")).unwrap();
    all.push(excluded);
    std::iter::once(None).chain(all.into_iter().map(|one| Some(Arc::new(one)))).collect()
}

fn labels(below: &mut impl FnMut(u64) -> u64) -> Labels {
    let mut labels = Labels::new();
    let mut some = |name: &str, values: &[&str]| {
        let pick = below(values.len() as u64 + 1) as usize;
        if let Some(value) = values.get(pick) {
            labels.insert(name.into(), (*value).into());
        }
    };
    some("disk", &["ssd", "hdd"]);
    some("zone", &["a", "b", "c"]);
    some("fast", &["yes"]);
    labels
}

/// Countables: mostly none, else of one kind or two.
fn others(below: &mut impl FnMut(u64) -> u64, most: u64) -> Resources {
    let (gpus, licenses) = match below(4) {
        0 => (below(most), 0),
        1 => (below(most), below(most)),
        _ => (0, 0),
    };
    Resources::NONE.and("gpus", gpus).and("licenses", licenses)
}

#[test]
fn what_is_placed_next_is_the_first_that_fits_anywhere() {
    let mut below = dice(2);
    let (mut ready, mut rooms) = (Ready::default(), Rooms::default());
    let (mut waiting, mut all) = (BTreeMap::new(), BTreeMap::new());
    let mut running: Vec<(String, Candidate)> = Vec::new();
    let mut owners: Vec<Arc<str>> = Vec::new();
    let selectors = selectors();
    let (mut placed, mut stuck, mut own, mut selected, mut counted, mut packed) =
        (0, 0, 0, 0, 0, 0);
    for turn in 1..8000 {
        // Nobody has nodes of their own for a while, then more and more users have; nothing is asked of labels
        // for a while, and nothing is counted but cores and memory.
        let users = ["", "ada", "ben", "cleo"].into_iter().take(1 + turn as usize / 2000);
        let users: Vec<&str> = users.collect();
        // Few kinds of need for a while, then nearly as many as jobs.
        let limit = if (turn / 500) % 2 == 0 { 4 } else { 1000 };
        let mut resources = Resources::of(1 + below(6), below(limit));
        if turn > 1500 {
            resources.add(&others(&mut below, 3));
        }
        let selector = match turn > 1000 && below(2) == 0 {
            true => selectors[below(selectors.len() as u64) as usize].clone(),
            false => None,
        };
        let strategy = if turn > 3000 && below(4) == 0 { Strategy::Pack } else { Strategy::Spread };
        let avoid = (0..below(3)).map(|_| format!("n{}", below(6))).collect();
        // At times an older job comes again, with other needs.
        let job = if below(10) == 0 { 1 + below(turn) } else { turn };
        let owner = Some(["ada", "ben", "cleo", "dan"][below(4) as usize].into());
        let priority = below(4) as i64;
        let new = Candidate {
            resources,
            selector,
            strategy,
            avoid,
            owner,
            ..candidate(job, priority, 0)
        };
        waiting.retain(|_, other: &mut Candidate| other.job != job);
        waiting.insert((Reverse(new.priority), job), new.clone());
        ready.insert(&mut rooms, new);
        // Most jobs go again, or too many would wait to be looked at one by one.
        for _ in 0..if waiting.len() > 100 { 2 } else { below(20) / 19 } {
            let index = below(waiting.len() as u64) as usize;
            let (turn, gone) = waiting.iter().nth(index).map(|(t, c)| (*t, c.clone())).unwrap();
            waiting.remove(&turn);
            assert_eq!(ready.remove(gone.job), Some(gone));
        }
        if below(4) == 0 {
            let name = format!("n{}", below(6));
            let room = rooms.get(&name).cloned().unwrap_or(Room::CLOSED);
            let mut total = Resources::of(2 + 2 * below(3), 1000 * below(2));
            if turn > 1500 {
                total.add(&others(&mut below, 4));
            }
            let mut leaving = Resources::of(below(3), below(2));
            leaving.add(&others(&mut below, 2));
            let open = below(8) > 0;
            let owner = users[below(users.len() as u64) as usize];
            let owner: Option<Arc<str>> = (!owner.is_empty()).then(|| owner.into());
            owners.extend(owner.clone());
            let labels = if turn > 1000 { labels(&mut below) } else { Labels::new() };
            let like = if below(2) == 0 { Room::ANY } else { Resources::of(below(8), below(900)) };
            let room = Room { open, total, leaving, ahead: below(4), like, owner, labels, ..room };
            rooms.set(&name, room);
        }
        if below(2000) == 0 {
            rooms.forget_sites();
        }
        for _ in 0..below(4) {
            if !running.is_empty() {
                let (node, used) = running.swap_remove(below(running.len() as u64) as usize);
                rooms.give_back(&node, &used.resources, NEVER);
                ready.discharge(used.owner.as_ref(), None, &used.resources);
            }
        }
        for _ in 0..below(4) {
            all.clear();
            for name in (0..6).map(|n| format!("n{n}")) {
                all.extend(rooms.get(&name).cloned().map(|room| (name, room)));
            }
            let cores = |owner: &Option<Arc<str>>| -> u64 {
                let own =
                    running.iter().filter(|(_, job): &&(String, Candidate)| job.owner == *owner);
                own.map(|(_, job)| job.resources.cores).sum()
            };
            let mut order: Vec<(&(Reverse<i64>, u64), &Candidate)> = waiting.iter().collect();
            order.sort_by_key(|((priority, job), one)| (*priority, cores(&one.owner), *job));
            let first = order.into_iter().find_map(|(turn, candidate)| {
                Some((*turn, choose_slowly(&all, &owners, candidate)?))
            });
            let slow = first.and_then(|(turn, node)| Some((waiting.remove(&turn)?, node)));
            let fast = ready.place_next(&mut rooms).map(|placed| (placed.candidate, placed.node));
            assert_eq!(fast, slow, "turn {turn}");
            let Some((candidate, node)) = fast else {
                stuck += usize::from(!ready.is_empty());
                continue;
            };
            let room = &all[&node];
            placed += 1;
            own += usize::from(room.owner.is_some());
            selected += usize::from(candidate.selector.is_some());
            counted += usize::from(candidate.resources.others != Others::NONE);
            packed += usize::from(candidate.strategy == Strategy::Pack);
            running.push((node, candidate));
        }
        assert_eq!(ready.len(), waiting.len());
    }
    let told = format!(
        "{placed} placed, {own} on their owner's, {selected} by label, {counted} with countables, {packed} packed, {stuck} times none fits"
    );
    let few = [own, selected, counted, packed].into_iter().min().unwrap();
    assert!(placed > 2000 && few > 100 && stuck > 300, "{told}");
}

#[test]
fn a_window_is_what_a_room_takes() {
    let mut below = dice(4);
    let mut taken = 0;
    for _ in 0..50_000 {
        let mut some = |limit| Resources::of(below(limit), below(limit));
        let (total, used, job) = (some(9), some(30), some(12));
        let leaving = Resources::of(below(4), below(4));
        let open = below(8) > 0;
        let like = Resources::of(below(12), below(12));
        let room = Room { used, leaving, ahead: below(6), like, ..Room::of(open, total) };
        let within = room.window().is_some_and(|window| window.holds(&[job.cores, job.memory]));
        assert_eq!(within, room.takes(&job), "{room:?} {job:?}");
        taken += usize::from(within);
    }
    assert!(taken > 500, "{taken}");
}

#[test]
fn a_blocked_kind_waits_for_room_that_would_do() {
    let mut rooms = rooms(&[("a", 4), ("b", 2)]);
    let mut ready = ready(&mut rooms, [candidate(1, 0, 4)]);
    let one = Resources::of(1, 0);
    (0..2).for_each(|_| rooms.take("a", &one, NEVER));
    assert_eq!(ready.place_next(&mut rooms), None);
    rooms.give_back("a", &one, NEVER);
    assert_eq!(ready.place_next(&mut rooms), None);
    rooms.give_back("b", &one, NEVER);
    assert_eq!(ready.place_next(&mut rooms), None);
    rooms.give_back("a", &one, NEVER);
    assert_eq!(place_all(&mut ready, &mut rooms), places(&[(1, "a")]));
}

#[test]
fn sites_that_nobody_asks_for_any_more_are_forgotten() {
    let mut rooms = rooms(&[("a", 4), ("b", 4)]);
    let mut all = Ready::default();
    for job in 1..2000 {
        let tests: Value = json!({"zone": {"not": job.to_string()}});
        let selector = Selector::of_labels(tests.as_object().unwrap()).unwrap();
        let selector = Some(Arc::new(selector));
        all.insert(&mut rooms, Candidate { selector, ..candidate(job, 0, 1) });
        let Placed { candidate: placed, node, .. } = all.place_next(&mut rooms).unwrap();
        assert_eq!(placed.job, job);
        rooms.give_back(&node, &placed.resources, NEVER);
        assert!(rooms.sites().len() < 200, "{}", rooms.sites().len());
    }
}

fn of(owner: &str, job: u64, cores: u64) -> Candidate {
    Candidate { owner: Some(owner.into()), ..candidate(job, 0, cores) }
}

#[test]
fn users_take_turns_by_what_they_have_had() {
    let mut rooms = rooms(&[("a", 4)]);
    let mut all = Ready::default();
    (1..=100).for_each(|job| all.insert(&mut rooms, of("ada", job, 1)));
    (101..=110).for_each(|job| all.insert(&mut rooms, of("ben", job, 1)));
    let placed: Vec<u64> = place_all(&mut all, &mut rooms).iter().map(|(job, _)| *job).collect();
    assert_eq!(placed, [1, 101, 2, 102]);
    // Whoever had more yields until the others have caught up.
    all.set_had(|user| if user.is_some_and(|user| **user == *"ada") { 1000 } else { 0 });
    let one = Resources::of(1, 0);
    for owner in ["ada", "ben", "ada"] {
        all.discharge(Some(&owner.into()), None, &one);
        rooms.give_back("a", &one, NEVER);
    }
    let placed: Vec<u64> = place_all(&mut all, &mut rooms).iter().map(|(job, _)| *job).collect();
    assert_eq!(placed, [103, 104, 105]);
    // Priority comes before that.
    all.insert(&mut rooms, Candidate { priority: 1, ..of("ada", 200, 1) });
    all.discharge(Some(&"ben".into()), None, &one);
    rooms.give_back("a", &one, NEVER);
    assert_eq!(place_all(&mut all, &mut rooms), places(&[(200, "a")]));
}

/// The same order as [`Ready`] in words, slowly, with caps and shares.
#[test]
fn the_next_job_is_that_of_whoever_had_least_within_their_cap() {
    let mut below = dice(9);
    let names = ["ada", "ben", "cleo", "dan"];
    let cap = Cap { jobs: Some(5), cores: Some(9) };
    let (mut placed, mut capped) = (0, 0);
    for round in 0..40 {
        let mut rooms = rooms(&[("a", 16), ("b", 12), ("c", 4)]);
        let mut ready = Ready::with(cap, 0);
        let mut waiting: BTreeMap<u64, Candidate> = BTreeMap::new();
        let mut running: Vec<(Candidate, String)> = Vec::new();
        let mut had = [0u64; 4];
        for job in 1..150 {
            let owner = names[below(4) as usize];
            let new = Candidate {
                priority: below(2) as i64,
                resources: Resources::of(1 + below(if round % 2 == 0 { 2 } else { 8 }), 0),
                ..of(owner, job, 1)
            };
            waiting.insert(job, new.clone());
            ready.insert(&mut rooms, new);
            if below(5) == 0 {
                had = std::array::from_fn(|_| below(200));
            }
            ready.set_had(|user| {
                let at = names.iter().position(|name| user.is_some_and(|user| **user == **name));
                at.map_or(0, |at| had[at])
            });
            for _ in 0..below(4) {
                if !running.is_empty() {
                    let gone = running.swap_remove(below(running.len() as u64) as usize);
                    ready.discharge(gone.0.owner.as_ref(), None, &gone.0.resources);
                    rooms.give_back(&gone.1, &gone.0.resources, NEVER);
                }
            }
            for _ in 0..below(4) {
                let used = |owner: &Option<Arc<str>>| {
                    let mut used = InUse::default();
                    let own = running.iter().filter(|(other, _)| other.owner == *owner);
                    own.for_each(|(job, _)| used.add(&job.resources));
                    used
                };
                let all: BTreeMap<String, Room> = ["a", "b", "c"]
                    .map(|name| (name.to_string(), rooms.get(name).unwrap().clone()))
                    .into();
                let standing = |candidate: &Candidate| {
                    let owner = candidate.owner.as_deref().unwrap();
                    let at = names.iter().position(|name| *name == owner).unwrap();
                    u128::from(had[at]) + 10 * used(&candidate.owner).cores
                };
                let fits = |candidate: &&Candidate| choose_slowly(&all, &[], candidate).is_some();
                let allowed = |candidate: &&Candidate| {
                    candidate.resources.cores <= cap.left(used(&candidate.owner))
                };
                let key = |candidate: &&Candidate| {
                    (Reverse(candidate.priority), standing(candidate), candidate.job)
                };
                let slow = waiting.values().filter(fits).filter(allowed).min_by_key(key);
                capped += usize::from(waiting.values().filter(fits).any(|c| !allowed(&c)));
                let slow = slow.map(|candidate| candidate.job);
                let fast =
                    ready.place_next(&mut rooms).map(|placed| (placed.candidate, placed.node));
                assert_eq!(
                    fast.as_ref().map(|(candidate, _)| candidate.job),
                    slow,
                    "{round}, {job}"
                );
                let Some((candidate, node)) = fast else { continue };
                waiting.remove(&candidate.job);
                running.push((candidate, node));
                placed += 1;
            }
        }
    }
    assert!(placed > 1500 && capped > 500, "{placed} placed, {capped} times one was at the cap");
}
