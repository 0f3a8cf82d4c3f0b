//! The route table of a program, and finding the route of a request.

use super::environment::Method;
use super::request::Request;
use super::response::Response;
use crate::auth::Who;
use crate::board::root::Root;
use crate::error::{Error, Kind, Result};
use crate::model::access::Need;

/// A key of a route's query.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// As it is written before the `=`.
    pub name: &'static str,
    /// What `--help` calls its value.
    pub value: &'static str,
    /// One line for `--help`.
    pub help: &'static str,
    /// Whether it says all that a body would: where it is given none is read.
    pub is_body: bool,
}

impl Key {
    /// `name=value`, and what it does.
    pub const fn new(name: &'static str, value: &'static str, help: &'static str) -> Key {
        Key { name, value, help, is_body: false }
    }

    /// One that says all that a body would.
    pub const fn in_place_of_body(self) -> Key {
        Key { is_body: true, ..self }
    }
}

/// One row of a program's table.
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path: words, and `:name` for a value, as in `jobs/:number/status`.
    pub pattern: &'static str,
    /// What the caller must be allowed.
    pub need: Need,
    /// Query parameters that it knows; any other is refused.
    pub query: &'static [Key],
    /// Whether it needs a body: a command then reads standard input if `-d` is absent.
    pub body: bool,
    /// One line for `--help`.
    pub help: &'static str,
    /// Does it.
    pub handler: fn(&Call) -> Result<Response>,
}

impl Route {
    /// Refuses what is more than a look, where the tree is another user's.
    pub(super) fn may_change(&self, root: &Root) -> Result<()> {
        // What is asked by POST since it takes a body is a look all the same.
        let looks = self.method == Method::Get || matches!(self.need, Need::Look | Need::Read);
        if looks { Ok(()) } else { root.for_change() }
    }
}

/// A request that found its route, with all that a handler needs.
pub struct Call<'a> {
    /// The root.
    pub root: &'a Root,
    /// What was asked.
    pub request: &'a Request,
    /// Who asks.
    pub who: &'a Who,
    /// The values of the pattern's `:names`, in order.
    values: Vec<&'a str>,
}

impl<'a> Call<'a> {
    /// The pattern's value number `index`, from 0. Patterns and handlers are written together;
    /// a missing value reads as empty, which no id is.
    pub fn value(&self, index: usize) -> &'a str {
        self.values.get(index).copied().unwrap_or_default()
    }
}

/// Whether a word fits a segment of a pattern. `job` is accepted for the word `jobs`, and only for
/// that word: a value may well be called so.
pub(super) fn fits(segment: &str, word: &str) -> bool {
    segment.starts_with(':') || segment == word || (segment, word) == ("jobs", "job")
}

/// The values of a pattern's names if the path fits it.
fn matches<'a>(pattern: &str, path: &'a [String]) -> Option<Vec<&'a str>> {
    let mut values = Vec::new();
    let mut segments = path.iter();
    for word in pattern.split('/').filter(|word| !word.is_empty()) {
        let segment = segments.next()?;
        if !fits(word, segment) {
            return None;
        }
        if word.starts_with(':') {
            values.push(segment.as_str());
        }
    }
    segments.next().is_none().then_some(values)
}

/// The routes of a path. A word counts for more than a `:name`: `jobs/new` is no `jobs/:id`.
pub fn candidates<'a>(
    routes: &'static [Route],
    path: &'a [String],
) -> impl Iterator<Item = (&'static Route, Vec<&'a str>)> {
    let fitting = move || routes.iter().filter_map(|r| Some((r, matches(r.pattern, path)?)));
    let fewest = fitting().map(|(_, values)| values.len()).min();
    fitting().filter(move |(_, values)| Some(values.len()) == fewest)
}

/// Methods that the table has for a path.
pub fn methods(routes: &'static [Route], path: &[String]) -> Vec<Method> {
    candidates(routes, path).map(|(route, _)| route.method).collect()
}

/// The route of a request with the call to make. 404 for an unknown path, 405 for a method that
/// the path does not have, 400 for a query parameter that the route does not know.
pub fn find<'a>(
    routes: &'static [Route],
    root: &'a Root,
    request: &'a Request,
    who: &'a Who,
) -> Result<(&'static Route, Call<'a>)> {
    let found = candidates(routes, &request.path).find(|(route, _)| route.method == request.method);
    let Some((route, values)) = found else {
        let allowed = methods(routes, &request.path);
        if allowed.is_empty() {
            return Err(Error::not_found("no such path; `--help` lists them"));
        }
        let names: Vec<&str> = allowed.iter().map(|m| m.name()).collect();
        return Err(Error::new(
            Kind::MethodNotAllowed,
            format!("this path has only {}", names.join(", ")),
        ));
    };
    let is_known = |name: &str| route.query.iter().any(|key| key.name == name);
    if let Some((unknown, _)) = request.query.iter().find(|(key, _)| !is_known(key)) {
        let known: Vec<&str> = route.query.iter().map(|key| key.name).collect();
        return Err(unknown_key(unknown, None, &known));
    }
    Ok((route, Call { root, request, who, values }))
}

/// The refusal of a query parameter, with the one that may have been meant and all that are known.
pub(super) fn unknown_key(key: &str, meant: Option<&str>, known: &[&str]) -> Error {
    let meant = meant.map_or("; ".into(), |meant| format!(": did you mean {meant:?}? "));
    let known = match known {
        [] => "this path takes none".to_string(),
        names => format!("known are {}", names.join(", ")),
    };
    Error::bad(format!("unknown query parameter {key:?}{meant}{known}"))
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn job_is_accepted_for_the_word_jobs_alone() {
        let fits = |pattern, path: &str| {
            let path: Vec<String> = path.split('/').map(String::from).collect();
            matches(pattern, &path).map_or("no".to_string(), |values| values.join(" "))
        };
        assert_eq!(fits("jobs/:id/status", "job/job/status"), "job");
        assert_eq!(fits(":name/jobs/:id", "job/job/1"), "job 1");
        assert_eq!(fits("nodes/:name", "nodes/job"), "job");
        assert_eq!(fits("queue", "job"), "no");
    }
}
