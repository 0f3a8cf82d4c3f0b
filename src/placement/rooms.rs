//! What the nodes have room for.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::ends::Millis;
use super::reservation::Reservation;
pub use super::room::Room;
use super::sites::{ClassId, Site, SiteId, Sites};
use super::spots::{Alike, Group, Listing, PlaceId, Totals};
use crate::model::node::Node;
use crate::model::resources::Resources;
use crate::model::selector::Selector;
use crate::strategy::Strategy;

#[derive(Debug)]
pub(super) struct Place {
    pub name: Arc<str>,
    pub room: Room,
    pub class: ClassId,
    /// Whether it is in [`Rooms::reservations`].
    pub reserved: bool,
}

/// The rooms of all nodes, by name.
#[derive(Debug, Default)]
pub struct Rooms {
    places: Vec<Place>,
    by_name: HashMap<Arc<str>, PlaceId>,
    vacant: Vec<PlaceId>,
    pub(super) sites: Sites,
    /// For each set of things to count, and for each strategy that is in use.
    pub(super) listings: Vec<Vec<(Strategy, Listing)>>,
    pub(super) strategies: Vec<Strategy>,
    /// Open nodes by their memory in use, as [`Strategy::Spread`] lists them: the first of each.
    pub(super) groups: HashMap<Group, Alike>,
    /// For each set of things to count.
    pub(super) totals: Vec<Totals>,
    /// Counts what nodes have in all, and are like: another number where that may be different from before.
    pub(super) shape: u64,
    /// Users who have nodes of their own, or had.
    owners: HashSet<Arc<str>>,
    /// How often sites were sorted anew.
    epoch: u64,
    pub(super) grown: HashSet<PlaceId>,
    /// The node that was last chosen in turn.
    pub(super) last: Option<Arc<str>>,
    /// What is reserved; few, and one on a node at most.
    pub(super) reservations: Vec<(PlaceId, Reservation)>,
    /// Jobs that lost theirs.
    pub(super) lost: Vec<u64>,
    /// Nodes with something reserved of which something is different since that was looked at.
    pub(super) unlooked: HashSet<PlaceId>,
    /// Jobs that gave up what was reserved for them: where, and for how long the next is kept.
    pub(super) tried: HashMap<u64, (PlaceId, Millis)>,
    /// How often something was reserved no more.
    pub(super) opened: u64,
    pub(super) now: Millis,
}

impl Rooms {
    /// Nodes whose rooms may have grown since this was last asked.
    pub(super) fn take_grown(&mut self) -> impl Iterator<Item = PlaceId> {
        self.grown.drain()
    }

    /// Whether there are any.
    pub fn has_grown(&self) -> bool {
        !self.grown.is_empty()
    }

    /// What is known of a node.
    pub fn get(&self, node: &str) -> Option<&Room> {
        self.by_name.get(node).map(|place| self.room(*place))
    }

    /// From now on it is so late.
    pub fn set_now(&mut self, now: Millis) {
        self.now = now;
    }

    pub(super) fn at(&self, place: PlaceId) -> &Place {
        &self.places[place.0 as usize]
    }

    pub(super) fn at_mut(&mut self, place: PlaceId) -> &mut Place {
        &mut self.places[place.0 as usize]
    }

    pub(super) fn all_places(&self) -> impl Iterator<Item = PlaceId> + use<> {
        (0..self.places.len() as u32).map(PlaceId)
    }

    pub(super) fn place_of(&self, node: &str) -> Option<PlaceId> {
        self.by_name.get(node).copied()
    }

    pub(super) fn room(&self, place: PlaceId) -> &Room {
        &self.at(place).room
    }

    /// Its name.
    pub(super) fn name(&self, place: PlaceId) -> &Arc<str> {
        &self.at(place).name
    }

