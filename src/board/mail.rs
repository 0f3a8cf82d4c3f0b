//! Orders to a worker, in its box ([`super::workers`]): `ask/ID` is one that waits, `got/ID` one that was handed
//! out and not answered. Both are requests to the processor there, one file each.
//!
//! An order that changes something is durable before the worker is rung for; that it was handed out is not
//! made durable. So one that lies in `ask/`, and was put there in this boot, was never handed out: nobody but
//! who holds the lock of the box moves it. Of one from another boot that is not known.
//!
//! What was handed out is handed out again until it is answered, unless the worker says that it has it. Ids
//! rise within a boot of the head, and a worker carries out orders as they are handed out, one after the
//! other: what it says of an attempt comes after all that was ordered of it before.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bell;
use super::files;
use super::lock::Lock;
use super::root::boot_id;
use super::uploads::Upload;
use super::workers::{WorkerBox, steady, steady_ms};
use crate::error::{At, Error, Kind, Result};
use crate::model::ids;
use crate::wire::run;
use crate::wire::worker::Order as Wire;

/// For so long the lock of a box is waited for by who has others to deal with.
const AN_INSTANT: Duration = Duration::from_millis(100);

/// Most orders in a box.
const MOST: usize = 1000;

/// Most of them that only ask: those of people, beside a head's own.
const MOST_QUESTIONS: usize = 64;

/// Most bytes of orders that are handed out at once; a longer one goes alone...
const MOST_BYTES: usize = 4 << 20;

/// ...and most runs of theirs.
const MOST_RUNS: usize = 500;

/// An order, as it lies in a box.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Order {
    /// The boot of the head in which it was put there.
    pub boot: String,
    /// `GET` or `POST`.
    pub method: String,
    /// Path and query, below `processor`.
    pub path: String,
    /// What is sent with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
    /// An attempt's request and its files, of which a form is made when the worker fetches it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form: Option<FormOf>,
    /// The attempts that it has run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<String>,
    /// Of one that only asks: when nobody waits for its answer any more, in milliseconds since this machine
    /// was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}

impl Order {
    /// A question, of which nobody wants to know the answer after so many milliseconds.
    pub fn question(method: &str, path: &str, within_ms: u64) -> Result<Order> {
        let until = Some(steady_ms()?.saturating_add(within_ms));
        Ok(Order { until, ..Order::change(method, path) })
    }

    /// One that changes something.
    pub fn change(method: &str, path: &str) -> Order {
        Order { method: method.to_string(), path: path.to_string(), ..Order::default() }
    }

    /// To run an attempt with its files.
    pub fn with_files(id: &str, request: &Value, files: &[Upload]) -> Result<Order> {
        // Random, so that no file can have been made with it inside.
        let boundary = files::random_hex::<16>()?;
        let form = FormOf { boundary, request: request.clone(), files: files.to_vec() };
        let order = Order::change("POST", run::PATH);
        Ok(Order { form: Some(form), runs: vec![id.to_string()], ..order })
    }

    /// Whether it changes nothing, so that it need not be kept.
    pub fn is_question(&self) -> bool {
        self.until.is_some()
    }

    fn is_over(&self, now: u64, boot: &str) -> bool {
        self.until.is_some_and(|until| until < now || self.boot != boot)
    }
}

/// What a form is made of; the files lie at the head.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FormOf {
    /// What stands between its parts.
    pub boundary: String,
    /// The request of the attempt.
    pub request: Value,
    /// Its files.
    pub files: Vec<Upload>,
}

/// What a claim gets.
#[derive(Debug)]
pub enum Handed {
    /// These, perhaps none.
    Orders(Vec<Wire>),
    /// A later claim has come.
    Superseded,
}

/// Whether an order lies here that can be read, or none any more.
pub(super) fn is_order(path: &Path) -> bool {
    match files::read(path) {
        Ok(Some(text)) => serde_json::from_slice::<Order>(&text).is_ok(),
        read => read.is_ok(),
    }
}

/// What the ids of orders begin with that are made now: nanoseconds since this machine was started.
fn stamp() -> Result<String> {
    Ok(format!("{:020}", steady()?.as_nanos()))
}

impl WorkerBox {
    /// The id of the next order.
    pub fn next_order(&self) -> Result<String> {
        Ok(format!("{}-{}", stamp()?, files::random_hex::<4>()?))
    }

    /// Puts an order into the box, and rings for the worker. One that changes something is durable then.
    /// 503 where there are too many.
    pub fn order(&self, id: &str, order: Order) -> Result<()> {
        self.make()?;
        let order = Order { boot: boot_id()?, ..order };
        let waiting = files::names(&self.path("ask"))?.len();
        let is_question = order.until.is_some();
        if waiting >= if is_question { MOST_QUESTIONS } else { MOST } {
            let why = format!("{waiting} orders wait for this worker already: try again later");
            return Err(Error::new(Kind::Unavailable, why));
        }
        let (path, bytes) = (self.path("ask").join(id), files::json_line(&order)?);
        if is_question {
            let prepared = self.tmp().join(files::random_name()?);
            files::create_secret(&prepared, &bytes)?;
            fs::rename(&prepared, &path).at(&path)?;
        } else {
            files::publish(&self.tmp(), &path, &bytes, true)?;
        }
        bell::ring(&self.path("bell"));
        Ok(())
    }

