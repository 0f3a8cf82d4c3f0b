//! `state/scheduler/workers/NAME/`: what the head keeps of a node that nobody reaches and that asks here for
//! its orders: when it last did (`contact`), which process that was (`session`), what it says of itself
//! (`info`), and its feed (`events`), of which the lines are the node's. Its orders: see [`super::mail`].
//!
//! The directory is made when the worker first asks. It is for its owner alone: orders hold the keys of
//! attempts. Nothing in these four files is synced: a worker that asks tells everything again.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bell::{self, Bell};
use super::feed;
use super::feed_file::FeedFile;
use super::files;
use super::lock::Lock;
use super::root::{Root, boot_id};
use crate::error::{At, Error, Kind, Result};
use crate::model::ids;
use crate::model::run_status::RunStatus;
use crate::wire::feed::FeedPage;

/// Where they lie.
pub(super) const DIR: &str = "scheduler/workers";

/// What is made in each, beside its lock.
pub(super) const PARTS: [&str; 3] = ["ask", "got", "say"];

/// The box of a worker.
#[derive(Debug, Clone)]
pub struct WorkerBox {
    pub(super) root: Root,
    pub(super) dir: PathBuf,
}

/// Which process of a worker asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its root, as the node's `uri` names it.
    pub root: String,
    /// The process.
    pub session: String,
    /// The boot of its machine.
    pub boot: String,
    /// Where it asks from.
    pub address: String,
    /// Since when it does.
    pub since: String,
    /// Of which version it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
}

/// When a worker last asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// The claim to which orders are given: a later one has another turn.
    pub turn: String,
    /// How long ago that was.
    pub age: Duration,
}

/// A line of always the same length.
#[derive(Debug, Serialize, Deserialize)]
struct Written {
    turn: String,
    /// Milliseconds since this machine was started, in fifteen digits.
    at: String,
    boot: String,
}

/// How long ago this machine was started; sleep counts.
pub(super) fn steady() -> Result<Duration> {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).at("clock")
}

/// The same in milliseconds.
pub fn steady_ms() -> Result<u64> {
    Ok(steady()?.as_millis() as u64)
}

/// The box of a node's worker, which may not be there.
pub fn of(root: &Root, node: &str) -> Result<WorkerBox> {
    if !ids::is_valid(node) {
        return Err(Error::not_found("no such node"));
    }
    Ok(WorkerBox { root: root.clone(), dir: root.state(DIR).join(node) })
}

/// Removes what there is of a node that is none any more.
pub fn remove(root: &Root, node: &str) -> Result<()> {
    files::remove_tree(&of(root, node)?.dir)
}

/// Names of the nodes of which there is something.
pub fn names(root: &Root) -> Result<Vec<String>> {
    files::names(&root.state(DIR))
}

impl WorkerBox {
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(super) fn tmp(&self) -> PathBuf {
        self.root.state("scheduler/tmp")
    }

    /// Makes it, where it is not there.
    pub fn make(&self) -> Result<()> {
        if self.path(PARTS[PARTS.len() - 1]).is_dir() {
            return Ok(());
        }
        for dir in PARTS.map(|part| self.path(part)) {
            DirBuilder::new().recursive(true).mode(0o700).create(&dir).at(&dir)?;
        }
        files::sync_dir(&self.dir)?;
        files::sync_dir(files::parent(&self.dir))?;
        files::sync_dir(files::parent(files::parent(&self.dir)))
    }

    /// Its lock, for what takes an instant.
    pub(super) fn lock(&self) -> Result<Lock> {
        Lock::take(&self.path("lock"))
    }

    /// When it last asked; `None` where it never did in this boot, or has taken leave.
    pub fn contact(&self) -> Result<Option<Contact>> {
        let path = self.path("contact");
        let Some(bytes) = files::read(&path)? else { return Ok(None) };
        let Ok(written) = serde_json::from_slice::<Written>(&bytes) else { return Ok(None) };
        if written.boot != boot_id()? || written.turn.is_empty() {
            return Ok(None);
        }
        let at = written.at.parse().unwrap_or(0);
        let age = Duration::from_millis(steady_ms()?.saturating_sub(at));
        Ok(Some(Contact { turn: written.turn, age }))
    }

    /// Whether it has asked within the time in which it must.
    pub fn is_in_touch(&self) -> Result<bool> {
        Ok(self.silence()?.is_none())
    }

    /// For how long it has not asked, where that is too long: for a person.
    pub fn silence(&self) -> Result<Option<String>> {
        Ok(match self.contact()? {
            Some(contact) if contact.age < self.root.settings.silence_timeout => None,
            Some(contact) => Some(format!("has not asked for {} s", contact.age.as_secs())),
            None => Some("has not asked".into()),
        })
    }

