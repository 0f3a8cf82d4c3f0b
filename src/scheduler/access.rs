//! Whose a job or a node is, and what others see of a job: its number, its state, whose it is.

use serde_json::{Map, Value, json};

use crate::auth::ownership;
use crate::board::cards::Cards;
use crate::board::nodes::{self, Recorded};
use crate::board::owners;
use crate::cgi::Call;
use crate::error::Result;
use crate::model::access::{Need, Reach, Share, Whose};
use crate::model::card::Card;
use crate::model::ids;

/// Whose the thing is that a request names. What is no number is no job: its handler says so.
pub fn whose(call: &Call) -> Result<Whose> {
    if call.request.path.first().is_some_and(|word| word == "nodes") {
        return match call.value(0) {
            "" => Ok(Whose::Own), // a new one: its handler looks whether it is
            name if is_orders(call) => Ok(match call.who.node.as_deref() == Some(name) {
                true => Whose::Own,
                false => Whose::Others,
            }),
            name => whose_node(call, name),
        };
    }
    if call.request.path.first().is_some_and(|word| word == "partitions") {
        return Ok(Whose::Own); // nobody's in particular
    }
    let job = ids::parse_number(call.value(0));
    job.map_or(Ok(Whose::Own), |job| ownership::of_job(call.root, call.who, job))
}

/// Whether a request is about a node's orders, which are for nobody but that node.
fn is_orders(call: &Call) -> bool {
    call.request.path.get(2).is_some_and(|word| matches!(word.as_str(), "claim" | "report"))
}

/// Whose a node is that is registered; 404 for another one. What nobody can tell is an admin's: of a record
/// that cannot be read, or is a newer program's.
pub fn whose_node(call: &Call, name: &str) -> Result<Whose> {
    match nodes::look(call.root, name)? {
        Recorded::Absent => Err(nodes::none(name)),
        Recorded::Known(node) if node.newer.is_none() => {
            Ok(call.who.whose(node.owner.as_deref(), None))
        }
        Recorded::Known(_) | Recorded::Damaged(_) => Ok(Whose::Others),
    }
}

/// Whether whoever asks may see more of a job than everybody.
pub fn sees(call: &Call, cards: &Cards, card: &Card) -> Result<bool> {
    Ok(match call.who.reach(Need::Read) {
        Reach::All => true,
        Reach::None => false,
        Reach::Own => call.who.may(Need::Read, ownership::of_card(cards, call.who, card)?),
    })
}

/// The same of a job by its number; not of one that is not there, or cannot be read.
pub fn sees_job(call: &Call, job: u64) -> bool {
    call.who.reach(Need::Read) == Reach::All
        || ownership::of_job(call.root, call.who, job)
            .is_ok_and(|whose| call.who.may(Need::Read, whose))
}

/// Whether they see the values of its environment, too: not what was shared for reading alone.
pub fn sees_values(call: &Call, cards: &Cards, card: &Card) -> Result<bool> {
    let is_all = call.who.reach(Need::Read) == Reach::All;
    let read = Whose::Shared(Share::Read);
    Ok(call.who.sees_values() && (is_all || ownership::of_card(cards, call.who, card)? != read))
}

/// What everybody sees of a job.
pub fn outside(cards: &Cards, card: &Card) -> Result<Map<String, Value>> {
    let mut map = Map::new();
    map.insert("state".into(), card.state.word().into());
    map.insert("status".into(), json!(card.status()));
    map.insert("owner".into(), json!(owners::of(cards, card)?));
    Ok(map)
}
