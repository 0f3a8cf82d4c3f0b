//! A supervisor: runs one job after another while there is work for its room, then lingers a
//! little.
//!
//! It is a small process without threads. Whatever it does for a job is on the board before the
//! next step, so that it may be killed at any point: see `claim` for what is durable when, and
//! `child` for why a program is started at most once.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{ForkResult, fork, setsid};

use super::cgroup::{self, Group, Place};
use super::child::heed_ignored_signals;
use super::range::RunningRange;
use super::{inherited, start, sweep};
use crate::board::root::{Root, boot_id};
use crate::board::runs::{Runs, Waiting};
use crate::board::slots::Slot;
use crate::board::sync_set::SyncSet;
use crate::edge;
use crate::error::{At, Error, Result};
use crate::model::request::Spec;
use crate::model::resources::Resources;
use crate::model::run_status::RunStatus;
use crate::user::{self, User};

/// A result waits at most so long for others to share its sync with.
pub(super) const SHARE_SYNC: Duration = Duration::from_millis(20);

/// One job that cannot be started is its own affair, and others go on. If it is so many in a row, nothing
/// can be started here at present.
const MOST_FAILURES: usize = 8;

/// A job that is claimed.
#[derive(Debug)]
pub(super) struct Claimed {
    pub id: String,
    pub spec: Spec,
    /// Its `request.json`, to be locked while it runs.
    pub request: File,
    /// Why this node can never run it: it is given back instead.
    pub unfit: Option<String>,
}

/// A slot that is held, with its group.
#[derive(Debug)]
pub(super) struct Kept {
    pub slot: Slot,
    pub group: Option<Group>,
}

/// The state of a supervisor.
#[derive(Debug)]
pub(super) struct Supervisor<'r> {
    pub runs: Runs<'r>,
    pub boot: String,
    pub user: User,
    /// Where jobs find the server of this root, if it has one.
    pub url: Option<&'r str>,
    pub total: Resources,
    /// Held from the first claim on.
    pub slot: Option<Slot>,
    /// Where it may make groups, if anywhere.
    pub place: Option<Place>,
    /// That of its slot.
    pub group: Option<Group>,
    /// What the slot's jobs are given, once there were any.
    pub resources: Option<Resources>,
    /// The jobs that have waited longest, as seen a while ago.
    pub queue: VecDeque<Waiting>,
    /// Jobs that wait and that this process does not start, whatever room there is.
    pub passed_over: Vec<String>,
    /// How many to claim at a time.
    pub batch: usize,
    /// Claimed and not started.
    pub claimed: VecDeque<Claimed>,
    /// What shows a head that these runs are its attempts: of all that are claimed and not told of.
    pub proofs: HashMap<String, String>,
    /// Ended and not in the feed yet.
    pub ended: Vec<RunStatus>,
    /// What makes those durable, and the claim where it is not.
    pub ended_sync: SyncSet,
    /// Whether the present claim is durable, without which no program may start.
    pub claim_is_durable: bool,
    /// Since when the first of them waits.
    pub ended_since: Option<Instant>,
    /// The range that runs, if it is one.
    pub range: Option<RunningRange>,
    /// How many tasks of a range to claim at a time.
    pub claim_size: u64,
    /// When what it has said of its progress is to be told, if something is.
    pub words_due: Option<Instant>,
    pub signals: SignalFd,
    pub null: OwnedFd,
    pub buffer: Vec<u8>,
    /// Whether it may stay when there is nothing to do.
    pub may_linger: bool,
    /// It does: it holds its slot, which names nothing.
    pub lingers: bool,
    /// Told to end.
    pub stopping: bool,
    /// Something could not be recorded: end after this job, and leave the rest to recovery.
    pub failed: bool,
}

/// Runs a supervisor to its end. Unless it is to stay, the caller's process ends at once and the
/// supervisor is a process of its own, in a session of its own.
pub fn run(stay: bool) -> Result<i32> {
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
            return Ok(0);
        }
        let _ = setsid(); // one of its own
    }
    let root = Root::find()?;
    root.for_change()?;
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

impl<'r> Supervisor<'r> {
    fn new(
        root: &'r Root,
        url: Option<&'r str>,
        place: Option<Place>,
        kept: Option<Kept>,
    ) -> Result<Supervisor<'r>> {
        let (slot, group) = kept.map_or((None, None), |kept| (Some(kept.slot), kept.group));
        let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null");
        let mut mask = SigSet::empty();
        for caught in [Signal::SIGCHLD, Signal::SIGUSR1, Signal::SIGTERM] {
            mask.add(caught);
        }
        mask.thread_set_mask().at("signal mask")?;
        heed_ignored_signals();
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        // Processes that a job detaches come back to its supervisor, not to init.
        prctl::set_child_subreaper(true).at("subreaper")?;
        Ok(Supervisor {
            runs: Runs::new(root),
            boot: boot_id()?,
            user: user::own()
                .unwrap_or_else(|uid| User { name: uid.to_string(), home: "/".into() }),
            url,
            total: super::info::total(root)?,
            slot,
            place,
            group,
            resources: None,
            queue: VecDeque::new(),
            passed_over: Vec::new(),
            batch: 1,
            claimed: VecDeque::new(),
            proofs: HashMap::new(),
            ended: Vec::new(),
            ended_sync: SyncSet::new(),
            claim_is_durable: true,
            ended_since: None,
            range: None,
            claim_size: 1,
            words_due: None,
            signals: SignalFd::with_flags(&mask, flags).at("signalfd")?,
            null: null.at("/dev/null")?.into(),
            buffer: Vec::new(),
            may_linger: false,
            lingers: false,
            stopping: false,
            failed: false,
        })
    }

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
            self.batch =
                if quick { (self.batch * 2).min(crate::board::slots::MOST_CLAIMS) } else { 1 };
        }
        Ok(())
    }

    /// Lets a job wait again of which nothing was started, for another supervisor to try. An error ends
    /// this one: recovery finishes what its slot names.
    fn leave_to_others(&mut self, id: &str, error: Error, in_a_row: usize) -> Result<()> {
        let never_ran = matches!(self.runs.last_line(id), Ok(None));
        if self.failed || !never_ran || in_a_row >= MOST_FAILURES {
            return Err(error);
        }
        eprintln!("processor: {id} is not started: {}", error.message);
        self.passed_over.push(id.to_string());
        self.let_wait(id)
    }

    /// The next job to run, unless this process was told to end.
    fn next_claimed(&mut self) -> Result<Option<Claimed>> {
        self.heed_signals_between("")?; // no job is at it
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

    /// Starts another supervisor while a job runs. It is a child of this one, which will reap it.
    pub(super) fn start_beside(&self) {
        let _ = start::child(self.runs.root()); // a later sweep starts one
    }
}
