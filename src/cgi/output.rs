//! The answer of a command: printed, and told by its exit code.

use std::io::{self, Write};

use super::program::Program;
use super::response::{Content, Response, copy};
use super::view::View;
use crate::edge;
use crate::error::{Result, exit};

/// Prints an answer as a command does: the body, or its table, on standard output; returns the exit code.
pub fn print(
    program: &Program,
    response: Response,
    brief: bool,
    view: Option<&View>,
) -> Result<i32> {
    let mut out = io::stdout().lock();
    let code = response.exit_code;
    match (response.brief, response.content) {
        (Some(text), _) if brief => return Ok(told(program.name, writeln!(out, "{text}"), code)),
        (_, Content::Bytes(bytes)) => {
            let table = view.and_then(|view| view.table(&serde_json::from_slice(&bytes).ok()?));
            let bytes = table.map_or(bytes, String::into_bytes);
            let written = out.write_all(&bytes).and_then(|()| out.flush());
            return Ok(told(program.name, written, code));
        }
        (_, Content::Reader(mut reader, length)) => {
            return Ok(match copy(&mut reader, length, &mut out) {
                Ok(written) => told(program.name, written, code),
                Err(error) => edge::complain(program.name, &error.into()),
            });
        }
        (_, Content::Stream(stream)) => {
            if let Err(error) = stream(&mut out) {
                return Ok(edge::complain(program.name, &error.into()));
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
