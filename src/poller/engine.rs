//! One round after another: wake-ups in, transitions and orders out.
//!
//! A round takes in everything that came since the last one, records the nodes' reports with one
//! sync, stamps and moves what is to be placed with another, and only then talks to nodes. What a
//! crash cuts short is found by the next poller on the cards: a placed card is asked about, and
//! sent again if its node does not know it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime};

use super::Wake;
use super::index::Index;
use super::link::{Link, Order};
use super::notice;
use super::step::Step;
use crate::attempts;
use crate::board::cards::{CARDS_PER_LOCK, Cards};
use crate::board::files::SyncSet;
use crate::board::root::Root;
use crate::board::{batches, nodes, uploads};
use crate::clock;
use crate::driver::{Answer, Run};
use crate::error::{Error, Kind, Result};
use crate::model::card::{Card, Column, State, What};
use crate::model::ids::NodejobId;
use crate::model::node::{Node, NodeState};
use crate::model::outcome::{Cause, Outcome, RunState, RunStatus};
use crate::model::resources::Resources;
use crate::processor;

use super::pace::Paces;

/// Most jobs that are placed before reports are looked at again.
const PLACED_PER_ROUND: usize = 256;

/// Every so many scans, nodes are asked about every job that they have.
const SCANS_PER_RESYNC: u32 = 6;

/// Longest wait before a job that nodes keep refusing is placed again.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// How exact `last_seen` in a node's record is.
const LAST_SEEN_EVERY: Duration = Duration::from_secs(60);

/// Whether to go on after a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Until asked to end.
    End,
    /// Until nothing is left to do at once: for cron.
    Idle,
    /// Until this job has ended.
    Stopped(u64),
}

/// A directory's time is trusted to tell changes apart once it is so old.
const GRAIN: Duration = Duration::from_secs(2);

/// Pause after a round that failed.
const AFTER_ERROR: Duration = Duration::from_millis(500);

/// Longest time that [`Until::Idle`] takes.
const ONCE_AT_MOST: Duration = Duration::from_secs(50);

/// See the module.
pub struct Engine<'r> {
    root: &'r Root,
    cards: Cards<'r>,
    index: Index,
    nodes: BTreeMap<String, Node>,
    links: BTreeMap<String, Link>,
    paces: Paces,
    wakes: Receiver<Wake>,
    waker: Sender<Wake>,
    step: Step,
    once: bool,
    quiet: bool,
    /// Orders whose answers are outstanding.
    outstanding: usize,
    seen: BTreeMap<String, Instant>,
    scans: u32,
    /// When queue and running cards last changed, once they were looked at after that.
    settled: Option<(SystemTime, SystemTime)>,
    ending: bool,
}

