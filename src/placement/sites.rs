//! Which nodes will do for which jobs.
//!
//! What a job asks of nodes by label and name, and whose it is where that makes a difference, is its
//! *site*. Nodes that the same sites take, and that have the same things to count, are of a *class*. A
//! search goes through the classes of a site, and of a node's class it is known which sites take it: nobody
//! looks at labels but when a site, or a node, is new.

use std::collections::HashMap;
use std::sync::Arc;

use super::room::Room;
use crate::model::resources::Others;
use crate::model::selector::Selector;

/// A site, by its place among all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SiteId(u32);

impl SiteId {
    pub fn place(self) -> usize {
        self.0 as usize
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
struct Site {
    selector: Option<Arc<Selector>>,
    user: Option<Arc<str>>,
}

impl Site {
    fn takes(&self, name: &str, room: &Room) -> bool {
        (room.owner.is_none() || room.owner == self.user)
            && self.selector.as_ref().is_none_or(|selector| selector.takes(name, &room.labels))
    }
}

/// Nodes of which each site takes all or none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Class {
    /// For each site whether it takes them.
    taken_by: Vec<bool>,
    /// What they have to count beside cores and memory.
    names: Arc<[Arc<str>]>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Sites {
    sites: Vec<Site>,
    ids: HashMap<Site, SiteId>,
    /// For each site the classes that it takes.
    classes_of: Vec<Vec<ClassId>>,
    classes: Vec<Class>,
    class_ids: HashMap<Class, ClassId>,
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
    pub fn find(
        &self,
        selector: Option<&Arc<Selector>>,
        user: Option<&Arc<str>>,
    ) -> Option<SiteId> {
        self.ids.get(&Site { selector: selector.cloned(), user: user.cloned() }).copied()
    }

    /// Takes in a new one. Each class has to be told apart by it, with [`Sites::split`].
    pub fn add(&mut self, selector: Option<&Arc<Selector>>, user: Option<&Arc<str>>) -> SiteId {
        let site = Site { selector: selector.cloned(), user: user.cloned() };
        let id = SiteId(self.sites.len() as u32);
        self.ids.insert(site.clone(), id);
        self.sites.push(site);
        self.classes_of.push(Vec::new());
        self.class_ids.clear();
        for (place, class) in self.classes.iter_mut().enumerate() {
            class.taken_by.push(false);
            self.class_ids.insert(class.clone(), ClassId(place as u32));
        }
        id
    }

    /// Whether a site takes a node.
    pub fn takes(&self, site: SiteId, name: &str, room: &Room) -> bool {
        self.sites[site.place()].takes(name, room)
    }

    /// The newest site takes all nodes of this class.
    pub fn take_all(&mut self, site: SiteId, class: ClassId) {
        let known = &mut self.classes[class.place()];
        self.class_ids.remove(known);
        known.taken_by[site.place()] = true;
        self.class_ids.insert(known.clone(), class);
        self.classes_of[site.place()].push(class);
    }

    /// A class for those nodes of this one that the newest site takes, where it takes some of them alone.
    pub fn split(&mut self, site: SiteId, class: ClassId) -> ClassId {
        let mut new = self.classes[class.place()].clone();
        new.taken_by[site.place()] = true;
        self.class(new)
    }

    /// The class of a node.
    pub fn class_of(&mut self, name: &str, room: &Room) -> ClassId {
        let names = room.total.others.iter().map(|(name, _)| name.clone()).collect();
        let taken_by = self.sites.iter().map(|site| site.takes(name, room)).collect();
        self.class(Class { taken_by, names })
    }

    fn class(&mut self, class: Class) -> ClassId {
        if let Some(known) = self.class_ids.get(&class) {
            return *known;
        }
        let id = ClassId(self.classes.len() as u32);
        let taking = self.classes_of.iter_mut().zip(&class.taken_by).filter(|(_, taken)| **taken);
        taking.for_each(|(classes, _)| classes.push(id));
        self.class_ids.insert(class.clone(), id);
        self.classes.push(class);
        id
    }

    /// Classes that a site takes.
    pub fn classes_of(&self, site: SiteId) -> &[ClassId] {
        &self.classes_of[site.place()]
    }

    /// Whether a site takes the nodes of a class.
    pub fn is_taken(&self, site: SiteId, class: ClassId) -> bool {
        self.classes[class.place()].taken_by[site.place()]
    }

    /// For each site whether it takes the nodes of a class.
    pub fn taken_by(&self, class: ClassId) -> &[bool] {
        &self.classes[class.place()].taken_by
    }

    /// What the nodes of a class have to count.
    pub fn names(&self, class: ClassId) -> &[Arc<str>] {
        &self.classes[class.place()].names
    }

    /// Whether the nodes of a class have all that is asked for to count, however much of it.
    pub fn has_all(&self, class: ClassId, others: &Others) -> bool {
        let names = self.names(class);
        others.iter().all(|(name, _)| names.binary_search(name).is_ok())
    }
}
