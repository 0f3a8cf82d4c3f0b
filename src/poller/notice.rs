//! Wake-ups from the board's directories, and from SIGTERM and SIGINT.

use std::sync::mpsc::{SendError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::inotify::{AddWatchFlags, InotifyEvent};
use nix::sys::signal::{SigSet, Signal};

use super::Wake;
use super::step::End;
use crate::board::cards::Cards;
use crate::board::listing::card_number;
use crate::board::root::Root;
use crate::board::watch::Watch;
use crate::error::{At, Error, Kind, Result};
use crate::model::card::Column;

const STACK: usize = 128 << 10;

/// How long a wait for events lasts before it is begun again.
const ROUND: Duration = Duration::from_secs(30);

/// While events come, the watches are looked at again after so long: the board may have been moved
/// as a whole, of which no directory of it is told.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Blocks the signals that end the process, so that [`watch_signals`] can wait for them. Before
/// any thread is started: threads inherit it.
pub fn block_signals() -> Result<SigSet> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    set.add(Signal::SIGINT);
    set.thread_block().at("signals")?;
    Ok(set)
}

/// Turns the first of these signals into [`Wake::End`], and ends a stop for a person to see.
pub fn watch_signals(set: SigSet, wakes: &Sender<Wake>, stop: End) -> Result<()> {
    let wakes = wakes.clone();
    spawn("signals", move || {
        while let Err(nix::Error::EINTR) = set.wait() {}
        stop.end();
        let _ = wakes.send(Wake::End); // an engine that is gone has ended
    })
}

/// Watches the queue, the running cards and the nodes. Where the kernel gives no watches, the
/// scans do alone, and it is asked again now and then.
pub fn watch_board(root: &Root, wakes: &Sender<Wake>) -> Result<()> {
    let mut watch = Watch::new();
    let mut watched = watch_all(root, &watch); // before the first scan: nothing is between them
    let (root, wakes) = (root.clone(), wakes.clone());
    spawn("board", move || {
        loop {
            if !watched {
                eprintln!("poller: no inotify watches are to be had; going by scans alone");
            }
            while !watched {
                thread::sleep(ROUND);
                watch = Watch::new();
                watched = watch_all(&root, &watch);
            }
            let mut looked = Instant::now();
            while watched {
                let Ok(events) = watch.events(ROUND) else { break };
                if pass_on(&events, &wakes).is_err() {
                    return; // nobody is there to be woken
                }
                if is_in_doubt(&events) || looked.elapsed() >= LOOK_AGAIN {
                    watched = watch_all(&root, &watch);
                    looked = Instant::now();
                }
            }
            watched = false;
        }
    })
}

/// Watches each directory by its name; `false` if that is not possible. One that is watched stays
/// so, and one that has come in the place of another is from now on.
fn watch_all(root: &Root, watch: &Watch) -> bool {
    let cards = Cards::new(root);
    let away = AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_DELETE_SELF;
    let cards_change = AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MODIFY;
    let nodes_change = AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_DELETE;
    watch.add(&cards.column_path(Column::Queue), cards_change | away)
        && watch.add(&cards.column_path(Column::Running), AddWatchFlags::IN_MODIFY | away)
        && watch.add(&cards.nodes_path(), nodes_change | away)
}

/// Whether a watched directory may have gone, or nothing came for so long that it is worth a look.
fn is_in_doubt(events: &[InotifyEvent]) -> bool {
    let gone = AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_IGNORED
        | AddWatchFlags::IN_UNMOUNT;
    events.is_empty() || events.iter().any(|event| event.mask.intersects(gone))
}

fn pass_on(
    events: &[InotifyEvent],
    wakes: &Sender<Wake>,
) -> std::result::Result<(), SendError<Wake>> {
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
        wakes.send(wake)?;
    }
    Ok(())
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    thread::Builder::new()
        .name(name.into())
        .stack_size(STACK)
        .spawn(work)
        .map(|_| ())
        .map_err(|e| Error::new(Kind::Unavailable, format!("no thread for {name}: {e}")))
}
