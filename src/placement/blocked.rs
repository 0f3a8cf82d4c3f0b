//! The first of each blocked kind, by what it asks for.

use std::collections::HashMap;
use std::sync::Arc;

use super::ask::Ask;
use super::candidates::{Candidates, Turn};
use super::kdtree::{Marked, Point, Tree, Window, mark_of};
use super::offers::Offer;
use super::room::Basic;
use super::sites::SiteId;
use crate::model::resources::Others;

/// The first of a kind, and where it may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct First {
    pub turn: Turn,
    pub site: SiteId,
}

impl Marked for First {
    fn mark(&self) -> u64 {
        mark_of(self.site.place())
    }
}

/// See the module. By cores, memory, and how long they last.
#[derive(Debug, Default)]
pub(super) struct Blocked {
    plain: Tree<3, First>,
    /// Those that ask for more than that, by the first that they ask for beside, and by how much of it.
    others: HashMap<Arc<str>, Counted>,
}

#[derive(Debug, Default)]
struct Counted {
    kinds: usize,
    tree: Tree<4, First>,
}

impl Blocked {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.others.is_empty() && self.plain.is_empty()
    }

    /// Adds one.
    pub fn insert(&mut self, ask: &Ask, turn: Turn) {
        let first = First { turn, site: ask.site };
        match first_of(&ask.resources.others) {
            None => self.plain.insert(point(ask), first),
            Some((name, amount)) => {
                let own = self.others.entry(name.clone()).or_default();
                own.kinds += 1;
                own.tree.insert(beside(point(ask), amount), first);
            }
        }
    }

    /// Takes it out.
    pub fn remove(&mut self, ask: &Ask, turn: Turn) {
        let first = First { turn, site: ask.site };
        let Some((name, amount)) = first_of(&ask.resources.others) else {
            self.plain.remove(point(ask), first);
            return;
        };
        let Some(own) = self.others.get_mut(name) else { return };
        if own.tree.remove(beside(point(ask), amount), first) {
            own.kinds -= 1;
        }
        if own.kinds == 0 {
            self.others.remove(name);
        }
    }

    /// The first that may have what is offered, of those good ones with one of these marks, if it comes before the
    /// best that is known.
    pub fn search<'a>(
        &'a self,
        offer: &Offer,
        marks: u64,
        good: &dyn Fn(&First) -> bool,
        candidates: &Candidates,
        best: &mut Option<&'a First>,
    ) {
        let Window { from: [cores, memory], to: [most_cores, most_memory] } = offer.window;
        let (from, to) = ([cores, memory, 0], [most_cores, most_memory, offer.lasts]);
        self.plain.search(&Window { from, to }, marks, good, best);
        if self.others.is_empty() {
            return;
        }
        for (name, most) in offer.others.iter() {
            let Some(own) = self.others.get(name) else { continue };
            let window = Window { from: beside(from, 0), to: beside(to, most) };
            let fits = |first: &First| {
                let asks = candidates.get(&first.turn.1);
                good(first)
                    && asks.is_some_and(|held| held.candidate.resources.others.fit(&offer.others))
            };
            own.tree.search(&window, marks, &fits, best);
        }
    }
}

fn point(ask: &Ask) -> Point<3> {
    let Basic { cores, memory } = Basic::of(&ask.resources);
    [cores, memory, ask.lasts]
}

fn beside([cores, memory, lasts]: Point<3>, amount: u64) -> Point<4> {
    [cores, memory, lasts, amount]
}

/// The first that is named, and how much of it.
fn first_of(others: &Others) -> Option<(&Arc<str>, u64)> {
    others.iter().next()
}
