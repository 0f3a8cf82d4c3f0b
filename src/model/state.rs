//! The states of a job, and the columns of cards in them.

use serde::{Deserialize, Serialize};

/// A directory in which cards lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Column {
    /// Waiting, held ones too.
    Queue,
    /// With a node: placed, running or stopping.
    Running,
    /// Stopped.
    Done,
}

/// Where a job is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Waits until somebody releases it.
    Held,
    /// Waits for a node.
    Queued,
    /// A node was chosen; it does not run yet.
    Placed,
    /// It runs.
    Running,
    /// It was killed, and its node has not reported the end.
    Stopping,
    /// It ended.
    Stopped,
}

impl State {
    /// The word, as in the API.
    pub fn word(self) -> &'static str {
        match self {
            State::Held => "held",
            State::Queued => "queued",
            State::Placed => "placed",
            State::Running => "running",
            State::Stopping => "stopping",
            State::Stopped => "stopped",
        }
    }

    /// Reads the word.
    pub fn parse(word: &str) -> Option<State> {
        [State::Held, State::Queued, State::Placed, State::Running, State::Stopping, State::Stopped]
            .into_iter()
            .find(|state| state.word() == word)
    }

    /// The column of cards in this state.
    pub fn column(self) -> Column {
        match self {
            State::Held | State::Queued => Column::Queue,
            State::Placed | State::Running | State::Stopping => Column::Running,
            State::Stopped => Column::Done,
        }
    }
}
