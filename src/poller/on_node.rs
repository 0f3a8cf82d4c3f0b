//! An attempt that a node has, as the engine knows it: what its card says, and what this process has seen
//! and done about it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::attempts::kills::{self, KillOrder};
use crate::model::card::{Attempt, Card, State};
use crate::model::ids::NodejobId;
use crate::model::node::Address;
use crate::model::resources::Resources;
use crate::placement::ends::{Millis, NEVER};

/// A placed attempt that its node would not have, or cannot be sent, while an earlier request to
/// start it may still be under way. Nothing but the node's durable word ends it: that it is there,
/// or that it never will be. Asked for that it may refuse or be unable to give it.
#[derive(Debug, Clone)]
pub struct Unsure {
    /// What the node said first, or why it cannot be sent.
    pub why: String,
    /// How often the node was asked for its word.
    pub asked: u32,
    /// It is not asked again before.
    pub ask_at: Instant,
}

/// An attempt that a node has: a job, or a range of an array's tasks.
#[derive(Debug, Clone)]
pub struct OnNode {
    /// The node's name.
    pub node: String,
    /// The attempt's id there.
    pub id: NodejobId,
    /// The user whose job it is, where that is known.
    pub owner: Option<Arc<str>>,
    /// The partition that it is for, if it is for one.
    pub partition: Option<Arc<str>>,
    /// What it is given.
    pub resources: Resources,
    /// When it will have ended at the latest, in placement's time.
    pub(super) until: Millis,
    /// Until when it is taken to end so soon that its node may be sent another.
    pub(super) leaving: Option<Instant>,
    /// Placed, running or stopping.
    pub state: State,
    /// The length of its card.
    pub length: u64,
    /// Between SIGTERM and SIGKILL, where the job says.
    pub grace: Option<Duration>,
    /// What of it is to be killed: all of it, or tasks of a range, for each who asked.
    pub kills: Vec<KillOrder>,
    /// What its node has been told to kill, by whoever asked, as far as this poller knows.
    pub killed: Option<KillOrder>,
    /// Where its node was when it was placed.
    pub address: Address,
    /// How many requests to start it there this process has made...
    pub sends: u32,
    /// ...and whether there can be no others: this process has placed it. See
    /// [`OnNode::was_sent_once`].
    pub stamped_here: bool,
    /// Its node is to say for good that it has not got it.
    pub unsure: Option<Unsure>,
    /// What its card tells about that.
    pub trouble: Option<String>,
    /// How often in a row a kill was not carried out.
    pub failed_kills: u32,
    /// How often in a row nobody knows whether sending it arrived.
    pub failed_sends: u32,
    /// Not to be sent again before.
    pub send_at: Option<Instant>,
    /// It is being sent, with files, and will be told of by then: meanwhile nobody asks whether it is
    /// there, for the answer could be older than what became of that.
    pub sending_until: Option<Instant>,
}

impl OnNode {
    /// What this card says of an attempt, with what was known of it before.
    pub(super) fn of(
        card: &Card,
        attempt: &Attempt,
        before: Option<&OnNode>,
        leaving: Option<Instant>,
    ) -> OnNode {
        let state = match card.state {
            State::Running if attempt.started_at.is_none() => State::Placed,
            state => state,
        };
        OnNode {
            node: attempt.node.clone(),
            id: attempt.nodejob.clone(),
            owner: None,
            partition: None,
            resources: card.spec.resources.clone(),
            until: NEVER,
            leaving,
            state,
            length: card.length,
            grace: card.spec.grace,
            kills: kills::wanted(card, attempt),
            killed: before.and_then(|known| known.killed.clone()),
            address: attempt.address(),
            sends: before.map_or(0, |known| known.sends),
            stamped_here: before.is_some_and(|known| known.stamped_here),
            unsure: before.filter(|_| state != State::Running).and_then(|b| b.unsure.clone()),
            failed_kills: before.map_or(0, |known| known.failed_kills),
            trouble: attempt.trouble.clone(),
            failed_sends: before.map_or(0, |known| known.failed_sends),
            send_at: before.and_then(|known| known.send_at),
            sending_until: before.and_then(|known| known.sending_until),
        }
    }

    /// What its node is to be told to kill and has not been told, as far as this poller knows.
    pub fn to_kill(&self) -> Option<&KillOrder> {
        let told = |kill: &&KillOrder| match (&self.killed, &kill.tasks) {
            (None, _) => false,
            (Some(KillOrder { tasks: None, .. }), _) => true,
            (Some(_), None) => false,
            (Some(KillOrder { tasks: Some(killed), .. }), Some(tasks)) => {
                killed.contains_all(tasks)
            }
        };
        self.kills.iter().find(|kill| !told(kill))
    }

    /// Whether there was but one request to start it, at most: once that is answered, nothing can
    /// arrive any more.
    pub fn was_sent_once(&self) -> bool {
        self.stamped_here && self.sends <= 1
    }

    /// Notes that its node is being told.
    pub fn note_killed(&mut self, kill: &KillOrder) {
        match (&mut self.killed, &kill.tasks) {
            (Some(KillOrder { tasks: Some(killed), .. }), Some(tasks)) => killed.add(tasks),
            _ => self.killed = Some(kill.clone()),
        }
    }
}
