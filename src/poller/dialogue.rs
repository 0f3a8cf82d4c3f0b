//! Talking to nodes: orders out, answers in. What a node's silence leaves open is asked again of
//! the same node, never sent to another.

use super::engine::Engine;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::desk::Order;
use super::index::OnNode;
use super::link::Link;
use crate::attempts::proofs::{Proofs, Worth};
use crate::attempts::{self, Said};
use crate::board::nodes;
use crate::board::runs::Runs;
use crate::driver::{self, Answer, Run};
use crate::error::{Kind, Result};
use crate::model::card::{Attempt, Card, State};
use crate::model::ids::NodejobId;
use crate::model::node::{Address, Node, NodeState};
use crate::model::run_status::RunState;

/// So often an attempt is sent at once; after that there are pauses, or a node that takes no jobs
/// and answers all other questions would be sent it over and over.
const SENDS_AT_ONCE: u32 = 2;

/// After so many in a row the job's reason says that a node which is there does not take it.
const SENDS_TOLD: u32 = 4;

/// The first of those pauses; each is twice as long as the one before, up to a minute.
const SEND_PAUSE: Duration = Duration::from_millis(500);

/// A node's answer about an attempt, with what it is worth.
enum Word {
    /// See [`Answer::Known`].
    Of(Worth),
    /// See [`Answer::Unknown`].
    Unknown,
    /// See [`Answer::Cancelled`].
    Cancelled(String),
}

