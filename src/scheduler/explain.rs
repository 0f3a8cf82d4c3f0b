//! Node by node: whether a job could go there, and why it does not now. By the code that places.

use std::time::SystemTime;

use serde_json::{Map, Value, json};

use super::access;
use super::entry::enter;
use super::jobs::number;
use super::reason::{Reasons, told_reason};
use crate::attempts::allocated::{self, Allocated, MOST};
use crate::attempts::waits::Nodes;
use crate::auth;
use crate::board::cards::Cards;
use crate::board::partitions::Partitions;
use crate::board::root::Root;
use crate::board::{owners, pause};
use crate::cgi::{Call, Response};
use crate::clock;
use crate::error::{Error, Result};
use crate::model::access::{Need, Whose};
use crate::model::asked::Asked;
use crate::model::card::{Card, State};
use crate::model::ids;
use crate::model::node::Node;
use crate::model::request::Spec;
use crate::placement::why::{Seen, objection};

/// `GET jobs/N/explain`: why it waits, and what each node lacks; nothing of nodes where it does not wait.
pub fn explain(call: &Call) -> Result<Response> {
    let cards = Cards::new(call.root);
    let card = cards.find(number(call)?)?;
    let owner = owners::of(&cards, &card)?;
    let reasons = Reasons::with(call.root, Allocated::read(call.root, MOST)?);
    let (partition, closed) = reasons.partition_of(&card);
    let asked = card.spec.asked(owner.as_deref(), partition.as_deref());
    let mut map = Map::new();
    map.insert("job".into(), card.job().into());
    map.insert("state".into(), card.state.word().into());
    if let Some(why) = told_reason(reasons.of(&card)) {
        map.insert("reason".into(), why.into());
    }
    map.insert("asks".into(), asked.human().into());
    let told = match waits(&card) {
        true => told(call.root, &asked, closed, (Some(&card), reasons.seen(&card)?), &reasons)?,
        false => Vec::new(),
    };
    map.insert("nodes".into(), json!(told));
    Ok(Response::of(Value::Object(map)))
}

/// Whether it is, or some of its tasks are, to be placed.
fn waits(card: &Card) -> bool {
    matches!(card.state, State::Held | State::Queued) || card.is_waiting()
}

/// Each node's name, with what speaks against it. Where it is not known what nodes have room for, neither is
/// whether they could have it now, unless something else speaks against it. Of a job of a partition that is
/// `closed`, that does first, and whether they could have it ever is not known.
fn told(
    root: &Root,
    asked: &Asked,
    closed: Option<String>,
    (card, seen): (Option<&Card>, Option<Seen>),
    reasons: &Reasons,
) -> Result<Vec<Map<String, Value>>> {
    let unknown = seen.is_none().then(allocated::not_known);
    let beside = beside_nodes(root, asked, card, reasons)?;
    let never = allocated::never(root, asked).is_some();
    let avoid = card.map_or(Vec::new(), Card::nodes_to_avoid);
    let failed = || "it failed there: any other comes first".to_string();
    let told = |node: &Node| {
        let own = || against(asked, node, seen, card).or_else(|| beside.clone());
        let against = closed.clone().or_else(own);
        let now = (against.is_some() || unknown.is_none()).then_some(against.is_none());
        // Nobody knows what a record says that is away, or cannot be gone by.
        let ever = asked.might_go_to(node) && !never;
        let ever = (!ever || closed.is_none()).then_some(ever);
        let avoided = || avoid.contains(&node.name.as_str()).then(failed);
        let objection = against.or_else(|| unknown.clone()).or_else(avoided);
        Map::from_iter([
            ("name".into(), json!(node.name)),
            ("now".into(), json!(now)),
            ("ever".into(), json!(ever)),
            ("objection".into(), json!(objection)),
        ])
    };
    Ok(reasons.all()?.iter().map(told).collect())
}

/// What speaks against all nodes alike.
fn beside_nodes(
    root: &Root,
    asked: &Asked,
    card: Option<&Card>,
    reasons: &Reasons,
) -> Result<Option<String>> {
    if let Some(pause) = pause::read(root)? {
        return Ok(Some(pause.human()));
    }
    if let Some(card) = card
        && let Some(why) = reasons.beside_nodes(card)?
    {
        return Ok(Some(why));
    }
    Ok(reasons.allocated().and_then(|all| all.objection(root, asked)))
}

fn against(asked: &Asked, node: &Node, seen: Option<Seen>, card: Option<&Card>) -> Option<String> {
    objection(asked, node, seen).or_else(|| {
        let until = card?.tasks.refused_until(&node.name, SystemTime::now())?;
        Some(format!("it refused the job, and is asked again at {}", clock::rfc3339(until)))
    })
}

/// `GET nodes/list`, for a job, or for a request: those that could have it at some time, with whether they
/// could now.
pub fn filter(call: &Call, reasons: &Reasons) -> Result<Option<Vec<Value>>> {
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
        let (partition, closed) = reasons.partition_of(&card);
        let asked = card.spec.asked(owner.as_deref(), partition.as_deref());
        let by = (Some(&card), reasons.seen(&card)?);
        return fit(call.root, &asked, closed, by, reasons).map(Some);
    }
    let request: Value = match by_text {
        Some(text) => serde_json::from_str(text)
            .map_err(|e| Error::bad(format!("json_data is not JSON: {e}")))?,
        None if by_body => call.request.body.json(call.root)?,
        None => return Ok(None),
    };
    let spec = Spec::for_head(&request)?;
    let request = request.as_object().cloned().unwrap_or_default();
    let entered = enter(call.root, call.who, &Partitions::new(call.root), &request, spec)?;
    let asked = entered.spec.asked(call.who.user.as_deref(), entered.partition.as_deref());
    let seen = reasons.seen_by_new(&entered.spec, entered.partition.as_deref())?;
    fit(call.root, &asked, None, (None, seen), reasons).map(Some)
}

fn fit(
    root: &Root,
    asked: &Asked,
    closed: Option<String>,
    by: (Option<&Card>, Option<Seen>),
    reasons: &Reasons,
) -> Result<Vec<Value>> {
    let told = told(root, asked, closed, by, reasons)?;
    let fits = |node: &Node| node.is_open() && asked.may_go_to(node);
    let all = reasons.all()?.iter().zip(told).filter(|(node, _)| fits(node));
    let shown = |(node, mut told): (&Node, Map<String, Value>)| {
        let mut shown = node.shown();
        if let Some(fields) = shown.as_object_mut() {
            told.retain(|name, _| ["now", "objection"].contains(&name.as_str()));
            fields.extend(told);
        }
        shown
    };
    Ok(all.map(shown).collect())
}
