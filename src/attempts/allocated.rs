//! What nodes have of the jobs, by the cards: for whoever has no poller's index. All that is told of it comes of
//! one walk through the running cards, with one bound.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime};

use super::lasting;
use crate::board::cards::Cards;
use crate::board::root::Root;
use crate::board::{owners, partitions, poller_lock, reservations, steps};
use crate::clock;
use crate::error::Result;
use crate::model::asked::Asked;
use crate::model::card::{Card, Column};
use crate::model::node::Node;
use crate::model::partition::Partition;
use crate::model::request::Spec;
use crate::model::resources::Resources;
use crate::placement::ends::{Millis, NEVER};
use crate::placement::why::Seen;
use crate::placement::{Cap, Caps, InUse, Rooms, Uses};

/// More running cards than so many are not read for it: each takes 20 µs or so.
pub const MOST: usize = 5_000;

/// See the module. What was sent ahead and waits on its node counts, too. A card that cannot be read is the
/// poller's to tell: it counts for nothing here.
#[derive(Debug)]
pub struct Allocated {
    cards: Vec<Card>,
    /// As it was asked for.
    uses: RefCell<HashMap<Whose, Uses>>,
}

/// A user and a partition.
type Whose = (Option<String>, Option<String>);

impl Allocated {
    /// What there is now; `None` where nodes have more jobs than `most`.
    pub fn read(root: &Root, most: usize) -> Result<Option<Allocated>> {
        let cards = Cards::new(root);
        let running = cards.numbers(Column::Running)?;
        if running.len() > most {
            return Ok(None);
        }
        let read = |job| cards.read_in(Column::Running, job).ok().flatten();
        let cards = running.into_iter().filter_map(read).collect();
        Ok(Some(Allocated { cards, uses: RefCell::default() }))
    }

    /// The rooms of these nodes beside it, and what is reserved on them.
    pub fn rooms(&self, root: &Root, nodes: &[Node]) -> Result<Rooms> {
        let mut rooms = Rooms::default();
        nodes.iter().for_each(|node| rooms.update(node));
        let now = steps::seen(root)?;
        for card in &self.cards {
            for attempt in card.with_nodes() {
                let rest = lasting::rest(card, attempt, &now, root.settings.default_grace);
                let rest = rest.filter(|_| card.newer.is_none());
                rooms.take(&attempt.node, &card.spec.resources, rest.map_or(NEVER, millis));
            }
        }
        let cards = Cards::new(root);
        // What the last poller said counts for nothing where there is none.
        let kept = if poller_lock::is_held(root)? { reservations::read(root)? } else { Vec::new() };
        for kept in kept {
            let Ok(Some(card)) = cards.read_in(Column::Queue, kept.job) else { continue };
            let until = kept.until.as_deref().and_then(clock::parse_rfc3339);
            let left = until.map(|until| until.duration_since(SystemTime::now()));
            let left = left.map_or(NEVER, |left| millis(left.unwrap_or_default()));
            let name = card.spec.partition.as_deref();
            let partition = name.and_then(|name| partitions::look(root, name).ok()?.known());
            let turn = (kept.job, priority(card.priority, partition.as_deref()));
            rooms.keep(&kept.node, turn, &card.spec.resources, left);
        }
        Ok(rooms)
    }

    /// How much of each node that has any job.
    pub fn by_node(&self) -> BTreeMap<&str, Resources> {
        let mut by_node: BTreeMap<&str, Resources> = BTreeMap::new();
        for (node, resources) in self.each() {
            by_node.entry(node).or_insert(Resources::NONE).add(resources);
        }
        by_node
    }

    /// How many attempts each node has that has any.
    pub fn attempts_by_node(&self) -> BTreeMap<&str, usize> {
        let mut by_node: BTreeMap<&str, usize> = BTreeMap::new();
        self.each().for_each(|(node, _)| *by_node.entry(node).or_default() += 1);
        by_node
    }

