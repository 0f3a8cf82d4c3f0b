//! Talking to nodes: orders out, answers in. What a node's silence leaves open is asked again of
//! the same node, never sent to another.

use super::engine::Engine;
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use super::link::Order;
use crate::attempts::kills::KillOrder;
use crate::attempts::proofs::{Proofs, Worth};
use crate::attempts::{self, Said};
use crate::driver::{Answer, Run};
use crate::error::{Kind, Result};
use crate::model::card::{Attempt, Card, State};
use crate::model::ids::NodejobId;
use crate::model::outcome::{RunState, RunStatus};

/// So often an attempt is sent at once; after that there are pauses, or a node that takes no jobs
/// and answers all other questions would be sent it over and over.
const SENDS_AT_ONCE: u32 = 2;

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
    /// Sends attempts that were placed to their nodes.
    pub(super) fn send(&mut self, placed: &[(&Card, &Attempt)]) -> Result<()> {
        if placed.is_empty() {
            return Ok(());
        }
        let common = attempts::Common::read(self.root)?;
        let mut orders: BTreeMap<String, Vec<Run>> = BTreeMap::new();
        for (card, attempt) in placed {
            let what = match &attempt.tasks {
                Some(tasks) => format!("job {}, tasks {}", card.job(), tasks.brief()),
                None => format!("job {}", card.job()),
            };
            self.say(&format!("{what}: placed on {} as {}", attempt.node, attempt.nodejob));
            let run = attempts::run(self.root, &common, card, attempt)?;
            orders.entry(attempt.node.clone()).or_default().push(run);
        }
        for (node, runs) in orders {
            self.order(&node, Order::Run(runs));
        }
        Ok(())
    }

    pub(super) fn order(&mut self, node: &str, order: Order) {
        if let Some(link) = self.links.get(node) {
            self.outstanding += match &order {
                Order::Run(runs) => runs.len(), // several orders may be sent as one
                Order::Status(_) | Order::Kill { .. } => 1,
                Order::Prepare | Order::Acknowledge(_) | Order::Probe | Order::List => 0,
            };
            link.order(order);
        }
    }

    /// Tells the nodes that have a job what of it is to be killed, where they do not know yet.
    pub(super) fn order_kills(&mut self, job: u64) {
        let mut orders = Vec::new();
        for known in self.index.attempts_mut(job) {
            while let Some(kill) = known.to_kill().cloned() {
                known.note_killed(&kill);
                orders.push((known.node.clone(), known.id.clone(), known.grace, kill));
            }
        }
        for (node, id, grace, KillOrder { by, tasks }) in orders {
            let what = match &tasks {
                Some(tasks) => format!("job {job}, tasks {}", tasks.brief()),
                None => format!("job {job}"),
            };
            self.say(&format!("{what}: to be killed on {node}, asked by {by}"));
            self.order(&node, Order::Kill { id, grace, by, tasks });
        }
    }

    fn answered(&mut self, count: usize) {
        self.outstanding = self.outstanding.saturating_sub(count);
    }

    /// A node's word on attempts that it was sent.
    pub(super) fn sent(
        &mut self,
        node: &str,
        ids: Vec<String>,
        results: Result<Vec<Result<()>>>,
    ) -> Result<()> {
        self.answered(ids.len());
        let results = match results {
            Ok(results) => results,
            Err(error) => vec![Err(error); ids.len()],
        };
        let mut refused = Vec::new();
        let mut ask = Vec::new();
        for (id, result) in ids.into_iter().zip(results) {
            let Err(error) = result else {
                if let Some(known) = self.known_mut(&id) {
                    (known.failed_sends, known.send_at) = (0, None);
                }
                continue;
            };
            match error.kind {
                // It may have been accepted: ask the same node again, never another.
                Kind::GatewayTimeout | Kind::BadGateway | Kind::Internal => {
                    // The other two are about this request: the node is there.
                    if error.kind == Kind::GatewayTimeout {
                        self.down(node, &error)?;
                    }
                    if let Some(known) = self.known_mut(&id) {
                        known.failed_sends += 1;
                        let doublings = known.failed_sends.saturating_sub(SENDS_AT_ONCE).min(7);
                        let pause = SEND_PAUSE * (1 << doublings);
                        known.send_at =
                            (known.failed_sends >= SENDS_AT_ONCE).then(|| Instant::now() + pause);
                    }
                    ask.push(id);
                }
                Kind::Gone => {
                    if let Some(known) = self.known_mut(&id) {
                        known.disputed = Some(error.message);
                    }
                    ask.push(id);
                }
                _ => refused.push((id, error.message)),
            }
        }
        if !ask.is_empty() {
            self.order(node, Order::Status(ask));
        }
        self.refuse(refused)
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
        self.answered(1);
        let answers = match answers {
            Ok(answers) => {
                self.heard(node)?; // whatever went wrong before
                answers
            }
            Err(error) => {
                self.down(node, &error)?;
                return Ok(Vec::new());
            }
        };
        let proofs = Proofs::read(self.root)?;
        let must_prove = self.must_prove(node);
        let mut reports = Vec::new();
        let mut again = Vec::new();
        let mut refused = Vec::new();
        let (mut lost, mut unproven) = (Vec::new(), Vec::new());
        for (id, answer) in ids.into_iter().zip(answers) {
            let Ok(answer) = answer else { continue }; // asked about again the next time
            let answer = match answer {
                Answer::Known(status) => {
                    Word::Of(proofs.judge(node, must_prove, status.of(&id))?)
                }
                Answer::Unknown => Word::Unknown,
                Answer::Cancelled(why) => Word::Cancelled(why),
            };
            if let Word::Of(Worth::Strangers(_)) = answer {
                self.doubt_stranger(node, Some(&id));
            }
            let unknown_after = self.root.settings.unknown_after;
            let Some(known) = self.known_mut(&id) else {
                reports.extend(self.given_up(node, id, answer)?);
                continue;
            };
            let dispute = known.disputed.take();
            match answer {
                Word::Of(Worth::Counts(said)) => {
                    known.unknown_since = None;
                    // Of a range that waits, tasks may have been killed.
                    if said.status.state != RunState::Queued || said.status.tasks.is_some() {
                        reports.push(said);
                    }
                }
                // The name is taken: the attempt never came there, and never can.
                Word::Of(Worth::Strangers(_)) if known.state != State::Running => {
                    refused.push((id, "another job has its id there".to_string()));
                }
                // Of the attempt it says nothing, and never will.
                Word::Of(Worth::Strangers(_)) => {
                    if is_over(&mut known.unknown_since, unknown_after) {
                        unproven.push(id);
                    }
                }
                Word::Of(Worth::Unproven(status)) if status.state == RunState::Stopped => {
                    if is_over(&mut known.unknown_since, unknown_after) {
                        unproven.push(id);
                    }
                }
                Word::Of(Worth::Unproven(_) | Worth::NotOurs) => {
                    self.doubt(node, &id, "it does not prove to be about this head's attempt");
                }
                Word::Cancelled(why) => refused.push((id, why)),
                Word::Unknown if known.state == State::Placed => match dispute {
                    Some(reason) => refused.push((id, reason)),
                    None if known.send_at.is_none_or(|at| at <= Instant::now()) => again.push(id),
                    None => {} // when it is asked about the next time
                },
                Word::Unknown if known.state == State::Stopping => {
                    known.killed = None; // a kill of an unknown job forbids its start
                    again.push(id);
                }
                Word::Unknown => {
                    if is_over(&mut known.unknown_since, unknown_after) {
                        lost.push(id);
                    }
                }
            }
        }
        for id in again.iter().filter_map(|id| NodejobId::parse(id)) {
            let card = self.cards.find(id.job)?;
            match (card.state, card.current(&id)) {
                (State::Stopping, _) => self.order_kills(id.job),
                (_, Some(attempt)) => self.send(&[(&card, attempt)])?,
                (_, None) => {}
            }
        }
        self.refuse(refused)?;
        self.lose(node, lost.clone(), &format!("node {node} does not know it any more"))?;
        for id in lost {
            self.fence(node, id);
        }
        self.lose(node, unproven, &format!("node {node} does not prove that it has had it"))?;
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

    /// Kills an attempt that was given up, or forbids its start.
    pub(super) fn fence(&mut self, node: &str, id: String) {
        let by = "the head, which had given it up".to_string();
        self.order(node, Order::Kill { id, grace: None, by, tasks: None });
    }

    pub(super) fn killed(
        &mut self,
        node: &str,
        id: &str,
        status: Result<Box<RunStatus>>,
    ) -> Result<Option<Said>> {
        self.answered(1);
        match status {
            // Of an attempt that was given up nothing but its end is news: it is being killed.
            Ok(status) if status.state != RunState::Stopped && self.known_mut(id).is_none() => {
                Ok(None)
            }
            Ok(status) => self.believed_kill(node, status.of(id)),
            Err(error) => {
                if let Some(known) = self.known_mut(id) {
                    known.killed = None;
                }
                self.say(&format!(
                    "{id}: not killed on {node}: {}; will be repeated",
                    error.message
                ));
                Ok(None)
            }
        }
    }

    /// Asks every node about every job that it has.
    pub(super) fn resync_all(&mut self) {
        for node in self.links.keys().cloned().collect::<Vec<_>>() {
            self.resync(&node);
        }
    }

    pub(super) fn resync(&mut self, node: &str) {
        let mut ids: Vec<String> = self.index.on(node).map(|(_, known)| known.id.clone()).collect();
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

/// Whether something has been so for so long; it is from now on, if it was not before.
fn is_over(since: &mut Option<SystemTime>, patience: Duration) -> bool {
    let now = SystemTime::now();
    let since = *since.get_or_insert(now);
    now.duration_since(since).unwrap_or_default() >= patience
}
