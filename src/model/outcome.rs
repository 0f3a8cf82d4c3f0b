//! How an attempt ended, and the two lines a node writes about it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::report::Report;
use crate::clock;

/// `unknown` until the end, then `good` (exit 0) or `error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Not ended, or nothing is known.
    Unknown,
    /// The program exited with 0.
    Good,
    /// Any other end.
    Error,
}

/// Which kind of end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// The program exited, with a code.
    Exit,
    /// A signal ended it that nobody asked Corkboard for.
    Signal,
    /// Its timeout passed.
    Timeout,
    /// A user killed it.
    Killed,
    /// What became of it cannot be known.
    Lost,
    /// A job that it needed failed.
    Aborted,
    /// It waited past its `expires`.
    Expired,
}

/// The end of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Good or error.
    pub status: Status,
    /// Which kind of end.
    pub cause: Cause,
    /// The exit code, where the program exited (126 and 127: it could not be started).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// The end in a person's words; absent where the program exited with 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Of a kill: who asked for it. Absent in what 0.1 wrote, whose reason alone names them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Of a loss, or a kill whose end nobody saw: processes of it may still run. A loss is then tried
    /// again only with `retry_lost`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unproven: bool,
}

/// For fields that are there only if they are true.
fn is_false(value: &bool) -> bool {
    !value
}

impl Outcome {
    /// The program exited.
    pub fn exit(code: i32) -> Outcome {
        let good = code == 0;
        Outcome {
            status: if good { Status::Good } else { Status::Error },
            cause: Cause::Exit,
            code: Some(code),
            reason: (!good).then(|| format!("exit {code}")),
            by: None,
            unproven: false,
        }
    }

    /// The program could not be started: 127 where it does not exist, else 126, as a shell says.
    pub fn not_started(code: i32, reason: String) -> Outcome {
        Outcome { reason: Some(reason), ..Outcome::exit(code) }
    }

    /// A signal ended it; `name` as in `SIGSEGV`.
    pub fn signal(name: &str) -> Outcome {
        Outcome::error(Cause::Signal, format!("signal {name}"))
    }

    /// Its timeout passed.
    pub fn timeout(after: Duration) -> Outcome {
        Outcome::error(Cause::Timeout, format!("timed out after {}", clock::human(after)))
    }

    /// A user killed it.
    pub fn killed(by: &str) -> Outcome {
        let killed = Outcome::error(Cause::Killed, format!("killed by {by}"));
        Outcome { by: Some(by.to_string()), ..killed }
    }

    /// A user killed it, and nobody saw its end.
    pub fn killed_unseen(by: &str, why: &str) -> Outcome {
        Outcome { reason: Some(format!("killed by {by}; {why}")), ..Outcome::killed(by) }
    }

    /// Whether it is one of these two, by this user.
    pub fn is_killed_by(&self, by: &str) -> bool {
        self.cause == Cause::Killed
            && self.by.as_ref().map_or_else(|| self.names_killer(by), |killer| killer == by)
    }

    /// Whether its reason says so: that was all that programs of 0.1 wrote down.
    fn names_killer(&self, by: &str) -> bool {
        let told = Outcome::killed(by).reason.unwrap_or_default();
        let rest = self.reason.as_deref().and_then(|reason| reason.strip_prefix(&told));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("; "))
    }

    /// It waited for too long; `before` says what had become of it until then, where it had been
    /// with a node.
    pub fn expired(before: Option<&str>) -> Outcome {
        let reason = match before {
            None => "expired before a node had room".to_string(),
            Some(before) => format!("expired before it could be tried again ({before})"),
        };
        Outcome::error(Cause::Expired, reason)
    }

    /// Nobody knows what became of it.
    pub fn lost(reason: &str) -> Outcome {
        Outcome::error(Cause::Lost, reason.to_string())
    }

    /// Nobody knows what became of it, nor whether all of its processes have ended.
    pub fn lost_unproven(reason: &str) -> Outcome {
        Outcome { unproven: true, ..Outcome::lost(reason) }
    }

    /// An end that is not an exit.
    pub fn error(cause: Cause, reason: String) -> Outcome {
        Outcome {
            status: Status::Error,
            cause,
            code: None,
            reason: Some(reason),
            by: None,
            unproven: false,
        }
    }

    /// The exit code of a command that waited for this: the program's own, else 1.
    pub fn exit_code(&self) -> i32 {
        self.code.unwrap_or(i32::from(self.status != Status::Good))
    }
}

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
            cause: None,
            code: None,
            reason: None,
            by: None,
            unproven: false,
            proof: None,
            tasks: None,
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
        RunStatus { started: Some(line.at.clone()), pid: line.pid, ..self }
    }

    /// Whether its program was started, as far as this tells.
    pub fn has_begun(&self) -> bool {
        self.started.is_some() || self.state == RunState::Running
    }

    /// The outcome, where the job stopped.
    pub fn outcome(&self) -> Option<Outcome> {
        (self.state == RunState::Stopped).then(|| Outcome {
            status: self.status,
            cause: self.cause.unwrap_or(Cause::Lost),
            code: self.code,
            reason: self.reason.clone(),
            by: self.by.clone(),
            unproven: self.unproven,
        })
    }

    /// The same, naming the job.
    #[must_use]
    pub fn of(self, id: &str) -> RunStatus {
        RunStatus { id: Some(id.to_string()), ..self }
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
}
