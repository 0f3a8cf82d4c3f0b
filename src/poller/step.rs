//! `--step` and `--pace`: shows each transition before it is made, for teaching.

use std::io::{self, BufRead};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::board::cards::Cards;
use crate::board::root::Root;
use crate::error::Result;
use crate::model::card::{Card, Column, Event, What};

/// How to go from one transition to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Without a stop and without a word.
    Run,
    /// After Enter.
    Enter,
    /// After a pause.
    Pace(Duration),
}

/// Most names of one directory in a shown tree.
const NAMES: usize = 8;

impl Step {
    /// Whether transitions are shown.
    pub fn is_shown(self) -> bool {
        self != Step::Run
    }

    /// Shows the lines that will be appended and the move that will be made, and waits.
    pub fn before(self, card: &Card, events: &[What]) {
        if events.is_empty() || !self.is_shown() {
            return;
        }
        let mut after = card.clone();
        let mut text = format!("\n--- job {}\n", card.job());
        let from = place(card.column(), card.job());
        for what in events {
            let event = Event::now(what.clone());
            if let Ok(Value::Object(line)) = serde_json::to_value(&event) {
                text.push_str(&format!("append to {from}:\n    {}\n", Value::Object(line)));
            }
            after.apply(event);
        }
        let to = place(after.column(), card.job());
        if from != to {
            text.push_str(&format!("rename:\n    {from} -> {to}\n"));
        }
        eprint!("{text}");
        match self {
            Step::Run => {}
            Step::Pace(pause) => thread::sleep(pause),
            Step::Enter => {
                eprint!("Enter to go on ");
                // End of input: nobody is there to press Enter; go on.
                let _ = io::stdin().lock().read_line(&mut String::new());
            }
        }
    }

    /// Shows the board as it is now.
    pub fn after(self, root: &Root) -> Result<()> {
        if !self.is_shown() {
            return Ok(());
        }
        let cards = Cards::new(root);
        let mut text = String::from("the board now:\n");
        for (name, column) in
            [("queue", Column::Queue), ("running", Column::Running), ("done", Column::Done)]
        {
            let mut jobs = cards.numbers(column)?;
            jobs.sort_unstable_by(|a, b| b.cmp(a));
            let more = jobs.len().saturating_sub(NAMES);
            jobs.truncate(NAMES);
            let mut names: Vec<String> = jobs.iter().map(|job| format!("{job}.job")).collect();
            if more > 0 {
                names.push(format!("and {more} more"));
            }
            text.push_str(&format!("    {name:<8}{}\n", names.join(" ")));
        }
        eprint!("{text}");
        Ok(())
    }
}

fn place(column: Column, job: u64) -> String {
    match column {
        Column::Queue => format!("queue/{job}.job"),
        Column::Running => format!("running/{job}.job"),
        Column::Done => format!("done/{}/{job}.job", job / crate::board::cards::DONE_SHARD),
    }
}
