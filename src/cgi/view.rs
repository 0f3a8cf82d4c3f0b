//! How an answer is shown to a person at a terminal: as a table. What a program reads stays JSON.

use std::fmt::Write;
use std::ops::RangeInclusive;

use comfy_table::{Table, presets};
use serde_json::Value;

use super::route::Key;
use crate::model::resources::human_size;

/// Longest text of a cell, in characters: what is longer is cut, and is whole in the JSON.
const WIDEST: usize = 60;

/// The key by which a command is told how to print what it answers.
pub const FORMAT: Key =
    Key::new("format", "json|table", "how it is printed: a table on a terminal, else JSON");

/// The table of an answer.
pub struct View {
    /// The route's pattern; its method is GET.
    pub pattern: &'static str,
    /// Where the rows are in the answer, as a JSON pointer. One object there is shown field by field.
    pub rows: &'static str,
    /// The columns; those that no row has are left out.
    pub columns: &'static [Column],
    /// Whether the route has to be asked for JSON.
    pub is_text: bool,
}

/// What `-q` prints of an answer: of each thing in it one text.
pub struct Brief {
    /// The route's pattern.
    pub pattern: &'static str,
    /// JSON pointers into a thing: the first that is there counts.
    pub at: &'static [&'static str],
}

impl Brief {
    /// A line for each thing that an answer tells of: for itself, or for those that it lists.
    pub(super) fn lines(&self, answer: &Value) -> String {
        let listed = answer.as_array().or_else(|| answer.get("nodejobs")?.as_array());
        let things = listed.map_or(std::slice::from_ref(answer), Vec::as_slice);
        let text = |thing: &Value| {
            let found = self.at.iter().filter_map(|at| thing.pointer(at)).find(|v| !v.is_null());
            found.map_or("-".into(), plain)
        };
        things.iter().map(|thing| text(thing) + "\n").collect()
    }
}

/// One column.
pub struct Column {
    title: &'static str,
    /// JSON pointers into a row: the first that is there counts.
    at: &'static [&'static str],
    show: fn(&Value) -> String,
}

