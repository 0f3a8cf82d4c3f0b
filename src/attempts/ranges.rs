//! Ranges: the attempts of an array. What places one, what a report on one does to the card, and
//! what ends tasks that no node has. Pure.

use std::time::{Duration, SystemTime};

use crate::clock;
use crate::model::array::pace;
use crate::model::card::{Attempt, Card, Column, Event, What};
use crate::model::ids::NodejobId;
use crate::model::outcome::{Cause, Outcome, Status};
use crate::model::report::{Ended, Report};
use crate::model::run_status::{RunState, RunStatus};
use crate::model::tasks::TaskSet;
use crate::placement::ranges;

/// To the node of a range that will have ended within this time the next one is sent, so that it is
/// there in time.
const SENT_AHEAD: Duration = Duration::from_millis(250);

/// How many more ranges of a card may be placed now; none for a card that is no array.
pub fn placeable(card: &Card, now: SystemTime) -> u64 {
    let Some(array) = card.array.as_ref().filter(|array| !array.held) else { return 0 };
    if card.stopping_by.is_some() {
        return 0;
    }
    let most = array.spec.at_once.unwrap_or(u64::MAX);
    most.saturating_sub(card.with_nodes().count() as u64).min(array.ready(now).len())
}

/// Whether tasks of this card wait while nodes have others.
pub fn may_continue(card: &Card) -> bool {
    card.column() == Column::Running
        && card.array.as_ref().is_some_and(|array| !array.waiting.is_empty())
}

/// The tasks of the next range; `slots` is how many the nodes can run at a time. Empty if there is
/// none to be placed.
pub fn next(card: &Card, slots: u64, now: SystemTime) -> TaskSet {
    let Some(array) = card.array.as_ref().filter(|_| placeable(card, now) > 0) else {
        return TaskSet::default();
    };
    let ready = array.ready(now);
    let slots = array.spec.at_once.map_or(slots, |most| most.min(slots));
    ready.lowest(ranges::size(ready.len(), slots, pace(&card.attempts)))
}

/// For how long yet a range is taken to have ended before another could be there: until it should
/// have, going by its last report and by how long tasks took so far. What goes on after that is
/// longer than the others were, and nobody knows by how much.
pub fn nearly_done_for(card: &Card, attempt: &Attempt, now: SystemTime) -> Option<Duration> {
    let reported = attempt.reported_at.as_deref().filter(|_| attempt.tasks.is_some())?;
    let left = u32::try_from(attempt.left.len()).unwrap_or(u32::MAX);
    let needs = pace(&card.attempts)?.saturating_mul(left);
    let since = now.duration_since(clock::parse_rfc3339(reported)?).unwrap_or_default();
    let rest = needs.checked_sub(since).filter(|rest| !rest.is_zero())?;
    (needs <= SENT_AHEAD).then_some(rest)
}

/// A card as reports change it one after the other; what they append.
struct Draft {
    card: Card,
    added: Vec<What>,
}

impl Draft {
    fn of(card: &Card) -> Draft {
        Draft { card: card.without_events(), added: Vec::new() }
    }

    fn add(&mut self, what: What) {
        self.card.apply(Event::now(what.clone()));
        self.added.push(what);
    }

    /// Adds the end if nothing is left, and gives away what was added.
    fn finish(mut self) -> Vec<What> {
        let by = self.card.stopping_by.clone();
        let Some(array) = self.card.array.as_ref().filter(|array| array.is_finished()) else {
            return self.added;
        };
        if self.card.outcome.is_none() {
            let outcome = array.outcome(by.as_deref());
            self.add(What::Stopped { attempt: None, outcome });
        }
        self.added
    }

