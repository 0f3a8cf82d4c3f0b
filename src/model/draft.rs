//! The lines that follow from what happens to a job: reports on its attempts, kills, refusals, time. Each
//! change gives those that it adds to the card, the end with them where nothing is left. Pure.

use super::card::{Attempt, Card, Event, What};
use super::enforced::Enforced;
use super::ids::NodejobId;
use super::outcome::{Cause, Outcome, Status};
use super::report::{Ended, Report};
use super::run_status::{RunState, RunStatus};
use super::tasks::TaskSet;
use super::usage::Usage;

/// So many different late reports of an attempt are kept: a node that says something else each time
/// makes no card grow without end.
const MOST_LATE: usize = 8;

/// A card as changes follow each other on it; what they append.
struct Draft<'c> {
    /// What its lines said before.
    before: &'c [Event],
    card: Card,
    added: Vec<What>,
}

/// How tasks ended that wait, or of an attempt, which may have ended itself.
#[derive(Default)]
struct Ends {
    attempt: Option<u32>,
    report: Report,
    retry: Vec<Ended>,
    not_before: Option<String>,
    ended: Option<Outcome>,
    usage: Option<Usage>,
}

impl Ends {
    /// As the card says it: the lines of a plain job name no tasks, and its end is that of its one.
    fn of(self, card: &Card) -> What {
        let Ends { attempt, report, retry, not_before, ended, usage } = self;
        if card.is_array() {
            return What::Tasks { attempt, report, retry, not_before, ended, usage };
        }
        let outcome = ended.or_else(|| Some(report.failed.first()?.outcome.clone()));
        let outcome = outcome.unwrap_or_else(|| Outcome::exit(0));
        match attempt {
            Some(attempt) if !retry.is_empty() => {
                What::Retry { attempt, outcome, not_before, usage }
            }
            attempt => What::Stopped { attempt, outcome, usage },
        }
    }
}

