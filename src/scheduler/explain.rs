//! Node by node: whether a job could go there, and why it does not now. By the code that places.

use std::time::SystemTime;

use serde_json::{Map, Value, json};

use super::access;
use super::jobs::number;
use super::reason::{reason, told_reason};
use crate::attempts::{allocated, rooms};
use crate::auth::{self, Who};
use crate::board::cards::Cards;
use crate::board::root::Root;
use crate::board::{nodes, owners, pause};
use crate::cgi::{Call, Response};
use crate::clock;
use crate::error::{Error, Result};
use crate::model::access::{Need, Whose};
use crate::model::asked::Asked;
use crate::model::card::{Card, State};
use crate::model::ids;
use crate::model::node::Node;
use crate::model::request::Spec;
use crate::placement::Rooms;
use crate::placement::why::objection;

/// `GET jobs/N/explain`: why it waits, and what each node lacks; nothing of nodes where it does not wait.
pub fn explain(call: &Call) -> Result<Response> {
    let cards = Cards::new(call.root);
    let card = cards.find(number(call)?)?;
    let owner = owners::of(&cards, &card)?;
    let asked = card.spec.asked(owner.as_deref());
    let mut map = Map::new();
    map.insert("job".into(), card.job().into());
    map.insert("state".into(), card.state.word().into());
    if let Some(why) = told_reason(reason(call.root, &card)) {
        map.insert("reason".into(), why.into());
    }
    map.insert("asks".into(), asked.human().into());
    let told = match waits(&card) {
        true => told(call.root, &asked, Some(&card))?.collect(),
        false => Vec::new(),
    };
    map.insert("nodes".into(), Value::Array(told));
    Ok(Response::of(Value::Object(map)))
}

/// Whether it is, or some of its tasks are, to be placed.
fn waits(card: &Card) -> bool {
    matches!(card.state, State::Held | State::Queued) || card.is_waiting()
}

/// Each node's name, with what speaks against it.
fn told<'a>(
    root: &'a Root,
    asked: &'a Asked,
    card: Option<&'a Card>,
) -> Result<impl Iterator<Item = Value> + 'a> {
    let all = nodes::list(root)?;
    let rooms = rooms::of_cards(root, &all, usize::MAX)?;
    let paused = pause::read(root)?.map(|pause| pause.human());
    let capped = match paused {
        Some(why) => Some(why),
        None => allocated::at_cap(root, asked.user, asked.resources)?,
    };
    let avoid: Vec<String> = card
        .map_or(Vec::new(), |card| card.nodes_to_avoid().into_iter().map(str::to_string).collect());
    Ok(all.into_iter().map(move |node| {
        let mut map = Map::new();
        let against = against(asked, &node, rooms.as_ref(), card).or_else(|| capped.clone());
        map.insert("name".into(), node.name.clone().into());
        map.insert("now".into(), against.is_none().into());
        let never = allocated::cap(root).never(asked.resources.cores).is_some();
        map.insert("ever".into(), (asked.might_go_to(&node) && !never).into());
        let failed = || "it failed there: any other comes first".to_string();
        let against = against.or_else(|| avoid.contains(&node.name).then(failed));
        map.insert("objection".into(), json!(against));
        Value::Object(map)
    }))
}

fn against(
    asked: &Asked,
    node: &Node,
    rooms: Option<&Rooms>,
    card: Option<&Card>,
) -> Option<String> {
    objection(asked, node, rooms).or_else(|| {
        let until = card?.tasks.refused_until(&node.name, SystemTime::now())?;
        Some(format!("it refused the job, and is asked again at {}", clock::rfc3339(until)))
    })
}

/// `GET nodes/list`, for a job, or for a request: those that could have it at some time, with whether they
/// could now.
pub fn filter(call: &Call) -> Result<Option<Vec<Value>>> {
    let by_job = call.request.param("job");
    let by_text = call.request.param("json_data");
    let by_body = !call.request.body.is_none() && call.request.method == crate::cgi::Method::Post;
    if usize::from(by_job.is_some()) + usize::from(by_text.is_some()) + usize::from(by_body) > 1 {
        return Err(Error::bad("give one of job=, json_data= and a body"));
    }
    if let Some(text) = by_job {
        let job =
            ids::parse_number(text).ok_or_else(|| Error::bad("job must be a job's number"))?;
        let cards = Cards::new(call.root);
        let card = cards.find(job)?;
        if !access::sees(call, &cards, &card)? {
            auth::allow_to(call.who, Need::Read, Whose::Others)?; // they tell what it asks for
        }
        let owner = owners::of(&cards, &card)?;
        return fit(call.root, &card.spec.asked(owner.as_deref()), Some(&card)).map(Some);
    }
    let request: Value = match by_text {
        Some(text) => serde_json::from_str(text)
            .map_err(|e| Error::bad(format!("json_data is not JSON: {e}")))?,
        None if by_body => call.request.body.json(call.root)?,
        None => return Ok(None),
    };
    let spec = Spec::for_head(&request)?;
    fit(call.root, &spec.asked(user(call.who)), None).map(Some)
}

fn user(who: &Who) -> Option<&str> {
    who.user.as_deref()
}

fn fit(root: &Root, asked: &Asked, card: Option<&Card>) -> Result<Vec<Value>> {
    let told: Vec<Value> = told(root, asked, card)?.collect();
    let mut fit = Vec::new();
    for node in nodes::list(root)? {
        let Some(one) = told.iter().find(|one| one["name"] == *node.name) else { continue };
        if !node.is_open() || !asked.may_go_to(&node) {
            continue;
        }
        let mut shown = node.shown();
        if let Some(fields) = shown.as_object_mut() {
            fields.insert("now".into(), one["now"].clone());
            fields.insert("objection".into(), one["objection"].clone());
        }
        fit.push(shown);
    }
    Ok(fit)
}
