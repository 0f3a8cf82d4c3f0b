//! What an event does to a card, and what follows from it. One story for all jobs: a plain job has one
//! task, and its lines, which name none, are about that.

use super::attempt::Attempt;
use super::card::Card;
use super::event::{Event, What};
use super::outcome::Outcome;
use super::report::Report;
use super::state::State;
use super::tasks::TaskSet;
use super::usage::Usage;
use crate::clock::Wait;

impl Card {
    /// Adds one event and all that follows from it. Events that make no sense in the present
    /// state are kept in `events` and change nothing: after the end, nothing does.
    pub fn apply(&mut self, event: Event) {
        self.add(event);
        self.see_state();
    }

    /// The same; the state is to be seen after that.
    pub(super) fn add(&mut self, event: Event) {
        if self.outcome.is_none() {
            self.follow(&event);
        }
        self.events.push(event);
    }

    fn follow(&mut self, event: &Event) {
        let plain = !self.is_array();
        match &event.what {
            What::Held { .. } => self.tasks.held = true,
            What::Released { .. } => self.tasks.release(),
            What::Priority { priority, .. } => self.priority = *priority,
            What::Placed { tasks, .. } => {
                let given = if plain { Some(TaskSet::alone()) } else { tasks.clone() };
                if let Some(given) = given.filter(|given| self.may_be_placed(given)) {
                    self.tasks.take_waiting(&given);
                    self.push_attempt(event, given);
                }
            }
            What::Running { attempt, pid, started, enforced } => {
                if let Some(live) = live(&mut self.attempts, *attempt) {
                    live.enforced.clone_from(enforced);
                    live.pid = *pid;
                    live.started_at = started.clone().or_else(|| Some(event.at.clone()));
                }
            }
            What::Ref { attempt, reference } => {
                if let Some(live) = live(&mut self.attempts, *attempt) {
                    live.reference = Some(reference.clone());
                }
            }
            What::Trouble { attempt, reason } => {
                if let Some(live) = live(&mut self.attempts, *attempt) {
                    live.trouble = Some(reason.clone());
                }
            }
            What::Stopping { by, tasks: Some(tasks) } if !plain => {
                // Otherwise they had a killer.
                if self.stopping_by.is_none() {
                    self.tasks.kill(by, tasks, &self.attempts);
                }
            }
            What::Stopping { by, .. } => {
                self.stopping_by.get_or_insert_with(|| by.clone());
            }
            What::Refused { attempt, reason, not_before } => {
                let until = Wait::read(&event.at, not_before);
                self.refused(*attempt, reason, until, &event.at);
            }
            What::Retry { attempt, outcome, not_before, usage } if plain => {
                if live(&mut self.attempts, *attempt).is_none() {
                    return;
                }
                let why = outcome.reason.as_deref().unwrap_or("no reason given");
                self.requeue_reason = Some(format!("attempt {attempt} ended: {why}"));
                let end = End {
                    retry: TaskSet::alone(),
                    not_before,
                    ended: Some(outcome),
                    usage: *usage,
                };
                self.end_tasks(*attempt, &Report::default(), end, &event.at);
            }
            What::Tasks { attempt: None, report, .. } if !plain => self.tasks.end_waiting(report),
            What::Tasks { attempt: Some(attempt), report, retry, not_before, ended, usage }
                if !plain =>
            {
                let retry = TaskSet::union(retry.iter().map(|group| &group.tasks));
                let end = End { retry, not_before, ended: ended.as_ref(), usage: *usage };
                self.end_tasks(*attempt, report, end, &event.at);
            }
            What::Stopped { attempt, outcome, usage } => {
                if plain {
                    // The end of the whole is that of its task, wherever that is.
                    if let Some(live) = attempt.and_then(|n| live(&mut self.attempts, n)) {
                        live.outcome = Some(outcome.clone());
                        live.usage = *usage;
                        live.ended_at = Some(event.at.clone());
                    }
                    self.attempts.iter_mut().for_each(|attempt| attempt.left = TaskSet::default());
                    self.tasks.end_alone(outcome);
                }
                self.outcome = Some(outcome.clone());
                self.stopped_at = Some(event.at.clone());
            }
            What::Late { .. } | What::Retry { .. } | What::Tasks { .. } => {}
        }
    }

    /// Whether these tasks may be placed as they are named.
    fn may_be_placed(&self, tasks: &TaskSet) -> bool {
        self.stopping_by.is_none() && self.tasks.has_waiting(tasks)
    }

    fn push_attempt(&mut self, event: &Event, given: TaskSet) {
        let What::Placed { attempt, node, nodejob, driver, uri, tasks } = &event.what else {
            return;
        };
        self.attempts.push(Attempt {
            attempt: *attempt,
            node: node.clone(),
            nodejob: nodejob.clone(),
            driver: *driver,
            uri: uri.clone(),
            placed_at: event.at.clone(),
            started_at: None,
            pid: None,
            reference: None,
            ended_at: None,
            outcome: None,
            usage: None,
            enforced: None,
            refused: None,
            trouble: None,
            tasks: tasks.clone(),
            left: given,
            returned: TaskSet::default(),
            reported_at: None,
        });
    }

    fn refused(&mut self, number: u32, reason: &str, until: Option<Wait>, at: &str) {
        let plain = !self.is_array();
        let Some(live) = live(&mut self.attempts, number) else { return };
        live.refused = Some(reason.to_string());
        self.tasks.close(live, at);
        self.tasks.hold_up(live, until);
        if plain {
            self.requeue_reason = Some(format!("not started on {}: {reason}", live.node));
        }
    }

    /// Tasks of an attempt ended, and perhaps the attempt. Tasks that are named and that are
    /// elsewhere are left where they are.
    fn end_tasks(&mut self, number: u32, report: &Report, end: End, at: &str) {
        let Some(live) = live(&mut self.attempts, number) else { return };
        let until = end.not_before.as_deref().and_then(|time| Wait::read(at, time));
        self.tasks.end(live, report, &end.retry, until);
        live.reported_at = Some(at.to_string());
        if let Some(outcome) = end.ended {
            live.outcome = Some(outcome.clone());
            live.usage = end.usage;
            self.tasks.close(live, at);
        }
    }

    /// A job is in the state of the furthest of its attempts that nodes have.
    pub(super) fn see_state(&mut self) {
        let mut live = self.attempts.iter().filter(|a| a.ended_at.is_none()).peekable();
        self.state = match () {
            () if self.outcome.is_some() => State::Stopped,
            () if live.peek().is_some() && self.stopping_by.is_some() => State::Stopping,
            () if live.peek().is_some() => {
                if live.any(|a| a.started_at.is_some()) {
                    State::Running
                } else {
                    State::Placed
                }
            }
            () if self.tasks.held => State::Held,
            () => State::Queued,
        };
    }
}

/// The attempt of this number, while no end of it is known.
fn live(attempts: &mut [Attempt], number: u32) -> Option<&mut Attempt> {
    attempts.iter_mut().rfind(|a| a.attempt == number && a.ended_at.is_none())
}

/// What follows for tasks of an attempt besides those that ended for good.
struct End<'e> {
    /// Those wait again...
    retry: TaskSet,
    /// ...and are not placed before.
    not_before: &'e Option<String>,
    /// How the attempt itself ended, if it did: the rest of its tasks waits again.
    ended: Option<&'e Outcome>,
    /// What it has used.
    usage: Option<Usage>,
}
