//! What an event does to a card, and what follows from it.

use super::attempt::Attempt;
use super::card::Card;
use super::event::{Event, What};
use super::outcome::Outcome;
use super::state::{Column, State};
use super::tasks::TaskSet;
use crate::clock::Wait;

impl Card {
    /// Adds one event and all that follows from it. Events that make no sense in the present
    /// state are kept in `events` and change nothing: after the end, nothing does.
    pub fn apply(&mut self, event: Event) {
        self.add(event);
        self.see_state_of_array();
    }

    /// The same; the state of an array is to be seen after that.
    pub(super) fn add(&mut self, event: Event) {
        if self.array.is_some() {
            self.apply_to_array(&event);
        } else {
            self.apply_to_one(&event);
        }
        self.events.push(event);
    }

    fn apply_to_one(&mut self, event: &Event) {
        let current = self.attempts.last().map(|a| a.attempt);
        let waiting = self.state.column() == Column::Queue;
        let with_node = self.state.column() == Column::Running;
        match &event.what {
            What::Held { .. } if waiting => self.state = State::Held,
            What::Released { .. } if waiting => {
                self.state = State::Queued;
                self.not_before = None; // whoever releases it does not want it to wait for a time either
            }
            What::Priority { priority, .. } if self.state != State::Stopped => {
                self.priority = *priority;
            }
            What::Placed { .. } if waiting => {
                self.state = State::Placed;
                self.push_attempt(event);
            }
            What::Running { attempt, pid, started } if with_node && current == Some(*attempt) => {
                if self.state == State::Placed {
                    self.state = State::Running;
                }
                if let Some(last) = self.attempts.last_mut() {
                    last.pid = *pid;
                    last.started_at = started.clone().or_else(|| Some(event.at.clone()));
                }
            }
            What::Stopping { by, .. } if with_node => {
                self.state = State::Stopping;
                self.stopping_by.get_or_insert_with(|| by.clone());
            }
            What::Ref { attempt, reference } if with_node && current == Some(*attempt) => {
                if let Some(last) = self.attempts.last_mut() {
                    last.reference = Some(reference.clone());
                }
            }
            What::Trouble { attempt, reason } if with_node && current == Some(*attempt) => {
                if let Some(last) = self.attempts.last_mut() {
                    last.trouble = Some(reason.clone());
                }
            }
            What::Refused { attempt, reason, not_before }
                if with_node && current == Some(*attempt) =>
            {
                if let Some(last) = self.attempts.last_mut() {
                    last.refused = Some(reason.clone());
                    last.ended_at = Some(event.at.clone());
                    self.requeue_reason = Some(format!("not started on {}: {reason}", last.node));
                }
                self.state = State::Queued;
                self.not_before = Wait::read(&event.at, not_before);
            }
            What::Retry { attempt, outcome, not_before }
                if with_node && current == Some(*attempt) =>
            {
                self.end_attempt(outcome, &event.at);
                self.requeue_reason = Some(format!(
                    "attempt {attempt} ended: {}",
                    outcome.reason.as_deref().unwrap_or("no reason given")
                ));
                self.retries += 1;
                self.state = State::Queued;
                let not_before = not_before.as_deref();
                self.not_before = not_before.and_then(|time| Wait::read(&event.at, time));
            }
            What::Stopped { attempt, outcome } if self.state != State::Stopped => {
                if attempt.is_some() && *attempt == current {
                    self.end_attempt(outcome, &event.at);
                }
                self.state = State::Stopped;
                self.outcome = Some(outcome.clone());
                self.stopped_at = Some(event.at.clone());
            }
            _ => {}
        }
    }

    fn push_attempt(&mut self, event: &Event) {
        let What::Placed { attempt, node, nodejob, driver, uri, tasks } = &event.what else {
            return;
        };
        self.not_before = None;
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
            refused: None,
            trouble: None,
            tasks: tasks.clone(),
            left: tasks.clone().unwrap_or_default(),
            returned: TaskSet::default(),
            reported_at: None,
        });
    }

    fn end_attempt(&mut self, outcome: &Outcome, at: &str) {
        if let Some(last) = self.attempts.last_mut() {
            last.outcome = Some(outcome.clone());
            last.ended_at = Some(at.to_string());
        }
    }

    /// Adds one event to the card of an array, and all that follows from it but for its state.
    fn apply_to_array(&mut self, event: &Event) {
        let Some(array) = &mut self.array else { return };
        if self.outcome.is_some() {
            return;
        }
        match &event.what {
            What::Placed { tasks: Some(tasks), .. }
                if self.stopping_by.is_none() && array.has_waiting(tasks) =>
            {
                array.take_waiting(tasks);
                self.push_attempt(event);
            }
            What::Placed { .. } => {}
            What::Priority { priority, .. } => self.priority = *priority,
            What::Stopping { by, tasks: None } => {
                self.stopping_by.get_or_insert_with(|| by.clone());
            }
            What::Stopping { .. } if self.stopping_by.is_some() => {} // they had a killer
            What::Stopped { outcome, .. } => {
                self.outcome = Some(outcome.clone());
                self.stopped_at = Some(event.at.clone());
            }
            _ => array.apply(event, &mut self.attempts),
        }
    }

    /// An array is in the state of the furthest of its ranges that nodes have.
    pub(super) fn see_state_of_array(&mut self) {
        let Some(array) = &self.array else { return };
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
            () if array.held => State::Held,
            () => State::Queued,
        };
    }
}
