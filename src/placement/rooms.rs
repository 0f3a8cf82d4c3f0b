//! What the nodes have room for.

use std::collections::{BTreeMap, BTreeSet, HashMap};

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

    fn takes(&self, job: &Resources) -> bool {
        let ahead = |amount: u64| amount.saturating_mul(self.ahead);
        self.open
            && job.fits(&self.total)
            && self.used.cores.saturating_add(job.cores)
                <= self.total.cores.saturating_add(ahead(job.cores))
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
    rooms: HashMap<String, Room>,
    /// Open nodes by what they have in all, then by load and name.
    classes: BTreeMap<Resources, BTreeSet<(u64, String)>>,
    grown: u64,
}

impl Rooms {
    /// A count that rises whenever some room may have grown.
    pub fn grown(&self) -> u64 {
        self.grown
    }

    /// Takes in what a node's record says.
    pub fn update(&mut self, node: &Node) {
        let old = self.rooms.get(&node.name).copied().unwrap_or(Room::CLOSED);
        let total = node.resources.unwrap_or(Resources::NONE);
        self.set(&node.name, Room { open: node.takes_jobs(), total, ..old });
    }

    /// Forgets nodes that are not registered any more and have no jobs.
    pub fn retain(&mut self, known: impl Fn(&str) -> bool) {
        let gone: Vec<String> = self
            .rooms
            .iter()
            .filter(|(name, room)| !known(name) && room.used == Resources::NONE)
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            self.set(&name, Room::CLOSED);
            self.rooms.remove(&name);
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
        let old = self.rooms.insert(node.to_string(), room).unwrap_or(Room::CLOSED);
        if old == room {
            return;
        }
        if old.open
            && let Some(class) = self.classes.get_mut(&old.total)
        {
            class.remove(&(old.load(), node.to_string()));
            if class.is_empty() {
                self.classes.remove(&old.total);
            }
        }
        if room.open {
            let class = self.classes.entry(room.total).or_default();
            class.insert((room.load(), node.to_string()));
        }
        let smaller = room.used.cores >= old.used.cores && room.used.memory >= old.used.memory;
        let same = (old.open, old.total, old.ahead) == (room.open, room.total, room.ahead);
        if !(smaller && same) {
            self.grown += 1;
        }
    }

    /// The node for a job that asks for this; `None` if none has room.
    pub fn choose(&self, job: &Resources, avoid: &[String]) -> Option<String> {
        let fits = |name: &String| self.rooms.get(name).is_some_and(|room| room.takes(job));
        // Within a class, the least loaded that fits is the first that fits.
        let best = |avoided: bool| {
            self.classes
                .iter()
                .filter(|(total, _)| job.fits(total))
                .filter_map(|(_, class)| {
                    class.iter().find(|(_, name)| avoid.contains(name) == avoided && fits(name))
                })
                .min()
                .map(|(_, name)| name.clone())
        };
        best(false).or_else(|| if avoid.is_empty() { None } else { best(true) })
    }
}
