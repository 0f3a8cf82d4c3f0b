//! What a node says of a job: the lines of its status, of its feed, and its answers.

use serde::{Deserialize, Serialize};

use super::enforced::Enforced;
use super::newer::{self, written_by_newer};
use super::outcome::{Cause, Outcome, Status, is_false};
use super::progress::Word;
use super::report::Report;
use super::usage::Usage;
use crate::clock;
use crate::error::{Error, Result};

/// The state of a job on its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// Accepted, waiting for room (or claimed and not yet started).
    Queued,
    /// Its program runs.
    Running,
    /// It ended; the line says how.
    Stopped,
}

/// One line of a node's `job/ID/status`, one event of its feed (there with `id`), and the answer
/// to a status request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStatus {
    /// The job's id on the node; in the feed and in lists, not in `job/ID/status`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Where the job is.
    pub state: RunState,
    /// `unknown` until it stopped; the rest of an outcome only then.
    pub status: Status,
    /// When this became so.
    pub at: String,
    /// When it started, in the line about its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    /// Process id of the program; in the line about the end, of the first of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// When that process started, in clock ticks after boot (`/proc/PID/stat`, field 22): with
    /// the pid and the boot, the process itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticks: Option<u64>,
    /// The boot of the machine during which it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// What it is held to; absent where that is nothing, and in what 0.1 says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforced: Option<Enforced>,
    /// See [`Usage::cpu_ms`]; in the line about the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
    /// See [`Usage::max_memory`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_memory: Option<u64>,
    /// See [`Outcome::cause`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// See [`Outcome::code`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// See [`Outcome::reason`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// See [`Outcome::by`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// See [`Outcome::unproven`].
    #[serde(default, skip_serializing_if = "is_false")]
    pub unproven: bool,
    /// Shows a head that this is its attempt, see [`super::proof`]. In the feed and in answers
    /// about ids of a head's form, not in `job/ID/status`; nodes of 0.1 give none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<String>,
    /// Of a range of tasks: how they ended. In the feed those since the line before, else all; in
    /// the line about the start none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<Report>,
    /// What it has said of its progress. In the feed those words that were not told before; in answers
    /// to heads the last one, in others all that are kept; not in `job/ID/status`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub progress: Vec<Word>,
}

impl RunStatus {
    /// Waiting for room since `at`.
    pub fn queued(at: String) -> RunStatus {
        RunStatus {
            id: None,
            state: RunState::Queued,
            status: Status::Unknown,
            at,
            started: None,
            pid: None,
            ticks: None,
            boot: None,
            enforced: None,
            cpu_ms: None,
            max_memory: None,
            cause: None,
            code: None,
            reason: None,
            by: None,
            unproven: false,
            proof: None,
            tasks: None,
            progress: Vec::new(),
        }
    }

    /// Running as this process since now.
    pub fn running(pid: i32, ticks: u64, boot: &str) -> RunStatus {
        RunStatus {
            state: RunState::Running,
            pid: Some(pid),
            ticks: Some(ticks),
            boot: Some(boot.to_string()),
            ..RunStatus::queued(clock::now())
        }
    }

    /// Ended just now.
    pub fn stopped(outcome: &Outcome) -> RunStatus {
        RunStatus {
            state: RunState::Stopped,
            status: outcome.status,
            cause: Some(outcome.cause),
            code: outcome.code,
            reason: outcome.reason.clone(),
            by: outcome.by.clone(),
            unproven: outcome.unproven,
            ..RunStatus::queued(clock::now())
        }
    }

    /// The same end, with what the line about the start said: who reads only this one line, as
    /// the head does of a short job, learns both.
    #[must_use]
    pub fn begun(self, line: Option<&RunStatus>) -> RunStatus {
        let Some(line) = line else { return self };
        let (started, enforced) = (Some(line.at.clone()), line.enforced.clone());
        RunStatus { started, pid: line.pid, enforced, ..self }
    }

