//! What attempts have said of their progress, as their nodes tell it. Nothing rests on it: whatever
//! goes wrong here is told, and keeps nothing else from being recorded.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Said;
use crate::board::card_feed::Held;
use crate::board::progress;
use crate::board::root::Root;
use crate::model::card::Card;
use crate::model::progress::Word;

/// That words are not kept is told so often.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Keeps the words of reports about a job: of those that its attempts' own nodes have made, and that
/// prove to be about them. Under the board's lock, so that no word outlives a card that is cleaned up.
pub(super) fn note(root: &Root, held: &Held, card: &Card, reports: &[Said]) {
    let words: Vec<Word> = reports
        .iter()
        .filter(|said| said.proven && !said.status.progress.is_empty())
        .filter(|said| said.is_from_holder(card))
        .flat_map(|said| {
            let fit = said.status.progress.iter().filter(|word| word.is_fit());
            fit.map(|word| word.of(&said.id))
        })
        .collect();
    if words.is_empty() {
        return;
    }
    if let Err(error) = progress::add_to_job(root, held, card.job(), words)
        && is_to_be_told()
    {
        eprintln!("job {}: its word on its progress is not kept: {}", card.job(), error.message);
    }
}

/// Whether none was told of for so long: on a full disk each job has a word to say each second.
fn is_to_be_told() -> bool {
    static TOLD: Mutex<Option<Instant>> = Mutex::new(None);
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    let is_long_ago = told.is_none_or(|told| told.elapsed() > TELL_EVERY);
    if is_long_ago {
        *told = Some(Instant::now());
    }
    is_long_ago
}
