//! Commands that are more than a route in words: `jobs new [options] -- CMD ARGS`.

use std::env;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::rounds::Rounds;
use super::{jobs, outputs, submit};
use crate::auth;
use crate::board::cards::Cards;
use crate::board::incoming::{Incoming, Place};
use crate::board::root::Root;
use crate::cgi::options::{Given, Opt, Options};
use crate::cgi::program;
use crate::error::{At, Error, Result, exit};
use crate::model::log::LogQuery;
use crate::tokens;

/// What is held of a file that is taken in.
const PIECE: usize = 64 << 10;

/// Lines of `scheduler --help`.
pub const HELP: &str =
    "jobs new [options] -- CMD ARGS   submit a job from words; see jobs new --help
check --repair                   mend what has one right answer
tokens new role=ROLE [name=] [expires=], tokens ls, tokens rm id=ID";

/// The commands of this program; `None` for words that are a path.
pub fn words(args: &[String]) -> Option<Result<i32>> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["jobs" | "job", "new", rest @ ..] if is_words(rest) => Some(new(&args[2..])),
        ["check", "--repair"] => {
            let words = ["check", "repair=1"].map(String::from);
            Some(program::command(&super::PROGRAM, &words))
        }
        _ => tokens::words(args).map(|words| program::command(&super::PROGRAM, &words)),
    }
}

/// Whether `jobs new` is followed by options of its own, and not by those of a request.
fn is_words(rest: &[&str]) -> bool {
    rest.iter().any(|word| word.starts_with("--") || *word == "-h")
}

const OPTIONS: Options = Options {
    name: "scheduler jobs new",
    about: "Submits a job; with --wait, makes the rounds itself if no poller is running",
    options: &[
        Opt::with("name", "NAME", "A name, for people"),
        Opt::with("env", "NAME=VALUE", "Set in the job's environment; may be repeated").repeated(),
        Opt::with("dir", "DIR", "Where it starts; the current directory, or with --file its own"),
        Opt::with("file", "PATH", "A file to go with it, for its own directory; may be repeated")
            .repeated(),
        Opt::with("cores", "N", "Cores that it is given; 1 if absent"),
        Opt::with("memory", "SIZE", "Memory that it is given, e.g. \"1 GiB\""),
        Opt::with("timeout", "DURATION", "Longest run of one attempt, e.g. 30s, 2h"),
        Opt::with("grace", "DURATION", "Between SIGTERM and SIGKILL; 10s if absent"),
        Opt::with("retries", "N", "How often it is tried again after it failed"),
        Opt::with("retry-delay", "DURATION", "Least time between two attempts"),
        Opt::flag("retry-lost", "Try again, too, when nobody knows what became of an attempt"),
        Opt::with("priority", "P", "Higher goes first; 0 if absent"),
        Opt::with("expires", "WHEN", "Ends unless placed by then: a time, or e.g. 2h"),
        Opt::with("request-id", "ID", "Submitting again with the same id gives the same job"),
        Opt::with("output", "HOW", "combined (one log) or split (stdout and stderr)"),
        Opt::with("array", "TASKS", "Once for each task, e.g. 0-99, or 0-99%8 for 8 at a time"),
        Opt::flag("held", "Wait until released"),
        Opt::flag("wait", "Print the job's log, and exit with its code"),
        Opt::flag("quiet", "Print only the number").or('q'),
    ],
    command: true,
    epilogue: "Exit codes: with --wait the job's own; else 0 done, 1 refused, 2 usage, 75 try again later.",
};

fn new(args: &[String]) -> Result<i32> {
    let words = match OPTIONS.read(args) {
        Ok(words) => words,
        Err(code) => return Ok(code),
    };
    let request = request(&words)?;
    let root = Root::find()?;
    root.for_change()?;
    let who = auth::from_command(&root)?;
    let files = files(&root, words.values("file"))?;
    let (accepted, _) = submit::submit(&root, &who, request, files)?;
    let job = accepted.job;
    if words.flag("wait") {
        if words.flag("quiet") {
            println!("{job}");
        }
        return wait(&root, job);
    }
    let text = match words.flag("quiet") {
        true => job.to_string(),
        false => submit::answer(accepted).to_string(),
    };
    Ok(program::told("scheduler", writeln!(io::stdout(), "{text}"), 0))
}

