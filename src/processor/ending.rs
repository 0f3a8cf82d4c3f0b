//! Ending a job: all of its processes, first asked, then made to.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::cgroup::Group;
use super::pace::{AGAIN, SHUTDOWN_TELLS_ALL};
use super::phase::{self, Act, Happening};
use super::running::Running;
use super::start::is_supervisor;
use super::supervisor::Supervisor;
use super::tree;
use crate::model::outcome::Outcome;

/// Why a job is lost whose supervisor was told to end: that is the machine's doing, and nobody's who
/// wanted the job to end.
pub(super) const TOLD_TO_END: &str = "the supervisor was told to end (machine shutdown?)";

impl Supervisor<'_> {
    /// Something happens to a job: the table of phases says what is done, and where it is then.
    pub(super) fn happens(&self, running: &mut Running, what: Happening) {
        self.happens_to_end(running, what, None, running.grace);
    }

    /// The same of what may end it: as what, and how much time its processes are given between being
    /// asked and being made to.
    pub(super) fn happens_to_end(
        &self,
        running: &mut Running,
        what: Happening,
        verdict: Option<Outcome>,
        grace: Duration,
    ) {
        let (phase, act) = phase::next(running.phase, what);
        running.phase = phase;
        let now = Instant::now();
        let patience = now.checked_add(grace).unwrap_or(now);
        match act {
            Act::Nothing => {}
            Act::Ask => {
                (running.verdict, running.patience) = (verdict, patience);
                self.ask(running);
            }
            Act::Hurry => running.patience = running.patience.min(patience),
            Act::AskAgain => self.ask(running),
            Act::Force => {
                running.patience = now + AGAIN; // once more, for one that was just being born
                self.end_by_force(running.program);
            }
            Act::Wait => running.patience = now + SHUTDOWN_TELLS_ALL,
        }
    }

    /// What the programs left behind is ended, and the last output read.
    pub(super) fn end_rest(&mut self, running: &mut Running) {
        while !self.is_alone() {
            self.happens(running, Happening::Left);
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

    /// Asks those to end that were not asked yet: daemons that were just about to leave. What
    /// one makes that was asked is its own affair: it may be cleaning up.
    fn ask(&self, running: &mut Running) {
        let before = running.asked.len();
        for process in self.processes(running.program) {
            let known = &running.asked[..before];
            if known.iter().any(|asked| *asked == process.identity() || asked.0 == process.parent) {
                continue;
            }
            tree::signal(&process, Signal::SIGTERM);
            // One that is stopped would not notice before it is continued.
            tree::signal(&process, Signal::SIGCONT);
            running.asked.push(process.identity());
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
