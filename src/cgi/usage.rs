//! What is wrong with the words of a command, said as this project says it: clap finds it, with
//! what may have been meant, and its answer is told in one lower-case line.

use std::ffi::OsString;
use std::io::{self, Write};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::error::exit;

/// What all commands show as theirs.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Where words have to follow behind `--`.
pub(super) const NO_COMMAND: &str = "a command is required: -- CMD ARGS";

/// About, usage, keys, options, what is below. Clap's own is headed `Usage:` and lists subcommands.
const TEMPLATE: &str =
    "{about-with-newline}\nusage: {usage}\n\n{before-help}Options:\n{options}{after-help}\n";

/// A command with what all have: `--help`, `--version`, and their looks.
pub fn command(program: &'static str) -> Command {
    Command::new(program)
        .version(VERSION)
        .no_binary_name(true)
        .disable_help_subcommand(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .help_template(TEMPLATE)
        .arg(
            Arg::new("help")
                .short('h')
                .long("help")
                .action(ArgAction::Help)
                .display_order(1000)
                .help("print this"),
        )
        .arg(
            Arg::new("version")
                .short('V')
                .long("version")
                .action(ArgAction::Version)
                .display_order(1001)
                .help("print the version"),
        )
}

/// The options among the words behind a command's own. `Err` is the exit code where there is
/// nothing to do: help was asked for and printed, or something was wrong, which has been said.
pub fn read(
    command: &mut Command,
    words: impl Iterator<Item = OsString>,
) -> Result<ArgMatches, i32> {
    command.try_get_matches_from_mut(words).map_err(|error| answer(command, &error, None))
}

/// Prints what was asked for, or says what is wrong; returns the exit code.
pub(super) fn answer(command: &Command, error: &clap::Error, meant: Option<&str>) -> i32 {
    let text = match error.kind() {
        ErrorKind::DisplayHelp => error.to_string(),
        ErrorKind::DisplayVersion => format!("{} {VERSION}\n", command.get_name()),
        _ => return refuse(command, &told(error), meant),
    };
    print(&text);
    0
}

/// Prints what was asked for.
pub(super) fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes()); // a reader that left is fine
}

/// Says on standard error what is wrong with the words, and perhaps which was meant; returns the
/// exit code.
pub(super) fn refuse(command: &Command, message: &str, meant: Option<&str>) -> i32 {
    let meant = meant.map(|word| format!(": did you mean {word:?}?")).unwrap_or_default();
    let end = if message.ends_with('?') || meant.ends_with('?') { "" } else { ";" };
    let place = command.get_bin_name().unwrap_or(command.get_name());
    eprintln!("{}: {message}{meant}{end} try {place} --help", command.get_name());
    exit::USAGE
}

/// What an error is about.
pub(super) fn about(error: &clap::Error, kind: ContextKind) -> Option<&str> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text),
        // The most similar comes last.
        ContextValue::Strings(texts) => texts.last().map(String::as_str),
        _ => None,
    }
}

fn no_such_words(word: &str) -> String {
    format!("{word:?}: no such words; --help lists them")
}

/// An error in words, with what may have been meant.
fn told(error: &clap::Error) -> String {
    let of = |kind| about(error, kind).unwrap_or_default();
    // `--name <NAME>` is what its value is called, too.
    let option = of(ContextKind::InvalidArg).split(' ').next().unwrap_or_default();
    let value = of(ContextKind::InvalidValue);
    let (message, meant) = match error.kind() {
        ErrorKind::UnknownArgument if option.starts_with('-') => {
            (format!("unknown option {option}"), about(error, ContextKind::SuggestedArg))
        }
        ErrorKind::UnknownArgument => (no_such_words(of(ContextKind::InvalidArg)), None),
        ErrorKind::InvalidSubcommand => {
            let word = of(ContextKind::InvalidSubcommand);
            match about(error, ContextKind::SuggestedSubcommand) {
                None => (no_such_words(word), None),
                meant => (format!("no such word {word:?}"), meant),
            }
        }
        ErrorKind::InvalidValue if value.is_empty() => (format!("{option} needs a value"), None),
        ErrorKind::InvalidValue => {
            let known = match error.get(ContextKind::ValidValue) {
                Some(ContextValue::Strings(known)) => known.join(", "),
                _ => String::new(),
            };
            let meant = about(error, ContextKind::SuggestedValue);
            let meant = meant.map_or("; ".into(), |meant| format!(": did you mean {meant:?}? "));
            let what = of(ContextKind::InvalidArg).split(['<', '>']).nth(1).unwrap_or("value");
            (format!("no such {} {value:?}{meant}known are {known}", what.to_lowercase()), None)
        }
        ErrorKind::ValueValidation => {
            let why = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            (format!("{option}: {value:?} is not {why}"), None)
        }
        ErrorKind::TooManyValues => (format!("{option} takes no value"), None),
        ErrorKind::ArgumentConflict => {
            let other = match of(ContextKind::PriorArg) {
                command if command.contains("CMD") => "-- CMD ARGS",
                other => other.split(' ').next().unwrap_or_default(),
            };
            match other == option || other.is_empty() {
                true => (format!("{option} is given twice"), None),
                false => (format!("{option} does not go with {other}"), None),
            }
        }
        ErrorKind::MissingRequiredArgument => match of(ContextKind::InvalidArg) {
            command if command.contains("CMD") => (NO_COMMAND.to_string(), None),
            other => (format!("{other} is required"), None),
        },
        // None of these comes of a command of ours; clap's own words are better than none.
        _ => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            (line.trim_start_matches("error: ").to_string(), None)
        }
    };
    match meant {
        Some(meant) => format!("{message}: did you mean {meant:?}?"),
        None => message,
    }
}
