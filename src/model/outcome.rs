//! How an attempt ended.

use std::time::Duration;

use serde::{Deserialize, Serialize};

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
pub(super) fn is_false(value: &bool) -> bool {
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

    /// Whether that is so: a program that ran and exited with such a code has another reason.
    pub fn is_not_started(&self) -> bool {
        let ran = |code| self.reason == Outcome::exit(code).reason;
        self.cause == Cause::Exit
            && self.code.is_some_and(|code| matches!(code, 126 | 127) && !ran(code))
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

    /// Whether it allows another try at all. A loss may be `unproven` by who says so, or by its own
    /// word.
    pub fn may_repeat(&self, retry_lost: bool, unproven: bool) -> bool {
        match self.cause {
            Cause::Exit | Cause::Signal | Cause::Timeout => self.status != Status::Good,
            Cause::Lost => retry_lost || !(unproven || self.unproven),
            Cause::Killed | Cause::Aborted | Cause::Expired => false,
        }
    }

    /// The exit code of a command that waited for this: the program's own, else 1.
    pub fn exit_code(&self) -> i32 {
        self.code.unwrap_or(i32::from(self.status != Status::Good))
    }
}
