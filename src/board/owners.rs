//! Whose a job is.

use super::cards::Cards;
use crate::error::{Kind, Result};
use crate::model::card::Card;

/// Most ancestors that are asked. Cards name their owner since there are users: only of jobs that jobs
/// submitted before that has a parent to be asked.
const MOST: usize = 64;

/// The user who owns a job: who submitted it, or the topmost of the jobs that submitted each other. `None`
/// where that is not known any more, since an ancestor was cleaned up: then it is an admin's.
pub fn of(cards: &Cards, card: &Card) -> Result<Option<String>> {
    let (mut user, mut parent) = (card.accepted.user(), card.accepted.parent);
    for _ in 0..MOST {
        let (None, Some(job)) = (&user, parent) else { break };
        let accepted = match cards.find(job) {
            Ok(card) => card.accepted,
            Err(e) if matches!(e.kind, Kind::NotFound | Kind::Gone) => return Ok(None),
            Err(e) => return Err(e),
        };
        (user, parent) = (accepted.user(), accepted.parent);
    }
    Ok(user)
}
