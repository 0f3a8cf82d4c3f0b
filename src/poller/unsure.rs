//! Attempts that a node would not have, or cannot be sent, while an earlier request to start them
//! may still be under way: the first one was not answered, or an earlier poller may have made it. A
//! refusal of a later one proves nothing then. The node is asked for its durable word: that it has
//! the attempt, or that it never will start it, however late a request for it may come. Until that
//! is there the attempt stays where it is, and after `lost_after` it is given up as one of a node
//! that cannot be reached.

use std::time::{Duration, Instant};

use super::desk::Order;
use super::engine::Engine;
use super::on_node::Unsure;
use super::silence::Silences;
use super::transitions::Plan;
use crate::board::unheard::{self, Unheard};
use crate::driver::Answer;
use crate::error::{Error, Kind, Result};
use crate::model::attempt::not_started;
use crate::model::card::{Card, State, What};
use crate::model::ids::NodejobId;
use crate::model::node::NodeState;
use crate::model::run_status::{RunState, RunStatus};

/// Before a node is asked again for a word that it did not give; each pause is twice as long as
/// the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The longest of them.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

impl Engine<'_> {
    /// The node is to say for good that it has not got this attempt.
    pub(super) fn ask_for_good(&mut self, node: &str, id: NodejobId, why: &str) {
        let now = Instant::now();
        // The answer moves it; this only keeps a second question from being asked meanwhile.
        let patience = self.patience();
        let Some(known) = self.known_mut(&id) else { return };
        let fresh = || Unsure { why: why.to_string(), asked: 0, ask_at: now };
        let unsure = known.unsure.get_or_insert_with(fresh);
        if unsure.ask_at > now {
            return;
        }
        unsure.ask_at = now + patience;
        if !self.order(node, Order::Forbid(id.clone()))
            && let Some(unsure) = self.known_mut(&id).and_then(|known| known.unsure.as_mut())
        {
            unsure.ask_at = now;
        }
    }

    /// How long a node has for an answer.
    pub(super) fn patience(&self) -> Duration {
        self.root.settings.connect_timeout + self.root.settings.request_timeout
    }

    /// A round from cron goes on where those before it have ended. Any other poller begins anew, and
    /// so does whatever comes after it.
    pub(super) fn take_up_unheard(&mut self) -> Result<()> {
        if !self.once {
            return unheard::write(self.root, &Unheard::new());
        }
        self.unheard = Silences::recorded(unheard::read(self.root)?)?;
        Ok(())
    }

    /// Records for the next round from cron of which attempts nobody gives word.
    pub(super) fn record_unheard(&mut self) -> Result<()> {
        self.forget_heard();
        let unheard = self.unheard.to_record();
        unheard.map_or(Ok(()), |unheard| unheard::write(self.root, unheard))
    }

    /// Forgets attempts that no node has any more. What could not be looked at may be there.
    fn forget_heard(&mut self) {
        if self.once && self.voice.is_troubled() {
            return;
        }
        let index = &self.index;
        self.unheard
            .retain(|id| NodejobId::parse(id).is_some_and(|id| index.on_node(&id).is_some()));
    }

    /// Whether its node has not known an attempt for so long that it never will; asked at each answer
    /// of that kind.
    pub(super) fn is_unknown_for_long(&mut self, id: &NodejobId) -> bool {
        self.unheard.lasts(id, self.root.settings.unknown_after)
    }

    /// Asks again for what nodes have not said.
    pub(super) fn ask_unsure(&mut self) {
        self.forget_heard();
        let connected = |node: &str| {
            self.nodes.get(node).is_some_and(|record| record.state == NodeState::Connected)
        };
        let placed = self.index.on_nodes().filter(|(_, known)| known.state == State::Placed);
        let ask: Vec<(String, NodejobId, String)> = placed
            .filter(|(_, known)| connected(&known.node))
            .filter_map(|(_, known)| {
                let unsure = known.unsure.as_ref()?;
                Some((known.node.clone(), known.id.clone(), unsure.why.clone()))
            })
            .collect();
        for (node, id, why) in ask {
            self.ask_for_good(&node, id, &why);
        }
    }

    /// Gives up attempts of a node that answers.
    pub(super) fn abandon(&mut self, node: &str, ids: Vec<NodejobId>, why: &str) {
        let given_up = self.lose(node, ids.clone(), why);
        if self.told(given_up).is_some() {
            ids.into_iter().for_each(|id| self.fence(node, id));
        }
    }

    /// A node's durable word, or what it said instead.
    pub(super) fn forbidden(&mut self, node: &str, id: &NodejobId, answer: Result<Answer>) {
        self.answered(node, 1);
        let Some(known) = self.known_mut(id) else { return };
        match answer {
            Ok(Answer::Cancelled(said)) => {
                let why = known.unsure.as_ref().map_or(said, |unsure| unsure.why.clone());
                let refused = self.refuse(vec![(id.clone(), why)]);
                self.told(refused);
            }
            // It has something under that id: what that is worth is judged where it is asked about.
            Ok(_) => {
                self.order(node, Order::Status(vec![id.clone()]));
            }
            Err(error) => self.did_not_say(node, id, &error),
        }
    }

    /// The node has this attempt. Whether there is something to report.
    pub(super) fn is_there(&mut self, node: &str, id: &NodejobId, status: &RunStatus) -> bool {
        self.unheard.end(id);
        let waits = status.state == RunState::Queued;
        if let Some(known) = self.known_mut(id) {
            known.unsure = None;
            (known.failed_sends, known.send_at) = (0, None);
            if waits && known.state == State::Placed && known.trouble.is_some() {
                self.tell_trouble(id, &not_started(node));
            }
        }
        // Of a range that waits, tasks may have been killed.
        !waits || status.tasks.is_some()
    }

    /// The node was asked for its word, or to kill what may be there, and did not do it.
    pub(super) fn did_not_say(&mut self, node: &str, id: &NodejobId, error: &Error) {
        let now = Instant::now();
        let Some(known) = self.known_mut(id) else { return };
        let killing = known.state == State::Stopping;
        let fresh = || {
            let why = format!("node {node} would not end it ({})", error.message);
            Unsure { why, asked: 0, ask_at: now }
        };
        let unsure = known.unsure.get_or_insert_with(fresh);
        unsure.ask_at = now + LONGEST_PAUSE.min(FIRST_PAUSE * (1 << unsure.asked.min(7)));
        unsure.asked += 1;
        let why = if killing { unsure.why.clone() } else { unknown(node, &unsure.why) };
        // What this process lacks to ask is no silence of the node's.
        let lost_after = self.root.settings.lost_after;
        if error.kind != Kind::Shortage && self.unheard.note(id, lost_after) {
            return self.abandon(node, vec![id.clone()], &format!("abandoned ({why})"));
        }
        // Silence is told as the node's, not as this job's.
        if !matches!(
            error.kind,
            Kind::GatewayTimeout | Kind::BadGateway | Kind::Internal | Kind::Shortage
        ) {
            self.tell_trouble(id, &why);
        }
    }

    /// Whether an attempt is to be ended of which its node has not been able to tell anything that
    /// counts for so long that nobody waits for it any more. Called for each time that it could not.
    pub(super) fn is_unseen(&mut self, id: &NodejobId) -> bool {
        let stopping = self.known_mut(id).is_some_and(|known| known.state == State::Stopping);
        stopping && self.unheard.note(id, self.root.settings.lost_after)
    }

    /// Notes on the card what is wrong with an attempt, unless it is there already.
    pub(super) fn tell_trouble(&mut self, id: &NodejobId, reason: &str) {
        if self.known_mut(id).is_none_or(|known| known.trouble.as_deref() == Some(reason)) {
            return;
        }
        let (id, job, reason) = (id.clone(), id.job, reason.to_string());
        self.say(&format!("job {job}: {reason}"));
        let plan = move |card: &Card| match card.current(&id) {
            Some(attempt) if attempt.trouble.as_deref() != Some(&reason) => {
                vec![What::Trouble { attempt: id.attempt, reason: reason.clone() }]
            }
            _ => Vec::new(),
        };
        let plan: Plan = (job, Box::new(move |card, _| Ok(plan(card))));
        let stamped = self.stamp(vec![plan]);
        self.told(stamped);
    }
}

/// What a node refuses of which nobody knows whether it has it.
pub(super) fn unknown(node: &str, why: &str) -> String {
    format!("node {node} refuses it ({why}), and whether an earlier request arrived is not known")
}
