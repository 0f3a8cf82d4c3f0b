//! The line to one node: one thread follows its change feed, one carries out orders. A node that
//! is slow or gone holds up nobody else. What they learn goes to the engine as [`Wake`]s.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::Wake;
use crate::board::root::Root;
use crate::driver::{self, Driver, Info, Run};
use crate::error::{Error, Kind, Result};
use crate::model::node::{Address, Node};
use crate::model::tasks::TaskSet;

/// How long one request for the feed waits at the node. Short enough for every proxy.
const FEED_WAIT: Duration = Duration::from_secs(25);

/// Between two attempts to reach a node that does not answer; doubled up to [`SLOWEST_RETRY`].
const FIRST_RETRY: Duration = Duration::from_millis(250);

/// See [`FIRST_RETRY`].
const SLOWEST_RETRY: Duration = Duration::from_secs(5);

/// A page of the feed with more than so many lines comes from a busy node...
const BUSY: usize = 4;

/// ...where each question costs as much as a short job: the next one waits, so that its answer
/// has more to tell. Far shorter than the time for which jobs are sent ahead.
const GATHER: Duration = Duration::from_millis(20);

/// Stack of a link's thread: a thousand nodes are two thousand threads.
const STACK: usize = 256 << 10;

/// Who forbids the start of an attempt, as the node records it.
const FORBIDDEN_BY: &str = "the head, which places it elsewhere";

/// Something to ask of a node.
pub enum Order {
    /// Nothing yet: jobs are being placed there, and will be sent once that is durable.
    Prepare,
    /// Start these.
    Run(Vec<Run>),
    /// Say where these are.
    Status(Vec<String>),
    /// Say which there are that have not ended.
    List,
    /// Kill this one.
    Kill {
        /// Its id on the node.
        id: String,
        /// Between SIGTERM and SIGKILL.
        grace: Option<Duration>,
        /// Who asked.
        by: String,
        /// Of a range: only these tasks.
        tasks: Option<TaskSet>,
    },
    /// Forbid the start of this one, unless it is there.
    Forbid(String),
    /// These results are safe.
    Acknowledge(Vec<String>),
    /// Say whether you are there.
    Probe,
}

/// The line to a node. Dropped, its threads end after what they are doing.
pub struct Link {
    address: Address,
    orders: Option<Sender<Order>>,
    carrier: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Link {
    /// Opens the line. `once`: ask how the node is, and do not follow its feed.
    pub fn open(root: &Root, node: &Node, wakes: &Sender<Wake>, once: bool) -> Result<Link> {
        let stop = Arc::new(AtomicBool::new(false));
        let (orders, inbox) = channel();
        let name = node.name.clone();
        let thread = |what: &str| thread::Builder::new().name(what.into()).stack_size(STACK);
        let failed = |e: std::io::Error| {
            Error::new(Kind::Unavailable, format!("no thread for node {name}: {e}"))
        };
        let carrier = Carrier { line: Line::new(root, node), wakes: wakes.clone() };
        let follower =
            Follower { line: Line::new(root, node), wakes: wakes.clone(), stop: stop.clone() };
        let carrier = thread("orders").spawn(move || carrier.carry_out(&inbox)).map_err(failed)?;
        thread("feed").spawn(move || follower.follow(once)).map_err(failed)?;
        let address = node.address();
        Ok(Link { address, orders: Some(orders), carrier: Some(carrier), stop })
    }

    /// Where it leads: nothing goes anywhere else.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Gives an order. The answer comes as a wake-up.
    pub fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            let _ = orders.send(order); // the thread lives as long as this sender
        }
    }

    /// Waits until all orders are carried out; each of them has its own deadline.
    pub fn close(mut self) {
        self.orders = None;
        if let Some(carrier) = self.carrier.take() {
            let _ = carrier.join(); // a thread that died has told why on standard error
        }
    }
}

/// A node's driver, opened when it is needed, and anew after an error.
struct Line {
    root: Root,
    node: Node,
    driver: RefCell<Option<Box<dyn Driver>>>,
}

impl Line {
    fn new(root: &Root, node: &Node) -> Line {
        Line { root: root.clone(), node: node.clone(), driver: RefCell::new(None) }
    }

    fn name(&self) -> String {
        self.node.name.clone()
    }

    fn ask<T>(&self, question: impl FnOnce(&dyn Driver) -> Result<T>) -> Result<T> {
        let driver = match self.driver.take() {
            Some(driver) => driver,
            None => driver::open(&self.root, &self.node)?,
        };
        let answer = question(driver.as_ref());
        if answer.is_ok() {
            self.driver.replace(Some(driver));
        }
        answer
    }
}

