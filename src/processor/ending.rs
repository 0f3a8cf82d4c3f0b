//! Ending a job: all of its processes, first asked, then made to.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::cgroup::Group;
use super::pace::AGAIN;
use super::running::{Ending, Running};
use super::start::is_supervisor;
use super::supervisor::Supervisor;
use super::tree;
use crate::model::outcome::Outcome;

/// Why a job is lost whose supervisor was told to end: that is the machine's doing, and nobody's who
/// wanted the job to end.
pub(super) const TOLD_TO_END: &str = "the supervisor was told to end (machine shutdown?)";

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

    /// Whether no process of the job is left. Costs one system call where there are no children: what
    /// its processes leave behind becomes a child of this one.
    pub(super) fn is_alone(&self) -> bool {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Err(Errno::ECHILD) => return true,
                Ok(WaitStatus::StillAlive) => {
                    let group = self.group.as_ref().filter(|group| group.holds_children());
                    return group.is_none_or(Group::is_empty)
                        && (0..2).all(|_| self.has_only_supervisors());
                }
                Ok(_) => {} // reaped; a job may leave thousands
                Err(_) => return false,
            }
        }
    }

    /// Whether all children are other supervisors. One that makes a child and ends may be missed by a
    /// look, so finding none says nothing.
    fn has_only_supervisors(&self) -> bool {
        let children = tree::children(std::process::id() as i32);
        !children.is_empty() && children.iter().all(|child| is_supervisor(child.pid))
    }

    /// The job's processes: all in its group, and all that descend from this one, save other
    /// supervisors with what they run, which a job that submits jobs may have started. Such a one has
    /// left the group. It is known by what it executes: it may not have taken a slot yet. So is a job's
    /// `program` for an instant, between its gate and its exec, and it is to be ended all the same.
    fn processes(&self, program: Option<Pid>) -> Vec<tree::Process> {
        let own = std::process::id() as i32;
        let program = program.map(Pid::as_raw);
        let group = self.group.as_ref().filter(|group| group.holds_children());
        let members = group.map(Group::members).unwrap_or_default();
        let mut found = tree::descendants(own, |pid| {
            Some(pid) != program && !members.contains(&pid) && is_supervisor(pid)
        });
        for pid in members {
            if !found.iter().any(|process| process.pid == pid) {
                found.extend(tree::look(pid));
            }
        }
        found
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
                let mut ending = Ending { outcome, kill_at, asked: Vec::new() };
                self.ask(&mut ending, running.program);
                running.ending = Some(ending);
            }
        }
    }

    /// Asks those to end that were not asked yet: daemons that were just about to leave. What
    /// one makes that was asked is its own affair: it may be cleaning up.
    fn ask(&self, ending: &mut Ending, program: Option<Pid>) {
        let before = ending.asked.len();
        for process in self.processes(program) {
            let known = &ending.asked[..before];
            if known.iter().any(|asked| *asked == process.identity() || asked.0 == process.parent) {
                continue;
            }
            tree::signal(&process, Signal::SIGTERM);
            // One that is stopped would not notice before it is continued.
            tree::signal(&process, Signal::SIGCONT);
            ending.asked.push(process.identity());
        }
    }

    /// Does what is due of an end that was begun.
    pub(super) fn go_on_ending(&self, running: &mut Running) {
        let now = Instant::now();
        let Some(ending) = &mut running.ending else { return };
        if ending.kill_at <= now {
            ending.kill_at = now + AGAIN; // once more, for one that was just being born
            self.end_by_force(running.program);
        } else {
            self.ask(ending, running.program);
        }
    }

    /// Ends all of the job's processes by force. Where no group does it at once all are stopped first,
    /// so that none can start another while the rest is looked for, until two looks find no more.
    fn end_by_force(&self, program: Option<Pid>) {
        if let Some(group) = self.group.as_ref().filter(|group| group.holds_children()) {
            group.kill();
        }
        let deadline = Instant::now() + AGAIN;
        let mut stopped: Vec<tree::Process> = Vec::new();
        let mut looks_without = 0;
        while looks_without < 2 && Instant::now() < deadline {
            let all = self.processes(program).into_iter();
            let is_known = |process: &tree::Process| {
                stopped.iter().any(|known| known.identity() == process.identity())
            };
            let fresh: Vec<tree::Process> = all.filter(|process| !is_known(process)).collect();
            looks_without = if fresh.is_empty() { looks_without + 1 } else { 0 };
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