impl Column {
    /// One that shows what is there as it is.
    pub const fn new(title: &'static str, at: &'static [&'static str]) -> Column {
        Column { title, at, show: plain }
    }

    /// Of a number of bytes.
    pub const fn size(title: &'static str, at: &'static [&'static str]) -> Column {
        Column { title, at, show: size }
    }

    /// Of a time, to the second.
    pub const fn time(title: &'static str, at: &'static [&'static str]) -> Column {
        Column { title, at, show: time }
    }

    fn cell(&self, row: &Value) -> String {
        let found = self.at.iter().filter_map(|at| row.pointer(at)).find(|value| !value.is_null());
        found.map(self.show).unwrap_or_default()
    }
}

impl View {
    /// The table, each line ended; `None` for an answer of another form.
    pub(super) fn table(&self, answer: &Value) -> Option<String> {
        match answer.pointer(self.rows)? {
            Value::Array(rows) => Some(self.rows(rows)),
            Value::Object(fields) => {
                let width = fields.keys().map(|name| name.chars().count()).max().unwrap_or(0);
                let shown = fields.iter().filter(|(_, value)| !value.is_null());
                let mut text = String::new();
                for (name, value) in shown {
                    let _ = writeln!(text, "{name:<width$}  {}", plain(value)); // a String takes all
                }
                Some(text)
            }
            _ => None,
        }
    }

    fn rows(&self, rows: &[Value]) -> String {
        let cells: Vec<Vec<String>> = rows
            .iter()
            .map(|row| self.columns.iter().map(|c| cut(c.cell(row))).collect())
            .collect();
        let kept: Vec<usize> = (0..self.columns.len())
            .filter(|index| rows.is_empty() || cells.iter().any(|row| !row[*index].is_empty()))
            .collect();
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(kept.iter().map(|index| self.columns[*index].title));
        for row in &cells {
            table.add_row(kept.iter().map(|index| row[*index].as_str()));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let mut text = String::new();
        for line in table.lines() {
            let _ = writeln!(text, "{}", line.trim_end()); // a String takes all
        }
        text
    }
}

/// Texts as they are, lists by blanks. What a terminal would take for orders is shown, not carried out.
fn plain(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(all) => all.iter().map(plain).collect::<Vec<_>>().join(" "),
        Value::Object(fields) => {
            let pair = |(name, value): (&String, &Value)| format!("{name}={}", plain(value));
            fields.iter().map(pair).collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    };
    if !text.contains(is_order) {
        return text;
    }
    let shown = |c: char| if is_order(c) { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}

/// Whether a terminal shows no letter for it, but does something: moves, turns what follows around, hides.
fn is_order(c: char) -> bool {
    // Marks of direction, joiners and other signs without a width (Unicode, "Default_Ignorable").
    const UNSEEN: [RangeInclusive<char>; 5] = [
        '\u{ad}'..='\u{ad}',
        '\u{61c}'..='\u{61c}',
        '\u{200b}'..='\u{200f}',
        '\u{202a}'..='\u{202e}',
        '\u{2060}'..='\u{206f}',
    ];
    c.is_control() || c == '\u{feff}' || UNSEEN.iter().any(|signs| signs.contains(&c))
}

fn size(value: &Value) -> String {
    value.as_u64().map_or_else(|| plain(value), human_size)
}

/// `2026-01-31T12:00:00.123456Z` without what is behind the seconds.
fn time(value: &Value) -> String {
    let text = plain(value);
    match text.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => text,
    }
}

fn cut(text: String) -> String {
    match text.char_indices().nth(WIDEST) {
        None => text,
        Some(_) => text.chars().take(WIDEST - 1).chain(['…']).collect(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    const VIEW: View = View {
        pattern: "jobs",
        rows: "/jobs",
        columns: &[
            Column::new("JOB", &["/job"]),
            Column::new("NAME", &["/name"]),
            Column::size("MEMORY", &["/resources/memory"]),
            Column::time("CREATED", &["/at"]),
            Column::new("REASON", &["/reason", "/error"]),
        ],
        is_text: false,
    };

    #[test]
    fn rows_stand_below_their_titles() {
        let answer = json!({"jobs": [
            {"job": 7, "at": "2026-01-31T12:00:00.123456Z", "resources": {"memory": 1 << 30}},
            {"job": 12, "reason": null, "error": "the card is \u{1b}[31mdamaged\n"},
        ]});
        assert_eq!(
            VIEW.table(&answer).unwrap(),
            "JOB  MEMORY  CREATED               REASON\n\
             7    1 GiB   2026-01-31T12:00:00Z\n\
             12                                 the card is \\u{1b}[31mdamaged\\n\n"
        );
        // Nothing is listed, and that is seen.
        let none = VIEW.table(&json!({"jobs": []})).unwrap();
        assert_eq!(none, "JOB  NAME  MEMORY  CREATED  REASON\n");
        assert_eq!(VIEW.table(&json!({"error": "no"})), None);
        let turned = VIEW.table(&json!({"jobs": [{"name": "a\u{202e}b\u{200b}é"}]})).unwrap();
        assert_eq!(turned, "NAME\na\\u{202e}b\\u{200b}é\n");
        let long = "x".repeat(WIDEST + 1);
        let cut = VIEW.table(&json!({"jobs": [{"name": long}]})).unwrap();
        assert_eq!(cut.lines().nth(1).unwrap(), "x".repeat(WIDEST - 1) + "…");
    }

    #[test]
    fn in_brief_each_thing_has_a_line() {
        let brief = Brief { pattern: "jobs/new", at: &["/job", "/id"] };
        assert_eq!(brief.lines(&json!({"job": 7, "id": "x"})), "7\n");
        assert_eq!(brief.lines(&json!([{"job": 7}, {"id": "x"}])), "7\nx\n");
        assert_eq!(brief.lines(&json!({"nodejobs": [{"id": "x"}, {"id": null}]})), "x\n-\n");
        assert_eq!(brief.lines(&json!([])), "");
    }

    #[test]
    fn one_thing_is_shown_field_by_field() {
        let whole = View { rows: "", ..VIEW };
        let answer = json!({"state": "running", "node": null, "tasks": {"total": 3, "good": 1}});
        assert_eq!(whole.table(&answer).unwrap(), "state  running\ntasks  total=3 good=1\n");
    }
}