    /// Notes that it asks now, in this turn. For who holds the lock.
    fn touch(&self, _held: &Lock, turn: &str) -> Result<()> {
        let path = self.path("contact");
        let at = format!("{:015}", steady_ms()?);
        let written = Written { turn: turn.to_string(), at, boot: boot_id()? };
        let line = serde_json::to_string(&written).map_err(|e| Error::bad(e.to_string()))?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file: File = files::open_by(&mut options, &path).at(&path)?;
        files::rewrite_line(&file, &line).at(&path)
    }

    /// Which process asks.
    pub fn session(&self) -> Result<Option<Session>> {
        let bytes = files::read(&self.path("session"))?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// A process of the worker asks, or tells. 409 where another one does, of another machine: its turn is
    /// over when it is silent. One of the same machine has ended, since a root has one worker at a time.
    /// With a claim a turn begins, which is returned; the one before gets no more orders.
    pub fn enter(&self, now: &Session, claims: bool) -> Result<String> {
        self.make()?;
        let held = self.lock()?;
        let (before, contact) = (self.session()?, self.contact()?);
        let is_same = before.as_ref().is_some_and(|before| before.session == now.session);
        if let (Some(before), false) = (&before, is_same)
            && before.boot != now.boot
            && self.is_in_touch()?
        {
            let why = format!("another worker of this name is at work at {}", before.address);
            return Err(Error::conflict(why));
        }
        if !is_same || before.is_some_and(|before| before.address != now.address) {
            self.put("session", &files::json_line(now)?)?;
        }
        let turn = match contact {
            Some(contact) if !claims => contact.turn,
            _ => files::random_hex::<8>()?,
        };
        self.touch(&held, &turn)?;
        drop(held);
        if claims {
            bell::ring(&self.path("bell")); // whoever waits in the turn before is to look
        }
        Ok(turn)
    }

    /// The worker takes leave: it is not in touch from now on.
    pub fn leave(&self) -> Result<()> {
        let held = self.lock()?;
        self.touch(&held, "")?;
        bell::ring(&self.path("bell"));
        bell::ring(&self.path("news"));
        drop(held);
        Ok(())
    }

    /// A small file that is put in its place whole, and not synced.
    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let (path, prepared) = (self.path(name), self.tmp().join(files::random_name()?));
        files::create_secret(&prepared, bytes)?;
        fs::rename(&prepared, &path).at(&path).inspect_err(|_| {
            let _ = files::remove(&prepared); // the first error is the one to report
        })
    }

    /// Keeps what it says of itself.
    pub fn keep_info(&self, info: &Value) -> Result<()> {
        self.put("info", &files::json_line(info)?)
    }

    /// What it says of itself; `None`: it has not said it yet.
    pub fn info(&self) -> Result<Option<Vec<u8>>> {
        files::read(&self.path("info"))
    }

    /// Where somebody waits for orders to this worker.
    pub fn bell(&self) -> Result<Bell> {
        Bell::at(&self.path("bell"))
    }

    /// Takes in what it tells of its feed; `anew`: nothing leads to that. Whoever follows it is told.
    pub fn tell(&self, anew: bool, lines: &[RunStatus]) -> Result<()> {
        if !anew && lines.is_empty() {
            return Ok(());
        }
        let held = self.lock()?;
        let feed = self.feed();
        if anew {
            feed.begin(None)?;
        }
        feed::append_to(&feed, &held, lines)?;
        drop(held);
        bell::ring(&self.path("news"));
        Ok(())
    }

    fn feed(&self) -> FeedFile<'_> {
        FeedFile::at(&self.root, self.path("events"), self.tmp())
    }

    /// What it has told since a cursor, see [`feed::read`]: waits for it at most so long, and no longer than
    /// it is in touch. 504 where it is not.
    pub fn follow(&self, node: &str, since: Option<&str>, wait: Duration) -> Result<FeedPage> {
        let silent = |how: String| Error::new(Kind::GatewayTimeout, format!("node {node} {how}"));
        if let Some(how) = self.silence()? {
            return Err(silent(how));
        }
        let feed = self.feed();
        let Some(since) = since else { return feed::end_of(&feed, || self.lock()) };
        let deadline = Instant::now() + wait;
        let news = Bell::at(&self.path("news"))?;
        loop {
            let page = feed::page_of(&feed, since)?;
            let left = deadline.saturating_duration_since(Instant::now());
            if !page.events.is_empty() || left.is_zero() {
                return Ok(page);
            }
            if let Some(how) = self.silence()? {
                return Err(silent(how));
            }
            // It is missed at once.
            let silence = self.root.settings.silence_timeout;
            let missed =
                self.contact()?.map_or(silence, |contact| silence.saturating_sub(contact.age));
            news.wait(left.min(missed));
        }
    }
}
