//! What the engine does to cards: recorded reports, ends that nobody reported. Each is
//! stamped and moved under the board's lock, and durable before anyone hears of it.

use super::engine::Engine;
use std::time::{Duration, Instant, SystemTime};

use super::link::Order;
use crate::attempts::{self, Said, ranges};
use crate::board::cards::CARDS_PER_LOCK;
use crate::board::files::SyncSet;
use crate::board::uploads;
use crate::clock;
use crate::error::{Kind, Result};
use crate::model::card::{Card, Column, State, What};
use crate::model::ids::NodejobId;
use crate::model::outcome::Outcome;

/// A node is told within this time that results are safe...
const ACKNOWLEDGE_WITHIN: Duration = Duration::from_millis(500);

/// ...and at once when there are so many.
const ACKNOWLEDGED_AT_ONCE: usize = 1000;

/// Longest wait before a job that nodes keep refusing is placed again.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

impl Engine<'_> {
    /// Records reports, all with one sync, then tells the nodes that their results are safe.
    pub(super) fn record(&mut self, reports: Vec<Said>) -> Result<()> {
        let begun = Instant::now();
        let reports = self.gathered.admit(reports, begun);
        if reports.is_empty() {
            return Ok(());
        }
        let batches = if self.step.is_shown() {
            reports.into_iter().map(|report| vec![report]).collect()
        } else {
            vec![reports]
        };
        for batch in batches {
            self.show_reports(&batch);
            let mut applied = attempts::record(self.root, batch)?;
            for card in &applied.cards {
                self.tell_end(card);
                // With it may come a kill that was not seen before, and will not be again: the
                // card is as long as it is known to be.
                self.take_in(card);
                if card.state == State::Stopped {
                    uploads::remove(self.root, card.job())?;
                    self.gathered.forget(card.job());
                } else if card.array.is_some() {
                    let now = Instant::now();
                    self.gathered.recorded(card.job(), now - begun, now);
                }
            }
            for (node, id) in std::mem::take(&mut applied.safe) {
                let gathered = self.unacknowledged.entry(node).or_default();
                gathered.push(id);
                let many = gathered.len() >= ACKNOWLEDGED_AT_ONCE;
                let at = Instant::now() + if many { Duration::ZERO } else { ACKNOWLEDGE_WITHIN };
                self.acknowledge_at = Some(self.acknowledge_at.map_or(at, |other| other.min(at)));
            }
            for (node, id) in std::mem::take(&mut applied.stale) {
                if self.nodes.get(&node).is_some_and(|record| record.given_up.contains(&id)) {
                    self.say(&format!("{id}: given up before, still runs on {node}: killed"));
                    self.fence(&node, id);
                }
            }
            self.settle(&applied.ended)?;
            self.note_proofs(&applied)?;
            if !applied.cards.is_empty() {
                self.step.after(self.root)?;
            }
        }
        Ok(())
    }

    /// Tells the nodes that results are safe. Nobody waits for it, and each request to a node
    /// costs as much as a short job: they are gathered.
    pub(super) fn acknowledge(&mut self) {
        self.acknowledge_at = None;
        for (node, ids) in std::mem::take(&mut self.unacknowledged) {
            self.order(&node, Order::Acknowledge(ids));
        }
    }

    pub(super) fn show_reports(&self, reports: &[Said]) {
        if !self.step.is_shown() {
            return;
        }
        for report in reports {
            let id = report.status.id.as_deref().and_then(NodejobId::parse);
            if let Some(id) = id
                && let Ok(card) = self.cards.find(id.job)
            {
                self.step.before(&card, &attempts::decide(&card, &[(id, report.clone())]));
            }
        }
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
                match &card.array {
                    None => format!("job {job}: stopped, {status} ({}) on {node}", why(outcome)),
                    Some(_) => format!("job {job}: all tasks stopped, {status} ({})", why(outcome)),
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

    /// Stamps and moves cards by their plans, all with one sync; durable when this returns. A
    /// card for which nothing is left to do by then is left alone.
    pub(super) fn stamp(&mut self, plans: Vec<Plan>) -> Result<Vec<Card>> {
        let mut changed_cards = Vec::new();
        let mut sync = SyncSet::new();
        let at_once = if self.step.is_shown() { 1 } else { CARDS_PER_LOCK };
        for plans in plans.chunks(at_once) {
            if let ([(job, plan)], true) = (plans, self.step.is_shown())
                && let Ok(card) = self.cards.find(*job)
            {
                self.step.before(&card, &plan(&card));
            }
            let lock = self.cards.lock()?;
            for (job, plan) in plans {
                match self.cards.change(&lock, *job, |card| Ok(plan(card))) {
                    Ok(changed) => {
                        if !changed.sync.is_empty() {
                            sync.merge(changed.sync);
                        }
                        changed_cards.push(changed.card);
                    }
                    Err(e) if matches!(e.kind, Kind::NotFound | Kind::Gone) => {
                        let disowned = self.disown(*job);
                        self.told(disowned);
                    }
                    Err(e) => {
                        // Looked at again with everything else; the others go on.
                        self.index.remove(*job);
                        self.told::<()>(Err(e));
                    }
                }
            }
            drop(lock);
            self.step.after(self.root)?;
        }
        sync.commit_beside()?;
        for card in &changed_cards {
            self.take_in(card);
        }
        Ok(changed_cards)
    }

    /// Ends jobs whose time is over, and what was left half done of arrays.
    pub(super) fn expire(&mut self, jobs: Vec<u64>) -> Result<()> {
        if jobs.is_empty() {
            return Ok(());
        }
        let plan = |card: &Card| {
            let due = card.expires_at().is_some_and(|time| time <= SystemTime::now());
            match card.column() {
                _ if ranges::is_unsettled(card) => ranges::settle(card),
                _ if !due => Vec::new(),
                _ if card.array.is_some() => ranges::expire(card),
                Column::Queue => {
                    let outcome = Outcome::expired(card.requeue_reason.as_deref());
                    vec![What::Stopped { attempt: None, outcome }]
                }
                Column::Running | Column::Done => Vec::new(),
            }
        };
        let plans = jobs.into_iter().map(|job| (job, Box::new(plan) as PlanFn)).collect();
        for card in self.stamp(plans)? {
            self.tell_end(&card);
        }
        Ok(())
    }

    /// Takes attempts back that a node would not have: nothing ran.
    pub(super) fn refuse(&mut self, refused: Vec<(String, String)>) -> Result<()> {
        let mut plans: Vec<Plan> = Vec::new();
        for (id, reason) in refused {
            let Some(id) = NodejobId::parse(&id) else { continue };
            let job = id.job;
            let plan = move |card: &Card| {
                let Some(attempt) = card.current(&id) else { return Vec::new() };
                let refusals = card.refusals_in_a_row(attempt);
                let backoff = Duration::from_secs(1 << refusals.min(6));
                let not_before = after(backoff.min(LONGEST_BACKOFF));
                if card.array.is_some() {
                    return ranges::refuse(card, id.attempt, &reason, not_before);
                }
                if let (State::Stopping, Some(by)) = (card.state, &card.stopping_by) {
                    let outcome = Outcome::killed(by);
                    return vec![What::Stopped { attempt: Some(id.attempt), outcome }];
                }
                vec![What::Refused { attempt: id.attempt, reason: reason.clone(), not_before }]
            };
            plans.push((job, Box::new(plan)));
        }
        for card in self.stamp(plans)? {
            self.tell_end(&card);
        }
        Ok(())
    }

    /// Ends attempts of a node of which nobody knows what became. That they are to be asked about
    /// when it answers is durable before.
    pub(super) fn lose(&mut self, node: &str, ids: Vec<String>, why: &str) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        self.observe(node, |record| {
            let fresh: Vec<&String> =
                ids.iter().filter(|id| !record.given_up.contains(id)).collect();
            record.given_up.extend(fresh.into_iter().cloned());
        })?;
        let mut plans: Vec<Plan> = Vec::new();
        for id in ids.iter().filter_map(|id| NodejobId::parse(id)) {
            let why = why.to_string();
            let job = id.job;
            plans.push((
                job,
                Box::new(move |card: &Card| {
                    if !card.is_current(&id) {
                        return Vec::new();
                    }
                    if card.array.is_some() {
                        return ranges::give_up(card, &id, &why);
                    }
                    let outcome = match (card.state, &card.stopping_by) {
                        (State::Stopping, Some(by)) => Outcome::killed_unseen(by, &why),
                        _ => Outcome::lost(&why),
                    };
                    vec![card.after_attempt(id.attempt, outcome, true)]
                }),
            ));
        }
        for card in self.stamp(plans)? {
            self.tell_end(&card);
        }
        Ok(())
    }
}

/// What is to happen to a card, worked out again from the card as it is under the lock.
pub(super) type PlanFn = Box<dyn Fn(&Card) -> Vec<What>>;
pub(super) type Plan = (u64, PlanFn);

fn after(delay: Duration) -> String {
    clock::rfc3339(SystemTime::now().checked_add(delay).unwrap_or(SystemTime::now()))
}