impl Engine<'_> {
    /// Sends attempts that were placed to their nodes. One that cannot be sent is taken back, or
    /// asked about, and keeps no other.
    pub(super) fn send(&mut self, placed: &[(&Card, &Attempt)]) -> Result<()> {
        if placed.is_empty() {
            return Ok(());
        }
        let common = attempts::Common::read(self.root)?;
        let mut orders: BTreeMap<String, Vec<Run>> = BTreeMap::new();
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
                    orders.entry(attempt.node.clone()).or_default().push(run);
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
            let sending = runs.iter().map(|run| driver::longest_sending(&run.uploads));
            let answered_by = patience + sending.sum();
            let ids = runs.iter().map(|run| (run.id.clone(), !run.uploads.is_empty()));
            let ids: Vec<(String, bool)> = ids.collect();
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
    pub(super) fn reaches(&self, node: &str, id: &str, address: &Address) -> bool {
        // What cannot be found out now is ordered later.
        self.leads_to(node, id, address).is_ok_and(|leads| leads)
    }

    /// The same; an error where it cannot be found out.
    pub(super) fn leads_to(&self, node: &str, id: &str, address: &Address) -> Result<bool> {
        let Some(link) = self.links.get(node) else { return Ok(false) };
        if link.address() == address {
            return Ok(true);
        }
        let now = self.nodes.get(node).filter(|node| node.address() == *link.address());
        let Some(now) = now else { return Ok(false) };
        Ok(nodes::is_this_root(self.root, now)? && Runs::new(self.root).is_here(id)?)
    }

    /// Whether this node has to do with this attempt: it was placed there and nowhere else, or it was
    /// given up there, or lies there without a card that can be read. No other node is asked about it
    /// or told what to do with it, and what one says of it is of no interest.
    pub(super) fn is_of(&self, node: &str, id: &str) -> bool {
        match NodejobId::parse(id).as_ref().and_then(|id| self.index.on_node(id)) {
            Some(known) => known.node == node && self.reaches(node, id, &known.address),
            None => {
                let given_up = |record: &Node| record.given_up.iter().any(|other| other == id);
                self.nodes.get(node).is_some_and(given_up) || self.is_orphan(node, id)
            }
        }
    }

    fn is_being_sent(&self, id: &str) -> bool {
        let known = NodejobId::parse(id).and_then(|id| self.index.on_node(&id)?.sending_until);
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
            Order::Kill { id, .. } | Order::Forbid(id) => self.is_of(node, id),
            // What is sent was placed there, and is checked where that is decided.
            Order::Run(_) | Order::Prepare | Order::Acknowledge(_) | Order::List => true,
        };
        let Some(link) = self.links.get_mut(node).filter(|_| is_meant) else { return false };
        let answers = match &order {
            Order::Run(runs) => runs.len(), // several orders may be sent as one
            Order::Status(_) | Order::Kill { .. } | Order::Forbid(_) | Order::List => 1,
            Order::Prepare | Order::Acknowledge(_) => 0,
        };
        let ordered = link.order(order);
        if ordered {
            link.outstanding += answers;
        }
        ordered
    }

    /// Whether a node is told such an order now.
    pub(super) fn takes(&self, node: &str, order: &Order) -> bool {
        match order {
            // What is placed on it may be sent before it was asked how it is.
            Order::Prepare | Order::Run(_) => {
                self.nodes.get(node).is_some_and(|node| node.state == NodeState::Connected)
            }
            _ => self.links.get(node).is_some_and(Link::answers),
        }
    }

    pub(super) fn answered(&mut self, node: &str, count: usize) {
        if let Some(link) = self.links.get_mut(node) {
            link.outstanding = link.outstanding.saturating_sub(count);
        }
    }

    /// A node's word on attempts that it was sent.
    pub(super) fn sent(&mut self, node: &str, ids: Vec<String>, results: Result<Vec<Result<()>>>) {
        self.answered(node, ids.len());
        let results = match results {
            Ok(results) => results,
            Err(error) => vec![Err(error); ids.len()],
        };
        let mut silent = None;
        let mut stuck = Vec::new();
        let mut refused = Vec::new();
        let mut ask = Vec::new();
        for (id, result) in ids.into_iter().zip(results) {
            let Some(known) = self.known_mut(&id) else { continue }; // has ended
            known.sending_until = None;
            let Err(error) = result else {
                (known.failed_sends, known.send_at, known.unsure) = (0, None, None);
                continue;
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
    }

    pub(super) fn known_mut(&mut self, id: &str) -> Option<&mut super::index::OnNode> {
        self.index.on_node_mut(&NodejobId::parse(id)?)
    }

    /// A node's word on where jobs are: reports to record; what it does not know is sent again,
    /// or, if it had it once, given up after a while.
    pub(super) fn statuses(
        &mut self,
        node: &str,
        ids: Vec<String>,
        answers: Result<Vec<Result<Answer>>>,
    ) -> Result<Vec<Said>> {
        self.answered(node, 1);
        let answers = match answers {
            Ok(answers) => {
                self.heard(node); // whatever went wrong before
                answers
            }
            Err(error) => {
                let noted = self.down(node, &error);
                self.told(noted);
                return Ok(Vec::new());
            }
        };
        let proofs = Proofs::read(self.root)?;
        let must_prove = self.must_prove(node);
        let (mut reports, mut again, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        let (mut lost, mut unproven, mut unseen) = (Vec::new(), Vec::new(), Vec::new());
        let lost_after = self.root.settings.lost_after;
        for (id, answer) in ids.into_iter().zip(answers) {
            let answer = match answer {
                Ok(answer) => answer,
                Err(error) => {
                    // Asked about again the next time. That the node was silent is told as its own.
                    if error.kind != Kind::GatewayTimeout
                        && error.kind != Kind::Shortage
                        && self.is_unseen(&id)
                    {
                        unseen.push((id, error.message));
                    }
                    continue;
                }
            };
            let answer = match answer {
                Answer::Known(status) => {
                    let worth = proofs.judge(node, must_prove, status.of(&id));
                    let Some(worth) = self.told(worth) else { continue };
                    Word::Of(worth)
                }
                Answer::Unknown => Word::Unknown,
                Answer::Cancelled(why) => Word::Cancelled(why),
            };
            if let Word::Of(Worth::Strangers(_)) = answer {
                self.doubt_stranger(node, Some(&id));
            }
            let Some(known) = self.known_mut(&id) else {
                if self.is_orphan(node, &id) {
                    let worth = if let Word::Of(worth) = answer { Some(worth) } else { None };
                    let judged = self.judge_orphan(node, id, worth);
                    self.told(judged);
                    continue;
                }
                let settled = self.given_up(node, id, answer);
                reports.extend(self.told(settled).flatten());
                continue;
            };
            match (answer, known.state) {
                (Word::Of(Worth::Counts(said)), _) => {
                    let job = NodejobId::parse(&id).map(|id| id.job);
                    let unkilled = known.to_kill().is_some();
                    if self.is_there(node, &id, &said.status) {
                        reports.push(said);
                    }
                    // What it could not be told before it came, or was told without an answer.
                    job.filter(|_| unkilled).into_iter().for_each(|job| self.order_kills(job));
                }
                // Of the attempt it says nothing, and never will.
                (Word::Of(Worth::Strangers(_)), State::Running) => {
                    if self.is_unknown_for_long(&id) {
                        unproven.push(id);
                    }
                }
                // The name is taken: the attempt never came there, and never can.
                (Word::Of(Worth::Strangers(_)), _) => {
                    refused.push((id, "another job has its id there".to_string()));
                }
                (Word::Of(Worth::Unproven(status)), _) if status.state == RunState::Stopped => {
                    if self.is_unknown_for_long(&id) {
                        unproven.push(id);
                    }
                }
                (Word::Of(Worth::Unproven(_) | Worth::NotOurs), _) => {
                    let why = "it does not prove to be about this head's attempt";
                    self.doubt(node, &id, why);
                    unseen.extend(self.is_unseen(&id).then(|| (id, format!("its report: {why}"))));
                }
                (Word::Unknown | Word::Cancelled(_), State::Stopping) => {
                    known.killed = None; // a kill of an unknown job forbids its start
                    let refused = known.failed_kills > 0;
                    if refused && self.unheard.note(&id, lost_after) {
                        lost.push(id);
                    } else {
                        again.push(id);
                    }
                }
                // The only request there was: nothing can arrive any more.
                (Word::Cancelled(why), _) if known.was_sent_once() => refused.push((id, why)),
                (Word::Cancelled(why), _) => self.ask_for_good(node, id, &why),
                (Word::Unknown, State::Placed) => {
                    let due = known.send_at.is_none_or(|at| at <= Instant::now());
                    if let Some(unsure) = &known.unsure {
                        let why = unsure.why.clone();
                        self.ask_for_good(node, id, &why);
                    } else if !known.kills.is_empty() {
                        // Tasks cannot be killed before their range is there, and must not start
                        // when it comes: it shall not come.
                        self.ask_for_good(node, id, "tasks of it were killed before it came");
                    } else if due {
                        again.push(id);
                    }
                }
                (Word::Unknown, _) => {
                    if self.is_unknown_for_long(&id) {
                        lost.push(id);
                    }
                }
            }
        }
        for id in again.iter().filter_map(|id| NodejobId::parse(id)) {
            let sent = self.cards.find(id.job).and_then(|card| match card.current(&id) {
                Some(_) if card.state == State::Stopping => {
                    self.order_kills(id.job);
                    Ok(())
                }
                Some(attempt) => self.send(&[(&card, attempt)]),
                None => Ok(()),
            });
            self.told(sent);
        }
        let refused = self.refuse(refused);
        self.told(refused);
        self.abandon(node, lost, &format!("node {node} does not know it any more"));
        for (id, why) in unseen {
            self.abandon(
                node,
                vec![id],
                &format!("node {node} can neither end it nor tell of it: {why}"),
            );
        }
        let why = format!("node {node} does not prove that it has had it");
        let unproven = self.lose(node, unproven, &why);
        self.told(unproven);
        Ok(reports)
    }

    /// A node's word on an attempt that was given up: one that has not ended is killed, and one
    /// that never came is forbidden to start, should it still be under way.
    fn given_up(&mut self, node: &str, id: String, answer: Word) -> Result<Option<Said>> {
        if !self.nodes.get(node).is_some_and(|record| record.given_up.contains(&id)) {
            return Ok(None); // has just ended
        }
        match answer {
            Word::Of(Worth::Counts(said)) => return Ok(Some(said)),
            // What is there is not the attempt; or is, which it cannot show, and has ended.
            Word::Of(Worth::Strangers(_)) => self.settle(&[id])?,
            Word::Of(Worth::Unproven(status)) if status.state == RunState::Stopped => {
                self.settle(&[id])?;
            }
            Word::Of(Worth::NotOurs) => {}
            Word::Of(Worth::Unproven(_)) | Word::Unknown => self.fence(node, id),
            Word::Cancelled(_) => self.settle(&[id])?,
        }
        Ok(None)
    }

    /// Asks every node about every job that it has.
    pub(super) fn resync_all(&mut self) {
        for node in self.links.keys().cloned().collect::<Vec<_>>() {
            self.resync(&node);
        }
    }

    pub(super) fn resync(&mut self, node: &str) {
        let there = |known: &&OnNode| self.reaches(node, &known.id, &known.address);
        let attempts = self.index.on(node).map(|(_, known)| known).filter(there);
        let mut ids: Vec<String> = attempts.map(|known| known.id.clone()).collect();
        if let Some(record) = self.nodes.get(node) {
            ids.extend(record.given_up.iter().cloned());
        }
        let stopping: Vec<u64> = self
            .index
            .on(node)
            .filter(|(_, known)| known.to_kill().is_some())
            .map(|(job, _)| job)
            .collect();
        if !ids.is_empty() {
            self.order(node, Order::Status(ids));
        }
        for job in stopping {
            self.order_kills(job);
        }
        self.ask_for_orphans(node);
    }
}
