//! Which nodes will do for which jobs.
//!
//! What a job asks of nodes by label and name, and whose it is where that makes a difference, is its
//! *site*. Nodes that the same sites take, and that have the same things to count, are of a *class*. Of
//! a class it is known which sites take it: nobody looks at labels but when a site, or a node, is new. A search
//! passes over whole branches of nodes none of whose classes its site takes, by 64 marks. A site that takes few nodes
//! when it is new is *narrow*: what waits for it is kept by itself, since no other node need look at it.

use std::collections::HashMap;
use std::sync::Arc;

use super::kdtree::mark_of;
use super::room::Room;
use crate::model::resources::Others;
use crate::model::selector::Selector;

/// A site, by its place among all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SiteId {
    place: u32,
    narrow: bool,
}

impl SiteId {
    pub fn place(self) -> usize {
        self.place as usize
    }

    /// Whether it took few nodes when it was new.
    pub fn is_narrow(self) -> bool {
        self.narrow
    }
}

/// A class, by its place among all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ClassId(u32);

impl ClassId {
    pub fn place(self) -> usize {
        self.0 as usize
    }
}

/// What is asked of nodes: by whom, where some nodes take their jobs alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Site {
    selector: Option<Arc<Selector>>,
    user: Option<Arc<str>>,
}

impl Site {
    /// That of these jobs.
    pub fn of(selector: Option<&Arc<Selector>>, user: Option<&Arc<str>>) -> Site {
        Site { selector: selector.cloned(), user: user.cloned() }
    }

    /// Whether it takes a node.
    pub fn takes(&self, name: &str, room: &Room) -> bool {
        (room.owner.is_none() || room.owner == self.user)
            && self.selector.as_ref().is_none_or(|selector| selector.takes(name, &room.labels))
    }
}

/// A site takes one node in so many at most where it is narrow.
const NARROW: usize = 8;

/// Things to count, by their place among all that nodes have: one for each set of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct NamesId(u32);

impl NamesId {
    pub fn place(self) -> usize {
        self.0 as usize
    }
}

/// The sites that take a class.
#[derive(Debug, Clone, Default)]
struct Takers {
    /// Those that are narrow.
    narrow: Vec<SiteId>,
    /// Of the others.
    marks: u64,
}

/// Nodes of which each site takes all or none.
#[derive(Debug, Clone)]
struct Class {
    /// For each site whether it takes them; not those that are newer than the last that does.
    taken_by: Vec<bool>,
    key: Key,
}

impl Class {
    fn is_taken(&self, site: SiteId) -> bool {
        self.taken_by.get(site.place()).copied().unwrap_or(false)
    }

    /// This site takes them, too.
    fn take(&mut self, site: SiteId) {
        if self.taken_by.len() <= site.place() {
            self.taken_by.resize(site.place() + 1, false);
        }
        self.taken_by[site.place()] = true;
        self.key.sites ^= print(site.place());
    }
}

/// By which a class is found: sites are many, and a new one must not cost a look at all that each class has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    /// Of each site that takes them a number that looks like any, one with another by exclusive or.
    sites: u128,
    /// What they have to count beside cores and memory.
    names: NamesId,
}

