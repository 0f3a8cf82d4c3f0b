//! Why a job waits, node by node and in one sentence: the same tests as those that place it.

use super::rooms::{Room, Rooms};
use crate::model::asked::Asked;
use crate::model::node::Node;
use crate::model::resources::Resources;

/// Why a node does not have a job now, for a person; nothing where it is about to. Without rooms what is in use is
/// not known.
pub fn objection(asked: &Asked, node: &Node, rooms: Option<&Rooms>) -> Option<String> {
    if let Some(why) = node.newer_reason() {
        return Some(format!("its record was {why}"));
    }
    if let Some(why) = asked.never(node) {
        return Some(why);
    }
    if !node.is_open() {
        return Some(node.duty());
    }
    if let Some(trouble) = node.absence() {
        return Some(trouble);
    }
    let room = rooms.and_then(|rooms| rooms.get(&node.name))?;
    if fits_now(asked, room) {
        return None;
    }
    let short = asked.resources.minus(&room.total.minus(&room.used));
    Some(format!("short of {}", short.parts().join(", ")))
}

fn fits_now(asked: &Asked, room: &Room) -> bool {
    let Resources { cores, memory, others } = asked.resources;
    room.takes(*cores, *memory, others) || room.has_room(*cores, *memory, others)
}

/// Why a job that asks for this waits, in a sentence, going by the nodes' records, and by what is known to
/// be in use.
pub fn why_waiting(asked: &Asked, nodes: &[Node], used: Option<&Rooms>) -> String {
    let (nodes, others): (Vec<&Node>, Vec<&Node>) =
        nodes.iter().partition(|node| node.takes_jobs_of(asked.user));
    let fit: Vec<&Node> = nodes.iter().copied().filter(|node| asked.may_go_to(node)).collect();
    let open: Vec<&Node> = fit.iter().copied().filter(|node| node.takes_jobs()).collect();
    if !open.is_empty() {
        let next = open.iter().filter(|node| {
            let room = used.and_then(|rooms| rooms.get(&node.name));
            room.is_some_and(|room| fits_now(asked, room))
        });
        let load = |node: &&&Node| used.and_then(|rooms| rooms.get(&node.name)).map(Room::load);
        if let Some(next) = next.min_by_key(|node| (load(node), node.name.clone())) {
            return format!("about to be placed on {}", next.name);
        }
        return format!("waiting for room on {}", names(&open));
    }
    let unknown = nodes.iter().any(|node| node.resources.is_none() && node.newer.is_none());
    let what = asked.human();
    let draining = fit.iter().all(|node| !node.is_open());
    let paused = fit.iter().find_map(|node| node.pause.as_ref());
    let how = paused.map_or("drain".to_string(), |why| format!("paused: {why}"));
    let why = match (fit.is_empty(), unknown) {
        (true, false) => format!("no node has {what}"),
        (true, true) => format!("no node is known to have {what}; some did not answer yet"),
        (false, true) if draining => format!(
            "nodes with {what} take no new jobs ({how}): {}; other nodes did not answer yet",
            names(&fit)
        ),
        (false, false) if draining => {
            format!("nodes with {what} take no new jobs ({how}): {}", names(&fit))
        }
        (false, _) => format!("nodes with {what} do not answer: {}", names(&fit)),
    };
    let would = |node: &&&Node| node.may_hold(asked.resources) && asked.selects(node);
    let first = others.iter().find(would);
    match first.and_then(|node| Some((&node.name, node.owner.as_ref()?))) {
        Some((node, owner)) => format!("{why}; node {node} takes only {owner}'s jobs"),
        None => why,
    }
}

fn names(nodes: &[&Node]) -> String {
    let mut names: Vec<&str> = nodes.iter().take(3).map(|node| node.name.as_str()).collect();
    if nodes.len() > 3 {
        names.push("others");
    }
    names.join(", ")
}
