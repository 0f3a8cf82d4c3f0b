//! Reads multipart/form-data (RFC 7578) that is in memory as a whole.

use crate::error::{Error, Result};

/// Most headers of one part.
const HEADERS: usize = 16;

/// A part of a form.
#[derive(Debug, PartialEq)]
pub(super) struct Part<'b> {
    /// The field's name; empty where it has none.
    pub name: String,
    /// The file's name; empty where it has none.
    pub file_name: String,
    /// What it holds.
    pub content: &'b [u8],
}

/// The parts of a body of this Content-Type, in order. An error says why it is not a form.
pub(super) fn parts<'b>(content_type: &str, body: &'b [u8]) -> Result<Vec<Part<'b>>> {
    let boundary = parameter(content_type, "boundary").ok_or_else(|| wrong("no boundary"))?;
    let delimiter = format!("\r\n--{boundary}");
    // The first one may be the first line.
    let mut rest = match body.strip_prefix(&delimiter.as_bytes()[2..]) {
        Some(rest) => rest,
        None => split(body, delimiter.as_bytes()).ok_or_else(|| wrong("no boundary in it"))?.1,
    };
    let mut parts = Vec::new();
    while !rest.starts_with(b"--") {
        let (_, begun) = split(rest, b"\r\n").ok_or_else(|| wrong("it ends within a boundary"))?;
        let (part, next) =
            split(begun, delimiter.as_bytes()).ok_or_else(|| wrong("it ends within a part"))?;
        parts.push(read(part)?);
        rest = next;
    }
    Ok(parts)
}

fn wrong(why: &str) -> Error {
    Error::bad(format!("the form cannot be read: {why}"))
}

/// What is before and behind the first `needle`, which is not empty.
fn split<'b>(bytes: &'b [u8], needle: &[u8]) -> Option<(&'b [u8], &'b [u8])> {
    let mut from = 0;
    loop {
        from += bytes[from..].iter().position(|byte| Some(byte) == needle.first())?;
        if let Some(behind) = bytes[from..].strip_prefix(needle) {
            return Some((&bytes[..from], behind));
        }
        from += 1;
    }
}

/// One part: headers, an empty line, content.
fn read(part: &[u8]) -> Result<Part<'_>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let (length, headers) = match httparse::parse_headers(part, &mut headers) {
        Ok(httparse::Status::Complete(read)) => read,
        Ok(httparse::Status::Partial) => return Err(wrong("a part without an empty line")),
        Err(error) => return Err(wrong(&error.to_string())),
    };
    let disposition = headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-disposition"))
        .map_or(&b""[..], |header| header.value);
    let disposition = str::from_utf8(disposition).map_err(|_| wrong("a name is not UTF-8"))?;
    let named = |name: &str| parameter(disposition, name).unwrap_or_default();
    Ok(Part { name: named("name"), file_name: named("filename"), content: &part[length..] })
}

/// The parameter of a header such as `form-data; name="job"`.
fn parameter(header: &str, wanted: &str) -> Option<String> {
    let (_, mut rest) = header.split_once(';')?;
    loop {
        let (name, value) = rest.split_once('=')?;
        let name = name.rsplit(';').next().unwrap_or(name).trim();
        let (text, behind) = match value.trim_start().strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => {
                let end = value.find(';').unwrap_or(value.len());
                (value[..end].trim().to_string(), &value[end..])
            }
        };
        if name.eq_ignore_ascii_case(wanted) {
            return Some(text).filter(|text| !text.is_empty());
        }
        (_, rest) = behind.split_once(';')?;
    }
}

/// A text up to its closing quote, and what is behind that. Only a quote and a backslash can be
/// escaped: browsers send any other backslash as it is.
fn unquoted(quoted: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut characters = quoted.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((text, &quoted[at + 1..])),
            '\\' => {
                let escaped = characters.next_if(|(_, next)| matches!(next, '"' | '\\'));
                text.push(escaped.map_or('\\', |(_, next)| next));
            }
            other => text.push(other),
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TYPE: &str = "multipart/form-data; charset=x; boundary=\"b\"";

    fn one(head: &str) -> Part<'static> {
        let body = format!("--b\r\n{head}\r\n\r\nline\r\n--\r\n\r\n--b--\r\n");
        let body = Box::leak(body.into_boxed_str());
        parts(TYPE, body.as_bytes()).unwrap().remove(0)
    }

    #[test]
    fn names_are_read_however_they_are_written() {
        for (written, name, file_name) in [
            ("form-data; name=\"job\"", "job", ""),
            ("form-data; name=job ; filename = \"a; name=b\"", "job", "a; name=b"),
            ("form-data; filename=\"x.dat\"; NAME=\"file\"", "file", "x.dat"),
            (r#"form-data; name="f"; filename="a\"b\\c\d""#, "f", r#"a"b\c\d"#),
            ("form-data; filename*=utf-8''x; name=\"日本\"", "日本", ""),
            ("form-data; new; name=f", "f", ""),
            ("form-data", "", ""),
            ("form-data; name=\"open", "", ""),
        ] {
            let part = one(&format!("content-disposition: {written}\r\nX-Other: 1"));
            assert_eq!((&*part.name, &*part.file_name), (name, file_name), "{written}");
            assert_eq!(part.content, b"line\r\n--\r\n");
        }
        assert_eq!(one("X-Other: 1").name, "");
    }

    #[test]
    fn what_is_around_the_parts_is_left_out() {
        let head = "Content-Disposition: form-data; name=a\r\n\r\n";
        let body = format!("before\r\n--b \r\n{head}\r\n--b\r\n{head}2\r\n--b--behind");
        let read = parts(TYPE, body.as_bytes()).unwrap();
        let contents: Vec<&[u8]> = read.iter().map(|part| part.content).collect();
        assert_eq!(contents, [&b""[..], b"2"]);
        assert_eq!(parts(TYPE, b"--b--").unwrap(), []);
    }

    #[test]
    fn what_is_no_form_is_refused() {
        for body in [
            "",
            "x",
            "--b",
            "--b\r\n",
            "--b\r\na: b\r\n\r\nx",
            "--b\r\na: b\r\n--b--",
            "--b\r\n: \r\n\r\n\r\n--b--",
        ] {
            assert!(parts(TYPE, body.as_bytes()).is_err(), "{body:?}");
        }
        for kind in ["multipart/form-data", "multipart/form-data; boundary=", "x; boundary=\""] {
            assert!(parts(kind, b"--b--").is_err(), "{kind}");
        }
    }
}
