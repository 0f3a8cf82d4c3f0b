//! A job that runs, and what is known of its end.

use std::time::{Duration, Instant};

use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use super::capture::Capture;
use super::phase::Phase;
use crate::model::ids::RunId;
use crate::model::outcome::Outcome;
use crate::model::run_status::RunStatus;
use crate::model::usage::Usage;

/// A job that runs.
#[derive(Debug)]
pub(super) struct Running {
    pub id: RunId,
    /// Of a range: which task.
    pub task: Option<u32>,
    pub captures: Vec<Capture>,
    pub grace: Duration,
    pub deadline: Option<(Instant, Duration)>,
    pub phase: Phase,
    /// What it ends as, whatever its programs say; once it was asked to end while one ran.
    pub verdict: Option<Outcome>,
    /// When patience is over, with what was asked to end, or in doubt.
    pub patience: Instant,
    /// Those that were asked to end: pid, and when it started.
    pub asked: Vec<(i32, u64)>,
    /// The program, until its end was seen.
    pub program: Option<Pid>,
    /// How it ended.
    pub ended: Option<WaitStatus>,
    /// What its programs have used that have ended.
    pub used: Usage,
    /// Its line, until it was reported.
    pub line: Option<RunStatus>,
    /// The line of its first program.
    pub begun: Option<RunStatus>,
    pub report_at: Instant,
    pub put_back_at: Instant,
    /// What it ends as where its end was wanted when none of its programs ran: no other is started.
    pub wanted: Option<Outcome>,
    /// See [`super::supervisor::Claimed::heard_since`].
    pub heard_since: Option<u64>,
    /// When to look whether somebody wants its end.
    pub look_at: Instant,
}
