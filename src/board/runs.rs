//! A node's board, `state/processor`: where jobs lie, and how they get there.
//!
//! `queue/ID` is a second name of `job/ID/request.json`: accepted, waiting for room. Whoever
//! removes it has claimed the job. It is made before `job/ID` gets its name and both under the
//! board's lock, so under the lock `queue/ID` without `job/ID` is what a crash left of an
//! acceptance that nobody was told of, and `job/ID` without `queue/ID` is claimed, ended, or
//! refused before it came.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::time::SystemTime;

use nix::fcntl::OFlag;
use serde_json::Value;

use super::files;
use super::lock::Lock;
use super::root::Root;
use super::story::Story;
use super::sync_set::SyncSet;
use crate::error::{At, Error, Kind, Result, is_shortage};
use crate::model::ids::{self, RunId};
use crate::model::newer::{self, written_by_newer};
use crate::model::range::{Line, Range};
use crate::model::request::Spec;
use crate::model::run_status::{RunStatus, answer};

/// The field of a `request.json` that says: cancelled before it came, never to be started.
pub const REFUSED: &str = "refused";

/// Most jobs that are entered or looked at under one hold of the lock.
pub const RUNS_PER_LOCK: usize = 100;

/// Mode of a job's directory.
pub(super) const DIR_MODE: u32 = 0o750;

/// One of a job's output files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output and error together.
    Log,
    /// Standard output, of a job with `output: "split"`.
    Stdout,
    /// Standard error of such a job.
    Stderr,
}

impl Stream {
    /// The file's name in the job's directory, and the stream's in a query.
    pub fn name(self) -> &'static str {
        match self {
            Stream::Log => "log",
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// The jobs of a root's node.
#[derive(Debug, Clone, Copy)]
pub struct Runs<'r> {
    root: &'r Root,
}

/// A job that waits for room.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Waiting {
    /// When it was accepted: seconds and nanoseconds.
    at: (i64, i64),
    /// Its id.
    pub id: RunId,
}

impl<'r> Runs<'r> {
    /// The jobs of this root's node.
    pub fn new(root: &'r Root) -> Runs<'r> {
        Runs { root }
    }

    /// The root.
    pub fn root(&self) -> &'r Root {
        self.root
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.state("processor").join(name)
    }

    /// The directory of links to waiting jobs.
    pub fn queue_dir(&self) -> PathBuf {
        self.path("queue")
    }

    /// The directory of all jobs.
    pub fn jobs_dir(&self) -> PathBuf {
        self.path("job")
    }

    /// The directory of links by process id.
    pub fn pid_dir(&self) -> PathBuf {
        self.path("pid")
    }

    /// Where things are prepared.
    pub fn tmp_dir(&self) -> PathBuf {
        self.path("tmp")
    }

    /// The link that a waiting job has.
    pub fn queue_path(&self, id: &str) -> PathBuf {
        self.path("queue").join(id)
    }

    /// A job's directory.
    pub fn job_dir(&self, id: &str) -> PathBuf {
        self.path("job").join(id)
    }

    /// The acceptance record; locked by the supervisor while the job runs, never replaced.
    pub fn request_path(&self, id: &str) -> PathBuf {
        self.job_dir(id).join("request.json")
    }

    /// The story of its run.
    pub fn status_path(&self, id: &str) -> PathBuf {
        self.job_dir(id).join("status")
    }

    /// Present once somebody asked to kill it.
    pub fn kill_path(&self, id: &str) -> PathBuf {
        self.job_dir(id).join("kill")
    }

    /// Of a range: the story of its tasks.
    pub fn tasks_path(&self, id: &str) -> PathBuf {
        self.job_dir(id).join("tasks")
    }

    /// Of a range: which of its tasks somebody asked to kill.
    pub fn kill_tasks_path(&self, id: &str) -> PathBuf {
        self.job_dir(id).join("kill-tasks")
    }

    /// An output file. Absent until something was written.
    pub fn log_path(&self, id: &str, stream: Stream) -> PathBuf {
        self.job_dir(id).join(stream.name())
    }

    /// What it has said of its progress; absent where it has said nothing.
    pub fn progress_path(&self, id: &str) -> PathBuf {
        self.job_dir(id).join("progress")
    }

    /// Uploads; absent where there were none.
    pub fn work_dir(&self, id: &str) -> PathBuf {
        self.job_dir(id).join("work")
    }

