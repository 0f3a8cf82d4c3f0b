//! Placement by partitions against the rule in words, looked at one by one.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use super::super::ends::NEVER;
use super::super::kdtree::dice;
use super::super::*;
use super::{candidate, place_all, places, rooms};

const USERS: [&str; 4] = ["ada", "ben", "cleo", "dan"];
const PARTITIONS: [&str; 3] = ["p", "q", "r"];

fn on(zone: &str) -> Option<Arc<Selector>> {
    let tests = json!({"zone": zone});
    Some(Selector::of_labels(tests.as_object().unwrap()).unwrap().into())
}

fn rules(below: &mut impl FnMut(u64) -> u64) -> Option<Rules> {
    let mut most = |limit: u64, one_in: u64| (below(one_in) == 0).then(|| 1 + below(limit));
    let mut cap = |jobs, cores| Cap { jobs: most(jobs, 3), cores: most(cores, 2) };
    let caps = Caps { user: Cap::default(), partition: cap(6, 16), user_in: cap(3, 8) };
    let selector = [None, on("a"), on("b"), on("none has it")][below(4) as usize].clone();
    let priority = below(3) as i64 - 1;
    (below(4) > 0).then_some(Rules { selector, priority, caps })
}

/// Rooms of three nodes, of which two are in a zone.
fn nodes() -> Rooms {
    let mut rooms = Rooms::default();
    for (name, cores, zone) in [("a", 12, "a"), ("b", 8, "b"), ("c", 4, "")] {
        let mut room = Room::of(true, Resources::of(cores, 0));
        room.labels.insert("zone".into(), zone.into());
        rooms.set(name, room);
    }
    rooms
}

/// What is known in words.
struct Slow {
    waiting: BTreeMap<u64, Candidate>,
    running: Vec<(Candidate, String)>,
    rules: BTreeMap<&'static str, Rules>,
    had: [u64; 4],
    cap: Cap,
}

impl Slow {
    fn used(&self, is_one: impl Fn(&Candidate) -> bool) -> InUse {
        let mut used = InUse::default();
        let all = self.running.iter().filter(|(candidate, _)| is_one(candidate));
        all.for_each(|(candidate, _)| used.add(&candidate.resources));
        used
    }

    fn standing(&self, owner: &Option<Arc<str>>) -> u128 {
        let at = USERS.iter().position(|name| owner.as_deref() == Some(*name)).unwrap();
        u128::from(self.had[at]) + 10 * self.used(|other| other.owner == *owner).cores
    }

    /// The rules of a job's partition; `None` if nobody can go by them.
    fn rules(&self, job: &Candidate) -> Option<Rules> {
        match &job.partition {
            None => Some(Rules::default()),
            Some(name) => self.rules.get(&**name).cloned(),
        }
    }

    fn priority(&self, job: &Candidate) -> i64 {
        job.priority + self.rules(job).map_or(0, |rules| rules.priority)
    }

    fn is_allowed(&self, job: &Candidate) -> bool {
        let Some(rules) = self.rules(job) else { return false };
        let caps = Caps { user: self.cap, ..rules.caps };
        let same = |one: &Candidate| one.partition == job.partition && job.partition.is_some();
        let used = Uses {
            user: self.used(|other| other.owner == job.owner),
            partition: self.used(same),
            user_in: self.used(|other| same(other) && other.owner == job.owner),
        };
        job.resources.cores <= caps.left(used)
    }

    fn fits(&self, job: &Candidate, rooms: &Rooms) -> bool {
        let within = self.rules(job).and_then(|rules| rules.selector);
        ["a", "b", "c"].into_iter().any(|name| {
            let room = rooms.get(name).unwrap();
            let takes = |by: &Option<Arc<Selector>>| {
                by.as_ref().is_none_or(|by| by.takes(name, &room.labels))
            };
            room.has_room(&job.resources) && takes(&job.selector) && takes(&within)
        })
    }

