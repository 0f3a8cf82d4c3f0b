//! `state/worker/`: what a root keeps that is the worker of a head. `lock` is held by the one worker at work; `id`
//! is which root this is; `token` what was given to it when it joined. For its owner alone; made by the worker.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::files;
use super::lock::Lock;
use super::root::Root;
use crate::error::{At, Error, Kind, Result};

/// What a root keeps as a worker, for the one process that is at work.
#[derive(Debug)]
pub struct WorkerState {
    root: Root,
    _alone: Lock,
}

/// Which root this is.
#[derive(Debug, Serialize, Deserialize)]
struct Id {
    id: String,
    /// The root's directory, as `DEVICE:INODE`: a copy has another one, and is another root.
    place: String,
}

impl WorkerState {
    /// From now on this process is the worker of the root. 503 where another one is.
    pub fn take(root: &Root) -> Result<WorkerState> {
        root.for_change()?;
        let dir = root.state("worker");
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).at(&dir)?;
        let busy = || Error::new(Kind::Unavailable, "another worker of this root is at work");
        let alone = Lock::try_take(&dir.join("lock"))?.ok_or_else(busy)?;
        Ok(WorkerState { root: root.clone(), _alone: alone })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.state("worker").join(name)
    }

    /// Which root this is; made once, durable. A copy of a root makes itself another one.
    pub fn id(&self) -> Result<String> {
        let dir = self.root.dir();
        let place =
            fs::metadata(dir).map(|meta| format!("{}:{}", meta.dev(), meta.ino())).at(dir)?;
        let path = self.path("id");
        let known = files::read(&path)?.and_then(|bytes| serde_json::from_slice::<Id>(&bytes).ok());
        if let Some(known) = known.filter(|known| known.place == place) {
            return Ok(known.id);
        }
        let own = Id { id: format!("w-{}", files::random_hex::<6>()?), place };
        files::replace_secret(&self.root.state("processor/tmp"), &path, &files::json_line(&own)?)?;
        files::remove(&self.path("token"))?; // it was given to the other one
        Ok(own.id)
    }

    /// The token that it was given when it joined.
    pub fn token(&self) -> Result<Option<String>> {
        let bytes = files::read(&self.path("token"))?;
        let text = bytes.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_string());
        Ok(text.filter(|text| !text.is_empty()))
    }

    /// Keeps it; durable when this returns.
    pub fn keep_token(&self, token: &str) -> Result<()> {
        let line = format!("{token}\n");
        files::replace_secret(
            &self.root.state("processor/tmp"),
            &self.path("token"),
            line.as_bytes(),
        )
    }
}