    /// Records how tasks of an attempt ended, which may have ended itself.
    fn end_tasks(&mut self, attempt: u32, report: Report, ended: Option<Outcome>, unproven: bool) {
        let spec = &self.card.spec;
        let Some(array) = &self.card.array else { return };
        let retries = if self.card.stopping_by.is_some() { 0 } else { spec.max_retry_count };
        let (report, retry) = array.divide(report, retries, spec.retry_lost, unproven);
        if report.is_empty() && retry.is_empty() && ended.is_none() {
            return;
        }
        let not_before = if retry.is_empty() { None } else { self.card.retry_at() };
        self.add(What::Tasks { attempt: Some(attempt), report, retry, not_before, ended });
    }

    fn report(&mut self, id: &NodejobId, status: &RunStatus) {
        let Some(attempt) = self.card.current(id) else { return };
        let (number, started) = (attempt.attempt, attempt.started_at.is_some());
        let left = attempt.left.clone();
        if !started && (status.started.is_some() || status.state == RunState::Running) {
            self.add(What::Running {
                attempt: number,
                pid: status.pid,
                started: status.started.clone().or_else(|| Some(status.at.clone())),
            });
        }
        let said = status.tasks.as_ref();
        let report = said.map_or_else(Report::default, |said| said.within(&left));
        let mut report = self.by_first_killers(report);
        let ended = status.outcome();
        if let Some(outcome) = &ended {
            let rest = left.without(&report.tasks());
            self.add_killed(&mut report, &rest, None);
            let rest = rest.without(&report.tasks());
            match outcome.cause {
                Cause::Killed => report.add(&rest, outcome),
                // Nobody said that what is left was not started.
                _ if said.is_none() && outcome.status == Status::Good => {
                    report.add(&rest, &Outcome::lost("its node did not say what became of it"));
                }
                _ if said.is_none() => report.add(&rest, outcome),
                _ => {} // it was given back
            }
        }
        self.end_tasks(number, report, ended, false);
    }

    /// A node that is told to end all of a range names whoever wants that, of tasks too that somebody
    /// had killed before: the card knows.
    fn by_first_killers(&self, report: Report) -> Report {
        let (Some(array), Some(by)) = (&self.card.array, &self.card.stopping_by) else {
            return report;
        };
        let mut found = Report { good: report.good, failed: Vec::new() };
        for Ended { mut tasks, outcome } in report.failed {
            for (first, theirs) in array.killers.iter().filter(|_| outcome.is_killed_by(by)) {
                found.add(&tasks.within(theirs), &Outcome::killed(first));
                tasks = tasks.without(theirs);
            }
            found.add(&tasks, &outcome);
        }
        found
    }

    /// Adds those of these tasks that somebody killed: each by its own killer, or else by whoever
    /// killed the whole. Where nobody saw the end, `unseen` says why.
    fn add_killed(&self, report: &mut Report, tasks: &TaskSet, unseen: Option<&str>) {
        let Some(array) = &self.card.array else { return };
        let outcome = |by: &str| match unseen {
            Some(why) => Outcome::killed_unseen(by, why),
            None => Outcome::killed(by),
        };
        for (by, theirs) in &array.killers {
            report.add(&tasks.within(theirs), &outcome(by));
        }
        if let Some(by) = &self.card.stopping_by {
            report.add(&tasks.without(&array.unwanted), &outcome(by));
        }
    }

    /// Ends what waits though somebody killed it.
    fn end_killed(&mut self) {
        let Some(array) = &self.card.array else { return };
        let mut report = Report::default();
        self.add_killed(&mut report, &array.waiting, None);
        self.end_waiting(report);
    }

    /// Records how tasks ended that no node had.
    fn end_waiting(&mut self, report: Report) {
        if !report.is_empty() {
            let retry = Vec::new();
            self.add(What::Tasks { attempt: None, report, retry, not_before: None, ended: None });
        }
    }
}

