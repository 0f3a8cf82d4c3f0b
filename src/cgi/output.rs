//! The answer of a command: what of it is printed, as JSON, as a table or in brief, and its exit code.

use std::io::{self, ErrorKind, Write};

use serde_json::Value;

use super::response::{Content, JSON_LINES, Response, copy, is_value, unwritable};
use super::view::{Brief, View};
use crate::edge;
use crate::error::{Result, exit};

/// How an answer is shown. What is no value is shown as it is.
pub enum Shown {
    /// As it travels.
    Whole,
    /// To a person.
    Table(&'static View),
    /// The number, id or name alone.
    Brief(&'static Brief),
}

impl Shown {
    /// The text of a value; `None`: it is shown as it travels.
    fn text(&self, value: &Value) -> Option<String> {
        match self {
            Shown::Whole => None,
            Shown::Table(view) => view.table(value),
            Shown::Brief(brief) => Some(brief.lines(value)),
        }
    }

    /// The same of bytes, if they are a value.
    fn text_of(&self, bytes: &[u8]) -> Option<String> {
        if matches!(self, Shown::Whole) {
            return None;
        }
        // Of several lines the first counts: a job that was started, for one.
        let first = serde_json::Deserializer::from_slice(bytes).into_iter::<Value>().next();
        self.text(&first?.ok()?)
    }
}

/// Prints an answer on standard output; returns the exit code.
pub fn print(name: &str, response: Response, shown: &Shown) -> Result<i32> {
    let mut out = io::stdout().lock();
    let code = response.exit_code;
    let bytes = match response.content {
        Content::Value(value) => match shown {
            Shown::Whole => value.line().map_err(unwritable)?,
            _ => match shown.text(&value.value().map_err(unwritable)?) {
                Some(text) => text.into_bytes(),
                None => value.line().map_err(unwritable)?,
            },
        },
        Content::Bytes(bytes) => {
            let is_value = is_value(response.content_type);
            let text = is_value.then(|| shown.text_of(&bytes)).flatten();
            text.map_or(bytes, String::into_bytes)
        }
        Content::Stream(stream)
            if matches!(shown, Shown::Brief(_)) && response.content_type == JSON_LINES =>
        {
            let mut bytes = Vec::new();
            stream(&mut bytes)?;
            shown.text_of(&bytes).map_or(bytes, String::into_bytes)
        }
        Content::Reader(mut reader, length) => {
            return Ok(match copy(&mut reader, length, &mut out) {
                Ok(written) => told(name, written, code),
                Err(error) => edge::complain(name, &error.into()),
            });
        }
        Content::Stream(stream) => {
            let mut out = Told::new(&mut out);
            let streamed = stream(&mut out);
            // What makes it need not say so, and takes any failure for a reader that has left.
            return Ok(match streamed {
                Err(error) if out.failed.is_none() => edge::complain(name, &error.into()),
                _ => out.end(name, code),
            });
        }
    };
    let written = out.write_all(&bytes).and_then(|()| out.flush());
    Ok(told(name, written, code))
}

/// Passes on what is written, and keeps why that failed at first. What copies a log takes any failure for
/// a reader that has left: whether it was one is asked of this.
pub struct Told<'o> {
    out: &'o mut dyn Write,
    failed: Option<io::Error>,
}

impl<'o> Told<'o> {
    /// Writes there.
    pub fn new(out: &'o mut dyn Write) -> Told<'o> {
        Told { out, failed: None }
    }

    /// The exit code of the command, as of [`told`]: this one, unless something could not be written.
    pub fn end(self, name: &str, code: i32) -> i32 {
        told(name, self.failed.map_or(Ok(()), Err), code)
    }

    /// The error, which is kept where it is the first and nothing that is tried again.
    fn keep(&mut self, error: io::Error) -> io::Error {
        let kind = error.kind();
        if kind == ErrorKind::Interrupted {
            return error;
        }
        self.failed.get_or_insert(error);
        kind.into()
    }
}

impl Write for Told<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes).map_err(|error| self.keep(error))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush().map_err(|error| self.keep(error))
    }
}

/// The exit code of a command that has told its answer. A reader that left is fine; an answer that
/// could not be written is not: whoever reads the file that it should be in must not take it for
/// an empty one.
pub fn told(name: &str, written: io::Result<()>, code: i32) -> i32 {
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            let why = crate::error::reason(&error);
            eprintln!(
                "{name}: cannot write the answer: {why} (it may have been recorded; repeat with the same id)"
            );
            exit::REFUSED
        }
        _ => code,
    }
}
