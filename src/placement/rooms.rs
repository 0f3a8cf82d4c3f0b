//! What the nodes have room for.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::kdtree::{Point, Tree, Window};
use crate::model::node::Node;
use super::basic::Basic;
use crate::model::resources::Resources;

/// A user who has nodes of their own, by the order in which [`Rooms`] heard of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Provider(usize);

/// Users who have nodes of their own, or had.
pub(super) type Providers = HashMap<Arc<str>, Provider>;

/// What a node has, what is in use, and how much may wait there beyond its room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Whether new jobs may be placed on it.
    pub open: bool,
    /// What it gives in all.
    pub total: Basic,
    /// What the jobs sent to it ask for in all.
    pub used: Basic,
    /// What those of them ask for that will have ended before another could be there.
    pub leaving: Basic,
    /// How many jobs beyond its room may be sent ahead, so that short ones follow each other
    /// without a round trip.
    pub ahead: u64,
    /// Whose jobs alone it takes; everybody's where it is nobody's in particular.
    pub owner: Option<Provider>,
}

impl Room {
    /// A node of which nothing is known: nothing goes there.
    pub(super) const CLOSED: Room = Room::of(false, Basic::NONE);

    /// With nothing in use.
    pub(super) const fn of(open: bool, total: Basic) -> Room {
        Room { open, total, used: Basic::NONE, leaving: Basic::NONE, ahead: 0, owner: None }
    }

    /// Whether a job that asks for this may be sent there now: it fits on the node, and what stays
    /// in use and what it asks for is no more than what there is and as many times what it asks for
    /// as jobs may be sent ahead.
    pub(super) fn takes(&self, job: &Basic) -> bool {
        let ahead = |amount: u64| amount.saturating_mul(self.ahead);
        let stays = self.used.minus(&self.leaving);
        self.open
            && job.fits(&self.total)
            && stays.cores.saturating_add(job.cores)
                <= self.total.cores.saturating_add(ahead(job.cores))
            && stays.memory.saturating_add(job.memory)
                <= self.total.memory.saturating_add(ahead(job.memory))
    }

    /// Whether it takes jobs of this user, whatever they ask for.
    pub(super) fn admits(&self, user: Option<Provider>) -> bool {
        self.owner.is_none() || self.owner == user
    }

    /// The same room as it is now: nothing is sent ahead.
    pub(super) fn free(&self) -> Room {
        Room { leaving: Basic::NONE, ahead: 0, ..*self }
    }

    /// Whether more may be sent there than has room now.
    fn is_stretched(&self) -> bool {
        self.ahead > 0 || self.leaving != Basic::NONE
    }

    /// All that [`Room::takes`]: cores and memory from the least to the most that a job may ask
    /// for. Where much was sent ahead, only large jobs may follow: as many of these would be more.
    pub(super) fn window(&self) -> Option<Window<2>> {
        let range = |used: u64, total: u64| match self.ahead {
            0 => (used <= total).then(|| (0, total - used)),
            1 => (used <= total).then_some((0, total)),
            ahead => {
                let least = used.saturating_sub(total).div_ceil(ahead - 1);
                (least <= total).then_some((least, total))
            }
        };
        let stays = self.used.minus(&self.leaving);
        let cores = range(stays.cores, self.total.cores)?;
        let memory = range(stays.memory, self.total.memory)?;
        self.open.then_some(Window { from: [cores.0, memory.0], to: [cores.1, memory.1] })
    }

    /// The corners of its window, the greater one first.
    fn point(&self) -> Option<Point<4>> {
        let Window { from, to } = self.window()?;
        Some([to[0], to[1], from[0], from[1]])
    }

    fn group(&self) -> Group {
        (self.total, self.ahead, self.leaving, self.used.cores, self.owner)
    }

    /// The same with other memory in use.
    fn with_memory(&self, memory: u64) -> Room {
        Room { used: Basic { cores: self.used.cores, memory }, ..*self }
    }

    /// Load in thousandths: the fuller of cores and memory.
    pub(super) fn load(&self) -> u64 {
        let share = |used: u64, total: u64| used.saturating_mul(1000) / total.max(1);
        share(self.used.cores, self.total.cores).max(share(self.used.memory, self.total.memory))
    }
}

/// Nodes that are alike but for the memory in use: what they have in all, how many jobs may be
/// sent ahead, what is about to be free, the cores in use, and whose they are. The first by memory,
/// then by name, is the least loaded of them, and if it has no room, none of them has.
type Group = (Basic, u64, Basic, u64, Option<Provider>);

/// The first of each group of nodes that take the same users' jobs, with its load.
#[derive(Debug, Default)]
struct Shelf {
    /// By the most and the least that they have room for now.
    firsts: Tree<4, (u64, Arc<str>)>,
    /// Those of them that take more than that, by the most and the least that they take.
    stretched: Tree<4, (u64, Arc<str>)>,
}

