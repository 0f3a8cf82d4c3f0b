//! Points with values, changed often; the least value within a window is found without looking at
//! all of them.
//!
//! A k-d tree (Bentley, "Multidimensional binary search trees used for associative searching",
//! CACM 18(9), 1975) with its points in small leaves (Friedman, Bentley and Finkel, ACM TOMS 3(3),
//! 1977). Every node knows the bounds of its points and the least of their values, so that a search
//! passes over what lies outside the window and over what cannot be better than what it has, and
//! looks at the more promising half first. Points may lie on one another: halves are told apart by
//! Bentley's superkey, the coordinates from the node's axis on and then the value.
//!
//! What grows lopsided is built anew, as in a scapegoat tree (Galperin and Rivest, SODA 1993): so
//! many changes come before the next rebuilding that each costs O(log² n) of it. A search costs
//! O(√n) in the plane at worst, and far less where the values let it stop.

use std::cmp::Ordering;

/// Most points of a leaf.
const LEAF: usize = 16;

/// A place in K dimensions.
pub(super) type Point<const K: usize> = [u64; K];

/// All points between two corners, which belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window<const K: usize> {
    /// The least of each coordinate.
    pub from: Point<K>,
    /// The greatest of each coordinate.
    pub to: Point<K>,
}

impl<const K: usize> Window<K> {
    /// Holds no point, and grows with each that is added.
    const EMPTY: Window<K> = Window { from: [u64::MAX; K], to: [0; K] };

    pub fn holds(&self, point: &Point<K>) -> bool {
        (0..K).all(|axis| (self.from[axis]..=self.to[axis]).contains(&point[axis]))
    }

    fn meets(&self, other: &Window<K>) -> bool {
        (0..K).all(|axis| self.from[axis] <= other.to[axis] && other.from[axis] <= self.to[axis])
    }

    fn with(&self, other: &Window<K>) -> Window<K> {
        Window {
            from: std::array::from_fn(|axis| self.from[axis].min(other.from[axis])),
            to: std::array::from_fn(|axis| self.to[axis].max(other.to[axis])),
        }
    }
}

/// What a search can pass over many values by: those that it wants have a bit in common with it.
pub(super) trait Marked: Ord + Clone {
    /// Some bits.
    fn mark(&self) -> u64;
}

/// Every one of them.
pub(super) const ALL_MARKS: u64 = u64::MAX;

/// The mark of the one with this number: one of 64, which others may have, too.
pub(super) fn mark_of(number: usize) -> u64 {
    1 << (number % 64)
}

/// See the module. An entry is a point and a value; the same entry must not be there twice.
#[derive(Debug)]
pub(super) struct Tree<const K: usize, V> {
    root: Node<K, V>,
}

#[derive(Debug)]
struct Node<const K: usize, V> {
    count: usize,
    bounds: Window<K>,
    least: Option<V>,
    /// All marks of its values.
    marks: u64,
    content: Content<K, V>,
}

type Entry<const K: usize, V> = (Point<K>, V);

#[derive(Debug)]
enum Content<const K: usize, V> {
    Leaf(Vec<Entry<K, V>>),
    /// Entries before `split` and the others, by the superkey of the axis.
    Fork {
        axis: usize,
        split: Entry<K, V>,
        halves: Box<[Node<K, V>; 2]>,
    },
}

impl<const K: usize, V: Marked> Default for Tree<K, V> {
    fn default() -> Tree<K, V> {
        Tree { root: Node::build(Vec::new(), 0) }
    }
}

impl<const K: usize, V: Marked> Tree<K, V> {
    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.root.count == 0
    }

    /// Adds an entry.
    pub fn insert(&mut self, point: Point<K>, value: V) {
        self.root.insert((point, value));
    }

    /// Takes an entry out; whether it was there.
    pub fn remove(&mut self, point: Point<K>, value: V) -> bool {
        self.root.remove(&(point, value))
    }

    /// The least value of a point in the window that is `good` and has one of these marks, if there is one that is less than the best that is
    /// known already. Quick if few are not good.
    pub fn search<'a>(
        &'a self,
        window: &Window<K>,
        marks: u64,
        good: &dyn Fn(&V) -> bool,
        best: &mut Option<&'a V>,
    ) {
        self.root.search(window, marks, good, best);
    }
}

