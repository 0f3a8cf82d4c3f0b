//! A node that nobody reaches asks for its orders (`nodes/NAME/claim`) and tells what came of them, and what
//! happened (`nodes/NAME/report`).

use std::io::{Cursor, Write};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::board::mail::Handed;
use crate::board::root::Root;
use crate::board::workers::{self, Session, WorkerBox};
use crate::board::{files, nodes, numbers, say, watch};
use crate::cgi::environment::var;
use crate::cgi::request::LONGEST_WAIT;
use crate::cgi::{Call, Response};
use crate::client::form::Form;
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::model::node::DriverKind;
use crate::settings::Settings;
use crate::wire::log;
use crate::wire::worker::{Answer, Claim, News, OFFSET, ORDER, Orders, STATUS};

/// Longest time between two looks for orders, whatever the bell says.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// `POST nodes/NAME/claim`: takes in news, and answers with orders when there are some, or when the wait is
/// over. The answer begins with an empty line as soon as the news is taken.
pub fn claim(call: &Call) -> Result<Response> {
    let claim: Claim = read(call)?;
    let place = place(call)?;
    check_root(call, &claim.news)?;
    let turn = place.enter(&session(&claim.news, claim.version), true)?;
    take(&place, claim.news)?;
    let settings = &call.root.settings;
    let most = longest_hold(settings);
    let deadline = Instant::now() + Duration::from_millis(claim.wait_ms).min(most);
    let (root, have) = (call.root.clone(), claim.have);
    Ok(Response::stream(
        "application/json",
        Box::new(move |out| {
            if out.write_all(b"\n").and_then(|()| out.flush()).is_err() {
                return Ok(()); // nobody gets any orders
            }
            let handed = wait(&place, &turn, &have, deadline)?;
            let orders = orders(&root, handed)?;
            let _ = tell(out, &orders); // what did not arrive is handed out again
            Ok(())
        }),
    ))
}

/// Waits for orders.
fn wait(place: &WorkerBox, turn: &str, have: &[String], deadline: Instant) -> Result<Handed> {
    let bell = place.bell()?; // before the first look: nothing falls between look and wait
    loop {
        if !watch::may_wait() {
            return Ok(Handed::Orders(Vec::new())); // the token is none any more
        }
        let handed = place.hand_out(turn, have)?;
        let left = deadline.saturating_duration_since(Instant::now());
        match &handed {
            Handed::Orders(orders) if orders.is_empty() && !left.is_zero() => {}
            _ => return Ok(handed),
        }
        bell.wait(left.min(LOOK_EVERY));
    }
}

fn orders(root: &Root, handed: Handed) -> Result<Orders> {
    let settings = &root.settings;
    let (orders, superseded) = match handed {
        Handed::Orders(orders) => (orders, false),
        Handed::Superseded => (Vec::new(), true),
    };
    Ok(Orders {
        orders,
        superseded,
        cluster: Some(numbers::cluster(root)?),
        ping_ms: longest_hold(settings).as_millis() as u64,
        silence_ms: settings.silence_timeout.as_millis() as u64,
        give_up_ms: give_up_after(settings).as_millis() as u64,
    })
}

/// The longest that a claim waits for orders. What a worker last heard may be twice as old by the time that it hears
/// more, and is not to be too old by then.
fn longest_hold(settings: &Settings) -> Duration {
    settings.ping_timer.min(LONGEST_WAIT).min(give_up_after(settings) / 3)
}

/// With an eighth of it, which is the longest that a job has between SIGTERM and SIGKILL then, this is over before
/// the head gives up what the worker has.
fn give_up_after(settings: &Settings) -> Duration {
    settings.give_up_after.min(settings.lost_after * 4 / 5)
}

fn tell(out: &mut dyn Write, value: &impl Serialize) -> Result<()> {
    let _ = out.write_all(&files::json_line(value)?).and_then(|()| out.flush()); // as above
    Ok(())
}

/// `GET nodes/NAME/claim?order=ID`: what is sent with an order, of one that says that it is fetched.
pub fn fetch(call: &Call) -> Result<Response> {
    let id = call.request.param(ORDER).ok_or_else(|| Error::bad("order= says which one"))?;
    let form = place(call)?.form(id)?;
    let form = Form::between(form.boundary, &form.request, &form.files);
    let length = form.length();
    Ok(Response::reader(Box::new(form), length))
}

/// `POST nodes/NAME/report`: takes in news; or, with `order=`, one answer by itself, of any length. 410
/// where nobody waits for that any more.
pub fn report(call: &Call) -> Result<Response> {
    let taken = Response::of(json!({"taken": true}));
    let place = place(call)?;
    let Some(id) = call.request.param(ORDER) else {
        let news: News = read(call)?;
        check_root(call, &news)?;
        place.enter(&session(&news, String::new()), false)?;
        let leaving = news.leaving;
        take(&place, news)?;
        if leaving {
            place.leave()?;
        }
        return Ok(taken);
    };
    let status = call.request.number::<u16>(STATUS)?.unwrap_or(200);
    let offset = call.request.number::<u64>(OFFSET)?;
    let headers = offset.map(|offset| (log::OFFSET.to_string(), offset.to_string()));
    let (length, mut body) = call.request.body.reader()?;
    let head = say::Head { status, headers: headers.into_iter().collect(), length };
    // Before anybody hears of it: an order that was refused must not go out again.
    place.is_answered(id)?;
    let given = say::give(&place, id, &head, &mut body)?;
    if given { Ok(taken) } else { Err(Error::new(Kind::Gone, "nobody waits for that answer")) }
}

fn read<T: DeserializeOwned>(call: &Call) -> Result<T> {
    let json = call.request.body.json(call.root)?;
    serde_json::from_value(json).map_err(|e| Error::bad(format!("that is no worker's news: {e}")))
}

/// The box of the worker that asks.
fn place(call: &Call) -> Result<WorkerBox> {
    let name = call.value(0);
    let node = nodes::read(call.root, name)?;
    node.for_use()?;
    if node.driver != DriverKind::Worker {
        return Err(Error::not_found(format!("node {name} is no worker")));
    }
    workers::of(call.root, name)
}

/// Refuses with 409 another root than the one that is registered.
fn check_root(call: &Call, news: &News) -> Result<()> {
    let name = call.value(0);
    let uri = nodes::read(call.root, name)?.uri;
    if uri.as_deref().and_then(|uri| uri.strip_prefix("worker:")) == Some(&news.root) {
        return Ok(());
    }
    Err(Error::conflict(format!("node {name} is registered as another root")))
}

fn session(news: &News, version: String) -> Session {
    Session {
        root: news.root.clone(),
        session: news.session.clone(),
        boot: news.boot.clone(),
        address: var("REMOTE_ADDR").unwrap_or_default(),
        since: clock::now(),
        version,
    }
}

/// Takes in what a worker tells. What it has told already changes nothing.
fn take(place: &WorkerBox, news: News) -> Result<()> {
    if let Some(info) = &news.info {
        place.keep_info(info)?;
    }
    place.tell(news.anew, &news.events)?;
    for Answer { order, status, headers, body } in news.answers {
        let body = files::json_line(&body)?;
        let head = say::Head { status, headers, length: body.len() as u64 };
        place.is_answered(&order)?; // first, as above
        say::give(place, &order, &head, &mut Cursor::new(body))?;
    }
    Ok(())
}
