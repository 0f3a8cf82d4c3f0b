//! The tasks of a job: which wait, which a node has, how the others ended.
//!
//! An array is one card. Its tasks travel in ranges: an attempt of an array is a range of tasks
//! that one node has, and there may be several attempts at a time. A plain job is an array of one task,
//! which no line names. At any moment each task waits, is part of one attempt that has not ended, or has
//! ended for good: what is done here keeps it so whatever the lines of a card say.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::attempt::Attempt;
use super::outcome::Outcome;
use super::report::{Ended, Report, add_ended};
use super::tasks::{ALONE, ArraySpec, TaskSet};
use crate::clock::{self, Wait};

/// Attempts by which the pace is judged: the last ones.
const JUDGED: usize = 8;

/// What a job's story says of its tasks.
#[derive(Debug, Clone)]
pub struct Tasks {
    /// All tasks, and how many may be with nodes at a time. Of a plain job [`ALONE`].
    pub spec: ArraySpec,
    /// Not with a node, and not ended.
    pub waiting: TaskSet,
    /// Those of `waiting` that are not to be placed before a time.
    later: Vec<(Wait, TaskSet)>,
    /// How the others ended.
    pub ended: Report,
    /// How often tasks were tried again; absent is never.
    tries: BTreeMap<u32, u32>,
    /// Tasks that somebody killed while a node had them.
    pub unwanted: TaskSet,
    /// Who did. A task's first killer is its killer.
    pub killers: Vec<(String, TaskSet)>,
    /// Whether none of what waits is to be placed until it is released.
    pub held: bool,
    /// Nodes that would not have a range of an array: none is placed there before. Others are not held
    /// up. See `hold_up`.
    pub refused: BTreeMap<String, Wait>,
}

impl Tasks {
    /// Those of a job of which nothing has been placed: of an array that is so specified, or of a plain
    /// job.
    pub fn new(array: Option<&ArraySpec>, held: bool) -> Tasks {
        let alone = || ArraySpec { tasks: TaskSet::alone(), at_once: None };
        let spec = array.map_or_else(alone, ArraySpec::clone);
        Tasks {
            waiting: spec.tasks.clone(),
            spec,
            later: Vec::new(),
            ended: Report::default(),
            tries: BTreeMap::new(),
            unwanted: TaskSet::default(),
            killers: Vec::new(),
            held,
            refused: BTreeMap::new(),
        }
    }

    /// Whether they are an array's. Else there is one, which has no number.
    pub fn is_array(&self) -> bool {
        self.spec.tasks.first() != Some(ALONE)
    }

    /// What waits goes on: whoever wants that does not want it to wait for a time either.
    pub(super) fn release(&mut self) {
        self.held = false;
        self.later.clear();
        self.refused.clear();
    }

    /// Somebody kills tasks that nodes have; of each the first killer counts.
    pub(super) fn kill(&mut self, by: &str, tasks: &TaskSet, attempts: &[Attempt]) {
        let mut out = TaskSet::default();
        attempts.iter().for_each(|attempt| out.add(&attempt.left));
        let tasks = tasks.within(&out).without(&self.unwanted);
        self.unwanted.add(&tasks);
        match self.killers.iter_mut().find(|(killer, _)| killer == by) {
            Some((_, known)) => known.add(&tasks),
            None => self.killers.push((by.to_string(), tasks)),
        }
    }

    /// Tasks that waited ended.
    pub(super) fn end_waiting(&mut self, report: &Report) {
        let report = report.within(&self.waiting);
        self.take_waiting(&report.tasks());
        self.note(&report);
    }

