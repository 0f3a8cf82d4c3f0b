//! What is reserved, and who may pass: against the rule in words, and over time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::ends::{Millis, NEVER};
use super::super::kdtree::dice;
use super::super::*;
use super::{candidate, place_all, places, rooms};

fn lasting(job: u64, cores: u64, lasts: Millis) -> Candidate {
    Candidate { lasts, ..candidate(job, 0, cores) }
}

fn with(reservations: usize) -> Ready {
    Ready::with(Cap::default(), reservations)
}

fn reserved(rooms: &Rooms) -> Vec<(u64, &str, Option<Millis>)> {
    rooms.reserved().collect()
}

#[test]
fn others_run_past_a_wide_job_where_they_end_before_it() {
    let mut rooms = rooms(&[("a", 4)]);
    let mut ready = with(4);
    rooms.take("a", &Resources::of(2, 0), 1000);
    ready.insert(&mut rooms, lasting(1, 4, NEVER));
    ready.insert(&mut rooms, lasting(2, 1, 1001));
    ready.insert(&mut rooms, lasting(3, 1, 1000));
    ready.insert(&mut rooms, lasting(4, 1, NEVER));
    assert_eq!(place_all(&mut ready, &mut rooms), places(&[(3, "a")]));
    assert_eq!(reserved(&rooms), [(1, "a", Some(1000))]);
    rooms.set_now(500);
    ready.insert(&mut rooms, lasting(5, 1, 501));
    ready.insert(&mut rooms, lasting(6, 1, 500));
    assert_eq!(place_all(&mut ready, &mut rooms), places(&[(6, "a")]));
    rooms.set_now(900);
    rooms.give_back("a", &Resources::of(2, 0), 1000);
    assert_eq!(place_all(&mut ready, &mut rooms), [], "all that is free is the wide one's");
    for _ in 0..2 {
        rooms.give_back("a", &Resources::of(1, 0), 1000);
    }
    assert_eq!(place_all(&mut ready, &mut rooms), places(&[(1, "a")]));
    assert_eq!(reserved(&rooms), [], "what waits is not passed by anybody");
}

#[test]
fn others_may_stay_beside_a_wide_job_where_there_is_room_for_both() {
    let mut rooms = rooms(&[("a", 8)]);
    let mut ready = with(4);
    rooms.take("a", &Resources::of(4, 0), 1000);
    ready.insert(&mut rooms, lasting(1, 5, NEVER));
    (2..=5).for_each(|job| ready.insert(&mut rooms, lasting(job, 1, NEVER)));
    assert_eq!(place_all(&mut ready, &mut rooms), places(&[(2, "a"), (3, "a"), (4, "a")]));
    rooms.give_back("a", &Resources::of(4, 0), 1000);
    assert_eq!(place_all(&mut ready, &mut rooms), places(&[(1, "a")]));
}

#[test]
fn who_comes_before_by_priority_need_not_mind_what_is_reserved() {
    let mut rooms = rooms(&[("a", 4)]);
    let mut ready = with(4);
    rooms.take("a", &Resources::of(2, 0), NEVER);
    ready.insert(&mut rooms, lasting(1, 4, NEVER));
    ready.insert(&mut rooms, lasting(2, 1, NEVER));
    assert_eq!(place_all(&mut ready, &mut rooms), []);
    assert_eq!(reserved(&rooms), [(1, "a", None)]);
    ready.insert(&mut rooms, Candidate { priority: 1, ..lasting(3, 1, NEVER) });
    assert_eq!(place_all(&mut ready, &mut rooms), places(&[(3, "a")]));
    ready.insert(&mut rooms, Candidate { priority: 1, ..lasting(4, 3, NEVER) });
    ready.insert(&mut rooms, Candidate { priority: 1, ..lasting(5, 1, NEVER) });
    assert_eq!(place_all(&mut ready, &mut rooms), []);
    assert_eq!(reserved(&rooms), [(4, "a", None)], "it is taken from the other one");
}

