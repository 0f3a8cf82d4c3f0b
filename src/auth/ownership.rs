//! Whose a job is, for whoever asks.

use super::Who;
use crate::board::cards::Cards;
use crate::board::owners;
use crate::board::root::Root;
use crate::board::vault;
use crate::error::Result;
use crate::model::access::{OPEN, Whose};
use crate::model::card::Card;

/// Whose this job is. An error where there is none, as of [`Cards::find`]: it may come, as another user's,
/// before it is looked for again.
pub fn of_job(root: &Root, who: &Who, job: u64) -> Result<Whose> {
    let cards = Cards::new(root);
    of_card(&cards, who, &cards.find(job)?)
}

/// Whose the job of this card is.
pub fn of_card(cards: &Cards, who: &Who, card: &Card) -> Result<Whose> {
    if who.job() == Some(card.job()) {
        return Ok(Whose::Own); // also where nobody knows its owner any more
    }
    let owner = owners::of(cards, card)?;
    // Whoever asks from this machine is open then.
    if owner.as_deref() == Some(OPEN) && vault::is_open(cards.root())? {
        return Ok(Whose::Own);
    }
    Ok(who.whose(owner.as_deref(), card.spec.share))
}