impl<const K: usize, V: Marked> Node<K, V> {
    /// A balanced tree of these, divided by this axis first, if they differ in it.
    fn build(mut entries: Vec<Entry<K, V>>, axis: usize) -> Node<K, V> {
        if entries.len() <= LEAF {
            let mut leaf = Node {
                count: 0,
                bounds: Window::EMPTY,
                least: None,
                marks: 0,
                content: Content::Leaf(entries),
            };
            leaf.summarise();
            return leaf;
        }
        let differ = |axis: &usize| entries.iter().any(|e| e.0[*axis] != entries[0].0[*axis]);
        let axis = (axis..axis + K).map(|axis| axis % K).find(differ).unwrap_or(axis);
        let middle = entries.len() / 2;
        let (_, split, _) = entries.select_nth_unstable_by(middle, |a, b| superkey(axis, a, b));
        let split = split.clone();
        let upper = Node::build(entries.split_off(middle), (axis + 1) % K);
        let lower = Node::build(entries, (axis + 1) % K);
        let content = Content::Fork { axis, split, halves: Box::new([lower, upper]) };
        let mut fork = Node { count: 0, bounds: Window::EMPTY, least: None, marks: 0, content };
        fork.summarise();
        fork
    }

    /// Works out what is known of the whole from its parts.
    fn summarise(&mut self) {
        match &self.content {
            Content::Leaf(entries) => {
                self.count = entries.len();
                self.least = entries.iter().map(|entry| &entry.1).min().cloned();
                self.marks = entries.iter().fold(0, |marks, entry| marks | entry.1.mark());
                self.bounds = entries.iter().fold(Window::EMPTY, |bounds, (point, _)| {
                    bounds.with(&Window { from: *point, to: *point })
                });
            }
            Content::Fork { halves, .. } => {
                let [lower, upper] = &**halves;
                self.count = lower.count + upper.count;
                self.marks = lower.marks | upper.marks;
                self.least = lower.least.iter().chain(&upper.least).min().cloned();
                self.bounds = lower.bounds.with(&upper.bounds);
            }
        }
    }

    fn insert(&mut self, entry: Entry<K, V>) {
        self.rebuild_if_lopsided();
        self.count += 1;
        self.marks |= entry.1.mark();
        self.bounds = self.bounds.with(&Window { from: entry.0, to: entry.0 });
        if self.least.as_ref().is_none_or(|least| entry.1 < *least) {
            self.least = Some(entry.1.clone());
        }
        match &mut self.content {
            Content::Leaf(entries) => {
                entries.push(entry);
                if entries.len() > LEAF {
                    *self = Node::build(std::mem::take(entries), 0);
                }
            }
            Content::Fork { axis, split, halves } => {
                let upper = superkey(*axis, &entry, split).is_ge();
                halves[usize::from(upper)].insert(entry);
            }
        }
    }

    fn remove(&mut self, entry: &Entry<K, V>) -> bool {
        self.rebuild_if_lopsided();
        let found = match &mut self.content {
            Content::Leaf(entries) => match entries.iter().position(|other| other == entry) {
                Some(place) => {
                    entries.swap_remove(place);
                    true
                }
                None => false,
            },
            Content::Fork { axis, split, halves } => {
                let upper = superkey(*axis, entry, split).is_ge();
                halves[usize::from(upper)].remove(entry)
            }
        };
        if found {
            self.summarise();
        }
        found
    }

    /// One half has more than twice what the other has, or all would fit in one leaf.
    fn rebuild_if_lopsided(&mut self) {
        let Content::Fork { axis, halves, .. } = &self.content else { return };
        let larger = halves[0].count.max(halves[1].count);
        if self.count <= LEAF / 2 || larger > self.count / 3 * 2 + LEAF {
            let axis = *axis;
            let mut entries = Vec::with_capacity(self.count);
            self.drain_into(&mut entries);
            *self = Node::build(entries, axis);
        }
    }

    fn drain_into(&mut self, entries: &mut Vec<Entry<K, V>>) {
        match &mut self.content {
            Content::Leaf(own) => entries.append(own),
            Content::Fork { halves, .. } => {
                halves.iter_mut().for_each(|half| half.drain_into(entries));
            }
        }
    }