/// 128 bits by the place of a site: two rounds of SplitMix64.
fn print(place: usize) -> u128 {
    let mix = |seed: u64| {
        let mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    let place = place as u64;
    u128::from(mix(2 * place + 1)) << 64 | u128::from(mix(2 * place + 2))
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Sites {
    sites: Vec<Site>,
    ids: HashMap<Site, SiteId>,
    /// For each site the marks of the classes that it takes.
    marks: Vec<u64>,
    classes: Vec<Class>,
    /// For each class.
    takers: Vec<Takers>,
    names: Vec<Arc<[Arc<str>]>>,
    class_ids: HashMap<Key, ClassId>,
}

impl Sites {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.sites.len()
    }

    /// How many classes there are.
    pub fn classes(&self) -> usize {
        self.classes.len()
    }

    /// One that is known.
    pub fn find(&self, site: &Site) -> Option<SiteId> {
        self.ids.get(site).copied()
    }

    /// Takes in a new one that takes so many of all nodes. It has to be told of which classes, with
    /// [`Sites::take_all`] or [`Sites::split`].
    pub fn add(&mut self, site: Site, few: usize, all: usize) -> SiteId {
        let id = SiteId { place: self.sites.len() as u32, narrow: few * NARROW <= all };
        self.ids.insert(site.clone(), id);
        self.sites.push(site);
        self.marks.push(0);
        id
    }

    fn note_taken(&mut self, site: SiteId, class: ClassId) {
        self.marks[site.place()] |= mark_of(class.place());
        let takers = &mut self.takers[class.place()];
        match site.narrow {
            true => takers.narrow.push(site),
            false => takers.marks |= mark_of(site.place()),
        }
    }

    /// The newest site takes all nodes of this class.
    pub fn take_all(&mut self, site: SiteId, class: ClassId) {
        let known = &mut self.classes[class.place()];
        self.class_ids.remove(&known.key);
        known.take(site);
        self.class_ids.insert(known.key, class);
        self.note_taken(site, class);
    }

    /// A class for those nodes of this one that the newest site takes, where it takes some of them alone.
    pub fn split(&mut self, site: SiteId, class: ClassId) -> ClassId {
        let mut new = self.classes[class.place()].clone();
        new.take(site);
        self.class(new)
    }

    /// The class of a node.
    pub fn class_of(&mut self, name: &str, room: &Room) -> ClassId {
        let names = self.names_of(&room.total.others);
        let mut class = Class { taken_by: Vec::new(), key: Key { sites: 0, names } };
        for site in self.sites.iter().filter(|site| site.takes(name, room)) {
            if let Some(id) = self.ids.get(site) {
                class.take(*id);
            }
        }
        self.class(class)
    }

    fn class(&mut self, class: Class) -> ClassId {
        if let Some(known) = self.class_ids.get(&class.key) {
            return *known;
        }
        let id = ClassId(self.classes.len() as u32);
        self.takers.push(Takers::default());
        for site in self.sites.iter().zip(&class.taken_by).filter(|(_, taken)| **taken) {
            if let Some(site) = self.ids.get(site.0).copied() {
                self.marks[site.place()] |= mark_of(id.place());
                let takers = &mut self.takers[id.place()];
                match site.narrow {
                    true => takers.narrow.push(site),
                    false => takers.marks |= mark_of(site.place()),
                }
            }
        }
        self.class_ids.insert(class.key, id);
        self.classes.push(class);
        id
    }

    fn names_of(&mut self, others: &Others) -> NamesId {
        let same = |names: &Arc<[Arc<str>]>| names.iter().eq(others.iter().map(|(name, _)| name));
        let known = self.names.iter().position(same);
        let place = known.unwrap_or_else(|| {
            self.names.push(others.iter().map(|(name, _)| name.clone()).collect());
            self.names.len() - 1
        });
        NamesId(place as u32)
    }

    /// The marks of the classes that a site takes, which others may have, too.
    pub fn marks_of(&self, site: SiteId) -> u64 {
        self.marks[site.place()]
    }

    /// The narrow sites that take a class.
    pub fn narrow_takers(&self, class: ClassId) -> &[SiteId] {
        &self.takers[class.place()].narrow
    }

    /// The marks of the other ones, which sites that do not take it may have, too.
    pub fn takers(&self, class: ClassId) -> u64 {
        self.takers[class.place()].marks
    }

    /// Whether a site takes the nodes of a class.
    pub fn is_taken(&self, site: SiteId, class: ClassId) -> bool {
        self.classes[class.place()].is_taken(site)
    }

    /// What the nodes of a class have to count.
    pub fn names(&self, class: ClassId) -> NamesId {
        self.classes[class.place()].key.names
    }

    /// All sets of these that there are.
    pub fn all_names(&self) -> impl Iterator<Item = (NamesId, &[Arc<str>])> {
        self.names.iter().enumerate().map(|(place, names)| (NamesId(place as u32), &**names))
    }

    /// Their names.
    pub fn names_in(&self, names: NamesId) -> &[Arc<str>] {
        &self.names[names.place()]
    }
}
