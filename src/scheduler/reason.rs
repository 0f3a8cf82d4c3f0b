//! Why a job is where it is: every job that waits has a reason, worked out when somebody asks, so
//! that a hundred thousand waiting cards cost nothing to keep up to date.

use std::cell::OnceCell;
use std::sync::Arc;

use crate::attempts::allocated::{self, Allocated};
use crate::attempts::waits::{self, Nodes};
use crate::board::addresses;
use crate::board::cards::Cards;
use crate::board::nodes::{self, Registered};
use crate::board::owners;
use crate::board::partitions::{Partitions, Recorded};
use crate::board::pause;
use crate::board::poller_lock;
use crate::board::reservations::{self, Reservation};
use crate::board::root::Root;
use crate::board::runs::Runs;
use crate::board::steps;
use crate::clock::Present;
use crate::error::{Error, Result};
use crate::model::attempt::not_started;
use crate::model::card::{Attempt, Card, State};
use crate::model::node::Node;
use crate::model::partition::Partition;
use crate::model::request::Spec;
use crate::model::waits::Waits;
use crate::placement::Rooms;
use crate::placement::why::Seen;

/// So many running cards are read to tell whether a node is idle, and no more but for a job that has a cap: 20 µs each.
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
    partitions: Partitions<'r>,
    few: OnceCell<Option<Allocated>>,
    most: OnceCell<Option<Allocated>>,
    rooms: OnceCell<Rooms>,
    poller: OnceCell<Result<bool>>,
    reserved: OnceCell<Vec<Reservation>>,
    present: OnceCell<Result<Present>>,
}

impl<'r> Reasons<'r> {
    /// Nothing is read yet.
    pub fn new(root: &'r Root) -> Reasons<'r> {
        let registered = Registered::new(root);
        Reasons {
            root,
            registered,
            nodes: OnceCell::new(),
            partitions: Partitions::new(root),
            few: OnceCell::new(),
            most: OnceCell::new(),
            rooms: OnceCell::new(),
            poller: OnceCell::new(),
            reserved: OnceCell::new(),
            present: OnceCell::new(),
        }
    }

    /// With what is known to be allocated.
    pub fn with(root: &'r Root, allocated: Option<Allocated>) -> Reasons<'r> {
        Reasons { most: allocated.into(), ..Reasons::new(root) }
    }

    /// What is allocated, where that was told, is known, or can be found out at little cost.
    pub fn allocated(&self) -> Option<&Allocated> {
        let known = self.most.get();
        known.unwrap_or_else(|| self.few.get_or_init(|| self.read(FEW))).as_ref()
    }

    /// The same at some cost: for a job that has a cap.
    fn counted(&self) -> Option<&Allocated> {
        let known = self.few.get().and_then(Option::as_ref);
        known.or_else(|| self.most.get_or_init(|| self.read(allocated::MOST)).as_ref())
    }

    fn read(&self, most: usize) -> Option<Allocated> {
        Allocated::read(self.root, most).ok().flatten()
    }

    /// The partition that a job is for; or why nothing of that is placed, where nobody can go by its record.
    pub fn partition_of(&self, card: &Card) -> (Option<Arc<Partition>>, Option<String>) {
        let Some(name) = &card.spec.partition else { return (None, None) };
        match self.partitions.look(name) {
            Ok(Recorded::Known(partition)) => (Some(partition), None),
            Ok(other) => (None, other.objection(name)),
            Err(error) => (None, Some(error.message)),
        }
    }

    fn rooms(&self) -> Result<Option<&Rooms>> {
        if let Some(known) = self.rooms.get() {
            return Ok(Some(known));
        }
        let nodes = self.all()?;
        let found = self.allocated().and_then(|known| known.rooms(self.root, nodes).ok());
        Ok(found.map(|rooms| self.rooms.get_or_init(|| rooms)))
    }

    /// What nodes have room for, as a job of this partition would look at it that asks for this.
    pub fn seen_by_new(
        &self,
        spec: &Spec,
        partition: Option<&Partition>,
    ) -> Result<Option<Seen<'_>>> {
        let rooms = self.rooms()?;
        Ok(rooms.map(|rooms| allocated::seen_by_new(self.root, rooms, spec, partition)))
    }

    /// What a job, some of which waits, waits for whatever nodes have room for.
    pub fn beside_nodes(&self, card: &Card) -> Result<Option<String>> {
        let now = self.present()?;
        Ok(match card.waits(now) {
            Waits::ForNode(_) | Waits::Not => None,
            Waits::Held => waits::held(card, now),
            Waits::Untouchable => card.newer_reason(),
            Waits::Over => Some("it is about to be ended: its time is over".into()),
            Waits::Until(_) | Waits::Crowded(_) => Some(waits::waits(card, self, now)?),
        })
    }

    /// See [`reason`].
    pub fn of(&self, card: &Card) -> Result<Option<String>> {
        if let Some(why) = card.newer_reason() {
            return Ok(Some(why));
        }
        match card.state {
            State::Stopped => Ok(card.outcome.as_ref().and_then(|o| o.reason.clone())),
            State::Held | State::Queued => waiting(self, card).map(Some),
            State::Placed | State::Running | State::Stopping => with_node(self, card),
        }
    }

    fn present(&self) -> Result<&Present> {
        self.present.get_or_init(|| steps::seen(self.root)).as_ref().map_err(Clone::clone)
    }

    /// When a job that waits, and that a node is kept for, will begin, if all that is there lasts as long as it may.
    /// Not told of others, nor where it cannot be found out.
    pub fn expected_start(&self, card: &Card) -> Option<String> {
        if card.state != State::Queued || !self.has_poller().unwrap_or(false) {
            return None;
        }
        let all = self.reserved.get_or_init(|| reservations::read(self.root).unwrap_or_default());
        all.iter().find(|kept| kept.job == card.job())?.until.clone()
    }

    fn has_poller(&self) -> Result<bool> {
        self.poller.get_or_init(|| poller_lock::is_held(self.root)).clone()
    }
}

impl Nodes for Reasons<'_> {
    type Error = Error;