#[test]
fn what_is_reserved_is_free_again_with_whatever_it_was_reserved_for() {
    let nodes = [("a", 4), ("b", 4)];
    let full = |ready: &mut Ready| {
        let mut rooms = rooms(&nodes);
        rooms.take("a", &Resources::of(3, 0), 100);
        rooms.take("b", &Resources::of(3, 0), 200);
        ready.insert(&mut rooms, lasting(1, 4, NEVER));
        ready.insert(&mut rooms, lasting(2, 1, NEVER));
        assert_eq!(place_all(ready, &mut rooms), places(&[(2, "b")]));
        assert_eq!(reserved(&rooms), [(1, "a", Some(100))]);
        ready.insert(&mut rooms, lasting(3, 1, NEVER));
        assert_eq!(place_all(ready, &mut rooms), []);
        rooms
    };
    // The job is gone.
    let mut ready = with(1);
    let mut rooms = full(&mut ready);
    ready.remove(1).unwrap();
    assert_eq!(place_all(&mut ready, &mut rooms), places(&[(3, "a")]));
    // It is still there as it was: its card has another line.
    let mut ready = with(1);
    let mut rooms = full(&mut ready);
    ready.insert(&mut rooms, lasting(1, 4, NEVER));
    assert_eq!(place_all(&mut ready, &mut rooms), []);
    assert_eq!(reserved(&rooms), [(1, "a", Some(100))]);
    // It asks for something else, which nobody could ever have.
    ready.insert(&mut rooms, lasting(1, 5, NEVER));
    assert_eq!(place_all(&mut ready, &mut rooms), places(&[(3, "a")]));
    // The node takes no jobs any more.
    let mut ready = with(1);
    let mut rooms = full(&mut ready);
    let room = rooms.get("a").unwrap().clone();
    rooms.set("a", Room { open: false, ..room.clone() });
    assert_eq!(place_all(&mut ready, &mut rooms), []);
    rooms.give_back("b", &Resources::of(3, 0), 200);
    assert_eq!(place_all(&mut ready, &mut rooms), []);
    assert_eq!(reserved(&rooms), [(1, "b", None)]);
}

#[test]
fn what_is_reserved_for_someone_at_their_cap_is_free_again() {
    let cap = Cap { jobs: None, cores: Some(4) };
    let mut ready = Ready::with(cap, 4);
    let mut rooms = rooms(&[("a", 4), ("b", 1)]);
    let of = |owner: &str, job, cores| Candidate {
        owner: Some(owner.into()),
        ..lasting(job, cores, NEVER)
    };
    rooms.take("a", &Resources::of(2, 0), NEVER);
    ready.insert(&mut rooms, of("ada", 1, 4));
    ready.insert(&mut rooms, of("ben", 2, 1));
    assert_eq!(place_all(&mut ready, &mut rooms), places(&[(2, "b")]));
    assert_eq!(reserved(&rooms), [(1, "a", None)]);
    ready.insert(&mut rooms, of("ben", 3, 1));
    assert_eq!(place_all(&mut ready, &mut rooms), []);
    ready.charge(Some(&"ada".into()), None, &Resources::of(1, 0));
    rooms.give_back("a", &Resources::of(1, 0), NEVER);
    assert_eq!(place_all(&mut ready, &mut rooms), places(&[(3, "a")]));
}

#[test]
fn when_the_first_will_begin_is_known_though_nobody_passes_them() {
    let mut rooms = rooms(&[("a", 2), ("b", 2)]);
    let mut ready = with(2);
    rooms.take("a", &Resources::of(2, 0), 700);
    rooms.take("b", &Resources::of(2, 0), 300);
    (1..=4).for_each(|job| ready.insert(&mut rooms, lasting(job, 1, 100)));
    assert_eq!(place_all(&mut ready, &mut rooms), []);
    ready.reserve_first(&mut rooms);
    assert_eq!(reserved(&rooms), [(1, "b", Some(300)), (2, "a", Some(700))]);
    rooms.set_now(800);
    ready.reserve_first(&mut rooms);
    assert_eq!(reserved(&rooms), [(1, "b", Some(800)), (2, "a", Some(800))], "they are late");
}

/// The node, the turn, the cores, and until when.
type Kept = (String, (Reverse<i64>, u64), u64, Millis);

