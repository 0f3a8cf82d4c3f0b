//! `processor-client`: has a node run processes. Commands come from a file or from standard input, and are
//! carried out in their order; what was started is remembered until it has ended, also by the next client.

mod client;
mod commands;
mod store;

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};
use corkboard::cgi::presented::Access;
use corkboard::cgi::remote::Remote;
use corkboard::error::{At, Error, Result, exit};

use client::Client;
use store::Store;

/// Behind the options of `--help`.
const HELP: &str = "\
Commands, one a line, in words as for a shell (quotes and backslashes; no variables):
  start [--name NAME] [--dir DIR] [--env NAME=VALUE]... PROGRAM [ARG...]
                            have a process run; told once it runs, or cannot
  wait [WHICH]              until it has ended; told as by query
  query [WHICH [OUT [ERR]]] whether it runs, and what of its output: lines=1-20,
                            bytes=0-4095, tail=10, none; its last lines if absent
  stop [WHICH]              end it; told its last lines
  running                   which processes run there
WHICH is the NAME of a start, a PID, or PID_START; the last that was started if absent. A NAME
is remembered until it has ended, and to the end of the commands; then PID_START finds it.
Behind # is a comment.

Each answer is a line of JSON. A command that is refused is told on standard error, and the
next is carried out. Exit codes: 0 all was done, 1 something was refused, 2 usage, 75 try
again later.

Examples:
  export CORKBOARD_TOKEN=...
  processor-client --url http://127.0.0.1:8080 nightly.txt
  echo 'running' | processor-client --url http://127.0.0.1:8080
  processor-client --url http://127.0.0.1:8080 <<'END'
  start --name build --dir /src make -j4
  wait build
  query build lines=1-20 none
  END
  processor-client --url https://node.example --ca ca.pem --cert me.pem --key me.key jobs.txt";

fn main() -> ExitCode {
    let matches = options().try_get_matches().unwrap_or_else(|error| error.exit());
    let code = run(&matches).unwrap_or_else(|error| {
        say(&error.message);
        error.kind.exit_code()
    });
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

fn options() -> Command {
    let with =
        |name: &'static str, value, help| Arg::new(name).long(name).value_name(value).help(help);
    Command::new("processor-client")
        .about("Has a node of Corkboard run processes, one command after the other")
        .arg(with("url", "URL", "the node's server; CORKBOARD_URL if absent"))
        .arg(with("token-file", "FILE", "a file with the token; CORKBOARD_TOKEN if absent"))
        .arg(with("ca", "FILE", "certificates by one of which an https server is believed"))
        .arg(with("cert", "FILE", "the certificate that it is shown"))
        .arg(with("key", "FILE", "the key of that; the same file if absent"))
        .arg(with("store", "FILE", "where it is kept what was started; see below"))
        .arg(Arg::new("commands").value_name("FILE").help("the commands; standard input if absent or -"))
        .after_help(format!(
            "{HELP}\n\nWhat was started and has not ended is kept in --store, else in corkboard/processor-client\nof XDG_STATE_HOME or ~/.local/state, a line for each."
        ))
}

fn run(matches: &ArgMatches) -> Result<i32> {
    let given = |name: &str| matches.get_one::<String>(name).cloned();
    let mut access = Access::from_env()?;
    if let Some(path) = given("token-file") {
        access.token = Some(fs::read_to_string(&path).at(&path)?.trim().to_string());
    }
    access.ca = given("ca").or(access.ca);
    access.cert = given("cert").or(access.cert);
    access.key = given("key").or(access.key);
    let url = given("url").or(Access::url_from_env()?);
    let url = url
        .ok_or_else(|| Error::bad("which node? name it by --url, such as http://127.0.0.1:8080"))?;
    let store =
        Store::open(given("store").map_or_else(usual_store, |path| Ok(path.into()))?, &url)?;
    let mut client = Client::new(Remote::to(&url, access)?, store);
    let commands = given("commands").filter(|path| path != "-");
    let input: Box<dyn BufRead> = match &commands {
        Some(path) => Box::new(BufReader::new(File::open(path).at(path)?)),
        None => Box::new(io::stdin().lock()),
    };
    let mut code = 0;
    for (index, line) in input.lines().enumerate() {
        let done = line.at(commands.as_deref().unwrap_or("standard input"));
        let done = done.and_then(|line| commands::parse(&line)).and_then(|command| match command {
            Some(command) => client.carry_out(command),
            None => Ok(()),
        });
        if let Err(error) = done {
            say(&format!("line {}: {}", index + 1, error.message));
            code = if code == 0 { error.kind.exit_code() } else { code };
            if client.cannot_write {
                return Ok(exit::REFUSED);
            }
        }
    }
    if let Err(error) = client.resume() {
        say(&error.message);
        code = if code == 0 { error.kind.exit_code() } else { code };
    }
    client.forget_ended();
    Ok(code)
}

/// Where it is kept what was started, unless somebody says.
fn usual_store() -> Result<PathBuf> {
    let of = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = of("XDG_STATE_HOME").or_else(|| Some(of("HOME")?.join(".local/state")));
    let state = state
        .ok_or_else(|| Error::bad("there is no HOME to keep a store in: name one by --store"))?;
    Ok(state.join("corkboard/processor-client"))
}

/// A line on standard error; where that cannot be written nobody can be told.
fn say(line: &str) {
    corkboard::edge::say(format_args!("processor-client: {line}"));
}
