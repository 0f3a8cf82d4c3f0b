//! What somebody wants of a job, or what time and nodes make of it, and the lines that it adds to the
//! card: the same for a request, the poller and whatever changes cards. Pure; decided from the card as it
//! is under the board's lock.

use std::time::{Duration, SystemTime};

use super::card::{Card, Column, State};
use super::draft;
use super::event::{Event, What};
use super::ids::NodejobId;
use super::tasks::TaskSet;
use super::waits::Waits;
use crate::clock::{self, Present};
use crate::error::{Error, Result};

/// So long is a job kept from nodes that have refused it again and again...
const BACKOFF: Duration = Duration::from_secs(60);

/// ...and if they do so for hours a tenth longer each time, up to this: each refusal adds two lines to the
/// card.
const LONGEST_BACKOFF: Duration = Duration::from_secs(15 * 60);

/// How long a job is kept from nodes that have refused it so often before.
fn backoff(refusals: u32) -> Duration {
    let first = Duration::from_secs(1 << refusals.min(6)).min(BACKOFF);
    let longer = |time: Duration, _| (time + time / 10).min(LONGEST_BACKOFF);
    (6..refusals.min(64)).fold(first, longer)
}

/// One change. Whoever makes it is named `by`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Nothing of it is placed until it is released. Refused where nothing of it waits any more.
    Hold {
        /// Who.
        by: String,
    },
    /// It goes on at once: nobody holds it any more, and it waits for no time. Refused where nothing of it
    /// waits any more.
    Release {
        /// Who.
        by: String,
    },
    /// It goes before or behind others. Refused of one that has ended.
    Priority {
        /// Higher goes first.
        priority: i64,
        /// Who.
        by: String,
    },
    /// It ends, or these tasks of it: what waits at once, the rest when nodes have been told. Nothing
    /// where it has ended, or is being ended. Refused where it has no such tasks.
    Kill {
        /// Of an array only these.
        tasks: Option<TaskSet>,
        /// Who.
        by: String,
    },
    /// The same of one that still waits, as a whole; refused of any other.
    Remove {
        /// Who.
        by: String,
    },
    /// It ends if its time is over and it waits; what was left half done of an array is done.
    Expire {
        /// By this clock.
        now: Present,
    },
    /// Its node would not have this attempt: it waits again, for longer each time. An attempt that had
    /// begun there is abandoned.
    Refuse {
        /// Which.
        attempt: NodejobId,
        /// What the node said.
        reason: String,
    },
    /// Its node has not fetched this attempt, and never will: it ends. Nothing if it is not the one that counts.
    Dead {
        /// Which.
        attempt: NodejobId,
        /// How that is known.
        why: String,
    },
    /// Nobody will ever know what became of this attempt. Nothing if it is not the one that counts.
    Abandon {
        /// Which.
        attempt: NodejobId,
        /// How that is known.
        why: String,
    },
}

/// The lines of several changes, each made of the card as the ones before leave it.
pub fn lines(changes: &[Change], card: &Card, now: SystemTime) -> Result<Vec<What>> {
    if let [change] = changes {
        return change.lines(card, now);
    }
    let (mut after, mut all) = (card.without_events(), Vec::new());
    for change in changes {
        for what in change.lines(&after, now)? {
            after.apply(Event::now(what.clone()));
            all.push(what);
        }
    }
    Ok(all)
}

impl Change {
    /// The lines that it adds to the card; none where the card says so already.
    ///
    /// Errors: 409 where it is too late for that, 400 and 404 for tasks that the job does not have.
    pub fn lines(&self, card: &Card, now: SystemTime) -> Result<Vec<What>> {
        let refuse = |what: &str| {
            let (job, state) = (card.job(), card.state.word());
            Err(Error::conflict(format!("job {job} is {state} and cannot be {what}")))
        };
        Ok(match self {
            Change::Hold { .. } if !waits(card) => return refuse("held"),
            Change::Hold { .. } if card.is_held() => Vec::new(),
            Change::Hold { by } => vec![What::Held { by: by.clone() }],
            Change::Release { .. } if !waits(card) => return refuse("released"),
            Change::Release { .. } if !card.is_held() && !card.tasks.pauses(now) => Vec::new(),
            Change::Release { by } => vec![What::Released { by: by.clone() }],
            Change::Priority { .. } if card.state == State::Stopped => {
                return refuse("given a priority");
            }
            Change::Priority { priority, .. } if *priority == card.priority => Vec::new(),
            Change::Priority { priority, by } => {
                vec![What::Priority { priority: *priority, by: by.clone() }]
            }
            Change::Kill { tasks, by } => {
                tasks.as_ref().map_or(Ok(()), |tasks| card.check_tasks(tasks))?;
                draft::kill(card, tasks.as_ref(), by)
            }
            Change::Remove { by } => match card.state {
                State::Held | State::Queued => draft::kill(card, None, by),
                _ => {
                    let (job, state) = (card.job(), card.state.word());
                    return Err(Error::conflict(format!(
                        "job {job} waits no more, it is {state}; to end it: jobs/{job}/update?kill=1"
                    )));
                }
            },
            Change::Expire { now } => expire(card, now),
            Change::Refuse { attempt, reason } => refused(card, attempt, reason, now),
            Change::Dead { attempt, why } => draft::dead(card, attempt, why),
            Change::Abandon { attempt, why } if card.is_current(attempt) => {
                draft::give_up(card, attempt, why)
            }
            Change::Abandon { .. } => Vec::new(),
        })
    }
}

impl Card {
    /// Whether somebody holds what waits of it.
    pub(super) fn is_held(&self) -> bool {
        self.tasks.held
    }

