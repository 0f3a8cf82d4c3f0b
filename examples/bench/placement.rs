//! What a decision costs: pure policy, no files.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use corkboard::model::node::{Node, NodeState};
use corkboard::model::resources::Resources;
use corkboard::model::selector::{Labels, Selector};
use corkboard::placement::ends::NEVER;
use corkboard::placement::{Candidate, Cap, Placed, Ready, Rooms};
use corkboard::strategy::Strategy;
use serde_json::{Value, json};

use crate::table::{Limit, Table};
use crate::{Bench, Result};

const GIB: u64 = 1 << 30;

/// As the settings have it.
const RESERVATIONS: usize = 4;

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

/// How much jobs differ in what they ask for.
#[derive(Clone, Copy)]
enum Needs {
    /// 30 kinds of need.
    Few,
    /// No two alike: usual numbers of cores, any size of memory.
    Each,
    /// No two alike, and any number of cores.
    Any,
}

/// What is simulated.
#[derive(Clone, Copy)]
struct Mix {
    nodes: usize,
    jobs: usize,
    needs: Needs,
    /// No two nodes are alike; otherwise there are twelve sizes.
    each_node: bool,
    /// How many jobs each node may be sent beyond its room.
    ahead: u64,
    /// Every tenth node is one of ten users', and takes the jobs of theirs alone. Jobs are of twenty users,
    /// the same in each case.
    owned: bool,
    /// Nodes have labels, every fourth has GPUs and every fifth scratch space; half of the jobs ask for labels, a
    /// fourth for GPUs or scratch space.
    various: bool,
}

pub fn measure(bench: &Bench, table: &mut Table) -> Result<()> {
    let (nodes, jobs) = (bench.size(1000, 100), bench.size(100_000, 2000));
    let usual = Mix {
        nodes,
        jobs,
        needs: Needs::Few,
        each_node: false,
        ahead: 0,
        owned: false,
        various: false,
    };
    let limit = Some(Limit::AtMost(10.0, 2.0));
    let mut row = |mix: Mix, what: &str, limit: Option<Limit>, note: &str| -> Result<()> {
        let all: Result<Vec<_>> = (0..bench.rounds).map(|_| once(mix)).collect();
        let (decisions, inserts): (Vec<f64>, Vec<f64>) = all?.into_iter().unzip();
        let what = format!("{} simulated nodes, {} jobs{what}", mix.nodes, mix.jobs);
        let inserts = crate::table::median(&inserts);
        let note = format!("{note}; taking a job in costs {inserts:.1} µs more");
        table.figure("placement", what, "µs/job", &decisions, limit, note);
        Ok(())
    };
    let note =
        "30 kinds of need, 11 priorities; a decision and giving back the room when the job ends";
    row(usual, "", limit, note)?;
    for nodes in [1, 10, 100] {
        row(Mix { nodes, ..usual }, "", None, "the same")?;
    }
    for jobs in [100, 1000, 10_000, bench.size(1_000_000, 20_000)] {
        row(Mix { jobs, ..usual }, "", None, "the same")?;
    }
    let each = Mix { needs: Needs::Each, ..usual };
    let any = Mix { needs: Needs::Any, ..usual };
    let waiting = "each job is a kind of its own, and most must wait";
    row(
        Mix { jobs: bench.size(10_000, 1000), ..each },
        ", no two alike",
        limit,
        "all fit at once",
    )?;
    row(Mix { jobs: bench.size(30_000, 2000), ..each }, ", no two alike", limit, waiting)?;
    row(each, ", no two alike", limit, waiting)?;
    row(any, ", no two alike, any number of cores", limit, waiting)?;
    row(
        Mix { each_node: true, ..usual },
        ", all nodes different",
        limit,
        "no two nodes are alike",
    )?;
    let what = ", no two alike, all nodes different";
    row(Mix { each_node: true, ..any }, what, limit, waiting)?;
    let what = ", no two alike, all nodes different, 6 sent ahead";
    row(Mix { each_node: true, ahead: 6, ..any }, what, limit, waiting)?;
    let note = "every tenth node takes the jobs of one user alone";
    row(Mix { owned: true, ..usual }, ", some nodes are users'", limit, note)?;
    row(Mix { owned: true, ..any }, ", no two alike, some nodes are users'", limit, waiting)?;
    let note = "labels, GPUs and countables";
    let what = ", labels, GPUs and countables";
    row(Mix { various: true, ..usual }, what, Some(Limit::AtMost(5.0, 3.0)), note)?;
    let what = ", no two alike, labels, GPUs and countables";
    let most = Some(Limit::AtMost(15.0, 8.0));
    row(Mix { various: true, needs: Needs::Each, ..usual }, what, most, note)
}