    /// Takes the board's lock: needed to accept, claim, kill a waiting job and append to the feed.
    pub fn lock(&self) -> Result<Lock> {
        self.root().for_change()?;
        Lock::take(&self.path("lock"))
    }

    /// Makes everything on the board's file system durable.
    pub fn sync_all(&self) -> Result<()> {
        let path = self.path("lock");
        let file = File::open(&path).at(&path)?;
        nix::unistd::syncfs(&file).at(&path).map_err(|e| {
            Error::new(Kind::Internal, format!("{} (repeat with the same ids)", e.message))
        })
    }

    /// The request as it was accepted; 404 for an id that is not here, 410 for a refused one.
    pub fn request(&self, id: &str) -> Result<Value> {
        check_id(id)?;
        let path = self.request_path(id);
        let bytes = files::read(&path)?.ok_or_else(|| unknown(id))?;
        let request: Value = serde_json::from_slice(&bytes).map_err(|e| {
            Error::new(Kind::Internal, format!("{}: not a request: {e}", path.display()))
        })?;
        if let Some(refused) = request.get(REFUSED) {
            return Err(Error::new(
                Kind::Gone,
                match refused.get("reason").and_then(Value::as_str) {
                    Some(why) => format!("{id} was given back: {why}"),
                    None => format!("{id} was cancelled before it came; it will not be started"),
                },
            ));
        }
        Ok(request)
    }

    /// The user who had a job run, where its request says so; nothing else of it is read.
    pub fn sent_by(&self, id: &str) -> Result<Option<String>> {
        #[derive(serde::Deserialize)]
        struct Sent {
            by: Option<String>,
        }
        check_id(id)?;
        let bytes = files::read(&self.request_path(id))?.unwrap_or_default();
        Ok(serde_json::from_slice(&bytes).ok().and_then(|Sent { by }| by))
    }

    /// What a newer program wrote of this job that this one does not know, in words: in its request,
    /// its story, or that of its tasks.
    pub fn newer(&self, id: &str) -> Result<Option<String>> {
        check_id(id)?;
        let read = |path: PathBuf| files::read(&path).map(Option::unwrap_or_default);
        let request = read(self.request_path(id))?;
        let request = match serde_json::from_slice(&request) {
            Ok(Value::Object(map)) if !map.contains_key(REFUSED) => Spec::of_run(&map).1,
            _ => None,
        };
        if request.is_some() {
            return Ok(request);
        }
        if let Some(what) = newer::in_story::<RunStatus>(&read(self.status_path(id))?) {
            return Ok(Some(format!("{what} of its status")));
        }
        let tasks = newer::in_story::<Line>(&self.tasks_story(id)?);
        Ok(tasks.map(|what| format!("{what} of its tasks")))
    }

    /// Refuses with 409 what this program may not touch, since a newer one wrote it.
    pub fn for_change(&self, id: &str) -> Result<()> {
        let Some(what) = self.newer(id)? else { return Ok(()) };
        Err(Error::conflict(format!("{id} was {}", written_by_newer(&what))))
    }

    /// When the job was accepted.
    pub fn accepted_at(&self, id: &str) -> Result<SystemTime> {
        let path = self.request_path(id);
        let meta = files::gone_is_fine(fs::metadata(&path)).at(&path)?;
        meta.ok_or_else(|| unknown(id))?.modified().at(&path)
    }

    /// Whether it waits for room.
    pub fn is_queued(&self, id: &str) -> Result<bool> {
        let path = self.queue_path(id);
        path.try_exists().at(&path)
    }

    /// Whether this open request is the one that waits under this id. One that was read without the
    /// lock may be what a crash left of an acceptance, and another may have come in its place.
    pub fn is_queued_as(&self, id: &str, request: &File) -> Result<bool> {
        let path = self.queue_path(id);
        let Some(link) = files::gone_is_fine(fs::metadata(&path)).at(&path)? else {
            return Ok(false);
        };
        let own = request.metadata().at(&path)?;
        Ok((link.dev(), link.ino()) == (own.dev(), own.ino()))
    }

    /// Whether it is here.
    pub fn is_here(&self, id: &str) -> Result<bool> {
        let path = self.job_dir(id);
        path.try_exists().at(&path)
    }

