//! Follows this machine's own feed, and tells the head what heads follow of other nodes.

use std::thread;
use std::time::Duration;

use super::outbox::Outbox;
use crate::board::root::Root;
use crate::error::{Kind, Result};
use crate::processor::report;
use crate::wire::feed::Since;

/// How long it is waited for something to happen.
const WAIT: Duration = Duration::from_secs(25);

/// Until what cannot be read is tried again.
const AFTER_TROUBLE: Duration = Duration::from_millis(500);

/// Never ends.
pub(super) fn run(root: &Root, outbox: &Outbox) {
    let mut cursor = None;
    loop {
        if let Err(error) = follow(root, outbox, &mut cursor) {
            if error.kind != Kind::Gone {
                eprintln!("worker: what happens here cannot be followed: {}", error.message);
            }
            cursor = None;
            thread::sleep(AFTER_TROUBLE);
        }
    }
}

fn follow(root: &Root, outbox: &Outbox, cursor: &mut Option<String>) -> Result<()> {
    let Some(since) = cursor else {
        // The cursor first: what happened before it the head learns by asking.
        let page = report::feed(root, &Since { cursor: None, wait: Duration::ZERO })?;
        outbox.begin_anew();
        *cursor = Some(page.cursor);
        return Ok(());
    };
    let page = report::feed(root, &Since { cursor: Some(since), wait: WAIT })?;
    *cursor = Some(page.cursor);
    if !page.events.is_empty() {
        outbox.tell_events(page.events);
    }
    Ok(())
}
