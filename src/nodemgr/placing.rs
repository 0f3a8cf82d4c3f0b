//! `POST jobs/run?job-number=N` without a request: job N of the board is placed now.
//!
//! Only a poller places jobs: what it does not know of it would have to ask nodes about. The one that is at
//! work is waited for, and where none is, one is started for a single round.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::board::card_tail::Tail;
use crate::board::cards::Cards;
use crate::board::nodes;
use crate::board::poller_lock;
use crate::board::root::Root;
use crate::board::watch;
use crate::error::{At, Error, Kind, Result};
use crate::held;
use crate::model::card::{Attempt, Card, State};

/// A poller that is at work places what has room within milliseconds. What it has not placed by then
/// waits for something.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longest round of a poller that is started here: a node that does not answer takes some seconds.
const ROUND: Duration = Duration::from_secs(40);

/// Between two looks at whether the round is over.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Places a job that waits, and returns its attempts that nodes have, or are about to have, and whether
/// any is new. Of one that has been placed before: those it has.
///
/// Errors: 409 for a job that is held or has ended; 503, with what it waits for by the records, where it
/// could not be placed now: it goes on waiting.
pub fn place(root: &Root, job: u64) -> Result<(Vec<Value>, bool)> {
    let cards = Cards::new(root);
    let card = cards.find(job)?;
    if let Some(placed) = placed(root, &card)? {
        return Ok((placed, false));
    }
    let mut tail = Tail::begin(root);
    if !poller_lock::is_held(root)? {
        root.for_change()?;
        one_round(root)?;
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(placed) = placed(root, &cards.find(job)?)? {
            return Ok((placed, true));
        }
        if !tail.wait_for(job, deadline) || !poller_lock::is_held(root)? {
            return Err(Error::new(
                Kind::Unavailable,
                format!(
                    "job {job} could not be placed now and goes on waiting: scheduler/queue/{job} says for what"
                ),
            ));
        }
    }
}

/// The attempts that nodes have; `None` while the job waits.
fn placed(root: &Root, card: &Card) -> Result<Option<Vec<Value>>> {
    let job = card.job();
    match card.state {
        State::Queued => Ok(None),
        State::Held => Err(Error::conflict(format!(
            "job {job} is held: release it with scheduler/jobs/{job}/update?release=1"
        ))),
        State::Stopped if card.attempts.is_empty() => {
            Err(Error::conflict(format!("job {job} has ended without having been placed")))
        }
        // It was short, and has ended meanwhile.
        State::Stopped => {
            Ok(Some(card.attempts.last().map(|a| shown(root, job, a)).into_iter().collect()))
        }
        State::Placed | State::Running | State::Stopping => {
            Ok(Some(card.with_nodes().map(|attempt| shown(root, job, attempt)).collect()))
        }
    }
}

/// An attempt as the original walkthrough shows it.
fn shown(root: &Root, job: u64, attempt: &Attempt) -> Value {
    // It may have been removed; where it ran is said all the same.
    let node = nodes::find(root, &attempt.node).ok().flatten();
    json!({
        "nodejob-idx": attempt.nodejob,
        "schedulerjob-idx": job.to_string(),
        "node": attempt.node,
        "hostname": node.as_ref().map(|node| &node.hostname),
        "ipv4": node.as_ref().map(|node| &node.ipv4),
    })
}

/// One round of a poller; ended at its deadline, or once nobody may wait for it, as a power cut would, which
/// cards and nodes stand.
fn one_round(root: &Root) -> Result<()> {
    let program = root.poller();
    let mut command = Command::new(&program);
    command
        .args(["--once", "--quiet"])
        .env("CORKBOARD_ROOT", root.dir())
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    held::as_before(&mut command);
    let mut child = command.spawn().at(&program)?;
    let deadline = Instant::now() + ROUND;
    while child.try_wait().at(&program)?.is_none() {
        if Instant::now() > deadline || !watch::may_wait() {
            let _ = child.kill(); // it may have ended
            child.wait().at(&program)?;
            break;
        }
        thread::sleep(LOOK_EVERY);
    }
    Ok(())
}
