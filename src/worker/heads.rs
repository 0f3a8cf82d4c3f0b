//! Where the head is, under one address or several, and what it is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::cgi::presented::Access;
use crate::cgi::remote::{Lines, Remote};
use crate::client::server;
use crate::error::{Error, Kind, Result};
use crate::wire::worker::{Claim, News, OFFSET, ORDER, STATUS};

/// The program there.
const PROGRAM: &str = "scheduler";

/// How long the head may say nothing where it has not said how long it lets a worker wait.
const SILENCE: Duration = Duration::from_secs(10);

/// Where the head is, for all threads.
pub(super) struct Head {
    urls: Vec<String>,
    /// Which of them answered last.
    current: AtomicUsize,
    access: Mutex<Access>,
    name: String,
    /// Milliseconds.
    silence: AtomicUsize,
}

impl Head {
    /// A head at these addresses, of which this is the node of that name.
    pub(super) fn new(urls: Vec<String>, access: Access, name: String) -> Arc<Head> {
        let silence = AtomicUsize::new(SILENCE.as_millis() as usize);
        let access = Mutex::new(access);
        Arc::new(Head { urls, current: AtomicUsize::default(), access, name, silence })
    }

    /// The name of the node.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The address that is asked now.
    pub(super) fn url(&self) -> &str {
        let at = self.current.load(Ordering::Relaxed) % self.urls.len().max(1);
        self.urls.get(at).map_or("", String::as_str)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.urls.len()
    }

    /// From now on the next one is asked.
    pub(super) fn try_next(&self) {
        self.current.fetch_add(1, Ordering::Relaxed);
    }

    /// What is presented from now on.
    pub(super) fn present(&self, token: String) {
        self.access.lock().unwrap_or_else(PoisonError::into_inner).token = Some(token);
    }

    /// How long it may say nothing.
    pub(super) fn note_silence(&self, silence: Duration) {
        self.silence.store(silence.as_millis() as usize, Ordering::Relaxed);
    }

    /// See [`Head::note_silence`].
    pub(super) fn silence(&self) -> Duration {
        Duration::from_millis(self.silence.load(Ordering::Relaxed) as u64)
    }

    /// The head, to be asked by one thread. Asks nobody. What is presented, and certificates, are read anew.
    pub(super) fn open(&self) -> Result<Remote> {
        let access = self.access.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Remote::to(self.url(), access)?.patient(self.silence()))
    }

    fn path<'p>(&'p self, what: &'p str) -> [&'p str; 3] {
        ["nodes", &self.name, what]
    }

    /// Registers this root as the node; see `nodes/join`.
    pub(super) fn join(&self, node: &Value) -> Result<Value> {
        self.open()?.post(PROGRAM, &["nodes", "join"], node)
    }

    /// Claims orders: the news is taken when this returns, and the orders come as a line.
    pub(super) fn claim(&self, remote: &Remote, claim: &Claim) -> Result<Lines> {
        remote.lines(PROGRAM, &self.path("claim"), claim)
    }

    /// Tells news.
    pub(super) fn report(&self, remote: &Remote, news: &News) -> Result<()> {
        remote.post::<Value>(PROGRAM, &self.path("report"), news).map(|_| ())
    }

    /// Gives one answer, of any length. Errors: nobody waits for it any more, or it did not arrive.
    pub(super) fn answer(
        &self,
        order: &str,
        (status, offset): (u16, Option<&str>),
        body: server::Body,
    ) -> Result<()> {
        let status = status.to_string();
        let mut query = vec![(ORDER, order), (STATUS, status.as_str())];
        query.extend(offset.map(|offset| (OFFSET, offset)));
        let sent = (Some("application/octet-stream"), body);
        self.open()?.send("POST", PROGRAM, &self.path("report"), &query, sent).map(|_| ())
    }

    /// What is sent with an order, and how long it is.
    pub(super) fn fetch(&self, order: &str) -> Result<(Box<dyn std::io::Read>, u64)> {
        let (content, length) =
            self.open()?.fetch(PROGRAM, &self.path("claim"), &[(ORDER, order)])?;
        let unknown = || Error::new(Kind::BadGateway, "what is sent with the order has no length");
        Ok((content, length.ok_or_else(unknown)?))
    }
}