impl Draft<'_> {
    fn of(card: &Card) -> Draft<'_> {
        Draft { before: &card.events, card: card.without_events(), added: Vec::new() }
    }

    fn add(&mut self, what: What) {
        self.card.apply(Event::now(what.clone()));
        self.added.push(what);
    }

    /// Adds the end if nothing is left, and gives away what was added.
    fn finish(mut self) -> Vec<What> {
        if self.card.outcome.is_none() && self.card.tasks.is_finished() {
            let outcome = self.card.tasks.outcome(self.card.stopping_by.as_deref());
            self.add(What::Stopped { attempt: None, outcome, usage: None });
        }
        self.added
    }

    /// Records how tasks of an attempt ended, which may have ended itself: those that failed and have
    /// retries left wait again. See [`super::job_tasks::Tasks::divide`].
    fn end_tasks(
        &mut self,
        attempt: u32,
        report: Report,
        (ended, usage): (Option<Outcome>, Option<Usage>),
        unproven: bool,
    ) {
        let spec = &self.card.spec;
        let retries = if self.card.stopping_by.is_some() { 0 } else { spec.max_retry_count };
        let (report, retry) = self.card.tasks.divide(report, retries, spec.retry_lost, unproven);
        if report.is_empty() && retry.is_empty() && ended.is_none() {
            return;
        }
        let not_before = if retry.is_empty() { None } else { self.card.retry_at() };
        let ends = Ends { attempt: Some(attempt), report, retry, not_before, ended, usage };
        self.add(ends.of(&self.card));
    }

    fn report(&mut self, id: &NodejobId, status: &RunStatus) {
        let Some(attempt) = self.card.current(id) else { return self.late(id, status) };
        let (number, started) = (attempt.attempt, attempt.started_at.is_some());
        let left = attempt.left.clone();
        // Of a plain job that is being killed nobody has to know that it began.
        let told = self.card.is_array() || self.card.stopping_by.is_none();
        let begun = status.started.is_some() || status.state == RunState::Running;
        if !started && told && begun {
            self.add(What::Running {
                attempt: number,
                pid: status.pid,
                started: status.started.clone().or_else(|| Some(status.at.clone())),
                enforced: status.enforced.clone().filter(Enforced::is_fit),
            });
        }
        let ended = status.outcome();
        let said = match &ended {
            _ if self.card.is_array() => status.tasks.clone(),
            Some(outcome) => Some(Report::of(&left, outcome)), // that is its task
            None => None,
        };
        let report = said.as_ref().map_or_else(Report::default, |said| said.within(&left));
        let mut report = self.by_first_killers(report);
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
        let usage = if ended.is_some() { status.usage() } else { None };
        self.end_tasks(number, report, (ended, usage), false);
    }

    /// The end of an attempt that has ended before, as lost perhaps, enters the history and changes
    /// nothing. Nodes repeat themselves.
    fn late(&mut self, id: &NodejobId, status: &RunStatus) {
        let Some(outcome) = status.outcome() else { return };
        let known = self.card.attempts.iter().find(|a| a.attempt == id.attempt);
        // An array whose tasks have all ended does not wait for the ends of its ranges.
        let is_open = |known: &Attempt| known.ended_at.is_none() && self.card.is_array();
        if known.is_none_or(|known| is_open(known) || known.outcome.as_ref() == Some(&outcome)) {
            return;
        }
        let all = self.before.iter().map(|event| &event.what).chain(&self.added);
        let lates = all.filter_map(|what| match what {
            What::Late { attempt, outcome } if *attempt == id.attempt => Some(outcome),
            _ => None,
        });
        let mut count = 0;
        for told in lates {
            if *told == outcome {
                return;
            }
            count += 1;
        }
        if count < MOST_LATE {
            self.add(What::Late { attempt: id.attempt, outcome });
        }
    }

    /// A node that is told to end all of a range names whoever wants that, of tasks too that somebody
    /// had killed before: the card knows.
    fn by_first_killers(&self, report: Report) -> Report {
        let Some(by) = &self.card.stopping_by else { return report };
        let mut found = Report { good: report.good, failed: Vec::new() };
        for Ended { mut tasks, outcome } in report.failed {
            for (first, theirs) in
                self.card.tasks.killers.iter().filter(|_| outcome.is_killed_by(by))
            {
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
        let outcome = |by: &str| match unseen {
            Some(why) => Outcome::killed_unseen(by, why),
            None => Outcome::killed(by),
        };
        for (by, theirs) in &self.card.tasks.killers {
            report.add(&tasks.within(theirs), &outcome(by));
        }
        if let Some(by) = &self.card.stopping_by {
            report.add(&tasks.without(&self.card.tasks.unwanted), &outcome(by));
        }
    }

    /// Ends what waits though somebody killed it.
    fn end_killed(&mut self) {
        let mut report = Report::default();
        self.add_killed(&mut report, &self.card.tasks.waiting, None);
        self.end_waiting(report);
    }

    /// Records how tasks ended that no node had.
    fn end_waiting(&mut self, report: Report) {
        if !report.is_empty() {
            self.add(Ends { report, ..Ends::default() }.of(&self.card));
        }
    }
}

/// What nodes' reports on attempts of this job, in order, do to the card.
pub fn decide(card: &Card, reports: &[(&NodejobId, &RunStatus)]) -> Vec<What> {
    let mut draft = Draft::of(card);
    for (id, status) in reports {
        draft.report(id, status);
    }
    draft.finish()
}

/// What follows when nobody will ever know what became of an attempt, and why.
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
    draft.end_tasks(attempt.attempt, report, (Some(ended), None), true);
    draft.finish()
}

