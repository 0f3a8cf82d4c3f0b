//! Whose a job is.

use super::cards::Cards;
use crate::error::{Kind, Result};
use crate::model::access;
use crate::model::card::Card;

/// Most ancestors that are asked. Cards name their owner since there are users: only of jobs that jobs
/// submitted before that has a parent to be asked.
const MOST: usize = 64;

/// The user who owns a job: who submitted it, or the topmost of the jobs that submitted each other. `None`
/// where that is not known any more, since an ancestor was cleaned up: then it is an admin's.
pub fn of(cards: &Cards, card: &Card) -> Result<Option<String>> {
    let mut accepted = card.accepted.clone();
    for _ in 0..MOST {
        if let Some(owner) = accepted.owner.or_else(|| access::user_in(&accepted.by)) {
            return Ok(Some(owner));
        }
        let Some(parent) = accepted.parent else { return Ok(None) };
        accepted = match cards.find(parent) {
            Ok(card) => card.accepted,
            Err(e) if matches!(e.kind, Kind::NotFound | Kind::Gone) => return Ok(None),
            Err(e) => return Err(e),
        };
    }
    Ok(None)
}