impl<'r> Engine<'r> {
    /// An engine for this root. The caller holds the poller's lock. `quiet`: say nothing.
    pub fn new(root: &'r Root, step: Step, quiet: bool) -> Engine<'r> {
        let (waker, wakes) = channel();
        Engine {
            root,
            cards: Cards::new(root),
            index: Index::default(),
            nodes: BTreeMap::new(),
            links: BTreeMap::new(),
            paces: Paces::default(),
            wakes,
            waker,
            step,
            once: false,
            quiet,
            outstanding: 0,
            seen: BTreeMap::new(),
            scans: 0,
            settled: None,
            ending: false,
        }
    }

    /// Where to send wake-ups.
    pub fn waker(&self) -> Sender<Wake> {
        self.waker.clone()
    }

    /// Works until the end that was asked for. An error of one round (a full disk, say) is told,
    /// and the work goes on at the next scan.
    pub fn run(&mut self, until: Until) -> Result<()> {
        self.once = until == Until::Idle;
        if !self.once {
            notice::watch_board(self.root, &self.waker)?;
        }
        let begin = Instant::now();
        let mut next_scan = begin;
        while !self.ending {
            let now = Instant::now();
            let mut wakes = Vec::new();
            let scan = now >= next_scan;
            if scan {
                next_scan = now + self.root.settings.scan_every;
            } else {
                wakes.extend(self.next_wakes(next_scan - now));
            }
            let result = if scan { self.scan() } else { Ok(()) };
            if let Err(error) = result.and_then(|()| self.round(wakes)) {
                eprintln!("poller: {}", error.message);
                // What could not be recorded is still on the nodes and on the board.
                std::thread::sleep(AFTER_ERROR);
                self.scans = 0;
                next_scan = Instant::now();
                self.resync_all();
            }
            let done = match until {
                Until::End => false,
                Until::Idle => {
                    self.outstanding == 0 && self.all_answered() || begin.elapsed() > ONCE_AT_MOST
                }
                Until::Stopped(job) => {
                    !self.index.knows(job)
                        && self.cards.find(job).is_ok_and(|card| card.state == State::Stopped)
                }
            };
            if done {
                break;
            }
        }
        // What the nodes were to be told is told.
        for (_, link) in std::mem::take(&mut self.links) {
            link.close();
        }
        Ok(())
    }

    /// Whether every node has said whether it is up.
    fn all_answered(&self) -> bool {
        self.links.keys().all(|node| self.seen.contains_key(node))
    }

    fn next_wakes(&mut self, patience: Duration) -> Vec<Wake> {
        let soon = self
            .index
            .next_time()
            .map(|time| time.duration_since(SystemTime::now()).unwrap_or_default());
        let patience = soon.map_or(patience, |soon| soon.min(patience));
        let patience = if self.once { patience.min(Duration::from_millis(100)) } else { patience };
        match self.wakes.recv_timeout(patience) {
            Ok(first) => std::iter::once(first).chain(self.wakes.try_iter()).collect(),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Vec::new(),
        }
    }

    /// Wake-ups that come until the deadline.
    pub(super) fn wakes_until(&mut self, deadline: Instant) -> Vec<Wake> {
        let patience = deadline.saturating_duration_since(Instant::now());
        self.wakes.recv_timeout(patience).into_iter().collect()
    }

    fn say(&self, line: &str) {
        if !self.quiet {
            eprintln!("{line}");
        }
    }

    /// Looks at everything that wake-ups may have missed.
    fn scan(&mut self) -> Result<()> {
        let restored = batches::recover(&self.cards)? + self.cards.recover_prepared()?;
        if restored > 0 {
            self.say(&format!("recovered {restored} submitted jobs"));
        }
        self.load_nodes()?;
        let full = self.scans == 0;
        for job in self.changed_jobs(full)? {
            self.look(job)?;
        }
        processor::sweep::sweep(self.root)?;
        self.scans += 1;
        if self.scans.is_multiple_of(SCANS_PER_RESYNC) {
            self.resync_all();
        }
        self.give_up_unreachable()
    }

    /// Jobs that came to the queue or to the running cards, or left them, without our knowing;
    /// with `full` all of them. A column whose directory did not change costs one stat.
    fn changed_jobs(&mut self, full: bool) -> Result<BTreeSet<u64>> {
        let seen = [Column::Queue, Column::Running].map(|c| self.cards.changed_at(c));
        let [queue, running] = seen;
        let settled = (queue?, running?);
        if !full && self.settled == Some(settled) {
            return Ok(BTreeSet::new());
        }
        let mut jobs: BTreeSet<u64> = self.index.waiting().collect();
        jobs.extend(self.index.on_nodes().map(|(job, _)| job));
        for column in [Column::Queue, Column::Running] {
            for job in self.cards.numbers(column)? {
                if full || !jobs.remove(&job) {
                    jobs.insert(job);
                }
            }
        }
        // A change within the clock's grain of the look could hide behind an equal time.
        let old = SystemTime::now() - GRAIN;
        self.settled = (settled.0 < old && settled.1 < old).then_some(settled);
        Ok(jobs)
    }

    /// Reads a card again, and acts on what it says.
    fn look(&mut self, job: u64) -> Result<()> {
        for column in [Column::Queue, Column::Running] {
            if let Some(card) = self.cards.read_in(column, job)? {
                if card.column() == column {
                    self.take_in(&card);
                } else {
                    self.stamp(vec![(job, Box::new(|_| Vec::new()))])?;
                }
                return Ok(());
            }
        }
        if !self.index.knows(job) {
            return Ok(());
        }
        // In no column that concerns us, on the move, or unreadable: now for certain.
        let lock = self.cards.lock()?;
        match self.cards.change(&lock, job, |_| Ok(Vec::new())) {
            Ok(changed) => self.take_in(&changed.card),
            Err(e) if matches!(e.kind, Kind::NotFound | Kind::Gone) => self.index.remove(job),
            Err(e) => return Err(e),
        }
        Ok(())
    }

    fn take_in(&mut self, card: &Card) {
        self.index.put(card);
        if card.state == State::Stopping {
            self.order_kill(card.job());
        }
    }

    fn round(&mut self, wakes: Vec<Wake>) -> Result<()> {
        let mut reports = Vec::new();
        let mut touched = BTreeSet::new();
        for wake in wakes {
            match wake {
                Wake::Card(job) => {
                    touched.insert(job);
                }
                Wake::Batch => {}
                Wake::Nodes => self.load_nodes()?,
                Wake::Overflow => {
                    self.scans = 0;
                    self.scan()?;
                }
                Wake::End => self.ending = true,
                Wake::Up { node, resources } => self.up(&node, resources)?,
                Wake::Down { node, error } => self.down(&node, &error)?,
                Wake::Feed { node, events } => {
                    self.heard(&node)?;
                    self.paces.note(&node, &events);
                    reports.extend(events);
                }
                Wake::Sent { node, ids, results } => self.sent(&node, ids, results)?,
                Wake::Statuses { node, ids, answers } => {
                    reports.extend(self.statuses(&node, ids, answers)?);
                }
                Wake::Killed { node, id, status } => {
                    reports.extend(self.killed(&node, &id, status));
                }
            }
        }
        self.record(reports)?;
        for job in touched {
            self.look(job)?;
        }
        let expired = self.index.pass_time(SystemTime::now());
        self.expire(expired)?;
        self.place()
    }

    /// Records reports, all with one sync, then tells the nodes that their results are safe.
    fn record(&mut self, reports: Vec<RunStatus>) -> Result<()> {
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
            let from: BTreeMap<String, String> = self.origins(&batch);
            let applied = attempts::record(self.root, batch)?;
            for card in &applied.cards {
                self.tell_end(card);
                self.index.put(card);
                if card.state == State::Stopped {
                    uploads::remove(self.root, card.job())?;
                }
            }
            let mut safe: BTreeMap<&str, Vec<String>> = BTreeMap::new();
            for id in applied.safe {
                if let Some(node) = from.get(&id) {
                    safe.entry(node).or_default().push(id);
                }
            }
            for (node, ids) in safe {
                self.order(node, Order::Acknowledge(ids));
            }
            for id in applied.stale {
                let node = from.get(&id).cloned().unwrap_or_default();
                self.say(&format!("{id}: given up before, still runs on {node}: killed"));
                let by = "the head, which had given it up".to_string();
                self.order(&node, Order::Kill { id, grace: None, by });
            }
            if !applied.cards.is_empty() {
                self.step.after(self.root)?;
            }
        }
        Ok(())
    }

