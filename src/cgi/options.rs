//! Options of commands of the CGI programs: one table says what is read and what `--help` shows.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::{self, Write};

use lexopt::{Arg, Parser, ValueExt};

use crate::error::exit;

/// An option.
pub struct Opt {
    /// `--long`, by which its value is known.
    pub long: &'static str,
    /// `-s`.
    pub short: Option<char>,
    /// What `--help` calls its value; empty: it has none.
    pub value: &'static str,
    /// Whether it may be given more than once.
    pub repeats: bool,
    /// One line.
    pub help: &'static str,
}

impl Opt {
    /// An option without a value.
    pub const fn flag(long: &'static str, help: &'static str) -> Opt {
        Opt { long, short: None, value: "", repeats: false, help }
    }

    /// An option with one value.
    pub const fn with(long: &'static str, value: &'static str, help: &'static str) -> Opt {
        Opt { long, short: None, value, repeats: false, help }
    }

    /// The same, with a short form.
    pub const fn or(self, short: char) -> Opt {
        Opt { short: Some(short), ..self }
    }

    /// The same, which may be given more than once.
    pub const fn repeated(self) -> Opt {
        Opt { repeats: true, ..self }
    }
}

/// A command that has options, and ends with `-- CMD ARGS` if `command` says so.
pub struct Options {
    /// The program and the words before the options.
    pub name: &'static str,
    /// One line.
    pub about: &'static str,
    /// What it takes.
    pub options: &'static [Opt],
    /// Whether a command has to follow, behind `--`.
    pub command: bool,
    /// What `--help` ends with.
    pub epilogue: &'static str,
}

/// What was given.
#[derive(Debug, Default)]
pub struct Given {
    values: BTreeMap<&'static str, Vec<String>>,
    /// The words behind `--`.
    pub command: Vec<String>,
}

impl Given {
    /// Whether an option was given.
    pub fn flag(&self, long: &str) -> bool {
        self.values.contains_key(long)
    }

    /// The value of an option that was given; the last one, should there be more.
    pub fn value(&self, long: &str) -> Option<&str> {
        self.values(long).last().map(String::as_str)
    }

    /// All values of an option.
    pub fn values(&self, long: &str) -> &[String] {
        self.values.get(long).map_or(&[], Vec::as_slice)
    }
}

impl Options {
    /// Reads the words behind the command's own. `Err` is the exit code where there is nothing to
    /// do: help was asked for and printed, or something was wrong, which has been said.
    pub fn read(&self, words: &[String]) -> Result<Given, i32> {
        match self.parse(words) {
            Ok(Some(given)) => Ok(given),
            Ok(None) => {
                let _ = io::stdout().write_all(self.help().as_bytes()); // a reader that left is fine
                Err(0)
            }
            Err(error) => {
                eprintln!("{}: {error}; try {} --help", self.name, self.name);
                Err(exit::USAGE)
            }
        }
    }

    /// `None`: help is asked for.
    fn parse(&self, words: &[String]) -> Result<Option<Given>, lexopt::Error> {
        let mut given = Given::default();
        let mut parser = Parser::from_args(words);
        loop {
            // What is behind `--` is not ours to read.
            if self.command
                && let Some(mut rest) = parser.try_raw_args()
                && rest.next_if(|word| word == "--").is_some()
            {
                given.command = rest.map(ValueExt::string).collect::<Result<_, _>>()?;
                break;
            }
            let Some(word) = parser.next()? else { break };
            if matches!(word, Arg::Long("help") | Arg::Short('h')) {
                return Ok(None);
            }
            let known = self.options.iter().find(|option| match word {
                Arg::Long(long) => option.long == long,
                Arg::Short(short) => option.short == Some(short),
                Arg::Value(_) => false,
            });
            let Some(option) = known else { return Err(word.unexpected()) };
            let long = format!("--{}", option.long);
            let values = given.values.entry(option.long);
            if matches!(values, Entry::Occupied(_)) && !option.repeats {
                return Err(format!("{long} is given twice").into());
            }
            let values = values.or_default();
            if option.value.is_empty() {
                continue;
            }
            let value = match parser.optional_value() {
                Some(value) => value,
                // A number may be negative, but the next option is no value.
                None => (parser.value().ok())
                    .filter(|value| !value.as_encoded_bytes().starts_with(b"--"))
                    .ok_or_else(|| format!("a value is required for {long}"))?,
            };
            values.push(value.string()?);
        }
        if self.command && given.command.is_empty() {
            return Err("a command is required: -- CMD ARGS".into());
        }
        Ok(Some(given))
    }

