//! While a program runs: what comes of it is dealt with, be it output, a signal, or the time that has
//! come for something.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;

use super::capture::Capture;
use super::ending::TOLD_TO_END;
use super::pace::{AGAIN, LOOK_EVERY, LOOK_FOR_HEAD};
use super::phase::{Happening, Phase};
use super::running::Running;
use super::supervisor::Supervisor;
use super::{contact, reap, small, wishes};
use crate::error::Result;
use crate::model::ids::RunId;
use crate::model::outcome::Outcome;

/// What signals say.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// There is something to look at.
    pub look: bool,
    /// This process is to end.
    pub stop: bool,
    /// A child has ended.
    pub child: bool,
}

impl Supervisor<'_> {
    /// Waits for the next thing to happen, and deals with it: the one loop around a job is made of this.
    pub(super) fn wait(&mut self, running: &mut Running) {
        let left = self.next_time(running).saturating_duration_since(Instant::now());
        let timeout = if left.is_zero() { 0 } else { left.as_millis() as u16 + 1 };
        self.copy_ready(running, timeout);
        self.heed_signals(running);
        self.heed_clock(running);
    }

    /// When there is something to do if nothing happens until then.
    fn next_time(&self, running: &Running) -> Instant {
        let mut next = running.look_at;
        let mut at_latest = |time: Option<Instant>| next = time.map_or(next, |t| t.min(next));
        at_latest(match running.phase {
            Phase::Idle => None,
            Phase::Runs => running.deadline.map(|(deadline, _)| deadline),
            Phase::Doubt => Some(running.patience),
            // What ends may make processes that have to be asked as well, and need not tell this one.
            Phase::Asked | Phase::Rest => Some(running.patience.min(Instant::now() + AGAIN)),
        });
        if !self.failed {
            at_latest(self.report_due());
            at_latest(running.line.is_some().then_some(running.report_at));
        }
        at_latest(self.words_due);
        at_latest((!self.claimed.is_empty()).then_some(running.put_back_at));
        next
    }

    /// Copies what the job has written; `false` if there was nothing within so many milliseconds.
    pub(super) fn copy_ready(&mut self, running: &mut Running, timeout: u16) -> bool {
        let Running { captures, .. } = running;
        let ready: Vec<bool> = {
            let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            if timeout == 0 {
                fds.clear();
            }
            let readers = captures.iter().filter_map(Capture::reader);
            let signals = fds.len();
            fds.extend(readers.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
            if fds.is_empty() || poll(&mut fds, PollTimeout::from(timeout)).is_err() {
                return false;
            }
            fds[signals..].iter().map(|fd| fd.any().unwrap_or(false)).collect()
        };
        let open = captures.iter_mut().filter(|capture| capture.reader().is_some());
        for (capture, _) in open.zip(&ready).filter(|(_, ready)| **ready) {
            capture.copy(&mut self.buffer);
        }
        ready.contains(&true)
    }

    fn heed_signals(&mut self, running: &mut Running) {
        let heard = self.hear();
        if heard.child || heard.stop {
            self.reap(running); // one that has ended by now has ended by itself
        }
        if heard.stop {
            running.put_back_at = Instant::now();
            let lost = Some(Outcome::lost(TOLD_TO_END));
            self.happens_to_end(running, Happening::Told, lost, running.grace);
        }
        if heard.look {
            running.look_at = Instant::now();
        }
    }

    /// Signals that came while no program ran. Those about a kill are for a range alone: any other
    /// job looks for kills before it starts.
    pub(super) fn heed_signals_between(&mut self) -> Result<()> {
        let look = self.hear().look;
        let Some(range) = self.range.as_ref().filter(|_| look) else { return Ok(()) };
        let id = range.id.clone();
        self.look_for_words(&id);
        self.take_kills(wishes::all(&self.runs, &id, self.slot.as_ref(), true)?)
    }

    /// Takes all signals that have come, and notes that it is to end if one says so.
    pub(super) fn hear(&mut self) -> Heard {
        let mut heard = Heard::default();
        while let Ok(Some(info)) = self.signals.read_signal() {
            match Signal::try_from(info.ssi_signo as i32) {
                Ok(Signal::SIGUSR1) => heard.look = true,
                Ok(Signal::SIGTERM) => heard.stop = true,
                _ => heard.child = true,
            }
        }
        self.stopping |= heard.stop;
        heard
    }

    /// Looks whether somebody wants an end of what runs, and for what it has said. Woken by a signal, and now and then without:
    /// a signal is a hint.
    fn look(&mut self, running: &mut Running) -> Result<()> {
        self.look_for_words(&running.id);
        let late = contact::overdue(self.runs.root(), &running.id, running.heard_since);
        if let Ok(Some((why, grace))) = &late {
            let outcome = contact::outcome(why);
            if running.phase == Phase::Idle {
                running.wanted = Some(outcome.clone()); // between two programs, perhaps
            }
            let grace = running.grace.min(*grace);
            self.happens_to_end(running, Happening::Late, Some(outcome), grace);
        }
        let kills =
            wishes::all(&self.runs, &running.id, self.slot.as_ref(), running.task.is_some())?;
        if let Some(outcome) = kills.outcome(running.task) {
            let grace = kills.grace(running.task, running.grace);
            if running.phase == Phase::Idle {
                running.wanted = Some(outcome.clone()); // between two programs, perhaps
            }
            self.happens_to_end(running, Happening::Wanted, Some(outcome), grace);
        }
        self.take_kills(kills)?;
        late.map(|_| ())
    }

    /// After how long it is looked again.
    pub(super) fn look_every(&self, id: &RunId) -> Duration {
        match contact::left(self.runs.root(), id) {
            Ok(None) => LOOK_EVERY,
            Ok(Some(heard)) => LOOK_FOR_HEAD.min(heard.left.max(AGAIN)),
            Err(_) => LOOK_FOR_HEAD,
        }
    }

    fn reap(&mut self, running: &mut Running) {
        loop {
            match reap::next() {
                Ok((WaitStatus::StillAlive, _)) | Err(_) => return,
                Ok((status, used)) if status.pid() == running.program => {
                    running.program = None;
                    running.used.add(used);
                    running.ended = Some(status);
                    self.happens(running, Happening::Ended);
                }
                Ok(_) => {} // something that the job left to this process
            }
        }
    }

    fn heed_clock(&mut self, running: &mut Running) {
        let now = Instant::now();
        if running.look_at <= now {
            running.look_at = now + self.look_every(&running.id);
            if let Err(error) = self.look(running) {
                eprintln!("processor: {}", error.message);
                running.look_at = now + AGAIN;
            }
        }
        self.tell_words(&running.id, false);
        if let Some((_, timeout)) = running.deadline.filter(|(at, _)| *at <= now) {
            let late = Some(Outcome::timeout(timeout));
            self.happens_to_end(running, Happening::Late, late, running.grace);
        }
        let is_over = running.patience <= now;
        self.happens(running, if is_over { Happening::Over } else { Happening::Awake });
        let line_due = running.line.is_some() && running.report_at <= now;
        if !self.failed && (line_due || self.report_due().is_some_and(|at| at <= now)) {
            let line = if line_due { running.line.take() } else { None };
            let is_long = line.is_some();
            if let Err(error) = self.report(line.clone()) {
                eprintln!("processor: {}", error.message);
                running.line = running.line.take().or(line);
                running.report_at = now + AGAIN;
            }
            if is_long {
                small::give_back_code();
            }
        }
        if !self.claimed.is_empty()
            && running.put_back_at <= now
            && let Err(error) = self.put_back(&running.id)
        {
            eprintln!("processor: {}", error.message);
            running.put_back_at = now + AGAIN;
        }
    }
}
