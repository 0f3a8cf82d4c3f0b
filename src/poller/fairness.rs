//! Fair shares: what users have had is kept up to date, and written down once a minute.

use std::time::{Duration, Instant, SystemTime};

use nix::time::{ClockId, clock_gettime};

use super::index::Index;
use crate::board::root::{Root, boot_id};
use crate::board::shares;
use crate::clock;
use crate::error::{At, Result};
use crate::model::shares::Shares;

/// How often it is written down.
const WRITE_EVERY: Duration = Duration::from_secs(60);

/// Longest time that is counted of one during which nobody kept count: between two rounds from cron, or where
/// the clock of another boot says so.
const LONGEST_GAP: f64 = 86_400.0;

/// What users have had, and until when that is counted.
#[derive(Debug)]
pub struct Fairness {
    shares: Shares,
    counted: Instant,
    written: Option<Instant>,
    /// Of what is counted something is not written down.
    is_new: bool,
    /// What was written down before is taken up.
    is_known: bool,
}

impl Fairness {
    /// Nobody has had anything.
    pub fn new(now: Instant) -> Fairness {
        Fairness {
            shares: Shares::default(),
            counted: now,
            written: None,
            is_new: false,
            is_known: false,
        }
    }

    /// Goes on from what was written down last.
    pub fn take_up(&mut self, root: &Root, index: &Index) -> Result<()> {
        self.shares.half_life = root.settings.share_half_life.as_secs();
        let mut shares = shares::read(root)?;
        shares.half_life = self.shares.half_life;
        let gap = match shares.boot == boot_id()? {
            true => seconds()?.saturating_sub(shares.clock) as f64,
            false => {
                let then = clock::parse_rfc3339(&shares.at).unwrap_or_else(SystemTime::now);
                SystemTime::now().duration_since(then).unwrap_or_default().as_secs_f64()
            }
        };
        let since = std::mem::replace(&mut self.shares, shares).had;
        for (user, had) in since {
            *self.shares.had.entry(user).or_insert(0.0) += had; // where it was read late
        }
        self.is_known = true;
        let counted = gap.min(LONGEST_GAP);
        self.shares.pass(gap - counted, std::iter::empty());
        self.pass(counted, index);
        self.counted = Instant::now();
        self.written = Some(self.counted);
        Ok(())
    }

    fn pass(&mut self, seconds: f64, index: &Index) {
        let users = index.ready.in_use();
        let cores = users.filter_map(|(user, used)| Some((user?.as_ref(), used.running)));
        self.shares.pass(seconds, cores);
    }

    /// Counts what was had since this was last called.
    pub fn count(&mut self, index: &mut Index) {
        let now = Instant::now();
        let passed = now.saturating_duration_since(self.counted);
        self.counted = now;
        // What is forgotten meanwhile needs no writing: it is by the time that is written.
        self.is_new |= index.ready.in_use().any(|(_, used)| used.running > 0);
        self.pass(passed.as_secs_f64(), index);
        let shares = &self.shares;
        index.ready.set_had(|user| user.map_or(0, |user| shares.of(user)));
    }

    /// Writes it down, if there is something new and it is time.
    pub fn write(&mut self, root: &Root, at_once: bool) -> Result<()> {
        let is_due = self.written.is_none_or(|last| last.elapsed() >= WRITE_EVERY);
        if !self.is_known || !self.is_new || !(is_due || at_once) {
            return Ok(());
        }
        self.written = Some(Instant::now());
        self.is_new = false;
        self.shares.forget_little();
        self.shares.at = clock::now();
        self.shares.boot = boot_id()?;
        self.shares.clock = seconds()?;
        shares::write(root, &self.shares)
    }
}

/// By the clock of this boot, which nobody sets.
fn seconds() -> Result<u64> {
    Ok(clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).at("clock")?.as_secs())
}
