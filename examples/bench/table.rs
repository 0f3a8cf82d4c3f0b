//! Rows, their medians and spreads, and the table that they make.

use std::fmt::Write;

use serde_json::{Value, json};

/// What a case has to reach.
#[derive(Clone, Copy)]
pub enum Limit {
    /// At least: required, aim.
    AtLeast(f64, f64),
    /// At most: required, aim.
    AtMost(f64, f64),
}

impl Limit {
    fn verdict(self, reached: f64) -> &'static str {
        let (required, aim) = match self {
            Limit::AtLeast(required, aim) => (reached >= required, reached >= aim),
            Limit::AtMost(required, aim) => (reached <= required, reached <= aim),
        };
        match (required, aim) {
            (_, true) => "aim",
            (true, false) => "met",
            (false, false) => "MISSED",
        }
    }

    fn text(self) -> String {
        match self {
            Limit::AtLeast(required, aim) => format!(">= {} / {}", short(required), short(aim)),
            Limit::AtMost(required, aim) => format!("<= {} / {}", short(required), short(aim)),
        }
    }
}

struct Row {
    case: String,
    what: String,
    unit: &'static str,
    ours: f64,
    floor: Option<f64>,
    ratio: Option<f64>,
    spread: (f64, f64),
    limit: Option<Limit>,
    note: String,
}

/// The table of a run.
pub struct Table {
    machine: Vec<(&'static str, String)>,
    rounds: usize,
    quick: bool,
    load: String,
    rows: Vec<Row>,
    failed: Vec<(String, String)>,
}

/// The middle of these.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

fn spread(values: &[f64]) -> (f64, f64) {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    (least, values.iter().copied().fold(f64::NEG_INFINITY, f64::max))
}

/// As many digits as mean something.
fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 1000.0 => {
            let digits = format!("{value:.0}");
            let mut text = String::new();
            for (index, digit) in digits.chars().enumerate() {
                if index > 0 && (digits.len() - index).is_multiple_of(3) {
                    text.push(',');
                }
                text.push(digit);
            }
            text
        }
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 0.1 || v == 0.0 => {
            let text = format!("{value:.2}");
            text.strip_suffix('0').map_or(text.clone(), str::to_string)
        }
        _ => format!("{value:.3}"),
    }
}

impl Table {
    pub fn new(machine: Vec<(&'static str, String)>, rounds: usize, quick: bool) -> Table {
        let load = crate::machine::load();
        Table { machine, rounds, quick, load, rows: Vec::new(), failed: Vec::new() }
    }

    /// Ours and the floor, round by round; the ratio is ours by floor, its spread over the rounds.
    pub fn ratio(
        &mut self,
        case: &str,
        what: impl Into<String>,
        unit: &'static str,
        rounds: &[(f64, f64)],
        limit: Option<Limit>,
        note: impl Into<String>,
    ) {
        let ratios: Vec<f64> = rounds.iter().map(|(ours, floor)| ours / floor).collect();
        let ours: Vec<f64> = rounds.iter().map(|round| round.0).collect();
        let floor: Vec<f64> = rounds.iter().map(|round| round.1).collect();
        self.push(Row {
            case: case.into(),
            what: what.into(),
            unit,
            ours: median(&ours),
            floor: Some(median(&floor)),
            ratio: Some(median(&ratios)),
            spread: spread(&ratios),
            limit,
            note: note.into(),
        });
    }

    /// A figure that has no floor; the spread is its own.
    pub fn figure(
        &mut self,
        case: &str,
        what: impl Into<String>,
        unit: &'static str,
        values: &[f64],
        limit: Option<Limit>,
        note: impl Into<String>,
    ) {
        self.push(Row {
            case: case.into(),
            what: what.into(),
            unit,
            ours: median(values),
            floor: None,
            ratio: None,
            spread: spread(values),
            limit,
            note: note.into(),
        });
    }

    fn push(&mut self, row: Row) {
        eprintln!("bench:   {}", line(&row).join("  "));
        self.rows.push(row);
    }

    pub fn failed(&mut self, case: &str, why: &str) {
        self.failed.push((case.into(), why.into()));
    }

    pub fn finish(&mut self) {
        self.load = format!("{} before, {} after", self.load, crate::machine::load());
    }

    /// As a table in Markdown.
    pub fn text(&self) -> String {
        let head =
            ["case", "what", "unit", "ours", "floor", "ratio", "spread", "required / aim", ""]
                .map(String::from);
        let mut lines: Vec<[String; 9]> = vec![head];
        lines.extend(self.rows.iter().map(line));
        let widths: Vec<usize> = (0..9)
            .map(|column| lines.iter().map(|l| l[column].chars().count()).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for (index, line) in lines.iter().enumerate() {
            let cells: Vec<String> =
                line.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
            let _ = writeln!(text, "| {} |", cells.join(" | ")); // a String takes everything
            if index == 0 {
                let rules: Vec<String> = widths.iter().map(|&width| "-".repeat(width)).collect();
                let _ = writeln!(text, "| {} |", rules.join(" | "));
            }
        }
        text.push('\n');
        for (index, row) in self.rows.iter().filter(|row| !row.note.is_empty()).enumerate() {
            let _ = writeln!(text, "{}. {}, {}: {}", index + 1, row.case, row.what, row.note);
        }
        for (case, why) in &self.failed {
            let _ = writeln!(text, "NOT MEASURED {case}: {why}");
        }
        let _ =
            writeln!(text, "\nrounds: {}{}", self.rounds, if self.quick { " (quick)" } else { "" });
        for (name, value) in &self.machine {
            let _ = writeln!(text, "{name}: {value}");
        }
        let _ = writeln!(text, "load average: {}", self.load);
        text
    }

    pub fn json(&self) -> Value {
        let machine: serde_json::Map<String, Value> =
            self.machine.iter().map(|(name, value)| (name.to_string(), json!(value))).collect();
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                let limit = match row.limit {
                    Some(Limit::AtLeast(required, aim)) => {
                        json!({"at_least": required, "aim": aim})
                    }
                    Some(Limit::AtMost(required, aim)) => json!({"at_most": required, "aim": aim}),
                    None => Value::Null,
                };
                json!({
                    "case": row.case, "what": row.what, "unit": row.unit, "ours": row.ours,
                    "floor": row.floor, "ratio": row.ratio, "spread": [row.spread.0, row.spread.1],
                    "limit": limit, "verdict": verdict(row), "note": row.note,
                })
            })
            .collect();
        let failed: Vec<Value> =
            self.failed.iter().map(|(case, why)| json!({"case": case, "error": why})).collect();
        json!({
            "machine": machine, "load": self.load, "rounds": self.rounds, "quick": self.quick,
            "rows": rows, "failed": failed,
        })
    }
}

fn verdict(row: &Row) -> &'static str {
    row.limit.map_or("", |limit| limit.verdict(row.ratio.unwrap_or(row.ours)))
}

fn line(row: &Row) -> [String; 9] {
    [
        row.case.clone(),
        row.what.clone(),
        row.unit.to_string(),
        short(row.ours),
        row.floor.map(short).unwrap_or_default(),
        row.ratio.map(short).unwrap_or_default(),
        format!("{}..{}", short(row.spread.0), short(row.spread.1)),
        row.limit.map(Limit::text).unwrap_or_default(),
        verdict(row).to_string(),
    ]
}
