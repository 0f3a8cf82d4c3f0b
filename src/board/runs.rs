//! A node's board, `state/processor`: where jobs lie, and how they get there.
//!
//! `queue/ID` is a second name of `job/ID/request.json`: accepted, waiting for room. Whoever
//! removes it has claimed the job. It is made before `job/ID` gets its name and both under the
//! board's lock, so under the lock `queue/ID` without `job/ID` is what a crash left of an
//! acceptance that nobody was told of, and `job/ID` without `queue/ID` is claimed, ended, or
//! refused before it came.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::PathBuf;
use std::time::SystemTime;

use nix::sys::stat::futimens;
use nix::sys::time::TimeSpec;
use serde_json::{Value, json};

use super::files::{self, Story, SyncSet};
use super::lock::Lock;
use super::root::Root;
use crate::clock;
use crate::error::{At, Error, Kind, Result};
use crate::model::ids;
use crate::model::outcome::{RunState, RunStatus};

/// Most jobs that are entered or looked at under one hold of the lock.
pub const RUNS_PER_LOCK: usize = 100;

/// The field of a `request.json` that says: cancelled before it came, never to be started.
const REFUSED: &str = "refused";

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

/// A job's directory that has been made in `tmp/` and has no other name yet.
#[derive(Debug)]
pub struct Prepared {
    dir: PathBuf,
    request: File,
}

/// What became of an acceptance.
#[derive(Debug)]
pub enum Entered {
    /// It is in the queue. Not durable before the set is committed.
    New(SyncSet),
    /// The id is taken.
    Taken,
}

/// A job that waits for room.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Waiting {
    /// When it was accepted: seconds and nanoseconds.
    at: (i64, i64),
    /// Its id.
    pub id: String,
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

    /// An output file. Absent until something was written.
    pub fn log_path(&self, id: &str, stream: Stream) -> PathBuf {
        self.job_dir(id).join(stream.name())
    }

    /// Uploads; absent where there were none.
    pub fn work_dir(&self, id: &str) -> PathBuf {
        self.job_dir(id).join("work")
    }

    /// Takes the board's lock: needed to accept, claim, kill a waiting job and append to the feed.
    pub fn lock(&self) -> Result<Lock> {
        Lock::take(&self.path("lock"))
    }

    /// Makes a job's directory in `tmp/`: its request (readable by the owner alone, for it holds
    /// the attempt's key) and its uploads. `at` orders the queue. Nothing is left on an error.
    pub fn prepare(
        &self,
        request: &Value,
        uploads: &[(&str, &[u8])],
        at: SystemTime,
    ) -> Result<Prepared> {
        let dir = self.path("tmp").join(files::random_name()?);
        let made = self.fill(&dir, request, uploads, at);
        if made.is_err() {
            let _ = files::remove_tree(&dir); // the first error is the one to report
        }
        Ok(Prepared { request: made?, dir })
    }

    fn fill(
        &self,
        dir: &PathBuf,
        request: &Value,
        uploads: &[(&str, &[u8])],
        at: SystemTime,
    ) -> Result<File> {
        make_dir(dir)?;
        let path = dir.join("request.json");
        let file = files::create_secret(&path, &files::json_line(request)?)?;
        let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let time = TimeSpec::from_duration(since);
        futimens(&file, &time, &time).at(&path)?;
        if !uploads.is_empty() {
            let work = dir.join("work");
            make_dir(&work)?;
            for (name, content) in uploads {
                files::create(&work.join(name), content)?;
            }
        }
        Ok(file)
    }

    /// Gives a prepared job its names. The lock is the caller's proof that no one else is between
    /// the two. On an error nothing is left of it; a crash leaves `queue/ID` alone at worst.
    pub fn enter(&self, _held: &Lock, id: &str, prepared: Prepared) -> Result<Entered> {
        let queued = self.queue_path(id);
        let job = self.job_dir(id);
        let record = prepared.dir.join("request.json");
        let entered = (|| {
            // First of all: were the link made for a job that is there and claimed, a crash before
            // it is taken back would leave a job that waits while it runs.
            if job.try_exists().at(&job)? {
                return Ok(false);
            }
            if !files::link_new(&record, &queued)? {
                files::remove(&queued)?;
                files::link_new(&record, &queued)?;
            }
            let named = files::rename_new(&prepared.dir, &job);
            if !matches!(named, Ok(true)) {
                files::remove(&queued)?;
            }
            named
        })();
        if !matches!(entered, Ok(true)) {
            let _ = files::remove_tree(&prepared.dir); // the first error is the one to report
        }
        if !entered? {
            return Ok(Entered::Taken);
        }
        let mut sync = SyncSet::new();
        let work = job.join("work");
        if work.is_dir() {
            for name in files::names(&work)? {
                let path = work.join(name);
                sync.file(File::open(&path).at(&path)?, path);
            }
            sync.dir(&work);
        }
        sync.file(prepared.request, self.request_path(id));
        sync.dir(&job);
        sync.dir(&self.path("job"));
        sync.dir(&self.path("queue"));
        Ok(Entered::New(sync))
    }

    /// What makes an acceptance durable that somebody else may have made.
    pub fn sync_of(&self, id: &str) -> Result<SyncSet> {
        let mut sync = SyncSet::new();
        let path = self.request_path(id);
        if let Some(file) = files::gone_is_fine(File::open(&path)).at(&path)? {
            sync.file(file, path);
        }
        sync.dir(&self.path("job"));
        sync.dir(&self.path("queue"));
        Ok(sync)
    }

    /// Makes everything on the board's file system durable.
    pub fn sync_all(&self) -> Result<()> {
        let path = self.path("lock");
        let file = File::open(&path).at(&path)?;
        nix::unistd::syncfs(&file).at(&path).map_err(|e| {
            Error::new(Kind::Internal, format!("{} (repeat with the same ids)", e.message))
        })
    }

    /// Publishes a refusal under the job's name, so that a late acceptance of it finds the name
    /// taken. Durable when this returns; `false` if the job is there.
    pub fn refuse(&self, held: &Lock, id: &str, by: &str) -> Result<bool> {
        let record = json!({REFUSED: {"at": clock::now(), "by": by}});
        let prepared = self.prepare(&record, &[], SystemTime::now())?;
        let _ = held; // the name is decided under the lock, like an acceptance
        let job = self.job_dir(id);
        let named = files::rename_new(&prepared.dir, &job);
        if !matches!(named, Ok(true)) {
            let _ = files::remove_tree(&prepared.dir); // the first error is the one to report
        }
        if !named? {
            return Ok(false);
        }
        let mut sync = SyncSet::new();
        sync.file(prepared.request, self.request_path(id));
        sync.dir(&job);
        sync.dir(&self.path("job"));
        sync.commit()?;
        Ok(true)
    }

    /// The request as it was accepted; 404 for an id that is not here, 410 for a refused one.
    pub fn request(&self, id: &str) -> Result<Value> {
        check_id(id)?;
        let path = self.request_path(id);
        let bytes = files::read(&path)?.ok_or_else(|| unknown(id))?;
        let request: Value = serde_json::from_slice(&bytes).map_err(|e| {
            Error::new(Kind::Internal, format!("{}: not a request: {e}", path.display()))
        })?;
        if request.get(REFUSED).is_some() {
            return Err(Error::new(
                Kind::Gone,
                format!("{id} was cancelled before it came; it will not be started"),
            ));
        }
        Ok(request)
    }

    /// When the job was accepted.
    pub fn accepted_at(&self, id: &str) -> Result<SystemTime> {
        let path = self.request_path(id);
        let meta = files::gone_is_fine(fs::metadata(&path)).at(&path)?;
        meta.ok_or_else(|| unknown(id))?.modified().at(&path)
    }

    /// Whether it waits for room.
    pub fn is_queued(&self, id: &str) -> bool {
        self.queue_path(id).exists()
    }

    /// The answer in the job's own story; `None` while nothing has been written there.
    pub fn last_line(&self, id: &str) -> Result<Option<RunStatus>> {
        Ok(files::read(&self.status_path(id))?.and_then(|bytes| answer(&bytes)))
    }

    /// Opens the job's story to append, making it where there is none.
    pub fn story(&self, id: &str) -> Result<Story> {
        Story::open_or_create(self.status_path(id))
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
            let Ok(id) = entry.file_name().into_string() else { continue };
            if !ids::is_valid(&id) {
                continue;
            }
            let Ok(meta) = entry.metadata() else { continue }; // claimed meanwhile
            oldest.push(Waiting { at: (meta.mtime(), meta.mtime_nsec()), id });
            if oldest.len() > limit {
                oldest.pop();
            }
        }
        Ok(oldest.into_sorted_vec())
    }
}

