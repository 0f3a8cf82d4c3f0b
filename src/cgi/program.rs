//! Runs a program of ours: as CGI where `GATEWAY_INTERFACE` is set, else as a command.

use std::env;
use std::io::{self, Write};
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Arg;

use super::alarm;
use super::request::{Method, Request};
use super::response::{Content, Response, copy};
use super::route::{self, Key, Need, Route};
use super::words::{self, COMMAND, Given};
use crate::auth;
use crate::board::root::Root;
use crate::board::watch;
use crate::error::{Error, Kind, Result, exit};

/// A command of a program that is more than a route in words, such as `jobs new -- CMD`.
pub struct Special {
    /// Its words, as in the pattern of a route, which may have the same.
    pub pattern: &'static str,
    /// How it is typed behind its words.
    pub usage: &'static str,
    /// One line for `--help`.
    pub help: &'static str,
    /// Keys that it knows.
    pub query: &'static [Key],
    /// Its options; with one whose id is `command`, words behind `--`. Where a route has the same
    /// words, the route is meant if none of these is given.
    pub options: fn() -> Vec<Arg>,
    /// What its `--help` ends with, in place of the usual exit codes.
    pub epilogue: &'static str,
    /// Does it; returns the exit code.
    pub run: fn(&Given) -> anyhow::Result<i32>,
}

impl Special {
    /// One without keys, options and an epilogue of its own.
    pub const fn plain(
        pattern: &'static str,
        help: &'static str,
        run: fn(&Given) -> anyhow::Result<i32>,
    ) -> Special {
        Special { pattern, usage: "", help, query: &[], options: Vec::new, epilogue: "", run }
    }

    /// Whether words may follow behind `--`.
    pub(super) fn takes_command(&self) -> bool {
        (self.options)().iter().any(|option| option.get_id() == COMMAND)
    }
}

/// A program: its name, its routes, and the commands that have forms of their own.
pub struct Program {
    /// As installed.
    pub name: &'static str,
    /// One line for `--help`.
    pub about: &'static str,
    /// Its routes.
    pub routes: &'static [Route],
    /// Its other commands.
    pub specials: &'static [Special],
    /// The sections of `--help`: titles, and how patterns begin that are listed there.
    pub sections: &'static [(&'static str, &'static [&'static str])],
}

impl Program {
    /// The patterns of its routes and of its other commands.
    pub(super) fn patterns(&self) -> impl Iterator<Item = &'static str> {
        let specials = self.specials.iter().map(|special| special.pattern);
        self.routes.iter().map(|route| route.pattern).chain(specials)
    }
}

/// Runs the program and returns its exit code.
pub fn run(program: &'static Program) -> i32 {
    if env::var_os("GATEWAY_INTERFACE").is_some() {
        cgi(program);
        return 0;
    }
    words::run(program)
}

/// Says on standard error what is wrong; returns the exit code.
pub fn complain(name: &str, error: &Error) -> i32 {
    eprintln!("{name}: {}", error.message);
    error.kind.exit_code()
}

/// Whether the answer has begun.
static ANSWERED: AtomicBool = AtomicBool::new(false);

/// From now on a panic is answered, too, after it was told in the server's log. It ends the process.
fn answer_panics() {
    let tell = panic::take_hook();
    panic::set_hook(Box::new(move |panicked| {
        tell(panicked);
        if ANSWERED.swap(true, Ordering::Relaxed) {
            return;
        }
        let error = Error::new(Kind::Internal, "a defect ended the program; see the server's log");
        let mut answer = Vec::new();
        let _ = Response::error(&error).write_cgi(&mut answer, false); // a Vec takes everything
        // Not by the locked stream, which a thread that panics may hold.
        let _ = nix::unistd::write(io::stdout(), &answer); // nobody is left to be told
    }));
}

/// Answers one CGI request. Always answers something: no output would be an empty reply.
fn cgi(program: &Program) {
    answer_panics();
    alarm::arm();
    let mut head = false;
    let response = answer(program, &mut head).unwrap_or_else(|e| Response::error(&e));
    ANSWERED.store(true, Ordering::Relaxed);
    if let Err(error) = response.write_cgi(&mut io::stdout().lock(), head) {
        eprintln!("{}: {}", program.name, error.message);
    }
    // The server waits for the end of this pipe. The end of the process closes it last, after an
    // inotify instance, which takes the kernel up to two dozen milliseconds.
    // SAFETY: standard output is not written to again, and nothing else has this descriptor.
    unsafe { nix::libc::close(nix::libc::STDOUT_FILENO) };
}