    /// Tasks of an attempt ended, for good or to be tried again after a while.
    pub(super) fn end(
        &mut self,
        attempt: &mut Attempt,
        report: &Report,
        retry: &TaskSet,
        until: Option<Wait>,
    ) {
        let report = report.within(&attempt.left);
        attempt.left = attempt.left.without(&report.tasks());
        self.note(&report);
        let retry = retry.within(&attempt.left);
        attempt.left = attempt.left.without(&retry);
        retry.iter().for_each(|task| *self.tries.entry(task).or_default() += 1);
        self.waiting.add(&retry);
        self.later.extend(until.filter(|_| !retry.is_empty()).map(|time| (time, retry)));
    }

    /// The one task of a plain job ended.
    pub(super) fn end_alone(&mut self, outcome: &Outcome) {
        self.waiting = TaskSet::default();
        self.later.clear();
        self.ended.add(&self.spec.tasks, outcome);
    }

    /// An attempt has ended: what is left of it waits again.
    pub(super) fn close(&mut self, attempt: &mut Attempt, at: &str) {
        attempt.returned = std::mem::take(&mut attempt.left);
        self.waiting.add(&attempt.returned);
        attempt.ended_at = Some(at.to_string());
    }

    /// A node would not have an attempt, which holds up what there is to be held up: of an array its
    /// ranges on that node, since others may take them; else the job, which waits as a whole.
    pub(super) fn hold_up(&mut self, attempt: &Attempt, until: Option<Wait>) {
        let Some(until) = until else { return };
        if self.is_array() {
            self.refused.insert(attempt.node.clone(), until);
        } else {
            self.later.push((until, attempt.returned.clone()));
        }
    }

    /// Whether all of these wait.
    pub(super) fn has_waiting(&self, tasks: &TaskSet) -> bool {
        !tasks.is_empty() && self.waiting.contains_all(tasks)
    }

    /// Takes tasks that a node has, or that ended, from those that wait.
    pub(super) fn take_waiting(&mut self, tasks: &TaskSet) {
        self.waiting = self.waiting.without(tasks);
        for (_, later) in &mut self.later {
            *later = later.without(tasks);
        }
        self.later.retain(|(_, later)| !later.is_empty());
    }

    fn note(&mut self, report: &Report) {
        self.ended.good.add(&report.good);
        for group in &report.failed {
            add_ended(&mut self.ended.failed, &group.tasks, &group.outcome);
        }
    }

    /// Whether every task has ended.
    pub fn is_finished(&self) -> bool {
        self.waiting.is_empty() && self.ended.tasks() == self.spec.tasks
    }

    /// Whether tasks wait for a time, or a node is not asked again before one.
    pub(super) fn pauses(&self, now: SystemTime) -> bool {
        let nodes = self.refused.values();
        self.next_time(now).is_some() || nodes.filter_map(|wait| wait.goes_on(now)).count() > 0
    }

    /// Tasks that may be placed now.
    pub fn ready(&self, now: SystemTime) -> TaskSet {
        let later = self.later.iter().filter(|(wait, _)| wait.goes_on(now).is_some());
        self.waiting.without(&TaskSet::union(later.map(|(_, tasks)| tasks)))
    }

    /// Until when a task that waits is not placed, if that lies ahead.
    pub fn not_before(&self, task: u32, now: SystemTime) -> Option<SystemTime> {
        let later = self.later.iter().filter(|(_, tasks)| tasks.contains(task));
        later.filter_map(|(wait, _)| wait.goes_on(now)).max()
    }

    /// Until when no range is placed on this node, since it would not have one.
    pub fn refused_until(&self, node: &str, now: SystemTime) -> Option<SystemTime> {
        self.refused.get(node)?.goes_on(now)
    }

    /// When more tasks may be placed than now.
    pub fn next_time(&self, now: SystemTime) -> Option<SystemTime> {
        self.later.iter().filter_map(|(wait, _)| wait.goes_on(now)).min()
    }

    /// The tasks that ended, and not well.
    pub fn failed(&self) -> TaskSet {
        TaskSet::union(self.ended.failed.iter().map(|group| &group.tasks))
    }

