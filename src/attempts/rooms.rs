//! What nodes have room for, going by the cards alone: for whoever has no poller's index.

use crate::board::cards::Cards;
use crate::board::root::Root;
use crate::error::Result;
use crate::model::card::Column;
use crate::model::node::Node;
use crate::placement::Rooms;

/// The rooms of these nodes beside what the running cards ask for, each of which is read, 20 µs or so;
/// `None` where they are more than `most`. A card that cannot be read is the poller's to tell: it takes
/// no room here.
pub fn of_cards(root: &Root, nodes: &[Node], most: usize) -> Result<Option<Rooms>> {
    let cards = Cards::new(root);
    let running = cards.numbers(Column::Running)?;
    if running.len() > most {
        return Ok(None);
    }
    let mut rooms = Rooms::default();
    nodes.iter().for_each(|node| rooms.update(node));
    for job in running {
        if let Ok(Some(card)) = cards.read_in(Column::Running, job) {
            let nodes = card.with_nodes().map(|attempt| &attempt.node);
            nodes.for_each(|node| rooms.take(node, &card.spec.resources));
        }
    }
    Ok(Some(rooms))
}
