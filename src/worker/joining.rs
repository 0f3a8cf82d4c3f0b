//! This root becomes a node of the head, or says that it still is.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::heads::Head;
use crate::board::worker_state::WorkerState;
use crate::error::{Error, Kind, Result};

/// Between two tries, while no head answers.
const PAUSE: Duration = Duration::from_secs(2);

/// Registers this root; with a token for joining the one that it gives is kept, and presented from then on.
/// What the head refuses is an error; while nobody answers it is tried again, and told once.
pub(super) fn join(head: &Head, own: &WorkerState, given: &str, hostname: &str) -> Result<()> {
    let node = json!({
        "name": head.name(),
        "driver": "worker",
        "uri": format!("worker:{}", own.id()?),
        "hostname": hostname,
    });
    let mut told = false;
    let mut kept = own.token()?;
    loop {
        head.present(kept.clone().unwrap_or_else(|| given.to_string()));
        let error = match head.join(&node) {
            Ok(joined) => {
                if let Some(token) = joined.get("token").and_then(Value::as_str) {
                    own.keep_token(token)?; // before anything else: it is shown this once
                    head.present(token.to_string());
                }
                return Ok(());
            }
            // It may have been removed, and let in again.
            Err(error) if error.kind == Kind::Unauthorized && kept.take().is_some() => continue,
            Err(error) => error,
        };
        if !is_absence(&error) {
            return Err(error);
        }
        if !told {
            eprintln!("worker: {}; trying again", error.message);
        }
        told = true;
        head.try_next();
        thread::sleep(PAUSE);
    }
}

/// Whether the head may be there the next time.
pub(super) fn is_absence(error: &Error) -> bool {
    matches!(
        error.kind,
        Kind::GatewayTimeout
            | Kind::BadGateway
            | Kind::Unavailable
            | Kind::Shortage
            | Kind::Internal
    )
}
