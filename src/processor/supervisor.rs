//! The state of a supervisor: what it has claimed, what it has to tell, and what it is woken by.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::time::Instant;

use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::cgroup::{Group, Place};
use super::child::heed_ignored_signals;
use super::gpus;
use super::info::Total;
use super::limits::Limits;
use super::running_range::RunningRange;
use super::units::Units;
use crate::board::root::{Root, SettingsFile, boot_id};
use crate::board::runs::{Runs, Waiting};
use crate::board::slots::{DeadSlot, Slot};
use crate::board::sync_set::SyncSet;
use crate::error::{At, Result};
use crate::model::ids::RunId;
use crate::model::request::Spec;
use crate::model::resources::Resources;
use crate::model::run_status::RunStatus;
use crate::user::{self, User};

/// A job that is claimed.
#[derive(Debug)]
pub(super) struct Claimed {
    pub id: RunId,
    pub spec: Spec,
    /// Its `request.json`, to be locked while it runs.
    pub request: File,
    /// Why this node can never run it: it is given back instead.
    pub unfit: Option<String>,
    /// Since when its head was heard of as it was when this was picked, see [`super::contact`].
    pub heard_since: Option<u64>,
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
    pub total: Total,
    /// The settings by which that is so.
    pub settings: Option<SettingsFile>,
    /// Whether it has had somebody find out which GPUs there are.
    pub has_asked: bool,
    /// Held from the first claim on.
    pub slot: Option<Slot>,
    /// Where it may make groups, if anywhere.
    pub place: Option<Place>,
    /// That of its slot.
    pub group: Option<Group>,
    /// What the slot's jobs are held to.
    pub limits: Limits,
    /// What the slot's jobs are given, once there were any.
    pub resources: Option<Resources>,
    /// Slots in which dead supervisors left what cannot be ended.
    pub unrecovered: Vec<DeadSlot>,
    /// The jobs that have waited longest, as seen a while ago.
    pub queue: VecDeque<Waiting>,
    /// Jobs that wait and that this process does not start, whatever room there is.
    pub passed_over: Vec<RunId>,
    /// How many to claim at a time.
    pub batch: usize,
    /// Claimed and not started.
    pub claimed: VecDeque<Claimed>,
    /// What shows a head that these runs are its attempts: of all that are claimed and not told of.
    pub proofs: HashMap<RunId, String>,
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

impl<'r> Supervisor<'r> {
    /// A supervisor that goes on with what another one, with other settings, has `kept`.
    pub fn new(
        root: &'r Root,
        url: Option<&'r str>,
        place: Option<Place>,
        kept: Option<Kept>,
    ) -> Result<Supervisor<'r>> {
        let gpus = gpus::known(root);
        let total = Total::with(root, &gpus);
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
            limits: Limits::new(Units::of(root, &total.resources, &gpus)),
            total,
            settings: root.settings_file(),
            has_asked: false,
            slot,
            place,
            group,
            resources: None,
            unrecovered: Vec::new(),
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
}
