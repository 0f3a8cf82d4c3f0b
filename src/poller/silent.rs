//! Nodes that do not answer, or have not been asked yet: a few threads find out whether they do.
//!
//! A node that answers has a thread of its own, which waits for what happens there. A thousand that
//! do not answer are a thousand connections that are being opened, and no more: none of them holds
//! up another, and none of them a node that answers.

use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::link::Line;
use super::lookups::{self, Found, Lookups};
use crate::client::knock::Knock;
use crate::descriptors;
use crate::driver;
use crate::error::{Error, Kind, Result};

/// Threads. None of them waits for anything but all that it has asked.
const THREADS: usize = 4;

/// Stack of one.
const STACK: usize = 256 << 10;

/// Most nodes that one thread asks at a time; each takes a descriptor...
const AT_A_TIME: usize = 256;

/// ...of which all these threads leave most to those that answer, and to the board.
const SHARE: usize = 4 * THREADS;

/// Between two attempts to reach a node; doubled up to [`SLOWEST_RETRY`].
const FIRST_RETRY: Duration = Duration::from_millis(250);

/// See [`FIRST_RETRY`]. With many nodes it is longer, so that each thread asks no more than a few in
/// a second.
const SLOWEST_RETRY: Duration = Duration::from_secs(2);

/// The longest pause for a node that has answered in between.
const FLAPPING_RETRY: Duration = Duration::from_secs(1);

/// How many that are.
const ASKED_PER_SECOND: u32 = 12;

/// After so long without trouble a node is asked at once.
const FORGOTTEN: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Default)]
pub struct Silent {
    threads: [Mutex<Option<Doorbell>>; THREADS],
    lookups: Arc<Lookups>,
}

/// What a thread is given nodes by.
struct Doorbell {
    lines: Sender<Arc<Line>>,
    bell: Arc<EventFd>,
}

/// How long it is waited before a node is asked again.
#[derive(Debug, Default)]
pub struct Backoff {
    pause: Option<Duration>,
    answers_since: Option<Instant>,
}

impl Backoff {
    /// It answers now.
    pub fn answers(&mut self) {
        self.answers_since.get_or_insert_with(Instant::now);
    }

    /// When it is to be asked (again): at once if it has answered for a while, or never was asked.
    fn next(&mut self, now: Instant, slowest: Duration) -> Instant {
        let answered = self.answers_since.take();
        let slowest = if answered.is_some() { FLAPPING_RETRY } else { slowest };
        let forgotten = answered.is_some_and(|since| now > since + FORGOTTEN);
        let pause = match self.pause.filter(|_| !forgotten) {
            None => Duration::ZERO,
            Some(pause) => (pause * 2).clamp(FIRST_RETRY, slowest),
        };
        self.pause = Some(pause);
        // Spread, for those that fell silent together.
        now + pause + pause / 32 * u32::from(random_byte(now) % 8)
    }
}

fn random_byte(now: Instant) -> u8 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(now) as u8
}

impl Silent {
    /// From now on it is found out whether this node answers; then its line is followed.
    ///
    /// Errors: there is no thread for it to be had.
    pub fn add(&self, line: Arc<Line>) -> Result<()> {
        let number = line.name().bytes().fold(0_usize, |sum, byte| sum + usize::from(byte));
        let mut thread =
            self.threads[number % THREADS].lock().unwrap_or_else(PoisonError::into_inner);
        let doorbell = match thread.take() {
            Some(doorbell) => doorbell,
            None => start(&self.lookups).map_err(|error| {
                let name = line.name();
                Error::new(Kind::Shortage, format!("no thread to ask node {name}: {error}"))
            })?,
        };
        let sent = doorbell.lines.send(line).is_ok();
        let _ = doorbell.bell.write(1); // fails only if it has been rung 2^64 times
        if sent {
            *thread = Some(doorbell);
            return Ok(());
        }
        Err(Error::new(Kind::Shortage, "the thread that asks silent nodes has died"))
    }
}

fn start(lookups: &Arc<Lookups>) -> io::Result<Doorbell> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let bell = Arc::new(EventFd::from_value_and_flags(0, flags)?);
    let (lines, inbox) = channel();
    let (finds, found) = channel();
    let asker = Asker {
        inbox,
        lookups: lookups.clone(),
        finds,
        found,
        bell: bell.clone(),
        at_a_time: (descriptors::most() / SHARE).clamp(1, AT_A_TIME),
        waiting: Vec::new(),
        looked_up: 0,
        asked: Vec::new(),
    };
    thread::Builder::new().name("silent".into()).stack_size(STACK).spawn(move || asker.run())?;
    Ok(Doorbell { lines, bell })
}

