//! Nodes as they lie in the index trees: how they are named there, and in which order they are found.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::kdtree::{Marked, Tree, mark_of};
use super::room::Basic;
use super::sites::ClassId;

/// A node, by its place among all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PlaceId(pub u32);

/// What a strategy goes by, then the memory in use where it goes by that too, then the name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Spot {
    pub order: u64,
    pub memory: u64,
    pub name: Arc<str>,
    pub place: PlaceId,
    pub class: ClassId,
}

impl Marked for Spot {
    fn mark(&self) -> u64 {
        mark_of(self.class.place())
    }
}

/// Nodes that are alike but for the memory in use: their class, what they have in all, how many jobs, how large, may
/// be sent ahead, what is about to be free, and the cores in use. The first by memory, then by name, is the least
/// loaded of them, and if it has no room, none of them has. One with more to count is alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Group {
    pub class: ClassId,
    pub total: Basic,
    pub ahead: u64,
    pub like: Basic,
    pub leaving: Basic,
    pub cores: u64,
    pub alone: Option<PlaceId>,
}

/// The members of a group.
pub(super) type Alike = BTreeSet<(u64, Arc<str>, PlaceId)>;

/// Nodes with the same things to count as one strategy looks for them. In the third dimension is what there
/// is of the first of what they have to count.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// By the most that they have room for now.
    pub firsts: Tree<3, Spot>,
    /// Those of them that take more than that, by the most and the least that they take.
    pub stretched: Tree<5, Spot>,
}

/// Nodes with the same things to count, reserved ones, too, by what they have in all and in an order of their
/// own: a number that looks like any.
pub(super) type Totals = Tree<4, Spot>;

/// A number that looks like any, and is the same for the same: FNV-1a, with the finish of SplitMix64.
pub(super) fn scatter(of: impl Iterator<Item = u64>) -> u64 {
    let mixed = of.fold(0xcbf2_9ce4_8422_2325, |hash: u64, part| {
        (hash ^ part).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
