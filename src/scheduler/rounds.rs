//! Rounds that a command makes beside its waiting: where no poller runs, nobody else would.

use std::thread::{self, JoinHandle};

use crate::board::cards::Cards;
use crate::board::root::Root;
use crate::cgi::Request;
use crate::error::Result;
use crate::model::card::State;
use crate::poller;

/// Rounds for one job, made by a thread whenever no poller is at work.
///
/// Dropping it leaves the thread to the end of the program, as `kill -9` would: cards and nodes
/// stand that at any point.
pub struct Rounds(Option<JoinHandle<()>>);

impl Rounds {
    /// Begins rounds until the job has stopped; none where it has already.
    pub fn begin(root: &Root, job: u64) -> Result<Rounds> {
        if Cards::new(root).find(job)?.state == State::Stopped {
            return Ok(Rounds(None));
        }
        let root = root.clone();
        Ok(Rounds(Some(thread::spawn(move || {
            // Not the end of the wait: a poller may come.
            if let Err(error) = poller::program::run_for(&root, job, None) {
                eprintln!("scheduler: no rounds can be made: {}", error.message);
            }
        }))))
    }

    /// The same where the request is a command. Over HTTP a request never does a poller's work: it
    /// has to end soon.
    pub fn for_request(root: &Root, request: &Request, job: u64) -> Result<Option<Rounds>> {
        request.command.then(|| Rounds::begin(root, job)).transpose()
    }

    /// Once the job has stopped: lets the rounds come to their end, in which nodes learn that its
    /// result is safe.
    pub fn finish(self) {
        if let Some(thread) = self.0 {
            let _ = thread.join(); // a panic has been shown
        }
    }
}
