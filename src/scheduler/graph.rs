//! The graph of a job: the jobs that it submitted, and theirs, walked live.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::access;
use super::jobs::number;
use crate::board::cards::Cards;
use crate::cgi::{Call, Response};
use crate::error::{Error, Kind, Result};
use crate::model::card::Card;

/// Most jobs in one graph.
const LARGEST: usize = 10_000;

/// `GET jobs/N/graph`: from the topmost ancestor of N down.
pub fn graph(call: &Call) -> Result<Response> {
    let cards = Cards::new(call.root);
    let asked = cards.find(number(call)?)?;
    let mut graph = walk(&cards, line_of(&cards, asked, LARGEST), LARGEST);
    for card in &graph.jobs {
        if !access::sees(call, &cards, card)? {
            graph.concealed.insert(card.job());
        }
    }
    match call.request.param("format") {
        None | Some("json") => Ok(Response::of(as_json(&graph))),
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
    /// Whether there were, or may be, more jobs than are shown.
    cut: bool,
    /// Of these whoever asks sees no more than numbers and states.
    concealed: BTreeSet<u64>,
}

impl Graph {
    fn shows(&self, card: &Card) -> bool {
        !self.concealed.contains(&card.job())
    }
}

/// The job and its ancestors, up to the one without a parent on the board. A chain that bites its
/// tail ends where it does.
fn line_of(cards: &Cards, asked: Card, most: usize) -> Vec<Card> {
    let mut seen = BTreeSet::from([asked.job()]);
    let mut line = vec![asked];
    while let Some(parent) = line.last().and_then(|card| card.accepted.parent)
        && line.len() < most
        && seen.insert(parent)
        && let Ok(card) = cards.find(parent)
    {
        line.push(card); // else it was cleaned up
    }
    line
}

/// The graph below the last of a line. What is left out of one that is too large is neither of the
/// line nor, if there is room for them, below the job at its beginning.
fn walk(cards: &Cards, line: Vec<Card>, most: usize) -> Graph {
    let numbers: Vec<u64> = line.iter().map(Card::job).collect();
    let above = line.last().and_then(|top| top.accepted.parent).filter(|_| line.len() >= most);
    let mut jobs: BTreeMap<u64, Card> = line.into_iter().map(|card| (card.job(), card)).collect();
    let mut edges: Vec<(u64, u64)> = numbers.windows(2).map(|pair| (pair[1], pair[0])).collect();
    let mut cut = above.is_some_and(|parent| !jobs.contains_key(&parent));
    for from in &numbers {
        let mut next = vec![*from];
        while let Some(job) = next.pop() {
            let Ok(children) = cards.children(job) else {
                cut = true; // what cannot be read is left out, and nothing else
                continue;
            };
            for child in children {
                edges.push((job, child));
                if jobs.contains_key(&child) {
                    continue;
                }
                if jobs.len() >= most {
                    cut = true;
                    break;
                }
                match cards.peek(child) {
                    Ok(Some(card)) => {
                        jobs.insert(child, card);
                        next.push(child);
                    }
                    // A number without a card: its submission was never finished, or it was cleaned up.
                    Ok(None) => {}
                    Err(error) => cut |= !matches!(error.kind, Kind::NotFound | Kind::Gone),
                }
            }
        }
    }
    edges.retain(|(parent, child)| jobs.contains_key(parent) && jobs.contains_key(child));
    edges.sort_unstable();
    edges.dedup();
    let top = numbers.last().copied().unwrap_or_default();
    let concealed = BTreeSet::new();
    Graph { top, jobs: jobs.into_values().collect(), edges, cut, concealed }
}

fn label(graph: &Graph, card: &Card) -> String {
    if !graph.shows(card) {
        return card.job().to_string();
    }
    let what = match &card.spec.name {
        Some(name) => name.clone(),
        None => card.spec.commands.first().map(|argv| argv.join(" ")).unwrap_or_default(),
    };
    let short: String = what.chars().filter(|c| !c.is_control()).take(40).collect();
    format!("{}: {short}", card.job())
}

fn end(graph: &Graph, card: &Card) -> String {
    match &card.outcome {
        Some(_) if !graph.shows(card) => card.state.word().into(),
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
                "name": card.spec.name.as_ref().filter(|_| graph.shows(card)),
                "parent": card.accepted.parent,
                "state": card.state,
                "status": card.status(),
                "node": card.attempts.last().map(|a| &a.node).filter(|_| graph.shows(card)),
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
        let quoted = format!("{}\\n{}", escape(&label(graph, card)), escape(&end(graph, card)));
        text.push_str(&format!("  {} [label=\"{quoted}\"];\n", card.job()));
    }
    for (parent, child) in &graph.edges {
        text.push_str(&format!("  {parent} -> {child};\n"));
    }
    if graph.cut {
        text.push_str(&format!("  label=\"{}\";\n", cut_note(graph)));
    }
    text.push_str("}\n");
    text
}

fn as_mermaid(graph: &Graph) -> String {
    let mut text = String::from("graph TD\n");
    for card in &graph.jobs {
        let plain = format!("{} ({})", label(graph, card), end(graph, card));
        let plain: String = plain
            .chars()
            .map(|c| if c.is_alphanumeric() || " :._-/()".contains(c) { c } else { ' ' })
            .collect();
        text.push_str(&format!("  j{}[\"{plain}\"]\n", card.job()));
    }
    for (parent, child) in &graph.edges {
        text.push_str(&format!("  j{parent} --> j{child}\n"));
    }
    if graph.cut {
        text.push_str(&format!("  cut[\"{}\"]\n", cut_note(graph)));
    }
    text
}

fn cut_note(graph: &Graph) -> String {
    format!("only {} jobs are shown, there are more", graph.jobs.len())
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::board::files;
    use crate::board::root::Root;
    use crate::model::card::Accepted;

    /// Job 1 submitted 2 to 40, of which 30 submitted 41 and 42, and 40 submitted 43.
    fn family(test: impl FnOnce(&Cards)) {
        let dir = std::env::temp_dir().join(format!("graph-{}", files::random_name().unwrap()));
        std::fs::create_dir(&dir).unwrap();
        let root = Root::open(&dir).unwrap();
        let cards = Cards::new(&root);
        for job in 1..=43 {
            let parent = match job {
                1 => None,
                41 | 42 => Some(30),
                43 => Some(40),
                _ => Some(1),
            };
            let request = json!({"command": ["true"]}).as_object().cloned().unwrap();
            let request_id = format!("r{job}");
            let (at, by) = (crate::clock::now(), "ada".to_string());
            let accepted = Accepted {
                job,
                request_id,
                at,
                by,
                owner: None,
                parent,
                batch: None,
                files: None,
                defaults: Default::default(),
                request,
            };
            cards.submit(&accepted, None).unwrap();
        }
        test(&cards);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn of_a_graph_that_is_too_large_the_job_that_was_asked_for_is_shown() {
        family(|cards| {
            let graph = |asked: u64, most: usize| {
                let line = line_of(cards, cards.find(asked).unwrap(), most);
                walk(cards, line, most)
            };
            let shown = |graph: &Graph| graph.jobs.iter().map(Card::job).collect::<Vec<_>>();
            let whole = graph(42, 100);
            assert_eq!((shown(&whole).len(), whole.edges.len(), whole.cut), (43, 42, false));
            let part = graph(30, 10);
            assert!([1, 30, 41, 42].iter().all(|job| shown(&part).contains(job)));
            assert_eq!((shown(&part).len(), part.edges.len(), part.cut), (10, 9, true));
            assert!(as_dot(&part).contains("only 10 jobs are shown"));
            assert!(as_mermaid(&part).contains("only 10 jobs are shown"));
            assert_eq!(shown(&graph(43, 2)), [40, 43], "the nearest ancestors");
            assert!(graph(43, 2).cut);
        });
    }
}
