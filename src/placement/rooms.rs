//! What the nodes have room for.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::ask::Ask;
use super::kdtree::{Marked, Point, Tree, Window, mark_of};
use super::room::Basic;
pub use super::room::Room;
use super::sites::{ClassId, NamesId, Site, SiteId, Sites};
use crate::model::node::Node;
use crate::model::request::Spec;
use crate::model::resources::{Others, Resources};
use crate::model::selector::Selector;
use crate::strategy::Strategy;

/// A node, by its place among all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PlaceId(u32);

#[derive(Debug)]
struct Place {
    name: Arc<str>,
    room: Room,
    class: ClassId,
}

/// What a strategy goes by, then the memory in use where it goes by that too, then the name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Spot {
    order: u64,
    memory: u64,
    name: Arc<str>,
    place: PlaceId,
    class: ClassId,
}

impl Marked for Spot {
    fn mark(&self) -> u64 {
        mark_of(self.class.place())
    }
}

/// Nodes that are alike but for the memory in use: their class, what they have in all, how many jobs may be
/// sent ahead, what is about to be free, and the cores in use. The first by memory, then by name, is the least
/// loaded of them, and if it has no room, none of them has. One with more to count is alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Group {
    class: ClassId,
    total: Basic,
    ahead: u64,
    leaving: Basic,
    cores: u64,
    alone: Option<PlaceId>,
}

/// Nodes with the same things to count as one strategy looks for them. In the third dimension is what there is of the first of
/// what they have to count.
#[derive(Debug, Default)]
struct Listing {
    /// By the most that they have room for now.
    firsts: Tree<3, Spot>,
    /// Those of them that take more than that, by the most and the least that they take.
    stretched: Tree<5, Spot>,
}

/// The rooms of all nodes, by name.
#[derive(Debug, Default)]
pub struct Rooms {
    places: Vec<Place>,
    by_name: HashMap<Arc<str>, PlaceId>,
    vacant: Vec<PlaceId>,
    sites: Sites,
    /// For each set of things to count, and for each strategy that is in use.
    listings: Vec<Vec<(Strategy, Listing)>>,
    strategies: Vec<Strategy>,
    /// Open nodes by their memory in use, as [`Strategy::Spread`] lists them: the first of each.
    groups: HashMap<Group, BTreeSet<(u64, Arc<str>, PlaceId)>>,
    /// Users who have nodes of their own, or had.
    owners: HashSet<Arc<str>>,
    /// How often sites were sorted anew.
    epoch: u64,
    grown: HashSet<PlaceId>,
    /// The node that was last chosen in turn.
    last: Option<Arc<str>>,
}

impl Rooms {
    /// Nodes whose rooms may have grown since this was last asked.
    pub(super) fn take_grown(&mut self) -> impl Iterator<Item = PlaceId> {
        self.grown.drain()
    }

    /// What is known of a node.
    pub fn get(&self, node: &str) -> Option<&Room> {
        self.by_name.get(node).map(|place| self.room(*place))
    }

    pub(super) fn room(&self, place: PlaceId) -> &Room {
        &self.places[place.0 as usize].room
    }

    /// Its name.
    pub(super) fn name(&self, place: PlaceId) -> &Arc<str> {
        &self.places[place.0 as usize].name
    }

    pub(super) fn class(&self, place: PlaceId) -> ClassId {
        self.places[place.0 as usize].class
    }

    pub(super) fn sites(&self) -> &Sites {
        &self.sites
    }

    /// Sites have other numbers than before where this is another one than before.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Takes in what a node's record says.
    pub fn update(&mut self, node: &Node) {
        let place = self.place(&node.name);
        let mut room = self.room(place).clone();
        if room.take_record(node) {
            self.replace(place, room);
        }
    }

    /// Replaces what is known of a node.
    pub fn set(&mut self, node: &str, room: Room) {
        let place = self.place(node);
        self.replace(place, room);
    }