/// Takes an attempt back that its node would not have.
pub fn refuse(card: &Card, attempt: &Attempt, reason: &str, not_before: String) -> Vec<What> {
    let mut draft = Draft::of(card);
    let (attempt, left) = (attempt.attempt, &attempt.left);
    if let (Some(by), false) = (&card.stopping_by, card.is_array()) {
        // Of a plain job that somebody killed meanwhile one line says all.
        let killed = Outcome::killed(by);
        draft.end_tasks(attempt, Report::of(left, &killed), (Some(killed), None), false);
        return draft.finish();
    }
    draft.add(What::Refused { attempt, reason: reason.to_string(), not_before });
    draft.end_killed();
    draft.finish()
}

/// Ends an attempt that its node has never fetched.
pub fn dead(card: &Card, id: &NodejobId, why: &str) -> Vec<What> {
    let Some(attempt) = card.current(id) else { return Vec::new() };
    let mut draft = Draft::of(card);
    let (attempt, left) = (attempt.attempt, &attempt.left);
    let outcome = match (&card.stopping_by, card.is_array()) {
        (Some(by), false) => Outcome::killed(by),
        _ => Outcome::error(Cause::Expired, why.to_string()),
    };
    draft.end_tasks(attempt, Report::of(left, &outcome), (Some(outcome), None), false);
    draft.end_killed();
    draft.finish()
}

/// Kills a job, or some tasks of an array: those that wait end at once, nodes are to be told of the
/// others.
pub fn kill(card: &Card, tasks: Option<&TaskSet>, by: &str) -> Vec<What> {
    let mut draft = Draft::of(card);
    let waiting = &card.tasks.waiting;
    let waiting = tasks.map_or_else(|| waiting.clone(), |tasks| waiting.within(tasks));
    draft.end_waiting(Report::of(&waiting, &Outcome::killed(by)));
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
            let tasks = tasks.within(&out).without(&card.tasks.unwanted);
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
    let tasks = &card.tasks;
    let killed = card.stopping_by.is_some() && !tasks.waiting.is_empty();
    let unsettled = killed || tasks.waiting.has_any_of(&tasks.unwanted) || tasks.is_finished();
    card.outcome.is_none() && unsettled
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
    let waiting = &card.tasks.waiting;
    let again = waiting.within(&card.tasks.tried_again());
    let before = card.requeue_reason.as_deref();
    let mut report = Report::default();
    report.add(&waiting.without(&again), &Outcome::expired(before));
    report.add(&again, &Outcome::expired(before.or(Some("its last run failed"))));
    draft.end_waiting(report);
    draft.finish()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::model::card::State;
    use crate::model::card::tests::{FIRST, PLACED, card};

    #[test]
    fn retries_are_counted() {
        let placed = card(&[FIRST, PLACED]);
        let id = NodejobId::parse("c-2.1").unwrap();
        let ends = |card: &Card, id: &NodejobId, outcome: Outcome| {
            let status = RunStatus::stopped(&outcome);
            let mut lines = decide(card, &[(id, &status)]);
            assert_eq!(lines.len(), 1, "{lines:?}");
            lines.remove(0)
        };
        let again = ends(&placed, &id, Outcome::exit(3));
        assert!(matches!(again, What::Retry { attempt: 1, .. }));
        let mut next = placed.clone();
        next.apply(Event::now(again));
        assert_eq!((next.state, next.tasks.most_retries()), (State::Queued, 1));
        let second = PLACED.replace(":1,", ":2,").replace("c-2.1", "c-2.2");
        next.apply(serde_json::from_str(&second).unwrap());
        let end = ends(&next, &NodejobId::parse("c-2.2").unwrap(), Outcome::exit(3));
        assert!(matches!(end, What::Stopped { attempt: Some(2), .. }));
        let lost = give_up(&placed, &id, "gone");
        assert!(matches!(lost[..], [What::Stopped { .. }]), "unproven loss is not retried");
        let lost = ends(&placed, &id, Outcome::lost_unproven("gone"));
        assert!(matches!(lost, What::Stopped { .. }), "nor is one that a node cannot prove");
        let lost = ends(&placed, &id, Outcome::lost("gone"));
        assert!(matches!(lost, What::Retry { .. }), "one that it can is");
    }
}