    /// A job that was placed leaves to those that do not come behind it what is kept for them: room, and cores and jobs of
    /// its partition.
    fn minds(&self, job: &Candidate, node: &str, rooms: &Rooms, kept: &[u64]) {
        let reserved: Vec<(u64, &str)> =
            rooms.reserved().map(|(job, node, _)| (job, node)).collect();
        let known = |other: &u64| self.waiting.get(other);
        let before =
            |other: &&Candidate| other.job != job.job && self.priority(other) >= self.priority(job);
        let room = rooms.get(node).unwrap(); // the job is there
        let on_it = reserved.iter().filter(|(_, name)| *name == node);
        for other in on_it.filter_map(|(other, _)| known(other)).filter(before) {
            let free = room.total.cores >= room.used.cores.saturating_add(other.resources.cores);
            assert!(free, "{job:?} is on {node} against {other:?}");
        }
        let own =
            |other: &&Candidate| other.partition.is_some() && other.partition == job.partition;
        let all = reserved.iter().map(|(other, _)| other).chain(kept).filter_map(known);
        let mut used = self.used(|other| own(&other));
        all.filter(before).filter(own).for_each(|other| used.add(&other.resources));
        let cap = self.rules(job).unwrap().caps.partition;
        assert!(job.resources.cores <= cap.left(used), "{job:?} against {reserved:?}, {kept:?}");
    }

    fn next(&self, rooms: &Rooms) -> Option<u64> {
        let may = self.waiting.values().filter(|job| self.fits(job, rooms) && self.is_allowed(job));
        let key =
            |job: &&Candidate| (Reverse(self.priority(job)), self.standing(&job.owner), job.job);
        may.min_by_key(key).map(|job| job.job)
    }
}

/// Where something is kept for others, that no job is placed against it; else that it is the one that the rule in
/// words has.
fn by_the_rules(reservations: usize) {
    let mut below = dice(11);
    let (mut placed, mut in_partitions, mut capped, mut closed) = (0, 0, 0, 0);
    let (mut beside, mut kept) = (0, 0);
    for round in 0..60 {
        let mut rooms = nodes();
        let cap = if round % 3 == 0 { Cap { jobs: None, cores: Some(9) } } else { Cap::default() };
        let mut ready = Ready::with(cap, reservations);
        let mut slow = Slow {
            waiting: BTreeMap::new(),
            running: Vec::new(),
            rules: BTreeMap::new(),
            had: [0; 4],
            cap,
        };
        for job in 1..150 {
            let cores = 1 + below(if round % 2 == 0 { 2 } else { 8 });
            let new = Candidate {
                owner: Some(USERS[below(4) as usize].into()),
                partition: PARTITIONS.get(below(4) as usize).map(|name| (*name).into()),
                selector: if below(4) == 0 { on("a") } else { None },
                ..candidate(job, below(2) as i64, cores)
            };
            slow.waiting.insert(job, new.clone());
            ready.insert(&mut rooms, new);
            if below(6) == 0 {
                let name = PARTITIONS[below(3) as usize];
                let new = rules(&mut below);
                ready.set_partition(&mut rooms, &name.into(), new.clone());
                match new {
                    Some(rules) => _ = slow.rules.insert(name, rules),
                    None => _ = slow.rules.remove(name),
                }
            }
            if below(5) == 0 {
                slow.had = std::array::from_fn(|_| below(200));
            }
            ready.set_had(|user| {
                let at = USERS.iter().position(|name| user.is_some_and(|user| **user == **name));
                at.map_or(0, |at| slow.had[at])
            });
            if below(8) == 0 {
                let index = below(slow.waiting.len() as u64) as usize;
                let gone = *slow.waiting.keys().nth(index).unwrap();
                assert_eq!(ready.remove(gone), slow.waiting.remove(&gone));
            }
            for _ in 0..below(4) {
                if !slow.running.is_empty() {
                    let index = below(slow.running.len() as u64) as usize;
                    let (gone, node) = slow.running.swap_remove(index);
                    let (owner, partition) = (gone.owner.as_ref(), gone.partition.as_ref());
                    ready.discharge(owner, partition, &gone.resources);
                    rooms.give_back(&node, &gone.resources, NEVER);
                }
            }
            for _ in 0..below(4) {
                let next = slow.next(&rooms);
                let fit = slow.waiting.values().filter(|job| slow.fits(job, &rooms));
                let (out, held): (Vec<&Candidate>, Vec<&Candidate>) = fit
                    .filter(|job| !slow.is_allowed(job))
                    .partition(|job| slow.rules(job).is_none());
                closed += usize::from(!out.is_empty());
                capped += usize::from(!held.is_empty());
                let reserved = rooms.reserved().map(|(job, ..)| job);
                let before: Vec<u64> = ready.kept().chain(reserved).collect();
                let fast = ready.place_next(&mut rooms);
                let said = fast.as_ref().map(|placed| placed.candidate.job);
                let after = ready.kept().count() + rooms.reserved().count();
                let is_kept = after > 0 || !before.is_empty();
                if !is_kept {
                    assert_eq!(said, next, "round {round}, job {job}");
                }
                kept += ready.kept().count();
                let Some(Placed { candidate, node, .. }) = fast else { continue };
                beside += usize::from(is_kept);
                if is_kept {
                    assert!(slow.is_allowed(&candidate), "round {round}, job {job}");
                }
                if !before.contains(&candidate.job) {
                    slow.minds(&candidate, &node, &rooms, &ready.kept().collect::<Vec<_>>());
                }
                assert!(
                    ready
                        .selector(&candidate)
                        .is_none_or(|by| { by.takes(&node, &rooms.get(&node).unwrap().labels) })
                );
                slow.waiting.remove(&candidate.job);
                placed += 1;
                in_partitions += usize::from(candidate.partition.is_some());
                slow.running.push((candidate, node));
            }
            assert_eq!(ready.len(), slow.waiting.len());
        }
    }
    let told = format!(
        "{placed} placed, {in_partitions} in partitions, {capped} times one was at a cap, {closed} times in none that is there, {beside} beside what is kept, {kept} times of what a partition has left"
    );
    assert!(placed > 2500 && in_partitions > 1000 && capped > 1000 && closed > 1000, "{told}");
    assert!(reservations == 0 || (beside > 300 && kept > 80), "{told}");
}

