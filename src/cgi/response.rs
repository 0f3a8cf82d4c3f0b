//! What is answered, and how it is written.
//!
//! busybox httpd recognises `Status:` only at the very start of the first piece that it reads, so
//! the header block leaves in one write. Content-Length and Connection are ours to send.

use std::io::{self, Read, Write};

use serde::Serialize;

use super::alarm;
use super::environment::var;
use crate::error::{At, Error, Kind, Result};
use crate::wire::codes::{self, Code};
use crate::wire::failure::Failure;

/// A body of so many bytes leaves with the headers, in one write.
const SMALL: usize = 64 << 10;

/// The type of a value.
pub(super) const JSON: &str = "application/json";

/// The type of several, a line each.
pub(super) const JSON_LINES: &str = "application/x-ndjson";

/// Whether a type is that of one of these.
pub(super) fn is_value(content_type: &str) -> bool {
    [JSON, JSON_LINES].contains(&content_type)
}

/// The header that says with which code a command would end, where that is not 0.
pub(super) const EXIT_CODE: &str = "X-Corkboard-Exit-Code";

/// What is held of a file that is being sent.
const PIECE: usize = 64 << 10;

/// Writes a body piece by piece; each call of the writer reaches the client at once.
pub type Stream = Box<dyn FnOnce(&mut dyn Write) -> Result<()>>;

/// What is answered, before it is known how it is shown.
pub trait Value {
    /// As it travels: one line of JSON.
    fn line(&self) -> serde_json::Result<Vec<u8>>;
    /// As it is looked into.
    fn value(&self) -> serde_json::Result<serde_json::Value>;
}

impl<T: Serialize> Value for T {
    fn line(&self) -> serde_json::Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    fn value(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }
}

/// The body of an answer.
pub enum Content {
    /// A value: JSON for a program, a table for a person.
    Value(Box<dyn Value>),
    /// Known as a whole.
    Bytes(Vec<u8>),
    /// Made while it is sent.
    Stream(Stream),
    /// Read while it is sent: so many bytes.
    Reader(Box<dyn Read>, u64),
}

/// An answer.
pub struct Response {
    /// Status code and phrase.
    pub status: Code,
    /// Content-Type.
    pub content_type: &'static str,
    /// More headers; names are fixed, values printable ASCII.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub content: Content,
    /// The exit code as a command; 0 unless a handler says otherwise.
    pub exit_code: i32,
}

impl Response {
    /// 200 with a value.
    pub fn of(value: impl Serialize + 'static) -> Response {
        Response::new(JSON, Content::Value(Box::new(value)))
    }

    /// 200 with plain text.
    pub fn text(text: impl Into<Vec<u8>>) -> Response {
        Response::bytes("text/plain; charset=utf-8", text.into())
    }

    /// 200 with bytes of a type.
    pub fn bytes(content_type: &'static str, bytes: Vec<u8>) -> Response {
        Response::new(content_type, Content::Bytes(bytes))
    }

    /// 200 with a body that is made while it is sent.
    pub fn stream(content_type: &'static str, stream: Stream) -> Response {
        Response::new(content_type, Content::Stream(stream))
    }

    /// 200 with a file of this length, which is read while it is sent.
    pub fn reader(file: Box<dyn Read>, length: u64) -> Response {
        Response::new("application/octet-stream", Content::Reader(file, length))
    }

    /// 200 with content of a type.
    pub(super) fn new(content_type: &'static str, content: Content) -> Response {
        Response { status: codes::OK, content_type, headers: Vec::new(), content, exit_code: 0 }
    }

    /// Another status.
    #[must_use]
    pub fn status(mut self, code: u16, phrase: &'static str) -> Response {
        self.status = (code, phrase);
        self
    }

