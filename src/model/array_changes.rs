//! What changes an array: reports on its ranges, kills, refusals, time. Each gives the lines that it adds
//! to the card, the end with them where nothing is left. Pure.

use super::card::{Attempt, Card, Event, What};
use super::ids::NodejobId;
use super::outcome::{Cause, Outcome, Status};
use super::report::{Ended, Report};
use super::run_status::{RunState, RunStatus};
use super::tasks::TaskSet;

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
            && card.has_not_heard(&late, id, &outcome)
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
