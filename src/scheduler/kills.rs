//! Kills where no poller is at work: nobody else would tell the processor of this root.

use crate::attempts::proofs::{Proofs, Worth};
use crate::attempts::{self, Said, kills};
use crate::board::addresses;
use crate::board::cards::Cards;
use crate::board::poller_lock;
use crate::board::root::Root;
use crate::board::runs::Runs;
use crate::error::{Error, Result};
use crate::model::card::{Attempt, Card};
use crate::model::node::DriverKind;
use crate::processor;

/// Tells the processor of this root what of a card is to be killed, unless a poller is at work, which
/// does. The wish is on the card already: what fails here is said, and is a poller's to repeat.
/// Returns the card as it is then.
pub fn tell_local(root: &Root, card: Card) -> Card {
    let mut said = Vec::new();
    for attempt in card.with_nodes() {
        match is_here(root, attempt).and_then(|here| match here {
            true => tell(root, &card, attempt),
            false => Ok(Vec::new()),
        }) {
            Ok(reports) => said.extend(reports),
            Err(error) => failed(attempt, &error),
        }
    }
    if said.is_empty() {
        return card;
    }
    let error = attempts::record(root, said).errors.into_iter().next();
    let recorded = error.map_or_else(|| Cards::new(root).find(card.job()), Err);
    recorded.unwrap_or_else(|error| {
        eprintln!("scheduler: {}", error.message);
        card
    })
}

/// Whether the processor of this root has an attempt: by its files, or at the address of its own server. Where
/// its node leads cannot be told of one whose name leads elsewhere by now: that is a poller's to say.
fn is_here(root: &Root, attempt: &Attempt) -> Result<bool> {
    if attempt.driver == DriverKind::Local {
        return Ok(true);
    }
    let Ok(node) = addresses::holder(root, attempt) else { return Ok(false) };
    Ok(node.newer.is_none()
        && addresses::is_this_root(root, &node)?
        && Runs::new(root).is_here(&attempt.nodejob)?)
}

fn tell(root: &Root, card: &Card, attempt: &Attempt) -> Result<Vec<Said>> {
    let wanted = kills::wanted(card, attempt);
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    // Held meanwhile, so that a poller that begins now does not tell it as well.
    let Some(_alone) = poller_lock::try_take(root)? else { return Ok(Vec::new()) };
    let proofs = Proofs::read(root)?;
    let mut said = Vec::new();
    for kill in wanted {
        let told = proofs
            .wish(&attempt.nodejob, card.spec.grace, kill)
            .and_then(|wish| processor::report::kill(root, &wish))
            .and_then(|status| proofs.judge(&attempt.node, false, status));
        match told {
            Ok(Worth::Counts(report)) => said.push(report),
            Ok(_) => {}
            Err(error) => failed(attempt, &error), // and keeps no other
        }
    }
    Ok(said)
}

fn failed(attempt: &Attempt, error: &Error) {
    eprintln!("scheduler: {} is not killed: {}", attempt.nodejob, error.message);
}
