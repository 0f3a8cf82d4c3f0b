//! `--step` and `--pace`: shows each transition before it is made, and what the feed tells of it and of
//! what others do, for teaching.

use std::cell::RefCell;
use std::io::{self, BufRead};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::board::card_news;
use crate::board::cards::Cards;
use crate::board::root::Root;
use crate::error::{At, Result};
use crate::model::card::{Card, Column, Event, What};

/// Stops between transitions.
pub struct Step {
    how: How,
    keys: Receiver<Key>,
    ends: Sender<Key>,
    /// Up to where the feed has been shown.
    cursor: RefCell<Option<String>>,
}

/// How to go from one transition to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Without a stop and without a word.
    Run,
    /// After Enter. At the end of input nobody is there to press it, which is a request to end.
    Enter,
    /// After a pause.
    Pace(Duration),
}

/// What a person, or who ends the process, says meanwhile.
enum Key {
    Enter,
    End,
}

/// By which a stop of a [`Step`] is ended, and the process with it.
#[derive(Clone)]
pub struct End(Sender<Key>);

impl End {
    /// The transition that is shown is not made.
    pub fn end(&self) {
        let _ = self.0.send(Key::End); // nobody waits any more
    }
}

/// Most names of one directory in a shown tree.
const NAMES: usize = 8;

impl Step {
    /// Begins to listen where a person is to press Enter: not before signals are blocked.
    ///
    /// Errors: there is no thread for that.
    pub fn begin(how: How) -> Result<Step> {
        let (ends, keys) = channel();
        if how == How::Enter {
            let said = ends.clone();
            let keys = thread::Builder::new().name("keys".into());
            keys.spawn(move || listen(said)).at("standard input")?;
        }
        Ok(Step { how, keys, ends, cursor: RefCell::default() })
    }

    /// By which it is ended while it waits.
    pub fn end(&self) -> End {
        End(self.ends.clone())
    }

    /// Whether transitions are shown.
    pub fn is_shown(&self) -> bool {
        self.how != How::Run
    }

    /// Shows the lines that will be appended and the move that will be made, and waits. `false` if
    /// it is to end, and that not to be made.
    #[must_use]
    pub fn before(&self, card: &Card, events: &[What]) -> bool {
        if events.is_empty() || !self.is_shown() {
            return true;
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
        match self.how {
            How::Run => true,
            How::Pace(pause) => match self.keys.recv_timeout(pause) {
                Ok(Key::End) => false,
                Ok(Key::Enter) | Err(_) => true,
            },
            How::Enter => {
                eprint!("Enter to go on ");
                matches!(self.keys.recv(), Ok(Key::Enter))
            }
        }
    }

    /// From now on what the feed tells is shown.
    pub fn follow(&self, root: &Root) {
        if self.is_shown() {
            self.shown_of_feed(root);
        }
    }

    /// What the feed has told since the last time; nothing where that is not known.
    fn shown_of_feed(&self, root: &Root) -> Vec<String> {
        let mut cursor = self.cursor.borrow_mut();
        let page = card_news::read(root, cursor.as_deref(), Duration::ZERO);
        let page = page.or_else(|_| card_news::read(root, None, Duration::ZERO)).ok();
        *cursor = page.as_ref().map(|page| page.cursor.clone());
        page.into_iter().flat_map(|page| page.events).map(|told| told.line).collect()
    }

    /// Shows what the feed tells, and the board as it is now.
    pub fn after(&self, root: &Root) -> Result<()> {
        if !self.is_shown() {
            return Ok(());
        }
        let cards = Cards::new(root);
        let mut text = String::new();
        for line in self.shown_of_feed(root) {
            text.push_str(&format!("the feed tells:\n    {line}\n"));
        }
        text.push_str("the board now:\n");
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

fn listen(said: Sender<Key>) {
    let mut line = String::new();
    while matches!(io::stdin().lock().read_line(&mut line), Ok(1..)) {
        line.clear();
        if said.send(Key::Enter).is_err() {
            return;
        }
    }
    End(said).end();
}

fn place(column: Column, job: u64) -> String {
    match column {
        Column::Queue => format!("queue/{job}.job"),
        Column::Running => format!("running/{job}.job"),
        Column::Done => format!("done/{}/{job}.job", job / crate::board::cards::DONE_SHARD),
    }
}
