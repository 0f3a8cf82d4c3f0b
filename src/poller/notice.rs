//! Wake-ups from the board's directories, and from SIGTERM and SIGINT.

use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use nix::sys::inotify::AddWatchFlags;
use nix::sys::signal::{SigSet, Signal};

use super::Wake;
use crate::board::cards::Cards;
use crate::board::listing::card_number;
use crate::board::root::Root;
use crate::board::watch::Watch;
use crate::error::{At, Error, Kind, Result};
use crate::model::card::Column;

const STACK: usize = 128 << 10;

/// How long a wait for events lasts before it is begun again.
const ROUND: Duration = Duration::from_secs(30);

/// Blocks the signals that end the process, so that [`watch_signals`] can wait for them. Before
/// any thread is started: threads inherit it.
pub fn block_signals() -> Result<SigSet> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    set.add(Signal::SIGINT);
    set.thread_block().at("signals")?;
    Ok(set)
}

/// Turns the first of these signals into [`Wake::End`].
pub fn watch_signals(set: SigSet, wakes: &Sender<Wake>) -> Result<()> {
    let wakes = wakes.clone();
    spawn("signals", move || {
        while let Err(nix::Error::EINTR) = set.wait() {}
        let _ = wakes.send(Wake::End); // an engine that is gone has ended
    })
}

/// Watches the queue, the running cards and the nodes. Where the kernel gives no watches, the
/// scans do alone.
pub fn watch_board(root: &Root, wakes: &Sender<Wake>) -> Result<()> {
    let cards = Cards::new(root);
    let watch = Watch::new();
    let cards_change = AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MODIFY;
    let nodes_change = AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_DELETE;
    let watched = watch.add(&cards.column_path(Column::Queue), cards_change)
        && watch.add(&cards.column_path(Column::Running), AddWatchFlags::IN_MODIFY)
        && watch.add(&cards.nodes_path(), nodes_change);
    if !watched {
        eprintln!("poller: no inotify watches are to be had; going by scans alone");
        return Ok(());
    }
    let wakes = wakes.clone();
    spawn("board", move || {
        loop {
            let Ok(events) = watch.events(ROUND) else { return };
            for event in events {
                let wake = if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                    Wake::Overflow
                } else {
                    match event.name.as_ref().and_then(|name| name.to_str()) {
                        Some(name) if name.ends_with(".json") => Wake::Nodes,
                        Some(name) if name.ends_with(".batch") => Wake::Batch,
                        Some(name) => match card_number(name) {
                            Some(job) => Wake::Card(job),
                            None => continue,
                        },
                        None => continue,
                    }
                };
                if wakes.send(wake).is_err() {
                    return;
                }
            }
        }
    })
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    thread::Builder::new()
        .name(name.into())
        .stack_size(STACK)
        .spawn(work)
        .map(|_| ())
        .map_err(|e| Error::new(Kind::Unavailable, format!("no thread for {name}: {e}")))
}
