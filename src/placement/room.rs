//! What one node has room for.

use std::sync::Arc;

use super::kdtree::{Point, Window};
use crate::model::node::Node;
use crate::model::resources::{Others, Resources};
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
    /// Whose jobs alone it takes; everybody's where it is nobody's in particular.
    pub owner: Option<Arc<str>>,
    /// What it is like.
    pub labels: Labels,
}

impl Room {
    /// A node of which nothing is known: nothing goes there.
    pub(super) const CLOSED: Room = Room::of(false, Resources::NONE);

    /// With nothing in use.
    pub(super) const fn of(open: bool, total: Resources) -> Room {
        Room {
            open,
            total,
            used: Resources::NONE,
            leaving: Resources::NONE,
            ahead: 0,
            owner: None,
            labels: Labels::new(),
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
    /// as jobs may be sent ahead. Of what is counted beside cores and memory nothing is sent ahead.
    pub(super) fn takes(&self, cores: u64, memory: u64, others: &Others) -> bool {
        let ahead = |amount: u64| amount.saturating_mul(self.ahead);
        let stays = self.stays();
        self.open
            && cores <= self.total.cores
            && memory <= self.total.memory
            && stays.cores.saturating_add(cores) <= self.total.cores.saturating_add(ahead(cores))
            && stays.memory.saturating_add(memory)
                <= self.total.memory.saturating_add(ahead(memory))
            && others.iter().all(|(name, amount)| amount <= self.left(name))
    }

    /// The same where nothing is sent ahead, nor counted on to end soon.
    pub(super) fn has_room(&self, cores: u64, memory: u64, others: &Others) -> bool {
        self.open
            && self.used.cores.saturating_add(cores) <= self.total.cores
            && self.used.memory.saturating_add(memory) <= self.total.memory
            && others.iter().all(|(name, amount)| amount <= self.free(name))
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

    /// The most cores, and memory, that a job may ask for that has room now; nothing if none has.
    pub(super) fn now(&self) -> Option<Point<2>> {
        let cores = self.total.cores.checked_sub(self.used.cores)?;
        let memory = self.total.memory.checked_sub(self.used.memory)?;
        self.open.then_some([cores, memory])
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
        let stays = self.stays();
        let cores = range(stays.cores, self.total.cores)?;
        let memory = range(stays.memory, self.total.memory)?;
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
