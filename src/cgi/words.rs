//! Words of a command: where they lead in a program's tables, and what is asked there.
//!
//! A command of clap's is made of that place alone, so that what the others take costs nothing.

use std::env;
use std::io::{self, IsTerminal};

use clap::error::{ContextKind, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::body::{self, Body};
use super::dispatch::{self, Refusal};
use super::environment::Method;
use super::forward;
use super::output::{self, Shown};
use super::program::{COMMAND, Given, Program, QUIET, Special, URL};
use super::remote::Remote;
use super::request::Request;
use super::route::{self, Key};
use super::usage;
use super::view::{FORMAT, View};
use crate::auth;
use crate::board::root::Root;
use crate::edge;
use crate::error::{Error, Kind, Result, exit};

mod help;
mod place;
mod split;

use place::{DATA, METHOD, Place, QUERY, segments};
use split::{Split, joined};

/// `--long`, without a value.
pub fn flag(long: &'static str, help: &'static str) -> Arg {
    Arg::new(long).long(long).action(ArgAction::SetTrue).help(help)
}

/// `--long VALUE`.
pub fn with(long: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(long).long(long).value_name(value).help(help)
}

/// The words behind `--`.
pub fn command() -> Arg {
    Arg::new(COMMAND).value_name("CMD").last(true).num_args(1..).hide(true)
}

/// Runs a program by the words it was given; returns the exit code.
pub(super) fn run(program: &'static Program) -> i32 {
    let args: Vec<String> = match env::args_os().skip(1).map(|a| a.into_string()).collect() {
        Ok(args) => args,
        Err(_) => {
            let place = Place { program, segments: Vec::new() };
            return usage::refuse(&place.command(), "the words are not UTF-8", None);
        }
    };
    if args.is_empty() {
        let place = Place { program, segments: Vec::new() };
        usage::print(&place.help());
        return exit::USAGE;
    }
    again(program, &args).unwrap_or_else(|error| edge::complain(program.name, &error))
}

/// Carries words out; returns the exit code.
pub fn again(program: &'static Program, args: &[String]) -> anyhow::Result<i32> {
    let mut split = Split::of(program, args);
    split.path = program.known_as(split.path);
    if split.has_empty {
        // A variable of a script that is not set, most likely: what is left may mean something else.
        let place = Place { program, segments: Vec::new() };
        return Ok(usage::refuse(&place.command(), "a word is empty", None));
    }
    let Found { place, path, stray } = find(program, &split.path);
    if let Some(word) = stray {
        let (command, error) = place.stray(&word);
        return Ok(usage::answer(&command, &error, None));
    }
    let meant = || meant(&place, path); // clap is asked where something is wrong alone
    let mut command = place.command();
    let rest = joined(&command, &split.rest);
    let behind = rest.iter().position(|word| word == "--");
    let ours = behind.filter(|_| !place.takes_command()).unwrap_or(rest.len());
    let matches = match command.try_get_matches_from_mut(&rest[..ours]) {
        Ok(matches) => matches,
        Err(error) => return Ok(not_read(&place, &command, &error, meant().as_deref())?),
    };
    let refuse = |what: &str| Ok(usage::refuse(&command, what, meant().as_deref()));
    if ours < rest.len() {
        return refuse("unknown option --");
    }
    let values = values(&place, path);
    let query = pairs(&matches);
    if let Some(special) = place.special()
        && is_meant(special, &place, &matches)
    {
        if !special.may_be_remote
            && let Some(url) = matches.get_one::<String>(URL)
        {
            let why = format!("{place} works on a root's files: run it on the machine of {url}");
            return Err(Error::bad(why).into());
        }
        return (special.run)(&Given { program, values, query, matches });
    }
    if behind.is_some() {
        return refuse(usage::NO_COMMAND);
    }
    if place.routes().next().is_none() {
        return refuse("no such words; --help lists them");
    }
    let asked = ask(&place, path, &matches, query).map_err(|error| match error.kind {
        Kind::NotFound => match meant() {
            Some(word) => Error::not_found(format!("{}; did you mean {word:?}?", error.message)),
            None => error,
        },
        _ => error,
    });
    Ok(asked?)
}

/// Whether the words are those of a command of the program's own. Where they are a route's, too,
/// something that the route does not take was given.
fn is_meant(special: &Special, place: &Place, matches: &ArgMatches) -> bool {
    let given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    place.routes().next().is_none()
        || (special.options)().iter().any(|option| given(option.get_id().as_str()))
}

fn pairs(matches: &ArgMatches) -> Vec<(String, String)> {
    let found = matches.try_get_many(QUERY).ok().flatten(); // not every place takes some
    found.into_iter().flatten().cloned().collect()
}

/// Prints the help that was asked for, or says what is wrong. A key that is not known is an error of
/// the request.
fn not_read(
    place: &Place,
    command: &Command,
    error: &clap::Error,
    meant: Option<&str>,
) -> Result<i32> {
    let about = |kind| usage::about(error, kind);
    let of_the_query = about(ContextKind::InvalidArg).is_some_and(|arg| arg.contains(QUERY));
    if error.kind() == ErrorKind::InvalidValue && of_the_query {
        let key = about(ContextKind::InvalidValue).unwrap_or_default();
        let known: Vec<&str> = place.keys().iter().map(|key| key.name).collect();
        return Err(route::unknown_key(key, about(ContextKind::SuggestedValue), &known));
    }
    if error.kind() == ErrorKind::DisplayHelp {
        usage::print(&place.help());
        return Ok(0);
    }
    Ok(usage::answer(command, error, meant))
}

/// Asks a route, and prints its answer.
fn ask(
    place: &Place,
    path: &[String],
    matches: &ArgMatches,
    mut query: Vec<(String, String)>,
) -> Result<i32> {
    let program = place.program;
    let data = matches.get_one::<String>(DATA).map(|text| body::from_option(text)).transpose()?;
    let methods: Vec<Method> = place.routes().map(|route| route.method).collect();
    let named = matches.get_one::<String>(METHOD).and_then(|name| Method::parse(name));
    let not_get = methods.iter().find(|method| **method != Method::Get);
    let usual = match not_get {
        Some(method) if data.is_some() || !methods.contains(&Method::Get) => *method,
        _ => Method::Get,
    };
    let method = named.unwrap_or(usual);
    let is_said = |key: &Key| key.is_body && query.iter().any(|(name, _)| name == key.name);
    let needs_body = place
        .routes()
        .any(|route| route.body && route.method == method && !route.query.iter().any(is_said));
    let body = data.unwrap_or(if needs_body { Body::Stdin } else { Body::None });
    let is_quiet = matches.get_flag(QUIET);
    let shown = match (is_quiet, place.brief()) {
        (true, Some(brief)) => Shown::Brief(brief),
        (true, None) => Shown::Whole,
        (false, _) => {
            let view = place.view().filter(|_| method == Method::Get);
            view.and_then(|view| shown_by(view, &mut query)).map_or(Shown::Whole, Shown::Table)
        }
    };
    let request = Request::from_words(method, path.to_vec(), query, body);
    let url = matches.get_one(URL).map(String::as_str);
    if let Some(remote) = Remote::named(url)? {
        let answer = forward::answer(&remote, program.name, &request);
        let answer =
            answer.map_err(|error| if url.is_none() { not_asked_for(error) } else { error });
        return output::print(program.name, answer?, &shown);
    }
    let root = Root::find()?;
    let who = auth::from_command(&root)?;
    let admitted = dispatch::admit(program, &root, &request, &who).map_err(Refusal::error)?;
    output::print(program.name, admitted.answer()?, &shown)
}

/// What a root elsewhere refuses, or does not answer at all, which only the environment has named: the one on
/// this machine may have been meant.
fn not_asked_for(error: Error) -> Error {
    let may_be_meant =
        [Kind::Unauthorized, Kind::Forbidden, Kind::Misdirected, Kind::GatewayTimeout];
    if !may_be_meant.contains(&error.kind) {
        return error;
    }
    let message = format!(
        "{} (CORKBOARD_URL is set: unset it to ask the root on this machine)",
        error.message
    );
    Error { message, ..error }
}

/// Whether what is answered is shown as a table: to a person, or where that is asked for. Takes the word
/// on the format out of the query, which the route gets only if it can choose.
fn shown_by(view: &'static View, query: &mut Vec<(String, String)>) -> Option<&'static View> {
    let asked = query.iter().rev().find(|(key, _)| key == FORMAT.name);
    let shown = match asked.map(|(_, value)| value.as_str()) {
        Some("table") => true,
        Some("json") => false,
        Some(_) => return None, // the route says what it knows
        None if io::stdout().is_terminal() => true,
        None => return None,
    };
    query.retain(|(key, _)| key != FORMAT.name);
    if view.is_text {
        query.push((FORMAT.name.into(), "json".into()));
    }
    shown.then_some(view)
}

/// Where words lead.
struct Found<'a> {
    place: Place,
    /// The words that lead there.
    path: &'a [String],
    /// The first that leads nowhere.
    stray: Option<String>,
}

/// As far as words lead. A word counts for more than a `:name`, as for a request, and also where others
/// have to follow it: `nodemgr jobs` is no node.
fn find<'a>(program: &'static Program, path: &'a [String]) -> Found<'a> {
    let mut best: (usize, usize, bool) = (0, usize::MAX, false);
    let mut place = Place { program, segments: Vec::new() };
    for pattern in program.patterns() {
        let all: Vec<&'static str> = segments(pattern).collect();
        let fitting = all.iter().zip(path).take_while(|(segment, word)| route::fits(segment, word));
        let length = fitting.count();
        let values = all[..length].iter().filter(|segment| segment.starts_with(':')).count();
        let whole = length == all.len() && length == path.len();
        let fewest = usize::MAX - values;
        let better = (length, fewest, whole) > best;
        if better {
            best = (length, fewest, whole);
            place.segments = all[..length].to_vec();
        }
    }
    let (path, rest) = path.split_at(place.segments.len());
    Found { place, path, stray: rest.first().cloned() }
}

/// The values of a place's `:names`.
fn values(place: &Place, path: &[String]) -> Vec<String> {
    let pairs = place.segments.iter().zip(path);
    pairs.filter(|(segment, _)| segment.starts_with(':')).map(|(_, word)| word.clone()).collect()
}

/// A word that may have been meant where one stands for a `:name`.
fn meant(place: &Place, path: &[String]) -> Option<String> {
    let mut pairs = place.segments.iter().zip(path).enumerate();
    pairs.find_map(|(index, (segment, word))| {
        let before = Place { program: place.program, segments: place.segments[..index].to_vec() };
        segment.starts_with(':').then(|| before.similar(word)).flatten()
    })
}
