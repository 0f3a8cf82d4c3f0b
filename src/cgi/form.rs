//! Reads multipart/form-data (RFC 7578) as it comes: of a form of any size one buffer is held.

use memchr::memmem::Finder;

use super::parameter::parameter;
use crate::error::{Error, Result};

/// Most headers of one part, and most bytes of them.
const HEADERS: usize = 16;
const LARGEST_HEAD: usize = 16 << 10;

/// Longest boundary. RFC 2046 allows 70.
const LONGEST_BOUNDARY: usize = 200;

/// What is held of a form: as much as a pipe holds.
const BUFFER: usize = 64 << 10;

const _: () = assert!(BUFFER > 2 * (LARGEST_HEAD + LONGEST_BOUNDARY));

/// Where a form comes from.
pub(super) trait Source {
    /// Puts what comes next at the front of the buffer, which is not empty; 0 at the end.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize>;
}

/// How a part of a form begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// The field's name; empty where it has none.
    pub name: String,
    /// The file's name; empty where it has none.
    pub file_name: String,
}

/// A form that is being read: its parts in order, and what each of them holds in pieces.
pub(super) struct Form<S> {
    source: S,
    /// What stands before each part but the first, whose line may be the first of all.
    delimiter: Finder<'static>,
    buffer: Vec<u8>,
    /// What has come and was not given away lies between these.
    start: usize,
    end: usize,
    place: Place,
}

/// Where in the form its reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the first part: what stands there is no part, and left out.
    Before,
    /// In a part.
    Within,
    /// Behind a delimiter.
    Between,
    /// Behind the last one.
    Over,
}

impl<S: Source> Form<S> {
    /// A body of this Content-Type. Reads nothing. An error says why it is no form.
    pub(super) fn new(content_type: &str, source: S) -> Result<Form<S>> {
        let boundary = parameter(content_type, "boundary").ok_or_else(|| wrong("no boundary"))?;
        if boundary.len() > LONGEST_BOUNDARY {
            return Err(wrong(&format!("a boundary of more than {LONGEST_BOUNDARY} bytes")));
        }
        let mut buffer = vec![0; BUFFER];
        // As if an empty line stood before everything: so the first delimiter is like the others.
        buffer[..2].copy_from_slice(b"\r\n");
        let delimiter = Finder::new(&format!("\r\n--{boundary}")).into_owned();
        Ok(Form { source, delimiter, buffer, start: 0, end: 2, place: Place::Before })
    }

    /// How the next part begins; what is left of the one before is passed over. `None` behind the
    /// last one: then all has been read, whatever stands there.
    pub(super) fn next(&mut self) -> Result<Option<Part>> {
        while self.chunk()?.is_some() {}
        if self.place != Place::Between || self.ends_here()? {
            return Ok(None);
        }
        let part = self.head()?;
        self.place = Place::Within;
        Ok(Some(part))
    }

    /// More of what the present part holds; `None` at its end.
    pub(super) fn chunk(&mut self) -> Result<Option<&[u8]>> {
        if !matches!(self.place, Place::Before | Place::Within) {
            return Ok(None);
        }
        let given = loop {
            let held = &self.buffer[self.start..self.end];
            match self.delimiter.find(held) {
                Some(0) => {
                    self.start += self.delimiter.needle().len();
                    self.place = Place::Between;
                    return Ok(None);
                }
                Some(at) => break at,
                None => {
                    let clear = held.len() - begun(held, self.delimiter.needle());
                    if clear > 0 {
                        break clear;
                    }
                }
            }
            if !self.fill()? {
                return Err(wrong(match self.place {
                    Place::Before => "no boundary in it",
                    _ => "it ends within a part",
                }));
            }
        };
        let from = self.start;
        self.start += given;
        Ok(Some(&self.buffer[from..self.start]))
    }

    /// Reads the rest of a delimiter's line; whether it says that nothing follows. Then the rest of
    /// the body is read, too: whoever sends it waits for that.
    fn ends_here(&mut self) -> Result<bool> {
        loop {
            let held = &self.buffer[self.start..self.end];
            if held.starts_with(b"--") {
                self.place = Place::Over;
                self.start = self.end;
                while self.fill()? {
                    self.start = self.end;
                }
                return Ok(true);
            }
            let blanks = held.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
            let rest = &held[blanks..];
            if rest.starts_with(b"\r\n") {
                self.start += blanks + 2;
                return Ok(false);
            }
            let may_be = rest.is_empty() || rest == b"\r" || blanks == 0 && rest == b"-";
            if !may_be || blanks > LONGEST_BOUNDARY {
                return Err(wrong("a line that begins with the boundary, and is longer"));
            }
            if !self.fill()? {
                return Err(wrong("it ends within a boundary"));
            }
        }
    }

    /// Reads the headers of a part, and the empty line behind them.
    fn head(&mut self) -> Result<Part> {
        loop {
            let held = &self.buffer[self.start..self.end];
            let mut headers = [httparse::EMPTY_HEADER; HEADERS];
            match httparse::parse_headers(&held[..held.len().min(LARGEST_HEAD)], &mut headers) {
                Ok(httparse::Status::Complete((length, headers))) => {
                    let part = named(headers)?;
                    self.start += length;
                    return Ok(part);
                }
                Ok(httparse::Status::Partial) if held.len() < LARGEST_HEAD => {}
                Ok(httparse::Status::Partial) => {
                    return Err(wrong(&format!("a part's headers have over {LARGEST_HEAD} bytes")));
                }
                Err(httparse::Error::TooManyHeaders) => {
                    return Err(wrong(&format!("a part has more than {HEADERS} headers")));
                }
                Err(error) => return Err(wrong(&format!("a part's headers: {error}"))),
            }
            if !self.fill()? {
                return Err(wrong("a part without an empty line"));
            }
        }
    }

    /// Reads more; `false` if there is nothing more. There is room, for what is held between two
    /// calls is a part of a delimiter or of a head.
    fn fill(&mut self) -> Result<bool> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let read = self.source.read(&mut self.buffer[self.end..])?;
        self.end += read;
        Ok(read > 0)
    }
}

/// How many bytes at the end may be the beginning of a delimiter.
fn begun(held: &[u8], delimiter: &[u8]) -> usize {
    let most = held.len().min(delimiter.len() - 1);
    let ends = (1..=most).rev();
    ends.into_iter().find(|n| delimiter.starts_with(&held[held.len() - n..])).unwrap_or(0)
}

fn named(headers: &[httparse::Header]) -> Result<Part> {
    let disposition = headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-disposition"))
        .map_or(&b""[..], |header| header.value);
    let disposition = str::from_utf8(disposition).map_err(|_| wrong("a name is not UTF-8"))?;
    let named = |name: &str| parameter(disposition, name).unwrap_or_default();
    Ok(Part { name: named("name"), file_name: named("filename") })
}

fn wrong(why: &str) -> Error {
    Error::bad(format!("the form cannot be read: {why}"))
}

#[cfg(test)]
mod tests;