#[test]
fn the_next_job_is_by_the_rules_of_its_partition() {
    by_the_rules(0);
}

#[test]
fn no_job_is_placed_against_what_is_kept_for_others() {
    by_the_rules(4);
}

fn of(job: u64, user: &str, partition: &str, cores: u64) -> Candidate {
    Candidate {
        owner: Some(user.into()),
        partition: (!partition.is_empty()).then(|| partition.into()),
        ..candidate(job, 0, cores)
    }
}

#[test]
fn what_a_partition_has_left_goes_to_the_first_who_asks_for_no_more() {
    let mut rooms = nodes();
    let mut ready = Ready::default();
    let caps = Caps { partition: Cap { jobs: None, cores: Some(2) }, ..Caps::default() };
    let name: Arc<str> = "p".into();
    ready.set_partition(&mut rooms, &name, Some(Rules { caps, ..Rules::default() }));
    for job in 1..=500 {
        ready.insert(&mut rooms, of(job, &format!("user {job}"), "p", 1 + job % 2));
    }
    let placed = |ready: &mut Ready, rooms: &mut Rooms| -> Vec<u64> {
        std::iter::from_fn(|| ready.place_next(rooms).map(|placed| placed.candidate.job)).collect()
    };
    assert_eq!(placed(&mut ready, &mut rooms), [1]);
    ready.insert(&mut rooms, of(1001, "ada", "", 3));
    assert_eq!(placed(&mut ready, &mut rooms), [1001], "it is for no partition");
    let end = |user: &str, cores: u64, ready: &mut Ready, rooms: &mut Rooms| {
        let user: Arc<str> = user.into();
        ready.discharge(Some(&user), Some(&name), &Resources::of(cores, 0));
        rooms.give_back("a", &Resources::of(cores, 0), NEVER);
        placed(ready, rooms)
    };
    assert_eq!(end("user 1", 2, &mut ready, &mut rooms), [2, 4], "the third asks for more");
    assert_eq!(end("user 2", 1, &mut ready, &mut rooms), [6]);
    assert_eq!(end("user 4", 1, &mut ready, &mut rooms), [8]);
    assert_eq!(ready.remove(10).map(|one| one.job), Some(10));
    assert_eq!(end("user 6", 1, &mut ready, &mut rooms), [12]);
}

