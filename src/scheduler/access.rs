//! Whose a job is, and what others see of it: its number, its state, whose it is.

use serde_json::{Map, Value, json};

use crate::auth::ownership;
use crate::board::cards::Cards;
use crate::board::owners;
use crate::cgi::Call;
use crate::error::Result;
use crate::model::access::{Need, Reach, Whose};
use crate::model::card::Card;
use crate::model::ids;

/// Whose the job is that a request names. Where there is none that is no secret, and its handler says so.
pub fn whose(call: &Call) -> Result<Whose> {
    let job = ids::parse_number(call.value(0));
    let whose = job.map_or(Ok(None), |job| ownership::of_job(call.root, call.who, job))?;
    Ok(whose.unwrap_or(Whose::Own))
}

/// Whether whoever asks may see more of a job than everybody.
pub fn sees(call: &Call, cards: &Cards, card: &Card) -> Result<bool> {
    Ok(match call.who.reach(Need::Read) {
        Reach::All => true,
        Reach::None => false,
        Reach::Own => call.who.may(Need::Read, ownership::of_card(cards, call.who, card)?),
    })
}

/// What everybody sees of a job.
pub fn outside(cards: &Cards, card: &Card) -> Result<Map<String, Value>> {
    let mut map = Map::new();
    map.insert("state".into(), card.state.word().into());
    map.insert("status".into(), json!(card.status()));
    map.insert("owner".into(), json!(owners::of(cards, card)?));
    Ok(map)
}
