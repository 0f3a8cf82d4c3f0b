//! What the jobs that nodes have were given, by the cards.

use std::collections::BTreeMap;

use crate::board::cards::Cards;
use crate::board::root::Root;
use crate::error::Result;
use crate::model::card::Column;
use crate::model::resources::Resources;

/// More running cards than so many are not read for it: each takes 20 µs or so.
const MOST: usize = 5_000;

/// What is allocated on each node that has any job, those included that were sent ahead and wait there;
/// `None` where that takes too long to find out. A card that cannot be read counts for nothing.
pub fn by_node(root: &Root) -> Result<Option<BTreeMap<String, Resources>>> {
    let cards = Cards::new(root);
    let running = cards.numbers(Column::Running)?;
    if running.len() > MOST {
        return Ok(None);
    }
    let mut allocated: BTreeMap<String, Resources> = BTreeMap::new();
    for job in running {
        if let Ok(Some(card)) = cards.read_in(Column::Running, job) {
            for attempt in card.with_nodes() {
                let known = allocated.entry(attempt.node.clone()).or_insert(Resources::NONE);
                *known = known.plus(&card.spec.resources);
            }
        }
    }
    Ok(Some(allocated))
}
