//! Carries out what is ordered, by the processor's own routes. What changes something, and what asks where
//! attempts are, is done in the order in which it was ordered, one after the other: what is said of an attempt
//! comes after all that was ordered of it before, and that is what makes it safe to send it again. Only
//! questions for logs and files, which are long, go beside it.
//!
//! What is to be run is begun only as long as the head is heard of as when it ordered it, see [`super::heard`].

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use serde_json::{Value, json};

use super::fetched::{Broke, Fetched};
use super::heads::Head;
use super::heard::{Heard, Spell};
use super::outbox::Outbox;
use crate::auth::Who;
use crate::board::root::Root;
use crate::cgi::body::Body;
use crate::cgi::request::parse_query;
use crate::cgi::response::Content;
use crate::cgi::{self, Method, Request, Response};
use crate::client::server;
use crate::error::{At, Error, Kind, Result};
use crate::model::proof::KEY_VARIABLE;
use crate::processor;
use crate::wire::log::OFFSET;
use crate::wire::run;
use crate::wire::worker::{Answer, Order, SMALL};

/// Threads for what is long.
const THREADS: usize = 8;

/// An order, and when it was got.
pub(super) struct Got {
    pub order: Order,
    pub spell: Spell,
}

/// See the module.
pub(super) struct Orders {
    pub root: Root,
    pub head: Arc<Head>,
    pub heard: Arc<Heard>,
    pub outbox: Arc<Outbox>,
}

impl Orders {
    /// Carries out what comes.
    pub(super) fn run(self, orders: Receiver<Got>) -> Result<()> {
        let own = Arc::new(self);
        let beside = own.clone().beside()?;
        for got in orders {
            if !is_long(&got.order) {
                own.carry_out(got);
            } else if let Err(unsent) = beside.send(got) {
                own.carry_out(unsent.0);
            }
        }
        Ok(())
    }

    /// Threads that carry out what is long.
    fn beside(self: Arc<Orders>) -> Result<Sender<Got>> {
        let (sender, inbox) = channel();
        let inbox = Arc::new(Mutex::new(inbox));
        for _ in 0..THREADS {
            let (own, inbox) = (self.clone(), inbox.clone());
            let work = move || {
                loop {
                    let next = inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(order) = next else { return };
                    own.carry_out(order);
                }
            };
            thread::Builder::new().name("questions".into()).spawn(work).at("threads")?;
        }
        Ok(sender)
    }

    fn carry_out(&self, got: Got) {
        let id = got.order.order.clone();
        if runs(&got.order) && !self.heard.is_yet(got.spell) {
            return self.outbox.let_go(&id); // it is handed out again, if the head has not given it up
        }
        let response = self.answer(got).unwrap_or_else(|error| Response::error(&error));
        let told = self.tell(&id, response).unwrap_or(false);
        if !told {
            self.outbox.let_go(&id); // it is handed out again, unless nobody waits for it
        }
    }

    fn answer(&self, Got { order, spell }: Got) -> Result<Response> {
        let Order { order, method, path, body, fetch } = order;
        let method = Method::parse(&method).ok_or_else(|| Error::bad("an unknown method"))?;
        let (path, query) = path.split_once('?').unwrap_or((&path, ""));
        let (body, broke) = match (body, fetch) {
            (None, None) => (Body::None, Broke::default()),
            (Some(body), _) => {
                let body = self.made_reachable(path, body).to_string();
                (Body::Bytes(body.into()), Broke::default())
            }
            (None, Some(content_type)) => {
                let fetched = Fetched::of(&order, &self.head, &self.heard, spell);
                let (content, length, broke) = fetched.map_err(unknown)?;
                (Body::stream(content_type, length, Box::new(content)), broke)
            }
        };
        let path = path.split('/').map(str::to_string).collect();
        let request = Request::from_words(method, path, parse_query(query), body);
        // With the settings as they are now.
        let root = Root::open(self.root.dir()).unwrap_or_else(|_| self.root.clone());
        let answer = cgi::answer(&processor::PROGRAM, &root, &request, &Who::of_worker());
        if broke.off() { answer.map_err(unknown) } else { answer }
    }

    /// Jobs reach the head where this worker does.
    fn made_reachable(&self, path: &str, mut body: Value) -> Value {
        if path == run::PATH {
            let url = json!(programs(self.head.url()));
            for request in body.as_array_mut().into_iter().flatten() {
                let environment = request.get_mut("environment").and_then(Value::as_object_mut);
                if let Some(environment) = environment.filter(|all| all.contains_key(KEY_VARIABLE))
                {
                    environment.insert("CORKBOARD_URL".into(), url.clone());
                }
            }
        }
        body
    }

    /// Gives the answer; `false` where it has not arrived.
    fn tell(&self, id: &str, response: Response) -> Result<bool> {
        let status = response.status.0;
        let offset = response.headers.iter().find(|(name, _)| *name == OFFSET);
        let offset = offset.map(|(_, value)| value.clone());
        let by_itself = |body: server::Body| {
            let said = (status, offset.as_deref());
            Ok(self.head.answer(id, said, body).is_ok() && {
                self.outbox.let_go(id);
                true
            })
        };
        let value = match response.content {
            Content::Value(value) => value,
            Content::Bytes(bytes) => return by_itself(server::Body::Bytes(&bytes)),
            Content::Reader(mut reader, length) => {
                return by_itself(server::Body::Reader(&mut reader, length));
            }
            Content::Stream(stream) => {
                let mut bytes = Vec::new();
                stream(&mut bytes)?;
                return by_itself(server::Body::Bytes(&bytes));
            }
        };
        let wrong = |e: serde_json::Error| Error::bad(format!("cannot write JSON: {e}"));
        let line = value.line().map_err(wrong)?;
        if line.len() > SMALL {
            return by_itself(server::Body::Bytes(&line));
        }
        let body = value.value().map_err(wrong)?;
        let headers = offset.map(|offset| (OFFSET.to_string(), offset)).into_iter().collect();
        self.outbox.tell_answer(Answer { order: id.to_string(), status, headers, body });
        Ok(true)
    }
}

/// What is wrong with what the head sends refuses no order: it may have been carried out before.
fn unknown(error: Error) -> Error {
    Error { kind: Kind::GatewayTimeout, ..error }
}

/// Whether an order is to run something.
fn runs(order: &Order) -> bool {
    order.path == run::PATH
}

/// Whether an order may take long, and changes nothing but by itself.
fn is_long(order: &Order) -> bool {
    let path = order.path.split('?').next().unwrap_or("");
    let mut words = path.split('/').skip(2);
    let is_question = matches!(words.next(), Some("log" | "files"));
    order.fetch.is_some() || order.method == "GET" && is_question
}

/// Where the programs of a root at this address are.
fn programs(url: &str) -> String {
    let (server, base) = crate::client::names::programs_of(url);
    format!("{server}{base}")
}
