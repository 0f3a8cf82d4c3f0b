//! The body of a request: how much may come, and what it may be.
//!
//! busybox httpd hands a body on only for POST, and of other methods just what its header buffer
//! held; so a body travels by POST alone, and one that arrives short is refused, never guessed.

use std::cell::RefCell;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;

use serde_json::Value;

use super::arrival::{Arrival, LONG, OVERRIDE_HINT};
use super::environment::{Method, var};
use super::form::{Form, Source};
use crate::board::incoming::{Incoming, MOST_FILES, Place};
use crate::board::root::Root;
use crate::error::{At, Error, Kind, Result};
use crate::held;
use crate::model::progress;

/// What stands around the files of a form, at most.
const AROUND_FILES: u64 = MOST_FILES as u64 * 512;

/// Where a body comes from.
#[derive(Debug)]
pub enum Body {
    /// There is none.
    None,
    /// Standard input, exactly so many bytes, of this Content-Type.
    Cgi {
        /// Content-Length.
        length: u64,
        /// Content-Type as sent.
        content_type: String,
    },
    /// Standard input of a command, to its end.
    Stdin,
    /// A file named on the command line.
    File(PathBuf),
    /// Given as words.
    Bytes(Vec<u8>),
    /// What comes otherwise.
    Stream(Stream),
}

/// A body that comes otherwise, read once: so many bytes of this Content-Type.
pub struct Stream {
    length: u64,
    content_type: String,
    from: RefCell<Box<dyn Read>>,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({}, {})", self.content_type, self.length)
    }
}

impl Source for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            match self.from.borrow_mut().read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                read => return read.at("the request's body"),
            }
        }
    }
}

/// A request's JSON, and the files that came with it.
#[derive(Debug)]
pub struct Parts {
    /// The JSON.
    pub json: Value,
    /// Files; `None` where there are none.
    pub uploads: Option<Incoming>,
}

impl Body {
    /// The body that the CGI environment announces. Reads nothing.
    pub(super) fn from_cgi(method: Method) -> Result<Body> {
        let length = var("CONTENT_LENGTH").filter(|text| !text.is_empty());
        if method != Method::Post {
            // busybox passes the length of a body that it does not pass as HTTP_CONTENT_LENGTH.
            let announced = var("HTTP_CONTENT_LENGTH").or(length);
            if announced.is_some_and(|text| text != "0") {
                return Err(Error::new(Kind::LengthRequired, OVERRIDE_HINT));
            }
            return Ok(Body::None);
        }
        let Some(length) = length else { return Ok(Body::None) };
        let length = length.parse().map_err(|_| Error::bad("Content-Length is not a number"))?;
        if length == 0 {
            return Ok(Body::None);
        }
        Ok(Body::Cgi { length, content_type: var("CONTENT_TYPE").unwrap_or_default() })
    }

    /// One that comes otherwise than to a CGI program or a command.
    pub fn stream(content_type: String, length: u64, from: Box<dyn Read>) -> Body {
        Body::Stream(Stream { length, content_type, from: RefCell::new(from) })
    }

    /// Whether it takes more than an instant to read, as far as it says.
    pub(super) fn is_long(&self) -> bool {
        matches!(self, Body::Cgi { length, .. } if *length > LONG)
    }

    /// Whether there is nothing to read.
    pub fn is_none(&self) -> bool {
        matches!(self, Body::None)
    }

    /// The body as JSON. A form type is accepted, since `curl -d` sends it.
    pub fn json(&self, root: &Root) -> Result<Value> {
        if self.is_form() {
            return Ok(self.form(root, None)?.json);
        }
        self.check_type()?;
        let bytes = self.bytes(root.settings.max_body)?;
        serde_json::from_slice(&bytes).map_err(|e| Error::bad(format!("the body is not JSON: {e}")))
    }

