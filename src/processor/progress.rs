//! What a run says of its own progress: kept in its directory, told in the feed.
//!
//! However often it says something, its head is told at most once in [`TELL_EVERY`]: by whoever
//! records the word, or, of those that come sooner, by its supervisor when it is time.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::pace::AGAIN;
use super::supervisor::Supervisor;
use super::wake::wake;
use crate::board::feed;
use crate::board::lock::Lock;
use crate::board::progress::{self as kept, Kept, TELL_EVERY};
use crate::board::root::Root;
use crate::board::runs::Runs;
use crate::error::{Error, Result};
use crate::model::ids::RunId;
use crate::model::progress::Word;
use crate::model::run_status::{RunState, RunStatus};

/// Records what a run says. 404 for one that is not here, 409 for one that does not run. Not durable:
/// a power loss may take it, a crash of these programs does not. It is told to its head within about
/// [`TELL_EVERY`].
pub fn say(root: &Root, id: &RunId, said: Value) -> Result<Word> {
    let runs = Runs::new(root);
    let held = runs.lock()?;
    runs.request(id)?;
    runs.for_change(id)?;
    let begun = match runs.last_line(id)? {
        Some(line) if line.state == RunState::Running => line,
        Some(_) => return Err(Error::conflict(format!("{id} has ended"))),
        None => return Err(Error::conflict(format!("{id} has not started yet"))),
    };
    let mut kept = kept::of_run(&runs, id)?;
    let waited = !kept.untold().is_empty();
    let word = Word::now(said);
    kept.add(word.clone());
    kept::put_of_run(&runs, &held, id, &kept)?;
    let is_due = kept.is_due();
    // What cannot be told now is told with the next word, or by the supervisor.
    let told = if is_due { tell(&runs, &held, id, begun, &mut kept) } else { Ok(()) };
    drop(held);
    if let Err(error) = &told {
        eprintln!("processor: {}", error.message);
    }
    if (!is_due && !waited || told.is_err())
        && let Err(error) = wake(&runs, id)
    {
        eprintln!("processor: {}", error.message);
    }
    Ok(word)
}

/// A status with all that is kept of what the run has said.
pub fn shown(root: &Root, status: RunStatus) -> Result<RunStatus> {
    let Some(id) = &status.id else { return Ok(status) };
    Ok(RunStatus { progress: kept::of_run(&Runs::new(root), id)?.words, ..status })
}

/// The same with the last word alone, of one that runs.
pub(super) fn last(root: &Root, status: RunStatus) -> Result<RunStatus> {
    if status.state != RunState::Running {
        return Ok(status);
    }
    let mut status = shown(root, status)?;
    status.progress.drain(..status.progress.len().saturating_sub(1));
    Ok(status)
}

/// Says in the feed what was not told, and notes that it was. Where that cannot be noted it is told
/// again.
fn tell(runs: &Runs, held: &Lock, id: &RunId, begun: RunStatus, kept: &mut Kept) -> Result<()> {
    let line = RunStatus { progress: kept.untold().to_vec(), ..begun.of(id) };
    feed::append(runs.root(), held, &[line])?;
    kept.told_now();
    kept::put_of_run(runs, held, id, kept)
}

/// Tells what a run has said and its head was not told, `at_once` or if it is time; else when it will be:
/// with a word that came meanwhile others were told.
fn tell_untold(runs: &Runs, id: &RunId, at_once: bool) -> Result<Option<Duration>> {
    let held = runs.lock()?;
    let mut kept = kept::of_run(runs, id)?;
    let begun = runs.last_line(id)?.filter(|line| line.state == RunState::Running);
    match begun {
        Some(_) if kept.untold().is_empty() => Ok(None),
        Some(_) if !at_once && !kept.is_due() => Ok(Some(kept.due_in())),
        Some(begun) => tell(runs, &held, id, begun, &mut kept).map(|()| None),
        None => Ok(None),
    }
}

impl Supervisor<'_> {
    /// Looks whether what runs has said something that is to be told in its time.
    pub(super) fn look_for_words(&mut self, id: &RunId) {
        if self.words_due.is_some() {
            return;
        }
        match kept::of_run(&self.runs, id) {
            Ok(kept) if kept.untold().is_empty() => {}
            Ok(_) => self.words_due = Some(Instant::now() + TELL_EVERY),
            Err(error) => eprintln!("processor: {}", error.message), // the next word is told
        }
    }

    /// Tells what was said, if there is something and it is time; at the end of a job at once.
    pub(super) fn tell_words(&mut self, id: &RunId, at_the_end: bool) {
        if self.words_due.is_none_or(|due| due > Instant::now() && !at_the_end) {
            return;
        }
        self.words_due = None;
        match tell_untold(&self.runs, id, at_the_end) {
            Ok(left) => self.words_due = left.map(|left| Instant::now() + left),
            Err(error) => {
                eprintln!("processor: {}", error.message);
                self.words_due = (!at_the_end).then(|| Instant::now() + AGAIN);
            }
        }
    }
}