/// Microseconds per job of a decision, and of taking a job in.
fn once(mix: Mix) -> Result<(f64, f64)> {
    let jobs = mix.jobs;
    let mut dice = Dice(7);
    let mut rooms = Rooms::default();
    for node in 0..mix.nodes {
        let cores = dice.one_of(&[4, 16, 64, 128]);
        let memory = cores * dice.one_of(&[2, 4, 8]) * GIB;
        let own = if mix.each_node { dice.below(GIB) } else { 0 };
        let mut labels = Labels::new();
        let mut total = Resources::of(cores, memory + own);
        if mix.various {
            let mut label = |name: &str, values: &[&str]| {
                let value = values[dice.below(values.len() as u64) as usize];
                labels.insert(name.to_string(), value.to_string());
            };
            label("disk", &["ssd", "hdd", "nvme"]);
            label("zone", &["a", "b", "c", "d"]);
            label("arch", &["x86_64", "x86_64", "aarch64"]);
            labels.insert("hostname".into(), format!("node-{node:04}"));
            total = total.and("gpus", if node % 4 == 0 { dice.one_of(&[1, 2, 4, 8]) } else { 0 });
            let scratch = if node % 5 == 0 { 100 * GIB + dice.below(1000) * GIB } else { 0 };
            total = total.and("scratch", scratch);
        }
        let owner = (mix.owned && node % 10 == 0).then(|| format!("user-{}", node / 10 % 10));
        add(&mut rooms, &format!("node-{node:04}"), (owner, labels), total, mix.ahead);
    }
    // Something that every job fits on, so that all can be placed.
    let total = Resources::of(128, 1024 * GIB).and("gpus", 8).and("scratch", 4096 * GIB);
    let total = if mix.various { total } else { Resources::of(128, 1024 * GIB) };
    add(&mut rooms, "node-large", (None, Labels::new()), total, mix.ahead);
    let selectors = selectors()?;
    let users: Vec<Arc<str>> = (0..20).map(|user| format!("user-{user}").into()).collect();
    let candidates: Vec<Candidate> = (1..=jobs as u64)
        .map(|job| {
            let cores = match mix.needs {
                Needs::Few | Needs::Each => dice.one_of(&[1, 1, 1, 2, 4, 8, 16]),
                Needs::Any => 1 + dice.below(64),
            };
            let memory = match mix.needs {
                Needs::Few => dice.one_of(&[0, 0, 1, 2, 4, 8, 16]) * GIB,
                Needs::Each | Needs::Any => dice.below(16 * GIB),
            };
            let priority = dice.below(11) as i64 - 5;
            let mut resources = Resources::of(cores, memory);
            let mut selector = None;
            if mix.various {
                if dice.below(2) == 0 {
                    selector = Some(selectors[dice.below(selectors.len() as u64) as usize].clone());
                }
                let most = if matches!(mix.needs, Needs::Few) { 1 } else { 64 };
                match dice.below(8) {
                    0 => resources = resources.and("gpus", dice.one_of(&[1, 1, 2])),
                    1 => {
                        resources =
                            resources.and("scratch", 20 * GIB + dice.below(most) * (GIB / 8))
                    }
                    _ => {}
                }
            }
            Candidate {
                job,
                priority,
                owner: Some(users[job as usize % users.len()].clone()),
                partition: None,
                resources,
                lasts: NEVER,
                selector,
                strategy: Strategy::Spread,
                avoid: Vec::new(),
                more: 0,
            }
        })
        .collect();
    let mut ready = Ready::with(Cap::default(), RESERVATIONS);
    let begun = Instant::now();
    for candidate in candidates {
        ready.insert(&mut rooms, candidate);
    }
    let inserts = begun.elapsed().as_secs_f64() * 1e6 / jobs as f64;
    let mut running: VecDeque<(String, Resources)> = VecDeque::new();
    let mut placed = 0;
    let begun = Instant::now();
    while placed < jobs {
        while let Some(Placed { candidate, node, .. }) = ready.place_next(&mut rooms) {
            running.push_back((node, candidate.resources));
            placed += 1;
        }
        // Those that began first end first, a few between two looks.
        for _ in 0..8 {
            let Some((node, resources)) = running.pop_front() else { break };
            rooms.give_back(&node, &resources, NEVER);
        }
        if running.is_empty() && placed < jobs && ready.is_empty() {
            return Err("jobs got lost".into());
        }
    }
    Ok((begun.elapsed().as_secs_f64() * 1e6 / jobs as f64, inserts))
}

/// What is asked of labels.
fn selectors() -> Result<Vec<Arc<Selector>>> {
    let all = [
        json!({"disk": "ssd"}),
        json!({"disk": {"in": ["ssd", "nvme"]}}),
        json!({"disk": {"not": "hdd"}, "zone": "a"}),
        json!({"zone": {"not": "b"}}),
        json!({"zone": {"in": ["a", "c"]}}),
        json!({"zone": "d"}),
        json!({"arch": "x86_64"}),
        json!({"arch": "x86_64", "disk": "nvme"}),
        json!({"arch": {"not": "aarch64"}, "zone": "b"}),
        json!({"arch": {"exists": true}}),
    ];
    // On the node that every job fits on there is no label: what asks for one must not rely on it.
    let read =
        |tests: &Value| Ok(Arc::new(Selector::of_labels(tests.as_object().ok_or("no tests")?)?));
    all.iter().map(read).collect()
}

/// Adds an open node with nothing in use.
fn add(
    rooms: &mut Rooms,
    name: &str,
    (owner, labels): (Option<String>, Labels),
    total: Resources,
    ahead: u64,
) {
    let node = Node {
        name: name.into(),
        owner,
        state: NodeState::Connected,
        resources: Some(total),
        labels,
        ..Node::localhost()
    };
    rooms.update(&node);
    rooms.set_ahead(name, ahead);
}