    /// The body as JSON, possibly with files: multipart/form-data with one part `job` (JSON) and
    /// any number of parts `file`, which are in this place on the disk when this returns. What a
    /// form that is refused has brought is removed.
    pub fn parts(&self, root: &Root, place: Place) -> Result<Parts> {
        match self {
            _ if self.is_form() => self.form(root, Some(place)),
            _ => Ok(Parts { json: self.json(root)?, uploads: None }),
        }
    }

    /// The body as a job's word on its progress: JSON, or else text. Refused with 413 and 400 is what is
    /// longer, or nested deeper, than one may be.
    pub fn word(&self) -> Result<Value> {
        let of_type = self.content_type().map(essence).unwrap_or_default();
        // `curl -d` sends a form's type, whatever it sends.
        let (may_be_json, may_be_text) = match of_type.as_str() {
            "" | "application/x-www-form-urlencoded" => (true, true),
            "application/json" => (true, false),
            "text/plain" => (false, true),
            _ => {
                let why = "a word on progress must be application/json or text/plain";
                return Err(Error::new(Kind::UnsupportedMedia, why));
            }
        };
        let too_long = || {
            let why = format!("a word on progress has at most {} bytes", progress::LONGEST);
            Error::new(Kind::TooLarge, why)
        };
        let bytes = self.bytes(progress::LONGEST as u64).map_err(|error| match error.kind {
            Kind::TooLarge => too_long(),
            _ => error,
        })?;
        let said = match (serde_json::from_slice(&bytes), may_be_json) {
            (Ok(said), true) => said,
            (Err(e), true) if !may_be_text => {
                return Err(Error::bad(format!("the body is not JSON: {e}")));
            }
            _ => {
                let text = String::from_utf8(bytes)
                    .map_err(|_| Error::bad("a word on progress must be UTF-8"))?;
                Value::String(text.trim_end().to_string())
            }
        };
        if said.as_str().is_some_and(str::is_empty) {
            return Err(Error::bad("a word on progress must not be empty"));
        }
        if !progress::is_shallow(&said) {
            return Err(Error::bad("a word on progress must not be nested so deep"));
        }
        if progress::is_short(&said) { Ok(said) } else { Err(too_long()) }
    }

    /// The body as it comes: how long it is, and its bytes. For what may be of any length.
    pub fn reader(&self) -> Result<(u64, Box<dyn Read>)> {
        match self {
            Body::Cgi { length, .. } => Ok((*length, Box::new(Arrival::new(*length)))),
            Body::None => Ok((0, Box::new(io::empty()))),
            Body::Stdin | Body::File(_) | Body::Bytes(_) | Body::Stream(_) => {
                let bytes = self.bytes(u64::MAX)?;
                Ok((bytes.len() as u64, Box::new(io::Cursor::new(bytes))))
            }
        }
    }

    fn is_form(&self) -> bool {
        self.content_type().map(essence).is_some_and(|essence| essence == "multipart/form-data")
    }

    /// Its Content-Type, where one is sent.
    fn content_type(&self) -> Option<&str> {
        match self {
            Body::Cgi { content_type, .. } | Body::Stream(Stream { content_type, .. }) => {
                Some(content_type)
            }
            Body::None | Body::Stdin | Body::File(_) | Body::Bytes(_) => None,
        }
    }

    /// The parts of one that is a form.
    fn form(&self, root: &Root, place: Option<Place>) -> Result<Parts> {
        match self {
            Body::Cgi { length, content_type } => {
                form_parts(root, place, (content_type, *length), || Arrival::new(*length))
            }
            Body::Stream(stream) => {
                form_parts(root, place, (&stream.content_type, stream.length), || stream)
            }
            _ => Err(Error::bad("the body is no form")),
        }
    }

    /// Refuses with 415 a type that this request does not take.
    fn check_type(&self) -> Result<()> {
        let Some(content_type) = self.content_type() else { return Ok(()) };
        match essence(content_type).as_str() {
            "" | "application/json" | "application/x-www-form-urlencoded" => Ok(()),
            _ => Err(Error::new(
                Kind::UnsupportedMedia,
                "the body must be application/json, or multipart/form-data with a part named job",
            )),
        }
    }