/// The rooms of all nodes, by name.
#[derive(Debug, Default)]
pub struct Rooms {
    rooms: HashMap<Arc<str>, Room>,
    /// Open nodes by their memory in use.
    groups: HashMap<Group, BTreeSet<(u64, Arc<str>)>>,
    /// Nodes that take everybody's jobs.
    common: Shelf,
    /// For each provider those that take theirs alone.
    own: Vec<Shelf>,
    providers: Providers,
    grown: HashSet<Arc<str>>,
}

impl Rooms {
    /// Nodes whose rooms may have grown since this was last asked.
    pub(super) fn take_grown(&mut self) -> impl Iterator<Item = Arc<str>> {
        self.grown.drain()
    }

    /// The same, where nobody needs to know which.
    pub(super) fn forget_grown(&mut self) {
        self.grown.clear();
    }

    /// What is known of a node.
    pub fn get(&self, node: &str) -> Option<&Room> {
        self.rooms.get(node)
    }

    /// Takes in what a node's record says.
    pub fn update(&mut self, node: &Node) {
        let old = self.rooms.get(&*node.name).copied().unwrap_or(Room::CLOSED);
        let total = node.resources.as_ref().map_or(Basic::NONE, Basic::from);
        let owner = node.owner.as_deref().map(|user| self.provider(user));
        self.set(&node.name, Room { open: node.takes_jobs(), total, owner, ..old });
    }

    /// Users who have nodes of their own, or had: none is forgotten, and so none gets another's place.
    pub(super) fn providers(&self) -> &Providers {
        &self.providers
    }

    /// A user who has a node of their own.
    pub(super) fn provider(&mut self, user: &str) -> Provider {
        if let Some(known) = self.providers.get(user) {
            return *known;
        }
        let new = Provider(self.own.len());
        self.own.push(Shelf::default());
        self.providers.insert(user.into(), new);
        new
    }

    /// Where the nodes are that take the jobs of this one alone, or of everybody.
    fn shelf(&self, owner: Option<Provider>) -> &Shelf {
        owner.and_then(|Provider(place)| self.own.get(place)).unwrap_or(&self.common)
    }

    fn shelf_mut(&mut self, owner: Option<Provider>) -> &mut Shelf {
        owner.and_then(|Provider(place)| self.own.get_mut(place)).unwrap_or(&mut self.common)
    }

    /// Closes nodes that are not registered any more, and forgets those that have no jobs.
    pub fn retain(&mut self, known: impl Fn(&str) -> bool) {
        let gone = self.rooms.iter().filter(|(name, _)| !known(name));
        let gone: Vec<(Arc<str>, Room)> = gone.map(|(name, room)| (name.clone(), *room)).collect();
        for (name, room) in gone {
            self.set(&name, Room { used: room.used, leaving: room.leaving, ..Room::CLOSED });
            if room.used == Basic::NONE {
                self.rooms.remove(&*name);
            }
        }
    }

    /// How many jobs a node may be sent beyond its room.
    pub fn set_ahead(&mut self, node: &str, ahead: u64) {
        if let Some(room) = self.rooms.get(node).copied().filter(|room| room.ahead != ahead) {
            self.set(node, Room { ahead, ..room });
        }
    }

    /// A job was sent there.
    pub fn take(&mut self, node: &str, job: &Resources) {
        let room = self.rooms.get(node).copied().unwrap_or(Room::CLOSED);
        self.set(node, Room { used: room.used.plus(&job.into()), ..room });
    }

    /// A job is there no more.
    pub fn give_back(&mut self, node: &str, job: &Resources) {
        let room = self.rooms.get(node).copied().unwrap_or(Room::CLOSED);
        self.set(node, Room { used: room.used.minus(&job.into()), ..room });
    }

    /// A job that is there will have ended before another could be there.
    pub fn leave(&mut self, node: &str, job: &Resources) {
        let room = self.rooms.get(node).copied().unwrap_or(Room::CLOSED);
        self.set(node, Room { leaving: room.leaving.plus(&job.into()), ..room });
    }

    /// One of which that was thought is still there.
    pub fn stay(&mut self, node: &str, job: &Resources) {
        let room = self.rooms.get(node).copied().unwrap_or(Room::CLOSED);
        self.set(node, Room { leaving: room.leaving.minus(&job.into()), ..room });
    }

