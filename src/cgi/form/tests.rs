#![allow(clippy::unwrap_used)]

use super::*;

const TYPE: &str = "multipart/form-data; charset=x; boundary=\"b\"";

/// A source that gives a body in pieces of these lengths, over and over.
struct Pieces<'b> {
    body: &'b [u8],
    lengths: Vec<usize>,
    given: usize,
}

impl Source for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        assert!(!buffer.is_empty());
        let most = self.lengths[self.given % self.lengths.len()];
        self.given += 1;
        let read = most.min(buffer.len()).min(self.body.len());
        buffer[..read].copy_from_slice(&self.body[..read]);
        self.body = &self.body[read..];
        Ok(read)
    }
}

type Read = Result<Vec<(Part, Vec<u8>)>>;

fn read(kind: &str, body: &[u8], lengths: &[usize]) -> Read {
    let mut form = Form::new(kind, Pieces { body, lengths: lengths.to_vec(), given: 0 })?;
    let mut parts = Vec::new();
    while let Some(part) = form.next()? {
        let mut content = Vec::new();
        while let Some(piece) = form.chunk()? {
            assert!(!piece.is_empty());
            content.extend_from_slice(piece);
        }
        assert!(form.chunk()?.is_none());
        parts.push((part, content));
    }
    assert!(form.next()?.is_none() && form.source.body.is_empty(), "all of it is read");
    Ok(parts)
}

/// The same, slowly, of a body that is there as a whole.
fn model(body: &[u8]) -> Option<Vec<(Part, Vec<u8>)>> {
    let split = |text: &[u8]| {
        let at = text.windows(5).position(|window| window == b"\r\n--b")?;
        Some((text[..at].to_vec(), text[at + 5..].to_vec()))
    };
    let (_, mut rest) = split(&[b"\r\n", body].concat())?;
    let mut parts = Vec::new();
    while !rest.starts_with(b"--") {
        let line = rest.iter().position(|byte| !b" \t".contains(byte))?;
        let text = rest[line..].strip_prefix(b"\r\n")?;
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let Ok(httparse::Status::Complete((length, headers))) =
            httparse::parse_headers(text, &mut headers)
        else {
            return None;
        };
        let part = named(headers).ok().filter(|_| length <= LARGEST_HEAD)?;
        let (content, behind) = split(&text[length..])?;
        parts.push((part, content));
        rest = behind;
    }
    Some(parts)
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) as usize % limit
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// Bytes of which many look like a boundary.
    fn content(&mut self) -> Vec<u8> {
        let mut content = Vec::new();
        for _ in 0..self.below(12) {
            let piece: &[u8] = self
                .of(&[b"\r\n--", b"\r\n-", b"\r\n", b"\r", b"--b", b"b", b"--", b"\0x", b"\xff"]);
            content.extend_from_slice(piece);
        }
        if self.below(20) == 0 {
            content.resize(content.len() + self.below(3 * BUFFER), b'\r');
        }
        content
    }

    fn form(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        if self.below(3) == 0 {
            body.extend(self.content());
        }
        for _ in 0..self.below(4) {
            let line: &str =
                self.of(&["\r\n--b\r\n", "\r\n--b \t\r\n", "\r\n--b\r\n", "\r\n--bb\r\n"]);
            body.extend_from_slice(&line.as_bytes()[if body.is_empty() { 2 } else { 0 }..]);
            for _ in 0..self.below(3) {
                body.extend_from_slice(self.of(&[
                    &b"Content-Disposition: form-data; name=job\r\n"[..],
                    b"content-disposition: form-data; name=\"file\"; filename=\"a b\"\r\n",
                    b"X-Other: 1\r\n",
                    b"no header\r\n",
                ]));
            }
            if self.below(40) == 0 {
                let long = "y".repeat(self.below(2 * LARGEST_HEAD));
                body.extend(format!("X-Long: {long}\r\n").bytes());
            }
            body.extend_from_slice(b"\r\n");
            body.extend(self.content());
        }
        body.extend_from_slice(self.of(&[
            b"\r\n--b--",
            b"\r\n--b--\r\n",
            b"\r\n--b--behind\r\n--b",
        ]));
        if self.below(4) == 0 {
            body.truncate(self.below(body.len()));
        }
        body
    }
}

