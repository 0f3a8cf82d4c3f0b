//! The help of a place in a program's words: all of it comes from the tables of routes and of other
//! commands, and is put together when it is asked for.

use super::place::{Place, segments, shown};
use crate::cgi::program::Program;

/// Longest line of a help.
const WIDTH: usize = 80;

impl Place {
    /// The help of this place.
    pub fn help(&self) -> String {
        let mut command = self
            .command()
            .about(self.about())
            .override_usage(self.usage())
            .after_help(self.after_help());
        if let Some(keys) = self.keys_help() {
            command = command.before_help(keys);
        }
        command.render_help().to_string()
    }

    fn about(&self) -> String {
        if self.segments.is_empty() {
            return format!("{}: {}", self.program.name, self.program.about);
        }
        let several = self.routes().count() > 1;
        let mut lines: Vec<String> = self
            .routes()
            .map(|route| match several {
                true => format!("{}: {}", route.method.name(), route.help),
                false => route.help.to_string(),
            })
            .collect();
        lines.extend(self.special().map(|special| special.help.to_string()));
        if lines.is_empty() {
            lines.push("words that go on as below".into());
        }
        lines.join("\n")
    }

    fn usage(&self) -> String {
        if self.segments.is_empty() {
            return format!(
                "{} WORD... [KEY=VALUE...] [-X METHOD] [-d JSON | -d @FILE] [-q]",
                self.program.name
            );
        }
        let mut forms = Vec::new();
        if let Some(special) = self.special() {
            forms.push(format!("{self} {}", special.usage).trim_end().to_string());
        }
        if self.routes().next().is_some() {
            let keys = if self.keys().is_empty() { "" } else { " [KEY=VALUE...]" };
            let body = match self.routes().any(|route| route.body) {
                true => " [-d JSON | < FILE]",
                false => "",
            };
            forms.push(format!("{self}{keys}{body} [OPTION...]"));
        }
        if forms.is_empty() {
            forms.push(format!("{self} WORD..."));
        }
        forms.join("\n       ")
    }

    fn keys_help(&self) -> Option<String> {
        if self.segments.is_empty() {
            let what =
                "The words are the path of a request, KEY=VALUE its query; each has a --help.";
            return Some(what.into());
        }
        let keys = self.keys();
        let left: Vec<String> =
            keys.iter().map(|key| format!("{}={}", key.name, key.value)).collect();
        let width = left.iter().map(String::len).max()?;
        let lines =
            left.iter().zip(&keys).map(|(left, key)| format!("\n  {left:<width$}  {}", key.help));
        Some(format!("Keys:{}", lines.collect::<String>()))
    }

    /// Two lines for each thing that can be asked here, and more where its keys need them.
    fn lines(&self) -> String {
        let words = self.segments.iter().copied().map(shown).collect::<Vec<_>>().join(" ");
        let routes = self.routes().map(|route| {
            let keys = route.query.iter().map(|key| format!("[{}=]", key.name)).collect();
            (route.method.name(), keys, route.help)
        });
        let special = self.special().map(|own| ("", vec![own.usage.to_string()], own.help));
        let lines = routes.chain(special).map(|(method, ends, help)| {
            let first = wrapped(format!("  {method:<6} {words}"), &ends);
            format!("{}\n         {help}\n", first.trim_end())
        });
        lines.collect()
    }

    /// What is below, by sections, and what holds for all of it.
    fn after_help(&self) -> String {
        let mut text = String::new();
        for (index, (title, _)) in self.program.sections.iter().enumerate() {
            let is_listed = |pattern| section(self.program, pattern) == index;
            let lines: String = self
                .below()
                .into_iter()
                .filter(|pattern| is_listed(pattern))
                .map(|pattern| Place { segments: segments(pattern).collect(), ..*self }.lines())
                .collect();
            if !lines.is_empty() {
                text.push_str(&format!("{title}:\n{lines}\n"));
            }
        }
        if self.segments.is_empty() {
            text.push_str(
                "The root is that of --url, else CORKBOARD_ROOT, else CORKBOARD_URL (asked with\nCORKBOARD_TOKEN), else the directory above the program's own.\n",
            );
        }
        let epilogue = self.special().map_or("", |special| special.epilogue);
        text.push_str(match epilogue {
            "" => "Exit codes: 0 done, 1 refused or failed, 2 usage, 75 try again later.",
            own => own,
        });
        text
    }
}

/// A line with more at its end, or on lines below it where it would be too long.
fn wrapped(mut line: String, ends: &[String]) -> String {
    let mut length = line.len();
    for end in ends {
        let space = if length + 1 + end.len() > WIDTH { "\n         " } else { " " };
        length = end.len() + if space.len() > 1 { space.len() - 1 } else { length + 1 };
        line.push_str(space);
        line.push_str(end);
    }
    line
}

/// The section in whose list a pattern is: the one with the longest beginning that fits.
fn section(program: &Program, pattern: &'static str) -> usize {
    let fits = |start: &&'static str| {
        let mut words = segments(pattern);
        segments(start).all(|word| words.next() == Some(word))
    };
    let longest = |(index, (_, starts)): (usize, &(&str, &[&'static str]))| {
        starts
            .iter()
            .filter(|start| fits(start))
            .map(|start| segments(start).count())
            .max()
            .map(|n| (n, index))
    };
    let found = program.sections.iter().enumerate().filter_map(longest);
    found.max_by_key(|(length, _)| *length).map_or(0, |(_, index)| index)
}