/// A room has grown while a user, or their partition, had too little left for the job that fits there.
#[test]
fn room_that_was_passed_by_at_a_cap_is_found_when_more_is_left() {
    let cap = Cap { jobs: None, cores: Some(9) };
    let none = Cap::default();
    let in_partition = |partition, user_in| Caps { user: none, partition, user_in };
    for (user, caps) in
        [(cap, Caps::default()), (none, in_partition(cap, none)), (none, in_partition(none, cap))]
    {
        let mut rooms = Rooms::default();
        for (name, cores) in [("a", 8), ("c", 5)] {
            rooms.set(name, Room::of(true, Resources::of(cores, 0)));
        }
        let mut ready = Ready::with(user, 0);
        let name: Arc<str> = "p".into();
        ready.set_partition(&mut rooms, &name, Some(Rules { caps, ..Rules::default() }));
        let (ada, five) = (Arc::from("ada"), Resources::of(5, 0));
        rooms.take("a", &Resources::of(8, 0), NEVER);
        rooms.take("c", &five, NEVER);
        ready.insert(&mut rooms, of(1, "ada", "p", 6));
        assert_eq!(ready.place_next(&mut rooms), None, "nowhere is room");
        ready.charge(Some(&ada), Some(&name), &five);
        rooms.give_back("a", &Resources::of(8, 0), NEVER);
        assert_eq!(ready.place_next(&mut rooms), None, "four are left to her");
        rooms.give_back("c", &five, NEVER);
        ready.discharge(Some(&ada), Some(&name), &five);
        let placed = ready.place_next(&mut rooms);
        assert_eq!(placed.map(|placed| (placed.candidate.job, placed.node)), Some((1, "a".into())));
    }
}

/// One node, of which a job of two cores has half, and ada's wide job for which it is reserved.
fn reserved_for(ready: &mut Ready, user_in: Cap, cap: Cap) -> (Rooms, Rules) {
    let mut rooms = Rooms::default();
    let mut room = Room::of(true, Resources::of(4, 0));
    room.labels.insert("zone".into(), "a".into());
    rooms.set("a", room);
    rooms.take("a", &Resources::of(2, 0), NEVER);
    let caps = Caps { user: Cap::default(), partition: cap, user_in };
    let rules = Rules { caps, ..Rules::default() };
    ready.set_partition(&mut rooms, &"p".into(), Some(rules.clone()));
    ready.insert(&mut rooms, of(1, "ada", "p", 4));
    ready.insert(&mut rooms, of(2, "ben", "", 1));
    assert_eq!(ready.place_next(&mut rooms), None);
    assert_eq!(rooms.reserved().map(|(job, ..)| job).collect::<Vec<_>>(), [1]);
    (rooms, rules)
}

