//! Commands of `processor` that are more than a route in words.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::accept::{NewRun, accept};
use super::{check, log, routes, status, supervise, sweep};
use crate::auth;
use crate::board::root::Root;
use crate::cgi::options::{Given, Opt, Options};
use crate::cgi::{Need, program};
use crate::error::{At, Error, Kind, Result, exit};
use crate::model::log::LogQuery;
use crate::model::outcome::RunState;
use crate::tokens;

/// Lines of `--help` about these commands.
pub const HELP: &str = "\
jobs new [-r ID] [-e ENV.json] [--wait] [-q] -- CMD ARGS   run a command here
sweep                    recover what crashes left; start what waits
check [--repair]         verify the board; one line per violation
supervise                run waiting jobs until there are none (started when needed)
tokens ls | tokens rm id=ID";

/// How long one look of `--wait` lasts; it is repeated until the job has ended.
const LOOK: Duration = Duration::from_secs(30);

/// These commands; see [`program::Words`].
pub fn words(args: &[String]) -> Option<Result<i32>> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["supervise"] => Some(supervise::run(false)),
        ["supervise", "--stay"] => Some(supervise::run(true)),
        ["sweep"] => Some(sweep_once()),
        ["check", ..] => Some(check_board(&args[1..])),
        ["jobs" | "job", "new", rest @ ..]
            if rest.iter().any(|w| ["--", "--help", "-h", "--wait", "-r", "-e"].contains(w)) =>
        {
            Some(submit(&args[2..]))
        }
        _ => tokens::words(args).map(|words| program::command(&super::PROGRAM, &words)),
    }
}

fn sweep_once() -> Result<i32> {
    let root = Root::find()?;
    root.for_change()?;
    let swept = sweep::sweep(&root)?;
    println!("{}", json!(swept));
    Ok(0)
}

const CHECK: Options = Options {
    name: "processor check",
    about: "Verifies every invariant of the node's board; one line per violation, exit 1 if any",
    options: &[Opt::flag("repair", "Mend what has one right answer")],
    command: false,
    epilogue: "",
};

fn check_board(args: &[String]) -> Result<i32> {
    let words = match CHECK.read(args) {
        Ok(words) => words,
        Err(code) => return Ok(code),
    };
    let root = Root::find()?;
    root.for_change()?; // even a look needs the board's lock
    let (found, notes) = check::check(&root, words.flag("repair"))?;
    for line in &found {
        println!("{line}");
    }
    for note in notes {
        println!("note: {note}");
    }
    Ok(if found.is_empty() { 0 } else { exit::REFUSED })
}

const NEW: Options = Options {
    name: "processor jobs new",
    about: "Runs a command on this machine, in the current directory",
    options: &[
        Opt::with("request-id", "ID", "The job's id").or('r'),
        Opt::with("environment", "ENV.json", "A JSON object: the job's environment").or('e'),
        Opt::flag("wait", "Print the job's output and exit with its code"),
        Opt::flag("quiet", "Print only the id").or('q'),
    ],
    command: true,
    epilogue: "",
};

fn submit(args: &[String]) -> Result<i32> {
    let words = match NEW.read(args) {
        Ok(words) => words,
        Err(code) => return Ok(code),
    };
    let root = Root::find()?;
    root.for_change()?;
    auth::allow(&auth::from_command(&root)?, Need::Run)?;
    let (id, request) = routes::with_id(request(&words)?)?;
    let run = NewRun { id: id.clone(), request: request.clone(), uploads: None };
    accept(&root, vec![run])?
        .into_iter()
        .next()
        .unwrap_or_else(|| Err(Error::new(Kind::Internal, "no answer for the job")))?;
    let mut out = io::stdout();
    let written = match (words.flag("quiet"), words.flag("wait")) {
        (true, _) => writeln!(out, "{id}"),
        (false, false) => writeln!(out, "{request}"),
        (false, true) => Ok(()),
    };
    let code = program::told("processor", written, 0);
    if words.flag("wait") { wait(&root, &id) } else { Ok(code) }
}

fn request(words: &Given) -> Result<Value> {
    let dir = std::env::current_dir().at(".")?;
    let dir = dir.to_str().ok_or_else(|| Error::bad("the current directory is not UTF-8"))?;
    let mut request = json!({"command": words.command, "dir": dir});
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

/// Prints the job's output until it has ended; the exit code is the job's own.
fn wait(root: &Root, id: &str) -> Result<i32> {
    let mut offset = 0;
    loop {
        let query = LogQuery { offset, ..LogQuery::default() };
        offset = log::follow(root, id, query, LOOK, &mut io::stdout().lock())?;
        let status = status::of(root, id)?;
        if status.state == RunState::Stopped {
            let outcome = status.outcome();
            let reason = outcome.as_ref().and_then(|outcome| outcome.reason.as_deref());
            if let Some(reason) = reason {
                eprintln!("processor: job {id}: {reason}");
            }
            return Ok(outcome.map_or(exit::REFUSED, |outcome| outcome.exit_code()));
        }
        sweep::sweep(root)?; // its supervisor may have died
    }
}