struct Carrier {
    line: Line,
    wakes: Sender<Wake>,
}

impl Carrier {
    fn carry_out(&self, inbox: &Receiver<Order>) {
        let mut waiting: Option<Order> = None;
        while let Some(order) = waiting.take().or_else(|| inbox.recv().ok()) {
            let wake = match order {
                Order::Prepare => {
                    let prepare = |driver: &dyn Driver| {
                        driver.prepare();
                        Ok(())
                    };
                    let _ = self.line.ask(prepare); // the jobs' own order tells what is wrong
                    continue;
                }
                Order::Run(mut runs) => {
                    while let Ok(next) = inbox.try_recv() {
                        match next {
                            Order::Run(more) => runs.extend(more),
                            Order::Prepare => {} // they travel with these
                            other => {
                                waiting = Some(other);
                                break;
                            }
                        }
                    }
                    let ids = runs.iter().map(|run| run.id.clone()).collect();
                    let results = self.line.ask(|driver| driver.run(runs));
                    Wake::Sent { node: self.line.name(), ids, results }
                }
                Order::Status(ids) => {
                    let answers = self.line.ask(|driver| driver.statuses(&ids));
                    Wake::Statuses { node: self.line.name(), ids, answers }
                }
                Order::List => match self.line.ask(|driver| driver.unfinished()) {
                    Ok(ids) => Wake::Listed { node: self.line.name(), ids },
                    Err(_) => continue, // asked again with everything else
                },
                Order::Kill { id, grace, by, tasks } => {
                    let tasks = tasks.as_ref();
                    let status =
                        self.line.ask(|driver| driver.kill(&id, grace, &by, tasks).map(Box::new));
                    Wake::Killed { node: self.line.name(), id, status }
                }
                Order::Forbid(id) => {
                    let answer = self.line.ask(|driver| driver.forbid(&id, FORBIDDEN_BY));
                    Wake::Forbidden { node: self.line.name(), id, answer }
                }
                Order::Probe => match self.line.ask(|driver| driver.info()) {
                    Ok(Info { resources }) => Wake::Up { node: self.line.name(), resources },
                    Err(error) => Wake::Down { node: self.line.name(), error },
                },
                Order::Acknowledge(ids) => {
                    // One that gets lost costs the node some disk for a while, no more.
                    let _ = self.line.ask(|driver| driver.acknowledge(&ids));
                    continue;
                }
            };
            if self.wakes.send(wake).is_err() {
                return;
            }
        }
    }
}

struct Follower {
    line: Line,
    wakes: Sender<Wake>,
    stop: Arc<AtomicBool>,
}

impl Follower {
    fn follow(&self, once: bool) {
        let mut cursor: Option<String> = None;
        let mut pause = FIRST_RETRY;
        while !self.stop.load(Ordering::Relaxed) {
            let wake = match self.step(&mut cursor) {
                Ok(Wake::Feed { node, events }) if events.len() > BUSY => {
                    pause = FIRST_RETRY;
                    if self.wakes.send(Wake::Feed { node, events }).is_err() {
                        return;
                    }
                    thread::sleep(GATHER);
                    continue;
                }
                Ok(wake) => {
                    pause = FIRST_RETRY;
                    wake
                }
                Err(e) if e.kind == Kind::Gone && cursor.is_some() => {
                    cursor = None; // another epoch: begin anew, and let the engine ask
                    continue;
                }
                Err(error) => {
                    if self.wakes.send(self.down(error)).is_err() || once {
                        return;
                    }
                    thread::sleep(pause);
                    pause = (pause * 2).min(SLOWEST_RETRY);
                    cursor = None;
                    continue;
                }
            };
            if self.wakes.send(wake).is_err() || once {
                return;
            }
        }
    }

    /// One question: without a cursor how the node is, and where its feed stands; then the feed.
    fn step(&self, cursor: &mut Option<String>) -> Result<Wake> {
        let node = self.line.name();
        if cursor.is_none() {
            // The cursor first: what happens after it is in the feed, what happened before it
            // the engine learns by asking for every job it has there.
            let page = self.line.ask(|driver| driver.feed(None, Duration::ZERO))?;
            let Info { resources } = self.line.ask(|driver| driver.info())?;
            *cursor = Some(page.cursor);
            return Ok(Wake::Up { node, resources });
        }
        let page = self.line.ask(|driver| driver.feed(cursor.as_deref(), FEED_WAIT))?;
        *cursor = Some(page.cursor);
        Ok(Wake::Feed { node, events: page.events })
    }

    fn down(&self, error: Error) -> Wake {
        Wake::Down { node: self.line.name(), error }
    }
}
