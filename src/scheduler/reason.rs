//! Why a job is where it is: every job that waits has a reason, worked out when somebody asks, so
//! that a hundred thousand waiting cards cost nothing to keep up to date.

use std::cell::OnceCell;
use std::time::SystemTime;

use crate::attempts::rooms;
use crate::board::addresses;
use crate::board::nodes::{self, Registered};
use crate::board::poller_lock;
use crate::board::root::Root;
use crate::board::runs::Runs;
use crate::clock;
use crate::error::Result;
use crate::model::array::Array;
use crate::model::attempt::not_started;
use crate::model::card::{Attempt, Card, State, What};
use crate::model::node::Node;
use crate::placement::{self, Rooms};

/// So many running cards are read to tell whether a node is idle, and no more: 20 µs each.
const FEW: usize = 64;

const NO_POLLER: &str = "no poller is running";

/// The reason, for a person; `None` for a job that simply runs or ended well.
pub fn reason(root: &Root, card: &Card) -> Result<Option<String>> {
    Reasons::new(root).of(card)
}

/// What reasons are worked out from, read once however many jobs are listed: there may be a thousand
/// nodes, too.
pub struct Reasons<'r> {
    root: &'r Root,
    registered: Registered<'r>,
    nodes: OnceCell<Result<Vec<Node>>>,
    rooms: OnceCell<Option<Rooms>>,
    poller: OnceCell<Result<bool>>,
}