#[test]
fn forms_are_read_as_by_the_model_whatever_the_pieces() {
    let mut dice = Dice(7);
    let (mut read_whole, mut refused) = (0, 0);
    for round in 0..6000 {
        let body = dice.form();
        let mut lengths: Vec<usize> = (0..1 + dice.below(3)).map(|_| 1 + dice.below(9)).collect();
        if dice.below(2) == 0 || body.len() > 4096 {
            lengths = vec![1 + dice.below(2 * BUFFER)];
        }
        let shown = || String::from_utf8_lossy(&body[..body.len().min(500)]).into_owned();
        match (read(TYPE, &body, &lengths), model(&body)) {
            (Ok(parts), Some(model)) => {
                assert!(parts == model, "{round}: {lengths:?} {:?}", shown());
                read_whole += 1;
            }
            (Err(_), None) => refused += 1,
            (read, model) => panic!(
                "{round}: {lengths:?} {:?}: read {:?}, model {}",
                shown(),
                read.map(|parts| parts.len()).map_err(|e| e.message),
                model.is_some()
            ),
        }
    }
    assert!(read_whole > 1000 && refused > 1000, "{read_whole} {refused}");
}

#[test]
fn what_is_around_the_parts_is_left_out() {
    let head = "Content-Disposition: form-data; name=a\r\n\r\n";
    let body = format!("before\r\n--b \r\n{head}\r\n--b\r\n{head}2\r\n--b--behind");
    let parts = read(TYPE, body.as_bytes(), &[1]).unwrap();
    let contents: Vec<&[u8]> = parts.iter().map(|part| &part.1[..]).collect();
    assert_eq!(contents, [&b""[..], b"2"]);
    assert_eq!(parts[0].0.name, "a");
    assert_eq!(read(TYPE, b"--b--", &[9]).unwrap(), []);
    // Who does not want a part passes over it.
    let pieces = Pieces { body: body.as_bytes(), lengths: vec![3], given: 0 };
    let mut form = Form::new(TYPE, pieces).unwrap();
    assert!(form.next().unwrap().is_some() && form.next().unwrap().is_some());
    assert!(form.next().unwrap().is_none());
}

#[test]
fn what_is_no_form_is_refused_in_words() {
    let long = format!("--b\r\nX: {}", "y".repeat(LARGEST_HEAD));
    let many = format!("--b\r\n{}\r\n\r\n--b--", "X: y\r\n".repeat(HEADERS + 1));
    for (body, part) in [
        ("", "no boundary in it"),
        ("x", "no boundary in it"),
        ("--b", "it ends within a boundary"),
        ("--b-", "it ends within a boundary"),
        ("--b\r", "it ends within a boundary"),
        ("--bc\r\n\r\n\r\n--b--", "a line that begins with the boundary, and is longer"),
        ("--b -\r\n\r\n\r\n--b--", "a line that begins with the boundary, and is longer"),
        ("--b\r\n", "a part without an empty line"),
        ("--b\r\na: b\r\n\r\nx", "it ends within a part"),
        ("--b\r\na: b\r\n\r\nx\r\n--", "it ends within a part"),
        ("--b\r\na: b\r\n--b--", "a part without an empty line"),
        ("--b\r\na: b\r\n--b--\r\n", "a part's headers"),
        ("--b\r\n: \r\n\r\n\r\n--b--", "a part's headers"),
        (&long, "a part's headers have over 16384 bytes"),
        (&many, "a part has more than 16 headers"),
    ] {
        for length in [1, 7, BUFFER] {
            let error = read(TYPE, body.as_bytes(), &[length]).unwrap_err();
            assert!(error.message.contains(part), "{body:.40?}: {}", error.message);
        }
    }
    let long = format!("multipart/form-data; boundary={}", "b".repeat(LONGEST_BOUNDARY + 1));
    for kind in ["multipart/form-data", "multipart/form-data; boundary=", "x; boundary=\"", &long] {
        assert!(read(kind, b"--b--", &[9]).is_err(), "{kind}");
    }
}
