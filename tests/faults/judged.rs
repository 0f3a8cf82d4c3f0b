//! What the cards of mixed jobs say at the end, against what was asked for and what ran; and which processes there are
//! to be killed on the way.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use corkboard::board::cards::Cards;
use corkboard::board::root::Root;
use corkboard::model::card::{Attempt, Card, Column, What};
use corkboard::model::outcome::Cause;
use corkboard::model::resources::Resources;
use corkboard::model::tasks::TaskSet;
use serde_json::json;

use crate::accounts::{self, Use};
use crate::common::TestRoot;
use crate::common::processes::Process;
use crate::mixed_jobs::{End, Wanted};

/// How each job ended, against what it asked for.
pub fn judge(card: &Card, wanted: &Wanted, user: &str, ran: &HashMap<String, usize>) {
    let job = card.job();
    assert_eq!(card.accepted.user().as_deref(), Some(user), "job {job}");
    let allowed: Vec<String> = wanted.nodes.iter().map(|name| name.to_string()).collect();
    for attempt in &card.attempts {
        assert!(
            allowed.contains(&attempt.node),
            "job {job}: {attempt:?} is not one of {allowed:?}"
        );
        let cause = attempt.outcome.as_ref().map(|outcome| outcome.cause);
        if cause == Some(Cause::Exit) && wanted.tasks.is_none() {
            assert_eq!(ran.get(&**attempt.nodejob), Some(&1), "job {job}: {attempt:?}");
        }
    }
    let Some(tasks) = wanted.tasks else {
        let end = card.outcome.as_ref().unwrap_or_else(|| panic!("job {job} has no end"));
        // The last try of one that fails may be hit, too.
        let hit = wanted.end != End::Good && matches!(end.cause, Cause::Lost | Cause::Signal);
        let as_meant = match wanted.end {
            End::Good => end.code == Some(0),
            End::Fails => end.code == Some(3),
            End::TimesOut => end.cause == Cause::Timeout,
        };
        assert!(as_meant || hit, "job {job}: {end:?}, {wanted:?}");
        return;
    };
    let array = card.array().unwrap();
    for task in 0..tasks {
        let end = array.outcome_of(task).unwrap_or_else(|| panic!("job {job} task {task}"));
        assert_eq!(end.code, Some(0), "job {job} task {task}: {end:?}");
        let of = |id: &str| ran.get(&format!("{id}/{task}")).copied().unwrap_or(0);
        let runs: usize = card.attempts.iter().map(|attempt| of(&attempt.nodejob)).sum();
        assert!(runs >= 1, "job {job} task {task} has never run");
        assert!(runs <= 1 + array.retries_of(task) as usize, "job {job} task {task}: {runs} runs");
    }
}

/// What nodes had of a job, by its card: from the moment at which it was placed.
pub fn placed(card: &Card) -> Vec<Use> {
    let refused = |attempt: u32| {
        card.events.iter().find_map(|event| match &event.what {
            What::Refused { attempt: of, .. } if *of == attempt => Some(&event.at),
            _ => None,
        })
    };
    let of = |attempt: &Attempt| {
        let until = attempt.ended_at.as_ref().or_else(|| refused(attempt.attempt));
        let until = until.unwrap_or_else(|| panic!("{attempt:?} has no end"));
        Use {
            what: attempt.nodejob.to_string(),
            from: accounts::time(&json!(attempt.placed_at)),
            until: accounts::time(&json!(until)),
            resources: Resources::of(card.spec.resources.cores, 1),
            cpus: TaskSet::default(),
            gpus: TaskSet::default(),
        }
    };
    card.attempts.iter().map(of).collect()
}

/// What a process is.
pub fn kind_of(process: &Process) -> &'static str {
    let words = process.words();
    match words.first().and_then(|word| word.rsplit('/').next()) {
        _ if words.get(1).is_some_and(|word| word == "supervise") => "supervisor",
        _ if process.has("GATEWAY_INTERFACE=CGI/1.1") => "cgi",
        Some("poller") => "poller",
        Some("worker") => "worker",
        Some("busybox") => "server",
        _ => "other",
    }
}

/// Goes through all of a head's jobs once they have ended: each is somebody's, and none is missing. Returns what each
/// user had, and when.
pub fn all<'a>(
    head: &TestRoot,
    known: &BTreeMap<u64, (&'a str, Wanted)>,
    witness: &Path,
) -> BTreeMap<&'a str, Vec<Use>> {
    let text = fs::read_to_string(witness).unwrap();
    let mut ran: HashMap<String, usize> = HashMap::new();
    text.lines().for_each(|line| *ran.entry(line.to_string()).or_default() += 1);
    let twice: Vec<_> = ran.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    let root = Root::open(&head.dir).unwrap();
    let cards = Cards::new(&root);
    let done = cards.numbers(Column::Done).unwrap();
    assert_eq!(done.len(), known.len());
    let mut had: BTreeMap<&str, Vec<Use>> = BTreeMap::new();
    let (mut attempts, mut lost) = (0, 0);
    for job in done {
        let card = cards.find(job).unwrap();
        let (user, wanted) =
            known.get(&job).unwrap_or_else(|| panic!("job {job} is nobody's: {card:?}"));
        judge(&card, wanted, user, &ran);
        let ends = card.attempts.iter().filter_map(|attempt| attempt.outcome.as_ref());
        attempts += card.attempts.len();
        lost += ends.filter(|end| end.cause == Cause::Lost).count();
        had.entry(user).or_default().extend(placed(&card));
    }
    println!("{} jobs, {attempts} attempts, {lost} of them lost", known.len());
    had
}
