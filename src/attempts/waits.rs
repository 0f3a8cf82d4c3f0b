//! Why a job, or a task, is with no node yet, for a person: what its card says ([`crate::model::waits`]),
//! and else what the nodes do. Pure.

use std::sync::Arc;
use std::time::SystemTime;

use crate::clock::{self, Present};
use crate::model::attempt::Attempt;
use crate::model::card::{Card, What};
use crate::model::node::Node;
use crate::model::partition::Partition;
use crate::model::waits::Waits;
use crate::placement::why::{Seen, why_waiting};

/// What is known of the nodes: their records, and what they have room for where that is known. Asked
/// for only where the answer hangs on it.
pub trait Nodes {
    /// What went wrong where that could not be found out.
    type Error;

    /// All whose records can be read.
    fn all(&self) -> Result<&[Node], Self::Error>;

    /// The user whose job this is, where that is known.
    fn owner(&self, card: &Card) -> Result<Option<String>, Self::Error>;

    /// The partition that it is for, if it is for one by whose record one can go.
    fn partition(&self, card: &Card) -> Result<Option<Arc<Partition>>, Self::Error>;

    /// Why this job has to wait whatever room there is: nothing is placed, nobody can go by the record of its
    /// partition, or that or its user is at a cap.
    fn barred(&self, card: &Card) -> Result<Option<String>, Self::Error>;

    /// What they have room for, as this job looks at it.
    fn seen(&self, card: &Card) -> Result<Option<Seen<'_>>, Self::Error>;
}

/// Whether somebody holds what waits of this job: then no node has to do with it, and no poller.
pub fn held(card: &Card, now: &Present) -> Option<String> {
    (card.waits(now) == Waits::Held).then(|| {
        let by = card.events.iter().rev().find_map(|event| match &event.what {
            What::Held { by } => Some(by.as_str()),
            _ => None,
        });
        format!("held by {} until released", by.unwrap_or(&card.accepted.by))
    })
}

/// Why a job waits that nobody holds.
pub fn waits<N: Nodes>(card: &Card, nodes: &N, now: &Present) -> Result<String, N::Error> {
    let array = card.is_array();
    let why = match card.waits(now) {
        Waits::Until(time) if array => until(time, "what failed is tried again then"),
        Waits::Until(time) => format!("waiting until {}", clock::rfc3339(time)),
        Waits::Crowded(most) => crowded(most),
        // What it waits for besides nodes is said elsewhere, or about to be over.
        Waits::ForNode(_) | Waits::Held | Waits::Over | Waits::Not | Waits::Untouchable => {
            let barred = nodes.barred(card)?;
            match array {
                _ if barred.is_some() => barred.unwrap_or_default(),
                true => no_room_for(card, nodes, now)?,
                false => {
                    let (all, user) = (nodes.all()?, user(card, nodes)?);
                    let partition = nodes.partition(card)?;
                    let asked = card.spec.asked(user.as_deref(), partition.as_deref());
                    why_waiting(&asked, all, nodes.seen(card)?)
                }
            }
        }
    };
    Ok(match &card.requeue_reason {
        Some(before) => format!("{why} ({before})"),
        None => why,
    })
}

/// The same of one task of an array.
pub fn task_waits<N: Nodes>(
    card: &Card,
    task: u32,
    nodes: &N,
    now: &Present,
) -> Result<String, N::Error> {
    match card.task_waits(task, now) {
        Waits::Until(time) => Ok(until(time, "it failed and is tried again then")),
        Waits::Crowded(most) => Ok(crowded(most)),
        Waits::ForNode(_) | Waits::Held | Waits::Over | Waits::Not | Waits::Untouchable => {
            match nodes.barred(card)? {
                Some(why) => Ok(why),
                None => no_room_for(card, nodes, now),
            }
        }
    }
}

/// The user whose job this is, where that makes a difference.
fn user<N: Nodes>(card: &Card, nodes: &N) -> Result<Option<String>, N::Error> {
    match nodes.all()?.iter().any(|node| node.owner.is_some()) {
        true => nodes.owner(card),
        false => Ok(None),
    }
}

fn crowded(most: u64) -> String {
    format!("at most {most} of its tasks may run at a time")
}

fn until(time: SystemTime, why: &str) -> String {
    format!("waiting until {} ({why})", clock::rfc3339(time))
}

/// Why no node has tasks of an array that may be placed: those that refused it are left out for a
/// while, and are the reason if no other takes any.
fn no_room_for<N: Nodes>(card: &Card, nodes: &N, now: &Present) -> Result<String, N::Error> {
    let (all, user) = (nodes.all()?, user(card, nodes)?);
    let partition = nodes.partition(card)?;
    let asked = card.spec.asked(user.as_deref(), partition.as_deref());
    let takes = |node: &&Node| node.takes_jobs() && asked.may_go_to(node);
    let refused = |node: &Node| card.tasks.refused_until(&node.name, now.time());
    let (refusing, others): (Vec<Node>, Vec<Node>) =
        all.iter().cloned().partition(|node| refused(node).is_some());
    if others.iter().any(|node| takes(&node)) {
        return Ok(why_waiting(&asked, &others, None));
    }
    let open = refusing.iter().filter(takes);
    let first = open.filter_map(|node| Some((refused(node)?, &node.name))).min();
    let Some((time, node)) = first else { return Ok(why_waiting(&asked, all, None)) };
    let of_node = |attempt: &&Attempt| attempt.node == *node && attempt.refused.is_some();
    let said = card.attempts.iter().rfind(of_node).and_then(|attempt| attempt.refused.as_deref());
    Ok(until(time, &format!("node {node} refused it: {}", said.unwrap_or("no reason given"))))
}
