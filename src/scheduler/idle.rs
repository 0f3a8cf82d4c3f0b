//! Whether a node has jobs, or may have: then it stays where it is.

use crate::board::addresses;
use crate::board::cards::Cards;
use crate::board::nodes::Damaged;
use crate::board::root::Root;
use crate::board::runs::Runs;
use crate::error::{Error, Result};
use crate::model::card::{Attempt, Column};
use crate::model::ids::NodejobId;
use crate::model::node::{Address, Node};

/// Refuses with 409 to take a node from its address, to another or to none, while it has jobs, or
/// attempts that were given up: they are where their cards say, and nobody else may be asked about
/// them. What this very root has can be asked about wherever its server listens. Of a card that cannot
/// be read, or is a newer program's, nobody knows where it is: it may be there. `from` is `None` where
/// it is not known what the address was.
///
/// Reads every running card, 20 µs or so each, under the board's lock, under which jobs are placed,
/// too: none can come to it in between, and an address is changed seldom.
pub fn check_idle(
    root: &Root,
    name: &str,
    from: Option<&Address>,
    given_up: &[NodejobId],
    new: Option<&Node>,
) -> Result<()> {
    let to = new.map(Node::address);
    if to.is_some() && to.as_ref() == from {
        return Ok(());
    }
    let stays_here = new.map_or(Ok(false), |new| addresses::is_this_root(root, new))?;
    let runs = Runs::new(root);
    let hinders = |id: &NodejobId| !(stays_here && runs.is_here(id).is_ok_and(|here| here));
    let is_left = |address: Address| {
        from.is_none_or(|from| address == *from) && to.as_ref() != Some(&address)
    };
    let cards = Cards::new(root);
    let mut jobs = Vec::new();
    let mut unknown = Vec::new();
    for job in cards.numbers(Column::Running)? {
        let is_there = |a: &Attempt| a.node == *name && is_left(a.address()) && hinders(&a.nodejob);
        match cards.whole_in(Column::Running, job) {
            Ok(Some(card)) if card.with_nodes().any(is_there) => jobs.push(job),
            Ok(card) => unknown.extend(card.and_then(|c| Some((job, c.newer_reason()?)))),
            Err(error) => unknown.push((job, error.message)),
        }
    }
    let refuse = |what: String| Err(Error::conflict(format!("node {name} {what}")));
    if let Some(first) = jobs.iter().min() {
        let count = match jobs.len() {
            1 => format!("job {first}"),
            more => format!("{more} jobs, the first is job {first}"),
        };
        return refuse(format!(
            "has {count}: drain it with nodes/{name}/update and {{\"drain\": true}}, and wait until they have ended; or register the other address under another name"
        ));
    }
    if let Some((job, why)) = unknown.first() {
        return refuse(format!(
            "may have job {job}, of which nobody can tell where it is: {why}; see `scheduler check`"
        ));
    }
    let mut count = 0;
    for id in given_up.iter().filter(|id| hinders(id)) {
        // Where the address was is known, or the attempt's card says it.
        let left = from.is_some() || attempt_of(root, id)?.is_some_and(|a| is_left(a.address()));
        count += usize::from(left);
    }
    match count {
        0 => Ok(()),
        count => refuse(format!(
            "may still run {count} attempts that were given up, and is told to kill them when it answers; if that machine is gone for good: nodes/{name}/update with {{\"given_up\": null}}"
        )),
    }
}

/// What a damaged record still names of attempts that this node was given.
pub fn given_up_in(root: &Root, name: &str, damaged: &Damaged) -> Result<Vec<NodejobId>> {
    let mut found = Vec::new();
    for id in damaged.attempts() {
        if attempt_of(root, &id)?.is_some_and(|attempt| attempt.node == name) {
            found.push(id);
        }
    }
    Ok(found)
}

/// The attempt of this id, if its job's card is on the board. For who holds the board's lock.
fn attempt_of(root: &Root, id: &NodejobId) -> Result<Option<Attempt>> {
    for column in [Column::Done, Column::Running, Column::Queue] {
        if let Some(card) = Cards::new(root).read_in(column, id.job)? {
            return Ok(card.attempts.into_iter().find(|attempt| attempt.nodejob == *id));
        }
    }
    Ok(None)
}