    /// One more header. A value with anything but printable ASCII is left out.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Response {
        let value = value.into();
        if value.bytes().all(|b| (0x20..0x7f).contains(&b)) {
            self.headers.push((name, value));
        }
        self
    }

    /// Where the thing that was made is, if one was.
    pub(super) fn made(&self) -> Option<&str> {
        let made = self.headers.iter().find(|(name, _)| *name == "Location");
        made.map(|(_, place)| place.as_str())
    }

    /// Where the thing that was made is: a path below this program, as the client reaches it.
    #[must_use]
    pub fn location(self, program: &str, path: &str) -> Response {
        // A server may have the programs elsewhere than at our usual address.
        let script = var("SCRIPT_NAME").filter(|script| script.starts_with('/'));
        let script = script.unwrap_or_else(|| format!("/cgi-bin/{program}"));
        self.header("Location", format!("{script}/{path}"))
    }

    /// The exit code as a command.
    #[must_use]
    pub fn exit_code(mut self, code: i32) -> Response {
        self.exit_code = code;
        self
    }

    /// The answer to an error.
    pub fn error(error: &Error) -> Response {
        let (code, phrase) = codes::of(error.kind);
        let response = Response::of(Failure::of(error)).status(code, phrase);
        match error.kind {
            Kind::Unauthorized => response.header("WWW-Authenticate", "Bearer"),
            Kind::Unavailable => response.header("Retry-After", "1"),
            _ => response,
        }
    }

    /// The value that another root answered.
    pub fn json(self) -> Result<serde_json::Value> {
        let read = match self.content {
            Content::Value(value) => value.value(),
            Content::Bytes(bytes) => serde_json::from_slice(&bytes),
            Content::Reader(reader, _) => serde_json::from_reader(reader),
            Content::Stream(_) => return Err(Error::new(Kind::BadGateway, "no JSON was answered")),
        };
        read.map_err(|e| Error::new(Kind::BadGateway, format!("the answer is not JSON: {e}")))
    }

    /// Writes it as a CGI answer. An error of the writer means that the client has left: there is
    /// nobody to tell.
    pub fn write_cgi(self, out: &mut dyn Write, head: bool) -> Result<()> {
        let mut block = format!(
            "Status: {} {}\r\nContent-Type: {}\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nContent-Security-Policy: default-src 'none'\r\nConnection: close\r\n",
            self.status.0, self.status.1, self.content_type
        );
        for (name, value) in &self.headers {
            block.push_str(&format!("{name}: {value}\r\n"));
        }
        if self.exit_code != 0 {
            block.push_str(&format!("{EXIT_CODE}: {}\r\n", self.exit_code));
        }
        match self.content {
            Content::Value(value) => {
                write_whole(block, &value.line().map_err(unwritable)?, head, out)
            }
            Content::Bytes(bytes) => write_whole(block, &bytes, head, out),
            Content::Reader(mut reader, length) => {
                block.push_str(&format!("Content-Length: {length}\r\n\r\n"));
                let written = out.write_all(block.as_bytes()).and_then(|()| out.flush());
                if head || written.is_err() {
                    return ignore_departed(written);
                }
                ignore_departed(copy(&mut reader, length, out)?)
            }
            Content::Stream(stream) => {
                block.push_str("\r\n");
                ignore_departed(out.write_all(block.as_bytes()).and_then(|()| out.flush()))?;
                if head { Ok(()) } else { stream(out) }
            }
        }
    }
}

/// Writes a body that is known as a whole, behind the other headers.
fn write_whole(mut block: String, bytes: &[u8], head: bool, out: &mut dyn Write) -> Result<()> {
    block.push_str(&format!("Content-Length: {}\r\n\r\n", bytes.len()));
    let mut block = block.into_bytes();
    let bytes = if head { &[][..] } else { bytes };
    if bytes.len() <= SMALL {
        block.extend_from_slice(bytes);
    }
    let mut written = out.write_all(&block);
    if bytes.len() > SMALL {
        written = written.and_then(|()| out.write_all(bytes));
    }
    ignore_departed(written.and_then(|()| out.flush()))
}

/// A value of ours that is no JSON: a defect.
pub(super) fn unwritable(error: serde_json::Error) -> Error {
    Error::new(Kind::Internal, format!("cannot write JSON: {error}"))
}

/// Copies so many bytes to `out`; what came of writing them. An error where there are fewer: whoever
/// reads them sees by the length that it was told that they are not all.
pub(super) fn copy(
    reader: &mut dyn Read,
    length: u64,
    out: &mut dyn Write,
) -> Result<io::Result<()>> {
    let mut buffer = vec![0; PIECE];
    let mut left = length;
    while left > 0 {
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = match reader.read(&mut buffer[..most]) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            read => read.at("the file")?,
        };
        if read == 0 {
            let why = format!("the file ended after {} of {length} bytes", length - left);
            return Err(Error::new(Kind::Internal, why));
        }
        if let Err(error) = out.write_all(&buffer[..read]) {
            return Ok(Err(error));
        }
        left -= read as u64;
        alarm::put_off();
    }
    Ok(out.flush())
}

fn ignore_departed(result: io::Result<()>) -> Result<()> {
    let _ = result; // a client that has left is no error of the request
    Ok(())
}