/// Who waits, what is where, and what is reserved, as the rule in words has it.
struct Slow {
    most: usize,
    now: Millis,
    total: BTreeMap<String, u64>,
    there: Vec<(String, Candidate, Millis)>,
    reserved: Vec<Kept>,
    /// Nodes that are to be looked at with the next decision.
    changed: BTreeSet<String>,
    waiting: BTreeMap<u64, Candidate>,
}

impl Slow {
    fn used(&self, node: &str, after: Option<Millis>) -> u64 {
        let there = self.there.iter().filter(|(name, ..)| name == node);
        let there = there.filter(|(_, _, until)| after.is_none_or(|after| *until > after));
        there.map(|(_, job, _)| job.resources.cores).sum()
    }

    fn when(&self, node: &str, cores: u64) -> Millis {
        let total = self.total[node];
        if self.used(node, None) + cores <= total {
            return self.now;
        }
        let ends = self.there.iter().filter(|(name, ..)| name == node);
        let known = |until: &Millis| *until != NEVER && *until + 60_000 >= self.now;
        let ends = ends.map(|(_, _, until)| *until).filter(known);
        let late = |end: Millis| end + 60_000 < self.now;
        let stays = |until: Millis| -> u64 {
            let there = self.there.iter().filter(|(name, ..)| name == node);
            let there = there.filter(|(_, _, end)| *end > until || late(*end));
            there.map(|(_, job, _)| job.resources.cores).sum()
        };
        let enough = |until: &Millis| stays(*until) + cores <= total;
        ends.filter(enough).min().map_or(NEVER, |until| until.max(self.now))
    }

    /// The time only comes nearer; where it has passed it is another, and who was put off has none any more.
    fn look(&mut self) {
        for node in std::mem::take(&mut self.changed) {
            let known = self.reserved.iter().position(|(name, ..)| *name == node);
            let Some(index) = known else { continue };
            let found = self.when(&node, self.reserved[index].2);
            let until = self.reserved[index].3;
            if until < self.now {
                self.reserved[index].3 = found;
            } else if until != NEVER && found > until + 1000 {
                self.reserved.remove(index);
            } else {
                self.reserved[index].3 = found.min(until);
            }
        }
    }

    fn may(&self, job: &Candidate, node: &str) -> bool {
        let turn = (Reverse(job.priority), job.job);
        let cores = job.resources.cores;
        if self.used(node, None) + cores > self.total[node] {
            return false;
        }
        let against = self
            .reserved
            .iter()
            .find(|(name, other, ..)| name == node && *other != turn && other.0 <= turn.0);
        let Some((_, _, needs, until)) = against else { return true };
        let left = if *until == NEVER { 3_600_000 } else { until.saturating_sub(self.now) };
        let in_time = job.lasts <= left;
        let then = self.used(node, Some(until.saturating_add(1000).min(NEVER - 1)));
        in_time || then + needs + cores <= self.total[node]
    }

    fn choose(&self, job: &Candidate) -> Option<String> {
        let is_reserved = |node: &str| self.reserved.iter().any(|(name, ..)| name == node);
        let load = |node: &str| self.used(node, None) * 1000 / self.total[node].max(1);
        let nodes = self.total.keys().filter(|node| self.may(job, node));
        nodes.min_by_key(|node| (is_reserved(node), load(node), (*node).clone())).cloned()
    }

    fn cores_of(&self, job: &Candidate) -> u64 {
        let own = self.there.iter().filter(|(_, other, _)| other.owner == job.owner);
        own.map(|(_, other, _)| other.resources.cores).sum()
    }

    fn next(&mut self) -> Option<(u64, String)> {
        self.look();
        loop {
            let mut order: Vec<&Candidate> = self.waiting.values().collect();
            order.sort_by_key(|job| (Reverse(job.priority), self.cores_of(job), job.job));
            let (job, node) = order.iter().find_map(|job| Some((job.job, self.choose(job)?)))?;
            let before = order.into_iter().take_while(|other| other.job != job);
            let kept = |job: u64| self.reserved.iter().any(|(_, turn, ..)| turn.1 == job);
            let passed = before.filter(|other| !kept(other.job)).cloned();
            let passed: Vec<Candidate> = passed.collect();
            if !passed.iter().any(|other| self.reserve(other)) {
                return Some((job, node));
            }
        }
    }

