//! A supervisor: runs one job after another while there is work for its room, then lingers a
//! little.
//!
//! It is a small process without threads. Whatever it does for a job is on the board before the
//! next step, so that it may be killed at any point: see `claim` for what is durable when, and
//! `child` for why a program is started at most once.

use std::time::Instant;

use nix::sys::prctl;
use nix::unistd::{ForkResult, fork, setsid};

use super::cgroup::{self, Place};
use super::info::Total;
use super::pace::SHARE_SYNC;
use super::supervisor::{Claimed, Supervisor};
use super::units::Units;
use super::{gpus, inherited, start, sweep};
use crate::board::root::Root;
use crate::board::slots::MOST_CLAIMS;
use crate::edge;
use crate::error::{At, Error, Result};
use crate::model::ids::RunId;

/// One job that cannot be started is its own affair, and others go on. If it is so many in a row, nothing
/// can be started here at present.
const MOST_FAILURES: usize = 8;

/// Runs a supervisor to its end. Unless it is to stay, the caller's process ends at once and the
/// supervisor is a process of its own, in a session of its own.
pub fn run(stay: bool) -> Result<i32> {
    let Some(root) = leave(stay)? else { return Ok(0) };
    sweep::recover(&root)?;
    if let Some(lacks) = inherited::replace(&root) {
        eprintln!("processor: left to the poller, which has more than this process: {lacks}");
        return Ok(0);
    }
    // Once, and not for each job.
    let url = root.advertised().unwrap_or_else(|error| {
        eprintln!("processor: jobs are not told where this root's server is: {}", error.message);
        None
    });
    let mut place = Place::find();
    let mut kept = None;
    loop {
        let root = Root::find()?; // its settings may have changed meanwhile
        let mut supervisor = Supervisor::new(&root, url.as_deref(), place.take(), kept.take())?;
        supervisor.may_linger = !stay && !root.settings.linger.is_zero();
        supervisor.work()?;
        (place, kept) = supervisor.linger()?;
        if kept.is_none() {
            return Ok(0);
        }
    }
}

/// Finds out which GPUs there are, in a process of its own as a supervisor is one, and then has what waits
/// started: see `gpus`.
pub fn find_gpus() -> Result<i32> {
    let Some(root) = leave(false)? else { return Ok(0) };
    let left = gpus::find_out(&root);
    let poked = start::poke(&root);
    if let Some(mut child) = left {
        let _ = child.wait(); // whoever would inherit it might take it for a job's
    }
    poked.map(|_| 0)
}

/// Leaves who started this process; the root then, or `None` in the process that was started, unless it is to
/// stay.
fn leave(stay: bool) -> Result<Option<Root>> {
    edge::outlast_limits();
    // Whoever started this may have left descriptors open; no job is to have them.
    // SAFETY: nothing has been opened in this process yet, so nobody owns what is closed.
    unsafe { nix::libc::close_range(3, nix::libc::c_uint::MAX, 0) };
    // A job may have started it, and is not to take it along: who waits for this to return knows
    // that it has left.
    if let Err(error) = cgroup::leave_job() {
        eprintln!("processor: it stays in the cgroup of a job, and ends with that: {error}");
    }
    let _ = setsid(); // refused only to one that leads a group, at a terminal: fine
    if !stay {
        // SAFETY: the program was just started and has a single thread.
        if let ForkResult::Parent { .. } = unsafe { fork() }.at("fork")? {
            return Ok(None);
        }
        let _ = setsid(); // one of its own
    }
    let root = Root::find()?;
    root.for_change()?;
    Ok(Some(root))
}

impl Supervisor<'_> {
    fn work(&mut self) -> Result<()> {
        let mut in_a_row = 0;
        while self.claim()? {
            let begun = Instant::now();
            let mut count = 0u32;
            while let Some(job) = self.next_claimed()? {
                let id = job.id.clone();
                match self.run_job(job) {
                    Ok(()) => in_a_row = 0,
                    Err(error) => {
                        in_a_row += 1;
                        self.leave_to_others(&id, error, in_a_row)?;
                    }
                }
                count += 1;
                if self.failed {
                    return Ok(()); // the slot still names what recovery has to finish
                }
            }
            let quick = begun.elapsed() < SHARE_SYNC * count.max(1) / 2;
            self.batch = if quick { (self.batch * 2).min(MOST_CLAIMS) } else { 1 };
        }
        Ok(())
    }

    /// Lets a job wait again of which nothing was started, for another supervisor to try. An error ends
    /// this one: recovery finishes what its slot names.
    fn leave_to_others(&mut self, id: &RunId, error: Error, in_a_row: usize) -> Result<()> {
        let never_ran = matches!(self.runs.last_line(id), Ok(None));
        if self.failed || !never_ran || in_a_row >= MOST_FAILURES {
            return Err(error);
        }
        eprintln!("processor: {id} is not started: {}", error.message);
        self.passed_over.push(id.clone());
        self.let_wait(id)
    }

    /// The next job to run, unless this process was told to end.
    fn next_claimed(&mut self) -> Result<Option<Claimed>> {
        self.heed_signals_between()?;
        Ok(if self.stopping { None } else { self.claimed.pop_front() })
    }

    /// Starts another supervisor between two jobs. It must not become a child of this one, whose
    /// children are its jobs' processes; while no job runs nobody else needs the subreaper.
    pub(super) fn start_another(&mut self) {
        let root = self.runs.root();
        let _ = prctl::set_child_subreaper(false); // then it is a child that is known to live
        let _ = start::detached(root); // a later sweep starts one
        let _ = prctl::set_child_subreaper(true);
    }

    /// Has somebody find out which GPUs there are, and start what waits for that; between two jobs, likewise.
    pub(super) fn have_gpus_found(&mut self) {
        let root = self.runs.root();
        if self.has_asked || !gpus::is_due(root) {
            return;
        }
        self.has_asked = true;
        let _ = prctl::set_child_subreaper(false);
        if let Err(error) = start::gpu_finder(root) {
            eprintln!("processor: nobody finds out which GPUs there are: {}", error.message);
        }
        let _ = prctl::set_child_subreaper(true);
    }

    /// Takes up what was found out meanwhile: what was passed over for that is to be had now.
    pub(super) fn learn_gpus(&mut self) {
        if self.total.unsure.is_some() {
            self.give_out();
        }
    }

    /// Takes up what this node gives to jobs by now, where its settings have been changed: before it claims
    /// more it sees anew whether there is room. Wrong ones are told where the node is asked what it gives.
    pub(super) fn keep_up_with_settings(&mut self) {
        let now = self.runs.root().settings_file();
        if now != self.settings {
            self.settings = now;
            self.give_out();
        }
    }

    /// From now on jobs are given what this root has now.
    fn give_out(&mut self) {
        let Ok(root) = Root::open(self.runs.root().dir()) else { return };
        let gpus = gpus::known(&root);
        let before = std::mem::replace(&mut self.total, Total::with(&root, &gpus));
        if self.total != before {
            self.limits.have(Units::of(&root, &self.total.resources, &gpus));
            self.resources = None;
            self.queue.clear();
            self.passed_over.clear();
        }
    }

    /// Starts another supervisor while a job runs. It is a child of this one, which will reap it.
    pub(super) fn start_beside(&self) {
        let _ = start::child(self.runs.root()); // a later sweep starts one
    }
}
