//! The graph of a job: the jobs that it submitted, and theirs, walked live.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::jobs::number;
use crate::board::cards::Cards;
use crate::cgi::{Call, Response};
use crate::error::{Error, Result};
use crate::model::card::Card;

/// Most jobs in one graph.
const LARGEST: usize = 10_000;

/// `GET jobs/N/graph`: from the topmost ancestor of N down.
pub fn graph(call: &Call) -> Result<Response> {
    let cards = Cards::new(call.root);
    let asked = cards.find(number(call)?)?;
    let top = topmost(&cards, asked)?;
    let graph = walk(&cards, top)?;
    match call.request.param("format") {
        None | Some("json") => Response::json(&as_json(&graph)),
        Some("dot") => Ok(Response::text(as_dot(&graph))),
        Some("mermaid") => Ok(Response::text(as_mermaid(&graph))),
        Some(_) => Err(Error::bad("format must be json, dot or mermaid")),
    }
}

struct Graph {
    top: u64,
    jobs: Vec<Card>,
    /// Parent and child.
    edges: Vec<(u64, u64)>,
    /// Whether there were more jobs than are shown.
    cut: bool,
}

/// The ancestor without a parent on the board. A chain that bites its tail ends where it does.
fn topmost(cards: &Cards, mut card: Card) -> Result<u64> {
    let mut seen = BTreeSet::from([card.job()]);
    while let Some(parent) = card.accepted.parent.filter(|parent| seen.insert(*parent)) {
        match cards.find(parent) {
            Ok(found) => card = found,
            Err(_) => break, // cleaned up
        }
    }
    Ok(card.job())
}

fn walk(cards: &Cards, top: u64) -> Result<Graph> {
    let mut graph = Graph { top, jobs: Vec::new(), edges: Vec::new(), cut: false };
    let mut seen = BTreeSet::from([top]);
    let mut next = vec![top];
    while let Some(job) = next.pop() {
        // A number without a card: its submission was never finished, or it was cleaned up.
        let Ok(card) = cards.find(job) else {
            graph.edges.retain(|(_, child)| *child != job);
            continue;
        };
        graph.jobs.push(card);
        for child in cards.children(job)? {
            graph.edges.push((job, child));
            if graph.jobs.len() + next.len() >= LARGEST {
                graph.cut = true;
            } else if seen.insert(child) {
                next.push(child);
            }
        }
    }
    graph.jobs.sort_unstable_by_key(Card::job);
    graph.edges.sort_unstable();
    Ok(graph)
}

fn label(card: &Card) -> String {
    let what = match &card.spec.name {
        Some(name) => name.clone(),
        None => card.spec.commands.first().map(|argv| argv.join(" ")).unwrap_or_default(),
    };
    let short: String = what.chars().filter(|c| !c.is_control()).take(40).collect();
    format!("{}: {short}", card.job())
}

fn end(card: &Card) -> String {
    match &card.outcome {
        Some(outcome) => outcome.reason.clone().unwrap_or_else(|| "good".into()),
        None => card.state.word().into(),
    }
}

fn as_json(graph: &Graph) -> Value {
    let jobs: Vec<Value> = graph
        .jobs
        .iter()
        .map(|card| {
            json!({
                "job": card.job(),
                "name": card.spec.name,
                "parent": card.accepted.parent,
                "state": card.state,
                "status": card.status(),
                "node": card.attempts.last().map(|a| &a.node),
            })
        })
        .collect();
    let edges: Vec<Value> = graph
        .edges
        .iter()
        .map(|(parent, child)| json!({"parent": parent, "child": child}))
        .collect();
    json!({"root": graph.top, "jobs": jobs, "edges": edges, "cut": graph.cut})
}

fn as_dot(graph: &Graph) -> String {
    let mut text = String::from("digraph jobs {\n");
    for card in &graph.jobs {
        let quoted = format!("{}\\n{}", escape(&label(card)), escape(&end(card)));
        text.push_str(&format!("  {} [label=\"{quoted}\"];\n", card.job()));
    }
    for (parent, child) in &graph.edges {
        text.push_str(&format!("  {parent} -> {child};\n"));
    }
    text.push_str("}\n");
    text
}

fn as_mermaid(graph: &Graph) -> String {
    let mut text = String::from("graph TD\n");
    for card in &graph.jobs {
        let plain = format!("{} ({})", label(card), end(card));
        let plain: String = plain
            .chars()
            .map(|c| if c.is_alphanumeric() || " :._-/()".contains(c) { c } else { ' ' })
            .collect();
        text.push_str(&format!("  j{}[\"{plain}\"]\n", card.job()));
    }
    for (parent, child) in &graph.edges {
        text.push_str(&format!("  j{parent} --> j{child}\n"));
    }
    text
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}