    pub(super) fn class(&self, place: PlaceId) -> ClassId {
        self.at(place).class
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
        self.cancel_on(place);
        self.unlist(place);
        self.unlist_total(place);
        if let Some(owner) = room.owner.as_ref().filter(|owner| !self.owners.contains(*owner)) {
            // This user's jobs are for other nodes than everybody's from now on.
            self.owners.insert(owner.clone());
            self.epoch += 1;
        }
        let name = self.name(place).clone();
        let class = self.sites.class_of(&name, &room);
        let own = self.at_mut(place);
        own.room = room;
        own.class = class;
        self.list(place);
        self.list_total(place);
        if self.room(place).open {
            self.shape += 1; // one that closes gives nobody hope
        }
        self.grown.insert(place);
    }

    /// Changes what is in use, or about to be free, or how much may be sent ahead.
    fn change(&mut self, place: PlaceId, grows: bool, how: impl FnOnce(&mut Room)) {
        self.unlist(place);
        how(&mut self.at_mut(place).room);
        self.list(place);
        if grows {
            self.grown.insert(place);
        }
        self.look_again(place);
    }

    /// The place of a node; a closed one where it is new.
    fn place(&mut self, node: &str) -> PlaceId {
        if let Some(known) = self.by_name.get(node) {
            return *known;
        }
        let (name, room): (Arc<str>, Room) = (node.into(), Room::CLOSED);
        let class = self.sites.class_of(node, &room);
        let new = Place { name: name.clone(), room, class, reserved: false };
        let place = match self.vacant.pop() {
            Some(place) => {
                *self.at_mut(place) = new;
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
            let Room { used, leaving, ends, .. } = self.room(place).clone();
            if used == Resources::NONE {
                self.by_name.remove(&name);
                self.vacant.push(place);
            }
            let closed = Room { used, leaving, ends, ..Room::CLOSED };
            if *self.room(place) != closed {
                self.replace(place, closed);
            }
        }
    }

    /// How many jobs of any size a node may be sent beyond its room.
    pub fn set_ahead(&mut self, node: &str, ahead: u64) {
        self.set_ahead_like(node, ahead, &Room::ANY);
    }

    /// How many jobs a node may be sent beyond its room, if they are no larger than this.
    pub fn set_ahead_like(&mut self, node: &str, ahead: u64, like: &Resources) {
        let Some(place) = self.by_name.get(node).copied() else { return };
        let room = self.room(place);
        if room.ahead != ahead || (ahead > 0 && room.like != *like) {
            self.change(place, true, |room| (room.ahead, room.like) = (ahead, like.clone()));
        }
    }

    /// A job was sent there, which will have ended by then at the latest.
    pub fn take(&mut self, node: &str, job: &Resources, until: Millis) {
        let place = self.place(node);
        self.take_at(place, job, until);
    }

    /// The same.
    pub(super) fn take_at(&mut self, place: PlaceId, job: &Resources, until: Millis) {
        self.change(place, false, |room| {
            room.used.add(job);
            room.ends.add(until, job);
        });
    }

    /// A job is there no more, which was to have ended by then.
    pub fn give_back(&mut self, node: &str, job: &Resources, until: Millis) {
        let place = self.place(node);
        self.change(place, true, |room| {
            room.used.sub(job);
            room.ends.sub(until, job);
        });
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
                    self.unlist_total(*place);
                    self.at_mut(*place).class = new;
                    self.list(*place);
                    self.list_total(*place);
                }
            }
        }
        site
    }

    /// How many nodes are known.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// How many sites there are, or classes, or sets of things to count, whatever is more.
    pub(super) fn sorts(&self) -> usize {
        self.sites.len().max(self.sites.classes()).max(self.sites.all_names().count())
    }

    /// Forgets what is asked of nodes, which is asked anew then: see [`Rooms::epoch`].
    pub(super) fn forget_sites(&mut self) {
        self.epoch += 1;
        self.sites = Sites::default();
        self.groups.clear();
        self.listings.clear();
        self.totals.clear();
        self.owners = self.places.iter().filter_map(|place| place.room.owner.clone()).collect();
        for place in self.all_places() {
            let Place { name, room, .. } = &self.places[place.0 as usize];
            let class = self.sites.class_of(name, room);
            self.at_mut(place).class = class;
            self.list(place);
            self.list_total(place);
        }
    }
}
