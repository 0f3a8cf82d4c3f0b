//! Wake-ups from the head's feed, from the records of nodes and partitions, and from SIGTERM and SIGINT.

use std::fs;
use std::path::PathBuf;
use std::sync::mpsc::{SendError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::inotify::{AddWatchFlags, InotifyEvent};
use nix::sys::signal::{SigSet, Signal};

use super::step::End;
use super::voice::Voice;
use super::wake::Wake;
use crate::board::card_tail::{News, Tail};
use crate::board::cards::Cards;
use crate::board::files::Version;
use crate::board::root::Root;
use crate::board::{files, partitions, pause};
use crate::error::{At, Error, Kind, Result};

const STACK: usize = 128 << 10;

/// How long a wait for events lasts before it is begun again.
const ROUND: Duration = Duration::from_secs(30);

/// The watches are looked at again after so long, at the next wake-up: the board may have been moved as a
/// whole, of which no directory of it is told.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Until it is tried again to follow what cannot be read.
const AFTER_TROUBLE: Duration = Duration::from_millis(500);

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

/// Follows the head's feed and watches the records of nodes and partitions. Where the kernel gives no watches it looks
/// every few milliseconds, and asks for some now and then.
pub fn watch_board(root: &Root, wakes: &Sender<Wake>) -> Result<()> {
    let (root, wakes) = (root.clone(), wakes.clone());
    let (begun, begins) = channel();
    spawn("board", move || {
        let mut notice = Notice::begin(&root);
        let _ = begun.send(()); // who waits for it has a deadline
        while notice.pass_on(&wakes).is_ok() {} // else nobody is there to be woken
    })?;
    // Before the first scan: nothing is between them. A scan follows if that takes longer.
    let _ = begins.recv_timeout(ROUND);
    Ok(())
}

/// What tells that a record may have changed: of the nodes, which these programs replace, when their directory
/// did.
#[derive(Default, PartialEq, Eq)]
struct Seen {
    nodes: Option<SystemTime>,
    partitions: Vec<(String, Option<Version>)>,
    paused: bool,
}

struct Notice<'r> {
    root: &'r Root,
    tail: Tail<'r>,
    /// The directories of the nodes' and the partitions' records.
    records: [PathBuf; 2],
    /// How these were when they were last looked at.
    seen: Seen,
    looked: Instant,
    told: bool,
    voice: Voice,
}

impl<'r> Notice<'r> {
    fn begin(root: &'r Root) -> Notice<'r> {
        let records = [Cards::new(root).nodes_path(), partitions::dir(root)];
        let (tail, looked) = (Tail::of_others(root), Instant::now());
        let mut notice = Notice {
            root,
            tail,
            records,
            seen: Seen::default(),
            looked,
            told: false,
            voice: Voice::new(true),
        };
        notice.watch_records();
        notice.seen = notice.look();
        notice
    }

    /// Watches the directories by their names: one that has come, also in the place of another, is watched from
    /// now on. What people edit may be written where it lies, linked, moved away, or closed to this process for a
    /// while.
    fn watch_records(&mut self) {
        let changes = AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_DELETE_SELF;
        let [nodes, partitions] = &self.records;
        self.tail.watch.add(nodes, changes);
        let hands = changes | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_FROM;
        let edits = AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_ATTRIB;
        self.tail.watch.add(partitions, hands | edits);
        // A pause, and the first of the partitions.
        self.tail.watch.add(files::parent(nodes), hands);
        if self.tail.watch.is_deaf() && !self.told {
            eprintln!("poller: no inotify watches are to be had; looking every few milliseconds");
        }
        self.told = self.tail.watch.is_deaf();
    }

    /// Says what went wrong, the same once a minute, and lets some time pass.
    fn pause_for(&mut self, error: Error) {
        self.voice.told::<()>(Err(error));
        thread::sleep(AFTER_TROUBLE);
    }

    fn look(&self) -> Seen {
        let nodes = fs::metadata(&self.records[0]).and_then(|meta| meta.modified()).ok();
        Seen {
            nodes,
            partitions: partitions::versions(self.root),
            paused: pause::is_paused(self.root),
        }
    }

    /// Whether this tells of a partition's record that somebody has made and not written yet.
    fn is_begun(&self, event: &InotifyEvent) -> bool {
        let Some(name) = &event.name else { return false };
        let is_empty =
            || fs::metadata(self.records[1].join(name)).is_ok_and(|meta| meta.len() == 0);
        event.mask.contains(AddWatchFlags::IN_CREATE) && is_empty()
    }

    /// Waits for something, and passes it on.
    fn pass_on(&mut self, wakes: &Sender<Wake>) -> std::result::Result<(), SendError<Wake>> {
        let events = self.tail.watch.events(ROUND).unwrap_or_else(|error| {
            self.pause_for(error);
            Vec::new()
        });
        let is_of = |event: &InotifyEvent, known: &str| {
            event.name.as_ref().is_some_and(|name| name.as_encoded_bytes() == known.as_bytes())
        };
        let is_record = |event: &InotifyEvent| {
            let name = event.name.as_ref().map(|name| name.as_encoded_bytes());
            name.is_some_and(|name| name.ends_with(b".json")) && !self.is_begun(event)
                || is_of(event, pause::NAME)
        };
        let mut records = events.iter().any(is_record);
        if events.iter().any(|event| is_of(event, partitions::DIR)) {
            self.watch_records(); // before they are looked at
            records = true;
        }
        if self.tail.watch.is_deaf() || self.looked.elapsed() >= LOOK_AGAIN {
            let seen = self.look();
            records |= seen != self.seen;
            self.seen = seen;
        }
        if records {
            wakes.send(Wake::Records)?;
        }
        if events.iter().any(|event| event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW)) {
            wakes.send(Wake::Overflow)?;
        }
        let news = self.tail.news().unwrap_or_else(|error| {
            self.pause_for(error);
            News { lost: true, ..News::default() }
        });
        if news.lost {
            wakes.send(Wake::Overflow)?;
        }
        if !news.jobs.is_empty() {
            self.tail.watch.quicken();
        }
        for job in news.jobs {
            wakes.send(Wake::Card(job))?;
        }
        if self.looked.elapsed() >= LOOK_AGAIN {
            self.looked = Instant::now();
            if self.tail.watch.is_deaf() {
                self.tail.watch_anew();
            }
            self.watch_records(); // they may have been moved, of which no directory in it is told
        }
        Ok(())
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    thread::Builder::new()
        .name(name.into())
        .stack_size(STACK)
        .spawn(work)
        .map(|_| ())
        .map_err(|e| Error::new(Kind::Unavailable, format!("no thread for {name}: {e}")))
}
