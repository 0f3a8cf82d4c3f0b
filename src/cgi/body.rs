//! The body of a request: how much may come, and what it may be.
//!
//! busybox httpd hands a body on only for POST, and of other methods just what its header buffer
//! held; so a body travels by POST alone, and one that arrives short is refused, never guessed.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;

use serde_json::Value;

use super::form;
use super::request::{Method, var};
use crate::error::{At, Error, Kind, Result};

const OVERRIDE_HINT: &str =
    "a body needs POST: send it by POST with the header X-HTTP-Method-Override";

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
}

/// A file that came with a request, in memory until it is stored.
#[derive(Debug)]
pub struct Upload {
    /// The file's name, safe to use as one.
    pub name: String,
    /// Its content.
    pub content: Vec<u8>,
}

/// A request's JSON, and the files that came with it.
#[derive(Debug)]
pub struct Parts {
    /// The JSON.
    pub json: Value,
    /// Files, their names unique.
    pub uploads: Vec<Upload>,
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

    /// Whether there is nothing to read.
    pub fn is_none(&self) -> bool {
        matches!(self, Body::None)
    }

    /// The body as JSON. A form type is accepted, since `curl -d` sends it.
    pub fn json(&self, limit: u64) -> Result<Value> {
        let parts = self.parts(limit)?;
        if !parts.uploads.is_empty() {
            return Err(Error::new(Kind::UnsupportedMedia, "this request takes no files"));
        }
        Ok(parts.json)
    }

    /// The body as JSON, possibly with files: multipart/form-data with one part `job` (JSON) and
    /// any number of parts `file`.
    pub fn parts(&self, limit: u64) -> Result<Parts> {
        let content_type = match self {
            Body::Cgi { content_type, .. } => content_type.as_str(),
            _ => "",
        };
        let essence = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
        match essence.as_str() {
            "multipart/form-data" => multipart(content_type, &self.bytes(limit)?),
            "" | "application/json" | "application/x-www-form-urlencoded" => {
                let bytes = self.bytes(limit)?;
                let json = serde_json::from_slice(&bytes)
                    .map_err(|e| Error::bad(format!("the body is not JSON: {e}")))?;
                Ok(Parts { json, uploads: Vec::new() })
            }
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
                let mut bytes = Vec::with_capacity(*length as usize);
                io::stdin()
                    .lock()
                    .take(*length)
                    .read_to_end(&mut bytes)
                    .at("the request's body")?;
                if bytes.len() as u64 != *length {
                    return Err(Error::new(
                        Kind::LengthRequired,
                        format!(
                            "the body ended after {} of {length} bytes; {OVERRIDE_HINT}",
                            bytes.len()
                        ),
                    ));
                }
                Ok(bytes)
            }
            Body::Stdin => read_limited(io::stdin().lock(), limit, "standard input"),
            Body::File(path) => {
                let file = File::open(path).at(path)?;
                read_limited(file, limit, &path.display().to_string())
            }
            Body::Bytes(bytes) if bytes.len() as u64 > limit => Err(too_large(limit)),
            Body::Bytes(bytes) => Ok(bytes.clone()),
        }
    }
}

fn too_large(limit: u64) -> Error {
    Error::new(Kind::TooLarge, format!("the body is larger than {limit} bytes (setting max_body)"))
}

fn read_limited(from: impl Read, limit: u64, name: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(limit.saturating_add(1)).read_to_end(&mut bytes).at(name)?;
    if bytes.len() as u64 > limit { Err(too_large(limit)) } else { Ok(bytes) }
}

fn multipart(content_type: &str, bytes: &[u8]) -> Result<Parts> {
    let mut json = None;
    let mut uploads: Vec<Upload> = Vec::new();
    for part in form::parts(content_type, bytes)? {
        match part.name.as_str() {
            "job" if json.is_none() => {
                json = Some(serde_json::from_slice(part.content).map_err(|e| {
                    Error::bad(format!("the form's part \"job\" is not JSON: {e}"))
                })?);
            }
            "file" => {
                let name = upload_name(&part.file_name)?;
                if uploads.iter().any(|other| other.name == name) {
                    return Err(Error::bad(format!("two files are named {name:?}")));
                }
                uploads.push(Upload { name, content: part.content.to_vec() });
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

/// The name under which an upload is stored: the client's, if it is a plain file name.
fn upload_name(name: &str) -> Result<String> {
    let plain = !name.is_empty()
        && name.len() <= 255
        && !name.starts_with(['.', '-'])
        && !name.chars().any(|c| c == '/' || c.is_control());
    if plain {
        return Ok(name.to_string());
    }
    let shown: String = name.chars().take(80).collect();
    Err(Error::bad(format!(
        "{shown:?} cannot be a file's name here: no slash, no control character, no leading dot or dash"
    )))
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
