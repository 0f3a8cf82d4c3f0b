//! Nodes' words on where attempts are, and what follows from them. What a node's silence leaves open is
//! asked again of the same node.

use std::time::Instant;

use super::desk::Order;
use super::engine::Engine;
use super::on_node::OnNode;
use crate::attempts::Said;
use crate::attempts::proofs::{Proofs, Worth};
use crate::driver::Answer;
use crate::error::{Kind, Result};
use crate::model::card::State;
use crate::model::ids::NodejobId;
use crate::model::run_status::RunState;

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
    /// A node's word on where jobs are: reports to record; what it does not know is sent again,
    /// or, if it had it once, given up after a while.
    pub(super) fn statuses(
        &mut self,
        node: &str,
        ids: Vec<NodejobId>,
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
                self.doubt_stranger(node, &id);
            }
            let Some(known) = self.known_mut(&id) else {
                if self.strays.has(node, &id) {
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
                    let job = id.job;
                    let unkilled = known.to_kill().is_some();
                    if self.is_there(node, &id, &said.status) {
                        reports.push(said);
                    }
                    // What it could not be told before it came, or was told without an answer.
                    if unkilled {
                        self.order_kills(job);
                    }
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
                (Word::Of(Worth::Unproven(said)), _) if said.status.state == RunState::Stopped => {
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
        for id in again {
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
    fn given_up(&mut self, node: &str, id: NodejobId, answer: Word) -> Result<Option<Said>> {
        if !self.nodes.get(node).is_some_and(|record| record.given_up.contains(&id)) {
            return Ok(None); // has just ended
        }
        match answer {
            Word::Of(Worth::Counts(said)) => return Ok(Some(said)),
            // What is there is not the attempt; or is, which it cannot show, and has ended.
            Word::Of(Worth::Strangers(_)) => self.settle(&[id])?,
            Word::Of(Worth::Unproven(said)) if said.status.state == RunState::Stopped => {
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
        for node in self.lines.nodes().cloned().collect::<Vec<_>>() {
            self.resync(&node);
        }
    }

    pub(super) fn resync(&mut self, node: &str) {
        let there = |known: &&OnNode| self.reaches(node, &known.id, &known.address);
        let attempts = self.index.on(node).map(|(_, known)| known).filter(there);
        let mut ids: Vec<NodejobId> = attempts.map(|known| known.id.clone()).collect();
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