    fn reserve(&mut self, job: &Candidate) -> bool {
        let turn = (Reverse(job.priority), job.job);
        let last = self.reserved.iter().map(|(_, turn, ..)| *turn).max();
        let full = self.reserved.len() >= self.most;
        if full && last.is_none_or(|last| last.0 <= turn.0) {
            return false;
        }
        let cores = job.resources.cores;
        let free = |node: &String| {
            let own = self.reserved.iter().find(|(name, ..)| name == node);
            self.total[node] >= cores && own.is_none_or(|(_, other, ..)| turn.0 < other.0)
        };
        let lacks =
            |node: &String| (cores + self.used(node, None)).saturating_sub(self.total[node]);
        let nodes = self.total.keys().filter(|node| free(node));
        let best = nodes.min_by_key(|node| (self.when(node, cores), lacks(node), (*node).clone()));
        let Some(node) = best.cloned() else { return false };
        let until = self.when(&node, cores);
        self.reserved.retain(|(name, ..)| *name != node);
        self.reserved.push((node, turn, cores, until));
        if self.reserved.len() > self.most {
            let last = self.reserved.iter().map(|(_, turn, ..)| *turn).max();
            self.reserved.retain(|(_, turn, ..)| Some(*turn) != last);
        }
        true
    }

    fn place(&mut self, job: u64, node: &str) {
        let Some(job) = self.waiting.remove(&job) else { return };
        self.reserved.retain(|(_, turn, ..)| turn.1 != job.job);
        let until = self.now.saturating_add(job.lasts);
        self.there.push((node.to_string(), job, until));
        self.changed.insert(node.to_string());
    }
}

#[test]
fn what_is_reserved_and_who_passes_is_as_the_rule_says() {
    let mut below = dice(21);
    let (mut placed, mut held, mut passed, mut moved) = (0, 0, 0, 0);
    for round in 0..60 {
        let most = [1, 2, 4][round % 3];
        let nodes = [("a", 16), ("b", 8), ("c", 4)];
        let mut rooms = rooms(&nodes);
        let mut ready = with(most);
        let total = nodes.map(|(name, cores)| (name.to_string(), cores)).into();
        let mut slow = Slow {
            most,
            now: 0,
            total,
            there: Vec::new(),
            reserved: Vec::new(),
            changed: BTreeSet::new(),
            waiting: BTreeMap::new(),
        };
        for job in 1..200 {
            let lasts = if below(4) == 0 { NEVER } else { 1000 * (1 + below(300)) };
            let owner = Some(["ada", "ben"][below(2) as usize].into());
            let cores = [1, 1, 1, 2, 4, 7, 8, 12, 17][below(9) as usize];
            let priority = i64::from(below(12) == 0);
            let new = Candidate { priority, owner, ..lasting(job, cores, lasts) };
            ready.insert(&mut rooms, new.clone());
            slow.waiting.insert(job, new);
            if below(15) == 0 {
                let index = below(slow.waiting.len() as u64) as usize;
                let gone = slow.waiting.keys().nth(index).copied().unwrap();
                slow.waiting.remove(&gone);
                slow.reserved.retain(|(_, turn, ..)| turn.1 != gone);
                ready.remove(gone).unwrap();
            }
            slow.now += 1000 * below(30);
            rooms.set_now(slow.now);
            // What is over has ended, some of it long before, some of it late.
            let over = |until: Millis, late: bool| until < slow.now && !late;
            let ended: Vec<usize> = (0..slow.there.len())
                .filter(|index| over(slow.there[*index].2, below(10) == 0) || below(40) == 0)
                .collect();
            for index in ended.into_iter().rev() {
                let (node, job, until) = slow.there.remove(index);
                rooms.give_back(&node, &job.resources, until);
                ready.discharge(job.owner.as_ref(), None, &job.resources);
                slow.changed.insert(node);
            }
            for _ in 0..below(5) {
                let next = slow.next();
                let fast = ready.place_next(&mut rooms);
                let told = fast.as_ref().map(|placed| (placed.candidate.job, placed.node.clone()));
                assert_eq!(told, next, "round {round}, job {job}, {:?}", slow.reserved);
                let mut kept: Vec<(String, u64, Millis)> = Vec::new();
                kept.extend(
                    rooms
                        .reserved()
                        .map(|(job, node, until)| (node.to_string(), job, until.unwrap_or(NEVER))),
                );
                kept.retain(|(_, job, _)| Some(*job) != next.as_ref().map(|(job, _)| *job));
                let Some((job, node)) = next else { continue };
                passed += usize::from(slow.reserved.iter().any(|(_, turn, ..)| turn.1 != job));
                held += usize::from(slow.reserved.iter().any(|(_, turn, ..)| turn.1 == job));
                slow.place(job, &node);
                kept.sort();
                let mut model: Vec<(String, u64, Millis)> = slow
                    .reserved
                    .iter()
                    .map(|(node, turn, _, until)| (node.clone(), turn.1, *until))
                    .collect();
                model.sort();
                assert_eq!(kept, model, "round {round}");
                moved += usize::from(model.iter().any(|(_, _, until)| *until == NEVER));
                placed += 1;
            }
        }
    }
    let told = format!(
        "{placed} placed, {held} of them reserved for, {passed} times one passed, {moved} times nobody knew when"
    );
    assert!(placed > 5000 && held > 200 && passed > 1000 && moved > 100, "{told}");
}