    /// Replaces what is known of a node.
    pub fn set(&mut self, node: &str, room: Room) {
        let (name, old) = match self.rooms.get_key_value(node) {
            Some((name, old)) => (name.clone(), *old),
            None => (Arc::from(node), Room::CLOSED),
        };
        self.rooms.insert(name.clone(), room);
        if old == room {
            return;
        }
        if old.open {
            self.leave_group(&name, &old);
        }
        if room.open {
            self.join_group(&name, &room);
        }
        let smaller = room.used.cores >= old.used.cores && room.used.memory >= old.used.memory;
        let same = (old.open, old.total, old.ahead, old.leaving, old.owner)
            == (room.open, room.total, room.ahead, room.leaving, room.owner);
        if !(smaller && same) {
            self.grown.insert(name);
        }
    }

    fn join_group(&mut self, name: &Arc<str>, room: &Room) {
        let alike = self.groups.entry(room.group()).or_default();
        let own = (room.used.memory, name.clone());
        let first = alike.first().cloned();
        alike.insert(own.clone());
        if first.as_ref().is_none_or(|first| own < *first) {
            self.unlist_first(room, first);
            self.list_first(room, Some(own));
        }
    }

    fn leave_group(&mut self, name: &Arc<str>, room: &Room) {
        let Some(alike) = self.groups.get_mut(&room.group()) else { return };
        let own = (room.used.memory, name.clone());
        let was_first = alike.first() == Some(&own);
        alike.remove(&own);
        let next = alike.first().cloned();
        if next.is_none() {
            self.groups.remove(&room.group());
        }
        if was_first {
            self.unlist_first(room, Some(own));
            self.list_first(room, next);
        }
    }

    /// `first` is the first of the group that `room` belongs to.
    fn list_first(&mut self, room: &Room, first: Option<(u64, Arc<str>)>) {
        let Some((memory, name)) = first else { return };
        let room = room.with_memory(memory);
        let value = (room.load(), name);
        let shelf = self.shelf_mut(room.owner);
        if let Some(point) = room.point().filter(|_| room.is_stretched()) {
            shelf.stretched.insert(point, value.clone());
        }
        if let Some(point) = room.free().point() {
            shelf.firsts.insert(point, value);
        }
    }

    /// Undoes [`Rooms::list_first`].
    fn unlist_first(&mut self, room: &Room, first: Option<(u64, Arc<str>)>) {
        let Some((memory, name)) = first else { return };
        let room = room.with_memory(memory);
        let value = (room.load(), name);
        let shelf = self.shelf_mut(room.owner);
        if let Some(point) = room.point().filter(|_| room.is_stretched()) {
            shelf.stretched.remove(point, value.clone());
        }
        if let Some(point) = room.free().point() {
            shelf.firsts.remove(point, value);
        }
    }

    /// The node for a job of this user that asks for this; `None` if none has room.
    pub fn choose_for(&self, job: &Resources, user: Option<&str>) -> Option<String> {
        let user = user.and_then(|user| self.providers.get(user));
        self.choose(&job.into(), user.copied(), &[])
    }

    /// The same for a job that is to avoid nodes. One that has room now comes before one to which it
    /// would be sent ahead.
    pub(super) fn choose(
        &self,
        job: &Basic,
        user: Option<Provider>,
        avoid: &[String],
    ) -> Option<String> {
        let avoided = |name: &str| avoid.iter().any(|other| other == name);
        // They take as much at most, or more, and as much at least, or less.
        let window = Window {
            from: [job.cores, job.memory, 0, 0],
            to: [u64::MAX, u64::MAX, job.cores, job.memory],
        };
        let takes = |room: &Room, free: bool| match free {
            true => room.free().takes(job),
            false => room.takes(job),
        };
        let of_avoided = || {
            let rooms = avoid.iter().filter_map(|name| Some((name, self.rooms.get(&**name)?)));
            rooms.filter(|(_, room)| room.admits(user))
        };
        for free in [true, false] {
            let first = |shelf: &Shelf| {
                let firsts = if free { &shelf.firsts } else { &shelf.stretched };
                firsts.first_where(&window, |(_, name)| !avoided(name))
            };
            let own = user.and_then(|_| first(self.shelf(user)));
            let best = first(&self.common).into_iter().chain(own);
            // Where a node to be avoided is the first of its group, another one is in its place.
            let in_place = of_avoided().filter(|(_, room)| room.open).filter_map(|(_, room)| {
                let alike = self.groups.get(&room.group())?;
                let (memory, name) = alike.iter().find(|(_, name)| !avoided(name))?;
                let room = room.with_memory(*memory);
                takes(&room, free).then(|| (room.load(), name.clone()))
            });
            if let Some((_, name)) = best.chain(in_place).min() {
                return Some(name.to_string());
            }
        }
        [true, false].into_iter().find_map(|free| {
            let last_resort = of_avoided().filter(|(_, room)| takes(room, free));
            last_resort.map(|(name, room)| (room.load(), name)).min().map(|(_, name)| name.clone())
        })
    }
}
