//! What the node of an attempt is to be told to kill. Pure.

use crate::model::card::{Attempt, Card};
use crate::model::tasks::TaskSet;

/// Somebody's wish, as a node is told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KillOrder {
    /// Who asked.
    pub by: String,
    /// Of a range: only these tasks.
    pub tasks: Option<TaskSet>,
}

/// What of this attempt is to be killed: all of it, or tasks of a range, for each who asked.
pub fn wanted(card: &Card, attempt: &Attempt) -> Vec<KillOrder> {
    if let Some(by) = &card.stopping_by {
        return vec![KillOrder { by: by.clone(), tasks: None }];
    }
    let killers = card.tasks.killers.iter();
    killers
        .filter_map(|(by, tasks)| {
            let tasks = attempt.left.within(tasks);
            (!tasks.is_empty()).then(|| KillOrder { by: by.clone(), tasks: Some(tasks) })
        })
        .collect()
}
