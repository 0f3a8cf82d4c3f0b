//! What nodes have of the jobs, by the cards: for whoever has no poller's index. All that is told of it comes of
//! one walk through the running cards, with one bound.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::lasting;
use crate::board::cards::Cards;
use crate::board::root::Root;
use crate::board::{owners, reservations, steps};
use crate::clock;
use crate::error::Result;
use crate::model::card::{Card, Column};
use crate::model::node::Node;
use crate::model::resources::Resources;
use crate::placement::ends::{Millis, NEVER};
use crate::placement::why::Seen;
use crate::placement::{Cap, InUse, Rooms};

/// More running cards than so many are not read for it: each takes 20 µs or so.
pub const MOST: usize = 5_000;

/// See the module. What was sent ahead and waits on its node counts, too. A card that cannot be read is the
/// poller's to tell: it counts for nothing here.
#[derive(Debug)]
pub struct Allocated {
    cards: Vec<Card>,
}

impl Allocated {
    /// What there is now; `None` where nodes have more jobs than `most`.
    pub fn read(root: &Root, most: usize) -> Result<Option<Allocated>> {
        let cards = Cards::new(root);
        let running = cards.numbers(Column::Running)?;
        if running.len() > most {
            return Ok(None);
        }
        let read = |job| cards.read_in(Column::Running, job).ok().flatten();
        Ok(Some(Allocated { cards: running.into_iter().filter_map(read).collect() }))
    }

    /// The rooms of these nodes beside it, and what is reserved on them.
    pub fn rooms(&self, root: &Root, nodes: &[Node]) -> Result<Rooms> {
        let mut rooms = Rooms::default();
        nodes.iter().for_each(|node| rooms.update(node));
        let now = steps::seen(root)?;
        for card in &self.cards {
            for attempt in card.with_nodes() {
                let rest = lasting::rest(card, attempt, &now, root.settings.default_grace);
                rooms.take(&attempt.node, &card.spec.resources, rest.map_or(NEVER, millis));
            }
        }
        let cards = Cards::new(root);
        for kept in reservations::read(root)? {
            let Ok(Some(card)) = cards.read_in(Column::Queue, kept.job) else { continue };
            let until = kept.until.as_deref().and_then(clock::parse_rfc3339);
            let left = until.map(|until| until.duration_since(SystemTime::now()));
            let left = left.map_or(NEVER, |left| millis(left.unwrap_or_default()));
            rooms.keep(&kept.node, (kept.job, card.priority), &card.spec.resources, left);
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

    /// What a user's jobs have of all nodes.
    fn of_user(&self, root: &Root, user: &str) -> InUse {
        let cards = Cards::new(root);
        let mut used = InUse::default();
        for card in &self.cards {
            if owners::of(&cards, card).is_ok_and(|owner| owner.as_deref() == Some(user)) {
                card.with_nodes().for_each(|_| used.add(&card.spec.resources));
            }
        }
        used
    }

    /// Why a job of this user has to wait for others of theirs, for a person, by the settings of this root.
    pub fn at_cap(&self, root: &Root, user: Option<&str>, asked: &Resources) -> Option<String> {
        let cap = cap(root);
        let user = user.filter(|_| cap != Cap::default())?;
        cap.objection(self.of_user(root, user), asked.cores)
    }

    fn each(&self) -> impl Iterator<Item = (&str, &Resources)> {
        self.cards.iter().flat_map(|card| {
            card.with_nodes().map(move |attempt| (attempt.node.as_str(), &card.spec.resources))
        })
    }
}

/// The rooms of nodes, as a job looks at them.
pub fn seen_by<'a>(root: &Root, rooms: &'a Rooms, card: &Card) -> Seen<'a> {
    let lasts = lasting::next(card, root.settings.default_grace).map_or(NEVER, millis);
    Seen { rooms, job: Some(card.job()), priority: card.priority, lasts }
}

fn millis(duration: Duration) -> Millis {
    u64::try_from(duration.as_millis()).unwrap_or(NEVER)
}

/// Why nothing is told of it where nodes have more jobs than [`MOST`], for a person.
pub fn not_known() -> String {
    format!("what nodes have room for is not looked up: they have more than {MOST} jobs")
}

/// What each user may have, by the settings of this root.
pub fn cap(root: &Root) -> Cap {
    Cap::of(&root.settings)
}