/// Jobs of all sizes come without an end, and end early or in time: none waits for longer than what was there
/// when it was its turn lasts, and none that was let past it puts it off.
#[test]
fn nothing_is_starved_and_nothing_that_passes_puts_off_what_is_reserved() {
    let mut below = dice(5);
    for (most, in_partition) in [(1, false), (3, false), (1, true), (3, true)] {
        let mut rooms = rooms(&[("a", 8), ("b", 8), ("c", 4)]);
        let mut ready = with(most);
        let (p, cap) = (Arc::from("p"), Cap { jobs: Some(3), cores: Some(8) });
        let caps = Caps { partition: cap, ..Caps::default() };
        ready.set_partition(&mut rooms, &p, Some(Rules { caps, ..Rules::default() }));
        let mut there: Vec<(Millis, String, Candidate, Millis)> = Vec::new();
        let mut promised: BTreeMap<u64, Millis> = BTreeMap::new();
        let mut wide: BTreeMap<u64, Millis> = BTreeMap::new();
        let (mut now, mut job, mut kept, mut longest) = (0, 0, 0, 0);
        while now < if in_partition { 20_000_000 } else { 40_000_000 } {
            // There is always a small one.
            while ready.len() < 30 {
                job += 1;
                let is_wide = job % 10 == 0;
                let cores = if is_wide { 4 + below(5) } else { 1 + below(2) };
                let lasts = 1000 * (1 + below(200));
                let partition = (in_partition && below(3) == 0).then(|| p.clone());
                let owner = Some(if below(2) == 0 { "ada" } else { "ben" }.into());
                let new = Candidate { partition, owner, ..lasting(job, cores, lasts) };
                ready.insert(&mut rooms, new);
                if is_wide {
                    wide.insert(job, now);
                }
            }
            while let Some(Placed { candidate, node, until }) = ready.place_next(&mut rooms) {
                if let Some(promise) = promised.remove(&candidate.job) {
                    assert!(now <= promise + 1000, "job {} at {now}, not {promise}", candidate.job);
                    kept += 1;
                }
                if let Some(since) = wide.remove(&candidate.job) {
                    longest = longest.max(now - since);
                }
                let end = now + 1 + below(candidate.lasts);
                there.push((end, node, candidate, until));
            }
            for (job, _, until) in rooms.reserved() {
                promised.entry(job).or_insert(until.unwrap());
            }
            now = there.iter().map(|(end, ..)| *end).min().unwrap();
            rooms.set_now(now);
            let (over, rest) = there.into_iter().partition(|(end, ..)| *end <= now);
            there = rest;
            for (_, node, job, until) in Vec::from_iter(over) {
                rooms.give_back(&node, &job.resources, until);
                let (owner, partition) = (job.owner.as_ref(), job.partition.as_ref());
                ready.discharge(owner, partition, &job.resources);
            }
        }
        assert!(kept > 100, "{kept}");
        assert!(longest < 4_000_000, "one waited for {longest}");
    }
}