    /// How a task ended.
    pub fn outcome_of(&self, task: u32) -> Option<Outcome> {
        if self.ended.good.contains(task) {
            return Some(Outcome::exit(0));
        }
        let group = self.ended.failed.iter().find(|group| group.tasks.contains(task));
        group.map(|group| group.outcome.clone())
    }

    /// How often a task has been tried again.
    pub fn retries_of(&self, task: u32) -> u32 {
        self.tries.get(&task).copied().unwrap_or(0)
    }

    /// The tasks that were, or are to be, tried again.
    pub fn tried_again(&self) -> TaskSet {
        self.tries.keys().copied().collect()
    }

    /// The most often that any task has been tried again.
    pub fn most_retries(&self) -> u32 {
        self.tries.values().copied().max().unwrap_or(0)
    }

    /// The end of the whole: good if every task was, else that of the lowest index which was not. A
    /// kill of the whole is told besides: it ended what it ended, and nothing of what was before.
    pub fn outcome(&self, killed_by: Option<&str>) -> Outcome {
        let failed = self.failed();
        let Some(first) = failed.first() else { return Outcome::exit(0) };
        let first = self.outcome_of(first).unwrap_or_else(|| Outcome::lost("not reported"));
        let by_it = |outcome: &Outcome| killed_by.is_some_and(|by| outcome.is_killed_by(by));
        let killed = self.ended.failed.iter().filter(|group| by_it(&group.outcome));
        let killed = TaskSet::union(killed.map(|group| &group.tasks));
        if killed == failed {
            return first;
        }
        let which = failed.brief();
        let why = first.reason.as_deref().unwrap_or("no reason given");
        let total = self.spec.tasks.len();
        let mut reason =
            format!("{} of {total} tasks failed: {which} (the first: {why})", failed.len());
        if let Some(by) = killed_by.filter(|_| !killed.is_empty()) {
            reason.push_str(&format!("; of these {} killed by {by}", killed.len()));
        }
        Outcome { reason: Some(reason), ..first }
    }

    /// How a report divides the tasks of a range: those that ended for good, and those that are
    /// to be tried again, since they failed and have retries left. `unproven` is a loss that only silence
    /// speaks for: the program may still run, so such a loss is retried only with `retry_lost`.
    pub fn divide(
        &self,
        report: Report,
        max_retries: u32,
        retry_lost: bool,
        unproven: bool,
    ) -> (Report, Vec<Ended>) {
        let mut last = Report { good: report.good, failed: Vec::new() };
        let mut again = Vec::new();
        for Ended { tasks, outcome } in report.failed {
            let repeat = outcome.may_repeat(retry_lost, unproven);
            let can = |task: &u32| {
                repeat && self.retries_of(*task) < max_retries && !self.unwanted.contains(*task)
            };
            let retried: TaskSet = tasks.iter().filter(can).collect();
            last.add(&tasks.without(&retried), &outcome);
            if !retried.is_empty() {
                add_ended(&mut again, &retried, &outcome);
            }
        }
        (last, again)
    }
}

/// How long a task takes, going by the last ranges that have ended tasks; `None` if none has.
pub fn pace(attempts: &[Attempt]) -> Option<Duration> {
    let (mut tasks, mut time) = (0u64, Duration::ZERO);
    let reported = attempts.iter().rev().filter_map(|attempt| {
        let until = clock::parse_rfc3339(attempt.reported_at.as_deref()?)?;
        let since = clock::parse_rfc3339(&attempt.placed_at)?;
        let ended = attempt.tasks.as_ref()?.len() - attempt.left.len();
        Some((ended, until.duration_since(since).unwrap_or_default()))
    });
    for (ended, took) in reported.filter(|(ended, _)| *ended > 0).take(JUDGED) {
        tasks += ended;
        time += took;
    }
    (tasks > 0).then(|| Duration::from_secs_f64(time.as_secs_f64() / tasks as f64))
}