/// The answer in a story: the first end, which stands, else the last line that can be read.
pub fn answer(bytes: &[u8]) -> Option<RunStatus> {
    let mut last = None;
    for line in bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
        if let Ok(status) = serde_json::from_slice::<RunStatus>(line) {
            let ended = status.state == RunState::Stopped;
            last = Some(status);
            if ended {
                break;
            }
        }
    }
    last
}

/// Refuses what cannot be an id with 404, before it becomes part of a path.
pub fn check_id(id: &str) -> Result<()> {
    if ids::is_valid(id) { Ok(()) } else { Err(Error::not_found("no such job here")) }
}

/// 404 for an id that is not here.
pub fn unknown(id: &str) -> Error {
    Error::not_found(format!("no job {id} here"))
}

fn make_dir(path: &PathBuf) -> Result<()> {
    DirBuilder::new().mode(0o750).create(path).at(path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::model::outcome::Outcome;

    #[test]
    fn the_first_end_is_the_answer() {
        assert_eq!(answer(b""), None);
        assert_eq!(answer(b"\0\0\0\n{\"state\":"), None);
        let running = RunStatus::running(7, 1, "b");
        let good = RunStatus::stopped(&Outcome::exit(0));
        let lost = RunStatus::stopped(&Outcome::lost("x"));
        let bytes = files::json_lines(&[&running, &good, &lost]).unwrap();
        assert_eq!(answer(&bytes), Some(good));
        let torn = [files::json_lines(&[&running]).unwrap(), b"\n{\"sta".to_vec()].concat();
        assert_eq!(answer(&torn), Some(running));
    }
}