    /// What all jobs of a partition have.
    pub fn of_partition(&self, name: &str) -> InUse {
        let mut used = InUse::default();
        let its = self.cards.iter().filter(|card| card.spec.partition.as_deref() == Some(name));
        its.for_each(|card| add(&mut used, card));
        used
    }

    /// What counts where a job of this user, for this partition, is to be placed.
    fn uses(&self, root: &Root, user: Option<&str>, partition: Option<&str>) -> Uses {
        let key = (user.map(str::to_string), partition.map(str::to_string));
        if let Some(known) = self.uses.borrow().get(&key) {
            return *known;
        }
        let (cards, mut uses) = (Cards::new(root), Uses::default());
        for card in &self.cards {
            let is_in = partition.is_some() && card.spec.partition.as_deref() == partition;
            let is_theirs = owners::of(&cards, card).is_ok_and(|owner| owner.as_deref() == user);
            for (counts, used) in [
                (is_theirs, &mut uses.user),
                (is_in, &mut uses.partition),
                (is_theirs && is_in, &mut uses.user_in),
            ] {
                if counts {
                    add(used, card);
                }
            }
        }
        self.uses.borrow_mut().insert(key, uses);
        uses
    }

    /// Why a job that asks for this has to wait for others of its user, or of its partition, for a person.
    pub fn objection(&self, root: &Root, asked: &Asked) -> Option<String> {
        let caps = caps(root, asked.partition);
        if caps.is_none() {
            return None;
        }
        let name = asked.partition.map(|partition| partition.name.as_str());
        caps.objection(name, self.uses(root, asked.user, name), asked.resources.cores)
    }

    fn each(&self) -> impl Iterator<Item = (&str, &Resources)> {
        self.cards.iter().flat_map(|card| {
            card.with_nodes().map(move |attempt| (attempt.node.as_str(), &card.spec.resources))
        })
    }
}

/// The rooms of nodes, as a job looks at them that is for this partition.
pub fn seen_by<'a>(
    root: &Root,
    rooms: &'a Rooms,
    card: &Card,
    partition: Option<&Partition>,
) -> Seen<'a> {
    let lasts = lasting::next(card, root.settings.default_grace).map_or(NEVER, millis);
    Seen { rooms, job: Some(card.job()), priority: priority(card.priority, partition), lasts }
}

/// The same, as one would look at them that asks for this, and is not there yet.
pub fn seen_by_new<'a>(
    root: &Root,
    rooms: &'a Rooms,
    spec: &Spec,
    partition: Option<&Partition>,
) -> Seen<'a> {
    let lasts = lasting::of_new(spec, root.settings.default_grace).map_or(NEVER, millis);
    Seen { rooms, job: None, priority: priority(spec.priority, partition), lasts }
}

/// By which a job comes before others: its own, and its partition's.
fn priority(own: i64, partition: Option<&Partition>) -> i64 {
    own.saturating_add(partition.map_or(0, |partition| partition.priority))
}

fn millis(duration: Duration) -> Millis {
    u64::try_from(duration.as_millis()).unwrap_or(NEVER)
}

/// Why nothing is told of it where nodes have more jobs than [`MOST`], for a person.
pub fn not_known() -> String {
    format!("what nodes have room for is not looked up: they have more than {MOST} jobs")
}

/// What a newer program's job has is counted by no poller of this one.
fn add(used: &mut InUse, card: &Card) {
    if card.newer.is_some() {
        return;
    }
    card.with_nodes().for_each(|_| used.add(&card.spec.resources));
}

/// What of a job for this partition is bounded, by the settings of this root and by the partition's rules.
fn caps(root: &Root, partition: Option<&Partition>) -> Caps {
    Caps::of(Cap::of(&root.settings), partition)
}

/// Whether anything of a job for this partition is bounded.
pub fn is_capped(root: &Root, partition: Option<&Partition>) -> bool {
    !caps(root, partition).is_none()
}

/// Why a job that asks for this will never be placed, by these, for a person.
pub fn never(root: &Root, asked: &Asked) -> Option<String> {
    let name = asked.partition.map(|partition| partition.name.as_str());
    caps(root, asked.partition).never(name, asked.resources.cores)
}