    /// The same end, with what was used.
    #[must_use]
    pub fn used(self, used: Option<Usage>) -> RunStatus {
        let Some(Usage { cpu_ms, max_memory }) = used else { return self };
        RunStatus { cpu_ms: Some(cpu_ms), max_memory: Some(max_memory), ..self }
    }

    /// What was used, where that is known.
    pub fn usage(&self) -> Option<Usage> {
        Some(Usage { cpu_ms: self.cpu_ms?, max_memory: self.max_memory? })
    }

    /// Whether its program was started, as far as this tells.
    pub fn has_begun(&self) -> bool {
        self.started.is_some() || self.state == RunState::Running
    }

    /// The outcome, where the job stopped: an end that is not said to be good is none.
    pub fn outcome(&self) -> Option<Outcome> {
        let good = self.status == Status::Good;
        (self.state == RunState::Stopped).then(|| Outcome {
            status: if good { Status::Good } else { Status::Error },
            cause: self.cause.unwrap_or(Cause::Lost),
            code: self.code,
            reason: self.reason.clone(),
            by: self.by.clone(),
            unproven: self.unproven,
        })
    }

    /// What everybody sees of it: which it is, its state, and whether it ended well.
    #[must_use]
    pub fn outside(self) -> RunStatus {
        let (state, status) = (self.state, self.status);
        RunStatus { id: self.id, state, status, ..RunStatus::queued(self.at) }
    }

    /// The same, naming the job.
    #[must_use]
    pub fn of(self, id: &str) -> RunStatus {
        RunStatus { id: Some(id.to_string()), ..self }
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

/// The same of a story that this program is going to continue: 409 if a newer one wrote in it what
/// this one does not know.
pub fn known_answer(id: &str, bytes: &[u8]) -> Result<Option<RunStatus>> {
    match newer::in_story::<RunStatus>(bytes) {
        None => Ok(answer(bytes)),
        Some(what) => {
            Err(Error::conflict(format!("{id}: its status was {}", written_by_newer(&what))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_killed_it_is_told_beside_the_reason_and_read_from_it_where_it_is_not() {
        let killed = Outcome::killed("ada");
        let unseen = Outcome::killed_unseen("ada", "its supervisor died");
        for outcome in [&killed, &unseen] {
            assert!(outcome.is_killed_by("ada") && !outcome.is_killed_by("ad"), "{outcome:?}");
            let old = Outcome { by: None, ..outcome.clone() };
            assert!(old.is_killed_by("ada") && !old.is_killed_by("ad"), "{old:?}");
            assert_eq!(RunStatus::stopped(outcome).outcome().as_ref(), Some(outcome));
        }
        // What a reason says decides nothing where it is told who it was.
        assert!(!Outcome::killed("ada; bob").is_killed_by("ada"));
        assert!(Outcome { by: None, ..Outcome::killed("ada; bob") }.is_killed_by("ada"));
        assert!(!Outcome::lost("killed by ada").is_killed_by("ada"));
    }

    fn story(lines: &[&RunStatus]) -> Vec<u8> {
        lines
            .iter()
            .map(|line| format!("\n{}\n", serde_json::json!(line)))
            .collect::<String>()
            .into_bytes()
    }

    #[test]
    fn the_first_end_is_the_answer() {
        assert_eq!(answer(b""), None);
        assert_eq!(answer(b"\0\0\0\n{\"state\":"), None);
        let running = RunStatus::running(7, 1, "b");
        let good = RunStatus::stopped(&Outcome::exit(0));
        let lost = RunStatus::stopped(&Outcome::lost("x"));
        let bytes = story(&[&running, &good, &lost]);
        assert_eq!(answer(&bytes), Some(good));
        let torn = [story(&[&running]), b"\n{\"sta".to_vec()].concat();
        assert_eq!(answer(&torn), Some(running));
    }
}
