//! A place in a program's words, and the command that reads what is given there: made of the tables of
//! routes and of other commands.

use std::ffi::OsStr;
use std::fmt;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::{ContextKind, ErrorKind};
use clap::{Arg, ArgAction, Command};

use super::COMMAND;
use crate::cgi::environment::Method;
use crate::cgi::program::{Program, QUIET, Special, URL};
use crate::cgi::route::{Key, Route};
use crate::cgi::usage;
use crate::cgi::view::{Brief, FORMAT, View};

/// Ids of what every route takes.
pub(super) const QUERY: &str = "KEY=VALUE";
pub(super) const METHOD: &str = "method";
pub(super) const DATA: &str = "data";

/// Where words lead: all of a pattern, or the beginning of some.
pub(super) struct Place {
    pub program: &'static Program,
    /// As in the patterns: words, and `:name` for a value.
    pub segments: Vec<&'static str>,
}

/// As it is typed: `scheduler jobs N status`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.program.name)?;
        self.segments.iter().try_for_each(|segment| write!(f, " {}", shown(segment)))
    }
}

/// The segments of a pattern.
pub(super) fn segments(pattern: &'static str) -> impl Iterator<Item = &'static str> {
    pattern.split('/').filter(|segment| !segment.is_empty())
}

/// A segment as help shows it.
pub(super) fn shown(segment: &'static str) -> &'static str {
    match segment {
        ":number" => "N",
        ":id" => "ID",
        ":name" => "NAME",
        word => word,
    }
}

impl Place {
    /// The routes whose path this is: one, or several of different methods.
    pub fn routes(&self) -> impl Iterator<Item = &'static Route> {
        self.program.routes.iter().filter(|route| self.is(route.pattern))
    }

    /// The other command whose words these are.
    pub fn special(&self) -> Option<&'static Special> {
        self.program.specials.iter().find(|special| self.is(special.pattern))
    }

    fn is(&self, pattern: &'static str) -> bool {
        segments(pattern).eq(self.segments.iter().copied())
    }

    /// Whether a pattern goes on from here.
    fn leads_to(&self, pattern: &'static str) -> bool {
        let mut rest = segments(pattern);
        self.segments.iter().all(|segment| rest.next() == Some(*segment)) && rest.next().is_some()
    }

    /// The patterns that go on from here, each once.
    pub fn below(&self) -> Vec<&'static str> {
        let mut found = Vec::new();
        for pattern in self.program.patterns().filter(|pattern| self.leads_to(pattern)) {
            if !found.contains(&pattern) {
                found.push(pattern);
            }
        }
        found
    }

    /// Keys of the query, of all methods.
    pub fn keys(&self) -> Vec<&'static Key> {
        let routes = self.routes().flat_map(|route| route.query);
        let mut found: Vec<&'static Key> = Vec::new();
        for key in routes.chain(self.special().map_or(&[] as &[Key], |special| special.query)) {
            if !found.iter().any(|known| known.name == key.name) {
                found.push(key);
            }
        }
        if self.view().is_some() && !found.iter().any(|known| known.name == FORMAT.name) {
            found.push(&FORMAT);
        }
        found
    }

    /// How what is answered to a look at this place is shown to a person.
    pub fn view(&self) -> Option<&'static View> {
        self.program.view(&self.segments.join("/"))
    }

    /// What `-q` prints of what is answered here.
    pub fn brief(&self) -> Option<&'static Brief> {
        self.program.brief(&self.segments.join("/"))
    }

    /// Whether `-- CMD ARGS` may follow.
    pub fn takes_command(&self) -> bool {
        self.special().is_some_and(Special::takes_command)
    }

    /// The command of this place, without the texts of its help.
    pub fn command(&self) -> Command {
        let mut command =
            usage::command(self.program.name).bin_name(self.to_string()).args(self.options());
        if self.routes().next().is_some() || !self.keys().is_empty() {
            let names = self.keys().iter().map(|key| key.name).collect();
            let query = Arg::new(QUERY).value_name(QUERY).action(ArgAction::Append).num_args(1..);
            command = command.arg(query.value_parser(Pairs(names)).hide(true));
        }
        let Some(special) = self.special() else { return command };
        let takes_command = special.takes_command();
        let is_route_too = self.routes().next().is_some();
        for option in (special.options)() {
            let goes_with_command = takes_command && option.get_id() != COMMAND;
            command =
                command.arg(if goes_with_command { option.requires(COMMAND) } else { option });
        }
        if takes_command {
            for of_a_route in [METHOD, DATA, QUERY] {
                let has = command.get_arguments().any(|arg| arg.get_id() == of_a_route);
                if has {
                    command = command.mut_arg(of_a_route, |arg| arg.conflicts_with(COMMAND));
                }
            }
            command = command.mut_arg(COMMAND, |arg| arg.required(!is_route_too));
        }
        command
    }

    /// What is wrong with a word that leads nowhere from here, and a command of this place.
    pub fn stray(&self, word: &str) -> (Command, clap::Error) {
        let mut command = usage::command(self.program.name).bin_name(self.to_string());
        for pattern in self.below() {
            let next = segments(pattern).nth(self.segments.len()).filter(|w| !w.starts_with(':'));
            match next {
                Some(word) if command.find_subcommand(word).is_none() => {
                    command = command.subcommand(Command::new(word));
                }
                _ => {}
            }
        }
        let error = match command.try_get_matches_from_mut([word]) {
            Err(error) => error,
            Ok(_) => command.error(ErrorKind::InvalidSubcommand, "no such words"),
        };
        (command, error)
    }

    /// What may have been meant by a word.
    pub fn similar(&self, word: &str) -> Option<String> {
        let (_, error) = self.stray(word);
        usage::about(&error, ContextKind::SuggestedSubcommand).map(str::to_string)
    }

    /// What every route takes, shown where it makes a difference.
    fn options(&self) -> [Arg; 4] {
        let (body, several) = (self.routes().any(|route| route.body), self.routes().count() > 1);
        let makes = self.routes().any(|route| route.method == Method::Post);
        let all = self.segments.is_empty();
        let quiet = Arg::new(QUIET).short('q').long("quiet").action(ArgAction::SetTrue);
        let method = Arg::new(METHOD).short('X').value_name("METHOD").ignore_case(true);
        let methods = ["GET", "HEAD", "POST", "PATCH", "DELETE"];
        let data = Arg::new(DATA).short('d').value_name("JSON");
        let url = Arg::new(URL).long("url").value_name("URL");
        [
            url.overrides_with(URL)
                .hide(!all || self.program.routes.is_empty())
                .help("the root at this address, asked by HTTP"),
            data.overrides_with(DATA).hide(!(body || all)).help("the body, or @FILE that holds it"),
            method
                .value_parser(PossibleValuesParser::new(methods))
                .hide_possible_values(true)
                .overrides_with(METHOD)
                .hide(!(several || all))
                .help("the method, where a path has several"),
            quiet
                .overrides_with(QUIET)
                .hide(!(makes || self.takes_command() || all))
                .help("print only the number, id or name"),
        ]
    }
}

/// Reads KEY=VALUE where the key is known.
#[derive(Clone)]
struct Pairs(Vec<&'static str>);

impl TypedValueParser for Pairs {
    type Value = (String, String);

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<Self::Value, clap::Error> {
        let text = value.to_string_lossy(); // words are text: others have been refused
        let (key, value) = text.split_once('=').unwrap_or((&text, ""));
        let keys = PossibleValuesParser::new(self.0.clone());
        Ok((keys.parse_ref(command, arg, OsStr::new(key))?, value.to_string()))
    }
}