    fn help(&self) -> String {
        let command = if self.command { " -- CMD ARGS" } else { "" };
        let mut text =
            format!("{}\n\nusage: {} [OPTION...]{command}\n\nOptions:\n", self.about, self.name);
        let help = Opt::flag("help", "Print this").or('h');
        let lines: Vec<(String, &str)> = self
            .options
            .iter()
            .chain([&help])
            .map(|option| {
                let short = option.short.map_or("   ".into(), |short| format!("-{short},"));
                (format!("{short} --{} {}", option.long, option.value), option.help)
            })
            .collect();
        let width = lines.iter().map(|(left, _)| left.len()).max().unwrap_or(0);
        for (left, help) in lines {
            text.push_str(&format!("  {left:<width$}  {help}\n"));
        }
        if !self.epilogue.is_empty() {
            text.push_str(&format!("\n{}\n", self.epilogue));
        }
        text
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const OPTIONS: Options = Options {
        name: "p new",
        about: "Makes",
        options: &[
            Opt::with("name", "NAME", "A name").or('n'),
            Opt::with("env", "N=V", "Set").repeated(),
            Opt::flag("wait", "Wait"),
        ],
        command: true,
        epilogue: "End.",
    };

    fn read(words: &str) -> Result<Option<Given>, String> {
        let words: Vec<String> = words.split_whitespace().map(String::from).collect();
        OPTIONS.parse(&words).map_err(|error| error.to_string())
    }

    #[test]
    fn options_are_read_however_they_are_written() {
        for words in [
            "--name -5 --wait -- a --wait",
            "-n-5 --wait -- a --wait",
            "--wait --name=-5 -- a --wait",
        ] {
            let given = read(words).unwrap().unwrap();
            assert_eq!((given.value("name"), given.flag("wait")), (Some("-5"), true), "{words}");
            assert_eq!(given.command, ["a", "--wait"], "{words}");
        }
        let given = read("--env a=1 --env=--b -- -- x").unwrap().unwrap();
        assert_eq!(given.values("env"), ["a=1", "--b"]);
        assert_eq!((given.command, given.values.len()), (vec!["--".into(), "x".into()], 1));
        assert!(read("--wait -h --nonsense").unwrap().is_none());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (words, part) in [
            ("", "command is required"),
            ("--wait --", "command is required"),
            ("--nonsense -- a", "--nonsense"),
            ("-x -- a", "-x"),
            ("a -- b", "\"a\""),
            ("--wait=1 -- a", "--wait"),
            ("--wait --wait -- a", "--wait is given twice"),
            ("-n a --name b -- a", "--name is given twice"),
            ("--name", "--name"),
            ("--name -- a", "--name"),
            ("--name --wait -- a", "--name"),
        ] {
            let error = read(words).unwrap_err();
            assert!(error.contains(part), "{words}: {error}");
        }
    }

    #[test]
    fn help_lists_all() {
        let help = OPTIONS.help();
        let lines = ["Makes", "", "usage: p new [OPTION...] -- CMD ARGS", "", "Options:"];
        assert!(help.starts_with(&lines.join("\n")), "{help}");
        for line in [
            "  -n, --name NAME  A name\n",
            "      --env N=V    Set\n",
            "  -h, --help       Print this\n",
            "\nEnd.\n",
        ] {
            assert!(help.contains(line), "{help}");
        }
    }
}