    fn replace(&mut self, place: PlaceId, room: Room) {
        self.unlist(place);
        if let Some(owner) = room.owner.as_ref().filter(|owner| !self.owners.contains(*owner)) {
            // This user's jobs are for other nodes than everybody's from now on.
            self.owners.insert(owner.clone());
            self.epoch += 1;
        }
        let class = self.sites.class_of(&self.places[place.0 as usize].name, &room);
        let own = &mut self.places[place.0 as usize];
        own.room = room;
        own.class = class;
        self.list(place);
        self.grown.insert(place);
    }

    /// Changes what is in use, or about to be free, or how much may be sent ahead.
    fn change(&mut self, place: PlaceId, grows: bool, how: impl FnOnce(&mut Room)) {
        self.unlist(place);
        how(&mut self.places[place.0 as usize].room);
        self.list(place);
        if grows {
            self.grown.insert(place);
        }
    }

    /// The place of a node; a closed one where it is new.
    fn place(&mut self, node: &str) -> PlaceId {
        if let Some(known) = self.by_name.get(node) {
            return *known;
        }
        let (name, room): (Arc<str>, Room) = (node.into(), Room::CLOSED);
        let class = self.sites.class_of(node, &room);
        let new = Place { name: name.clone(), room, class };
        let place = match self.vacant.pop() {
            Some(place) => {
                self.places[place.0 as usize] = new;
                place
            }
            None => {
                self.places.push(new);
                PlaceId((self.places.len() - 1) as u32)
            }
        };
        self.by_name.insert(name, place);
        place
    }

    /// Closes nodes that are not registered any more, and forgets those that have no jobs.
    pub fn retain(&mut self, known: impl Fn(&str) -> bool) {
        let gone = self.by_name.iter().filter(|(name, _)| !known(name));
        let gone: Vec<(Arc<str>, PlaceId)> =
            gone.map(|(name, place)| (name.clone(), *place)).collect();
        for (name, place) in gone {
            let Room { used, leaving, .. } = self.room(place).clone();
            if used == Resources::NONE {
                self.by_name.remove(&name);
                self.vacant.push(place);
            }
            let closed = Room { used, leaving, ..Room::CLOSED };
            if *self.room(place) != closed {
                self.replace(place, closed);
            }
        }
    }

    /// How many jobs a node may be sent beyond its room.
    pub fn set_ahead(&mut self, node: &str, ahead: u64) {
        let Some(place) = self.by_name.get(node).copied() else { return };
        if self.room(place).ahead != ahead {
            self.change(place, true, |room| room.ahead = ahead);
        }
    }

    /// A job was sent there.
    pub fn take(&mut self, node: &str, job: &Resources) {
        let place = self.place(node);
        self.take_at(place, job);
    }

    /// The same.
    pub(super) fn take_at(&mut self, place: PlaceId, job: &Resources) {
        self.change(place, false, |room| room.used.add(job));
    }

    /// A job is there no more.
    pub fn give_back(&mut self, node: &str, job: &Resources) {
        let place = self.place(node);
        self.change(place, true, |room| room.used.sub(job));
    }

    /// A job that is there will have ended before another could be there.
    pub fn leave(&mut self, node: &str, job: &Resources) {
        let place = self.place(node);
        self.change(place, true, |room| room.leaving.add(job));
    }

    /// One of which that was thought is still there.
    pub fn stay(&mut self, node: &str, job: &Resources) {
        let place = self.place(node);
        self.change(place, false, |room| room.leaving.sub(job));
    }

