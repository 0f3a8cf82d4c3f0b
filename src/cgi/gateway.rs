//! A program as CGI: one request from the environment, one answer on standard output.

use std::io;
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};

use super::alarm;
use super::audit;
use super::dispatch::{self, Refusal};
use super::program::Program;
use super::request::Request;
use super::response::Response;
use super::route;
use crate::auth::{self, Who};
use crate::board::places;
use crate::board::root::Root;
use crate::board::vault;
use crate::board::watch;
use crate::error::{Error, Kind, Result};
use crate::model::access::{Need, Whose};

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
pub(super) fn run(program: &'static Program) {
    answer_panics();
    alarm::arm();
    let (mut head, mut used) = (false, None);
    let response = answer(program, &mut head, &mut used).unwrap_or_else(|e| Response::error(&e));
    ANSWERED.store(true, Ordering::Relaxed);
    if let Err(error) = response.write_cgi(&mut io::stdout().lock(), head) {
        eprintln!("{}: {}", program.name, error.message);
    }
    // The server waits for the end of this pipe. The end of the process closes it last, after an
    // inotify instance, which takes the kernel up to two dozen milliseconds.
    // SAFETY: standard output is not written to again, and nothing else has this descriptor.
    unsafe { nix::libc::close(nix::libc::STDOUT_FILENO) };
    if let Some((root, token)) = used {
        vault::note_use(&root, &token);
    }
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

/// The answer; whether only its head is wanted, and which token of which root it is given for.
fn answer(
    program: &'static Program,
    head: &mut bool,
    used: &mut Option<(Root, String)>,
) -> Result<Response> {
    let root = Root::find().map_err(|e| conceal(program.name, &e))?;
    let who = auth::from_cgi(&root).map_err(|e| match audit::is_refusal(&e) {
        true => {
            audit::tell_refused(&root, program.name, &e);
            e
        }
        false => conceal(program.name, &e),
    })?;
    *used = who.token.clone().map(|token| (root.clone(), token));
    let request = match Request::from_cgi() {
        Err(e) if e.kind == Kind::MethodNotAllowed => {
            return Ok(Response::error(&e).header("Allow", "GET, HEAD, POST, PATCH, DELETE"));
        }
        other => other?,
    };
    *head = request.head;
    let admitted = match dispatch::admit(program, &root, &request, &who) {
        Ok(admitted) => admitted,
        Err(Refusal::Request(e)) if e.kind == Kind::MethodNotAllowed => {
            let allow: Vec<&str> =
                route::methods(program.routes, &request.path).iter().map(|m| m.name()).collect();
            return Ok(Response::error(&e).header("Allow", allow.join(", ")));
        }
        Err(Refusal::Request(e)) => return Err(e),
        Err(Refusal::Root(e)) => return Err(conceal(program.name, &e)),
    };
    let waits = ["wait", "follow"].iter().any(|word| request.param(word).is_some())
        || request.wants_event_stream()
        || admitted.stays();
    // Kept to the end of the process, behind the answer: what is followed is told there.
    let place = who.counted().filter(|_| waits || request.body.is_long());
    let place = place.map(|user| places::take(&root, user)).transpose()?;
    std::mem::forget(place);
    if waits {
        let (root, who, found) = (root.clone(), who.clone(), admitted.found());
        watch::wait_while(move || is_admitted(&root, &who, found).is_ok());
    }
    let response = admitted.answer()?;
    if waits && !watch::may_wait() {
        is_admitted(&root, &who, admitted.found())
            .inspect_err(|error| audit::tell_refused(&root, program.name, error))?;
    }
    Ok(response)
}

/// Refuses whoever has lost the right to what they wait for: a token was revoked or has expired, an
/// attempt has ended, the root was closed. Where that cannot be told they wait on.
fn is_admitted(root: &Root, was: &Who, (need, whose): (Need, Whose)) -> Result<()> {
    let may = |who: Who| match who.user == was.user {
        true => auth::allow_to(&who, need, whose),
        false => auth::allow_to(&who, need, Whose::Others), // the token is another user's now
    };
    match auth::from_cgi(root).and_then(may) {
        Err(e) if audit::is_refusal(&e) => Err(e),
        _ => Ok(()),
    }
}
