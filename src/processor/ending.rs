//! Ending a job: all of its processes, first asked, then made to.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::run::Running;
use super::supervise::Supervisor;
use super::{start, tree};
use crate::model::outcome::Outcome;

/// Between two attempts at something that a full disk or a stubborn process prevents.
pub(super) const AGAIN: Duration = Duration::from_millis(200);

/// A job that is being ended.
#[derive(Debug)]
pub(super) struct Ending {
    /// What it ends as; `None` where only what its program left behind is ended.
    pub outcome: Option<Outcome>,
    /// When patience is over.
    pub kill_at: Instant,
}

impl Supervisor<'_> {
    /// What the program left behind is ended, and the last output read.
    pub(super) fn end_rest(&mut self, running: &mut Running) {
        while !self.is_alone() {
            if running.ending.is_none() {
                self.end(running, None, running.grace);
            }
            self.wait(running);
        }
        while self.copy_ready(running, 0) {}
    }

    /// Whether no process of the job is left. Costs one system call where there are no children.
    pub(super) fn is_alone(&self) -> bool {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Err(Errno::ECHILD) => return true,
                Ok(WaitStatus::StillAlive) => return self.descendants(None).is_empty(),
                Ok(_) => {} // reaped; a job may leave thousands
                Err(_) => return false,
            }
        }
    }

    /// The job's processes: all that descend from this one, save other supervisors with what they
    /// run, which a job that submits jobs may have started. A supervisor is known by what it
    /// executes: it may not have taken a slot yet. So is a job's `program` for an instant, between
    /// its gate and its exec, and it is to be ended all the same.
    fn descendants(&self, program: Option<Pid>) -> Vec<tree::Process> {
        let own = std::process::id() as i32;
        let program = program.map(Pid::as_raw);
        tree::descendants(own, |pid| {
            Some(pid) != program && tree::runs_this_program(pid, start::SUPERVISE)
        })
    }

    /// Asks all of the job's processes to end; after `grace` they are made to.
    pub(super) fn end(&self, running: &mut Running, outcome: Option<Outcome>, grace: Duration) {
        let now = Instant::now();
        let kill_at = now.checked_add(grace).unwrap_or(now);
        match &mut running.ending {
            Some(ending) => {
                ending.kill_at = ending.kill_at.min(kill_at);
                if ending.outcome.is_none() && running.program.is_some() {
                    ending.outcome = outcome;
                }
            }
            None => {
                running.ending = Some(Ending { outcome, kill_at });
                for process in self.descendants(running.program) {
                    tree::signal(&process, Signal::SIGTERM);
                    // One that is stopped would not notice before it is continued.
                    tree::signal(&process, Signal::SIGCONT);
                }
            }
        }
    }

    /// Ends all of the job's processes by force. All are stopped first, so that none can start
    /// another while the rest is looked for.
    pub(super) fn end_by_force(&self, program: Option<Pid>) {
        let mut stopped: Vec<tree::Process> = Vec::new();
        loop {
            let all = self.descendants(program).into_iter();
            let fresh: Vec<tree::Process> = all.filter(|p| !stopped.contains(p)).collect();
            if fresh.is_empty() {
                break;
            }
            for process in &fresh {
                tree::signal(process, Signal::SIGSTOP);
            }
            stopped.extend(fresh);
        }
        for process in &stopped {
            tree::signal(process, Signal::SIGKILL);
        }
    }
}