struct Asker {
    inbox: Receiver<Arc<Line>>,
    lookups: Arc<Lookups>,
    /// Where what was looked up is told.
    finds: Sender<Found>,
    found: Receiver<Found>,
    bell: Arc<EventFd>,
    at_a_time: usize,
    /// Those that are to be asked at some time.
    waiting: Vec<(Instant, Arc<Line>)>,
    /// How many are being looked up.
    looked_up: usize,
    asked: Vec<(Knock, Arc<Line>)>,
}

impl Asker {
    fn run(mut self) {
        loop {
            self.take_in();
            let now = Instant::now();
            self.waiting.retain(|(_, line)| !line.is_closed());
            self.asked.retain(|(_, line)| !line.is_closed());
            self.waiting.sort_by_key(|(due, _)| std::cmp::Reverse(*due));
            while self.asked.len() < self.at_a_time
                && let Some((_, line)) = self.waiting.pop_if(|(due, _)| *due <= now)
            {
                if lookups::has_name(line.node()) {
                    self.look_up(line);
                } else {
                    let knock = driver::knock(line.root(), line.node());
                    self.begun((line, knock));
                }
            }
            let happened = self.wait();
            let asked = std::mem::take(&mut self.asked).into_iter();
            for ((mut knock, line), happened) in asked.zip(happened) {
                let is_due = happened || knock.deadline() <= Instant::now();
                match is_due.then(|| knock.step()).flatten() {
                    None => self.asked.push((knock, line)),
                    Some(Ok(())) => self.answered(line),
                    Some(Err(error)) => {
                        let error = driver::unanswered(line.node(), &error);
                        self.failed(line, error);
                    }
                }
            }
        }
    }

    fn take_in(&mut self) {
        let _ = self.bell.read(); // rung or not
        while let Ok(line) = self.inbox.try_recv() {
            self.put_off(line);
        }
        while let Ok(found) = self.found.try_recv() {
            self.looked_up -= 1;
            self.begun(found);
        }
    }

    /// Asks a node once it is found.
    fn look_up(&mut self, line: Arc<Line>) {
        let (finds, bell) = (self.finds.clone(), self.bell.clone());
        let tell = move |found| {
            let _ = finds.send(found); // this thread never ends
            let _ = bell.write(1); // as above
        };
        match self.lookups.begin(line.clone(), tell) {
            Ok(()) => self.looked_up += 1,
            Err(error) => self.failed(line, error),
        }
    }

    /// A node is being asked, or cannot be.
    fn begun(&mut self, (line, knock): Found) {
        match knock {
            Ok(Some(knock)) => self.asked.push((knock, line)),
            Ok(None) => self.answered(line),
            Err(error) => self.failed(line, error),
        }
    }

    fn put_off(&mut self, line: Arc<Line>) {
        let all = u32::try_from(self.waiting.len() + self.looked_up + self.asked.len())
            .unwrap_or(u32::MAX);
        let slowest = SLOWEST_RETRY.max(Duration::from_secs(1) * all / ASKED_PER_SECOND);
        let due = line.backoff().next(Instant::now(), slowest);
        self.waiting.push((due, line));
    }

    fn answered(&mut self, line: Arc<Line>) {
        if let Err(error) = line.follow() {
            self.failed(line, error);
        }
    }

    fn failed(&mut self, line: Arc<Line>, error: Error) {
        if line.failed(error) {
            self.put_off(line);
        }
    }

    /// Waits for something to do; on which of the connections something happened.
    fn wait(&self) -> Vec<bool> {
        let has_room = self.asked.len() < self.at_a_time;
        let dues = self.waiting.iter().map(|(due, _)| *due).filter(|_| has_room);
        let deadlines = self.asked.iter().map(|(knock, _)| knock.deadline());
        let next = dues.chain(deadlines).min();
        let left = next.map(|next| next.saturating_duration_since(Instant::now()));
        // Rounded up: what is due then is due.
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = vec![PollFd::new(self.bell.as_fd(), PollFlags::POLLIN)];
        let asked = self.asked.iter();
        fds.extend(asked.map(|(knock, _)| PollFd::new(knock.as_fd(), knock.waits_for())));
        if poll(&mut fds, timeout).is_err() {
            thread::sleep(Duration::from_millis(10)); // interrupted, or the kernel has no memory
        }
        fds[1..].iter().map(|fd| fd.any().unwrap_or(true)).collect()
    }
}
