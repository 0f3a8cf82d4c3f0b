//! Why a job is where it is: every job that waits has a reason, worked out when somebody asks, so
//! that a hundred thousand waiting cards cost nothing to keep up to date.

use std::time::SystemTime;

use crate::board::nodes;
use crate::board::poller_lock;
use crate::board::root::Root;
use crate::clock;
use crate::error::Result;
use crate::model::card::{Card, State, What};
use crate::placement;

/// The reason, for a person; `None` for a job that simply runs or ended well.
pub fn reason(root: &Root, card: &Card) -> Result<Option<String>> {
    if let Some(why) = card.newer_reason() {
        return Ok(Some(why));
    }
    match card.state {
        State::Stopped => Ok(card.outcome.as_ref().and_then(|o| o.reason.clone())),
        State::Held => Ok(Some(held(card))),
        State::Queued => queued(root, card).map(Some),
        State::Placed | State::Running | State::Stopping => with_node(root, card),
    }
}

fn held(card: &Card) -> String {
    let by = card.events.iter().rev().find_map(|event| match &event.what {
        What::Held { by } => Some(by.as_str()),
        _ => None,
    });
    format!("held by {} until released", by.unwrap_or(&card.accepted.by))
}

fn queued(root: &Root, card: &Card) -> Result<String> {
    if !poller_lock::is_held(root)? {
        return Ok("no poller is running".into());
    }
    let refused = card.array.iter().flat_map(|array| array.refused.values()).min();
    let why = match card.not_before.or(refused.copied()) {
        Some(time) if time > SystemTime::now() => {
            format!("waiting until {}", clock::rfc3339(time))
        }
        _ => placement::why_waiting(&card.spec.resources, &nodes::list(root)?),
    };
    Ok(match &card.requeue_reason {
        Some(before) => format!("{why} ({before})"),
        None => why,
    })
}

fn with_node(root: &Root, card: &Card) -> Result<Option<String>> {
    let mut first = None;
    for attempt in card.with_nodes() {
        let trouble = match nodes::find(root, &attempt.node)? {
            Some(node) => node.trouble(),
            None => Some(format!("node {} is not registered any more", attempt.node)),
        };
        if trouble.is_some() {
            return Ok(trouble);
        }
        first.get_or_insert(attempt);
    }
    let Some(attempt) = first else { return Ok(None) };
    let poller = poller_lock::is_held(root)?;
    Ok(match card.state {
        _ if !poller => Some("no poller is running".into()),
        State::Placed => Some(format!("waiting for room on {}", attempt.node)),
        State::Stopping => Some(format!("waiting for {} to report the end", attempt.node)),
        _ => None,
    })
}
