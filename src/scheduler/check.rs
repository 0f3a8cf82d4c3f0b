//! `scheduler check`: every invariant of the head's board, one line for each violation; `--repair`
//! mends what has one right answer.

use std::collections::HashMap;
use std::path::Path;

use crate::board::audit::{self, Entry};
use crate::board::cards::Cards;
use crate::board::root::Root;
use crate::board::{nodes, numbers};
use crate::error::Result;
use crate::model::card::{Card, Column};

/// Checks the board, and repairs it if asked to. Returns what is wrong (and was not repaired).
pub fn check(root: &Root, repair: bool) -> Result<Vec<String>> {
    let mut wrong = audit::tree(root)?;
    let cards = Cards::new(root);
    let limit = numbers::limit(root)?;
    let mut places: HashMap<u64, Column> = HashMap::new();
    for entry in audit::cards(root)? {
        match entry {
            Entry::Card { column, job, path } => {
                if let Some(other) = places.insert(job, column) {
                    wrong.push(format!("job {job} lies in two columns: {column:?} and {other:?}"));
                }
                if limit.is_none_or(|next| job >= next) {
                    wrong.push(format!("job {job}: its number was never given out (seq)"));
                }
                wrong.extend(check_card(&cards, column, job, &path, repair)?);
            }
            Entry::Stray { path, why } => wrong.push(format!("{}: {why}", path.display())),
        }
    }
    for (parent, child) in audit::parents(root, places.keys().copied())? {
        if !cards.children(parent)?.contains(&child) {
            if repair {
                audit::mend_child(root, parent, child)?;
            } else {
                wrong.push(format!(
                    "job {child}: its parent {parent} does not list it (children/{parent})"
                ));
            }
        }
    }
    wrong.extend(audit::records(root)?);
    wrong.extend(audit::claims(root, &places)?);
    for node in nodes::list(root)? {
        if node.name != nodes::LOCALHOST
            && node.uri.is_none()
            && node.driver == crate::model::node::DriverKind::Http
        {
            wrong.push(format!("node {}: has no uri", node.name));
        }
    }
    if let Err(e) = numbers::known_cluster(root) {
        wrong.push(e.message);
    }
    Ok(wrong)
}

fn check_card(
    cards: &Cards,
    column: Column,
    job: u64,
    path: &Path,
    repair: bool,
) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let Some(bytes) = crate::board::files::read(path)? else { return Ok(wrong) };
    let belongs = match Card::parse(&bytes) {
        Ok(card) if card.job() != job => {
            wrong.push(format!("{}: is the card of job {}", path.display(), card.job()));
            return Ok(wrong);
        }
        Ok(card) => {
            wrong.extend(story(&card));
            card.column()
        }
        Err(why) if repair => {
            let lock = cards.lock()?;
            if let Err(e) = cards.change(&lock, job, |_| Ok(Vec::new())) {
                eprintln!("repaired: {}: {why}; {}", path.display(), e.message);
            }
            return Ok(wrong);
        }
        Err(why) => {
            wrong.push(format!("{}: {why}", path.display()));
            return Ok(wrong);
        }
    };
    if belongs != column && repair {
        let lock = cards.lock()?;
        cards.change(&lock, job, |_| Ok(Vec::new()))?.sync.commit()?;
        eprintln!("repaired: job {job} moved to where its story says");
    } else if belongs != column {
        // Between stamp and move this is a matter of microseconds: look again under the lock.
        let _lock = cards.lock()?;
        let again = cards.read_in(column, job)?;
        if again.is_some_and(|card| card.column() != column) {
            wrong.push(format!("{}: belongs in {belongs:?}", path.display()));
        }
    }
    Ok(wrong)
}

/// What must hold within a story.
fn story(card: &Card) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut expected = 1;
    for attempt in &card.attempts {
        if attempt.attempt != expected {
            wrong.push(format!(
                "job {}: attempt {} where {expected} was due",
                card.job(),
                attempt.attempt
            ));
        }
        expected = attempt.attempt + 1;
    }
    if card.retries > card.spec.max_retry_count {
        wrong.push(format!(
            "job {}: {} retries where {} are allowed",
            card.job(),
            card.retries,
            card.spec.max_retry_count
        ));
    }
    wrong
}