    /// Hands orders out to the claim of this turn: first again what was handed out and is not among those
    /// that the worker says it has, then what waits.
    pub fn hand_out(&self, turn: &str, have: &[String]) -> Result<Handed> {
        let _held = self.lock()?;
        if self.contact()?.is_none_or(|contact| contact.turn != turn) {
            return Ok(Handed::Superseded);
        }
        let (now, boot) = (steady_ms()?, boot_id()?);
        let (mut handed, mut bytes, mut runs) = (Vec::new(), 0, 0);
        for (place, id) in self.waiting(have)? {
            let path = self.path(place).join(&id);
            let Some(text) = files::read(&path)? else { continue };
            // One that cannot be read keeps no other; the check names it.
            let Ok(order) = serde_json::from_slice::<Order>(&text) else { continue };
            if order.is_over(now, &boot) {
                files::remove(&path)?;
                continue;
            }
            (bytes, runs) = (bytes + text.len(), runs + order.runs.len());
            if !handed.is_empty() && (bytes > MOST_BYTES || runs > MOST_RUNS) {
                break; // what comes after it must not overtake it
            }
            if place == "ask" {
                let got = self.path("got").join(&id);
                fs::rename(&path, &got).at(&got)?;
            }
            let Order { method, path, body, form, .. } = order;
            let type_of = |form: FormOf| format!("multipart/form-data; boundary={}", form.boundary);
            handed.push(Wire { order: id, method, path, body, fetch: form.map(type_of) });
        }
        Ok(Handed::Orders(handed))
    }

    /// Where orders lie that may be handed out, in the order in which they were put there: those of other
    /// boots first.
    fn waiting(&self, have: &[String]) -> Result<Vec<(&'static str, String)>> {
        let now = stamp()?;
        let mut all = Vec::new();
        for place in ["got", "ask"] {
            let mut names = files::names(&self.path(place))?;
            names.retain(|id| ids::is_valid(id) && !(place == "got" && have.contains(id)));
            all.extend(names.into_iter().map(|id| (place, id)));
        }
        // What is from a time yet to come is of another boot.
        all.sort_by(|(_, one), (_, other)| {
            let is_later = |id: &str| id.get(..20).is_some_and(|at| at > now.as_str());
            (!is_later(one), one).cmp(&(!is_later(other), other))
        });
        Ok(all)
    }

    /// An order is answered.
    pub fn is_answered(&self, id: &str) -> Result<()> {
        self.check(id)?;
        files::remove(&self.path("got").join(id))
    }

    /// What a form is made of that is sent with an order which was handed out; 404 for another one.
    pub fn form(&self, id: &str) -> Result<FormOf> {
        self.check(id)?;
        let text = files::read(&self.path("got").join(id))?;
        let order = text.and_then(|text| serde_json::from_slice::<Order>(&text).ok());
        let none = || Error::not_found(format!("{id} is no order with which something is sent"));
        order.and_then(|order| order.form).ok_or_else(none)
    }

    /// Takes back orders to run attempts that nobody has fetched for so long; the attempts. The worker has not
    /// seen these orders, and never will. Durable when this returns. One of another boot of the head is left
    /// where it is: it may have been handed out. None where somebody has the box just now.
    pub fn take_back_runs(&self, for_long: Duration) -> Result<Vec<String>> {
        let ask = self.path("ask");
        if files::names(&ask)?.is_empty() {
            return Ok(Vec::new()); // nor is there a box, perhaps
        }
        // Who asks must not wait for a worker's claim that is stopped: it looks again soon.
        let Some(_held) = Lock::try_take(&self.path("lock"))? else { return Ok(Vec::new()) };
        let (boot, now) = (boot_id()?, steady()?);
        let is_due = |id: &str| {
            let put = id.get(..20).and_then(|at| at.parse().ok()).map(Duration::from_nanos);
            put.is_some_and(|put| now.saturating_sub(put) >= for_long)
        };
        let mut taken = Vec::new();
        for id in files::names(&ask)?.into_iter().filter(|id| is_due(id)) {
            let path = ask.join(id);
            let order = files::read(&path)?.and_then(|text| serde_json::from_slice(&text).ok());
            let order = order.filter(|order: &Order| !order.runs.is_empty() && order.boot == boot);
            let Some(order) = order else { continue };
            files::remove(&path)?;
            taken.extend(order.runs);
        }
        if !taken.is_empty() {
            files::sync_dir(&ask)?;
        }
        Ok(taken)
    }

    /// Removes all orders to run attempts, which nobody may run any more. Durable when this returns. One that was
    /// handed out may be carried out yet.
    pub fn forget_runs(&self) -> Result<()> {
        for place in ["got", "ask"] {
            let dir = self.path(place);
            let names = files::names(&dir)?;
            if names.is_empty() {
                continue;
            }
            let _held = Lock::take_within(&self.path("lock"), AN_INSTANT)?;
            for path in names.into_iter().map(|id| dir.join(id)) {
                let order = files::read(&path)?.and_then(|text| serde_json::from_slice(&text).ok());
                if order.is_some_and(|order: Order| !order.runs.is_empty()) {
                    files::remove(&path)?;
                }
            }
            files::sync_dir(&dir)?;
        }
        Ok(())
    }

    /// Nobody waits any more for the answer to a question.
    pub fn take_back(&self, id: &str) -> Result<()> {
        let _held = self.lock()?;
        files::remove(&self.path("ask").join(id))?;
        files::remove(&self.path("got").join(id))
    }

    /// Refuses what is no order's id.
    pub(super) fn check(&self, id: &str) -> Result<()> {
        if ids::is_valid(id) { Ok(()) } else { Err(Error::bad(format!("{id:?} is no order"))) }
    }
}