#[test]
fn what_is_reserved_for_a_job_that_its_partition_keeps_back_is_free_again() {
    let (name, none): (Arc<str>, Cap) = ("p".into(), Cap::default());
    let four = Cap { jobs: None, cores: Some(4) };
    let next = |ready: &mut Ready, rooms: &mut Rooms| {
        ready.place_next(rooms).map(|placed| placed.candidate.job)
    };
    // Others have what its partition, or its user there, may have; all of it, or some.
    for (user, user_in, cap, cores) in
        [("ada", four, none, 4), ("ben", none, four, 4), ("ben", none, four, 1)]
    {
        let mut ready = Ready::with(none, 4);
        let (mut rooms, _) = reserved_for(&mut ready, user_in, cap);
        let elsewhere = Resources::of(cores, 0);
        ready.charge(Some(&user.into()), Some(&name), &elsewhere);
        assert_eq!(next(&mut ready, &mut rooms), Some(2), "{user} {cores}");
        rooms.give_back("a", &Resources::of(1, 0), NEVER);
        ready.discharge(Some(&"ben".into()), None, &Resources::of(1, 0));
        assert_eq!(next(&mut ready, &mut rooms), None);
        // More is left to it, and the room is there.
        ready.discharge(Some(&user.into()), Some(&name), &elsewhere);
        rooms.give_back("a", &Resources::of(2, 0), NEVER);
        assert_eq!(next(&mut ready, &mut rooms), Some(1), "{user} {cores}");
    }
    // The partition has other nodes, or is gone, or its jobs come behind others by now.
    let low = Rules { priority: -1, ..Rules::default() };
    for (index, rules) in [Some(Rules { selector: on("b"), ..Rules::default() }), None, Some(low)]
        .into_iter()
        .enumerate()
    {
        let mut ready = Ready::with(none, 4);
        let (mut rooms, before) = reserved_for(&mut ready, none, none);
        ready.set_partition(&mut rooms, &name, rules);
        assert_eq!(next(&mut ready, &mut rooms), Some(2), "{index}");
        assert_eq!(next(&mut ready, &mut rooms), None, "{index}");
        ready.set_partition(&mut rooms, &name, Some(before));
        rooms.give_back("a", &Resources::of(3, 0), NEVER);
        assert_eq!(next(&mut ready, &mut rooms), Some(1), "{index}");
        assert_eq!(ready.len(), 0);
    }
}

#[test]
fn nobody_is_forgotten_who_has_jobs_or_has_had_something() {
    let mut rooms = nodes();
    let mut ready = Ready::default();
    let name: Arc<str> = "p".into();
    // Its partition is not there: it is in no account.
    ready.insert(&mut rooms, of(1, "ada", "p", 1));
    for job in 2..200 {
        let user = format!("user {job}");
        ready.insert(&mut rooms, of(job, &user, if job % 2 == 0 { "q" } else { "" }, 1));
        ready.remove(job);
        assert_eq!(ready.place_next(&mut rooms), None);
        ready.set_had(|_| 0);
        assert!(ready.in_use().count() <= 2, "{job}");
    }
    ready.set_partition(&mut rooms, &name, Some(Rules::default()));
    let placed = ready.place_next(&mut rooms).map(|placed| placed.candidate.job);
    assert_eq!(placed, Some(1));
    ready.set_had(|_| 0);
    assert_eq!(ready.in_use().map(|(_, used)| used.jobs).sum::<u64>(), 1);
    ready.discharge(Some(&"ada".into()), Some(&name), &Resources::of(1, 0));
    assert_eq!(ready.place_next(&mut rooms), None);
    ready.set_had(|user| u64::from(user.is_some()));
    assert_eq!(ready.in_use().count(), 1, "she has had something");
    ready.set_had(|_| 0);
    assert_eq!(ready.place_next(&mut rooms), None);
    ready.set_had(|_| 0);
    assert_eq!(ready.in_use().count(), 0);
}

#[test]
fn nothing_is_reserved_for_a_job_that_comes_behind_whoever_is_placed() {
    let mut rooms = Rooms::default();
    rooms.set("a", Room::of(true, Resources::of(4, 0)));
    rooms.take("a", &Resources::of(3, 0), NEVER);
    let mut ready = Ready::with(Cap::default(), 4);
    let partition = Cap { jobs: None, cores: Some(7) };
    let caps = Caps { partition, ..Caps::default() };
    ready.set_partition(&mut rooms, &"p".into(), Some(Rules { caps, ..Rules::default() }));
    ready.insert(&mut rooms, Candidate { priority: 2, ..of(1, "ada", "p", 4) });
    ready.insert(&mut rooms, of(3, "ada", "p", 3));
    assert_eq!(ready.place_next(&mut rooms), None);
    // Her first may not be placed any more, and her second comes last.
    ready.charge(Some(&"ben".into()), Some(&"p".into()), &Resources::of(4, 0));
    ready.insert(&mut rooms, Candidate { priority: 1, ..of(2, "ben", "", 1) });
    let placed = ready.place_next(&mut rooms).map(|placed| placed.candidate.job);
    assert_eq!((placed, rooms.reserved().count()), (Some(2), 0));
    assert_eq!(ready.place_next(&mut rooms), None);
    ready.insert(&mut rooms, Candidate { priority: -1, ..of(4, "ben", "", 1) });
    rooms.give_back("a", &Resources::of(1, 0), NEVER);
    assert_eq!(ready.place_next(&mut rooms), None);
    assert_eq!(rooms.reserved().map(|(job, ..)| job).collect::<Vec<_>>(), [3]);
}

