//! What was started and has not ended, as far as is known: a file with a line of JSON for each, written
//! anew and put in place whole whenever something changes. A crash leaves it as it was before.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use corkboard::board::files::sync_dir;
use corkboard::error::{At, Error, Kind, Result};
use corkboard::wire::process::StartRequest;
use serde::{Deserialize, Serialize};

/// A process that was started.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Started {
    /// What it is called here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its node.
    pub url: String,
    /// Its process id, and when it was started; absent while the answer has not come.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Id>,
    /// As it was started: the same again makes no second process.
    pub request: StartRequest,
}

/// Which process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Id {
    /// Its process id.
    pub pid: i32,
    /// When it was started.
    #[serde(rename = "startingTimeStamp")]
    pub start: String,
}

/// The file, which one client has at a time.
pub struct Store {
    path: PathBuf,
    url: String,
    all: Vec<Started>,
    /// Locked as long as it is open.
    _lock: File,
}

impl Store {
    /// Opens the store, for what is started at this node.
    ///
    /// Errors: another client has it, it cannot be read or locked, or has a line that is none of its own.
    pub fn open(path: PathBuf, url: &str) -> Result<Store> {
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            fs::create_dir_all(dir).at(dir)?;
        }
        let beside = path.with_added_extension("lock");
        let options = || {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false).mode(0o600);
            options
        };
        let lock = options().open(&beside).at(&beside)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                let why =
                    "another client is at work with it: wait for that, or name another by --store";
                return Err(Error::new(Kind::Unavailable, format!("{}: {why}", path.display())));
            }
            Err(fs::TryLockError::Error(error)) => return Err(error).at(&beside),
        }
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            read => read.at(&path)?,
        };
        let mut all = Vec::new();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
            all.push(serde_json::from_str(line).map_err(|e| {
                Error::bad(format!("{}, line {}: not of a store: {e}", path.display(), index + 1))
            })?);
        }
        Ok(Store { path, url: url.to_string(), all, _lock: lock })
    }

    /// What was started at this node, in order.
    pub fn started(&self) -> Vec<Started> {
        self.all.iter().filter(|one| one.url == self.url).cloned().collect()
    }

    /// Keeps one whose answer has not come.
    pub fn begin(&mut self, name: Option<String>, request: &StartRequest) -> Result<()> {
        let (url, request) = (self.url.clone(), request.clone());
        self.all.push(Started { name, url, id: None, request });
        let written = self.write();
        if written.is_err() {
            self.all.pop(); // it is not sent, by the next client neither
        }
        written
    }

    /// Keeps which process it is.
    pub fn is(&mut self, request_id: &str, id: &Id) -> Result<()> {
        for one in self.all.iter_mut().filter(|one| one.request.request_id == request_id) {
            one.id = Some(id.clone());
        }
        self.write()
    }

    /// Deletes one that was not started.
    pub fn is_none(&mut self, request_id: &str) -> Result<()> {
        self.retain(|one| one.request.request_id != request_id)
    }

    /// Deletes a process that has ended.
    pub fn has_ended(&mut self, id: &Id) -> Result<()> {
        let url = self.url.clone();
        self.retain(|one| one.url != url || one.id.as_ref() != Some(id))
    }

    fn retain(&mut self, keep: impl Fn(&Started) -> bool) -> Result<()> {
        let before = self.all.len();
        self.all.retain(keep);
        if self.all.len() == before { Ok(()) } else { self.write() }
    }

    fn write(&self) -> Result<()> {
        let mut text = String::new();
        for one in &self.all {
            let line = serde_json::to_string(one);
            text.push_str(
                &line.map_err(|e| Error::new(Kind::Internal, format!("the store: {e}")))?,
            );
            text.push('\n');
        }
        let new = self.path.with_added_extension("new");
        // For its owner alone: environments have secrets in them.
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&new).at(&new)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).at(&new)?;
        fs::rename(&new, &self.path).at(&self.path)?;
        // What is sent next must be known after a power loss.
        let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty());
        sync_dir(dir.unwrap_or(Path::new(".")))
    }
}
