//! Placing what fits: stamped and durable before a node hears of it.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::SystemTime;

use super::desk::Order;
use super::engine::Engine;
use super::index::Moment;
use super::transitions::PlanFn;
use super::wake::Wake;
use crate::attempts::{self, ranges};
use crate::board::nodes::Registered;
use crate::board::{numbers, pause, vault};
use crate::clock::Present;
use crate::error::Result;
use crate::model::asked::Asked;
use crate::model::card::{Attempt, Card, State, What};
use crate::model::node::Node;
use crate::placement::Candidate;

/// Most jobs that are placed before reports are looked at again.
const PLACED_PER_ROUND: usize = 256;

impl Engine<'_> {
    /// Places what fits, records it, and only then tells the nodes.
    pub(super) fn place(&mut self) -> Result<()> {
        self.index.take_up(); // first: what is set aside wakes this again and again when its time has come
        if pause::is_paused(self.root) {
            return Ok(());
        }
        if self.index.ready.is_empty() {
            return Ok(());
        }
        let mut cluster: Option<Rc<str>> = None;
        loop {
            for (node, ahead, like) in self.paces.ahead(self.nodes.names()) {
                self.index.rooms.set_ahead_like(&node, ahead, &like);
            }
            let at_once = if self.step.is_shown() { 1 } else { PLACED_PER_ROUND };
            // Set by a plan that finds another registration than the one it was made for.
            let outdated = Rc::new(Cell::new(false));
            let mut choices = Vec::new();
            let mut taken = Vec::new();
            while choices.len() < at_once {
                let Some(next) = self.index.place_next(Moment::now()) else { break };
                let (chosen, candidate) = (self.nodes.get(&next.node).cloned(), &next.candidate);
                let by = candidate.partition.clone().map(|partition| {
                    let version = self.rules.version(&partition);
                    (partition, version)
                });
                let choice = chosen.map(|node| (candidate.job, node, self.slots(candidate), by));
                taken.push(next);
                let Some(choice) = choice else {
                    outdated.set(true);
                    break;
                };
                choices.push(choice);
            }
            if taken.is_empty() {
                return Ok(());
            }
            let count = choices.len();
            let placed = self.name_attempts(&mut cluster).and_then(|cluster| {
                // Their servers get ready while the disk takes the placements.
                let nodes: BTreeSet<&String> = taken.iter().map(|taken| &taken.node).collect();
                for node in nodes {
                    self.order(node, Order::Prepare);
                }
                let clock = self.index.present(SystemTime::now());
                let choices = choices.into_iter();
                let plans = choices.map(|(job, node, slots, by)| {
                    let (cluster, outdated) = (cluster.clone(), outdated.clone());
                    let clock = clock.clone();
                    let plan = move |card: &Card, registered: &Registered| {
                        let is_same = by.as_ref().is_none_or(|(partition, version)| {
                            version.is_some() && registered.partition(partition) == *version
                        });
                        if registered.is_paused() || !is_same || !is_open(&node, registered)? {
                            outdated.set(true);
                            return Ok(Vec::new());
                        }
                        let now = clock.at(SystemTime::now());
                        Ok(place_plan(&cluster, card, &node, slots, &now))
                    };
                    (job, Box::new(plan) as PlanFn)
                });
                self.stamp(plans.collect())
            });
            // A card that was placed has taken its room itself by now.
            taken.iter().for_each(|taken| self.index.release(taken));
            if placed.is_err() || outdated.get() {
                for taken in taken {
                    self.index.put_back(taken.candidate);
                }
            }
            let placed = placed?;
            let (ended, placed): (Vec<Card>, Vec<Card>) =
                placed.into_iter().partition(|card| card.state == State::Stopped);
            ended.iter().for_each(|card| self.tell_end(card)); // none can be made any more
            let placed: Vec<(&Card, &Attempt)> =
                placed.iter().filter_map(|card| Some((card, card.attempts.last()?))).collect();
            for (_, attempt) in &placed {
                if let Some(known) = self.known_mut(&attempt.nodejob) {
                    known.stamped_here = true;
                }
            }
            let sent = self.send(&placed);
            if outdated.get() {
                self.load_partitions()?;
                self.load_nodes()?;
                sent?;
                return self.yield_round();
            }
            sent?;
            if count < at_once || !self.once {
                return if count < at_once { Ok(()) } else { self.yield_round() };
            }
        }
    }

    /// The name of the cluster, which the attempts that are about to be made have; with it is there
    /// what their keys are made of. Asked for where there is something to place alone: a name or a
    /// secret that cannot be read is told when it is missed.
    fn name_attempts(&self, known: &mut Option<Rc<str>>) -> Result<Rc<str>> {
        if let Some(cluster) = known {
            return Ok(cluster.clone());
        }
        let cluster: Rc<str> = numbers::cluster(self.root)?.into();
        vault::attempt_secret(self.root)?; // made, if at all, before any job is with a node
        *known = Some(cluster.clone());
        Ok(cluster)
    }

    /// How many jobs that ask for what this one does the nodes that take it can run at a time.
    fn slots(&self, candidate: &Candidate) -> u64 {
        let selector = self.index.ready.selector(candidate);
        let (user, selector) = (candidate.owner.as_deref(), selector.as_deref());
        let needed = &candidate.resources;
        // Its partition's is in the selector.
        let asked = Asked { resources: needed, selector, user, partition: None };
        let open = self.nodes.values().filter(|node| node.takes_jobs() && asked.may_go_to(node));
        let slots =
            open.filter_map(|node| node.resources.as_ref()).map(|total| needed.times_in(total));
        slots.fold(0, u64::saturating_add) // whatever nodes say that they have
    }

    /// More is to be placed, but reports come first.
    pub(super) fn yield_round(&self) -> Result<()> {
        let _ = self.waker.send(Wake::Batch); // our own receiver is alive
        Ok(())
    }
}

/// Whether a node takes jobs where it did when it was chosen, and whose it did. Decided under the board's lock, under
/// which it is registered, changed and removed.
fn is_open(chosen: &Node, registered: &Registered) -> Result<bool> {
    let now = registered.find(&chosen.name)?;
    let open = |now: &Node| {
        let same = now.address() == chosen.address() && now.owner == chosen.owner;
        same && now.is_open() && now.newer.is_none()
    };
    Ok(now.is_some_and(|now| open(&now)))
}

fn place_plan(cluster: &str, card: &Card, node: &Node, slots: u64, now: &Present) -> Vec<What> {
    if card.tasks.refused_until(&node.name, now.time()).is_some() {
        return Vec::new();
    }
    let tasks = ranges::next(card, slots, now);
    if tasks.is_empty() {
        return Vec::new();
    }
    vec![attempts::place(cluster, card, node, tasks)]
}
