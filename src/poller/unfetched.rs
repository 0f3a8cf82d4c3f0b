//! Orders to run attempts that a worker has not fetched: these attempts have provably not run, and wait for
//! another node, or end. It is proved by the box of the worker, where such an order lies until it is handed out; and
//! by this process, which has placed the attempt and ordered it once.

use std::time::{Duration, SystemTime};

use super::engine::Engine;
use super::transitions::Plan;
use crate::board::workers;
use crate::clock;
use crate::error::Result;
use crate::model::card::State;
use crate::model::change::Change;
use crate::model::ids::NodejobId;
use crate::model::node::{DriverKind, Node};

impl Engine<'_> {
    /// Takes back what workers have not fetched within `dead_timeout`.
    pub(super) fn take_back_unfetched(&mut self) {
        let workers: Vec<String> = self
            .nodes
            .values()
            .filter(|node| is_worker(node))
            .map(|node| node.name.clone())
            .collect();
        for node in workers {
            let waits = self.index.on(&node).any(|(_, known)| known.state != State::Running);
            if waits {
                let settings = &self.root.settings;
                let (within, ends) = (settings.dead_timeout, settings.dead_timeout_ends);
                let taken = self.take_back(&node, within, ends);
                self.told(taken);
            }
        }
    }

    /// Before what a silent worker has is given up: what it has not fetched is taken back, and no order to
    /// run what is given up is left to be fetched.
    pub(super) fn forget_orders(&mut self, node: &str) -> Result<()> {
        if !self.nodes.get(node).is_some_and(is_worker) {
            return Ok(());
        }
        self.take_back(node, Duration::ZERO, false)?;
        workers::of(self.root, node)?.forget_runs()
    }

    fn take_back(&mut self, node: &str, for_long: Duration, ends: bool) -> Result<()> {
        let taken = workers::of(self.root, node)?.take_back_runs(for_long)?;
        let mut unrun = Vec::new();
        for id in taken.iter().filter_map(|id| NodejobId::parse(id)) {
            // Another one is asked about when the node answers, and sent again.
            if self.known_mut(&id).is_some_and(|known| known.was_sent_once()) {
                unrun.push(id);
            }
        }
        let within = match for_long {
            Duration::ZERO => String::new(),
            time => format!(" within {}", clock::human(time)),
        };
        let why = format!("node {node} did not fetch it{within}");
        if ends {
            return self.end_as_dead(unrun, &why);
        }
        self.refuse(unrun.into_iter().map(|id| (id, why.clone())).collect())
    }

    fn end_as_dead(&mut self, ids: Vec<NodejobId>, why: &str) -> Result<()> {
        let mut plans: Vec<Plan> = Vec::new();
        for attempt in ids {
            let (job, change) = (attempt.job, Change::Dead { attempt, why: why.to_string() });
            plans.push((job, Box::new(move |card, _| change.lines(card, SystemTime::now()))));
        }
        for card in self.stamp(plans)? {
            self.tell_end(&card);
        }
        Ok(())
    }
}

fn is_worker(node: &Node) -> bool {
    node.newer.is_none() && node.driver == DriverKind::Worker
}
