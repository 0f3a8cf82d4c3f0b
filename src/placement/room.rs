//! What one node has room for.

use std::sync::Arc;

use super::ends::{Ends, has_room};
use super::kdtree::{Point, Window};
use crate::model::node::Node;
use crate::model::resources::Resources;
use crate::model::selector::Labels;

/// Cores and bytes of memory: what every job asks for, and every node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Basic {
    pub cores: u64,
    pub memory: u64,
}

impl Basic {
    pub fn of(all: &Resources) -> Basic {
        Basic { cores: all.cores, memory: all.memory }
    }
}

/// What a node has, what is in use, and how much may wait there beyond its room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// Whether new jobs may be placed on it.
    pub open: bool,
    /// What it gives in all.
    pub total: Resources,
    /// What the jobs sent to it ask for in all.
    pub used: Resources,
    /// What those of them ask for that will have ended before another could be there.
    pub leaving: Resources,
    /// How many jobs beyond its room may be sent ahead, so that short ones follow each other
    /// without a round trip.
    pub ahead: u64,
    /// As large is the largest of these: what asks for more waits here until it has room.
    pub like: Resources,
    /// Whose jobs alone it takes; everybody's where it is nobody's in particular.
    pub owner: Option<Arc<str>>,
    /// What it is like.
    pub labels: Labels,
    /// When what is in use ends, where that is known.
    pub ends: Ends,
}

impl Room {
    /// A node of which nothing is known: nothing goes there.
    pub(super) const CLOSED: Room = Room::of(false, Resources::NONE);

    /// Of any size.
    pub(super) const ANY: Resources = Resources::of(u64::MAX, u64::MAX);

    /// With nothing in use.
    pub(super) const fn of(open: bool, total: Resources) -> Room {
        Room {
            open,
            total,
            used: Resources::NONE,
            leaving: Resources::NONE,
            ahead: 0,
            like: Room::ANY,
            owner: None,
            labels: Labels::new(),
            ends: Ends::NONE,
        }
    }

    /// Takes over what a node's record says; whether anything is different from before.
    pub(super) fn take_record(&mut self, node: &Node) -> bool {
        let open = node.takes_jobs();
        let total = node.resources.clone().unwrap_or(Resources::NONE);
        let owner = node.owner.as_deref();
        if self.open == open
            && self.total == total
            && self.owner.as_deref() == owner
            && self.labels == node.labels
        {
            return false;
        }
        self.open = open;
        self.total = total;
        self.owner = owner.map(Arc::from);
        self.labels.clone_from(&node.labels);
        true
    }

    /// Whether a job that asks for this may be sent there now: it fits on the node, and what stays
    /// in use and what it asks for is no more than what there is and as many times what it asks for
    /// as jobs may be sent ahead, if it is one of those that may. Of what is counted beside cores and memory
    /// nothing is sent ahead.
    pub(super) fn takes(&self, job: &Resources) -> bool {
        let Resources { cores, memory, others } = job;
        let (cores, memory) = (*cores, *memory);
        let ahead = |amount: u64, like: u64| {
            if amount <= like { amount.saturating_mul(self.ahead) } else { 0 }
        };
        let stays = self.stays();
        self.open
            && cores <= self.total.cores
            && memory <= self.total.memory
            && stays.cores.saturating_add(cores)
                <= self.total.cores.saturating_add(ahead(cores, self.like.cores))
            && stays.memory.saturating_add(memory)
                <= self.total.memory.saturating_add(ahead(memory, self.like.memory))
            && others.iter().all(|(name, amount)| amount <= self.left(name))
    }

    /// The same where nothing is sent ahead, nor counted on to end soon.
    pub(super) fn has_room(&self, job: &Resources) -> bool {
        self.open && has_room(job, &self.total, &self.used)
    }

    fn stays(&self) -> Basic {
        Basic {
            cores: self.used.cores.saturating_sub(self.leaving.cores),
            memory: self.used.memory.saturating_sub(self.leaving.memory),
        }
    }

    /// How much of a countable may be asked for.
    pub(super) fn left(&self, name: &str) -> u64 {
        let used = self.used.others.get(name).saturating_sub(self.leaving.others.get(name));
        self.total.others.get(name).saturating_sub(used)
    }

    /// How much of it nobody has.
    pub(super) fn free(&self, name: &str) -> u64 {
        self.total.others.get(name).saturating_sub(self.used.others.get(name))
    }

    /// Whether more may be sent there than has room now.
    pub(super) fn is_stretched(&self) -> bool {
        self.ahead > 0 || self.leaving != Resources::NONE
    }

    /// The most cores, and memory, that a job may ask for that has room now; nothing where it is closed.
    pub(super) fn now(&self) -> Option<Point<2>> {
        let left = (
            self.total.cores.saturating_sub(self.used.cores),
            self.total.memory.saturating_sub(self.used.memory),
        );
        self.open.then_some([left.0, left.1])
    }

    /// All that [`Room::takes`]: cores and memory from the least to the most that a job may ask
    /// for. Where much was sent ahead, only large jobs may follow: as many of these would be more.
    pub(super) fn window(&self) -> Option<Window<2>> {
        let range = |used: u64, total: u64, like: u64| {
            let most = like.min(total);
            match self.ahead {
                0 => (used <= total).then(|| (0, total - used)),
                _ if used <= total => Some((0, most.max(total - used))),
                1 => None,
                ahead => {
                    let least = (used - total).div_ceil(ahead - 1);
                    (least <= most).then_some((least, most))
                }
            }
        };
        let stays = self.stays();
        let cores = range(stays.cores, self.total.cores, self.like.cores)?;
        let memory = range(stays.memory, self.total.memory, self.like.memory)?;
        self.open.then_some(Window { from: [cores.0, memory.0], to: [cores.1, memory.1] })
    }

    /// Load in thousandths: the fullest of cores, memory and whatever else is counted.
    pub(super) fn load(&self) -> u64 {
        let share = |used: u64, total: u64| used.saturating_mul(1000) / total.max(1);
        let basic = share(self.used.cores, self.total.cores)
            .max(share(self.used.memory, self.total.memory));
        let others = self.total.others.iter();
        others.map(|(name, total)| share(self.used.others.get(name), total)).fold(basic, u64::max)
    }
}