fn capped(partition: Cap) -> Option<Rules> {
    let caps = Caps { partition, ..Caps::default() };
    Some(Rules { caps, ..Rules::default() })
}

#[test]
fn what_is_kept_for_the_first_of_a_partition_is_not_put_off_by_others_of_it() {
    let (one, p): (_, Arc<str>) = (Resources::of(1, 0), "p".into());
    let mut rooms = rooms(&[("a", 4), ("b", 4)]);
    let mut ready = Ready::with(Cap::default(), 4);
    ready.set_partition(&mut rooms, &p, capped(Cap { jobs: Some(2), cores: None }));
    rooms.take("a", &one, NEVER);
    for _ in 0..2 {
        rooms.take("b", &one, NEVER);
        ready.charge(Some(&"ben".into()), Some(&p), &one);
    }
    ready.insert(&mut rooms, Candidate { priority: 1, ..of(1, "ada", "p", 4) });
    (2..=9).for_each(|job| ready.insert(&mut rooms, of(job, "ben", "p", 1)));
    assert_eq!(place_all(&mut ready, &mut rooms), []);
    for placed in [vec![], vec![(1, "b"), (2, "a")]] {
        rooms.give_back("b", &one, NEVER);
        ready.discharge(Some(&"ben".into()), Some(&p), &one);
        assert_eq!(place_all(&mut ready, &mut rooms), places(&placed));
    }
}

#[test]
fn what_a_partition_may_have_is_kept_for_the_first_that_asks_for_more_than_is_left() {
    let (one, p): (_, Arc<str>) = (Resources::of(1, 0), "p".into());
    let mut rooms = rooms(&[("a", 64)]);
    let mut ready = Ready::with(Cap::default(), 1);
    ready.set_partition(&mut rooms, &p, capped(Cap { jobs: None, cores: Some(4) }));
    for _ in 0..4 {
        rooms.take("a", &one, NEVER);
        ready.charge(Some(&"ben".into()), Some(&p), &one);
    }
    ready.insert(&mut rooms, Candidate { priority: 1, ..of(1, "ada", "p", 4) });
    ready.insert(&mut rooms, Candidate { priority: 1, ..of(2, "ada", "p", 5) }); // never
    (3..=9).for_each(|job| ready.insert(&mut rooms, of(job, "ben", "p", 1)));
    let end = |ready: &mut Ready, rooms: &mut Rooms, user: &str, cores: u64| {
        rooms.give_back("a", &Resources::of(cores, 0), NEVER);
        ready.discharge(Some(&user.into()), Some(&p), &Resources::of(cores, 0));
        place_all(ready, rooms)
    };
    for placed in [vec![], vec![], vec![], vec![(1, "a")]] {
        assert_eq!(end(&mut ready, &mut rooms, "ben", 1), places(&placed));
    }
    let rest = [(3, "a"), (4, "a"), (5, "a"), (6, "a")];
    assert_eq!(end(&mut ready, &mut rooms, "ada", 4), places(&rest), "the other never may");
    // Who comes before by priority does not mind; whoever it is kept for may go.
    ready.insert(&mut rooms, Candidate { priority: 1, ..of(10, "ada", "p", 3) });
    assert_eq!(end(&mut ready, &mut rooms, "ben", 1), []);
    ready.insert(&mut rooms, Candidate { priority: 2, ..of(11, "cleo", "p", 1) });
    assert_eq!(place_all(&mut ready, &mut rooms), places(&[(11, "a")]));
    assert_eq!(end(&mut ready, &mut rooms, "ben", 1), []);
    ready.insert(&mut rooms, Candidate { priority: 1, ..of(10, "ada", "p", 3) }); // its card has another line
    assert_eq!(place_all(&mut ready, &mut rooms), []);
    assert_eq!(ready.remove(10).map(|one| one.job), Some(10));
    assert_eq!(place_all(&mut ready, &mut rooms), places(&[(7, "a")]));
}

