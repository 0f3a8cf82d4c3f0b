//! Arguments, taken apart: which are words of the path, and which are not.

use std::cell::LazyCell;
use std::ops::Deref;

use clap::{Arg, Command};

use crate::cgi::program::Program;

/// Arguments, taken apart.
pub(super) struct Split {
    /// Words, at each `/` too.
    pub path: Vec<String>,
    /// Options with their values, KEY=VALUE, and all behind `--`.
    pub rest: Vec<String>,
    /// Whether there is an argument without anything in it where a word may stand.
    pub has_empty: bool,
}

impl Split {
    pub fn of(program: &Program, args: &[String]) -> Split {
        let mut split = Split { path: Vec::new(), rest: Vec::new(), has_empty: false };
        let own = LazyCell::new(|| {
            program.specials.iter().flat_map(|special| (special.options)()).collect()
        });
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            if arg.starts_with('-') && arg != "-" {
                split.rest.push(arg.clone());
                match takes_value(&own, arg) {
                    Some(false) => {}
                    // A value is no word of the path.
                    Some(true) => {
                        let value = args.as_slice().first().filter(|next| !next.starts_with("--"));
                        split.rest.extend(value.and_then(|_| args.next()).cloned());
                    }
                    // Whether a value follows an unknown option is not known: it is what is wrong.
                    None => split.rest.extend(args.by_ref().cloned()),
                }
            } else if arg.contains('=') {
                split.rest.push(arg.clone());
            } else {
                split.has_empty |= arg.is_empty();
                let words = arg.split('/').filter(|word| !word.is_empty());
                split.path.extend(words.map(String::from));
            }
        }
        split
    }
}

/// Whether an option, one of all routes or of these, takes a value that is the next word; `None`: it is none
/// of them, and neither is `--`.
fn takes_value(own: &impl Deref<Target = Vec<Arg>>, option: &str) -> Option<bool> {
    match option {
        "-q" | "--quiet" | "-h" | "--help" | "-V" | "--version" => return Some(false),
        "-d" | "-X" | "--url" => return Some(true),
        glued if glued.starts_with("--url=") => return Some(false),
        // As in `-XDELETE`.
        glued if glued.starts_with("-d") || glued.starts_with("-X") => return Some(false),
        _ => {}
    }
    let name = option.split('=').next().unwrap_or_default();
    let known = own.iter().find(|arg| is(arg, name))?;
    Some(known.get_action().takes_values() && name == option)
}

/// Whether an option is written so.
fn is(option: &Arg, word: &str) -> bool {
    let mut buffer = [0; 4];
    let short = option.get_short().map(|short| &*short.encode_utf8(&mut buffer));
    match word.strip_prefix("--") {
        Some(long) => option.get_long() == Some(long),
        None => short.is_some() && word.strip_prefix('-') == short,
    }
}

/// Options with the values that are theirs although they begin with a hyphen, such as `-4`; clap
/// would take these for options.
pub(super) fn joined(command: &Command, rest: &[String]) -> Vec<String> {
    let takes = |word: &str| {
        command.get_arguments().any(|arg| is(arg, word) && arg.get_action().takes_values())
    };
    let mut joined: Vec<String> = Vec::new();
    let mut words = rest.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            joined.push(word.clone());
            joined.extend(words.cloned());
            break;
        }
        let value = words.as_slice().first();
        match value.filter(|v| v.starts_with('-') && !v.starts_with("--") && takes(word)) {
            Some(value) => {
                joined.push(format!("{word}={value}"));
                words.next();
            }
            None => joined.push(word.clone()),
        }
    }
    joined
}
