//! `jobs new [OPTION...] -- CMD ARGS` for a root that is asked by HTTP.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::rc::Rc;
use std::thread;
use std::time::Instant;

use serde_json::Value;

use super::options::{request, standard_input};
use crate::board::files;
use crate::board::uploads::Upload;
use crate::cgi;
use crate::cgi::forward;
use crate::cgi::output::{self, Shown};
use crate::cgi::remote::{PATIENCE, PAUSE, Remote, patiently};
use crate::cgi::{Given, Method, Request};
use crate::client::form::Form;
use crate::client::said;
use crate::client::server::Body;
use crate::error::{At, Error, Kind, Result};
use crate::scheduler::interrupt;

/// Largest input that is passed on; that root may take less.
const LARGEST_INPUT: u64 = 64 << 20;

/// Longest wait that is asked for at a time.
const LONG: &str = "86400";

/// Submits it there; with `--wait` prints its log, and returns its exit code.
pub(super) fn new(remote: &Rc<Remote>, words: &Given) -> Result<i32> {
    let mut request = request(words)?;
    if words.flag("stdin") {
        request.insert("stdin".into(), standard_input(LARGEST_INPUT)?.into());
    }
    // Whoever does not hear the answer can ask again, and gets no second job.
    let id = match request.get("request_id").and_then(Value::as_str) {
        Some(given) => given.to_string(),
        None => files::random_name()?,
    };
    request.insert("request_id".into(), id.clone().into());
    let files = uploads(&words.values("file"))?;
    let answer =
        send(remote, &Value::Object(request), &files).map_err(|error| match error.kind {
            // It may be a job there all the same.
            Kind::GatewayTimeout | Kind::BadGateway | Kind::Internal | Kind::TooLarge => Error {
                message: format!(
                    "{}; the same with --request-id {id} makes no second job",
                    error.message
                ),
                ..error
            },
            _ => error,
        })?;
    let job = answer.get("job").and_then(Value::as_u64);
    let job = job.ok_or_else(|| {
        Error::new(Kind::BadGateway, format!("{} does not say which job it is", remote.url()))
    })?;
    let waits = words.flag("wait");
    if let Some(why) = answer.get("warning").and_then(Value::as_str) {
        let why = said::bounded(why);
        eprintln!("scheduler: job {job}: {why}: it waits until one has");
    }
    if waits {
        if words.quiet() {
            // Where nobody reads the number, the job is waited for all the same.
            output::told("scheduler", writeln!(io::stdout(), "{job}"), 0);
        }
        let named = |error: Error| Error { message: format!("job {job}: {error}"), ..error };
        return wait(remote, job).map_err(named);
    }
    let text = if words.quiet() { job.to_string() } else { answer.to_string() };
    Ok(output::told("scheduler", writeln!(io::stdout(), "{text}"), 0))
}

/// Sends a request, and the files that go with it, which are read meanwhile.
fn send(remote: &Remote, request: &Value, uploads: &[Upload]) -> Result<Value> {
    let path = ["jobs", "new"];
    if uploads.is_empty() {
        let bytes = request.to_string();
        let body = Body::Bytes(bytes.as_bytes());
        return remote
            .send("POST", "scheduler", &path, &[], (Some("application/json"), body))?
            .json();
    }
    let mut form = Form::new(request, uploads)?;
    let (content_type, length) = (form.content_type().to_string(), form.length());
    let sent = (Some(content_type.as_str()), Body::Reader(&mut form, length));
    remote.send("POST", "scheduler", &path, &[], sent)?.json()
}

/// The files as they are now. Only what has a length can be sent.
fn uploads(paths: &[&str]) -> Result<Vec<Upload>> {
    let upload = |path: &&str| {
        let name = Path::new(path).file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| Error::bad(format!("--file: {path:?} names no file")))?;
        let meta = fs::metadata(path).at(path)?;
        // Files of the kernel's have some bytes, and say that they have none.
        let has_more = |path| File::open(path).and_then(|mut file| file.read(&mut [0]));
        if !meta.is_file() || (meta.len() == 0 && has_more(path).at(path)? > 0) {
            return Err(Error::bad(format!("--file: {path:?} is no file that has a length")));
        }
        Ok(Upload { name: name.into(), path: path.into(), size: meta.len() })
    };
    paths.iter().map(upload).collect()
}

/// Prints a job's log until it has ended, and returns its exit code, unless the log could not be told whole.
fn wait(remote: &Rc<Remote>, job: u64) -> Result<i32> {
    interrupt::tell_on_interrupt(job, Some(remote.url()))?;
    let number = job.to_string();
    let asked = |last: &str, key: &str, value: &str| {
        let path = vec!["jobs".into(), number.clone(), last.into()];
        Request::from_words(
            Method::Get,
            path,
            vec![(key.into(), value.into())],
            cgi::body::Body::None,
        )
    };
    let log = forward::answer(remote, "scheduler", &asked("log", "follow", "1"))?;
    let told = output::print("scheduler", log, &Shown::Whole)?;
    let request = asked("status", "wait", LONG);
    loop {
        let begun = Instant::now();
        let ask = || forward::answer(remote, "scheduler", &request);
        let status = patiently(PATIENCE, ask)?;
        let code = status.exit_code;
        let status = status.json()?;
        if let Some(error) = status["error"].as_str() {
            return Err(Error::new(Kind::Internal, said::bounded(error))); // its card cannot be read
        }
        if status["state"] != "stopped" {
            thread::sleep(PAUSE.saturating_sub(begun.elapsed()));
            continue;
        }
        if let Some(reason) = status["reason"].as_str() {
            eprintln!("scheduler: job {job}: {}", said::bounded(reason));
        }
        // A log that is not all there must not be taken for one that is.
        return Ok(if told == 0 { code } else { told });
    }
}