    fn all(&self) -> Result<&[Node]> {
        let read = self.nodes.get_or_init(|| nodes::list(self.root));
        read.as_deref().map_err(Clone::clone)
    }

    fn owner(&self, card: &Card) -> Result<Option<String>> {
        owners::of(&Cards::new(self.root), card)
    }

    fn barred(&self, card: &Card) -> Result<Option<String>> {
        if let Some(pause) = pause::read(self.root)? {
            return Ok(Some(pause.human()));
        }
        let (partition, closed) = self.partition_of(card);
        if closed.is_some() {
            return Ok(closed);
        }
        if !allocated::is_capped(self.root, partition.as_deref()) {
            return Ok(None);
        }
        let Some(allocated) = self.counted() else { return Ok(None) };
        let owner = self.owner(card)?;
        let asked = card.spec.asked(owner.as_deref(), partition.as_deref());
        Ok(allocated.objection(self.root, &asked))
    }

    fn partition(&self, card: &Card) -> Result<Option<Arc<Partition>>> {
        Ok(self.partition_of(card).0)
    }

    /// Where that can be told at little cost.
    fn seen(&self, card: &Card) -> Result<Option<Seen<'_>>> {
        let rooms = self.rooms()?;
        let partition = self.partition(card)?;
        let seen = |rooms| allocated::seen_by(self.root, rooms, card, partition.as_deref());
        Ok(rooms.map(seen))
    }
}

fn waiting(by: &Reasons, card: &Card) -> Result<String> {
    let now = by.present()?;
    if let Some(held) = waits::held(card, now) {
        return Ok(held);
    }
    if by.has_poller()? { waits::waits(card, by, now) } else { Ok(NO_POLLER.into()) }
}

/// The same of one task of an array that waits.
pub fn of_waiting_task(root: &Root, card: &Card, task: u32) -> Result<String> {
    let by = &Reasons::new(root);
    let now = by.present()?;
    if let Some(held) = waits::held(card, now) {
        return Ok(held);
    }
    if by.has_poller()? { waits::task_waits(card, task, by, now) } else { Ok(NO_POLLER.into()) }
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
