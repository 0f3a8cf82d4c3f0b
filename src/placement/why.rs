//! Why a job waits, node by node and in one sentence: the same tests as those that place it.

use std::cmp::Reverse;
use std::time::{Duration, SystemTime};

use super::ends::{Millis, NEVER};
use super::rooms::{Room, Rooms};
use crate::clock;
use crate::model::asked::Asked;
use crate::model::node::Node;

/// What is in use, as a job that waits looks at it.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// What nodes have room for.
    pub rooms: &'a Rooms,
    /// The job's number, where it has one.
    pub job: Option<u64>,
    /// Its priority.
    pub priority: i64,
    /// For how long at most it will have what it asks for.
    pub lasts: Millis,
}

impl Seen<'_> {
    fn room(&self, node: &Node) -> Option<&Room> {
        self.rooms.get(&node.name)
    }

    /// The job for which a node is kept, if this one would put that off, and for how long yet, where that is known.
    fn kept_for(&self, asked: &Asked, node: &Node) -> Option<(u64, Option<Millis>)> {
        let place = self.rooms.place_of(&node.name)?;
        let turn = (Reverse(self.priority), self.job.unwrap_or(u64::MAX));
        let now = self.rooms.now;
        let known = self.rooms.reservation_against(place, turn)?;
        let puts_off = !known.lets_past(asked.resources, self.lasts, now);
        let left = Some(known.until).filter(|until| *until != NEVER);
        puts_off.then_some((known.turn.1, left.map(|until| until.saturating_sub(now))))
    }
}

/// Why a node does not have a job now, for a person; nothing where it is about to. Without rooms what is in use is
/// not known.
pub fn objection(asked: &Asked, node: &Node, seen: Option<Seen>) -> Option<String> {
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
    let seen = seen?;
    let room = seen.room(node)?;
    if fits_now(asked, room) {
        let (job, left) = seen.kept_for(asked, node)?;
        let until =
            left.and_then(|left| SystemTime::now().checked_add(Duration::from_millis(left)));
        let until = until.map_or(String::new(), |t| format!(" until about {}", clock::rfc3339(t)));
        return Some(format!("reserved for job {job}{until}"));
    }
    let short = asked.resources.minus(&room.total.minus(&room.used));
    Some(format!("short of {}", short.parts().join(", ")))
}

fn fits_now(asked: &Asked, room: &Room) -> bool {
    room.takes(asked.resources) || room.has_room(asked.resources)
}

/// Why a job that asks for this waits, in a sentence, going by the nodes' records, and by what is known to
/// be in use.
pub fn why_waiting(asked: &Asked, nodes: &[Node], seen: Option<Seen>) -> String {
    let (nodes, others): (Vec<&Node>, Vec<&Node>) =
        nodes.iter().partition(|node| node.takes_jobs_of(asked.user));
    let fit: Vec<&Node> = nodes.iter().copied().filter(|node| asked.may_go_to(node)).collect();
    let open: Vec<&Node> = fit.iter().copied().filter(|node| node.takes_jobs()).collect();
    if !open.is_empty() {
        let next = open.iter().filter(|node| {
            seen.is_some_and(|seen| {
                seen.room(node).is_some_and(|room| fits_now(asked, room))
                    && seen.kept_for(asked, node).is_none()
            })
        });
        let load = |node: &&&Node| seen.as_ref().and_then(|seen| seen.room(node)).map(Room::load);
        if let Some(next) = next.min_by_key(|node| (load(node), node.name.clone())) {
            return format!("about to be placed on {}", next.name);
        }
        let kept = open.iter().find_map(|node| {
            let seen =
                seen.filter(|seen| seen.room(node).is_some_and(|room| fits_now(asked, room)));
            seen?.kept_for(asked, node)
        });
        let kept = kept.map_or(String::new(), |(job, _)| format!("; some is kept for job {job}"));
        return format!("waiting for room on {}{kept}", names(&open));
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