    /// All bytes, at most `limit`.
    pub fn bytes(&self, limit: u64) -> Result<Vec<u8>> {
        match self {
            Body::None => Err(Error::new(
                Kind::LengthRequired,
                "this request needs a body, sent with its Content-Length",
            )),
            Body::Cgi { length, .. } => {
                if *length > limit {
                    return Err(too_large(limit));
                }
                Arrival::new(*length).all()
            }
            Body::Stdin => {
                held::apart(|| read_limited(io::stdin().lock(), limit, "standard input"))
            }
            Body::File(path) => {
                let name = path.display().to_string();
                held::apart(|| read_limited(File::open(path).at(path)?, limit, &name))
            }
            Body::Stream(stream) => {
                read_limited(&mut *stream.from.borrow_mut(), limit, "the request's body")
            }
            Body::Bytes(bytes) if bytes.len() as u64 > limit => Err(too_large(limit)),
            Body::Bytes(bytes) => Ok(bytes.clone()),
        }
    }
}

/// The type of a Content-Type, without its parameters.
fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
}

fn too_large(limit: u64) -> Error {
    Error::new(Kind::TooLarge, format!("the body is larger than {limit} bytes (setting max_body)"))
}

fn read_limited(from: impl Read, limit: u64, name: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(limit.saturating_add(1)).read_to_end(&mut bytes).at(name)?;
    if bytes.len() as u64 > limit { Err(too_large(limit)) } else { Ok(bytes) }
}

/// `place` is none for a request that takes no files.
fn form_parts<S: Source>(
    root: &Root,
    place: Option<Place>,
    (content_type, length): (&str, u64),
    from: impl FnOnce() -> S,
) -> Result<Parts> {
    let settings = &root.settings;
    // As much as a form can have that is within the limits of what is in it.
    let most = settings.max_body.saturating_add(settings.max_upload).saturating_add(AROUND_FILES);
    if length > most {
        let why = format!("the form is larger than {most} bytes (settings max_upload, max_body)");
        return Err(Error::new(Kind::TooLarge, why));
    }
    let mut form = Form::new(content_type, from())?;
    let mut json = None;
    let mut uploads: Option<Incoming> = None;
    while let Some(part) = form.next()? {
        match part.name.as_str() {
            "job" if json.is_none() => json = Some(form_json(&mut form, settings.max_body)?),
            "file" => {
                let place = place.ok_or_else(|| {
                    Error::new(Kind::UnsupportedMedia, "this request takes no files")
                })?;
                let incoming = match &mut uploads {
                    Some(incoming) => incoming,
                    none => none.insert(Incoming::new(root, place)?),
                };
                let mut file = incoming.begin(&part.file_name)?;
                while let Some(piece) = form.chunk()? {
                    file.write(piece)?;
                }
                file.end();
            }
            _ => {
                return Err(Error::bad(
                    "a form has one part named job (JSON) and parts named file",
                ));
            }
        }
    }
    let json = json.ok_or_else(|| Error::bad("the form has no part named job"))?;
    Ok(Parts { json, uploads })
}

fn form_json<S: Source>(form: &mut Form<S>, limit: u64) -> Result<Value> {
    let mut bytes = Vec::new();
    while let Some(piece) = form.chunk()? {
        if (bytes.len() + piece.len()) as u64 > limit {
            let why = format!("the form's part \"job\" has over {limit} bytes (setting max_body)");
            return Err(Error::new(Kind::TooLarge, why));
        }
        bytes.extend_from_slice(piece);
    }
    serde_json::from_slice(&bytes)
        .map_err(|e| Error::bad(format!("the form's part \"job\" is not JSON: {e}")))
}

/// The body that `-d` names: JSON itself, or `@FILE`, or `@-` for standard input.
pub fn from_option(data: &str) -> Result<Body> {
    match data.strip_prefix('@') {
        Some("-") => Ok(Body::Stdin),
        Some(path) => {
            fs::metadata(path).at(path)?;
            Ok(Body::File(path.into()))
        }
        None => Ok(Body::Bytes(data.as_bytes().to_vec())),
    }
}
