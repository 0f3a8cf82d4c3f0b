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

use super::line::Line;
use super::lookups::{self, Lookups};
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

/// Who wants to know that a node answers, and listens to it from then on.
pub trait Listener: Send + Sync {
    /// The line to the node.
    fn line(&self) -> &Arc<Line>;

    /// The node answers: it is listened to from now on, and not asked any more.
    ///
    /// Errors: there is no thread for that to be had.
    fn answered(self: Arc<Self>) -> Result<()>;
}

/// Somebody who waits for a node to answer.
type Waiter = Arc<dyn Listener>;

/// What is found out: the node of this one is being asked, or was not to be found.
type Found = (Waiter, Result<Option<Knock>>);

/// See the module.
#[derive(Default)]
pub struct Silent {
    threads: [Mutex<Option<Doorbell>>; THREADS],
    lookups: Arc<Lookups>,
}

/// What a thread is given nodes by.
struct Doorbell {
    waiters: Sender<Waiter>,
    bell: Arc<EventFd>,
}

impl Silent {
    /// From now on it is found out whether this one's node answers, until it does.
    ///
    /// Errors: there is no thread for it to be had.
    pub fn add(&self, waiter: Waiter) -> Result<()> {
        let line = waiter.line();
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
        let sent = doorbell.waiters.send(waiter).is_ok();
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
    let (waiters, inbox) = channel();
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
    Ok(Doorbell { waiters, bell })
}

struct Asker {
    inbox: Receiver<Waiter>,
    lookups: Arc<Lookups>,
    /// Where what was looked up is told.
    finds: Sender<Found>,
    found: Receiver<Found>,
    bell: Arc<EventFd>,
    at_a_time: usize,
    /// Those that are to be asked at some time.
    waiting: Vec<(Instant, Waiter)>,
    /// How many are being looked up.
    looked_up: usize,
    asked: Vec<(Knock, Waiter)>,
}

impl Asker {
    fn run(mut self) {
        loop {
            self.take_in();
            let now = Instant::now();
            self.waiting.retain(|(_, waiter)| !waiter.line().is_closed());
            self.asked.retain(|(_, waiter)| !waiter.line().is_closed());
            self.waiting.sort_by_key(|(due, _)| std::cmp::Reverse(*due));
            while self.asked.len() < self.at_a_time
                && let Some((_, waiter)) = self.waiting.pop_if(|(due, _)| *due <= now)
            {
                let line = waiter.line();
                if lookups::has_name(line.node()) {
                    self.look_up(waiter);
                } else {
                    let knock = driver::knock(line.root(), line.node());
                    self.begun((waiter, knock));
                }
            }
            let happened = self.wait();
            let asked = std::mem::take(&mut self.asked).into_iter();
            for ((mut knock, waiter), happened) in asked.zip(happened) {
                let is_due = happened || knock.deadline() <= Instant::now();
                match is_due.then(|| knock.step()).flatten() {
                    None => self.asked.push((knock, waiter)),
                    Some(Ok(())) => self.answered(waiter),
                    Some(Err(error)) => {
                        let error = driver::unanswered(waiter.line().node(), &error);
                        self.failed(waiter, error);
                    }
                }
            }
        }
    }

    fn take_in(&mut self) {
        let _ = self.bell.read(); // rung or not
        while let Ok(waiter) = self.inbox.try_recv() {
            self.put_off(waiter);
        }
        while let Ok(found) = self.found.try_recv() {
            self.looked_up -= 1;
            self.begun(found);
        }
    }

    /// Asks a node once it is found.
    fn look_up(&mut self, waiter: Waiter) {
        let (finds, bell) = (self.finds.clone(), self.bell.clone());
        let (line, own) = (waiter.line().clone(), waiter.clone());
        let tell = move |knock| {
            let _ = finds.send((own, knock)); // this thread never ends
            let _ = bell.write(1); // as above
        };
        match self.lookups.begin(line, tell) {
            Ok(()) => self.looked_up += 1,
            Err(error) => self.failed(waiter, error),
        }
    }

    /// A node is being asked, or cannot be.
    fn begun(&mut self, (waiter, knock): Found) {
        match knock {
            Ok(Some(knock)) => self.asked.push((knock, waiter)),
            Ok(None) => self.answered(waiter),
            Err(error) => self.failed(waiter, error),
        }
    }

    fn put_off(&mut self, waiter: Waiter) {
        let all = u32::try_from(self.waiting.len() + self.looked_up + self.asked.len())
            .unwrap_or(u32::MAX);
        let due = waiter.line().backoff().next(Instant::now(), all);
        self.waiting.push((due, waiter));
    }

    fn answered(&mut self, waiter: Waiter) {
        if let Err(error) = waiter.clone().answered() {
            self.failed(waiter, error);
        }
    }

    fn failed(&mut self, waiter: Waiter, error: Error) {
        if waiter.line().failed(error) {
            self.put_off(waiter);
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