/// What nodes' reports on ranges of this array, in order, do to the card. Ends of attempts that
/// have ended before, as lost perhaps, enter the history and change nothing.
pub fn decide(card: &Card, reports: &[(&NodejobId, &RunStatus)]) -> Vec<What> {
    let mut draft = Draft::of(card);
    let mut late: Vec<What> = Vec::new();
    for (id, status) in reports {
        draft.report(id, status);
        let over = |at: &Attempt| at.attempt == id.attempt && at.ended_at.is_some();
        if let Some(outcome) = status.outcome()
            && card.attempts.iter().any(over)
            && super::is_news(card, &late, id, &outcome)
        {
            late.push(What::Late { attempt: id.attempt, outcome });
        }
    }
    late.extend(draft.finish());
    late
}

/// What follows when nobody will ever know what became of a range, and why: see
/// [`Card::after_attempt`] for what is tried again.
pub fn give_up(card: &Card, id: &NodejobId, why: &str) -> Vec<What> {
    let mut draft = Draft::of(card);
    let Some(attempt) = card.current(id) else { return Vec::new() };
    let mut report = Report::default();
    draft.add_killed(&mut report, &attempt.left, Some(why));
    let rest = attempt.left.without(&report.tasks());
    report.add(&rest, &Outcome::lost(why));
    let ended = match &card.stopping_by {
        Some(by) => Outcome::killed_unseen(by, why),
        None => Outcome::lost(why),
    };
    draft.end_tasks(attempt.attempt, report, Some(ended), true);
    draft.finish()
}

/// Takes a range back that its node would not have.
pub fn refuse(card: &Card, attempt: u32, reason: &str, not_before: String) -> Vec<What> {
    let mut draft = Draft::of(card);
    draft.add(What::Refused { attempt, reason: reason.to_string(), not_before });
    draft.end_killed();
    draft.finish()
}

/// Kills an array, or some of its tasks: those that wait end at once, nodes are to be told of the
/// others.
pub fn kill(card: &Card, tasks: Option<&TaskSet>, by: &str) -> Vec<What> {
    let mut draft = Draft::of(card);
    let Some(array) = &card.array else { return Vec::new() };
    let waiting = tasks.map_or_else(|| array.waiting.clone(), |tasks| array.waiting.within(tasks));
    let mut report = Report::default();
    report.add(&waiting, &Outcome::killed(by));
    draft.end_waiting(report);
    let mut out = TaskSet::default();
    card.with_nodes().for_each(|attempt| out.add(&attempt.left));
    match tasks {
        None if card.stopping_by.is_some() => {}
        None if card.with_nodes().next().is_some() => {
            draft.add(What::Stopping { by: by.to_string(), tasks: None });
        }
        None => draft.card.stopping_by = Some(by.to_string()), // nobody has to be told
        Some(_) if card.stopping_by.is_some() => {}            // whoever killed the whole was first
        Some(tasks) => {
            let tasks = tasks.within(&out).without(&array.unwanted);
            if !tasks.is_empty() {
                draft.add(What::Stopping { by: by.to_string(), tasks: Some(tasks) });
            }
        }
    }
    draft.finish()
}

/// Whether its lines leave something to be done by whoever reads them: a power loss can take the
/// last of those that were written together.
pub fn is_unsettled(card: &Card) -> bool {
    let Some(array) = card.array.as_ref().filter(|_| card.outcome.is_none()) else { return false };
    let killed = card.stopping_by.is_some() && !array.waiting.is_empty();
    killed || array.waiting.has_any_of(&array.unwanted) || array.is_finished()
}

/// Does that.
pub fn settle(card: &Card) -> Vec<What> {
    let mut draft = Draft::of(card);
    draft.end_killed();
    draft.finish()
}

/// Ends what waits, because its time is over.
pub fn expire(card: &Card) -> Vec<What> {
    let mut draft = Draft::of(card);
    let Some(array) = &card.array else { return Vec::new() };
    let again = array.waiting.within(&array.tried_again());
    let mut report = Report::default();
    report.add(&array.waiting.without(&again), &Outcome::expired(None));
    report.add(&again, &Outcome::expired(Some("its last run failed")));
    draft.end_waiting(report);
    draft.finish()
}