    /// Refuses tasks that the job does not have: 400 for one that is no array, else 404.
    pub fn check_tasks(&self, tasks: &TaskSet) -> Result<()> {
        let job = self.job();
        let Some(array) = self.array() else {
            return Err(Error::bad(format!("job {job} is not an array: it has no tasks")));
        };
        match tasks.without(&array.spec.tasks).first() {
            None => Ok(()),
            Some(task) => Err(Error::not_found(format!(
                "job {job} has no task {task}; it has {}",
                array.spec.tasks.brief()
            ))),
        }
    }
}

/// Whether it can be held: what waits of it. Of an array some may wait, or come to wait again, while nodes
/// have the rest; of a plain job only all of it.
fn waits(card: &Card) -> bool {
    match card.is_array() {
        true => !matches!(card.state, State::Stopping | State::Stopped),
        false => card.column() == Column::Queue,
    }
}

fn expire(card: &Card, now: &Present) -> Vec<What> {
    match card.waits(now) {
        _ if draft::is_unsettled(card) => draft::settle(card),
        Waits::Over => draft::expire(card),
        _ => Vec::new(),
    }
}

fn refused(card: &Card, id: &NodejobId, reason: &str, now: SystemTime) -> Vec<What> {
    let Some(attempt) = card.current(id) else { return Vec::new() };
    if attempt.started_at.is_some() {
        let why = format!("{} had it, and has it no more: {reason}", attempt.node);
        return draft::give_up(card, id, &why);
    }
    let backoff = backoff(card.refusals_in_a_row(attempt));
    let not_before = clock::rfc3339(now.checked_add(backoff).unwrap_or(now));
    draft::refuse(card, attempt, reason, not_before)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::model::card::tests::{FIRST, PLACED, card};

    fn by() -> String {
        "ada".into()
    }

    #[test]
    fn a_change_that_the_card_has_adds_nothing_and_one_that_comes_too_late_is_refused() {
        let now = SystemTime::now();
        let waiting = card(&[FIRST]);
        let hold = Change::Hold { by: by() };
        let once = hold.lines(&waiting, now).unwrap();
        assert_eq!(once, [What::Held { by: by() }]);
        assert_eq!(lines(&[hold.clone(), hold.clone()], &waiting, now).unwrap(), once);
        // What is held and released at once is as it was, in two lines.
        let both = [hold.clone(), Change::Release { by: by() }];
        assert_eq!(lines(&both, &waiting, now).unwrap().len(), 2);
        let placed = card(&[FIRST, PLACED]);
        for change in [hold, Change::Release { by: by() }, Change::Remove { by: by() }] {
            let refused = change.lines(&placed, now).unwrap_err();
            assert!(refused.message.contains("placed"), "{refused:?}");
        }
        let kill = Change::Kill { tasks: None, by: by() };
        assert_eq!(kill.lines(&placed, now).unwrap(), [What::Stopping { by: by(), tasks: None }]);
        let twice = lines(&[kill.clone(), kill], &placed, now).unwrap();
        assert_eq!(twice.len(), 1);
        let tasks = Change::Kill { tasks: Some(TaskSet::one(3)), by: by() };
        assert!(tasks.lines(&placed, now).is_err(), "it is no array");
    }

    #[test]
    fn what_is_released_waits_for_no_time() {
        let now = SystemTime::now();
        let release = Change::Release { by: by() };
        let array = FIRST.replace("\"request\":{", "\"request\":{\"array\":\"0-3\",");
        let range = PLACED.replace("\"attempt\"", "\"tasks\":\"0-1\",\"attempt\"");
        for (first, placed) in [(FIRST, PLACED), (&*array, &*range)] {
            let mut refused = card(&[first, placed]);
            let id = NodejobId::parse(&refused.attempts[0].nodejob).unwrap();
            let refuse = Change::Refuse { attempt: id, reason: "full".into() };
            for what in refuse.lines(&refused, now).unwrap() {
                refused.apply(Event::now(what));
            }
            assert!(refused.tasks.pauses(now), "{refused:?}");
            let lines = release.lines(&refused, now).unwrap();
            assert_eq!(lines, [What::Released { by: by() }]);
            refused.apply(Event::now(lines[0].clone()));
            assert!(
                !refused.tasks.pauses(now)
                    && matches!(refused.waits(&now.into()), Waits::ForNode(_))
            );
            assert_eq!(release.lines(&refused, now).unwrap(), [], "nothing is left to be done");
        }
    }

    #[test]
    fn who_is_refused_for_days_writes_little_about_it() {
        let seconds = [0, 1, 5, 6, 7, 8].map(|refusals| backoff(refusals).as_secs());
        assert_eq!(seconds, [1, 2, 32, 60, 66, 72]);
        assert_eq!(backoff(u32::MAX), LONGEST_BACKOFF);
        let (mut time, mut refusals) = (Duration::ZERO, 0);
        while time < Duration::from_secs(86_400) {
            time += backoff(refusals);
            refusals += 1;
        }
        assert!(refusals < 130, "{refusals} in a day");
    }

    #[test]
    fn only_the_attempt_that_counts_is_refused_or_abandoned() {
        let now = SystemTime::now();
        let placed = card(&[FIRST, PLACED]);
        let id = placed.attempts[0].nodejob.clone();
        let refuse = |id| Change::Refuse { attempt: id, reason: "full".into() };
        assert!(matches!(
            refuse(id.clone()).lines(&placed, now).unwrap()[..],
            [What::Refused { attempt: 1, .. }]
        ));
        let id = NodejobId::new(id.cluster(), id.job, 17).unwrap();
        assert_eq!(refuse(id.clone()).lines(&placed, now).unwrap(), []);
        let gone = Change::Abandon { attempt: id, why: "silent".into() };
        assert_eq!(gone.lines(&placed, now).unwrap(), []);
    }
}