    /// What is asked of nodes by these jobs.
    pub(super) fn site(
        &mut self,
        selector: Option<&Arc<Selector>>,
        owner: Option<&Arc<str>>,
    ) -> SiteId {
        let user = owner.filter(|owner| self.owners.contains(*owner));
        let new = Site::of(selector, user);
        if let Some(known) = self.sites.find(&new) {
            return known;
        }
        let mut taken: Vec<Vec<PlaceId>> = vec![Vec::new(); self.sites.classes()];
        let mut all = vec![0; self.sites.classes()];
        for (index, place) in self.places.iter().enumerate() {
            all[place.class.place()] += 1;
            if new.takes(&place.name, &place.room) {
                taken[place.class.place()].push(PlaceId(index as u32));
            }
        }
        let few = taken.iter().map(Vec::len).sum();
        let site = self.sites.add(new, few, self.places.len());
        let classes: HashSet<ClassId> = self.places.iter().map(|place| place.class).collect();
        for class in classes {
            let own = &taken[class.place()];
            if own.len() == all[class.place()] {
                self.sites.take_all(site, class);
            } else if !own.is_empty() {
                let new = self.sites.split(site, class);
                for place in own {
                    self.unlist(*place);
                    self.places[place.0 as usize].class = new;
                    self.list(*place);
                }
            }
        }
        site
    }

    /// Forgets what is asked of nodes, which is asked anew then: see [`Rooms::epoch`].
    pub(super) fn forget_sites(&mut self) {
        self.epoch += 1;
        self.sites = Sites::default();
        self.groups.clear();
        self.listings.clear();
        for index in 0..self.places.len() {
            let place = &mut self.places[index];
            place.class = self.sites.class_of(&place.name, &place.room);
            self.list(PlaceId(index as u32));
        }
    }

    /// Makes sure that nodes are listed for a strategy.
    pub(super) fn use_strategy(&mut self, strategy: Strategy) {
        if strategy == Strategy::Spread || self.strategies.contains(&strategy) {
            return;
        }
        self.strategies.push(strategy);
        for index in 0..self.places.len() {
            let place = PlaceId(index as u32);
            if self.room(place).open {
                let spot = self.spot(place, strategy);
                self.enter(place, strategy, spot);
            }
        }
    }

    fn group(&self, place: PlaceId) -> Group {
        let Place { room, class, .. } = &self.places[place.0 as usize];
        Group {
            class: *class,
            total: Basic::of(&room.total),
            ahead: room.ahead,
            leaving: Basic::of(&room.leaving),
            cores: room.used.cores,
            alone: (!room.total.others.is_empty()).then_some(place),
        }
    }

    fn spot(&self, place: PlaceId, strategy: Strategy) -> Spot {
        let Place { name, room, class } = &self.places[place.0 as usize];
        let order = match strategy {
            Strategy::Spread => room.load(),
            Strategy::Pack => u64::MAX - room.load(),
            Strategy::RoundRobin => 0,
            Strategy::Random => scatter(name.bytes().map(u64::from)),
        };
        let memory = if strategy == Strategy::Spread { room.used.memory } else { 0 };
        Spot { order, memory, name: name.clone(), place, class: *class }
    }

    /// Makes an open node findable.
    fn list(&mut self, place: PlaceId) {
        let Place { name, room, .. } = &self.places[place.0 as usize];
        if !room.open {
            return;
        }
        let own = (room.used.memory, name.clone(), place);
        let alike = self.groups.entry(self.group(place)).or_default();
        let first = alike.first().cloned();
        alike.insert(own.clone());
        if first.as_ref().is_none_or(|first| own < *first) {
            if let Some((_, _, first)) = first {
                self.withdraw(first, Strategy::Spread);
            }
            let spot = self.spot(place, Strategy::Spread);
            self.enter(place, Strategy::Spread, spot);
        }
        for index in 0..self.strategies.len() {
            let strategy = self.strategies[index];
            let spot = self.spot(place, strategy);
            self.enter(place, strategy, spot);
        }
    }

