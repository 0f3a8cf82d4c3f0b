//! What is said when a command that waits for a job is interrupted: the job goes on, and whoever pressed
//! Ctrl-C may want to find it again, or to end it.

use std::fs;
use std::thread;

use nix::sys::signal::{SigSet, Signal, raise};

use crate::cgi::Request;
use crate::error::{At, Result};

/// The same where the request is a command: over HTTP nobody presses anything.
pub fn of_request(request: &Request, job: u64) -> Result<()> {
    if request.command { tell_on_interrupt(job, None) } else { Ok(()) }
}

/// From now on SIGINT tells how to find the job and how to end it before it ends this process, as it
/// would have; in the root at this address, if it is one elsewhere. What this process starts is not kept from being interrupted: its signal mask is empty.
///
/// Where whoever started this has it ignored, as `nohup` and a shell's `&` have, it stays so.
pub fn tell_on_interrupt(job: u64, url: Option<&str>) -> Result<()> {
    if is_ignored() {
        return Ok(());
    }
    let again = url.map_or("scheduler".into(), |url| format!("scheduler --url {url}"));
    let mut interrupts = SigSet::empty();
    interrupts.add(Signal::SIGINT);
    interrupts.thread_block().at("SIGINT")?;
    let listens = thread::Builder::new()
        .stack_size(64 << 10)
        .spawn(move || {
            while interrupts.wait().is_err() {} // interrupted by another signal
            eprintln!(
                "scheduler: job {job} goes on: `{again} jobs {job}` shows it, `{again} jobs {job} update kill=1` ends it"
            );
            // As if it had come now: whoever started this sees what ended it.
            let _ = interrupts.thread_unblock().and_then(|()| raise(Signal::SIGINT));
        });
    if listens.is_err() {
        let _ = interrupts.thread_unblock(); // it ends the wait without a word
    }
    Ok(())
}

/// Whether SIGINT does nothing to this process. A signal that is blocked waits even then, and would be
/// found waiting.
fn is_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 << (Signal::SIGINT as i32 - 1) != 0)
}
