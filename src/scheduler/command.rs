//! Commands that are more than a route in words: `jobs new [OPTION...] -- CMD ARGS`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use clap::{Arg, ArgAction};
use serde_json::Value;

use super::possible::Possible;
use super::rounds::Rounds;
use super::{interrupt, jobs, outputs, submit};
use crate::auth;
use crate::board::cards::Cards;
use crate::board::incoming::{Incoming, Place};
use crate::board::root::Root;
use crate::cgi::words::{command, flag, with};
use crate::cgi::{Given, Special};
use crate::cgi::{audit, output};
use crate::check;
use crate::error::{At, Error, Result, exit};
use crate::held::Held;
use crate::model::log::LogQuery;
use crate::tokens;

mod elsewhere;
mod options;

use options::{here, request, standard_input};

/// What is held of a file that is taken in.
const PIECE: usize = 64 << 10;

/// The commands.
pub const SPECIALS: &[Special] = &[
    Special {
        pattern: "jobs/new",
        usage: "[OPTION...] -- CMD ARGS",
        help: "submit a command; with --wait, make the rounds if no poller is running",
        query: &[],
        options,
        epilogue: "Exit codes: with --wait the job's own; else 0 done, 1 refused, 2 usage,\n75 try again later.",
        may_be_remote: true,
        run: new,
    },
    check::REPAIR,
    tokens::LS,
    tokens::RM_ID,
    tokens::RM,
];

fn options() -> Vec<Arg> {
    vec![
        with("name", "NAME", "a name, for people"),
        with("env", "NAME=VALUE", "set in the job's environment; may be repeated")
            .action(ArgAction::Append),
        flag("export", "its environment has what is set in this one's"),
        flag("stdin", "it reads what comes here on standard input"),
        with("dir", "DIR", "where it starts; with --file, --url in its own"),
        with("file", "PATH", "a file for its own directory; may be repeated")
            .action(ArgAction::Append),
        with("cores", "N", "cores that it is given; 1 if absent"),
        with("memory", "SIZE", "memory that it is given, e.g. \"1 GiB\""),
        with("gpus", "N", "GPUs that it is given"),
        with("resource", "NAME=N", "of a countable; may be repeated").action(ArgAction::Append),
        with("constraint", "LABEL=V", "nodes with this label; may be repeated")
            .action(ArgAction::Append),
        with("partition", "NAME", "the partition that it goes into"),
        with("node", "NAME", "this node alone; may be repeated").action(ArgAction::Append),
        with("exclude", "NAME", "not this node; may be repeated").action(ArgAction::Append),
        with("placement", "HOW", "spread, pack, round-robin or random"),
        flag("strict", "refused if no node could ever have it"),
        with("timeout", "DURATION", "longest run of one attempt, e.g. 30s, 2h"),
        with("grace", "DURATION", "between SIGTERM and SIGKILL; 10s if absent"),
        with("retries", "N", "how often it is tried again after it failed"),
        with("retry-delay", "DURATION", "least time between two attempts"),
        flag("retry-lost", "try again, too, when an attempt may still run"),
        with("priority", "P", "higher goes first; 0 if absent"),
        with("expires", "WHEN", "ends unless placed by then: a time, or e.g. 2h"),
        with("request-id", "ID", "the same id again gives the same job"),
        with("output", "HOW", "combined (one log) or split (stdout and stderr)"),
        with("array", "TASKS", "once a task: 0-99, or 0-99%8 for 8 at a time"),
        with("share", "HOW", "read or control: what all users may do with it"),
        flag("held", "wait until released"),
        flag("wait", "print the job's log, and exit with its code"),
        command(),
    ]
}

fn new(words: &Given) -> anyhow::Result<i32> {
    if let Some(remote) = words.remote()? {
        return Ok(elsewhere::new(&remote, words)?);
    }
    let mut request = request(words)?;
    if words.value("dir").is_none() && words.values("file").is_empty() {
        request.insert("dir".into(), here()?.into());
    }
    let root = Root::find()?;
    root.for_change()?;
    let who = auth::from_command(&root)?;
    if words.flag("stdin") {
        request.insert("stdin".into(), standard_input(root.settings.max_body)?.into());
    }
    let files = files(&root, &words.values("file"))?;
    let held = Held::back();
    let submitted = submit::submit(&root, &who, Value::Object(request), files);
    let made = submitted.as_ref().map(|(accepted, _)| format!("jobs/{}", accepted.job));
    audit::tell_command(&root, &who, "scheduler", &["jobs", "new"], made.map_err(Clone::clone));
    drop(held);
    let (accepted, fresh) = submitted?;
    let job = accepted.job;
    // Who waits is told why in any case.
    let may_warn = fresh && !words.flag("wait");
    if may_warn && let Some(why) = Possible::new(&root).warning(&accepted) {
        eprintln!("scheduler: job {job}: {why}: it waits until one has");
    }
    if words.flag("wait") {
        if words.quiet() {
            // Where nobody reads the number, the job is waited for all the same.
            output::told("scheduler", writeln!(io::stdout(), "{job}"), 0);
        }
        return Ok(wait(&root, job)?);
    }
    let text = match words.quiet() {
        true => job.to_string(),
        false => submit::answer(accepted, None).to_string(),
    };
    Ok(output::told("scheduler", writeln!(io::stdout(), "{text}"), 0))
}

/// Files that are read once, whatever they are, and are on the board's disk when this returns.
fn files(root: &Root, paths: &[&str]) -> Result<Option<Incoming>> {
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

/// Prints a job's log until it has ended, and returns its exit code, unless the log could not be written. Makes rounds itself while no
/// poller is at work.
fn wait(root: &Root, job: u64) -> Result<i32> {
    interrupt::tell_on_interrupt(job, None)?;
    let mut rounds = Rounds::begin(root, job)?;
    // From its first attempt on, even if that has failed by now.
    let mut stdout = io::stdout().lock();
    let mut out = output::Told::new(&mut stdout);
    if !outputs::follow(root, job, 0, LogQuery::default(), None, Some(&mut rounds), &mut out)? {
        jobs::wait_beside(root, job, &mut rounds)?; // nobody reads its log; its code may be asked for
    }
    rounds.finish();
    let card = Cards::new(root).find(job)?;
    let Some(outcome) = card.outcome else { return Ok(exit::REFUSED) };
    if let Some(reason) = &outcome.reason {
        eprintln!("scheduler: job {job}: {reason}");
    }
    Ok(out.end("scheduler", outcome.exit_code()))
}
