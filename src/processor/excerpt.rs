//! A part of what a process has written, as text, and where to go on.

use std::io;

use super::log::{self, Written};
use crate::board::root::Root;
use crate::board::runs::Stream;
use crate::error::{At, Result};
use crate::model::excerpt::Part;
use crate::model::ids::RunId;

/// What is held of an output in which lines are counted.
const PIECE: u64 = 64 << 10;

/// A part of an output.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Excerpt {
    /// What it says; what is no text there is replaced.
    pub text: String,
    /// What to ask for next: the rest of what was asked for, or, of a part without an end, what comes.
    pub next: Option<Part>,
}

/// Reads so much of an output, at most so many bytes; of the last lines the last bytes. `grows`: it may
/// have more the next time.
pub fn read(
    root: &Root,
    id: &RunId,
    stream: Stream,
    wanted: &Part,
    most: u64,
    grows: bool,
) -> Result<Excerpt> {
    let written = log::open(root, id, stream)?;
    let path = || crate::board::runs::Runs::new(root).log_path(id, stream);
    excerpt(written.as_ref(), wanted, most, grows).at(path())
}

fn excerpt(
    written: Option<&Written>,
    wanted: &Part,
    most: u64,
    grows: bool,
) -> io::Result<Excerpt> {
    let Some(written) = written else {
        let next = (grows && wanted.is_open()).then_some(Part::Bytes(0, None));
        return Ok(Excerpt { text: String::new(), next });
    };
    let size = written.size;
    let (from, end) = match *wanted {
        Part::None => return Ok(Excerpt::default()),
        Part::Tail(lines) => {
            (log::start_of_tail(written, lines)?.max(size.saturating_sub(most)), size)
        }
        Part::Bytes(from, to) => (from, to.map_or(size, |to| to.saturating_add(1))),
        Part::Lines(first, last) => {
            let from = start_of_line(written, first - 1, (0, 0))?;
            let end = match last {
                Some(last) => start_of_line(written, last, (first - 1, from))?,
                None => size,
            };
            (from, end)
        }
    };
    let (from, end) = (from.min(size), end.min(size).max(from.min(size)));
    let mut bytes = vec![0; (end - from).min(most) as usize];
    written.read_exact_at(&mut bytes, from)?;
    let is_cut = end - from > most;
    let goes_on = is_cut || grows && wanted.is_open();
    if goes_on {
        leave_begun(&mut bytes);
    }
    let at = from + bytes.len() as u64;
    let rest = if wanted.is_open() { None } else { end.checked_sub(1) };
    let next = goes_on.then_some(Part::Bytes(at, rest));
    Ok(Excerpt { text: String::from_utf8_lossy(&bytes).into_owned(), next })
}

/// Where the line begins before which so many end; the end of the output if there are fewer. Counts on from
/// where some of them are known to end.
fn start_of_line(written: &Written, lines: u64, (mut seen, mut at): (u64, u64)) -> io::Result<u64> {
    let mut bytes = vec![0; PIECE as usize];
    while seen < lines && at < written.size {
        let piece = &mut bytes[..(written.size - at).min(PIECE) as usize];
        written.read_exact_at(piece, at)?;
        for index in memchr::memchr_iter(b'\n', piece) {
            seen += 1;
            if seen == lines {
                return Ok(at + index as u64 + 1);
            }
        }
        at += piece.len() as u64;
    }
    Ok(at)
}

/// Leaves a character to the next part of which only the beginning is there.
fn leave_begun(bytes: &mut Vec<u8>) {
    for back in 1..=bytes.len().min(3) {
        let begun = bytes[bytes.len() - back];
        let length = match begun {
            0x80..0xc0 => continue,
            0xc0..0xe0 => 2,
            0xe0..0xf0 => 3,
            0xf0.. => 4,
            _ => 1,
        };
        if length > back && bytes.len() > back {
            bytes.truncate(bytes.len() - back);
        }
        return;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::board::files;
    use std::fs::{self, File};

    #[test]
    fn parts_of_an_output() {
        let path = std::env::temp_dir().join(format!("excerpt-{}", files::random_name().unwrap()));
        let read = |text: &[u8], part: &str, most, grows| {
            fs::write(&path, text).unwrap();
            let written = Written::whole(File::open(&path).unwrap()).unwrap();
            let read = excerpt(Some(&written), &part.parse().unwrap(), most, grows).unwrap();
            (read.text, read.next.map_or(String::new(), |next| next.to_string()))
        };
        let told = |text: &str, next: &str| (text.to_string(), next.to_string());
        let text = b"one\ntwo\nthree\n";
        assert_eq!(read(text, "lines=2-2", 99, false), told("two\n", ""));
        assert_eq!(read(text, "lines=2-", 99, false), told("two\nthree\n", ""));
        assert_eq!(read(text, "lines=2-", 99, true), told("two\nthree\n", "bytes=14-"));
        assert_eq!(read(text, "lines=2-9", 99, true), told("two\nthree\n", ""));
        assert_eq!(read(text, "lines=4-9", 99, false), told("", ""));
        assert_eq!(read(text, "lines=1-3", 5, false), told("one\nt", "bytes=5-13"));
        assert_eq!(read(text, "bytes=5-13", 5, false), told("wo\nth", "bytes=10-13"));
        assert_eq!(read(text, "bytes=10-13", 5, false), told("ree\n", ""));
        assert_eq!(read(text, "bytes=4-", 4, false), told("two\n", "bytes=8-"));
        assert_eq!(read(text, "bytes=99-", 4, true), told("", "bytes=14-"));
        assert_eq!(read(text, "bytes=0-99", 99, false), told("one\ntwo\nthree\n", ""));
        assert_eq!(read(text, "tail=2", 99, false), told("two\nthree\n", ""));
        assert_eq!(read(text, "tail=2", 4, true), told("ree\n", "bytes=14-"));
        assert_eq!(read(text, "none", 4, true), told("", ""));
        assert_eq!(read(b"", "lines=1-", 4, true), told("", "bytes=0-"));
        // A character is not told in two halves; what is none is replaced, and never waited for.
        assert_eq!(read("aé€".as_bytes(), "bytes=0-", 2, false), told("a", "bytes=1-"));
        assert_eq!(read("aé€".as_bytes(), "bytes=1-", 4, false), told("é", "bytes=3-"));
        assert_eq!(read(b"a\xe2", "bytes=0-", 9, true), told("a", "bytes=1-"));
        assert_eq!(read(b"a\xe2", "bytes=0-", 9, false), told("a\u{fffd}", ""));
        assert_eq!(read(b"\xe2", "bytes=0-", 9, true), told("\u{fffd}", "bytes=1-"));
        fs::remove_file(&path).unwrap();
    }
}
