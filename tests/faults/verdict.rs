//! Whether the story of a card is one that its request allows.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashMap;

use corkboard::model::card::{Card, State};
use corkboard::model::job_tasks::Tasks;
use corkboard::model::outcome::Cause;

/// The card's story against what its request allows. Returns how many attempts were lost.
pub fn judge(card: &Card, cancelled: bool, ran: &HashMap<String, usize>) -> usize {
    let job = card.job();
    assert_eq!(card.state, State::Stopped, "job {job}");
    let end = card.outcome.as_ref().unwrap();
    let mut retries = 0;
    let mut lost = 0;
    for (index, attempt) in card.attempts.iter().enumerate() {
        let is_last = index + 1 == card.attempts.len();
        let witnessed = ran.get(&**attempt.nodejob).copied().unwrap_or(0);
        let Some(outcome) = &attempt.outcome else {
            assert!(attempt.refused.is_some(), "job {job}: {attempt:?} has no end");
            assert_eq!(witnessed, 0, "{} was refused and ran", attempt.nodejob);
            continue;
        };
        match outcome.cause {
            Cause::Exit => assert_eq!(witnessed, 1, "{} ended by itself", attempt.nodejob),
            Cause::Lost => lost += 1,
            // A supervisor's child that was hit before it had become its program.
            Cause::Signal => {}
            Cause::Killed => assert!(cancelled, "job {job}: nobody killed it: {outcome:?}"),
            _ => panic!("job {job}: {outcome:?}"),
        }
        if !is_last {
            assert_ne!(outcome.code, Some(0), "job {job} was repeated after a good end");
            retries += 1;
        }
    }
    let allowed = card.spec.max_retry_count;
    assert!(retries <= allowed, "job {job}: {retries} retries");
    if !cancelled {
        let repeatable = end.code != Some(0);
        assert!(!repeatable || retries == allowed, "job {job}: {retries} retries, then {end:?}");
    }
    lost
}

/// The same for an array. Returns how many of its tasks ended as lost.
pub fn judge_array(
    card: &Card,
    array: &Tasks,
    cancelled: bool,
    ran: &HashMap<String, usize>,
) -> usize {
    let job = card.job();
    assert!(card.state == State::Stopped && array.is_finished(), "job {job}");
    let mut lost = 0;
    for task in array.spec.tasks.iter() {
        let end = array.outcome_of(task).unwrap();
        let of_attempt = |id: &str| ran.get(&format!("{id}/{task}")).copied().unwrap_or(0);
        let runs: usize = card.attempts.iter().map(|attempt| of_attempt(&attempt.nodejob)).sum();
        let retries = array.retries_of(task);
        assert!(retries <= card.spec.max_retry_count, "job {job} task {task}: {retries} retries");
        assert!(
            runs <= retries as usize + 1,
            "job {job} task {task}: {runs} runs, {retries} retries"
        );
        match end.cause {
            Cause::Exit => {
                assert!(end.code == Some(0) && runs > 0, "job {job} task {task}: {end:?}")
            }
            Cause::Lost => lost += 1,
            Cause::Signal => {}
            Cause::Killed => assert!(cancelled, "job {job}: nobody killed {task}: {end:?}"),
            _ => panic!("job {job} task {task}: {end:?}"),
        }
    }
    lost
}
