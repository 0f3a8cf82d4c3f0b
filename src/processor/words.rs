//! Commands of `processor` that are more than a route in words.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Context;
use serde_json::{Value, json};

use super::accept::{NewRun, accept};
use super::{log, start, status, submit as submission, supervise, sweep};
use crate::auth;
use crate::board::root::Root;
use crate::cgi::program::COMMAND;
use crate::cgi::words::{command, flag, with};
use crate::cgi::{Given, Special};
use crate::cgi::{audit, output};
use crate::check;
use crate::error::{At, Error, Kind, Result, exit};
use crate::held::Held;
use crate::model::access::Need;
use crate::model::ids::RunId;
use crate::model::log::LogQuery;
use crate::model::run_status::RunState;
use crate::tokens;

/// The commands.
pub const SPECIALS: &[Special] = &[
    Special {
        pattern: "jobs/new",
        usage: "[OPTION...] -- CMD ARGS",
        help: "run a command on this machine, in the current directory",
        query: &[],
        options: || {
            vec![
                with("request-id", "ID", "the job's id").short('r'),
                with("environment", "ENV.json", "a JSON object: the job's environment").short('e'),
                flag("wait", "print the job's output and exit with its code"),
                command(),
            ]
        },
        epilogue: "Exit codes: with --wait the job's own; else 0 done, 1 refused, 2 usage,\n75 try again later.",
        may_be_remote: false,
        run: submit,
    },
    check::REPAIR,
    Special::plain("sweep", "recover what crashes left; start what waits", sweep_once),
    Special {
        usage: "[--stay | --gpus]",
        options: || {
            vec![
                flag("stay", "remain the child of who started it"),
                flag("gpus", "find out which GPUs there are; start what waits for that"),
            ]
        },
        ..Special::plain(
            "supervise",
            "run waiting jobs until there are none; started when needed",
            |given| match given.flag("gpus") {
                true => supervise::find_gpus().context(FINDING_GPUS),
                false => supervise::run(given.flag("stay")).context(SUPERVISING),
            },
        )
    },
    tokens::LS,
    tokens::RM_ID,
    tokens::RM,
];

/// What a supervisor does, as an error says it.
const SUPERVISING: &str = "running what waits";

/// The same of [`supervise::find_gpus`].
const FINDING_GPUS: &str = "finding out which GPUs there are";

/// A supervisor, if that is what these words start. One is started for each slot, and stays: it has
/// no use for what reads the words of people.
pub fn supervisor(mut words: impl Iterator<Item = OsString>) -> Option<anyhow::Result<i32>> {
    words.next().filter(|word| word == start::SUPERVISE)?;
    match (words.next(), words.next()) {
        (None, _) => Some(supervise::run(false).context(SUPERVISING)),
        (Some(word), None) if word == start::STAY => {
            Some(supervise::run(true).context(SUPERVISING))
        }
        (Some(word), None) if word == start::FIND_GPUS => {
            Some(supervise::find_gpus().context(FINDING_GPUS))
        }
        _ => None,
    }
}

fn sweep_once(_: &Given) -> anyhow::Result<i32> {
    let root = Root::find()?;
    root.for_change()?;
    let swept = sweep::sweep(&root).context("recovering what crashes left")?;
    Ok(output::told("processor", writeln!(io::stdout(), "{}", json!(swept)), 0))
}

fn submit(words: &Given) -> anyhow::Result<i32> {
    let root = Root::find()?;
    root.for_change()?;
    let who = auth::from_command(&root)?;
    auth::allow(&who, Need::Run)?;
    let (id, request) = submission::with_id(request(words)?)?;
    let run = NewRun { id: id.clone(), request: request.clone(), uploads: None, by: None };
    let held = Held::back();
    let accepted = accept(&root, vec![run]).and_then(|mut all| {
        all.pop().unwrap_or_else(|| Err(Error::new(Kind::Internal, "no answer for the job")))
    });
    let made = accepted.as_ref().map(|_| format!("jobs/{id}")).map_err(Clone::clone);
    audit::tell_command(&root, &who, "processor", &["jobs", "new"], made);
    drop(held);
    accepted?;
    let mut out = io::stdout();
    let written = match (words.quiet(), words.flag("wait")) {
        (true, _) => writeln!(out, "{id}"),
        (false, false) => writeln!(out, "{request}"),
        (false, true) => Ok(()),
    };
    let code = output::told("processor", written, 0);
    if words.flag("wait") { Ok(wait(&root, &id)?) } else { Ok(code) }
}

fn request(words: &Given) -> Result<Value> {
    let dir = std::env::current_dir().at(".")?;
    let dir = dir.to_str().ok_or_else(|| Error::bad("the current directory is not UTF-8"))?;
    let mut request = json!({"command": words.values(COMMAND), "dir": dir});
    if let Some(id) = words.value("request-id") {
        request["request_id"] = json!(id);
    }
    if let Some(path) = words.value("environment").map(PathBuf::from) {
        let bytes = std::fs::read(&path).at(&path)?;
        let environment: BTreeMap<String, String> = serde_json::from_slice(&bytes)
            .map_err(|e| Error::bad(format!("{}: not an object of texts: {e}", path.display())))?;
        request["environment"] = json!(environment);
    }
    Ok(request)
}

/// Prints the job's output until it has ended; the exit code is the job's own, also where nobody reads
/// the output to its end; not where it could not be written.
fn wait(root: &Root, id: &RunId) -> Result<i32> {
    let mut stdout = io::stdout().lock();
    let mut out = output::Told::new(&mut stdout);
    log::follow_on(root, id, LogQuery::default(), &mut out)?;
    let end = loop {
        let status = status::wait(root, id, RunState::Stopped, log::LOOK)?;
        if status.state == RunState::Stopped {
            break status;
        }
        sweep::sweep(root)?; // its supervisor may have died
    };
    let outcome = end.outcome();
    if let Some(reason) = outcome.as_ref().and_then(|outcome| outcome.reason.as_deref()) {
        eprintln!("processor: job {id}: {reason}");
    }
    Ok(out.end("processor", outcome.map_or(exit::REFUSED, |outcome| outcome.exit_code())))
}