/// Files that are read once, whatever they are, and are on the board's disk when this returns.
fn files(root: &Root, paths: &[String]) -> Result<Option<Incoming>> {
    if paths.is_empty() {
        return Ok(None);
    }
    let mut incoming = Incoming::new(root, Place::Head)?;
    let mut piece = vec![0; PIECE];
    for path in paths {
        let name = Path::new(path).file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| Error::bad(format!("--file: {path:?} names no file")))?;
        let mut source = File::open(path).at(path)?;
        let mut file = incoming.begin(name)?;
        loop {
            match source.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => file.write(&piece[..read])?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e).at(path),
            }
        }
        file.end();
    }
    Ok(Some(incoming))
}

fn request(words: &Given) -> Result<Value> {
    let mut map = Map::new();
    let text = |name: &str| words.value(name).map(str::to_string);
    let number = |name: &str| -> Result<Option<Value>> {
        text(name)
            .map(|word| {
                word.parse::<i64>()
                    .map(Value::from)
                    .map_err(|_| Error::bad(format!("--{name}: {word:?} is not a whole number")))
            })
            .transpose()
    };
    map.insert("command".into(), json!(words.command));
    let here = || {
        env::current_dir()
            .ok()
            .and_then(|dir| dir.into_os_string().into_string().ok())
            .ok_or_else(|| Error::bad("the current directory has no name; give --dir"))
    };
    let dir = match text("dir") {
        None if !words.values("file").is_empty() => None,
        None => Some(here()?),
        given => given,
    };
    if let Some(dir) = dir {
        map.insert("dir".into(), dir.into());
    }
    for (option, field) in [
        ("name", "name"),
        ("timeout", "timeout"),
        ("grace", "max_termination_time"),
        ("retry-delay", "retry_delay"),
        ("expires", "expires"),
        ("request-id", "request_id"),
        ("output", "output"),
        ("array", "array"),
    ] {
        if let Some(value) = text(option) {
            map.insert(field.into(), value.into());
        }
    }
    for (option, field) in [("retries", "max_retry_count"), ("priority", "priority")] {
        if let Some(value) = number(option)? {
            map.insert(field.into(), value);
        }
    }
    let mut resources = Map::new();
    if let Some(cores) = number("cores")? {
        resources.insert("cores".into(), cores);
    }
    if let Some(memory) = text("memory") {
        resources.insert("memory".into(), memory.into());
    }
    if !resources.is_empty() {
        map.insert("requested_resources".into(), Value::Object(resources));
    }
    let mut environment = Map::new();
    for pair in words.values("env") {
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| Error::bad(format!("--env: {pair:?} is not NAME=VALUE")))?;
        environment.insert(name.into(), value.into());
    }
    if !environment.is_empty() {
        map.insert("environment".into(), Value::Object(environment));
    }
    if words.flag("held") {
        map.insert("state".into(), "held".into());
    }
    if words.flag("retry-lost") {
        map.insert("retry_lost".into(), true.into());
    }
    Ok(Value::Object(map))
}

/// Prints a job's log until it has ended, and returns its exit code. Makes rounds itself while no
/// poller is at work.
fn wait(root: &Root, job: u64) -> Result<i32> {
    let mut rounds = Rounds::begin(root, job)?;
    // From its first attempt on, even if that has failed by now.
    let out = &mut io::stdout().lock();
    if !outputs::follow(root, job, 0, LogQuery::default(), None, Some(&mut rounds), out)? {
        jobs::wait_beside(root, job, &mut rounds)?; // nobody reads its log; its code may be asked for
    }
    rounds.finish();
    let card = Cards::new(root).find(job)?;
    let Some(outcome) = card.outcome else { return Ok(exit::REFUSED) };
    if let Some(reason) = &outcome.reason {
        eprintln!("scheduler: job {job}: {reason}");
    }
    Ok(outcome.exit_code())
}
