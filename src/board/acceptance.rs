//! How a job gets onto the node's board, or is refused before it came.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::sys::stat::futimens;
use nix::sys::time::TimeSpec;
use serde_json::{Value, json};

use super::files;
use super::incoming::Incoming;
use super::lock::{self, Lock};
use super::runs::{DIR_MODE, REFUSED, Runs};
use super::sync_set::SyncSet;
use crate::clock;
use crate::error::{At, Error, Kind, Result};

/// How one begins that has it.
const REFUSAL: &[u8] = b"{\"refused\":";

/// A job's directory that has been made in `tmp/` and has no other name yet.
#[derive(Debug)]
pub struct Prepared {
    dir: PathBuf,
    request: File,
    /// Open files, so that nothing but the sync can fail once the job has its names.
    uploads: Option<SyncSet>,
}

/// What became of an acceptance.
#[derive(Debug)]
pub enum Entered {
    /// It is in the queue. Not durable before the set is committed.
    New(SyncSet),
    /// The id is taken.
    Taken,
}

impl Runs<'_> {
    /// Makes a job's directory in `tmp/`: its request (readable by the owner alone, for it holds
    /// the attempt's key) and the files that have arrived for it. `at` orders the queue. Nothing is
    /// left on an error.
    pub fn prepare(
        &self,
        request: &Value,
        uploads: Option<Incoming>,
        at: SystemTime,
    ) -> Result<Prepared> {
        self.root().for_change()?;
        let dir = self.path("tmp").join(files::random_name()?);
        let made = self.fill(&dir, request, uploads, at);
        if made.is_err() {
            let _ = files::remove_tree(&dir); // the first error is the one to report
        }
        let (request, uploads) = made?;
        Ok(Prepared { dir, request, uploads })
    }

    /// Removes a prepared job that will get no name.
    pub fn discard(&self, prepared: &Prepared) {
        let _ = files::remove_tree(&prepared.dir); // clean-up removes what is left
    }

    fn fill(
        &self,
        dir: &Path,
        request: &Value,
        uploads: Option<Incoming>,
        at: SystemTime,
    ) -> Result<(File, Option<SyncSet>)> {
        make_dir(dir)?;
        let path = dir.join("request.json");
        let file = files::create_secret(&path, &files::json_line(request)?)?;
        let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let time = TimeSpec::from_duration(since);
        futimens(&file, &time, &time).at(&path)?;
        let uploads = uploads.map(|incoming| incoming.become_dir(&dir.join("work")));
        Ok((file, uploads.transpose()?))
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
        if let Some(uploads) = prepared.uploads {
            sync.merge(uploads);
            sync.dir(&job.join("work"));
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
        if let Some(file) = files::gone_is_fine(files::open(&path)).at(&path)? {
            sync.file(file, path);
        }
        let work = self.work_dir(id);
        // Of a job that has started they are its own, and after a power loss it is lost anyway.
        let names = match self.last_line(id)? {
            None => files::names(&work)?,
            Some(_) => Vec::new(),
        };
        for name in names {
            let path = work.join(name);
            if let Some(file) = files::open_own(&path)? {
                sync.file(file, path);
                sync.dir(&work);
            }
        }
        sync.dir(&self.job_dir(id));
        sync.dir(&self.path("job"));
        sync.dir(&self.path("queue"));
        Ok(sync)
    }

    /// Publishes a refusal under the job's name, so that a late acceptance of it finds the name
    /// taken. Durable when this returns; `false` if the job is there.
    pub fn refuse(&self, held: &Lock, id: &str, by: &str) -> Result<bool> {
        let record = json!({REFUSED: {"at": clock::now(), "by": by}});
        let prepared = self.prepare(&record, None, SystemTime::now())?;
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
}

impl Runs<'_> {
    /// Writes a refusal over the request of a job that waits, and takes it from the queue: in place, so
    /// that it needs no space on a full disk. Durable when this returns. A crash leaves the job as it
    /// was, or one that still has its link and is never started; a power loss before the sync perhaps
    /// one whose request cannot be read, which nobody was told of.
    ///
    /// Errors: 503 for a request that is shorter than this; nothing has changed then.
    pub fn refuse_waiting(&self, _held: &Lock, id: &str, by: &str) -> Result<()> {
        let path = self.request_path(id);
        let file = files::open_by(OpenOptions::new().write(true), &path).at(&path)?;
        self.write_over(&file, id, by)
    }

    /// The same of a job that is claimed and has not started: whoever is to start it locks the request
    /// and looks at it for the last time, see [`is_refused`]. `false` if somebody has it locked, or it
    /// has a story; nothing has changed then.
    pub fn refuse_unstarted(&self, _held: &Lock, id: &str, by: &str) -> Result<bool> {
        let path = self.request_path(id);
        let file = files::open_by(OpenOptions::new().write(true), &path).at(&path)?;
        if !lock::try_lock(&file).at(&path)? || self.last_line(id)?.is_some() {
            return Ok(false);
        }
        self.write_over(&file, id, by).map(|()| true)
    }

    fn write_over(&self, file: &File, id: &str, by: &str) -> Result<()> {
        let path = self.request_path(id);
        let length = usize::try_from(file.metadata().at(&path)?.len()).unwrap_or(0);
        let lines = [json!({"at": clock::now(), "by": by}), json!({"by": by}), json!({})];
        let lines = lines.map(|refused| files::json_line(&json!({REFUSED: refused})));
        let fits = lines.into_iter().flatten().find(|line| line.len() <= length);
        let Some(mut line) = fits else {
            return Err(Error::new(Kind::Unavailable, format!("{id}: no room to cancel it")));
        };
        line.pop();
        line.resize(length - 1, b' ');
        line.push(b'\n');
        file.write_all_at(&line, 0).at(&path)?;
        files::sync(file, &path).map_err(files::unknown)?;
        self.finish_refusal(id).map_err(files::unknown)
    }

    /// Removes what a refused job may still have: its link, and a story for whose first line there was
    /// no room. Durable when this returns.
    pub fn finish_refusal(&self, id: &str) -> Result<()> {
        files::remove(&self.queue_path(id))?;
        files::remove(&self.status_path(id))?;
        self.sync_of(id)?.commit()
    }

    /// Puts a refusal in the place of a job that is claimed and was not started: its id is never
    /// accepted again. Durable when this returns. A crash leaves the one or the other, and one of the
    /// two in `tmp/`.
    pub fn refuse_claimed(&self, _held: &Lock, id: &str, why: &str) -> Result<()> {
        let record = json!({REFUSED: {"at": clock::now(), "by": "this node", "reason": why}});
        let prepared = self.prepare(&record, None, SystemTime::now())?;
        let job = self.job_dir(id);
        let mut sync = SyncSet::new();
        let placed = files::exchange(&prepared.dir, &job);
        if placed.is_ok() {
            sync.file(prepared.request, self.request_path(id));
            sync.dir(&job);
            sync.dir(&self.path("job"));
        }
        let placed = placed.and_then(|()| sync.commit());
        let _ = files::remove_tree(&prepared.dir); // clean-up removes what is left
        placed
    }
}

/// Whether this open request was refused. For who has it locked: after that nobody refuses it.
pub fn is_refused(request: &File) -> io::Result<bool> {
    let mut begin = [0; REFUSAL.len()];
    let length = request.read_at(&mut begin, 0)?;
    Ok(&begin[..length] == REFUSAL)
}

fn make_dir(path: &Path) -> Result<()> {
    DirBuilder::new().mode(DIR_MODE).create(path).at(path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_known_by_how_it_begins() {
        let line = files::json_line(&json!({REFUSED: {"by": "ada"}})).unwrap();
        assert!(line.starts_with(REFUSAL));
    }
}