    /// Undoes [`Rooms::list`].
    fn unlist(&mut self, place: PlaceId) {
        if !self.room(place).open {
            return;
        }
        for index in 0..self.strategies.len() {
            self.withdraw(place, self.strategies[index]);
        }
        let Place { name, room, .. } = &self.places[place.0 as usize];
        let own = (room.used.memory, name.clone(), place);
        let group = self.group(place);
        let Some(alike) = self.groups.get_mut(&group) else { return };
        let was_first = alike.first() == Some(&own);
        alike.remove(&own);
        let next = alike.first().map(|(_, _, next)| *next);
        if next.is_none() {
            self.groups.remove(&group);
        }
        if was_first {
            self.withdraw(place, Strategy::Spread);
            if let Some(next) = next {
                let spot = self.spot(next, Strategy::Spread);
                self.enter(next, Strategy::Spread, spot);
            }
        }
    }

    fn listing(&mut self, names: NamesId, strategy: Strategy) -> &mut Listing {
        if self.listings.len() <= names.place() {
            self.listings.resize_with(names.place() + 1, Vec::new);
        }
        let own = &mut self.listings[names.place()];
        let known = own.iter().position(|(known, _)| *known == strategy);
        let index = known.unwrap_or_else(|| {
            own.push((strategy, Listing::default()));
            own.len() - 1
        });
        &mut own[index].1
    }

    /// Where a node lies in both trees of a listing.
    fn points(&self, place: PlaceId) -> (Option<Point<3>>, Option<Point<5>>) {
        let Place { room, class, .. } = &self.places[place.0 as usize];
        let first = self.sites.names_in(self.sites.names(*class)).first();
        let now = room
            .now()
            .map(|[cores, memory]| [cores, memory, first.map_or(0, |name| room.free(name))]);
        let stretched = room.window().filter(|_| room.is_stretched()).map(|window| {
            let left = first.map_or(0, |name| room.left(name));
            [window.to[0], window.to[1], window.from[0], window.from[1], left]
        });
        (now, stretched)
    }

    fn enter(&mut self, place: PlaceId, strategy: Strategy, spot: Spot) {
        let (now, stretched) = self.points(place);
        let listing = self.listing(self.sites.names(self.class(place)), strategy);
        if let Some(point) = stretched {
            listing.stretched.insert(point, spot.clone());
        }
        if let Some(point) = now {
            listing.firsts.insert(point, spot);
        }
    }

    fn withdraw(&mut self, place: PlaceId, strategy: Strategy) {
        let spot = self.spot(place, strategy);
        let (now, stretched) = self.points(place);
        let listing = self.listing(self.sites.names(self.class(place)), strategy);
        if let Some(point) = stretched {
            listing.stretched.remove(point, spot.clone());
        }
        if let Some(point) = now {
            listing.firsts.remove(point, spot);
        }
    }

    /// The node for a job that asks for this; `None` if none has room. One that has room now comes before
    /// one to which it would be sent ahead, and one to be avoided comes last.
    pub(super) fn choose(&self, ask: &Ask, job: u64, avoid: &[String]) -> Option<PlaceId> {
        let avoided = |name: &str| avoid.iter().any(|other| other == name);
        let wanted = |spot: &Spot, free: bool| {
            self.sites.is_taken(ask.site, spot.class)
                && !avoided(&spot.name)
                && (ask.others.is_empty() || self.has_others(spot.place, &ask.others, free))
        };
        for free in [true, false] {
            let mut best = match ask.strategy {
                Strategy::Spread | Strategy::Pack => {
                    self.first(ask, free, &|spot| wanted(spot, free))
                }
                Strategy::RoundRobin => {
                    let after =
                        |spot: &Spot| self.last.as_ref().is_none_or(|last| spot.name > *last);
                    self.first(ask, free, &|spot| after(spot) && wanted(spot, free))
                        .or_else(|| self.first(ask, free, &|spot| wanted(spot, free)))
                }
                Strategy::Random => {
                    let from = scatter([job].into_iter());
                    self.first(ask, free, &|spot| spot.order >= from && wanted(spot, free))
                        .or_else(|| self.first(ask, free, &|spot| wanted(spot, free)))
                }
            };
            if ask.strategy == Strategy::Spread {
                // Where a node to be avoided is the first of its group, another one is in its place.
                let in_place: Option<Spot> = self
                    .avoided(ask, avoid)
                    .filter_map(|place| {
                        let alike = self.groups.get(&self.group(place))?;
                        let (_, _, next) = alike.iter().find(|(_, name, _)| !avoided(name))?;
                        self.takes(*next, ask, free).then(|| self.spot(*next, ask.strategy))
                    })
                    .min();
                best = [best, in_place].into_iter().flatten().min();
            }
            if let Some(spot) = best {
                return Some(spot.place);
            }
        }
        [true, false].into_iter().find_map(|free| {
            let last_resort =
                self.avoided(ask, avoid).filter(|place| self.takes(*place, ask, free));
            last_resort.map(|place| self.spot(place, ask.strategy)).min().map(|spot| spot.place)
        })
    }

