//! What the engine does to cards: recorded reports, ends that nobody reported. Each is
//! stamped and moved under the board's lock, and durable before anyone hears of it.

use super::engine::Engine;
use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use super::desk::Order;
use crate::attempts::{self, Said};
use crate::board::cards::CARDS_PER_LOCK;
use crate::board::nodes::Registered;
use crate::board::sync_set::SyncSet;
use crate::board::uploads;
use crate::error::{Error, Kind, Result};
use crate::model::card::{Card, State, What};
use crate::model::change::Change;
use crate::model::ids::NodejobId;
use crate::model::outcome::Outcome;

impl Engine<'_> {
    /// Records reports, all with one sync, then tells the nodes that their results are safe.
    pub(super) fn record(&mut self, reports: Vec<Said>) -> Result<()> {
        let begun = Instant::now();
        let mut reports = self.gathered.admit(reports, begun);
        reports.extend(std::mem::take(&mut self.unsynced).into_values());
        if reports.is_empty() {
            return Ok(());
        }
        let batches = if self.step.is_shown() {
            reports.into_iter().map(|report| vec![report]).collect()
        } else {
            vec![reports]
        };
        for batch in batches {
            if !self.show_reports(&batch) {
                return Ok(()); // their node keeps them
            }
            let mut applied = attempts::record(self.root, batch);
            for said in std::mem::take(&mut applied.again) {
                self.unsynced.insert((said.node.clone(), said.id.clone()), said);
            }
            for error in std::mem::take(&mut applied.errors) {
                self.told::<()>(Err(error));
            }
            for card in &applied.cards {
                self.tell_end(card);
                // With it may come a kill that was not seen before, and will not be again: the
                // card is as long as it is known to be.
                self.take_in(card);
                if card.state == State::Stopped {
                    let removed = uploads::remove(self.root, card.job());
                    self.told(removed); // else clean-up does it
                    self.gathered.forget(card.job());
                } else if card.is_array() {
                    let now = Instant::now();
                    self.gathered.recorded(card.job(), now - begun, now);
                }
            }
            for (node, id) in std::mem::take(&mut applied.safe) {
                self.outbox.add(node, id, Instant::now());
            }
            for (node, id) in std::mem::take(&mut applied.stale) {
                if self.nodes.get(&node).is_some_and(|record| record.given_up.contains(&id)) {
                    self.say(&format!("{id}: given up before, still runs on {node}: killed"));
                    self.fence(&node, id);
                }
            }
            for (node, id) in std::mem::take(&mut applied.taken_back) {
                self.say(&format!("{id}: refused before, runs on {node}: killed"));
                let noted = self.owe(&node, std::slice::from_ref(&id));
                if self.told(noted).is_some() {
                    self.fence(&node, id);
                }
            }
            let settled = self.settle(&applied.ended);
            self.told(settled);
            let noted = self.note_proofs(&applied);
            self.told(noted);
            if !applied.cards.is_empty() {
                let shown = self.step.after(self.root);
                self.told(shown);
            }
        }
        Ok(())
    }

    /// Tells the nodes that results are safe. Those that do not answer are told when they do.
    pub(super) fn acknowledge(&mut self) {
        for (node, ids) in self.outbox.take() {
            let order = Order::Acknowledge(ids);
            if self.takes(&node, &order) {
                self.order(&node, order);
            } else if let Order::Acknowledge(ids) = order
                && self.lines.get(&node).is_some()
            {
                self.outbox.put_back(node, ids);
            }
        }
    }

    /// A node may not know that these results are safe: it is told again. Where it will not have that said,
    /// it keeps them until they are old.
    pub(super) fn not_acknowledged(&mut self, node: &str, ids: Vec<NodejobId>, error: &Error) {
        match error.kind {
            Kind::GatewayTimeout => {
                let noted = self.down(node, error);
                self.told(noted);
                self.outbox.put_back(node.to_string(), ids);
            }
            Kind::Unavailable | Kind::Shortage | Kind::Internal | Kind::BadGateway => {
                self.outbox.put_off(node.to_string(), ids, Instant::now());
            }
            _ => {}
        }
    }

    /// Shows a transition that is about to be made, and waits. `false` if it is not to be: the
    /// poller ends.
    fn shows(&mut self, card: &Card, events: &[What]) -> bool {
        self.ending |= !self.step.before(card, events);
        !self.ending
    }

    fn show_reports(&mut self, reports: &[Said]) -> bool {
        if !self.step.is_shown() {
            return true;
        }
        for report in reports {
            if let Ok(card) = self.cards.find(report.id.job) {
                let events = attempts::decide(&card, std::slice::from_ref(report));
                if !self.shows(&card, &events) {
                    return false;
                }
            }
        }
        true
    }

    pub(super) fn tell_end(&self, card: &Card) {
        let of = |number: Option<u32>| card.attempts.iter().find(|a| Some(a.attempt) == number);
        let node = card.attempts.last().map_or("no node", |a| a.node.as_str());
        let Some(last) = card.events.last() else { return };
        let why = |outcome: &Outcome| outcome.reason.clone().unwrap_or_else(|| "exit 0".into());
        let job = card.job();
        self.say(&match &last.what {
            What::Stopped { outcome, .. } => {
                let status = if card.status() == crate::model::outcome::Status::Good {
                    "good"
                } else {
                    "error"
                };
                match card.is_array() {
                    false => format!("job {job}: stopped, {status} ({}) on {node}", why(outcome)),
                    true => format!("job {job}: all tasks stopped, {status} ({})", why(outcome)),
                }
            }
            What::Tasks { attempt, ended: Some(_), .. } => {
                let range = of(*attempt);
                let node = range.map_or("no node", |range| range.node.as_str());
                let tasks = range.and_then(|range| range.tasks.clone()).unwrap_or_default();
                format!("job {job}, tasks {}: range ended on {node}", tasks.brief())
            }
            What::Retry { outcome, .. } => {
                format!("job {job}: to be tried again ({}) after {node}", why(outcome))
            }
            What::Refused { reason, .. } => format!("job {job}: refused by {node}: {reason}"),
            What::Running { .. } => format!("job {job}: running on {node}"),
            _ => return,
        });
    }

    /// Stamps and moves cards by their plans, all with one sync; durable when this returns. The
    /// cards that were stamped; one for which nothing is left to do by then is left alone, and
    /// looked at as it is. One that cannot be changed keeps no other: it is told, and everything is
    /// looked at again.
    pub(super) fn stamp(&mut self, plans: Vec<Plan>) -> Result<Vec<Card>> {
        let mut seen = Vec::new();
        let mut sync = SyncSet::new();
        let at_once = if self.step.is_shown() { 1 } else { CARDS_PER_LOCK };
        for plans in plans.chunks(at_once) {
            if let ([(job, plan)], true) = (plans, self.step.is_shown())
                && let Ok(card) = self.cards.find(*job)
                && let Ok(events) = plan(&card, &Registered::new(self.root))
                && !self.shows(&card, &events)
            {
                break;
            }
            let lock = self.cards.lock();
            let Some(lock) = self.told(lock) else { break };
            let registered = Registered::new(self.root);
            for (job, plan) in plans {
                let mut stamps = false;
                let changed = self.cards.change(&lock, *job, |card| {
                    let events = plan(card, &registered)?;
                    stamps = !events.is_empty();
                    Ok(events)
                });
                match changed {
                    Ok(changed) => {
                        if !changed.sync.is_empty() {
                            sync.merge(changed.sync);
                        }
                        seen.push((changed.card, stamps));
                    }
                    Err(e) if matches!(e.kind, Kind::NotFound | Kind::Gone) => {
                        let disowned = self.disown(*job);
                        self.told(disowned);
                    }
                    Err(e) => {
                        self.index.remove(*job);
                        self.told::<()>(Err(e));
                    }
                }
            }
            drop(lock);
            let shown = self.step.after(self.root);
            self.told(shown);
        }
        sync.commit_beside()?;
        for (card, _) in &seen {
            self.take_in(card);
        }
        Ok(seen.into_iter().filter(|(_, stamps)| *stamps).map(|(card, _)| card).collect())
    }

    /// Ends jobs whose time is over, and what was left half done of arrays.
    pub(super) fn expire(&mut self, jobs: Vec<u64>) -> Result<()> {
        if jobs.is_empty() {
            return Ok(());
        }
        self.look_at_clock(); // it may be that, and not their time
        let change = Change::Expire { now: self.index.present(SystemTime::now()) };
        let plan = |job| -> Plan {
            let change = change.clone();
            (job, Box::new(move |card, _| change.lines(card, SystemTime::now())))
        };
        let plans = jobs.into_iter().map(plan).collect();
        for card in self.stamp(plans)? {
            self.tell_end(&card);
        }
        Ok(())
    }

    /// Takes attempts back that a node would not have: nothing ran.
    pub(super) fn refuse(&mut self, refused: Vec<(NodejobId, String)>) -> Result<()> {
        let mut plans: Vec<Plan> = Vec::new();
        for (id, reason) in refused {
            let job = id.job;
            let change = Change::Refuse { attempt: id, reason };
            plans.push((job, Box::new(move |card, _| change.lines(card, SystemTime::now()))));
        }
        for card in self.stamp(plans)? {
            self.tell_end(&card);
        }
        Ok(())
    }

    /// Ends attempts of a node of which nobody knows what became. That they are to be asked about
    /// when it answers is durable before.
    pub(super) fn lose(&mut self, node: &str, ids: Vec<NodejobId>, why: &str) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        self.owe(node, &ids)?;
        self.end_as_lost(&ids, why)
    }

    /// Notes attempts about which a node is to be asked until they have ended there. Durable when this
    /// returns.
    fn owe(&mut self, node: &str, ids: &[NodejobId]) -> Result<()> {
        self.observe(node, |record| {
            let fresh: Vec<&NodejobId> =
                ids.iter().filter(|id| !record.given_up.contains(id)).collect();
            record.given_up.extend(fresh.into_iter().cloned());
        })
    }

    pub(super) fn end_as_lost(&mut self, ids: &[NodejobId], why: &str) -> Result<()> {
        let mut plans: Vec<Plan> = Vec::new();
        for id in ids {
            let job = id.job;
            let change = Change::Abandon { attempt: id.clone(), why: why.to_string() };
            plans.push((job, Box::new(move |card, _| change.lines(card, SystemTime::now()))));
        }
        for card in self.stamp(plans)? {
            self.tell_end(&card);
        }
        Ok(())
    }

    /// Gives up attempts whose node is not registered any more where it was, as those of one that
    /// cannot be reached: nobody is left to be asked.
    pub(super) fn give_up_nowhere(&mut self) {
        let lost_after = self.root.settings.lost_after;
        let mut lost: BTreeMap<&str, Vec<NodejobId>> = BTreeMap::new();
        for (_, known) in self.index.on_nodes() {
            let why = match self.nodes.get(&known.node) {
                Some(node) if node.newer.is_some() || node.address() == known.address => continue,
                Some(_)
                    if self
                        .leads_to(&known.node, &known.id, &known.address)
                        .is_ok_and(|leads| !leads) =>
                {
                    "abandoned (its node is registered at another address now)"
                }
                Some(_) => continue, // or it cannot be found out now
                None if self.nodes.is_unreadable(&known.node) => continue,
                None => "abandoned (its node is not registered any more)",
            };
            if self.unheard.note(&known.id, lost_after) {
                lost.entry(why).or_default().push(known.id.clone());
            }
        }
        for (why, ids) in lost {
            let given_up = self.end_as_lost(&ids, why);
            self.told(given_up);
        }
    }
}

/// What is to happen to a card, worked out again from the card as it is under the lock.
/// What is registered may be asked for; an error changes nothing.
pub(super) type PlanFn = Box<dyn Fn(&Card, &Registered) -> Result<Vec<What>>>;
pub(super) type Plan = (u64, PlanFn);
