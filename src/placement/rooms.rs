//! What the nodes have room for.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::model::node::Node;
use crate::model::resources::Resources;

/// What a node has, what is in use, and how much may wait there beyond its room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// A node of which nothing is known: nothing goes there.
    const CLOSED: Room =
        Room { open: false, total: Resources::NONE, used: Resources::NONE, ahead: 0 };

    /// Whether a job that asks for this may be sent there now.
    pub(super) fn takes(&self, job: &Resources) -> bool {
        let ahead = |amount: u64| amount.saturating_mul(self.ahead);
        self.open
            && job.fits(&self.total)
            && self.used.cores.saturating_add(job.cores)
                <= self.total.cores.saturating_add(ahead(job.cores))
            && self.used.memory.saturating_add(job.memory)
                <= self.total.memory.saturating_add(ahead(job.memory))
    }

    /// Load in thousandths: the fuller of cores and memory.
    pub(super) fn load(&self) -> u64 {
        let share = |used: u64, total: u64| used.saturating_mul(1000) / total.max(1);
        share(self.used.cores, self.total.cores).max(share(self.used.memory, self.total.memory))
    }
}

/// Nodes that are alike but for what is in use: what they have in all, and how many jobs may be
/// sent ahead.
type Class = (Resources, u64);

/// Nodes of a class by the cores in use, then by the memory in use and the name. The first of those
/// with as many cores in use is the least loaded of them, and if it has no room, none of them has.
type Uses = BTreeMap<u64, BTreeSet<(u64, Arc<str>)>>;

/// The rooms of all nodes, by name.
#[derive(Debug, Default)]
pub struct Rooms {
    rooms: HashMap<Arc<str>, Room>,
    /// Open nodes.
    classes: BTreeMap<Class, Uses>,
    grown: HashSet<Arc<str>>,
}

impl Rooms {
    /// Rooms that may have grown since this was last asked.
    pub fn take_grown(&mut self) -> Vec<Room> {
        let grown: Vec<Room> =
            self.grown.iter().filter_map(|name| self.rooms.get(name).copied()).collect();
        self.grown.clear();
        grown
    }

    /// Takes in what a node's record says.
    pub fn update(&mut self, node: &Node) {
        let old = self.rooms.get(&*node.name).copied().unwrap_or(Room::CLOSED);
        let total = node.resources.unwrap_or(Resources::NONE);
        self.set(&node.name, Room { open: node.takes_jobs(), total, ..old });
    }

    /// Forgets nodes that are not registered any more and have no jobs.
    pub fn retain(&mut self, known: impl Fn(&str) -> bool) {
        let gone: Vec<Arc<str>> = self
            .rooms
            .iter()
            .filter(|(name, room)| !known(name) && room.used == Resources::NONE)
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            self.set(&name, Room::CLOSED);
            self.rooms.remove(&*name);
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
        self.set(node, Room { used: room.used.plus(job), ..room });
    }

    /// A job is there no more.
    pub fn give_back(&mut self, node: &str, job: &Resources) {
        let room = self.rooms.get(node).copied().unwrap_or(Room::CLOSED);
        self.set(node, Room { used: room.used.minus(job), ..room });
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
            self.leave_class(&name, &old);
        }
        if room.open {
            let uses = self.classes.entry((room.total, room.ahead)).or_default();
            let alike = uses.entry(room.used.cores).or_default();
            alike.insert((room.used.memory, name.clone()));
        }
        let smaller = room.used.cores >= old.used.cores && room.used.memory >= old.used.memory;
        let same = (old.open, old.total, old.ahead) == (room.open, room.total, room.ahead);
        if !(smaller && same) {
            self.grown.insert(name);
        }
    }

    fn leave_class(&mut self, name: &Arc<str>, old: &Room) {
        let class = (old.total, old.ahead);
        let Some(uses) = self.classes.get_mut(&class) else { return };
        if let Some(alike) = uses.get_mut(&old.used.cores) {
            alike.remove(&(old.used.memory, name.clone()));
            if alike.is_empty() {
                uses.remove(&old.used.cores);
            }
        }
        if uses.is_empty() {
            self.classes.remove(&class);
        }
    }

    /// The node for a job that asks for this; `None` if none has room.
    pub fn choose(&self, job: &Resources, avoid: &[String]) -> Option<String> {
        let avoided = |name: &str| avoid.iter().any(|other| other == name);
        let mut best: Option<(u64, &str)> = None;
        for ((total, ahead), uses) in self.classes.iter().filter(|((total, _), _)| job.fits(total))
        {
            for (cores, alike) in uses {
                let room = |memory| Room {
                    open: true,
                    total: *total,
                    used: Resources { cores: *cores, memory },
                    ahead: *ahead,
                };
                let least = room(0);
                // From here on cores are short, or no node is loaded less than the best so far.
                if !least.takes(job) || best.is_some_and(|(load, _)| load < least.load()) {
                    break;
                }
                let Some((memory, name)) = alike.iter().find(|(_, name)| !avoided(name)) else {
                    continue;
                };
                let first = room(*memory);
                let found = (first.load(), &**name);
                if first.takes(job) && best.is_none_or(|best| found < best) {
                    best = Some(found);
                }
            }
        }
        let last_resort = || {
            let rooms = avoid.iter().filter_map(|name| Some((name, self.rooms.get(&**name)?)));
            let open = rooms.filter(|(_, room)| room.takes(job));
            open.map(|(name, room)| (room.load(), name.as_str())).min()
        };
        best.or_else(last_resort).map(|(_, name)| name.to_string())
    }
}