    fn search<'a>(
        &'a self,
        window: &Window<K>,
        marks: u64,
        good: &dyn Fn(&V) -> bool,
        best: &mut Option<&'a V>,
    ) {
        if self.marks & marks == 0 {
            return;
        }
        let promising = |value: &V, best: &Option<&V>| best.is_none_or(|best| value < best);
        let least = self.least.as_ref();
        if !least.is_some_and(|least| promising(least, best)) || !window.meets(&self.bounds) {
            return;
        }
        match &self.content {
            Content::Leaf(entries) => {
                for (point, value) in entries {
                    if value.mark() & marks != 0
                        && promising(value, best)
                        && window.holds(point)
                        && good(value)
                    {
                        *best = Some(value);
                    }
                }
            }
            Content::Fork { halves, .. } => {
                let [lower, upper] = &**halves;
                let halves =
                    if lower.least <= upper.least { [lower, upper] } else { [upper, lower] };
                halves.iter().for_each(|half| half.search(window, marks, good, best));
            }
        }
    }
}

/// The order along an axis; no two entries are equal in it.
fn superkey<const K: usize, V: Ord>(axis: usize, a: &Entry<K, V>, b: &Entry<K, V>) -> Ordering {
    (axis..axis + K)
        .map(|axis| a.0[axis % K].cmp(&b.0[axis % K]))
        .find(|order| order.is_ne())
        .unwrap_or_else(|| a.1.cmp(&b.1))
}

/// Random numbers, the same in every run.
#[cfg(test)]
pub(super) fn dice(mut seed: u64) -> impl FnMut(u64) -> u64 {
    move |limit| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % limit
    }
}

#[cfg(test)]
impl Marked for u64 {
    fn mark(&self) -> u64 {
        mark_of(*self as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn first<const K: usize>(tree: &Tree<K, u64>, window: &Window<K>) -> Option<u64> {
        let mut best = None;
        tree.search(window, ALL_MARKS, &|_| true, &mut best);
        best.copied()
    }

    fn depth<const K: usize, V>(node: &Node<K, V>) -> usize {
        match &node.content {
            Content::Leaf(_) => 1,
            Content::Fork { halves, .. } => 1 + depth(&halves[0]).max(depth(&halves[1])),
        }
    }

    #[test]
    fn the_least_value_is_that_of_all_points_looked_at_one_by_one() {
        let mut below = dice(3);
        let (mut tree, mut all) = (Tree::default(), BTreeSet::new());
        let mut found = 0;
        for turn in 0..40_000 {
            // It grows, then shrinks to nothing, and so on; many points lie on one another.
            let grows = (turn / 5000) % 2 == 0;
            if below(10) < if grows { 9 } else { 1 } {
                let entry = ([below(6), below(40)], below(100_000));
                if all.insert(entry) {
                    tree.insert(entry.0, entry.1);
                }
            } else if !all.is_empty() {
                let place = below(all.len() as u64) as usize;
                if let Some(entry) = all.iter().nth(place).copied() {
                    all.remove(&entry);
                    assert!(tree.remove(entry.0, entry.1));
                    assert!(!tree.remove(entry.0, entry.1));
                }
            }
            if turn % 20 == 0 {
                let from = [below(6), below(40)];
                let window = Window { from, to: [from[0] + below(4), from[1] + below(20)] };
                let marks = if below(2) == 0 { ALL_MARKS } else { mark_of(below(64) as usize) };
                let wanted = |value: &u64| value.mark() & marks != 0;
                let within = all.iter().filter(|(point, _)| window.holds(point));
                let slow = within.map(|(_, value)| *value).filter(wanted).min();
                found += usize::from(slow.is_some());
                let mut fast = None;
                tree.search(&window, marks, &|_| true, &mut fast);
                assert_eq!(fast.copied(), slow, "{window:?}");
                assert_eq!(tree.root.count, all.len());
            }
        }
        assert!(found > 500, "{found}");
    }

    #[test]
    fn it_stays_shallow_however_points_come_and_go() {
        let mut tree = Tree::default();
        for n in 0..20_000 {
            tree.insert([1, n], n);
        }
        assert!(depth(&tree.root) < 24, "{}", depth(&tree.root));
        for n in 0..19_000 {
            assert!(tree.remove([1, n], n));
        }
        assert!(depth(&tree.root) < 16, "{}", depth(&tree.root));
        assert_eq!(first(&tree, &Window { from: [0, 0], to: [1, 19_002] }), Some(19_000));
        assert_eq!(first(&tree, &Window { from: [2, 0], to: [9, 30_000] }), None);
    }
}