    /// Nodes among these that the job may use.
    fn avoided<'a>(
        &'a self,
        ask: &'a Ask,
        avoid: &'a [String],
    ) -> impl Iterator<Item = PlaceId> + 'a {
        let known = avoid.iter().filter_map(|name| self.by_name.get(&**name).copied());
        known.filter(|place| {
            self.room(*place).open && self.sites.is_taken(ask.site, self.class(*place))
        })
    }

    /// The first that has room among those that are good.
    fn first(&self, ask: &Ask, free: bool, good: &dyn Fn(&Spot) -> bool) -> Option<Spot> {
        let mut best: Option<&Spot> = None;
        let Basic { cores, memory } = ask.basic;
        let marks = self.sites.marks_of(ask.site);
        for (names, all) in self.sites.all_names() {
            let Some(own) = self.listings.get(names.place()) else { continue };
            let listing = own.iter().find(|(strategy, _)| *strategy == ask.strategy);
            let Some((_, listing)) = listing else { continue };
            if !ask.others.iter().all(|(name, _)| all.binary_search(name).is_ok()) {
                continue; // they have not all that is asked for, however much of it
            }
            let first = all.first().map_or(0, |name| ask.others.get(name));
            const MOST: u64 = u64::MAX;
            if free {
                let window = Window { from: [cores, memory, first], to: [MOST; 3] };
                listing.firsts.search(&window, marks, good, &mut best);
            } else {
                // They take as much at most, or more, and as much at least, or less.
                let window = Window {
                    from: [cores, memory, 0, 0, first],
                    to: [MOST, MOST, cores, memory, MOST],
                };
                listing.stretched.search(&window, marks, good, &mut best);
            }
        }
        best.cloned()
    }

    fn has_others(&self, place: PlaceId, others: &Others, free: bool) -> bool {
        let room = self.room(place);
        others
            .iter()
            .all(|(name, amount)| amount <= if free { room.free(name) } else { room.left(name) })
    }

    fn takes(&self, place: PlaceId, ask: &Ask, free: bool) -> bool {
        let (room, Basic { cores, memory }) = (self.room(place), ask.basic);
        match free {
            true => room.has_room(cores, memory, &ask.others),
            false => room.takes(cores, memory, &ask.others),
        }
    }

    /// The node for a job of nobody's that asks for this; `None` if none has room.
    pub fn choose_for(&mut self, spec: &Spec) -> Option<String> {
        let ask = Ask {
            basic: Basic::of(&spec.resources),
            others: spec.resources.others.clone(),
            site: self.site(spec.selector.as_ref(), None),
            strategy: Strategy::Spread,
        };
        self.choose(&ask, 0, &[]).map(|place| self.name(place).to_string())
    }

    /// Notes that this node was chosen in turn.
    pub(super) fn pass_turn(&mut self, place: PlaceId) {
        self.last = Some(self.name(place).clone());
    }
}

/// A number that looks like any, and is the same for the same: FNV-1a, with the finish of SplitMix64.
fn scatter(of: impl Iterator<Item = u64>) -> u64 {
    let mixed = of.fold(0xcbf2_9ce4_8422_2325, |hash: u64, part| {
        (hash ^ part).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
