//! Carries commands out, one after the other.

use std::collections::HashMap;
use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use corkboard::board::files::random_name;
use corkboard::cgi::remote::{Lines, Remote};
use corkboard::error::{Error, Kind, Result, reason};
use corkboard::wire::process::{
    QUERY_ONE, QUERY_RUNNING, QueryOneRequest, QueryOneResponse, RunningProcessResponse, START,
    STOP, StartRequest, StartResponse, StopRequest,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::commands::Command;
use super::store::{Id, Store};

/// The program that is asked.
const PROGRAM: &str = "processor";

/// How long a node that has answered is asked again when it does not.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two questions of which the first was not answered.
const PAUSE: Duration = Duration::from_millis(500);

/// Between two looks at a process of which nobody tells the end.
const LOOK: Duration = Duration::from_millis(500);

/// Most starts whose second answer is kept open: a node lets nobody have any number of them.
const MOST_OPEN: usize = 50;

/// A client of one node.
pub struct Client {
    node: Remote,
    store: Store,
    /// Whether the node has answered.
    is_there: bool,
    /// Names of what was started, in order; also of what has ended by now.
    known: Vec<(Option<String>, Id)>,
    /// Second answers that are still to come.
    open: HashMap<(i32, String), Lines>,
    /// Whether an answer could not be printed: nobody reads any more.
    pub cannot_write: bool,
    /// Whether what was sent before, and not answered, has been sent again.
    is_resumed: bool,
}

impl Client {
    /// A client with what it has started before.
    pub fn new(node: Remote, store: Store) -> Client {
        let (known, open) = (Vec::new(), HashMap::new());
        let mut client = Client {
            node,
            store,
            is_there: false,
            known,
            open,
            cannot_write: false,
            is_resumed: false,
        };
        for one in client.store.started() {
            client.known.extend(one.id.map(|id| (one.name, id)));
        }
        client
    }

    /// Sends again, once, what was sent and not answered: it starts no second process. One that is
    /// refused is told, and keeps no other.
    ///
    /// Errors: nobody answers, or lets this client in.
    pub fn resume(&mut self) -> Result<()> {
        let left = if self.is_resumed { Vec::new() } else { self.store.started() };
        for one in left.into_iter().filter(|one| one.id.is_none()) {
            match self.send_start(one.name, &one.request, true) {
                Ok(told) if told.pid == 0 => super::say(&told.error_output),
                Ok(_) => {}
                Err(error) if is_unknown(&error) || is_unheard(&error) => return Err(error),
                Err(error) => super::say(&error.message),
            }
        }
        self.is_resumed = true;
        Ok(())
    }

    /// Does it, and prints what was answered.
    pub fn carry_out(&mut self, command: Command) -> Result<()> {
        // One that waits for room must not keep what has that room from being stopped.
        let is_known = match &command {
            Command::Start(..) => false,
            Command::Running => true,
            Command::Wait(which) | Command::Query(which, ..) | Command::Stop(which) => {
                which.is_some() && self.find(which.clone()).is_ok()
            }
        };
        if !is_known {
            self.resume()?;
        }
        match command {
            Command::Start(name, request) => self.start(name, request),
            Command::Wait(which) => self.wait(&self.find(which)?),
            Command::Query(which, output_log, error_log) => {
                let id = self.find(which)?;
                let told = self.query(&id, output_log, error_log)?;
                self.print(&told)
            }
            Command::Stop(which) => self.stop(&self.find(which)?),
            Command::Running => {
                let told: RunningProcessResponse = self.ask(QUERY_RUNNING, &json!({}))?;
                self.print(&told)
            }
        }
    }

    /// Deletes from the store what does not run any more. Where that cannot be asked it is done the next
    /// time.
    pub fn forget_ended(&mut self) {
        let kept = self.store.started();
        if kept.is_empty() {
            return;
        }
        let Ok(running) = self.ask::<RunningProcessResponse>(QUERY_RUNNING, &json!({})) else {
            return;
        };
        for id in kept.into_iter().filter_map(|one| one.id) {
            let is_it = |process: &corkboard::wire::process::RunningProcess| {
                process.pid == id.pid && process.starting_time_stamp == id.start
            };
            if running.data_table.iter().any(is_it) {
                continue;
            }
            // It may be one that whoever asks may not see: what is told to have ended is forgotten, by this.
            match self.query(&id, "none".into(), "none".into()) {
                Err(error) if is_unknown(&error) => return,
                Err(error)
                    if !matches!(error.kind, Kind::NotFound | Kind::Gone | Kind::Forbidden) =>
                {
                    super::say(&error.message);
                }
                _ => {}
            }
        }
    }

    fn start(&mut self, name: Option<String>, mut request: StartRequest) -> Result<()> {
        if name.is_some() && self.store.started().iter().any(|one| one.name == name) {
            self.forget_ended(); // it may have ended since a client looked
        }
        if let Some(name) = &name
            && let Some(one) =
                self.store.started().iter().find(|one| one.name.as_ref() == Some(name))
        {
            let pid =
                one.id.as_ref().map_or_else(String::new, |id| format!(", process {}", id.pid));
            let why =
                "was started before, and may run: wait for it, stop it, or choose another name";
            return Err(Error::conflict(format!("{name}{pid}, {why}")));
        }
        request.request_id = random_name()?;
        self.store.begin(name.clone(), &request)?;
        let told = self.send_start(name, &request, false)?;
        if told.pid != 0 {
            return self.print(&told);
        }
        Err(Error::new(Kind::Unprocessable, told.error_output))
    }

    /// Sends a start that the store has, and keeps what came of it.
    fn send_start(
        &mut self,
        name: Option<String>,
        request: &StartRequest,
        is_again: bool,
    ) -> Result<StartResponse> {
        let begun = self.patiently(|node| {
            let mut lines = node.lines(PROGRAM, &[START], request)?;
            Ok((answer::<StartResponse>(&mut lines)?, lines))
        });
        let (told, lines) = match begun {
            // Whether it was started is not known: it is asked again by the next client.
            Err(error) if is_unknown(&error) => return Err(error),
            // Who is not let in is not told what became of it the first time.
            Err(error) if is_again && is_unheard(&error) => return Err(error),
            Err(error) => {
                self.store.is_none(&request.request_id)?;
                return Err(error);
            }
            Ok(begun) => begun,
        };
        if told.pid == 0 {
            self.store.is_none(&request.request_id)?;
            return Ok(told);
        }
        let id = Id { pid: told.pid, start: told.time_stamp.clone() };
        self.store.is(&request.request_id, &id)?;
        if self.open.len() < MOST_OPEN {
            self.open.insert((id.pid, id.start.clone()), lines);
        }
        self.known.push((name, id));
        Ok(told)
    }

    fn wait(&mut self, id: &Id) -> Result<()> {
        if let Some(mut lines) = self.open.remove(&(id.pid, id.start.clone())) {
            // It is asked how it ended in any case, also where this line has broken.
            let _ = answer::<StartResponse>(&mut lines);
        }
        loop {
            let told = self.query(id, String::new(), String::new())?;
            if !told.running {
                return self.print(&told);
            }
            thread::sleep(LOOK);
        }
    }

    fn query(
        &mut self,
        id: &Id,
        output_log: String,
        error_log: String,
    ) -> Result<QueryOneResponse> {
        let request = QueryOneRequest {
            pid: id.pid,
            starting_time_stamp: id.start.clone(),
            process_name: String::new(),
            error_log,
            output_log,
        };
        let told: Result<QueryOneResponse> = self.ask(QUERY_ONE, &request);
        let is_over = match &told {
            Ok(told) => !told.running,
            Err(error) => matches!(error.kind, Kind::NotFound | Kind::Gone),
        };
        if is_over {
            self.store.has_ended(id)?;
        }
        told
    }

    fn stop(&mut self, id: &Id) -> Result<()> {
        let request = StopRequest {
            pid: id.pid,
            starting_time_stamp: id.start.clone(),
            process_name: String::new(),
        };
        // Not again: whether the first was heard is seen by what runs.
        let told = self.node.post(PROGRAM, &[STOP], &request);
        let is_over = match &told {
            Ok(_) => true,
            Err(error) => matches!(error.kind, Kind::Conflict | Kind::NotFound | Kind::Gone),
        };
        if is_over {
            self.store.has_ended(id)?;
        }
        let told: Value = told?;
        self.open.remove(&(id.pid, id.start.clone()));
        self.print(&told)
    }

    /// Which process is meant.
    fn find(&self, which: Option<String>) -> Result<Id> {
        let Some(which) = which else {
            let last = self.known.last().map(|(_, id)| id.clone());
            return last.ok_or_else(|| Error::bad("which process? none was started"));
        };
        let named = self.known.iter().rev().find(|(name, _)| name.as_ref() == Some(&which));
        if let Some((_, id)) = named {
            return Ok(id.clone());
        }
        let (pid, start) = which.split_once('_').unwrap_or((&which, ""));
        let pid = pid.parse().ok().filter(|pid| *pid > 0);
        let absent = || {
            Error::not_found(format!(
                "{which:?} is nothing that is remembered: what was started and has ended is found by its PID_START"
            ))
        };
        let pid = pid.ok_or_else(absent)?;
        let known = self.known.iter().rev().find(|(_, id)| id.pid == pid && start.is_empty());
        Ok(known.map_or_else(|| Id { pid, start: start.into() }, |(_, id)| id.clone()))
    }

    /// The answer to a question that may be asked again.
    fn ask<T: DeserializeOwned>(&mut self, word: &str, body: &impl Serialize) -> Result<T> {
        self.patiently(|node| node.post(PROGRAM, &[word], body))
    }

    /// Asks; a node that has answered before is asked again for a while when it does not.
    fn patiently<T>(&mut self, ask: impl Fn(&Remote) -> Result<T>) -> Result<T> {
        let end = Instant::now() + if self.is_there { PATIENCE } else { Duration::ZERO };
        loop {
            let answer = ask(&self.node);
            if !answer.as_ref().is_err_and(is_unknown) {
                self.is_there = true;
                return answer;
            }
            if Instant::now() >= end {
                return answer;
            }
            thread::sleep(PAUSE);
        }
    }

    fn print(&mut self, told: &impl Serialize) -> Result<()> {
        let line =
            serde_json::to_string(told).map_err(|e| Error::new(Kind::Internal, e.to_string()))?;
        let mut out = io::stdout().lock();
        writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|error| {
            self.cannot_write = true;
            Error::new(Kind::Internal, format!("cannot write the answer: {}", reason(&error)))
        })
    }
}

/// Whether nobody knows what came of it.
fn is_unknown(error: &Error) -> bool {
    let kinds = [Kind::GatewayTimeout, Kind::BadGateway, Kind::Unavailable, Kind::Internal];
    kinds.contains(&error.kind)
}

/// Whether it was not even looked at.
fn is_unheard(error: &Error) -> bool {
    let kinds = [Kind::Unauthorized, Kind::Forbidden, Kind::Misdirected, Kind::Shortage];
    kinds.contains(&error.kind)
}

/// The next of several answers; empty lines between them say that there is one to come.
fn answer<T: DeserializeOwned>(lines: &mut Lines) -> Result<T> {
    for line in lines {
        let line = line?;
        if !line.trim().is_empty() {
            return serde_json::from_str(&line).map_err(|e| {
                Error::new(Kind::BadGateway, format!("what the node says cannot be read: {e}"))
            });
        }
    }
    Err(Error::new(Kind::BadGateway, "the node's answer ended before it was whole"))
}