    /// The answer in the job's own story; `None` while nothing has been written there.
    pub fn last_line(&self, id: &str) -> Result<Option<RunStatus>> {
        Ok(files::read(&self.status_path(id))?.and_then(|bytes| answer(&bytes)))
    }

    /// The story of a range's tasks. What lies in its place and is none says nothing: a plain job may have
    /// put it there.
    fn tasks_story(&self, id: &str) -> Result<Vec<u8>> {
        let path = self.tasks_path(id);
        let is_none = || fs::symlink_metadata(&path).is_ok_and(|meta| !files::is_plain(&meta));
        let read = files::read(&path);
        read.or_else(|error| if is_none() { Ok(None) } else { Err(error) })
            .map(Option::unwrap_or_default)
    }

    /// What makes the end of a job durable. Whoever wrote it may have died before their sync, or be
    /// about to make it: it must not be told before.
    pub fn sync_of_end(&self, id: &str) -> Result<SyncSet> {
        let mut sync = SyncSet::new();
        for path in [self.status_path(id), self.tasks_path(id)] {
            match files::open_own(&path) {
                Ok(file) => file.into_iter().for_each(|file| sync.file(file, path.clone())),
                Err(_) if path == self.tasks_path(id) && self.tasks_story(id)?.is_empty() => {}
                Err(error) => return Err(error),
            }
        }
        self.sync_dir(id, &mut sync)?;
        Ok(sync)
    }

    /// Adds a job's directory to what is made durable. One that the job has closed to its owner is opened
    /// again; one that it has removed keeps no other end from being told, nor its own.
    pub fn sync_dir(&self, id: &str, sync: &mut SyncSet) -> Result<()> {
        let dir = self.job_dir(id);
        let open =
            || OpenOptions::new().read(true).custom_flags(OFlag::O_DIRECTORY.bits()).open(&dir);
        let opened = open().or_else(|error| {
            if error.kind() != io::ErrorKind::PermissionDenied {
                return Err(error);
            }
            fs::set_permissions(&dir, fs::Permissions::from_mode(DIR_MODE))?;
            open()
        });
        match opened {
            Ok(file) => sync.file(file, dir),
            Err(error) if is_shortage(&error) => return Err(error).at(&dir),
            Err(_) => {}
        }
        Ok(())
    }

    /// Opens the job's story to append, making it where there is none.
    pub fn story(&self, id: &str) -> Result<Story> {
        Story::open_or_create(self.status_path(id))
    }

    /// What the story of a range's tasks says.
    pub fn range(&self, id: &str) -> Result<Range> {
        Ok(Range::parse(&self.tasks_story(id)?))
    }

    /// Puts a claimed job back to wait, in its old place. The caller holds the lock.
    pub fn put_back(&self, _held: &Lock, id: &str) -> Result<()> {
        files::link_new(&self.request_path(id), &self.queue_path(id)).map(|_| ())
    }

    /// The `limit` jobs that have waited longest, in order.
    pub fn waiting(&self, limit: usize) -> Result<Vec<Waiting>> {
        let dir = self.queue_dir();
        let mut oldest = std::collections::BinaryHeap::new();
        for entry in fs::read_dir(&dir).at(&dir)? {
            let entry = entry.at(&dir)?;
            let Some(id) = entry.file_name().to_str().and_then(RunId::parse) else { continue };
            let Ok(meta) = entry.metadata() else { continue }; // claimed meanwhile
            if meta.is_symlink() && !entry.path().exists() {
                continue; // somebody's link that leads nowhere is nobody's to claim
            }
            oldest.push(Waiting { at: (meta.mtime(), meta.mtime_nsec()), id });
            if oldest.len() > limit {
                oldest.pop();
            }
        }
        Ok(oldest.into_sorted_vec())
    }
}

/// Refuses what cannot be an id with 404, before it becomes part of a path.
pub fn check_id(id: &str) -> Result<()> {
    if ids::is_valid(id) { Ok(()) } else { Err(Error::not_found("no such job here")) }
}

/// An id as it came in; 404 for a text that cannot be one.
pub fn run_id(text: &str) -> Result<RunId> {
    RunId::parse(text).ok_or_else(|| Error::not_found("no such job here"))
}

/// 404 for an id that is not here.
pub fn unknown(id: &str) -> Error {
    Error::not_found(format!("no job {id} here"))
}
