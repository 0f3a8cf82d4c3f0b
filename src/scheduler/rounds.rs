//! What a command does beside its waiting: rounds, where no poller runs, since nobody else would; and
//! saying what it waits for.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::tasks;
use crate::board::cards::Cards;
use crate::board::poller_lock;
use crate::board::root::Root;
use crate::cgi::Request;
use crate::error::{At, Error, Kind, Result};
use crate::model::card::{Card, State};

/// Between two looks at why a job waits. One that does not wait for so long is not worth a word.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// So often rounds that have ended before their job are begun again, each time in the same minute.
const BEGUN_AGAIN: u32 = 5;

/// Rounds that lasted so long were no failure from the start.
const LONG: Duration = Duration::from_secs(60);

/// Rounds for one job, made by a `poller` of its own whenever no other is at work.
///
/// Dropping it ends that poller as `kill -9` would, and so does the end of this program: cards and
/// nodes stand that at any point.
pub struct Rounds {
    root: Root,
    job: u64,
    /// `None` where nothing is to be done for the job, or others do it.
    poller: Option<Child>,
    begun: Instant,
    again: u32,
}

impl Rounds {
    /// Begins rounds until the job has stopped; none where it has already, or where the root is
    /// another user's.
    ///
    /// Errors: the root has no poller to start, and none is at work.
    pub fn begin(root: &Root, job: u64) -> Result<Rounds> {
        // Another user may watch the job, and has to leave its rounds to the owner's poller.
        let needed = root.is_own() && Cards::new(root).find(job)?.state != State::Stopped;
        let (root, begun) = (root.clone(), Instant::now());
        let mut rounds = Rounds { root, job, poller: None, begun, again: 0 };
        if needed {
            rounds.start()?;
        }
        Ok(rounds)
    }

    fn start(&mut self) -> Result<()> {
        self.begun = Instant::now();
        let program = self.root.poller();
        let child = Command::new(&program)
            .args(["--quiet", "--job", &self.job.to_string()])
            .env("CORKBOARD_ROOT", self.root.dir())
            .env(poller_lock::STARTED_BY, std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        match child.at(&program) {
            Ok(child) => self.poller = Some(child),
            Err(_) if poller_lock::is_held(&self.root)? => {}
            Err(error) => return Err(self.cannot_be_made(&error.message, error.kind)),
        }
        Ok(())
    }

    fn cannot_be_made(&self, why: &str, kind: Kind) -> Error {
        let what = "rounds cannot be made, and no poller is at work";
        Error::new(kind, format!("job {} waits: {what}: {why}", self.job))
    }

    /// The same where the request is a command. Over HTTP a request never does a poller's work: it
    /// has to end soon.
    pub fn for_request(root: &Root, request: &Request, job: u64) -> Result<Option<Rounds>> {
        request.command.then(|| Rounds::begin(root, job)).transpose()
    }

    /// To be called now and then by who waits for the job: rounds that somebody has ended are begun
    /// again, which is said.
    ///
    /// Errors: they end again and again, and no poller is at work. Nobody would ever end the job.
    pub fn look(&mut self) -> Result<()> {
        let Some(child) = &mut self.poller else { return Ok(()) };
        let Some(status) = child.try_wait().at(self.root.poller())? else { return Ok(()) };
        self.poller = None;
        if Cards::new(&self.root).find(self.job)?.state == State::Stopped {
            return Ok(());
        }
        if self.begun.elapsed() > LONG {
            self.again = 0;
        }
        self.again += 1;
        if self.again > BEGUN_AGAIN {
            if poller_lock::is_held(&self.root)? {
                return Ok(());
            }
            let why = format!("they ended {} times, at last with {status}", self.again);
            return Err(self.cannot_be_made(&why, Kind::Unavailable));
        }
        eprintln!(
            "scheduler: job {}: who made its rounds has ended ({status}): begun again",
            self.job
        );
        self.start()
    }

    /// Once the job has stopped: lets the rounds come to their end, in which nodes learn that its
    /// result is safe.
    pub fn finish(mut self) {
        if let Some(mut child) = self.poller.take() {
            let _ = child.wait(); // what went wrong it has said itself
        }
    }
}

impl Drop for Rounds {
    fn drop(&mut self) {
        if let Some(child) = &mut self.poller {
            let _ = child.kill(); // it may have ended
            let _ = child.wait();
        }
    }
}

/// Says on standard error what a job, or a task, waits for that a command waits for: once, and again
/// when that has changed.
pub struct Waiting {
    look_at: Instant,
    told: Option<String>,
}

impl Waiting {
    /// Begins now.
    pub fn begin() -> Waiting {
        Waiting { look_at: Instant::now() + LOOK_EVERY, told: None }
    }

    /// Looks why, if it is time to. Not being able to tell is no reason to wait no more.
    pub fn look(&mut self, root: &Root, card: &Card, task: Option<u32>) {
        if Instant::now() < self.look_at {
            return;
        }
        self.look_at = Instant::now() + LOOK_EVERY;
        let Ok(Some(reason)) = tasks::reason_of(root, card, task) else { return };
        if self.told.as_ref() != Some(&reason) {
            eprintln!("scheduler: job {}: {reason}", card.job());
            self.told = Some(reason);
        }
    }
}
