//! Whose a job is, for whoever asks.

use super::Who;
use crate::board::cards::Cards;
use crate::board::owners;
use crate::board::root::Root;
use crate::error::{Kind, Result};
use crate::model::access::Whose;
use crate::model::card::Card;

/// Whose this job is; `None` where there is none (any more).
pub fn of_job(root: &Root, who: &Who, job: u64) -> Result<Option<Whose>> {
    let cards = Cards::new(root);
    match cards.find(job) {
        Ok(card) => of_card(&cards, who, &card).map(Some),
        Err(e) if matches!(e.kind, Kind::NotFound | Kind::Gone) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Whose the job of this card is.
pub fn of_card(cards: &Cards, who: &Who, card: &Card) -> Result<Whose> {
    let owner = owners::of(cards, card)?;
    Ok(who.whose(owner.as_deref(), card.spec.share))
}