#[test]
fn who_waits_for_what_ends_nobody_knows_when_is_not_bound_to_one_node() {
    let one = Resources::of(1, 0);
    let mut rooms = rooms(&[("a", 4), ("b", 4)]);
    let mut ready = with(1);
    rooms.take("a", &one, NEVER); // goes on for ever
    let mut there = std::collections::VecDeque::from(["b".to_string(), "b".to_string()]);
    there.iter().for_each(|node| rooms.take(node, &one, NEVER));
    ready.insert(&mut rooms, lasting(1, 4, NEVER));
    for minute in 0..10_000u64 {
        rooms.set_now(minute * 60_000);
        ready.insert(&mut rooms, lasting(2 + minute, 1, NEVER)); // there is always another small one
        if let Some(node) = there.pop_front() {
            rooms.give_back(&node, &one, NEVER); // none of them lasts for more than a few minutes
        }
        while let Some(Placed { candidate, node, .. }) = ready.place_next(&mut rooms) {
            if candidate.job == 1 {
                return;
            }
            there.push_back(node);
        }
        ready.reserve_first(&mut rooms);
    }
    panic!("it has waited for a week: {:?}", reserved(&rooms));
}

#[test]
fn who_waits_for_a_node_that_is_taken_keeps_nobody_from_another_one() {
    let mut rooms = rooms(&[("a", 4), ("g", 8)]);
    let mut ready = with(4);
    rooms.take("a", &Resources::of(1, 0), NEVER);
    rooms.take("g", &Resources::of(1, 0), NEVER);
    for (job, cores) in [(1, 8), (2, 8), (3, 4), (4, 1)] {
        ready.insert(&mut rooms, lasting(job, cores, NEVER));
    }
    assert_eq!(place_all(&mut ready, &mut rooms), []);
    assert_eq!(reserved(&rooms), [(1, "g", None), (3, "a", None)]);
    // It is looked for again once the other has begun.
    rooms.give_back("g", &Resources::of(1, 0), NEVER);
    assert_eq!(place_all(&mut ready, &mut rooms), places(&[(1, "g")]));
    ready.reserve_first(&mut rooms);
    assert_eq!(reserved(&rooms), [(3, "a", None), (2, "g", None)]);
}

#[test]
fn a_card_that_is_taken_in_again_changes_nothing_of_what_is_reserved() {
    let two = Resources::of(2, 0);
    let mut rooms = rooms(&[("a", 4)]);
    let mut ready = with(1);
    rooms.take("a", &two, 1000);
    ready.insert(&mut rooms, lasting(1, 4, NEVER));
    ready.insert(&mut rooms, lasting(2, 1, NEVER));
    assert_eq!(place_all(&mut ready, &mut rooms), []);
    rooms.give_back("a", &two, 1000);
    rooms.take("a", &two, 1003); // as the index does with each line
    ready.insert(&mut rooms, lasting(3, 1, 900));
    assert_eq!(place_all(&mut ready, &mut rooms), places(&[(3, "a")]));
    assert_eq!(reserved(&rooms), [(1, "a", Some(1000))]);
}

#[test]
fn who_was_put_off_by_higher_priority_is_given_the_next_best_node() {
    let mut rooms = rooms(&[("a", 4), ("b", 4)]);
    let mut ready = with(1);
    rooms.take("a", &Resources::of(2, 0), 1000);
    rooms.take("b", &Resources::of(4, 0), 2000);
    ready.insert(&mut rooms, lasting(1, 4, NEVER));
    assert_eq!(place_all(&mut ready, &mut rooms), []);
    ready.reserve_first(&mut rooms);
    assert_eq!(reserved(&rooms), [(1, "a", Some(1000))]);
    ready.insert(&mut rooms, Candidate { priority: 1, ..lasting(2, 2, 100_000) });
    assert_eq!(place_all(&mut ready, &mut rooms), places(&[(2, "a")]));
    ready.reserve_first(&mut rooms);
    assert_eq!(reserved(&rooms), [(1, "b", Some(2000))]);
}

