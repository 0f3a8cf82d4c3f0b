//! Which part of an output somebody asks for, in a word: `lines=1-20`, `bytes=0-4095`, `tail=10`, `none`.

use std::fmt;
use std::str::FromStr;

/// A part of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Nothing of it.
    None,
    /// So many lines at its end.
    Tail(u64),
    /// From a line, counted from 1, to another with that one, or to the end.
    Lines(u64, Option<u64>),
    /// From a byte, counted from 0, to another with that one, or to the end.
    Bytes(u64, Option<u64>),
}

impl Part {
    /// Whether it goes on as the output grows.
    pub fn is_open(&self) -> bool {
        matches!(self, Part::Tail(_) | Part::Lines(_, None) | Part::Bytes(_, None))
    }
}

/// As an error says it.
const KNOWN: &str =
    "\"lines=1-20\", \"lines=5-\", \"bytes=0-4095\", \"bytes=4096-\", \"tail=10\" or \"none\"";

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Part, String> {
        read(text).ok_or_else(|| format!("{text:?} is no range: it is like {KNOWN}"))
    }
}

fn read(text: &str) -> Option<Part> {
    if text == "none" {
        return Some(Part::None);
    }
    let (kind, range) = text.split_once('=')?;
    let number = |text: &str| text.parse::<u64>().ok();
    if kind == "tail" {
        return number(range).map(Part::Tail);
    }
    let (from, to) = range.split_once('-')?;
    let (from, to) = (number(from)?, if to.is_empty() { None } else { Some(number(to)?) });
    if to.is_some_and(|to| to < from) {
        return None;
    }
    match kind {
        "lines" if from > 0 => Some(Part::Lines(from, to)),
        "bytes" => Some(Part::Bytes(from, to)),
        _ => None,
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, from, to) = match self {
            Part::None => return f.write_str("none"),
            Part::Tail(lines) => return write!(f, "tail={lines}"),
            Part::Lines(from, to) => ("lines", from, to),
            Part::Bytes(from, to) => ("bytes", from, to),
        };
        write!(f, "{kind}={from}-{}", to.map_or_else(String::new, |to| to.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_they_are_written() {
        for text in ["none", "tail=0", "tail=10", "lines=1-20", "lines=5-", "bytes=0-0", "bytes=7-"]
        {
            assert_eq!(text.parse::<Part>().map(|part| part.to_string()), Ok(text.to_string()));
        }
        for text in [
            "",
            "10",
            "tail",
            "tail=",
            "tail=-1",
            "lines=0-3",
            "lines=4-3",
            "lines=-3",
            "bytes=1",
            "bytes=a-b",
            "words=1-2",
            "lines=1-2-3",
            "bytes=-",
        ] {
            assert!(text.parse::<Part>().is_err(), "{text}");
        }
    }
}