#[test]
fn a_partition_that_is_away_for_a_moment_sorts_nothing_anew() {
    let mut rooms = nodes();
    let mut ready = Ready::with(Cap::default(), 4);
    let p: Arc<str> = "p".into();
    let rules = Some(Rules { selector: on("a"), priority: 1, ..Rules::default() });
    ready.set_partition(&mut rooms, &p, rules.clone());
    for job in 1..=1000 {
        let selector = on(&format!("zone {}", job % 20));
        ready.insert(&mut rooms, Candidate { selector, ..of(job, "ada", "p", job % 3) });
    }
    ready.insert(&mut rooms, of(1001, "ada", "p", 0));
    let sites =
        |ready: &Ready| -> Vec<_> { (1..=1000).map(|job| ready.candidates[&job].site).collect() };
    let (before, known) = (sites(&ready), rooms.sites().len());
    ready.set_partition(&mut rooms, &p, None);
    assert_eq!(place_all(&mut ready, &mut rooms), []);
    ready.reserve_first(&mut rooms);
    assert_eq!(rooms.reserved().count() + ready.kept().count(), 0);
    assert!(sites(&ready) == before && rooms.sites().len() == known);
    ready.set_partition(&mut rooms, &p, rules);
    assert_eq!(rooms.sites().len(), known);
    assert_eq!(place_all(&mut ready, &mut rooms), places(&[(1001, "a")]));
    // Another one is gone by at once.
    let rules = Rules { selector: on("b"), ..Rules::default() };
    ready.insert(&mut rooms, of(1002, "ada", "p", 1));
    ready.set_partition(&mut rooms, &p, None);
    ready.set_partition(&mut rooms, &p, Some(rules));
    assert_eq!(place_all(&mut ready, &mut rooms), places(&[(1002, "b")]));
}

#[test]
fn partitions_of_which_nothing_is_known_are_forgotten() {
    let mut rooms = nodes();
    let mut ready = Ready::default();
    for job in 1..=200 {
        let p: Arc<str> = format!("p{job}").into();
        ready.set_partition(&mut rooms, &p, Some(Rules::default()));
        ready.insert(&mut rooms, of(job, "ada", &p, 1));
        assert_eq!(place_all(&mut ready, &mut rooms), places(&[(job, "a")]));
        ready.set_partition(&mut rooms, &p, None);
        assert_eq!(ready.remove(job), None);
        ready.discharge(Some(&"ada".into()), Some(&p), &Resources::of(1, 0));
        rooms.give_back("a", &Resources::of(1, 0), NEVER);
        ready.reserve_first(&mut rooms);
        ready.set_had(|_| 0);
    }
    assert!(ready.ledger.groups.len() <= 3, "{}", ready.ledger.groups.len());
}

/// A line on a card takes its job out of what is in use, and in again.
#[test]
fn who_waits_for_a_partition_is_looked_at_again_only_where_it_has_more_left() {
    let mut rooms = nodes();
    let mut ready = Ready::default();
    let (p, ada): (Arc<str>, Arc<str>) = ("p".into(), "ada".into());
    ready.set_partition(&mut rooms, &p, capped(Cap { jobs: None, cores: Some(4) }));
    let two = Resources::of(2, 0);
    ready.charge(Some(&ada), Some(&p), &two);
    (1..=500).for_each(|job| ready.insert(&mut rooms, of(job, &format!("user {job}"), "p", 3)));
    assert_eq!(place_all(&mut ready, &mut rooms), []);
    let asked = ready.ledger.asked;
    ready.discharge(Some(&ada), Some(&p), &two);
    ready.charge(Some(&ada), Some(&p), &two);
    assert_eq!(place_all(&mut ready, &mut rooms), []);
    assert!(ready.ledger.asked - asked <= 1, "{}", ready.ledger.asked - asked);
    ready.discharge(Some(&ada), Some(&p), &two);
    assert_eq!(place_all(&mut ready, &mut rooms), places(&[(1, "a")]));
}
