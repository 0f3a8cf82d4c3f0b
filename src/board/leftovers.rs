//! What lies beside the cards of jobs that need it no more: lists of children, words on progress, uploads.
//! As in the [attic](super::attic) absence has to be proven: what could not be looked at is kept.

use std::path::Path;
use std::time::Duration;

use super::attic::{Board, Tally};
use super::files;
use super::progress;
use super::root::Root;
use crate::clock::Present;
use crate::error::{At, Result};
use crate::model::card::{Card, Column, State};
use crate::model::ids;

/// Age at which uploads whose job has no card are litter.
const ORPHANED: Duration = Duration::from_secs(3600);

/// Removes lists of children, and words on progress, of jobs that are not on the board any more.
pub fn remove_of_gone(board: &Board, tally: &mut Tally) {
    for dir in ["children", progress::DIR].map(|name| board.cards.path(name)) {
        for name in tally.names(&dir) {
            let Some(job) = ids::parse_number(&name) else { continue };
            tally.note(match board.is_gone(job) {
                Ok(true) => files::remove(&dir.join(name)).map(|()| true),
                other => other,
            });
        }
    }
}

/// Names what lies among the words on progress without being those of a job of the board. With
/// `repair` the words of jobs that are gone are removed.
pub fn stray_progress(root: &Root, repair: bool) -> Result<Vec<String>> {
    let board = Board::new(root)?;
    let dir = board.cards.path(progress::DIR);
    let mut wrong = Vec::new();
    for name in files::names(&dir)? {
        let path = dir.join(&name);
        let Some(job) = ids::parse_number(&name) else {
            wrong.push(format!("{}: not the words of a job; remove it", path.display()));
            continue;
        };
        // A clean-up may be at work.
        let found = board.is_gone(job).and_then(|gone| Ok(gone && path.try_exists().at(&path)?));
        let removed = match found {
            Ok(false) => continue,
            Ok(true) if repair => files::remove(&path),
            Ok(true) => {
                wrong.push(format!("{}: job {job} is gone; `--repair` removes it", path.display()));
                continue;
            }
            Err(error) => Err(error),
        };
        match removed {
            Ok(()) => eprintln!("repaired: {}: removed, job {job} is gone", path.display()),
            // It keeps none of the others from being looked at.
            Err(error) => wrong.push(format!("{}: {}", path.display(), error.message)),
        }
    }
    Ok(wrong)
}

/// Removes uploads of jobs that have stopped, and of those that are not on the board, once no
/// submission can still be going to use them.
pub fn remove_uploads(board: &Board, now: &Present, tally: &mut Tally) {
    let dir = board.cards.path("files");
    for name in tally.names(&dir) {
        let Some(job) = ids::parse_number(&name) else { continue };
        let path = dir.join(name);
        tally.note(match are_unneeded(board, job, &path, now) {
            Ok(true) => files::remove_tree(&path).map(|()| true),
            other => other,
        });
    }
}

fn are_unneeded(board: &Board, job: u64, uploads: &Path, now: &Present) -> Result<bool> {
    if !files::is_older(uploads, ORPHANED, now)? {
        return Ok(false);
    }
    let path = board.cards.card_path(Column::Done, job);
    if let Some(bytes) = files::read(&path)? {
        let over = |card: Card| card.state == State::Stopped && card.newer.is_none();
        return Ok(Card::parse(&bytes).is_ok_and(over));
    }
    board.is_gone(job)
}