impl<'r> Reasons<'r> {
    /// Nothing is read yet.
    pub fn new(root: &'r Root) -> Reasons<'r> {
        let registered = Registered::new(root);
        let (nodes, rooms, poller) = (OnceCell::new(), OnceCell::new(), OnceCell::new());
        Reasons { root, registered, nodes, rooms, poller }
    }

    /// See [`reason`].
    pub fn of(&self, card: &Card) -> Result<Option<String>> {
        if let Some(why) = card.newer_reason() {
            return Ok(Some(why));
        }
        match card.state {
            State::Stopped => Ok(card.outcome.as_ref().and_then(|o| o.reason.clone())),
            State::Held => Ok(Some(held(card))),
            State::Queued => queued(self, card).map(Some),
            State::Placed | State::Running | State::Stopping => with_node(self, card),
        }
    }

    /// All nodes whose records can be read.
    fn nodes(&self) -> Result<&[Node]> {
        let read = self.nodes.get_or_init(|| nodes::list(self.root));
        read.as_deref().map_err(Clone::clone)
    }

    /// What they have room for, where that can be told at little cost.
    fn rooms(&self) -> Result<Option<&Rooms>> {
        let nodes = self.nodes()?;
        let read = || rooms::of_cards(self.root, nodes, FEW).ok().flatten();
        Ok(self.rooms.get_or_init(read).as_ref())
    }

    fn has_poller(&self) -> Result<bool> {
        self.poller.get_or_init(|| poller_lock::is_held(self.root)).clone()
    }
}

fn held(card: &Card) -> String {
    let by = card.events.iter().rev().find_map(|event| match &event.what {
        What::Held { by } => Some(by.as_str()),
        _ => None,
    });
    format!("held by {} until released", by.unwrap_or(&card.accepted.by))
}

fn queued(by: &Reasons, card: &Card) -> Result<String> {
    if !by.has_poller()? {
        return Ok(NO_POLLER.into());
    }
    let now = SystemTime::now();
    if let Some(array) = &card.array {
        return match array.next_time(now).filter(|_| array.ready(now).is_empty()) {
            Some(time) => Ok(until(time, "what failed is tried again then")),
            None => no_room_for(by, card, array, now),
        };
    }
    let why = match card.not_before.and_then(|wait| wait.goes_on(now)) {
        Some(time) => format!("waiting until {}", clock::rfc3339(time)),
        None => placement::why_waiting(&card.spec.resources, by.nodes()?, by.rooms()?),
    };
    Ok(match &card.requeue_reason {
        Some(before) => format!("{why} ({before})"),
        None => why,
    })
}

fn until(time: SystemTime, why: &str) -> String {
    format!("waiting until {} ({why})", clock::rfc3339(time))
}

/// Why no node has tasks of an array that may be placed: those that refused it are left out for a
/// while, and are the reason if no other takes any.
fn no_room_for(by: &Reasons, card: &Card, array: &Array, now: SystemTime) -> Result<String> {
    let needed = &card.spec.resources;
    let takes =
        |node: &&Node| node.takes_jobs() && node.resources.is_some_and(|total| needed.fits(&total));
    let all = by.nodes()?;
    let refused = |node: &Node| array.refused_until(&node.name, now);
    let (refusing, others): (Vec<Node>, Vec<Node>) =
        all.iter().cloned().partition(|node| refused(node).is_some());
    if others.iter().any(|node| takes(&node)) {
        return Ok(placement::why_waiting(needed, &others, None));
    }
    let open = refusing.iter().filter(takes);
    let first = open.filter_map(|node| Some((refused(node)?, &node.name))).min();
    let Some((time, node)) = first else { return Ok(placement::why_waiting(needed, all, None)) };
    let of_node = |attempt: &&Attempt| attempt.node == *node && attempt.refused.is_some();
    let said = card.attempts.iter().rfind(of_node).and_then(|attempt| attempt.refused.as_deref());
    Ok(until(time, &format!("node {node} refused it: {}", said.unwrap_or("no reason given"))))
}

/// The same of one task of an array that waits.
pub fn of_waiting_task(root: &Root, card: &Card, array: &Array, task: u32) -> Result<String> {
    let (now, by) = (SystemTime::now(), &Reasons::new(root));
    if array.held {
        return Ok(held(card));
    }
    if !by.has_poller()? {
        return Ok(NO_POLLER.into());
    }
    if let Some(time) = array.not_before(task, now) {
        return Ok(until(time, "it failed and is tried again then"));
    }
    match array.spec.at_once {
        Some(most) if card.with_nodes().count() as u64 >= most => {
            Ok(format!("at most {most} of its tasks may run at a time"))
        }
        _ => no_room_for(by, card, array, now),
    }
}

/// The same of one that a node has, in this state; `None` if it simply runs.
pub fn of_task_on_node(root: &Root, range: &Attempt, state: State) -> Result<Option<String>> {
    if let Some(trouble) = trouble_of(&Reasons::new(root), range)? {
        return Ok(Some(trouble));
    }
    Ok(match state {
        State::Running => None,
        State::Stopping => Some(format!("waiting for {} to report the end", range.node)),
        _ if range.started_at.is_none() => Some(not_started(&range.node)),
        _ => {
            let first = range.left.first();
            let before = first.map_or(String::new(), |first| format!(" behind task {first}"));
            Some(format!("waiting for its turn on {}{before}", range.node))
        }
    })
}

/// What is wrong with the node of an attempt.
fn trouble_of(by: &Reasons, attempt: &Attempt) -> Result<Option<String>> {
    let root = by.root;
    let node = match by.registered.find(&attempt.node) {
        Ok(node) => node,
        Err(error) => return Ok(Some(error.message)),
    };
    Ok(match node {
        Some(node) if node.newer.is_none() && node.address() != attempt.address() => {
            let moved = !(addresses::is_this_root(root, &node)?
                && Runs::new(root).is_here(&attempt.nodejob)?);
            moved.then(|| format!("node {} is registered at another address now", node.name))
        }
        Some(node) => node.trouble(),
        None => Some(format!("node {} is not registered any more", attempt.node)),
    })
}

fn with_node(by: &Reasons, card: &Card) -> Result<Option<String>> {
    let mut first = None;
    for attempt in card.with_nodes() {
        let trouble = trouble_of(by, attempt)?;
        if trouble.is_some() {
            return Ok(trouble);
        }
        first.get_or_insert(attempt);
    }
    let Some(attempt) = first else { return Ok(None) };
    let untold = |a: &&Attempt| a.started_at.is_none() || card.state == State::Stopping;
    let trouble = card.with_nodes().filter(untold).find_map(|attempt| attempt.trouble.clone());
    let poller = by.has_poller()?;
    Ok(match card.state {
        _ if !poller => Some(NO_POLLER.into()),
        _ if trouble.is_some() => trouble,
        State::Placed => Some(not_started(&attempt.node)),
        State::Stopping => Some(format!("waiting for {} to report the end", attempt.node)),
        _ => None,
    })
}

/// The reason, or why it cannot be told: that says nothing against what else is known.
pub fn told_reason(reason: Result<Option<String>>) -> Option<String> {
    reason.unwrap_or_else(|error| Some(error.message))
}
