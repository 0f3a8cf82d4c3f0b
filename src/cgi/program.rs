//! What a program is: its routes, and the commands that have forms of their own.

use std::rc::Rc;

use clap::{Arg, ArgMatches};

use super::remote::Remote;
use super::route::{Call, Key, Route};
use super::view::{Brief, View};
use crate::error::Result;
use crate::model::access::Whose;

/// The id of the words behind `--` among the options of a command.
pub const COMMAND: &str = "command";

/// The id of the option that names a root's address.
pub(super) const URL: &str = "url";

/// The id of the option for a short answer.
pub(super) const QUIET: &str = "quiet";

/// A command of a program that is more than a route in words, such as `jobs new -- CMD`.
pub struct Special {
    /// Its words, as in the pattern of a route, which may have the same.
    pub pattern: &'static str,
    /// How it is typed behind its words.
    pub usage: &'static str,
    /// One line for `--help`.
    pub help: &'static str,
    /// Keys that it knows.
    pub query: &'static [Key],
    /// Its options; with one whose id is `command`, words behind `--`. Where a route has the same
    /// words, the route is meant if none of these is given.
    pub options: fn() -> Vec<Arg>,
    /// What its `--help` ends with, in place of the usual exit codes.
    pub epilogue: &'static str,
    /// Whether it can be meant for a root that is asked by HTTP, too: see [`Given::remote`].
    pub may_be_remote: bool,
    /// Does it; returns the exit code.
    pub run: fn(&Given) -> anyhow::Result<i32>,
}

impl Special {
    /// One without keys, options and an epilogue of its own.
    pub const fn plain(
        pattern: &'static str,
        help: &'static str,
        run: fn(&Given) -> anyhow::Result<i32>,
    ) -> Special {
        Special {
            pattern,
            usage: "",
            help,
            query: &[],
            options: Vec::new,
            epilogue: "",
            may_be_remote: false,
            run,
        }
    }

    /// Whether words may follow behind `--`.
    pub(super) fn takes_command(&self) -> bool {
        (self.options)().iter().any(|option| option.get_id() == COMMAND)
    }
}

/// A program: its name, its routes, and the commands that have forms of their own.
pub struct Program {
    /// As installed.
    pub name: &'static str,
    /// One line for `--help`.
    pub about: &'static str,
    /// Its routes.
    pub routes: &'static [Route],
    /// Whose the thing is that a request is about. Asked where whoever asks may do what they want only to
    /// what is their own. What is not there is nobody's: an error, as its handler would give.
    pub whose: fn(&Call) -> Result<Whose>,
    /// The patterns of routes that are answered when something has happened, though no key asks for that.
    pub stays: &'static [&'static str],
    /// Its other commands.
    pub specials: &'static [Special],
    /// Other words for the same: of the original walkthrough, for one.
    pub aliases: &'static [(&'static str, &'static str)],
    /// How answers are shown at a terminal.
    pub views: &'static [View],
    /// What `-q` prints of them.
    pub briefs: &'static [Brief],
    /// The sections of `--help`: titles, and how patterns begin that are listed there.
    pub sections: &'static [(&'static str, &'static [&'static str])],
}

impl Program {
    /// How the answer of the route with this pattern is shown.
    pub(super) fn view(&self, pattern: &str) -> Option<&'static View> {
        self.views.iter().find(|view| view.pattern == pattern)
    }

    /// What `-q` prints of the answer of the route with this pattern.
    pub(super) fn brief(&self, pattern: &str) -> Option<&'static Brief> {
        self.briefs.iter().find(|brief| brief.pattern == pattern)
    }

    /// Words as the tables have them, where they are other words for the same.
    pub(super) fn known_as(&self, path: Vec<String>) -> Vec<String> {
        let alias = self.aliases.iter().find(|(words, _)| path.iter().eq(words.split('/')));
        alias.map_or(path, |(_, known)| known.split('/').map(String::from).collect())
    }

    /// The patterns of its routes and of its other commands.
    pub(super) fn patterns(&self) -> impl Iterator<Item = &'static str> {
        let specials = self.specials.iter().map(|special| special.pattern);
        self.routes.iter().map(|route| route.pattern).chain(specials)
    }
}

/// What was given to a command of a program's own: see [`Special`].
pub struct Given {
    /// Whose command it is.
    pub program: &'static Program,
    /// The values of the pattern's `:names`, in order.
    pub values: Vec<String>,
    /// KEY=VALUE, in order.
    pub query: Vec<(String, String)>,
    pub(super) matches: ArgMatches,
}

impl Given {
    /// Whether an option without a value was given.
    pub fn flag(&self, id: &str) -> bool {
        self.matches.get_flag(id)
    }

    /// The value of an option that was given.
    pub fn value(&self, id: &str) -> Option<&str> {
        self.matches.get_one::<String>(id).map(String::as_str)
    }

    /// All values of an option, or the words behind `--`.
    pub fn values(&self, id: &str) -> Vec<&str> {
        self.matches.get_many::<String>(id).into_iter().flatten().map(String::as_str).collect()
    }

    /// The root that is asked by HTTP, if one is meant. Errors: its address is none.
    pub fn remote(&self) -> Result<Option<Rc<Remote>>> {
        Remote::named(self.value(URL))
    }

    /// Whether only the number, id or name of what was made is to be printed.
    pub fn quiet(&self) -> bool {
        self.flag(QUIET)
    }
}