#[test]
fn where_nobody_knows_when_only_what_is_short_runs_past() {
    let mut rooms = rooms(&[("a", 2)]);
    let mut ready = with(1);
    rooms.take("a", &Resources::of(1, 0), NEVER);
    const HOUR: Millis = 3_600_000;
    for (job, cores, lasts) in [(1, 2, NEVER), (2, 1, 87_600 * HOUR), (3, 1, HOUR / 2)] {
        ready.insert(&mut rooms, lasting(job, cores, lasts));
    }
    assert_eq!(place_all(&mut ready, &mut rooms), places(&[(3, "a")]));
}

#[test]
fn those_beyond_the_cap_hide_nobody_of_the_same_user() {
    let mut ready = Ready::with(Cap { jobs: None, cores: Some(12) }, 4);
    let mut rooms = Rooms::default();
    rooms.set("a", Room::of(true, Resources::of(12, 10)));
    rooms.take("a", &Resources::of(12, 5), NEVER);
    let ada = |job, resources| Candidate {
        owner: Some("ada".into()),
        priority: 1,
        resources,
        ..lasting(job, 1, NEVER)
    };
    (1..=8).for_each(|job| ready.insert(&mut rooms, ada(job, Resources::of(job + 1, 0))));
    ready.insert(&mut rooms, ada(9, Resources::of(1, 10)));
    assert_eq!(place_all(&mut ready, &mut rooms), []);
    ready.charge(Some(&"ada".into()), None, &Resources::of(11, 0)); // one core is left to her
    let small = Candidate { resources: Resources::of(1, 1), ..lasting(10, 1, NEVER) };
    ready.insert(&mut rooms, small);
    rooms.give_back("a", &Resources::of(1, 0), NEVER);
    assert_eq!(place_all(&mut ready, &mut rooms), []);
    assert_eq!(reserved(&rooms), [(9, "a", None)]);
}

#[test]
fn what_is_reserved_for_one_user_is_no_more_than_they_may_have() {
    let one = Resources::of(1, 0);
    let mut ready = Ready::with(Cap { jobs: Some(1), cores: None }, 4);
    let mut rooms = rooms(&[("a", 1), ("b", 1), ("c", 1)]);
    ["a", "b", "c"].iter().for_each(|node| rooms.take(node, &one, NEVER));
    let of = |owner: &str, job| Candidate { owner: Some(owner.into()), ..lasting(job, 1, NEVER) };
    (1..=3).for_each(|job| ready.insert(&mut rooms, of("ada", job)));
    assert_eq!(place_all(&mut ready, &mut rooms), []);
    ready.reserve_first(&mut rooms);
    assert_eq!(reserved(&rooms), [(1, "a", None)], "she may have one job");
    ready.insert(&mut rooms, of("ben", 4));
    ["a", "b"].iter().for_each(|node| rooms.give_back(node, &one, NEVER));
    // Hers goes where nothing is kept, and what was kept is free again.
    assert_eq!(place_all(&mut ready, &mut rooms), places(&[(1, "b"), (4, "a")]));
    assert_eq!(reserved(&rooms), []);
}

#[test]
fn who_comes_to_their_cap_while_a_node_is_kept_for_them_keeps_it_no_more() {
    let mut ready = Ready::with(Cap { jobs: Some(1), cores: None }, 4);
    let mut rooms = rooms(&[("a", 2), ("b", 1)]);
    rooms.take("a", &Resources::of(1, 0), NEVER);
    let of = |owner: &str, job, cores| Candidate {
        owner: Some(owner.into()),
        ..lasting(job, cores, NEVER)
    };
    ready.insert(&mut rooms, of("ada", 1, 2));
    ready.insert(&mut rooms, of("ada", 2, 1));
    assert_eq!(place_all(&mut ready, &mut rooms), places(&[(2, "b")]));
    ready.insert(&mut rooms, of("ben", 3, 1));
    assert_eq!(place_all(&mut ready, &mut rooms), places(&[(3, "a")]));
}
