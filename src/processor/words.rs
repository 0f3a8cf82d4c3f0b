//! Commands of `processor` that are more than a route in words.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Value, json};

use super::accept::{NewRun, accept};
use super::{check, log, routes, status, supervise, sweep};
use crate::board::root::Root;
use crate::cgi::program;
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
        ["check", ..] => Some(check_board(&words)),
        ["jobs" | "job", "new", rest @ ..]
            if rest.iter().any(|w| ["--", "--help", "-h", "--wait", "-r", "-e"].contains(w)) =>
        {
            Some(submit(&words))
        }
        _ => tokens::words(args).map(|words| program::command(&super::PROGRAM, &words)),
    }
}

fn sweep_once() -> Result<i32> {
    let swept = sweep::sweep(&Root::find()?)?;
    println!("{}", json!(swept));
    Ok(0)
}

fn check_board(words: &[&str]) -> Result<i32> {
    let command = Command::new("processor check")
        .about("Verify every invariant of the node's board; one line per violation, exit 1 if any")
        .arg(
            Arg::new("repair")
                .long("repair")
                .action(ArgAction::SetTrue)
                .help("mend what has one right answer"),
        );
    let matches = match command.try_get_matches_from(words) {
        Ok(matches) => matches,
        Err(error) => return Ok(explain(&error)),
    };
    let found = check::check(&Root::find()?, matches.get_flag("repair"))?;
    for line in &found {
        println!("{line}");
    }
    Ok(if found.is_empty() { 0 } else { exit::REFUSED })
}

fn command() -> Command {
    let text = |name: &'static str| Arg::new(name).num_args(1);
    Command::new("processor jobs new")
        .about("Run a command on this machine, in the current directory")
        .arg(text("id").short('r').long("request-id").value_name("ID").help("the job's id"))
        .arg(
            text("environment")
                .short('e')
                .long("environment")
                .value_name("ENV.json")
                .help("a JSON object: the job's environment"),
        )
        .arg(
            Arg::new("wait")
                .long("wait")
                .action(ArgAction::SetTrue)
                .help("print the job's output and exit with its code"),
        )
        .arg(Arg::new("quiet").short('q').action(ArgAction::SetTrue).help("print only the id"))
        .arg(
            Arg::new("command")
                .last(true)
                .required(true)
                .num_args(1..)
                .value_name("CMD ARGS")
                .help("the program and its arguments"),
        )
}

fn submit(words: &[&str]) -> Result<i32> {
    let matches = match command().try_get_matches_from(&words[1..]) {
        Ok(matches) => matches,
        Err(error) => return Ok(explain(&error)),
    };
    let root = Root::find()?;
    let (id, request) = routes::with_id(request(&matches)?)?;
    let run = NewRun { id: id.clone(), request: request.clone(), uploads: Vec::new() };
    accept(&root, vec![run])?
        .into_iter()
        .next()
        .unwrap_or_else(|| Err(Error::new(Kind::Internal, "no answer for the job")))?;
    let mut out = io::stdout();
    let written = match (matches.get_flag("quiet"), matches.get_flag("wait")) {
        (true, _) => writeln!(out, "{id}"),
        (false, false) => writeln!(out, "{request}"),
        (false, true) => Ok(()),
    };
    let code = program::told("processor", written, 0);
    if matches.get_flag("wait") { wait(&root, &id) } else { Ok(code) }
}

fn request(matches: &ArgMatches) -> Result<Value> {
    let argv: Vec<&String> = matches.get_many("command").unwrap_or_default().collect();
    let dir = std::env::current_dir().at(".")?;
    let dir = dir.to_str().ok_or_else(|| Error::bad("the current directory is not UTF-8"))?;
    let mut request = json!({"command": argv, "dir": dir});
    if let Some(id) = matches.get_one::<String>("id") {
        request["request_id"] = json!(id);
    }
    if let Some(path) = matches.get_one::<String>("environment").map(PathBuf::from) {
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

/// Prints what clap has to say; returns the exit code.
fn explain(error: &clap::Error) -> i32 {
    let _ = error.print(); // a reader that left is fine
    if error.use_stderr() { exit::USAGE } else { 0 }
}
