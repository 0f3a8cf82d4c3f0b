//! Runs a program of ours: as CGI where `GATEWAY_INTERFACE` is set, else as a command.

use std::env;
use std::io::{self, Write};

use super::alarm;
use super::body::{self, Body};
use super::request::{Method, Request};
use super::response::{Content, Response, copy};
use super::route::{self, Need, Route};
use crate::auth;
use crate::board::root::Root;
use crate::board::watch;
use crate::error::{Error, Kind, Result, exit};

/// A command of a program that is more than a route in words, such as `jobs new -- CMD`.
/// `None`: not one of these words. Otherwise the exit code.
pub type Words = fn(&[String]) -> Option<Result<i32>>;

/// A program: its name, its routes, and the commands that have forms of their own.
pub struct Program {
    /// As installed.
    pub name: &'static str,
    /// One line for `--help`.
    pub about: &'static str,
    /// Its routes.
    pub routes: &'static [Route],
    /// Its other commands.
    pub words: Words,
    /// Those of them that answer `--help` themselves.
    pub own_help: &'static [&'static [&'static str]],
    /// Lines of `--help` about those.
    pub words_help: &'static str,
}

/// Runs the program and returns its exit code.
pub fn run(program: &Program) -> i32 {
    if env::var_os("GATEWAY_INTERFACE").is_some() {
        cgi(program);
        return 0;
    }
    let args: Vec<String> = match env::args_os().skip(1).map(|a| a.into_string()).collect() {
        Ok(args) => args,
        Err(_) => return complain(program.name, &Error::bad("the arguments are not UTF-8")),
    };
    let asks_help = args.iter().take_while(|a| *a != "--").any(|a| a == "--help" || a == "-h");
    if args.is_empty() || asks_help && !has_own_help(program, &args) {
        let _ = io::stdout().write_all(help(program).as_bytes()); // a reader that left is fine
        return if args.is_empty() { exit::USAGE } else { 0 };
    }
    match (program.words)(&args).unwrap_or_else(|| command(program, &args)) {
        Ok(code) => code,
        Err(error) => complain(program.name, &error),
    }
}

/// Whether these words begin a command that has a help of its own.
fn has_own_help(program: &Program, args: &[String]) -> bool {
    program.own_help.iter().any(|words| {
        args.len() >= words.len() && words.iter().zip(args).all(|(word, arg)| word == arg)
    })
}

/// Says on standard error what is wrong; returns the exit code.
pub fn complain(name: &str, error: &Error) -> i32 {
    eprintln!("{name}: {}", error.message);
    error.kind.exit_code()
}

fn help(program: &Program) -> String {
    let mut text = format!(
        "{}: {}\n\nusage: {} WORD... [KEY=VALUE...] [-X METHOD] [-d JSON | -d @FILE] [-q]\n\nThe words are the path of a request, KEY=VALUE its query. Paths:\n\n",
        program.name, program.about, program.name
    );
    for route in program.routes {
        let words = route.pattern.replace('/', " ").replace(':', "");
        let mut left = format!("{:<6} {}", route.method.name(), words.replace("number", "N"));
        for key in route.query {
            left.push_str(&format!(" [{key}=]"));
        }
        text.push_str(&format!("  {left}\n         {}\n", route.help));
    }
    if !program.words_help.is_empty() {
        text.push_str("\nCommands:\n\n");
        for line in program.words_help.lines() {
            text.push_str(&format!("  {line}\n"));
        }
    }
    text.push_str(
        "\nThe root is CORKBOARD_ROOT, else the directory above the program's own.\nExit codes: 0 done, 1 refused or failed, 2 usage, 75 try again later.\n",
    );
    text
}

/// Answers one CGI request. Always answers something: no output would be an empty reply.
fn cgi(program: &Program) {
    alarm::arm();
    let mut head = false;
    let response = answer(program, &mut head).unwrap_or_else(|e| Response::error(&e));
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
    let what = if error.message.contains("corkboard.conf") {
        "the root's corkboard.conf is wrong"
    } else {
        "the root cannot be used"
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
fn may_change(root: &Root, route: &Route) -> Result<()> {
    if route.method == Method::Get { Ok(()) } else { root.for_change() }
}

/// Words as a request: `jobs 2 status wait=5`. Returns the exit code.
pub fn command(program: &Program, args: &[String]) -> Result<i32> {
    let mut path = Vec::new();
    let mut query = Vec::new();
    let mut method = None;
    let mut data = None;
    let mut brief = false;
    let mut words = args.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "-q" => brief = true,
            "-X" | "-d" => {
                let Some(value) = words.next() else {
                    return Ok(usage(program, &format!("{word} needs a value")));
                };
                if word == "-X" {
                    let Some(known) = Method::parse(value) else {
                        return Ok(usage(program, &format!("no such method {value:?}")));
                    };
                    method = Some(known);
                } else {
                    data = Some(body::from_option(value)?);
                }
            }
            option if option.starts_with('-') => {
                return Ok(usage(program, &format!("unknown option {option}")));
            }
            pair if pair.contains('=') => {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                query.push((key.to_string(), value.to_string()));
            }
            segment => path.extend(segment.split('/').filter(|s| !s.is_empty()).map(String::from)),
        }
    }
    let probe = Request::from_words(Method::Get, path.clone(), Vec::new(), Body::None);
    let methods = route::methods(program.routes, &probe.path);
    let Some(first) = methods.first().copied() else {
        return Ok(usage(program, "no such words; --help lists them"));
    };
    let method = method.unwrap_or(match methods.as_slice() {
        [only] => *only,
        several if data.is_some() => {
            several.iter().copied().find(|m| *m != Method::Get).unwrap_or(first)
        }
        several if several.contains(&Method::Get) => Method::Get,
        _ => first,
    });
    let needs_body = route::candidates(program.routes, &probe.path)
        .any(|(route, _)| route.body && route.method == method);
    let body = data.unwrap_or(if needs_body { Body::Stdin } else { Body::None });
    let root = Root::find()?;
    let who = auth::from_command(&root)?;
    let request = Request::from_words(method, path, query, body);
    let (route, call) = route::find(program.routes, &root, &request, &who)?;
    auth::allow(&who, route.need)?;
    may_change(&root, route)?;
    print(program, (route.handler)(&call)?, brief)
}

fn usage(program: &Program, message: &str) -> i32 {
    eprintln!("{}: {message}; try {} --help", program.name, program.name);
    exit::USAGE
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
