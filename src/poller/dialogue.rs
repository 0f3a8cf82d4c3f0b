//! Talking to nodes: what is ordered of which, and sending attempts. What a node's silence leaves open
//! is asked again of the same node, never sent to another.

use super::engine::Engine;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::desk::Order;
use super::link::Link;
use super::transitions::Plan;
use crate::attempts;
use crate::board::addresses;
use crate::board::runs::Runs;
use crate::driver::{self, Run, Taken};
use crate::error::{Kind, Result};
use crate::model::card::{Attempt, Card, State};
use crate::model::ids::NodejobId;
use crate::model::node::{Address, Node, NodeState};

/// So often an attempt is sent at once; after that there are pauses, or a node that takes no jobs
/// and answers all other questions would be sent it over and over.
const SENDS_AT_ONCE: u32 = 2;

/// After so many in a row the job's reason says that a node which is there does not take it.
const SENDS_TOLD: u32 = 4;

/// The first of those pauses; each is twice as long as the one before, up to a minute.
const SEND_PAUSE: Duration = Duration::from_millis(500);

impl Engine<'_> {
    /// Sends attempts that were placed to their nodes. One that cannot be sent is taken back, or
    /// asked about, and keeps no other.
    pub(super) fn send(&mut self, placed: &[(&Card, &Attempt)]) -> Result<()> {
        if placed.is_empty() {
            return Ok(());
        }
        let common = attempts::Common::read(self.root)?;
        let mut orders: BTreeMap<String, Vec<(NodejobId, Run)>> = BTreeMap::new();
        let mut unsent = Vec::new();
        for (card, attempt) in placed {
            if !self.reaches(&attempt.node, &attempt.nodejob, &attempt.address()) {
                continue; // looked for again with all that are nowhere
            }
            if !self.takes(&attempt.node, &Order::Prepare) {
                continue; // asked about, and sent, when the node answers
            }
            let what = match &attempt.tasks {
                Some(tasks) => format!("job {}, tasks {}", card.job(), tasks.brief()),
                None => format!("job {}", card.job()),
            };
            let id = &attempt.nodejob;
            match attempts::run(self.root, &common, card, attempt) {
                Ok(run) => {
                    self.say(&format!("{what}: placed on {} as {id}", attempt.node));
                    orders.entry(attempt.node.clone()).or_default().push((id.clone(), run));
                }
                Err(error) => {
                    let why = format!("it cannot be sent: {}", error.message);
                    unsent.push((attempt.node.clone(), id.clone(), why));
                }
            }
        }
        let patience = Instant::now() + self.patience();
        for (node, runs) in orders {
            // Files take their time, and keep those behind them waiting.
            let sending = runs.iter().map(|(_, run)| driver::longest_sending(&run.uploads));
            let answered_by = patience + sending.sum();
            let ids = runs.iter().map(|(id, run)| (id.clone(), !run.uploads.is_empty()));
            let ids: Vec<(NodejobId, bool)> = ids.collect();
            let ordered = self.order(&node, Order::Run(runs));
            for (id, with_files) in ids.iter().filter(|_| ordered) {
                if let Some(known) = self.known_mut(id) {
                    known.sends = known.sends.saturating_add(1);
                    known.send_at = Some(answered_by); // the answer moves it
                    known.sending_until = with_files.then_some(answered_by);
                }
            }
        }
        let mut refused = Vec::new();
        for (node, id, why) in unsent {
            match self.known_mut(&id) {
                Some(known) if known.sends == 0 && known.stamped_here => refused.push((id, why)),
                Some(_) => self.ask_for_good(&node, id, &why),
                None => {}
            }
        }
        self.refuse(refused)
    }

    /// Whether what is ordered of this node about this attempt goes where the attempt was placed: to
    /// its address, or to another one of this very root, which has it.
    pub(super) fn reaches(&self, node: &str, id: &NodejobId, address: &Address) -> bool {
        // What cannot be found out now is ordered later.
        self.leads_to(node, id, address).is_ok_and(|leads| leads)
    }

    /// The same; an error where it cannot be found out.
    pub(super) fn leads_to(&self, node: &str, id: &NodejobId, address: &Address) -> Result<bool> {
        let Some(link) = self.lines.get(node) else { return Ok(false) };
        if link.address() == address {
            return Ok(true);
        }
        let now = self.nodes.get(node).filter(|node| node.address() == *link.address());
        let Some(now) = now else { return Ok(false) };
        Ok(addresses::is_this_root(self.root, now)? && Runs::new(self.root).is_here(id)?)
    }

    /// Whether this node has to do with this attempt: it was placed there and nowhere else, or it was
    /// given up there, or lies there without a card that can be read. No other node is asked about it
    /// or told what to do with it, and what one says of it is of no interest.
    pub(super) fn is_of(&self, node: &str, id: &NodejobId) -> bool {
        match self.index.on_node(id) {
            Some(known) => known.node == node && self.reaches(node, id, &known.address),
            None => {
                let given_up = |record: &Node| record.given_up.contains(id);
                self.nodes.get(node).is_some_and(given_up) || self.strays.has(node, id)
            }
        }
    }

    fn is_being_sent(&self, id: &NodejobId) -> bool {
        let known = self.index.on_node(id).and_then(|known| known.sending_until);
        known.is_some_and(|until| until > Instant::now())
    }

    /// Orders something of a node, as far as it concerns attempts that it has to do with. One that
    /// does not answer is not told: when it does, it is asked about all that it has, and what is still
    /// to be done follows from that. Whether it is ordered.
    pub(super) fn order(&mut self, node: &str, mut order: Order) -> bool {
        if !self.takes(node, &order) {
            return false;
        }
        let is_meant = match &mut order {
            Order::Status(ids) => {
                ids.retain(|id| self.is_of(node, id) && !self.is_being_sent(id));
                !ids.is_empty()
            }
            Order::Kill(id, _) | Order::Forbid(id) => self.is_of(node, id),
            // What is sent was placed there, and is checked where that is decided.
            Order::Run(_) | Order::Prepare | Order::Acknowledge(_) | Order::List => true,
        };
        is_meant && self.lines.get_mut(node).is_some_and(|link| link.order(order))
    }

    /// Whether a node is told such an order now.
    pub(super) fn takes(&self, node: &str, order: &Order) -> bool {
        match order {
            // What is placed on it may be sent before it was asked how it is.
            Order::Prepare | Order::Run(_) => {
                self.nodes.get(node).is_some_and(|node| node.state == NodeState::Connected)
            }
            _ => self.lines.get(node).is_some_and(Link::answers),
        }
    }

    pub(super) fn answered(&mut self, node: &str, count: usize) {
        if let Some(link) = self.lines.get_mut(node) {
            link.answered(count);
        }
    }

    /// A node's word on attempts that it was sent.
    pub(super) fn sent(
        &mut self,
        node: &str,
        ids: Vec<NodejobId>,
        results: Result<Vec<Result<Taken>>>,
    ) {
        self.answered(node, ids.len());
        let results = match results {
            Ok(results) => results,
            Err(error) => vec![Err(error); ids.len()],
        };
        let mut silent = None;
        let mut stuck = Vec::new();
        let mut refused = Vec::new();
        let mut ask = Vec::new();
        let mut called = Vec::new();
        for (id, result) in ids.into_iter().zip(results) {
            let Some(known) = self.known_mut(&id) else { continue }; // has ended
            known.sending_until = None;
            let error = match result {
                Ok(Taken { reference }) => {
                    (known.failed_sends, known.send_at, known.unsure) = (0, None, None);
                    called.extend(reference.map(|reference| (id, reference)));
                    continue;
                }
                Err(error) => error,
            };
            match error.kind {
                // It may have been accepted: ask the same node again, never another.
                Kind::GatewayTimeout | Kind::BadGateway | Kind::Internal | Kind::Shortage => {
                    known.failed_sends += 1;
                    let doublings = known.failed_sends.saturating_sub(SENDS_AT_ONCE).min(7);
                    let pause = SEND_PAUSE * (1 << doublings);
                    known.send_at =
                        (known.failed_sends >= SENDS_AT_ONCE).then(|| Instant::now() + pause);
                    // The others are about this request: the node is there.
                    if error.kind == Kind::GatewayTimeout {
                        silent.get_or_insert(error);
                    } else if known.failed_sends > SENDS_TOLD {
                        stuck.push((id.clone(), error.message));
                    }
                    ask.push(id);
                }
                // It has told of it by now: what it said first says less.
                _ if known.state == State::Running => ask.push(id),
                _ if known.was_sent_once() => refused.push((id, error.message)),
                _ => self.ask_for_good(node, id, &error.message),
            }
        }
        if let Some(error) = silent {
            let noted = self.down(node, &error);
            self.told(noted);
        }
        if !ask.is_empty() {
            self.order(node, Order::Status(ask));
        }
        for (id, why) in stuck {
            self.tell_trouble(
                &id,
                &format!("node {node} does not take it ({why}); it is sent again"),
            );
        }
        let refused = self.refuse(refused);
        self.told(refused);
        let noted = self.note_names(called);
        self.told(noted);
    }

    /// Notes on cards what the systems behind nodes call their attempts.
    fn note_names(&mut self, called: Vec<(NodejobId, String)>) -> Result<()> {
        if called.is_empty() {
            return Ok(());
        }
        let mut plans: Vec<Plan> = Vec::new();
        for (id, reference) in called {
            let job = id.job;
            let plan = move |card: &Card| attempts::name(card, &id, &reference);
            plans.push((job, Box::new(move |card, _| Ok(plan(card)))));
        }
        self.stamp(plans).map(|_| ())
    }

    pub(super) fn known_mut(&mut self, id: &NodejobId) -> Option<&mut super::on_node::OnNode> {
        self.index.on_node_mut(id)
    }
}
