//! What a node is to be told and asked, carried out one order after the other by a thread that is
//! there while there are any.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::line::{Line, Open, ask};
use super::wake::News;
use crate::driver::{Driver, Run};
use crate::model::ids::{NodejobId, RunId};
use crate::model::kill::Wish;

/// How long the thread stays for the next order.
const LINGER: Duration = Duration::from_secs(1);

/// At the end of the poller what has not begun within this time is not done any more: the next one asks
/// for everything, and begins anew.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// Who forbids the start of an attempt, as the node records it.
const FORBIDDEN_BY: &str = "the head, which places it elsewhere";

/// Something to ask of a node.
pub enum Order {
    /// Nothing yet: jobs are being placed there, and will be sent once that is durable.
    Prepare,
    /// Start these.
    Run(Vec<(NodejobId, Run)>),
    /// Say where these are.
    Status(Vec<NodejobId>),
    /// Say which there are that have not ended.
    List,
    /// Kill this one.
    Kill(NodejobId, Wish),
    /// Forbid the start of this one, unless it is there.
    Forbid(NodejobId),
    /// These results are safe.
    Acknowledge(Vec<NodejobId>),
}

/// See the module.
pub struct Desk {
    line: Arc<Line>,
    /// What its thread is called.
    name: &'static str,
    /// Whether orders to run that wait are carried out as one.
    gathers: bool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    orders: VecDeque<Order>,
    at_work: bool,
    /// From then on nothing is begun.
    over: Option<Instant>,
    /// Kept for the next thread: it knows where the node was found.
    driver: Open,
}

impl Desk {
    /// A desk for what takes no longer than an answer.
    pub fn new(name: &'static str, line: Arc<Line>) -> Arc<Desk> {
        Desk::with(name, line, true)
    }

    /// A desk for what takes long: each order is told of when it is carried out.
    pub fn slow(name: &'static str, line: Arc<Line>) -> Arc<Desk> {
        Desk::with(name, line, false)
    }

    fn with(name: &'static str, line: Arc<Line>, gathers: bool) -> Arc<Desk> {
        let (state, changed) = (Mutex::default(), Condvar::new());
        Arc::new(Desk { line, name, gathers, state, changed })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an order after the others. `false` if it is answered together with one that waits: a
    /// node that takes its time is not asked the same again and again.
    pub fn put(self: &Arc<Desk>, order: Order) -> bool {
        let mut state = self.state();
        let is_new = enqueue(&mut state.orders, order);
        drop(state);
        self.changed.notify_one();
        self.tend();
        is_new
    }

    /// Sees to it that orders are carried out.
    pub fn tend(self: &Arc<Desk>) {
        let mut state = self.state();
        if state.at_work || state.orders.is_empty() {
            return;
        }
        state.at_work = true;
        drop(state);
        let own = self.clone();
        if let Err(error) = self.line.spawn(self.name, move || own.work()) {
            self.state().at_work = false;
            self.line.tell(News::Down(error));
        }
    }

    /// From now on there is little time to begin anything.
    pub fn end(&self) {
        self.state().over.get_or_insert_with(|| Instant::now() + CLOSE_WITHIN);
        self.changed.notify_all();
    }

    /// Waits until all orders are carried out, but for those that a node keeps waiting for long.
    pub fn close(&self) {
        self.end();
        let mut state = self.state();
        while state.at_work {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if !state.orders.is_empty() {
            state.at_work = true;
            drop(state);
            self.work(); // there was no thread for it
        }
    }

    fn work(&self) {
        let mut driver = self.state().driver.take();
        while let Some(order) = self.next(&mut driver) {
            if let Some(news) = carry_out(order, &self.line, &mut driver)
                && !self.line.tell(news)
            {
                self.state().orders.clear(); // nobody is there who wants to know
            }
        }
    }

    /// The next order; without one for a while the end of the work.
    fn next(&self, driver: &mut Open) -> Option<Order> {
        let mut state = self.state();
        if state.orders.is_empty() && !self.line.is_closed() {
            let none = |state: &mut State| state.orders.is_empty() && !self.line.is_closed();
            let waited = self.changed.wait_timeout_while(state, LINGER, none);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.over.is_some_and(|over| over <= Instant::now()) {
            state.orders.clear();
        }
        let Some(mut order) = state.orders.pop_front() else {
            (state.at_work, state.driver) = (false, driver.take());
            self.changed.notify_all();
            return None;
        };
        if let Order::Run(runs) = &mut order
            && self.gathers
        {
            while let Some(Order::Run(_) | Order::Prepare) = state.orders.front() {
                if let Some(Order::Run(more)) = state.orders.pop_front() {
                    runs.extend(more);
                }
            }
        }
        Some(order)
    }
}

/// Puts an order after the others, or a question about jobs together with one that waits as the last
/// order; `false` then. None that was given after that one is overtaken.
fn enqueue(orders: &mut VecDeque<Order>, order: Order) -> bool {
    match (order, orders.back_mut()) {
        (Order::Status(ids), Some(Order::Status(asked))) => {
            let known: BTreeSet<NodejobId> = asked.iter().cloned().collect();
            asked.extend(ids.into_iter().filter(|id| !known.contains(id)));
            false
        }
        (order, _) => {
            orders.push_back(order);
            true
        }
    }
}

fn carry_out(order: Order, line: &Line, driver: &mut Open) -> Option<News> {
    Some(match order {
        Order::Prepare => {
            let prepare = |driver: &dyn Driver| {
                driver.prepare();
                Ok(())
            };
            let _ = ask(line, driver, prepare); // the jobs' own order tells what is wrong
            return None;
        }
        Order::Run(runs) => {
            let (ids, runs) = runs.into_iter().unzip();
            let results = ask(line, driver, |driver| driver.run(runs));
            News::Sent { ids, results }
        }
        Order::Status(ids) => {
            let answers = ask(line, driver, |driver| driver.statuses(&runs(&ids)));
            News::Statuses { ids, answers }
        }
        Order::List => News::Listed(ask(line, driver, |driver| driver.unfinished())),
        Order::Kill(id, wish) => {
            let status = ask(line, driver, |driver| driver.kill(&wish)).map(Box::new);
            News::Killed { id, status }
        }
        Order::Forbid(id) => {
            let answer = ask(line, driver, |driver| driver.forbid(&id, FORBIDDEN_BY));
            News::Forbidden { id, answer }
        }
        Order::Acknowledge(ids) => {
            let acknowledged = ask(line, driver, |driver| driver.acknowledge(&runs(&ids)));
            News::Unacknowledged { ids, error: acknowledged.err()? }
        }
    })
}

/// Attempts as they are on their node, among other runs.
fn runs(ids: &[NodejobId]) -> Vec<RunId> {
    ids.iter().map(|id| id.run().clone()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn questions_that_wait_are_one() {
        let id = |job: &u64| NodejobId::new("c", *job, 1).unwrap();
        let ask = |jobs: &[u64]| Order::Status(jobs.iter().map(id).collect());
        let mut orders = VecDeque::new();
        assert!(enqueue(&mut orders, ask(&[1, 2])));
        assert!(!enqueue(&mut orders, ask(&[2, 3])));
        assert!(enqueue(&mut orders, Order::Forbid(id(&1))));
        assert!(enqueue(&mut orders, ask(&[1])), "what was ordered before comes before");
        let Some(Order::Status(asked)) = orders.front() else { panic!("not a question") };
        assert_eq!(asked.iter().map(|id| id.job).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(orders.len(), 3);
    }
}
