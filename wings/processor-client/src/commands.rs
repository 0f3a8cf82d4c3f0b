//! The commands, as they are written.

use corkboard::error::{Error, Result};
use corkboard::wire::process::StartRequest;

/// A command. Which process is meant is as it was written.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Have a process run, and remember it by this name.
    Start(Option<String>, StartRequest),
    /// Wait for its end.
    Wait(Option<String>),
    /// Whether it runs, and these parts of its output and its error output.
    Query(Option<String>, String, String),
    /// End it.
    Stop(Option<String>),
    /// Which run.
    Running,
}

/// The command of a line; `None` where there is none.
///
/// Errors: it is none, or has too many words.
pub fn parse(line: &str) -> Result<Option<Command>> {
    let words = words(line).map_err(Error::bad)?;
    let mut words = words.into_iter();
    let Some(verb) = words.next() else { return Ok(None) };
    let command = match verb.as_str() {
        "start" => start(&mut words)?,
        "wait" => Command::Wait(words.next()),
        "stop" => Command::Stop(words.next()),
        "query" => {
            let which = words.next();
            let mut part = || words.next().unwrap_or_default();
            Command::Query(which, part(), part())
        }
        "running" => Command::Running,
        other => {
            let known = "start, wait, query, stop and running";
            return Err(Error::bad(format!("there is no command {other:?}; there are {known}")));
        }
    };
    match words.next() {
        Some(word) => Err(Error::bad(format!("{verb} takes no {word:?}"))),
        None => Ok(Some(command)),
    }
}

/// Options stand before the program, each with its value.
fn start(words: &mut impl Iterator<Item = String>) -> Result<Command> {
    let (mut name, mut request) = (None, StartRequest::default());
    let mut program = words.next();
    while let Some(option) = program.as_deref().filter(|word| word.starts_with("--")) {
        if option == "--" {
            program = words.next();
            break;
        }
        let without = || Error::bad(format!("{option} needs a value"));
        let value = words.next().ok_or_else(without)?;
        match option {
            "--name" if is_name(&value) => name = Some(value),
            "--name" => {
                let why = "a name has letters, digits, . _ -, and begins with a letter";
                return Err(Error::bad(format!("--name {value:?}: {why}")));
            }
            "--dir" => request.dir = value,
            "--env" => request.env.push(value),
            other => {
                let known = "start has --name, --dir and --env";
                return Err(Error::bad(format!("there is no option {other:?}; {known}")));
            }
        }
        program = words.next();
    }
    let program = program.filter(|program| !program.is_empty());
    request.command = program.ok_or_else(|| Error::bad("start what? name a program"))?;
    request.args = words.collect();
    Ok(Command::Start(name, request))
}

/// Whether a process may be called so: no id of one looks like it.
fn is_name(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.len() <= 64
        && text.chars().all(fits)
}

/// The words of a line, as a shell would have them: in quotes blanks are no ends, and behind `#` at the
/// beginning of a word nothing counts.
fn words(line: &str) -> std::result::Result<Vec<String>, String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), close) if open == close => quote = None,
            (Some('\''), other) => word.get_or_insert_default().push(other),
            (_, '\\') => {
                let next = characters.next().ok_or("a backslash ends the line")?;
                word.get_or_insert_default().push(next);
            }
            (Some(_), other) => word.get_or_insert_default().push(other),
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, blank) if blank.is_whitespace() => words.extend(word.take()),
            (None, other) => word.get_or_insert_default().push(other),
        }
    }
    if let Some(open) = quote {
        return Err(format!("{open} is not closed"));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_a_shell_reads_them() {
        let read = |line: &str| words(line).unwrap().join("|");
        assert_eq!(read(r#" a  'b c' "d \"e" f\ g '' # h"#), "a|b c|d \"e|f g|");
        assert_eq!(read("a#b"), "a#b");
        assert_eq!(read("# nothing"), "");
        assert!(words("'open").is_err() && words("end\\").is_err());
    }

    #[test]
    fn commands_are_read() {
        let request = StartRequest {
            command: "make".into(),
            args: vec!["-j4".into(), "--name".into()],
            env: vec!["A=b c".into()],
            dir: "/src".into(),
            ..StartRequest::default()
        };
        let line = "start --name build --dir /src --env 'A=b c' make -j4 --name";
        assert_eq!(parse(line).unwrap(), Some(Command::Start(Some("build".into()), request)));
        let dashed = parse("start -- --odd").unwrap();
        let request = StartRequest { command: "--odd".into(), ..StartRequest::default() };
        assert_eq!(dashed, Some(Command::Start(None, request)));
        assert_eq!(parse("stop").unwrap(), Some(Command::Stop(None)));
        let query = Command::Query(Some("build".into()), "lines=1-2".into(), String::new());
        assert_eq!(parse("query build lines=1-2").unwrap(), Some(query));
        assert_eq!(parse(" # a comment").unwrap(), None);
        for wrong in ["go", "stop a b", "start", "start --name", "start --naem x y", "running now"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