    /// The node of each attempt that reports are about.
    fn origins(&self, reports: &[RunStatus]) -> BTreeMap<String, String> {
        let mut origins = BTreeMap::new();
        for report in reports {
            let Some(id) = report.id.as_deref().and_then(NodejobId::parse) else { continue };
            let name = id.to_string();
            let node = match self.index.on_node(id.job).filter(|known| known.id == name) {
                Some(known) => Some(known.node.clone()),
                None => self.cards.find(id.job).ok().and_then(|card| {
                    let attempt = card.attempts.iter().find(|a| a.nodejob == name)?;
                    Some(attempt.node.clone())
                }),
            };
            if let Some(node) = node {
                origins.insert(name, node);
            }
        }
        origins
    }

    fn show_reports(&self, reports: &[RunStatus]) {
        if !self.step.is_shown() {
            return;
        }
        for report in reports {
            let id = report.id.as_deref().and_then(NodejobId::parse);
            if let Some(id) = id
                && let Ok(card) = self.cards.find(id.job)
            {
                self.step.before(&card, &attempts::decide(&card, &[(id, report.clone())]));
            }
        }
    }

    fn tell_end(&self, card: &Card) {
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
                format!("job {job}: stopped, {status} ({}) on {node}", why(outcome))
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
    fn stamp(&mut self, plans: Vec<Plan>) -> Result<Vec<Card>> {
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
                        self.index.remove(*job);
                    }
                    Err(e) => return Err(e),
                }
            }
            drop(lock);
            self.step.after(self.root)?;
        }
        sync.commit()?;
        for card in &changed_cards {
            self.take_in(card);
        }
        Ok(changed_cards)
    }

    fn expire(&mut self, jobs: Vec<u64>) -> Result<()> {
        if jobs.is_empty() {
            return Ok(());
        }
        let plan = |card: &Card| {
            let due = card.expires_at().is_some_and(|time| time <= SystemTime::now());
            if !due || card.column() != Column::Queue {
                return Vec::new();
            }
            let reason = "expired before a node had room".to_string();
            vec![What::Stopped { attempt: None, outcome: Outcome::error(Cause::Expired, reason) }]
        };
        let plans = jobs.into_iter().map(|job| (job, Box::new(plan) as PlanFn)).collect();
        for card in self.stamp(plans)? {
            self.tell_end(&card);
        }
        Ok(())
    }

    /// Places what fits, records it, and only then tells the nodes.
    fn place(&mut self) -> Result<()> {
        loop {
            for (node, ahead) in self.paces.ahead(self.nodes.keys()) {
                self.index.rooms.room(&node).ahead = ahead;
            }
            let at_once = if self.step.is_shown() { 1 } else { PLACED_PER_ROUND };
            let mut plans: Vec<Plan> = Vec::new();
            let mut reserved = Vec::new();
            while plans.len() < at_once {
                let index = &mut self.index;
                let Some((candidate, node)) = index.ready.place_next(&mut index.rooms) else {
                    break;
                };
                reserved.push((node.clone(), candidate.resources));
                let Some(node) = self.nodes.get(&node).cloned() else { continue };
                let root = self.root.clone();
                plans.push((candidate.job, Box::new(move |card| place_plan(&root, card, &node))));
            }
            let count = plans.len();
            if count == 0 {
                return Ok(());
            }
            let placed = self.stamp(plans);
            // A card that was placed has taken its room itself by now.
            for (node, resources) in reserved {
                self.index.rooms.give_back(&node, &resources);
            }
            self.send(&placed?)?;
            if count < at_once || !self.once {
                return if count < at_once { Ok(()) } else { self.yield_round() };
            }
        }
    }

    /// More is to be placed, but reports come first.
    fn yield_round(&self) -> Result<()> {
        let _ = self.waker.send(Wake::Batch); // our own receiver is alive
        Ok(())
    }

    /// Sends placed cards to their nodes.
    fn send(&mut self, cards: &[Card]) -> Result<()> {
        let mut orders: BTreeMap<String, Vec<Run>> = BTreeMap::new();
        for card in cards.iter().filter(|card| card.state == State::Placed) {
            let Some(attempt) = card.with_node() else { continue };
            self.say(&format!(
                "job {}: placed on {} as {}",
                card.job(),
                attempt.node,
                attempt.nodejob
            ));
            let run = attempts::run(self.root, card, attempt)?;
            orders.entry(attempt.node.clone()).or_default().push(run);
        }
        for (node, runs) in orders {
            self.order(&node, Order::Run(runs));
        }
        Ok(())
    }

    fn order(&mut self, node: &str, order: Order) {
        if let Some(link) = self.links.get(node) {
            if !matches!(order, Order::Acknowledge(_)) {
                self.outstanding += 1;
            }
            link.order(order);
        }
    }

    fn order_kill(&mut self, job: u64) {
        let Some(known) = self.index.on_node_mut(job).filter(|known| !known.kill_sent) else {
            return;
        };
        known.kill_sent = true;
        let by = known.stopping_by.clone().unwrap_or_else(|| "a user".into());
        let (node, id, grace) = (known.node.clone(), known.id.clone(), known.grace);
        self.say(&format!("job {job}: to be killed on {node}, asked by {by}"));
        self.order(&node, Order::Kill { id, grace, by });
    }

    fn answered(&mut self) {
        self.outstanding = self.outstanding.saturating_sub(1);
    }

    /// A node's word on attempts that it was sent.
    fn sent(
        &mut self,
        node: &str,
        ids: Vec<String>,
        results: Result<Vec<Result<()>>>,
    ) -> Result<()> {
        self.answered();
        let results = match results {
            Ok(results) => results,
            Err(error) => vec![Err(error); ids.len()],
        };
        let mut refused = Vec::new();
        let mut ask = Vec::new();
        for (id, result) in ids.into_iter().zip(results) {
            let Err(error) = result else { continue };
            match error.kind {
                // It may have been accepted: ask the same node again, never another.
                Kind::GatewayTimeout | Kind::BadGateway | Kind::Internal => {
                    self.down(node, &error)?;
                    ask.push(id);
                }
                Kind::Unprocessable | Kind::Gone => {
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

    fn known_mut(&mut self, id: &str) -> Option<&mut super::index::OnNode> {
        let job = NodejobId::parse(id)?.job;
        self.index.on_node_mut(job).filter(|known| known.id == id)
    }

    /// Takes attempts back that a node would not have: nothing ran.
    fn refuse(&mut self, refused: Vec<(String, String)>) -> Result<()> {
        let mut plans: Vec<Plan> = Vec::new();
        for (id, reason) in refused {
            let Some(id) = NodejobId::parse(&id) else { continue };
            let job = id.job;
            let plan = move |card: &Card| {
                if !card.is_current(&id) {
                    return Vec::new();
                }
                if let (State::Stopping, Some(by)) = (card.state, &card.stopping_by) {
                    let outcome = Outcome::killed(by);
                    return vec![What::Stopped { attempt: Some(id.attempt), outcome }];
                }
                let backoff = Duration::from_secs(1 << card.refusals_in_a_row().min(6));
                vec![What::Refused {
                    attempt: id.attempt,
                    reason: reason.clone(),
                    not_before: after(backoff.min(LONGEST_BACKOFF)),
                }]
            };
            plans.push((job, Box::new(plan)));
        }
        for card in self.stamp(plans)? {
            self.tell_end(&card);
        }
        Ok(())
    }

    /// A node's word on where jobs are: reports to record; what it does not know is sent again,
    /// or, if it had it once, given up after a while.
    fn statuses(
        &mut self,
        node: &str,
        ids: Vec<String>,
        answers: Result<Vec<Answer>>,
    ) -> Result<Vec<RunStatus>> {
        self.answered();
        let answers = match answers {
            Ok(answers) => answers,
            Err(error) => {
                self.down(node, &error)?;
                return Ok(Vec::new());
            }
        };
        let mut reports = Vec::new();
        let mut again = Vec::new();
        let mut refused = Vec::new();
        let mut lost = Vec::new();
        for (id, answer) in ids.into_iter().zip(answers) {
            let unknown_after = self.root.settings.unknown_after;
            let Some(known) = self.known_mut(&id) else { continue };
            let dispute = known.disputed.take();
            match answer {
                Answer::Known(status) => {
                    known.unknown_since = None;
                    if status.state != RunState::Queued {
                        reports.push(status.of(&id));
                    }
                }
                Answer::Cancelled => {
                    refused.push((id, "it was cancelled on the node".to_string()));
                }
                Answer::Unknown if known.state == State::Placed => match dispute {
                    Some(reason) => refused.push((id, reason)),
                    None => again.push(id),
                },
                Answer::Unknown if known.state == State::Stopping => {
                    known.kill_sent = false; // a kill of an unknown job forbids its start
                    again.push(id);
                }
                Answer::Unknown => {
                    let now = SystemTime::now();
                    let since = *known.unknown_since.get_or_insert(now);
                    if now.duration_since(since).unwrap_or_default() >= unknown_after {
                        lost.push(id);
                    }
                }
            }
        }
        for id in again {
            let Some(job) = NodejobId::parse(&id).map(|id| id.job) else { continue };
            let card = self.cards.find(job)?;
            match card.state {
                State::Stopping => self.order_kill(job),
                _ => self.send(&[card])?,
            }
        }
        self.refuse(refused)?;
        self.lose(lost, &format!("node {node} does not know it any more"))?;
        Ok(reports)
    }

    fn killed(&mut self, node: &str, id: &str, status: Result<RunStatus>) -> Option<RunStatus> {
        self.answered();
        match status {
            Ok(status) => Some(status.of(id)),
            Err(error) => {
                if let Some(known) = self.known_mut(id) {
                    known.kill_sent = false;
                }
                self.say(&format!(
                    "{id}: not killed on {node}: {}; will be repeated",
                    error.message
                ));
                None
            }
        }
    }

    /// Ends attempts of which nobody knows what became.
    fn lose(&mut self, ids: Vec<String>, why: &str) -> Result<()> {
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
                    let outcome = match (card.state, &card.stopping_by) {
                        (State::Stopping, Some(by)) => {
                            Outcome::error(Cause::Killed, format!("killed by {by}; {why}"))
                        }
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

    /// Gives up the jobs of nodes that did not answer for `lost_after`.
    fn give_up_unreachable(&mut self) -> Result<()> {
        let now = SystemTime::now();
        let lost_after = self.root.settings.lost_after;
        let mut ids = Vec::new();
        for node in self.nodes.values().filter(|n| n.state == NodeState::Disconnected) {
            let since = node.since.as_deref().and_then(clock::parse_rfc3339).unwrap_or(now);
            if now.duration_since(since).unwrap_or_default() >= lost_after {
                ids.extend(self.index.on(&node.name).map(|(_, known)| known.id.clone()));
            }
        }
        self.lose(ids, "abandoned (node unreachable)")
    }

    /// Asks every node about every job that it has.
    fn resync_all(&mut self) {
        for node in self.links.keys().cloned().collect::<Vec<_>>() {
            self.resync(&node);
        }
    }

    fn resync(&mut self, node: &str) {
        let ids: Vec<String> = self.index.on(node).map(|(_, known)| known.id.clone()).collect();
        let stopping: Vec<u64> = self
            .index
            .on(node)
            .filter(|(_, known)| known.state == State::Stopping && !known.kill_sent)
            .map(|(job, _)| job)
            .collect();
        if !ids.is_empty() {
            self.order(node, Order::Status(ids));
        }
        for job in stopping {
            self.order_kill(job);
        }
    }

    fn load_nodes(&mut self) -> Result<()> {
        let fresh: BTreeMap<String, Node> =
            nodes::list(self.root)?.into_iter().map(|node| (node.name.clone(), node)).collect();
        self.links.retain(|name, _| {
            let same = |old: &Node, new: &Node| (old.driver, &old.uri) == (new.driver, &new.uri);
            matches!((self.nodes.get(name), fresh.get(name)), (Some(old), Some(new)) if same(old, new))
        });
        self.index.rooms.retain(|name| fresh.contains_key(name));
        for node in fresh.values() {
            self.index.rooms.update(node);
            if !self.links.contains_key(&node.name) {
                self.seen.remove(&node.name);
                match Link::open(self.root, node, &self.waker, self.once) {
                    Ok(link) => {
                        self.links.insert(node.name.clone(), link);
                    }
                    Err(error) => self.say(&format!("node {}: {}", node.name, error.message)),
                }
            }
        }
        self.nodes = fresh;
        Ok(())
    }

    fn up(&mut self, node: &str, resources: Resources) -> Result<()> {
        self.seen.insert(node.to_string(), Instant::now());
        self.observe(node, |node| {
            if node.state != NodeState::Connected {
                node.since = Some(clock::now());
            }
            node.state = NodeState::Connected;
            node.reason = None;
            node.last_seen = Some(clock::now());
            if !node.fixed {
                node.resources = Some(resources);
            }
        })?;
        self.say(&format!("node {node}: connected, {}", resources.human()));
        for (_, known) in self.index.on_nodes_mut().filter(|(_, known)| known.node == node) {
            known.kill_sent = false;
        }
        self.resync(node);
        Ok(())
    }

    fn down(&mut self, node: &str, error: &Error) -> Result<()> {
        self.seen.insert(node.to_string(), Instant::now());
        let known = self.nodes.get(node).map(|n| (n.state, n.reason.as_deref()));
        if known == Some((NodeState::Disconnected, Some(error.message.as_str()))) {
            return Ok(());
        }
        self.say(&format!("node {node}: disconnected: {}", error.message));
        self.observe(node, |node| {
            if node.state != NodeState::Disconnected {
                node.since = Some(clock::now());
            }
            node.state = NodeState::Disconnected;
            node.reason = Some(error.message.clone());
        })
    }

    /// A node answered, even if it had nothing to say.
    fn heard(&mut self, node: &str) -> Result<()> {
        let Some(record) = self.nodes.get(node) else { return Ok(()) };
        if record.state != NodeState::Connected {
            if let Some(resources) = record.resources {
                return self.up(node, resources);
            }
            return Ok(());
        }
        let now = Instant::now();
        let recent = self.seen.get(node).is_some_and(|seen| now - *seen < LAST_SEEN_EVERY);
        if recent {
            return Ok(());
        }
        self.seen.insert(node.to_string(), now);
        self.observe(node, |node| node.last_seen = Some(clock::now()))
    }

    fn observe(&mut self, node: &str, change: impl FnOnce(&mut Node)) -> Result<()> {
        nodes::observe(self.root, node, change)?;
        if let Some(fresh) = nodes::find(self.root, node)? {
            self.index.rooms.update(&fresh);
            self.nodes.insert(node.to_string(), fresh);
        }
        Ok(())
    }
}

/// What is to happen to a card, worked out again from the card as it is under the lock.
type PlanFn = Box<dyn Fn(&Card) -> Vec<What>>;
type Plan = (u64, PlanFn);

fn place_plan(root: &Root, card: &Card, node: &Node) -> Vec<What> {
    let due = card.not_before.is_none_or(|time| time <= SystemTime::now());
    if card.state != State::Queued || !due {
        return Vec::new();
    }
    match attempts::place(root, card, node) {
        Ok(what) => vec![what],
        Err(error) => {
            eprintln!("poller: job {}: {}", card.job(), error.message);
            Vec::new()
        }
    }
}

fn after(delay: Duration) -> String {
    clock::rfc3339(SystemTime::now().checked_add(delay).unwrap_or(SystemTime::now()))
}
