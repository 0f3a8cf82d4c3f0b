//! The processor of a root that nobody reaches: what it is asked is put into its box on the board, from where it
//! is handed out when it asks for its orders, and its answer comes by a pipe to whoever waits for it here.
//!
//! Which of its orders stay in the box when nobody waits any more for their answers: those that change
//! something. They reach it when it asks again, before whatever is asked of it then.

use std::io::Read;
use std::time::{Duration, Instant};

use super::carrier::{Carrier, checked, read};
use super::{Run, longest_passing};
use crate::board::mail::Order;
use crate::board::root::Root;
use crate::board::say::{self, Waiting};
use crate::board::workers::{self, WorkerBox};
use crate::cgi::alarm;
use crate::client::server::{Head, Reply};
use crate::error::{Error, Kind, Result};
use crate::wire::ack;
use crate::wire::feed::{FeedPage, Since};
use crate::wire::node::Info;

/// Largest answer that is kept whole.
const LARGEST: u64 = 64 << 20;

/// How often it is looked whether the worker is still there, while it is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// See the module.
pub(super) struct Inbox {
    node: String,
    place: WorkerBox,
    patience: Duration,
}

impl Inbox {
    /// That of the worker of this node.
    pub(super) fn new(root: &Root, node: &str) -> Result<Inbox> {
        let place = workers::of(root, node)?;
        Ok(Inbox { node: node.to_string(), place, patience: root.settings.request_timeout })
    }

    /// Refuses with 504 to wait for a worker that does not ask.
    pub(super) fn is_in_touch(&self) -> Result<()> {
        match self.place.silence().map_err(own)? {
            None => Ok(()),
            Some(how) => Err(self.silent(&how)),
        }
    }

    fn silent(&self, how: &str) -> Error {
        Error::new(Kind::GatewayTimeout, format!("node {} {how}", self.node))
    }

    /// Puts an order into the box, and waits for the answer to begin.
    fn ask(&self, order: Order, patience: Duration) -> Result<(say::Head, say::Answer)> {
        self.is_in_touch().map_err(|silent| match order.runs.is_empty() {
            true => silent,
            // It has not got them, and will not: nothing is put there.
            false if silent.kind == Kind::GatewayTimeout => {
                Error { kind: Kind::Unavailable, ..silent }
            }
            false => silent,
        })?;
        let stays = !order.is_question();
        let runs = !order.runs.is_empty();
        let id = self.place.next_order().map_err(own)?;
        let waiting = Waiting::new(&self.place, &id).map_err(own)?;
        self.place.order(&id, order).map_err(|error| if runs { error } else { own(error) })?;
        let deadline = Instant::now() + patience;
        let answer = waiting.answer(|| {
            self.is_in_touch()?;
            match deadline.saturating_duration_since(Instant::now()) {
                Duration::ZERO => Err(self.silent("does not answer")),
                left => Ok(left.min(LOOK_EVERY)),
            }
        });
        if answer.is_err() && !stays {
            let _ = self.place.take_back(&id); // or it is over in time
        }
        // It may be fetched from now on: what goes wrong here is no word of the worker's.
        answer.map_err(own)
    }

    fn whole(&self, (head, answer): (say::Head, say::Answer)) -> Result<Reply> {
        if head.length > LARGEST {
            return Err(Error::new(
                Kind::BadGateway,
                format!("node {} answers too much", self.node),
            ));
        }
        let mut body = Vec::new();
        let came = answer.take(head.length).read_to_end(&mut body);
        came.map_err(|e| self.silent(&format!("broke off its answer: {e}")))?;
        let headers = head.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        checked(&self.node, Reply { head: Head::of(head.status, headers), body })
    }

    fn question(&self, method: &str, path: &str, patience: Duration) -> Result<Order> {
        Order::question(method, path, patience.as_millis() as u64)
    }
}

/// What is wrong with this root's own files says nothing of the worker: it has not refused anything, and is not silent.
fn own(error: Error) -> Error {
    match error.kind {
        Kind::Unavailable => Error { kind: Kind::Shortage, ..error },
        _ => error,
    }
}

impl Carrier for Inbox {
    fn node(&self) -> &str {
        &self.node
    }

    fn get(&self, path: &str) -> Result<Reply> {
        let patience = self.patience();
        self.whole(self.ask(self.question("GET", path, patience)?, patience)?)
    }

    fn fetch(&self, path: &str) -> Result<(Box<dyn Read>, u64)> {
        let patience = self.patience();
        let (head, answer) = self.ask(self.question("GET", path, patience)?, patience)?;
        if head.status == 200 {
            return Ok((Box::new(answer), head.length));
        }
        self.whole((head, answer))?;
        Err(super::carrier::nonsense(&self.node, "no file"))
    }

    fn post(&self, path: &str, json: &str, runs: &[&str]) -> Result<Reply> {
        let patience = self.patience();
        // That results are safe is told again where it has not arrived.
        let order = match path {
            ack::PATH => self.question("POST", path, patience)?,
            _ => Order::change("POST", path),
        };
        let unread = |e| Error::new(Kind::Internal, format!("cannot read JSON of ours: {e}"));
        let body = (!json.is_empty()).then(|| serde_json::from_str(json)).transpose();
        let runs = runs.iter().map(|run| run.to_string()).collect();
        let order = Order { body: body.map_err(unread)?, runs, ..order };
        self.whole(self.ask(order, patience)?)
    }

    fn send_with_files(&self, run: &Run) -> Result<Reply> {
        let bytes = run.uploads.iter().map(|upload| upload.size).sum();
        let order = Order::with_files(&run.id, &run.request, &run.uploads)?;
        self.whole(self.ask(order, self.patience() + longest_passing(bytes))?)
    }

    fn feed(&self, since: &Since) -> Result<FeedPage> {
        self.place.follow(&self.node, since.cursor, since.wait).map_err(own)
    }

    fn info(&self) -> Result<Info> {
        self.is_in_touch()?;
        match self.place.info().map_err(own)? {
            Some(said) => read(&self.node, Info::read(&said)),
            None => Err(self.silent("has not said what it has")),
        }
    }

    /// A request that this program answers itself comes to its end before its alarm.
    fn patience(&self) -> Duration {
        alarm::left().map_or(self.patience, |left| left.min(self.patience))
    }
}