/// What is wrong with the root is for its owner, in the server's log: whoever asks has not shown a
/// token yet, and need not learn where the root is.
fn conceal(name: &str, error: &Error) -> Error {
    eprintln!("{name}: {}", error.message);
    let what = match error.kind {
        Kind::Misconfigured => "the root's corkboard.conf is wrong",
        _ => "the root cannot be used",
    };
    Error::new(error.kind, format!("{what}; see the server's log"))
}

fn answer(program: &Program, head: &mut bool) -> Result<Response> {
    let root = Root::find().map_err(|e| conceal(program.name, &e))?;
    let who = auth::from_cgi(&root).map_err(|e| match e.kind {
        Kind::Unauthorized | Kind::Forbidden | Kind::Misdirected => e,
        _ => conceal(program.name, &e),
    })?;
    let request = match Request::from_cgi() {
        Err(e) if e.kind == Kind::MethodNotAllowed => {
            return Ok(Response::error(&e).header("Allow", "GET, HEAD, POST, PATCH, DELETE"));
        }
        other => other?,
    };
    *head = request.head;
    match route::find(program.routes, &root, &request, &who) {
        Ok((route, call)) => {
            auth::allow(&who, route.need)?;
            may_change(&root, route).map_err(|e| conceal(program.name, &e))?;
            let waits = ["wait", "follow"].iter().any(|word| request.param(word).is_some());
            if waits {
                let (root, need) = (root.clone(), route.need);
                watch::wait_while(move || is_admitted(&root, need).is_ok());
            }
            let response = (route.handler)(&call)?;
            if waits && !watch::may_wait() {
                is_admitted(&root, route.need)?;
            }
            Ok(response)
        }
        Err(e) if e.kind == Kind::MethodNotAllowed => {
            let allow: Vec<&str> =
                route::methods(program.routes, &request.path).iter().map(|m| m.name()).collect();
            Ok(Response::error(&e).header("Allow", allow.join(", ")))
        }
        Err(e) => Err(e),
    }
}

/// Refuses whoever has lost the right to what they wait for: a token was revoked or has expired, an
/// attempt has ended, the root was closed. Where that cannot be told they wait on.
fn is_admitted(root: &Root, need: Need) -> Result<()> {
    match auth::from_cgi(root).and_then(|who| auth::allow(&who, need)) {
        Err(e) if matches!(e.kind, Kind::Unauthorized | Kind::Forbidden | Kind::Misdirected) => {
            Err(e)
        }
        _ => Ok(()),
    }
}

/// Refuses what is more than a look, where the tree is another user's.
pub(super) fn may_change(root: &Root, route: &Route) -> Result<()> {
    if route.method == Method::Get { Ok(()) } else { root.for_change() }
}

/// Prints an answer as a command does: the body on standard output; returns the exit code.
pub fn print(program: &Program, response: Response, brief: bool) -> Result<i32> {
    let mut out = io::stdout().lock();
    let code = response.exit_code;
    match (response.brief, response.content) {
        (Some(text), _) if brief => return Ok(told(program.name, writeln!(out, "{text}"), code)),
        (_, Content::Bytes(bytes)) => {
            let written = out.write_all(&bytes).and_then(|()| out.flush());
            return Ok(told(program.name, written, code));
        }
        (_, Content::Reader(mut reader, length)) => {
            return Ok(match copy(&mut reader, length, &mut out) {
                Ok(written) => told(program.name, written, code),
                Err(error) => complain(program.name, &error),
            });
        }
        (_, Content::Stream(stream)) => {
            if let Err(error) = stream(&mut out) {
                return Ok(complain(program.name, &error));
            }
        }
    }
    Ok(code)
}

/// The exit code of a command that has told its answer. A reader that left is fine; an answer that
/// could not be written is not: whoever reads the file that it should be in must not take it for
/// an empty one.
pub fn told(name: &str, written: io::Result<()>, code: i32) -> i32 {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let why = crate::error::reason(&error);
            eprintln!(
                "{name}: cannot write the answer: {why} (it may have been recorded; repeat with the same id)"
            );
            exit::REFUSED
        }
        _ => code,
    }
}
