//! What a decision costs: pure policy, no files.

use std::collections::VecDeque;
use std::time::Instant;

use corkboard::model::resources::Resources;
use corkboard::placement::{Candidate, Ready, Room, Rooms};

use crate::table::{Limit, Table};
use crate::{Bench, Result};

const GIB: u64 = 1 << 30;

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    fn one_of(&mut self, values: &[u64]) -> u64 {
        values[self.below(values.len() as u64) as usize]
    }
}

pub fn measure(bench: &Bench, table: &mut Table) -> Result<()> {
    let (nodes, jobs) = (bench.size(1000, 100), bench.size(100_000, 2000));
    let limit = Some(Limit::AtMost(10.0, 2.0));
    let rounds = |nodes, jobs, kinds| -> Result<(Vec<f64>, Vec<f64>)> {
        let all: Result<Vec<_>> = (0..bench.rounds).map(|_| once(nodes, jobs, kinds)).collect();
        Ok(all?.into_iter().unzip())
    };
    let (decisions, inserts) = rounds(nodes, jobs, Kinds::Mixed)?;
    let note = format!(
        "30 kinds of need, 11 priorities; a decision and giving back the room when the job ends; taking a job in costs {:.1} µs more",
        crate::table::median(&inserts)
    );
    table.figure(
        "placement",
        format!("{nodes} nodes, {jobs} jobs"),
        "µs/job",
        &decisions,
        limit,
        note,
    );
    for nodes in [1, 10, 100] {
        let (decisions, _) = rounds(nodes, jobs, Kinds::Mixed)?;
        table.figure(
            "placement",
            format!("{nodes} nodes, {jobs} jobs"),
            "µs/job",
            &decisions,
            None,
            "",
        );
    }
    for jobs in [100, 1000, 10_000, bench.size(1_000_000, 20_000)] {
        let (decisions, _) = rounds(nodes, jobs, Kinds::Mixed)?;
        table.figure(
            "placement",
            format!("{nodes} nodes, {jobs} jobs"),
            "µs/job",
            &decisions,
            None,
            "",
        );
    }
    let (decisions, _) = rounds(nodes, bench.size(30_000, 2000), Kinds::Each)?;
    let what = format!("{nodes} nodes, {} jobs, no two alike", bench.size(30_000, 2000));
    table.figure(
        "placement",
        what,
        "µs/job",
        &decisions,
        None,
        "each job is a kind of its own, and most must wait",
    );
    Ok(())
}

#[derive(Clone, Copy)]
enum Kinds {
    Mixed,
    Each,
}

/// Microseconds per job of a decision, and of taking a job in.
fn once(nodes: usize, jobs: usize, kinds: Kinds) -> Result<(f64, f64)> {
    let mut dice = Dice(7);
    let mut rooms = Rooms::default();
    for node in 0..nodes {
        let cores = dice.one_of(&[4, 16, 64, 128]);
        let total = Resources { cores, memory: cores * dice.one_of(&[2, 4, 8]) * GIB };
        let room = Room { open: true, total, used: Resources::NONE, ahead: 0 };
        rooms.set(&format!("node-{node:04}"), room);
    }
    // Something that every job fits on, so that all can be placed.
    let total = Resources { cores: 128, memory: 1024 * GIB };
    rooms.set("node-large", Room { open: true, total, used: Resources::NONE, ahead: 0 });
    let candidates: Vec<Candidate> = (1..=jobs as u64)
        .map(|job| {
            let cores = dice.one_of(&[1, 1, 1, 2, 4, 8, 16]);
            let memory = match kinds {
                Kinds::Mixed => dice.one_of(&[0, 0, 1, 2, 4, 8, 16]) * GIB,
                Kinds::Each => dice.below(16 * GIB),
            };
            let priority = dice.below(11) as i64 - 5;
            Candidate {
                job,
                priority,
                resources: Resources { cores, memory },
                avoid: Vec::new(),
                more: 0,
            }
        })
        .collect();
    let mut ready = Ready::default();
    let begun = Instant::now();
    for candidate in candidates {
        ready.insert(candidate);
    }
    let inserts = begun.elapsed().as_secs_f64() * 1e6 / jobs as f64;
    let mut running: VecDeque<(String, Resources)> = VecDeque::new();
    let mut placed = 0;
    let begun = Instant::now();
    while placed < jobs {
        while let Some((candidate, node)) = ready.place_next(&mut rooms) {
            running.push_back((node, candidate.resources));
            placed += 1;
        }
        // Those that began first end first, a few between two looks.
        for _ in 0..8 {
            let Some((node, resources)) = running.pop_front() else { break };
            rooms.give_back(&node, &resources);
        }
        if running.is_empty() && placed < jobs && ready.is_empty() {
            return Err("jobs got lost".into());
        }
    }
    Ok((begun.elapsed().as_secs_f64() * 1e6 / jobs as f64, inserts))
}
